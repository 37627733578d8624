//! A host that runs by a file and is to be a member of a cluster: what of its file the roster says from then on, and what
//! stays its own. Nothing of what is protected changes by that, so whatever a roster cannot say is refused before.
//!
//! Hosts prove themselves to each other as before, until both have joined. Where that is by public keys, a host keeps its
//! key: those that still run by the file know it by that. Where it is by the secret, the roster has no key of a host that
//! has not joined, and members keep the secret for it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context as _;

use crate::config::{Config, ConfigError, Node, local_part, settings_part};
use crate::identity::{AuthMethod, KeyKind, PrivateKey};
use crate::roster::{
    ClusterSettings, DesiredProtection, EntryId, FloatingPlace, IkeKey, Listed, Roster, RosterView, Saying,
    SignedEntry, Signer, Site,
};
use crate::store::{Saved, member_config};
use crate::types::units::listed;
use crate::types::{Method, NodeName, Protection, UnixTime};

/// So many nodes are named in an error.
const NAMED: usize = 8;

/// Why a host that runs by a file cannot go over to a roster as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotMove {
    /// Keys come from the secret.
    #[error(
        "the hosts derive their keys from the secret (keying.method), and a cluster with a roster has no such secret: \
         change over to keying.method = \"ike\" first, on all hosts (configuration.md, \"Changing the method of keying\")"
    )]
    Derived,
    /// Hosts prove themselves with certificates.
    #[error(
        "the hosts prove themselves with certificates (auth), which a roster does not know: change over to auth.method = \
         \"public_key\" first, on all hosts (authentication.md)"
    )]
    Certificates,
    /// Another way to prove oneself is being introduced.
    #[error(
        "auth.accept has several methods, as hosts are changing over from one to the other: complete that first, on all \
         hosts (authentication.md)"
    )]
    ChangingOver,
    /// Some have keys, and some do not.
    #[error(
        "the hosts prove themselves in different ways: {} with the secret, the others with keys. All of them must do the \
         same first (auth.method, and auth in [[nodes]])",
        listed(.0, NAMED)
    )]
    Mixed(Vec<NodeName>),
    /// Some have keys of a kind that a roster does not know.
    #[error(
        "the keys of {} are ECDSA keys, and the nodes of a roster have Ed25519 keys: replace them first \
         (`hostseal key generate`; authentication.md, \"Replacing a key\")",
        listed(.0, NAMED)
    )]
    OtherKind(Vec<NodeName>),
    /// Some are behind a NAT.
    #[error(
        "{} cannot be in a cluster with a roster (inside, in [[nodes]]): its nodes find each other by addresses that they \
         have themselves, and these have theirs from a NAT. Give them addresses that the others reach without it, on all \
         hosts, or stay with the file",
        listed(.0, NAMED)
    )]
    Nat(Vec<NodeName>),
    /// A trial runs.
    #[error("protection is on trial: `hostseal confirm` keeps it, or wait until it is over")]
    Trial,
    /// It goes back to the clear.
    #[error("this host is on its way to the clear: wait until `hostseal status` says that protection is off")]
    Leaving,
}

/// A host that runs by a file.
pub struct FileHost {
    config: Config,
    node: Node,
    protected: bool,
}

impl FileHost {
    /// The host that runs by `config`, where it is `node`, and remembers `saved`.
    ///
    /// # Errors
    /// It cannot go over to a roster as it is.
    pub fn new(config: Config, node: Node, saved: &Saved) -> Result<Self, CannotMove> {
        if saved.trial.is_some() {
            return Err(CannotMove::Trial);
        } else if saved.leaving {
            return Err(CannotMove::Leaving);
        } else if config.keying.accept.contains(&Method::Derived) {
            return Err(CannotMove::Derived);
        } else if config.uses(AuthMethod::Certificate) {
            return Err(CannotMove::Certificates);
        } else if config.auth.accept.len() > 1 {
            return Err(CannotMove::ChangingOver);
        }
        let names = |nodes: Vec<&Node>| nodes.into_iter().map(|node| node.name.clone()).collect();
        let inside: Vec<&Node> = config.nodes.iter().filter(|node| !node.inside.is_empty()).collect();
        if !inside.is_empty() {
            return Err(CannotMove::Nat(names(inside)));
        }
        let by_secret = |node: &&Node| config.method_of(node) == AuthMethod::Secret;
        let (secret, keyed): (Vec<&Node>, Vec<&Node>) = config.nodes.iter().partition(by_secret);
        if !secret.is_empty() && !keyed.is_empty() {
            return Err(CannotMove::Mixed(names(secret)));
        }
        let is_other =
            |node: &&Node| node.public_key.as_ref().is_some_and(|key| key.kind() != KeyKind::Ed25519);
        let others: Vec<&Node> = keyed.into_iter().filter(is_other).collect();
        if !others.is_empty() {
            return Err(CannotMove::OtherKind(names(others)));
        }
        Ok(Self { config, node, protected: saved.protection == Protection::On })
    }

    /// What it is called.
    pub fn name(&self) -> &NodeName {
        &self.node.name
    }

    /// Where it is.
    pub fn site(&self) -> Site {
        site(&self.node)
    }

    /// Where its key lies, which it keeps; `None` where it proves itself with the secret.
    pub fn key_file(&self) -> Option<&Path> {
        (!self.is_by_secret()).then_some(&*self.config.auth.private_key)
    }

    /// The addresses of its peers, which the roster has to know: else it would drop them.
    pub fn peers(&self) -> BTreeSet<IpAddr> {
        let nodes = self.config.nodes.iter().flat_map(|node| node.addresses.iter().copied());
        nodes.chain(self.config.floating_addresses()).collect()
    }

    /// What its file says as a member of `cluster`; the one before is kept in `former`.
    pub fn local(&self, cluster: &str, former: &Path) -> String {
        let secret = self.is_by_secret().then_some(&self.config.secret);
        format!(
            "# This host is a member of the cluster {cluster}: this file says what concerns it alone, and the cluster says \
             the rest\n# (`hostseal settings`). The file before is {}.\n{}",
            former.display(),
            local_part(self.config.text(), secret)
        )
    }

    /// The roster of a new cluster with all nodes of the file, of which this one is the first member and has the keys
    /// `[signing, ike]`. It is to be protected if this host is.
    ///
    /// # Errors
    /// The roster cannot say what the file does.
    pub fn found(
        &self,
        cluster: &str,
        [signing, ike]: [&PrivateKey; 2],
        recovery: &PrivateKey,
        now: UnixTime,
    ) -> anyhow::Result<Roster> {
        let roster = Roster::of_new_cluster(cluster, self.site(), [signing, ike], recovery)?;
        let mut founding = Founding {
            by: Signer::of(signing).context("the key of this node is of another kind")?,
            signing,
            roster,
            now,
        };
        let mut lines = vec![(self.node.name.clone(), EntryId::from(founding.roster.cluster()))];
        for node in self.config.nodes.iter().filter(|node| node.name != self.node.name) {
            let ike = node.public_key.clone().filter(|_| !self.is_by_secret()).map(IkeKey);
            let says = Saying::Node(Listed { line: None, site: site(node), foreign: false, ike });
            lines.push((node.name.clone(), founding.say(says)?));
        }
        let toml = settings_part(self.config.text());
        if !toml.is_empty() {
            founding.say(Saying::Settings(ClusterSettings::lasting(toml)))?;
        }
        for floating in &self.config.floating {
            let nodes =
                lines.iter().filter(|(name, _)| floating.may_be_at(name)).map(|(_, line)| *line).collect();
            let (name, addresses) = (floating.name.clone(), floating.addresses.clone());
            founding.say(Saying::Floating(FloatingPlace { name, addresses, nodes }))?;
        }
        if self.protected {
            founding.say(Saying::Desired(DesiredProtection { on: true, trial: None, confirms: None }))?;
        }
        self.check(&founding.roster, ike)?;
        Ok(founding.roster)
    }

    /// That this host could go on by what it would have then.
    fn check(&self, roster: &Roster, ike: &PrivateKey) -> Result<(), ConfigError> {
        let local = local_part(self.config.text(), self.is_by_secret().then_some(&self.config.secret));
        member_config(roster, (roster.cluster().into(), ike.public()), None, (&local, "the file")).map(drop)
    }

    fn is_by_secret(&self) -> bool {
        self.config.method_of(&self.node) == AuthMethod::Secret
    }
}

/// The nodes that are to join and have not yet.
pub fn to_join(view: &RosterView) -> Vec<NodeName> {
    let waiting = view.members.iter().filter(|member| member.keys.is_none() && !member.foreign);
    waiting.map(|member| member.site.name.clone()).collect()
}

/// A roster that its first admin fills.
struct Founding<'k> {
    roster: Roster,
    signing: &'k PrivateKey,
    by: Signer,
    now: UnixTime,
}

impl Founding<'_> {
    fn say(&mut self, says: Saying) -> anyhow::Result<EntryId> {
        let what = match &says {
            Saying::Node(listed) => format!("node {}", listed.site.name),
            Saying::Floating(floating) => format!("floating {}", floating.name),
            _ => "the settings".to_owned(),
        };
        let statement = self.roster.draft(self.by, says, self.now)?;
        let entry = SignedEntry::sign(self.roster.cluster(), statement, &[self.signing])
            .with_context(|| format!("{what} of the file cannot stand in a roster"))?;
        let merged = self.roster.merge([entry.octets()]);
        match merged.refused.keys().next() {
            Some(why) => {
                Err(anyhow::anyhow!("{why}").context(format!("{what} of the file cannot stand in a roster")))
            }
            None => Ok(entry.id()),
        }
    }
}

fn site(node: &Node) -> Site {
    Site { name: node.name.clone(), addresses: node.addresses.clone(), inside: node.inside.iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PublicKey;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const NODES: &str = "[[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n[[nodes]]\nname = \"b\"\n\
        addresses = [\"10.0.0.2\", \"fd00::2\"]\n";

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::from_seed(&[seed; 32]).unwrap()
    }

    fn host_with(text: &str, saved: &Saved) -> Result<FileHost, CannotMove> {
        let config = Config::parse(&format!("cluster = \"x\"\n{text}"), "file").unwrap();
        let node = config.node_named("a").unwrap().clone();
        FileHost::new(config, node, saved)
    }

    fn protected() -> Saved {
        Saved { protection: Protection::On, ..Saved::default() }
    }

    fn keyed(of_b: &PublicKey) -> String {
        let of_a = key(2).public().clone();
        format!(
            "[auth]\nmethod = \"public_key\"\nprivate_key = \"/k\"\n[[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n\
             public_key = \"{of_a}\"\n[[nodes]]\nname = \"b\"\naddresses = [\"10.0.0.2\"]\npublic_key = \"{of_b}\"\n"
        )
    }

    #[test]
    fn a_file_becomes_a_roster_that_means_the_same() {
        let rest = "[keying]\nrekey_after = \"2h\"\n[protection]\nexempt = [{ port = \"tcp/22\", served_by = [\"b\"] }]\n\
            [[floating]]\nname = \"vip\"\naddresses = [\"10.0.0.100\"]\nnodes = [\"a\", \"b\"]\n";
        let host = host_with(&format!("run_dir = \"/r\"\n{NODES}{rest}"), &protected()).unwrap();
        let roster = host.found("prod", [&key(1), &key(2)], &key(3), NOW).unwrap();
        let view = roster.view();
        assert_eq!(
            (view.members.len(), view.floating.len(), to_join(view)),
            (2, 1, vec!["b".parse().unwrap()])
        );
        assert!(
            view.desired.as_ref().unwrap().says.on && view.held_out.is_empty() && view.conflicts.is_empty()
        );
        let local = host.local("prod", Path::new("/etc/x.former"));
        let own = (roster.cluster().into(), key(2).public().clone());
        let member = member_config(&roster, (own.0, &own.1), None, (&local, "file")).unwrap();
        assert_eq!(
            (member.run_dir.as_path(), member.floating.clone()),
            (Path::new("/r"), host.config.floating.clone())
        );
        assert_eq!(
            (&member.keying, &member.protection.exempt),
            (&host.config.keying, &host.config.protection.exempt)
        );
        let b = member.node_named("b").unwrap();
        assert_eq!(b.addresses, host.config.nodes[1].addresses);
        assert!(b.expects_secret && member.accepted_from(b) == [AuthMethod::Secret]);
        assert_eq!(host.peers().len(), 4);
        assert_eq!(host.key_file(), None);
    }

    #[test]
    fn hosts_with_keys_keep_them_and_have_no_secret() {
        let host = host_with(&keyed(key(7).public()), &Saved::default()).unwrap();
        assert_eq!(host.key_file(), Some(Path::new("/k")));
        let roster = host.found("prod", [&key(1), &key(2)], &key(3), NOW).unwrap();
        assert!(roster.view().desired.is_none(), "nothing is protected");
        let local = host.local("prod", Path::new("/f"));
        let own = (roster.cluster().into(), key(2).public().clone());
        let member = member_config(&roster, (own.0, &own.1), None, (&local, "file")).unwrap();
        assert_eq!(member.node_named("b").unwrap().public_key.as_ref(), Some(key(7).public()));
        assert!(!member.uses(AuthMethod::Secret) && member.idle_secret().is_none());
    }

    #[test]
    fn what_a_roster_cannot_say_is_refused_before_anything_changes() {
        let refused = |text: &str| host_with(text, &protected()).err().unwrap();
        let b = |line: &str| format!("{NODES}{line}\n");
        assert_eq!(refused(&format!("keying.method = \"derived\"\n{NODES}")), CannotMove::Derived);
        assert_eq!(refused(&format!("keying.accept = [\"ike\", \"derived\"]\n{NODES}")), CannotMove::Derived);
        assert_eq!(refused(&format!("auth.method = \"certificate\"\n{NODES}")), CannotMove::Certificates);
        assert_eq!(refused(&b("auth = \"certificate\"")), CannotMove::Certificates);
        assert_eq!(
            refused(&format!("auth.accept = [\"secret\", \"public_key\"]\n{NODES}")),
            CannotMove::ChangingOver
        );
        let mixed = b(&format!("auth = \"public_key\"\npublic_key = \"{}\"", key(7).public()));
        assert_eq!(refused(&mixed), CannotMove::Mixed(vec!["a".parse().unwrap()]));
        let pem = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        let ecdsa = PrivateKey::from_pem(&pem).unwrap();
        assert_eq!(refused(&keyed(ecdsa.public())), CannotMove::OtherKind(vec!["b".parse().unwrap()]));
        let nat = b("inside = { \"10.0.0.2\" = \"192.168.0.2\" }");
        assert_eq!(refused(&nat), CannotMove::Nat(vec!["b".parse().unwrap()]));
        let leaving = Saved { leaving: true, ..Saved::default() };
        assert_eq!(host_with(NODES, &leaving).err(), Some(CannotMove::Leaving));
    }
}
