//! Disabling: back to clear without a lost packet, and nothing of ours left.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{
    Traffic, ensure_nothing_of_ours, ensure_pings, foreign, put_foreign, sealed_pair, sealed_pair_by,
};
use crate::lab::agent::{CONFIG, SECRET, hostseal, hostseal_all, kill_agent, start_agent, status};
use crate::lab::wait::until;
use crate::lab::{Kind, Lab};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("disable::everywhere_leaves_nothing_of_ours", 2, |lab| {
        everywhere_leaves_nothing_of_ours(lab, "ike")
    }),
    Test::new("disable::one_host_takes_its_pairs_along", 2, one_host_takes_its_pairs_along),
    Test::new("disable::by_force_without_agent_secret_or_file", 2, by_force),
    Test::new("disable::by_force_while_the_agent_lives", 2, by_force_while_the_agent_lives),
    Test::new("disable::by_hand_without_the_program", 2, by_hand),
    Test::new("disable::where_nothing_can_be_written", 2, where_nothing_can_be_written),
    Test::new("disable::an_agent_killed_on_the_way", 2, an_agent_killed_on_the_way),
    Test::new("disable::counts_from_when_the_order_was_taken", 2, counts_when_taken),
    Test::new("disable::and_enable_again", 2, and_enable_again),
];

pub(super) fn everywhere_leaves_nothing_of_ours(lab: &mut Lab, method: &str) -> Result<()> {
    for host in lab.hosts() {
        put_foreign(host)?;
    }
    let before: Vec<String> = lab.hosts().iter().map(foreign).collect::<Result<_>>()?;
    let (a, b) = sealed_pair_by(lab, method)?;
    let traffic = Traffic::start(&a, &b, 500)?;
    for outcome in hostseal_all(lab.hosts(), "disable")? {
        outcome.expect_code(0)?;
    }
    traffic.ensure_complete()?;
    for (host, before) in lab.hosts().iter().zip(before) {
        ensure_nothing_of_ours(host)?;
        ensure!(foreign(host)? == before, "somebody else's on {}: {}", host.name(), foreign(host)?);
        let status = status(host)?;
        ensure!(status.at("/protection") == "off", "{:#}", status.0);
    }
    let capture = lab.capture(&a)?;
    ensure_pings(&a, &b, 3)?;
    let report = capture.stop()?;
    ensure!(report.count(Kind::Clear) == 12 && report.count(Kind::Esp) == 0, "clear again: {report}");
    Ok(())
}

/// With `allow_peer_disable`, which is the default, a pair goes back to clear when one of its hosts asks.
fn one_host_takes_its_pairs_along(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let traffic = Traffic::start(&a, &b, 500)?;
    hostseal(&b, "disable")?.expect_code(0)?;
    traffic.ensure_complete()?;
    ensure_nothing_of_ours(&b)?;
    let row = status(&a)?.peer(b.v4().into())?;
    ensure!(row.at("/state") == "clear" && row.at("/reason_code") == "peer_disabled", "{:#}", row.0);
    ensure_pings(&a, &b, 3)
}

fn by_force(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    put_foreign(&a)?;
    let before = foreign(&a)?;
    for host in [&a, &b] {
        kill_agent(host)?;
        host.write(CONFIG, "cluster = [[[ broken", 0o644)?;
        host.run(&format!("rm {SECRET}"))?;
        hostseal(host, "disable --force")?.expect_code(0)?;
        ensure_nothing_of_ours(host)?;
    }
    ensure!(foreign(&a)? == before, "somebody else's: {}", foreign(&a)?);
    ensure_pings(&a, &b, 3)
}

/// The agent would put everything back, so it has to go first.
fn by_force_while_the_agent_lives(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    for host in [&a, &b] {
        hostseal(host, "disable --force")?.expect_code(0)?;
        ensure_nothing_of_ours(host)?;
        let status = status(host)?;
        ensure!(status.at("/protection") == "off", "{:#}", status.0);
        ensure!(status.at("/agent/running") == false, "{:#}", status.0);
    }
    ensure_pings(&a, &b, 3)
}

/// The lines that `docs/operations.md` has for a host without the program do what it says.
fn by_hand(lab: &mut Lab) -> Result<()> {
    const LINES: [&str; 2] = [
        "seq -f 'ip xfrm policy deleteall priority %.0f' 1000 1299 | sh",
        "ip xfrm state deleteall reqid 1752367105",
    ];
    let documented = include_str!("../../../docs/operations.md");
    let (a, b) = sealed_pair(lab)?;
    put_foreign(&a)?;
    let before = foreign(&a)?;
    for host in [&a, &b] {
        kill_agent(host)?;
        for line in LINES {
            ensure!(documented.contains(line), "not in the documents: {line}");
            host.run(line)?;
        }
        ensure_nothing_of_ours(host)?;
    }
    ensure!(foreign(&a)? == before, "somebody else's: {}", foreign(&a)?);
    ensure_pings(&a, &b, 3)
}

/// A full or broken disk is no reason to stay protected against the operator's will.
fn where_nothing_can_be_written(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    // Even root cannot make a directory where a file is.
    let broken = "state_dir = \"/run/file/state\"";
    for host in [&a, &b] {
        host.run("touch /run/file")?;
        host.run(&format!("sed -i '1i {broken}' {CONFIG}"))?;
        let outcome = hostseal(host, "disable --force")?.expect_code(0)?;
        ensure!(outcome.stdout.contains("not written"), "{}", outcome.stdout);
        ensure_nothing_of_ours(host)?;
    }
    ensure_pings(&a, &b, 3)
}

/// What the operator wanted last counts: the next agent clears what is left, and enabling begins in stages.
fn an_agent_killed_on_the_way(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    hostseal(&a, "disable --timeout 1s")?;
    if status(&a)?.at("/agent/running") == true {
        kill_agent(&a)?;
    }
    let agent = start_agent(&a)?;
    until("nothing of ours is left", Duration::from_secs(10), || ensure_nothing_of_ours(&a))?;
    drop(agent);
    hostseal(&b, "disable")?.expect_code(0)?;
    let traffic = Traffic::start(&a, &b, 500)?;
    for outcome in hostseal_all(lab.hosts(), "enable")? {
        outcome.expect_code(0)?;
    }
    traffic.ensure_complete()
}

/// Whoever does not wait for the end has disabled the host all the same.
fn counts_when_taken(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    // The way to the clear waits for an answer of the other end.
    kill_agent(&b)?;
    let marked = || a.succeeds(&format!("test -e {CONFIG}.enabled"));
    ensure!(marked()?);
    hostseal(&a, "disable --timeout 1s")?.expect_code(3)?;
    ensure!(!marked()?);
    until("the way to the clear is at its end", Duration::from_secs(30), || ensure_nothing_of_ours(&a))
}

fn and_enable_again(lab: &mut Lab) -> Result<()> {
    for _ in 0..2 {
        let (a, b) = sealed_pair(lab)?;
        ensure_pings(&a, &b, 3)?;
        for outcome in hostseal_all(lab.hosts(), "disable")? {
            outcome.expect_code(0)?;
        }
        ensure_pings(&a, &b, 3)?;
    }
    Ok(())
}
