//! A cluster that knows its nodes beside one with the same file on every host: how long it takes to protect all pairs, by
//! one order to one host and by an order to each, and what an idle agent costs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hostseal::control::{ClusterReply, ClusterRequest, Reply, Request};

use super::control::Control;
use super::idle::watch;
use super::race::{Side, Table, race};
use super::{goal, numbers};
use crate::lab::agent::{start_agent, status};
use crate::lab::host::Process;
use crate::lab::session::Show;
use crate::lab::{Cluster, Host, Lab, members, until};

/// How often each side takes its turn.
const ROUNDS: usize = 5;
/// The time in which agents must listen, and answer each other.
const LIMIT: Duration = Duration::from_secs(300);
/// With more hosts than that, which share one processor, only what an idle agent costs is looked at, with IPv4 alone:
/// half the pairs, and as many peers.
const RACE_MAX: usize = 64;

/// `cargo lab bench cluster [HOSTS…]`
///
/// # Errors
/// When the pairs do not come up.
pub fn show(show: &Show) -> Result<i32> {
    numbers(&show.arguments, &[16])?.into_iter().try_for_each(compare)?;
    Ok(0)
}

fn compare(count: usize) -> Result<()> {
    if count <= RACE_MAX {
        compare_times(count)?;
    }
    println!("an idle agent among {count}, over a minute:");
    let lab = Lab::new(count)?;
    let (time, agents) = by_files(lab.hosts())?;
    print_idle("with a file", time, &lab.hosts()[0])?;
    drop(agents);
    drop(lab);
    let lab = Lab::new(count)?;
    let time = by_roster(lab.hosts())?;
    print_idle("with a roster", time, &lab.hosts()[0])
}

fn print_idle(how: &str, time: Duration, host: &Host) -> Result<()> {
    println!("  {how:<32} all pairs protected after {time:.1?}");
    println!("  {:<32} {}", "", watch(status(host)?.agent()?)?);
    Ok(())
}

fn compare_times(count: usize) -> Result<()> {
    let lab = || Lab::new(count);
    let laps = race(
        ROUNDS,
        &mut [
            Side::new("a file on each host, an order to each", || by_files(lab()?.hosts()).map(|it| it.0)),
            Side::new("a roster, one order to one host", || by_roster(lab()?.hosts())),
        ],
    )?;
    let pairs = count * (count - 1);
    println!(
        "{count} hosts, {pairs} pairs by IPv4 and IPv6, {ROUNDS} times in turns, until all are protected; median (shortest to longest):"
    );
    print!("{}", Table(&laps));
    goal("a roster takes at most 1.3 times as long", laps[0].ratio_to(&laps[1]) >= 1.0 / 1.3);
    Ok(())
}

/// An order to each agent, which run already.
fn by_files(hosts: &[Host]) -> Result<(Duration, Vec<Process>)> {
    let of = if hosts.len() > RACE_MAX { Cluster::of_v4 } else { Cluster::of };
    of(hosts).install_all(hosts)?;
    let agents = hosts.iter().map(start_agent).collect::<Result<Vec<_>>>()?;
    let time = until_protected(hosts, |controls| {
        controls.iter_mut().try_for_each(|control| control.ask(Request::Enable))?;
        for control in controls {
            ensure!(control.answer()? == Reply::Done, "an order is answered otherwise");
        }
        Ok(())
    })?;
    Ok((time, agents))
}

/// One order to the last one.
fn by_roster(hosts: &[Host]) -> Result<Duration> {
    members::found_at(hosts, if hosts.len() > RACE_MAX { members::place_v4 } else { members::place })?;
    let last = hosts.last().context("no hosts")?;
    until("all nodes answer", LIMIT, || {
        let mut control = Control::connect(last)?;
        control.ask(Request::Cluster(ClusterRequest::Status))?;
        let Reply::Cluster(ClusterReply::Status(status)) = control.answer()? else {
            bail!("that is no status")
        };
        ensure!(status.summary.answering == hosts.len(), "{:?}", status.summary);
        Ok(())
    })?;
    until_protected(hosts, |controls| {
        let Some(control) = controls.last_mut() else { return Ok(()) };
        control.ask(Request::Cluster(ClusterRequest::Enable { try_s: None }))?;
        ensure!(matches!(control.answer()?, Reply::Cluster(_)), "an order is answered otherwise");
        Ok(())
    })
}

/// From the order to when the last agent says that all its pairs are protected.
fn until_protected(hosts: &[Host], order: impl Fn(&mut [Control]) -> Result<()>) -> Result<Duration> {
    for host in hosts {
        until("the agent listens", LIMIT, || Control::connect(host))?;
    }
    // Only now, as an agent closes a connection that says nothing for a while.
    let mut controls = hosts.iter().map(Control::connect).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    order(&mut controls)?;
    // One after the other: an agent would close those that have their answer and wait for the others.
    for host in hosts {
        let mut control = Control::connect(host)?;
        control.follow(0)?;
        control.await_protected()?;
    }
    Ok(started.elapsed())
}
