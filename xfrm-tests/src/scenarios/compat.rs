//! Agents of this revision and of an older one in one cluster: what `cargo lab compat` runs.

mod members;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Traffic, await_protected, ensure_nothing_of_ours, seal_all, spis_sent};
use crate::lab::agent::{hostseal, hostseal_all, kill_agent, start_agent, status};
use crate::lab::session::Show;
use crate::lab::{Cluster, FAMILIES, HOSTSEAL, Host, Kind, Lab, PREVIOUS, Packet, Process, until};
use crate::shows::Entry;

/// How it is found.
pub const ENTRY: Entry = Entry {
    name: "compat",
    about: "this revision and an older one in one cluster",
    mortal: false,
    aws: false,
    body: show,
};

/// The same where the cluster has a roster.
pub const CLUSTER: Entry = Entry {
    name: "compat-cluster",
    about: "nodes of this revision and of an older one in one cluster with a roster",
    mortal: false,
    aws: false,
    body: members::show,
};

/// Packets a second of each stream.
const RATE: u32 = 250;

/// a and c run the older revision, b this one: by the order of the addresses the older one initiates
/// towards b, and b towards c.
fn show(show: &Show) -> Result<i32> {
    let lab = Lab::new(3)?;
    let [a, b, c] = lab.all();
    [&a, &c].into_iter().try_for_each(run_older)?;
    println!("a, c: {}\nb:    this revision\n", older(show));
    let cluster = Cluster::of(lab.hosts()).with("keying", "rekey_after = \"4s\"");
    let mut mixed = Mixed::new(&lab, vec![(&a, &b), (&b, &a), (&b, &c), (&c, &b)]);

    mixed.step("enable on all three", false, || seal_all(&cluster, lab.hosts()))?;
    mixed.step("doctor on b says what the others run", false, || doctor_compares(&b, &[&a, &c]))?;
    mixed.step("traffic and rekeys for 12 s", true, || {
        let captures = [lab.capture(&a)?, lab.capture(&c)?];
        std::thread::sleep(Duration::from_secs(12));
        for capture in captures {
            let spis = spis_sent(&capture.stop()?, b.v4().into()).len();
            ensure!(spis >= 3, "only {spis} SAs in 12 s with a rekey every 4 s");
        }
        Ok(())
    })?;
    let mut agents: Vec<Process> = Vec::new();
    for (host, whose) in [(&b, "this revision"), (&a, "the older one")] {
        mixed.step(&format!("agent of {whose} killed, started again"), true, || {
            kill_agent(host)?;
            agents.push(start_agent(host)?);
            await_settled(&lab)
        })?;
    }
    mixed.step("c goes on with this revision", true, || {
        agents.push(update(&c)?);
        await_settled(&lab)?;
        let shown = status(&c)?.at("/problems").to_string();
        ensure!(!shown.contains("unbound_sa"), "SAs of the older one are left: {shown}");
        Ok(())
    })?;
    mixed.step("disable on b, the others follow for b", false, || {
        hostseal(&b, "disable")?.expect_code(0)?;
        ensure_nothing_of_ours(&b)
    })?;
    mixed.step("disable on all three", false, || {
        hostseal_all(lab.hosts(), "disable")?.into_iter().try_for_each(|it| it.expect_code(0).map(drop))?;
        lab.hosts().iter().try_for_each(ensure_nothing_of_ours)
    })?;
    Ok(mixed.verdict())
}

/// `doctor` finds nothing that is broken, warns of each version that is not that of `host`, and takes no longer than it may:
/// it is promised for a machine that has time for it.
fn doctor_compares(host: &Host, others: &[&Host]) -> Result<()> {
    const PROMISED: Duration = Duration::from_secs(20);
    let started = Instant::now();
    hostseal(host, "--version")?.expect_code(0)?;
    // A start takes milliseconds.
    let patience = PROMISED + 20 * started.elapsed();
    let started = Instant::now();
    let outcome = hostseal(host, "doctor --json")?.expect_code(0)?;
    let took = started.elapsed();
    ensure!(took < patience, "doctor took {took:?}, and may take {patience:?}");
    let (seen, checks) = (status(host)?, outcome.json()?);
    let checks = checks["checks"].as_array().context("no checks")?;
    for other in others {
        let row = seen.peer(other.v4().into())?;
        let expected = match row.at("/peer/version") {
            version if version.is_null() => "unknown",
            version if version == seen.at("/agent/version") => "ok",
            _ => "warn",
        };
        let is_said = |check: &Value| {
            check["id"] == "version" && check["node"] == other.name() && check["result"] == expected
        };
        ensure!(checks.iter().any(is_said), "{} is not {expected}: {}", other.name(), outcome.stdout);
    }
    Ok(())
}

/// The older revision, as git shows it.
fn older(show: &Show) -> &str {
    show.arguments.first().map(String::as_str).unwrap_or_default()
}

/// Has `host` run the older revision.
fn run_older(host: &Host) -> Result<()> {
    host.run(&format!("mount --bind {PREVIOUS} {HOSTSEAL}")).map(drop)
}

/// Stops the agent of the older revision on `host`, and starts this one.
fn update(host: &Host) -> Result<Process> {
    host.run(&format!("kill -TERM {}", status(host)?.agent()?))?;
    until("the agent is gone", Duration::from_secs(20), || match status(host)?.agent() {
        Err(_) => Ok(()),
        Ok(pid) => Err(anyhow::anyhow!("process {pid} is there")),
    })?;
    host.run(&format!("umount {HOSTSEAL}"))?;
    start_agent(host)
}

/// Waits until every pair is protected and down to one SA in each direction.
fn await_settled(lab: &Lab) -> Result<()> {
    lab.hosts().iter().try_for_each(await_protected)?;
    for host in lab.hosts() {
        until("no older SAs are left", Duration::from_secs(60), || {
            // While keys are replaced there are two of each.
            let status = status(host)?;
            let most = status.peers().iter().map(|row| row["sas"].as_array().map_or(0, Vec::len)).max();
            ensure!(most.is_some_and(|most| (2..=4).contains(&most)), "{:#}", status.0);
            Ok::<_, anyhow::Error>(())
        })?;
    }
    Ok(())
}

/// The cluster, and where traffic flows in it.
struct Mixed<'a> {
    lab: &'a Lab,
    ways: Vec<(&'a Host, &'a Host)>,
    failed: bool,
}

impl<'a> Mixed<'a> {
    /// Nothing was done yet: prints the head of the table.
    fn new(lab: &'a Lab, ways: Vec<(&'a Host, &'a Host)>) -> Self {
        println!("{:<44} {:>8} {:>6} {:>6} {:>6}", "transition", "sent", "lost", "twice", "clear");
        Self { lab, ways, failed: false }
    }

    /// Prints what came of all of it; returns the exit status.
    fn verdict(&self) -> i32 {
        let words = match self.failed {
            true => "packets were lost, or clear where they must not be",
            false => "they work together",
        };
        println!("\n{words}");
        i32::from(self.failed)
    }

    /// Does something under traffic and prints what became of that. `sealed`: nothing may be clear.
    fn step(&mut self, name: &str, sealed: bool, action: impl FnOnce() -> Result<()>) -> Result<()> {
        let capture = self.lab.capture(self.ways[0].1)?;
        let traffic = Traffic::of(&self.ways, &FAMILIES, RATE)?;
        action().with_context(|| name.to_owned())?;
        let counts = traffic.stop()?;
        // A host whose agent does not listen, or no more, says so to whoever knocks.
        let quotes_ike = |packet: &Packet| packet.quoted.as_ref().is_some_and(|it| it.kind == Kind::Ike);
        let seen = capture.stop()?.filter(|packet| !quotes_ike(packet));
        let clear = seen.count(Kind::Clear);
        let sum = |figure: fn(&crate::lab::Count) -> u64| counts.iter().map(figure).sum::<u64>();
        let (sent, lost, twice) = (sum(|it| it.sent), sum(|it| it.lost), sum(|it| it.duplicated));
        let shown = if sealed { clear.to_string() } else { "meant".to_owned() };
        println!("{name:<44} {sent:>8} {lost:>6} {twice:>6} {shown:>6}");
        if sealed && let Err(clear) = seen.ensure_nothing_clear() {
            println!("{clear}");
        }
        self.failed |= lost + twice > 0 || (sealed && clear > 0);
        Ok(())
    }
}
