//! What one entry costs in a roster of many nodes: to take it, to draft it, and to tell peers of it.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hostseal::identity::PrivateKey;
use hostseal::roster::{
    Admission, Carriage, ClusterId, ClusterSettings, DesiredProtection, EntryId, Genesis, Gone, Invite, Join,
    Keys, Roster, Saying, Seconds, SignedEntry, Signer, Site, Statement, Version,
};
use hostseal::types::UnixTime;
use sha2::{Digest as _, Sha256};

use super::numbers;
use super::race::{Lap, Table};
use crate::lab::session::Show;

/// The time of what is drafted: no token is over.
const NOW: UnixTime = UnixTime(1_800_000_000);
/// How often each kind is timed.
const ROUNDS: usize = 15;
/// How many neighbours a node of the ring has at most: those one, two, four… steps away on either side.
const NEIGHBOURS: usize = 20;

/// `cargo lab bench roster [NODES…]`
///
/// # Errors
/// When an entry is not taken.
pub fn show(show: &Show) -> Result<i32> {
    for nodes in numbers(&show.arguments, &[100, 1_000])? {
        measure(nodes)?;
    }
    Ok(0)
}

/// Prints what one entry costs in a roster of so many nodes.
///
/// # Errors
/// When an entry is not taken.
pub fn measure(nodes: usize) -> Result<()> {
    let mut city = City::found(nodes.max(50))?;
    let entries = city.roster.ids().count();
    let laps = [
        city.taking("taken: on, by a member", |city, at| city.drafted(&format!("n{}", at + 1), on()))?,
        city.taking("taken: on, by an admin", |city, _| city.drafted("n0", on()))?,
        city.taking("taken: settings", |city, at| {
            city.drafted("n0", Saying::Settings(ClusterSettings::lasting(format!("# {at}\n"))))
        })?,
        city.taking("taken: an invite", |city, at| city.invited(nodes + at).map(|entry| vec![entry]))?,
        city.taking("taken: a node that joins, and its admission", |city, at| city.joined(nodes + at))?,
        city.taking("taken: the next keys of a node", |city, at| city.rotated(at + 20))?,
        city.taking("taken: that a node is gone", |city, at| {
            let gone =
                Gone { of: city.line(&format!("n{}", at + 40))?, kept: Vec::new(), compromised: false };
            city.drafted("n0", Saying::Gone(gone))
        })?,
        city.timed("drafted: settings", |city| {
            let says = Saying::Settings(ClusterSettings::lasting("# again\n"));
            Ok(city.roster.draft(signer("n0")?, says, NOW)?)
        })?,
        city.timed("drafted: the removal of a node", |city| {
            Ok(city.roster.removal(signer("n0")?, city.line("n35")?, false, NOW)?)
        })?,
        city.telling()?,
    ];
    println!("{nodes} nodes, {entries} entries, each {ROUNDS} times; median (shortest to longest):");
    laps.chunks(1).for_each(|lap| print!("{}", Table(lap)));
    Ok(())
}

/// A cluster as one node sees it.
struct City {
    roster: Roster,
}

impl City {
    /// One admin, and those who have joined by its tokens.
    fn found(nodes: usize) -> Result<Self> {
        let (keys, recovery) = (keys("n0")?, signer("recovery")?);
        let says = Saying::Genesis(Genesis { cluster: "city".to_owned(), site: site(0)?, keys, recovery });
        let statement = statement("n0", 0, says)?;
        let genesis = sign(ClusterId::new([0; 32]), statement, &["n0", "n0 ike", "recovery"])?;
        let roster = Roster::found(genesis.octets()).ok().context("it founds no cluster")?;
        let mut city = Self { roster };
        let mut entries = Vec::new();
        for at in 1..nodes {
            entries.push(city.invited(at)?);
            entries.extend(city.joined(at)?);
        }
        city.take(&entries)?;
        Ok(city)
    }

    fn take(&mut self, entries: &[SignedEntry]) -> Result<Duration> {
        let started = Instant::now();
        let merged = self.roster.merge(entries.iter().map(SignedEntry::octets));
        let time = started.elapsed();
        ensure!(merged.taken == entries.len(), "not taken: {:?}", merged.refused);
        Ok(time)
    }

    fn taking(&mut self, what: &str, say: impl Fn(&Self, usize) -> Result<Vec<SignedEntry>>) -> Result<Lap> {
        let mut times = Vec::new();
        for at in 0..ROUNDS {
            let entries = say(self, at)?;
            times.push(self.take(&entries)?);
        }
        Ok(Lap::new(what, times))
    }

    fn timed<T>(&self, what: &str, ask: impl Fn(&Self) -> Result<T>) -> Result<Lap> {
        let time = |_| {
            let started = Instant::now();
            black_box(ask(self)?);
            Ok(started.elapsed())
        };
        Ok(Lap::new(what, (0..ROUNDS).map(time).collect::<Result<_>>()?))
    }

    /// Something is new here, and all neighbours are told what the roster is; each of them says that it has another one,
    /// and is told part by part what this one has.
    fn telling(&mut self) -> Result<Lap> {
        let mut times = Vec::new();
        for at in 0..ROUNDS {
            let (mut carriage, now) = (Carriage::default(), Instant::now());
            let entries = self.drafted("n0", on())?;
            self.take(&entries)?;
            let started = Instant::now();
            for peer in 0..NEIGHBOURS {
                carriage.handle_up(now, peer, &self.roster);
                // The page of a peer whose roster has the least name.
                let summary = [&[1, 1, 0, 0, 0, at as u8], [0; 32].as_slice()].concat();
                carriage.handle_told(now, peer, &summary, &mut self.roster);
            }
            let mut told = 0;
            while let Some((peer, page)) = carriage.poll_tell(&self.roster) {
                black_box(page);
                carriage.handle_heard(peer);
                told += 1;
            }
            times.push(started.elapsed());
            ensure!(told == 2 * NEIGHBOURS, "{told} pages were told");
        }
        Ok(Lap::new("told: what there is, to 20 neighbours", times))
    }

    fn drafted(&self, by: &str, says: Saying) -> Result<Vec<SignedEntry>> {
        let statement = self.roster.draft(signer(by)?, says, NOW)?;
        Ok(vec![sign(self.roster.cluster(), statement, &[by])?])
    }

    fn invited(&self, at: usize) -> Result<SignedEntry> {
        let token = format!("token of n{at}");
        let says = Saying::Invite(Invite {
            key: signer(&token)?,
            name: Some(site(at)?.name),
            line: None,
            admin: false,
            expires: Seconds(NOW.0 + 3600),
            within: Vec::new(),
            addresses: Vec::new(),
        });
        sign(self.roster.cluster(), statement("n0", 1, says)?, &["n0", &token])
    }

    /// The entry of a node that joins, and the one by which the first node admits it.
    fn joined(&self, at: usize) -> Result<Vec<SignedEntry>> {
        let (token, node) = (format!("token of n{at}"), format!("n{at}"));
        let says = Saying::Join(Join { site: site(at)?, keys: keys(&node)? });
        let signers = [token.as_str(), &node, &format!("{node} ike")];
        let join = sign(self.roster.cluster(), statement(&token, 0, says)?, &signers)?;
        let admission = statement("n0", 0, Saying::Admission(Admission { of: join.id() }))?;
        Ok(vec![join, sign(self.roster.cluster(), admission, &["n0"])?])
    }

    fn rotated(&self, at: usize) -> Result<Vec<SignedEntry>> {
        let (by, next) = (format!("n{at}"), format!("n{at} next"));
        let keys = statement(&by, 0, Saying::Keys(keys(&next)?))?;
        Ok(vec![sign(self.roster.cluster(), keys, &[&by, &next, &format!("{next} ike")])?])
    }

    fn line(&self, name: &str) -> Result<EntryId> {
        let named = self.roster.view().members.iter().find(|member| member.site.name.as_str() == name);
        named.map(|member| member.line).with_context(|| format!("{name} is no member"))
    }
}

fn on() -> Saying {
    Saying::Desired(DesiredProtection { on: true, trial: None, confirms: None })
}

fn site(at: usize) -> Result<Site> {
    let name = format!("n{at}").parse().ok().context("it is no name")?;
    let address = Ipv4Addr::from_bits(0x0a00_0001 + u32::try_from(at)?);
    Ok(Site { name, addresses: vec![IpAddr::V4(address)], inside: BTreeMap::new() })
}

fn keys(of: &str) -> Result<Keys> {
    Ok(Keys { signing: signer(of)?, ike: signer(&format!("{of} ike"))? })
}

fn signer(name: &str) -> Result<Signer> {
    Signer::of(&key(name)?).context("it is another kind of key")
}

/// The key that a name stands for.
fn key(name: &str) -> Result<PrivateKey> {
    Ok(PrivateKey::from_seed(&Sha256::digest(name).into())?)
}

fn statement(by: &str, version: u64, says: Saying) -> Result<Statement> {
    let by = signer(by)?;
    Ok(Statement { by, version: Version(version, 0), after: Vec::new(), basis: None, says })
}

fn sign(cluster: ClusterId, statement: Statement, by: &[&str]) -> Result<SignedEntry> {
    let keys: Vec<PrivateKey> = by.iter().map(|name| key(name)).collect::<Result<_>>()?;
    let keys: Vec<&PrivateKey> = keys.iter().collect();
    Ok(SignedEntry::sign(cluster, statement, &keys)?)
}
