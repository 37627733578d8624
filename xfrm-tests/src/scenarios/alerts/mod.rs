//! Each alert fires where something deserves it, and no other one does. The rules are those of the package without their
//! patience; a Prometheus on a host beside the cluster asks all the time, so that nothing that happens to a pair keeps it
//! from asking, and what has fired between two looks is on its record.
//!
//! The suite has the few that cost little ([`ALL`]); `cargo lab alerts` goes through them all, in three clusters.

mod files;
mod members;
mod wrapped;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::lab::agreement::ensure_agree;
use crate::lab::exporter::{self, PORT};
use crate::lab::host::Process;
use crate::lab::prometheus::{ALERTS, Alerts, Prometheus, ShownPart, impatient};
use crate::lab::session::Show;
use crate::lab::{Host, Lab, until};
use crate::shows::Entry;
use crate::tests::Test;

pub(super) const ALL: &[Test] =
    &[Test::new("alerts::fire_where_they_should_and_nowhere_else", 4, files::few).within(600)];

/// `cargo lab alerts`
pub const CAMPAIGN: Entry = Entry {
    name: "alerts",
    about: "each alert in a scenario that deserves it and in no other, and each query of the dashboard with data",
    mortal: false,
    aws: false,
    body: show,
};

/// For whatever has to be noticed, by an agent first, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(240);
/// How often Prometheus asks, in seconds. An exporter gives an agent two.
const EVERY: u32 = 4;
/// Where exporters listen whom another host asks.
const EVERYWHERE: &str = "0.0.0.0:10931";
/// What no scenario here deserves, and where it is shown instead.
const ELSEWHERE: &[(&str, &str)] = &[
    ("DuplicateNode", "by the tests of the rules; what members notice, in host::membership::tests"),
    ("ForgedEntries", "by the tests of the rules; what members refuse, in host::membership::tests"),
    ("EntriesRefused", "likewise"),
    ("HeldOut", "by the tests of the rules; who is held out, in roster::tests::life"),
];

/// One of the clusters.
type Scenario = (&'static str, usize, fn(&mut Lab) -> Result<BTreeSet<String>>);

const SCENARIOS: &[Scenario] =
    &[("files", 4, files::all), ("members", 5, members::all), ("kms", 3, wrapped::all)];

/// `cargo lab alerts [WORDS]`: the clusters with one of these words in their name, or all of them.
///
/// # Errors
/// When an alert does not fire, or one fires that should not.
fn show(show: &Show) -> Result<i32> {
    let words = &show.arguments;
    let is_meant = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let mut shown = BTreeSet::new();
    for (name, hosts, scenario) in SCENARIOS.iter().filter(|(name, ..)| is_meant(name)) {
        println!("{name}");
        shown.extend(scenario(&mut Lab::new(*hosts)?).with_context(|| (*name).to_owned())?);
    }
    let all: BTreeSet<&str> =
        ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: Hostseal")).collect();
    let missing = all.into_iter().filter(|alert| !shown.contains(*alert));
    let (elsewhere, missing): (Vec<&str>, Vec<&str>) =
        missing.partition(|alert| ELSEWHERE.iter().any(|(name, _)| name == alert));
    println!("{} alerts fired where they should", shown.len());
    for (name, place) in ELSEWHERE.iter().filter(|(name, _)| elsewhere.contains(name)) {
        println!("{name} is shown elsewhere: {place}");
    }
    if words.is_empty() {
        ensure!(missing.is_empty(), "never fired: {missing:?}");
    }
    Ok(0)
}

/// An alert about a host.
fn at(alert: &str, host: &Host) -> (String, String) {
    (alert.to_owned(), instance(host))
}

/// An alert about the cluster.
fn all(alert: &str) -> (String, String) {
    (alert.to_owned(), "lab".to_owned())
}

fn instance(host: &Host) -> String {
    format!("{}:{PORT}", host.v4())
}

/// Has nothing be written any more where an agent keeps what it knows, or lets it.
fn freeze(host: &Host, frozen: bool) -> Result<()> {
    const STATE: &str = "/var/lib/hostseal";
    host.run(&match frozen {
        true => format!("mount --bind {STATE} {STATE} && mount -o remount,bind,ro {STATE}"),
        false => format!("umount {STATE}"),
    })
    .map(drop)
}

/// A cluster, as a Prometheus beside it sees it.
struct Watch {
    prometheus: Prometheus,
    exporters: RefCell<Vec<(Host, Process)>>,
    /// The alerts that fired where they should.
    shown: RefCell<BTreeSet<String>>,
}

impl Watch {
    /// Starts an exporter on each of `hosts`, and the Prometheus on `observer`.
    fn start(observer: &Host, hosts: &[Host]) -> Result<Self> {
        let started = |host: &Host| Ok((host.clone(), exporter::start(host, true, EVERYWHERE)?));
        let exporters = hosts.iter().map(started).collect::<Result<Vec<_>>>()?;
        let prometheus = Prometheus::start(observer, hosts, &impatient(), EVERY)?;
        Ok(Self { prometheus, exporters: RefCell::new(exporters), shown: RefCell::default() })
    }

    fn stop_exporter(&self, host: &Host) {
        self.exporters.borrow_mut().retain(|(its, _)| its.number() != host.number());
    }

    fn start_exporter(&self, host: &Host) -> Result<()> {
        let started = exporter::start(host, true, EVERYWHERE)?;
        self.exporters.borrow_mut().push((host.clone(), started));
        Ok(())
    }

    /// Nothing fires, all that is shown has data, and each page says what its host says, and nothing that promtool minds.
    fn healthy(&self, shown: &[ShownPart]) -> Result<()> {
        self.prometheus.until_calm(LIMIT)?;
        for (host, _) in self.exporters.borrow().iter() {
            until("it says what status says", LIMIT, || ensure_agree(host))?;
            let lint =
                host.run(&format!("curl -s http://127.0.0.1:{PORT}/metrics | promtool check metrics 2>&1"))?;
            ensure!(lint.is_empty(), "{lint}");
        }
        until("all that is shown has data", LIMIT, || self.prometheus.ensure_shown(shown))
    }

    /// Has `happens` happen, and waits until all of `must` has fired, and nothing else goes on firing but what is called as
    /// in `may`: what follows from the same. Then `ends` ends it, and nothing fires any more.
    fn deserves<const N: usize>(
        &self,
        what: &str,
        must: [(String, String); N],
        may: &[&str],
        happens: impl FnOnce() -> Result<()>,
        ends: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.fires(what, must, may, happens)?;
        ends()?;
        self.prometheus.until_calm(LIMIT).with_context(|| format!("after {what}"))
    }

    /// The same for what goes on.
    fn fires<const N: usize>(
        &self,
        what: &str,
        must: [(String, String); N],
        may: &[&str],
        happens: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let (must, begun) = (Alerts::from(must), Instant::now());
        happens().with_context(|| what.to_owned())?;
        let is_deserved = |it: &&(String, String)| must.contains(*it) || may.contains(&it.0.as_str());
        let fired = until(&format!("{what}: {must:?} and nothing else"), LIMIT, || {
            let (fired, firing) = (self.prometheus.fired_since(begun)?, self.prometheus.firing()?);
            ensure!(fired.is_superset(&must), "{fired:?}");
            // On a machine that has no time for them, agents and exporters are away for a moment.
            ensure!(firing.iter().all(|it| is_deserved(&it)), "{firing:?}");
            Ok::<_, anyhow::Error>(fired)
        })?;
        println!("{what}: {fired:?} within {:?}", begun.elapsed());
        self.shown.borrow_mut().extend(must.into_iter().map(|(alert, _)| alert));
        Ok(())
    }

    fn into_shown(self) -> BTreeSet<String> {
        self.shown.into_inner()
    }
}
