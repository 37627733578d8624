//! A full mesh from nothing: `hostseal enable` on all hosts at once, against strongSwan's best case: daemons
//! that run, every connection loaded everywhere before the clock starts, and then all of them initiated at
//! once, by `swanctl` and without it.

use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::bare::Bare;
use super::race::{Lap, Side, Table, race};
use super::vici::Vici;
use super::{goal, numbers};
use crate::lab::agent::{SECRETS, hostseal_all, status};
use crate::lab::session::Show;
use crate::lab::{Cluster, Connection, Family, Host, Lab, Swan};

/// The time in which a mesh must be up.
const LIMIT: Duration = Duration::from_secs(60);
/// How often strongSwan's SAs are counted: a system call a host.
const PERIOD: Duration = Duration::from_millis(5);
/// strongSwan's log is kept short, as it would be in production.
const QUIET: &str = "filelog {\n lab {\n default = 0\n flush_line = no\n }\n }";

/// `cargo lab bench mesh [HOSTS…]`
///
/// # Errors
/// When a mesh does not come up.
pub fn show(show: &Show) -> Result<i32> {
    for hosts in numbers(&show.arguments, &[16])? {
        compare(hosts, 3)?;
    }
    Ok(0)
}

/// Brings a mesh of `count` hosts up in both ways, `rounds` times each, and prints the times.
///
/// # Errors
/// When a mesh does not come up.
pub fn compare(count: usize, rounds: usize) -> Result<()> {
    let mut keyed = Vec::new();
    let mut laps = race(
        rounds,
        &mut [
            Side::new("hostseal enable: all protected", || {
                let (protected, installed) = ours(Lab::new(count)?.hosts())?;
                keyed.push(installed);
                Ok(protected)
            }),
            Side::new("strongSwan by swanctl: all SAs", || theirs(Lab::new(count)?.hosts(), by_swanctl)),
            Side::new("strongSwan by vici: all SAs", || theirs(Lab::new(count)?.hosts(), by_vici)),
        ],
    )?;
    laps.insert(1, Lap::new("hostseal enable: all SAs", keyed));
    let pairs = count * (count - 1) / 2;
    println!("{count} hosts, {pairs} pairs by IPv4, {rounds} times in turns; median (shortest to longest):");
    print!("{}", Table(&laps));
    // The best case is the one without processes.
    goal("protected in at most half of strongSwan's time by vici", laps[3].ratio_to(&laps[0]) >= 2.0);
    goal("protected in at most half of strongSwan's time by swanctl", laps[2].ratio_to(&laps[0]) >= 2.0);
    Ok(())
}

/// From the start of the commands to the end of the last, which is when all rows of its host are
/// protected; and to the moment in which the kernel of every host has all SAs.
fn ours(hosts: &[Host]) -> Result<(Duration, Duration)> {
    Cluster::of_v4(hosts).install_all(hosts)?;
    let mut tables = open_tables(hosts)?;
    let started = Instant::now();
    let (outcomes, installed) = thread::scope(|scope| {
        let watcher = scope.spawn(|| await_sas(&mut tables, started));
        let outcomes = hostseal_all(hosts, &format!("enable --timeout {}s", LIMIT.as_secs()));
        let protected = started.elapsed();
        let installed = watcher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (outcomes.map(|outcomes| (outcomes, protected)), installed)
    });
    let (outcomes, protected) = outcomes?;
    for outcome in outcomes {
        outcome.expect_code(0)?;
    }
    for host in hosts {
        let status = status(host)?;
        let protected = status.number("/summary/protected");
        ensure!(protected == hosts.len() as u64 - 1, "{}: {protected} rows: {:#}", host.name(), status.0);
    }
    Ok((protected, installed?))
}

fn open_tables(hosts: &[Host]) -> Result<Vec<Bare>> {
    hosts.iter().map(|host| Bare::open(host, 4096)).collect()
}

/// Waits until the kernel of every host has two SAs for each of the others. An inbound one may count from
/// the moment in which its SPI is reserved; an outbound one works when it is there.
fn await_sas(tables: &mut [Bare], started: Instant) -> Result<Duration> {
    let wanted = u32::try_from(2 * (tables.len() - 1))?;
    for (host, table) in tables.iter_mut().enumerate() {
        loop {
            let count = table.count()?;
            if count >= wanted {
                break;
            }
            ensure!(started.elapsed() < LIMIT, "host {} has {count} of {wanted} SAs", host + 1);
            sleep(PERIOD);
        }
    }
    Ok(started.elapsed())
}

/// From the first request to the moment in which the kernel of every host has all SAs.
fn theirs(hosts: &[Host], initiate: fn(&[Host]) -> Result<Duration>) -> Result<Duration> {
    let swans = hosts.iter().map(|host| Swan::start(host, &[QUIET])).collect::<Result<Vec<_>>>()?;
    for swan in &swans {
        let others = hosts.iter().filter(|other| other.number() != swan.host().number());
        let connections: Vec<_> =
            others.map(|other| Connection::between(swan.host(), other, Family::V4, SECRETS[0])).collect();
        swan.load(&connections)?;
    }
    let time = initiate(hosts)?;
    for swan in &swans {
        let listed = swan.list()?;
        let good = listed.iter().filter(|sa| sa.state == "ESTABLISHED" && sa.children == ["INSTALLED"]);
        let good = good.count();
        ensure!(good == hosts.len() - 1, "{}: {listed:?}", swan.host().name());
    }
    Ok(time)
}

/// The children that a host initiates: towards those with a larger address.
fn children<'a>(host: &'a Host, hosts: &'a [Host]) -> impl Iterator<Item = String> + 'a {
    let others = hosts.iter().filter(|other| other.number() > host.number());
    others.map(|other| format!("{}-v4", other.name()))
}

/// As an operator does: a command for each pair, all at the same time.
fn by_swanctl(hosts: &[Host]) -> Result<Duration> {
    let mut tables = open_tables(hosts)?;
    let started = Instant::now();
    thread::scope(|scope| {
        for host in hosts {
            let commands = children(host, hosts)
                .map(|child| format!("swanctl --initiate --child {child} --timeout 20 >/dev/null & "));
            let line = commands.chain(["wait".to_owned()]).collect::<String>();
            scope.spawn(move || host.run(&line));
        }
        await_sas(&mut tables, started)
    })
}

/// Without a process for each: the same requests on the control sockets.
fn by_vici(hosts: &[Host]) -> Result<Duration> {
    let mut controls = hosts.iter().map(Vici::connect).collect::<Result<Vec<_>>>()?;
    let mut tables = open_tables(hosts)?;
    let started = Instant::now();
    for (control, host) in controls.iter_mut().zip(hosts) {
        children(host, hosts).try_for_each(|child| control.initiate(&child))?;
    }
    let time = await_sas(&mut tables, started)?;
    controls.iter_mut().try_for_each(Vici::check)?;
    Ok(time)
}
