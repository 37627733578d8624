//! What the agent's log says, and how long it may become.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{LOG, await_logged, sealed_pair};
use crate::lab::agent::{CONFIG, hostseal, hostseal_all, status, status_until};
use crate::lab::{Cluster, HOSTSEAL, Lab, until};
use crate::tests::Test;

/// How long something may take. It is no measure.
const SOON: Duration = Duration::from_secs(60);

pub(super) const ALL: &[Test] = &[
    Test::new("logs::a_file_is_bounded", 1, a_file_is_bounded),
    Test::new("logs::a_file_is_bounded_while_the_agent_runs", 2, a_file_is_bounded_meanwhile),
    Test::new("logs::a_log_that_takes_nothing_stops_no_agent", 2, a_log_takes_nothing),
    Test::new("logs::what_becomes_of_a_pair_has_a_line", 2, a_pair_has_lines),
];

fn a_file_is_bounded(lab: &mut Lab) -> Result<()> {
    let [a] = lab.all();
    Cluster::of_v4(lab.hosts()).install_all(lab.hosts())?;
    a.run(&format!("mkdir -p /run/hostseal && truncate -s 9M {LOG} && chmod 0600 {LOG}"))?;
    hostseal(&a, "enable --no-wait")?.expect_code(0)?;
    await_logged(&a, "something", |line| line.contains("listening on"))?;
    let sizes = a.run(&format!("stat -c '%s %a' {LOG}.1 {LOG}"))?;
    let mut sizes = sizes.lines().map(str::to_owned);
    ensure!(sizes.next().as_deref() == Some("9437184 600"), "the old one is kept");
    let new = sizes.next().unwrap_or_default();
    ensure!(new.ends_with(" 600") && new.len() < "100000 600".len(), "{new}");
    Ok(())
}

/// The agent has given up most of the files and system calls by then.
fn a_file_is_bounded_meanwhile(lab: &mut Lab) -> Result<()> {
    let (a, _) = sealed_pair(lab)?;
    let agent = status(&a)?.agent()?;
    a.run(&format!("truncate -s 9M {LOG}"))?;
    let cluster = Cluster::of(lab.hosts()).with("keying", "rekey_after = \"50m\"");
    a.write(CONFIG, &cluster.text(), 0o644)?;
    hostseal(&a, "reload")?.expect_code(0)?;
    await_logged(&a, "what has changed", |line| line.contains("rekey_after"))?;
    let sizes = a.run(&format!("stat -c '%s %a' {LOG}.1"))?;
    ensure!(sizes.trim() == "9437184 600", "the old one is kept: {sizes}");
    ensure!(a.read(LOG)?.len() < 100_000);
    ensure!(status(&a)?.agent()? == agent, "it is the same agent");
    Ok(())
}

/// As on a full disk.
fn a_log_takes_nothing(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    Cluster::of(lab.hosts()).install_all(lab.hosts())?;
    let _agent =
        a.spawn(Command::new("sh").args(["-c", &format!("exec {HOSTSEAL} -vv agent 2>/dev/full")]))?;
    until("the agent answers", SOON, || status(&a)?.agent().map(drop))?;
    for outcome in hostseal_all(&[a.clone(), b], "enable")? {
        outcome.expect_code(0)?;
    }
    status_until(&a, "protection", SOON, |status| status.all_protected()).map(drop)
}

/// Protected, silent and heard again: each once, and not again and again.
fn a_pair_has_lines(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let address = b.v4();
    let of_pair =
        |words: &'static str| move |line: &str| line.contains(&address.to_string()) && line.contains(words);
    await_logged(&a, "that the pair is protected", of_pair(": protected"))?;
    let log = a.read(LOG)?;
    ensure!(!log.contains(" DEBUG "), "rekeys and the like are for -v: {log}");
    lab.wire().plug(&b, false)?;
    let silent = of_pair("silent: no answer");
    let _ = a.output(&format!("ping -n -i 0.5 -w 45 {address}"))?;
    until("a says that b is silent", SOON, || {
        ensure!(a.read(LOG)?.lines().any(&silent));
        Ok::<_, anyhow::Error>(())
    })?;
    lab.wire().plug(&b, true)?;
    let _ = a.output(&format!("ping -n -c 3 {address}"))?;
    let heard = of_pair("heard again");
    until("a hears b again", SOON * 2, || {
        ensure!(a.read(LOG)?.lines().any(&heard));
        Ok::<_, anyhow::Error>(())
    })?;
    let log = a.read(LOG)?;
    println!("{log}");
    ensure!(log.lines().filter(|line| silent(line)).count() == 1, "{log}");
    ensure!(log.lines().filter(|line| heard(line)).count() == 1, "{log}");
    Ok(())
}
