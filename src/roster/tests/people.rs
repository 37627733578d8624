//! Those who sign in tests: each with its keys and a roster.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::identity::PrivateKey;
use crate::roster::{
    Admission, ClusterId, ClusterSettings, DesiredProtection, EntryId, FloatingPlace, Genesis, Invite, Join,
    Keys, Member, Merged, NotTaken, ROSTER_MAX, Roster, Saying, Seconds, SignedEntry, Signer, Site,
    Statement, Version,
};
use crate::types::UnixTime;

pub const NOW: UnixTime = UnixTime(1_800_000_000);

/// The Ed25519 key that a name stands for (PKCS#8, RFC 8410 section 7): the same in each run.
pub fn key(name: &str) -> PrivateKey {
    let mut der = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
    der.extend(Sha256::digest(name));
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
    PrivateKey::from_pem(&pem).unwrap()
}

pub fn signer(name: &str) -> Signer {
    Signer::of(&key(name)).unwrap()
}

pub fn site(name: &str, last: u8) -> Site {
    Site {
        name: name.parse().unwrap(),
        addresses: vec![IpAddr::from([10, 0, 0, last])],
        inside: BTreeMap::new(),
    }
}

pub fn keys(of: &str) -> Keys {
    Keys { signing: signer(of), ike: signer(&format!("{of} ike")) }
}

/// Signs with the keys that the names stand for.
pub fn sign(cluster: ClusterId, statement: Statement, by: &[&str]) -> Vec<u8> {
    let keys: Vec<PrivateKey> = by.iter().map(|name| key(name)).collect();
    let keys: Vec<&PrivateKey> = keys.iter().collect();
    SignedEntry::sign(cluster, statement, &keys).unwrap().octets().to_vec()
}

pub fn statement(by: &str, version: (u64, u64), says: Saying) -> Statement {
    Statement { by: signer(by), version: Version(version.0, version.1), after: Vec::new(), basis: None, says }
}

/// The entry that founds a cluster with the node `first`.
pub fn genesis(first: &str) -> Vec<u8> {
    let says = Saying::Genesis(Genesis {
        cluster: "prod".to_owned(),
        site: site(first, 1),
        keys: keys(first),
        recovery: signer("recovery"),
    });
    let ike = format!("{first} ike");
    sign(ClusterId::new([0; 32]), statement(first, (0, 0), says), &[first, &ike, "recovery"])
}

/// A cluster as one host sees it, with what everybody in it does.
pub struct Town {
    pub roster: Roster,
}

impl Town {
    /// A cluster of the admin a.
    pub fn new() -> Self {
        Self { roster: Roster::found(&genesis("a")).unwrap() }
    }

    /// A cluster of the admin a, of b, and so on.
    pub fn of(names: &[&str]) -> Self {
        let mut town = Self::new();
        for (at, name) in names.iter().enumerate().skip(1) {
            town.join("a", name, u8::try_from(at + 1).unwrap(), false);
        }
        town
    }

    pub fn take(&mut self, entry: Vec<u8>) -> Merged {
        self.roster.merge([entry.as_slice()])
    }

    /// Somebody says something, as the command does it.
    pub fn say(&mut self, by: &str, says: Saying) -> EntryId {
        let entry = self.entry(by, says);
        assert_eq!(self.take(entry.clone()), Merged { taken: 1, refused: BTreeMap::new() });
        self.id_of(&entry)
    }

    pub fn entry(&self, by: &str, says: Saying) -> Vec<u8> {
        let statement = self.roster.draft(signer(by), says, NOW).unwrap();
        sign(self.roster.cluster(), statement, &[by])
    }

    pub fn id_of(&self, octets: &[u8]) -> EntryId {
        self.roster.in_order().find(|entry| entry.octets() == octets).map(SignedEntry::id).unwrap()
    }

    /// The admin `by` invites, and says what key the token has.
    pub fn invite(&mut self, by: &str, token: &str, invite: Invite) -> EntryId {
        let statement = self.roster.draft(signer(by), Saying::Invite(invite), NOW).unwrap();
        let entry = sign(self.roster.cluster(), statement, &[by, token]);
        assert_eq!(self.take(entry.clone()).taken, 1);
        self.id_of(&entry)
    }

    /// What a node signs that joins by `token`.
    pub fn joining(&self, token: &str, name: &str, last: u8) -> Vec<u8> {
        let says = Saying::Join(Join { site: site(name, last), keys: keys(name) });
        let ike = format!("{name} ike");
        sign(self.roster.cluster(), statement(token, (0, 0), says), &[token, name, &ike])
    }

    /// The admin `by` invites a node, which joins.
    pub fn join(&mut self, by: &str, name: &str, last: u8, admin: bool) -> EntryId {
        let token = format!("token of {name}");
        self.invite(by, &token, Invite { admin, ..invite(&token, name) });
        let join = self.joining(&token, name, last);
        self.take(join.clone());
        let id = self.id_of(&join);
        self.say(by, Saying::Admission(Admission { of: id }));
        assert!(self.member(name).is_some(), "{:?}", self.roster.view().held_out);
        id
    }

    /// A member admits a node, whatever its own roster says to that.
    pub fn admit(&mut self, by: &str, join: &[u8]) {
        let says = Saying::Admission(Admission { of: self.id_of(join) });
        let entry = sign(self.roster.cluster(), statement(by, (0, 0), says), &[by]);
        assert_eq!(self.take(entry).taken, 1);
    }

    pub fn member(&self, name: &str) -> Option<&Member> {
        self.roster.view().members.iter().find(|member| member.site.name.as_str() == name)
    }

    pub fn line(&self, name: &str) -> EntryId {
        self.member(name).unwrap().line
    }

    pub fn names(&self) -> Vec<&str> {
        self.roster.view().members.iter().map(|member| member.site.name.as_str()).collect()
    }

    pub fn admins(&self) -> Vec<&str> {
        self.roster.view().admins().map(|member| member.site.name.as_str()).collect()
    }

    /// The node is taken out; what was signed for it.
    pub fn remove(&mut self, by: &str, name: &str) -> Vec<Vec<u8>> {
        let entries = self.removing(by, name);
        entries.iter().for_each(|entry| assert_eq!(self.take(entry.clone()).taken, 1));
        entries
    }

    /// The same of a node whose key is in other hands.
    pub fn throw_out(&mut self, by: &str, name: &str) {
        let gone = self.roster.removal(signer(by), self.line(name), true, NOW).unwrap();
        for gone in gone {
            let entry = sign(self.roster.cluster(), gone, &[by]);
            assert_eq!(self.take(entry).taken, 1);
        }
    }

    pub fn removing(&self, by: &str, name: &str) -> Vec<Vec<u8>> {
        let gone = self.roster.removal(signer(by), self.line(name), false, NOW).unwrap();
        gone.into_iter().map(|gone| sign(self.roster.cluster(), gone, &[by])).collect()
    }

    pub fn set_admin(&mut self, by: &str, name: &str, admin: bool) {
        let rights = self.roster.rights(signer(by), self.line(name), admin, NOW).unwrap();
        for rights in rights {
            let entry = sign(self.roster.cluster(), rights, &[by]);
            assert_eq!(self.take(entry).taken, 1);
        }
    }

    /// `by` says as much as there is room for, each time about something else; why the rest was refused.
    pub fn fill(&mut self, by: &str, prefix: &str) -> BTreeMap<NotTaken, usize> {
        let cluster = self.roster.cluster();
        let nodes = vec![EntryId::new([0; 32]); 75];
        let entry = |at: usize, nodes: &[EntryId]| {
            let name = format!("{prefix}-{at}").parse().unwrap();
            let place = FloatingPlace { name, addresses: Vec::new(), nodes: nodes.to_vec() };
            sign(cluster, statement(by, (1, 0), Saying::Floating(place)), &[by])
        };
        let long: Vec<Vec<u8>> = (0..ROSTER_MAX / 3600).map(|at| entry(at, &nodes)).collect();
        long.chunks(100).for_each(|some| drop(self.roster.merge(some.iter().map(Vec::as_slice))));
        let last = (0..4).rev().flat_map(|size| (0..12).map(move |at| (size, at)));
        let mut refused = BTreeMap::new();
        for (size, at) in last {
            let size = [0, 1, 8, 75][size];
            let merged = self.take(entry(9000 + 100 * size + at, &nodes[..size]));
            refused = merged.refused;
        }
        refused
    }

    pub fn is_on(&self) -> Option<bool> {
        self.roster.view().desired.as_ref().map(|desired| desired.says.on)
    }

    pub fn settings(&self) -> Option<&str> {
        self.roster.view().settings.as_ref().map(|settings| settings.says.toml.as_str())
    }

    /// Another host that has heard everything from this one.
    pub fn copy(&self) -> Self {
        let mut copy = Self { roster: Roster::found(&genesis("a")).unwrap() };
        copy.hear(self);
        assert_eq!(copy.roster.id(), self.roster.id());
        copy
    }

    /// Takes what the other has.
    pub fn hear(&mut self, other: &Town) -> Merged {
        let entries: Vec<&[u8]> = other.roster.in_order().map(SignedEntry::octets).collect();
        self.roster.merge(entries)
    }

    /// Both tell each other all.
    pub fn meet(&mut self, other: &mut Town) {
        self.hear(other);
        other.hear(self);
        assert_eq!(self.roster.id(), other.roster.id());
        assert_eq!(self.roster.view(), other.roster.view());
    }
}

pub fn invite(token: &str, name: &str) -> Invite {
    Invite {
        key: signer(token),
        name: Some(name.parse().unwrap()),
        line: None,
        admin: false,
        expires: Seconds(NOW.0 + 3600),
        within: Vec::new(),
        addresses: Vec::new(),
    }
}

pub fn on() -> Saying {
    Saying::Desired(DesiredProtection { on: true, trial: None, confirms: None })
}

pub fn off() -> Saying {
    Saying::Desired(DesiredProtection { on: false, trial: None, confirms: None })
}

pub fn set(toml: &str) -> Saying {
    Saying::Settings(ClusterSettings::lasting(toml))
}
