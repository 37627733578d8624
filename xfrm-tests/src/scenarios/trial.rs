//! `enable --try`: what nobody confirms goes back by itself, with whatever is still alive.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Traffic, await_protected, ensure_nothing_of_ours, ensure_pings};
use crate::lab::agent::{CONFIG, hostseal, kill_agent, start_agent, status, status_until};
use crate::lab::wait::until;
use crate::lab::{Cluster, FAMILIES, Host, Kind, Lab};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("trial::goes_back_at_both_ends", 2, goes_back_at_both_ends),
    Test::new("trial::the_kernel_lets_go_of_what_a_dead_agent_left", 2, the_kernel_lets_go),
    Test::new("trial::what_is_confirmed_stays", 2, what_is_confirmed_stays),
    Test::new("trial::is_over_after_a_reboot", 2, is_over_after_a_reboot),
];

/// Host a is on trial for `seconds`, host b is protected for good; when the trial ends, at the latest.
fn on_trial(lab: &Lab, seconds: u64) -> Result<(Host, Host, Instant)> {
    let [a, b] = lab.all();
    Cluster::of(lab.hosts()).install_all(lab.hosts())?;
    hostseal(&b, "enable --no-wait")?.expect_code(0)?;
    hostseal(&a, &format!("enable --try {seconds}s"))?.expect_code(0)?;
    let end = Instant::now() + Duration::from_secs(seconds);
    await_protected(&b)?;
    let left = status(&a)?.number("/try_ends_in_s");
    ensure!(left > 0 && left <= seconds + 1, "{left}");
    for family in FAMILIES {
        let row = status(&b)?.peer(a.address(family))?;
        ensure!(row.number("/try_ends_in_s") > 0, "the other end knows: {:#}", row.0);
    }
    Ok((a, b, end))
}

/// Waits until nothing of ours locks out: no policy blocks, requires or sends ESP.
pub(super) fn await_open(host: &Host, end: Instant) -> Result<()> {
    let limit = end.saturating_duration_since(Instant::now()) + Duration::from_secs(12);
    until(&format!("{} is in the clear", host.name()), limit, || {
        let policies = host.run("ip xfrm policy list nosock")?;
        let shut = policies.contains("action block") || policies.contains("dir out priority 1100");
        let required = policies.matches("tmpl").count() - policies.matches("level use").count();
        ensure!(!shut && required == 0, "{policies}");
        Ok::<_, anyhow::Error>(())
    })
}

fn ensure_clear(lab: &Lab, a: &Host, b: &Host) -> Result<()> {
    let capture = lab.capture(a)?;
    ensure_pings(a, b, 3)?;
    ensure_pings(b, a, 3)?;
    let report = capture.stop()?;
    // Where no agent listens, what IKE sends is answered by ICMP.
    ensure!(report.count(Kind::Clear) >= 24 && report.count(Kind::Esp) == 0, "clear again: {report}");
    Ok(())
}

fn goes_back_at_both_ends(lab: &mut Lab) -> Result<()> {
    let (a, b, end) = on_trial(lab, 10)?;
    let traffic = Traffic::start(&a, &b, 250)?;
    let off = "the trial is over";
    status_until(&a, off, Duration::from_secs(20), |status| status.at("/protection") == "off")?;
    status_until(&b, off, Duration::from_secs(10), |status| {
        status.peers().iter().all(|row| row["state"] == "clear" && row["reason_code"] == "peer_disabled")
    })?;
    await_open(&b, end)?;
    traffic.ensure_complete()?;
    ensure_nothing_of_ours(&a)?;
    ensure_clear(lab, &a, &b)?;
    // The agent that `enable` had started is done.
    hostseal(&a, "confirm")?.expect_code(4).map(drop)
}

/// The agent of the host on trial is killed: its kernel lets go by itself, and loses nothing over it.
fn the_kernel_lets_go(lab: &mut Lab) -> Result<()> {
    let (a, b, end) = on_trial(lab, 10)?;
    let traffic = Traffic::start(&a, &b, 250)?;
    kill_agent(&a)?;
    let policies = a.run("ip xfrm policy list nosock")?;
    ensure!(policies.contains("dir out priority 1100"), "it is gone already: {policies}");
    await_open(&a, end)?;
    await_open(&b, end)?;
    traffic.ensure_complete()?;
    ensure_clear(lab, &a, &b)
}

fn what_is_confirmed_stays(lab: &mut Lab) -> Result<()> {
    let (a, b, end) = on_trial(lab, 8)?;
    let traffic = Traffic::of(&[(&a, &b), (&b, &a)], &[FAMILIES[0]], 1000)?;
    // A file that somebody broke meanwhile keeps nobody from it.
    let file = a.read(CONFIG)?;
    a.write(CONFIG, "cluster =", 0o644)?;
    let outcome = hostseal(&a, "confirm")?.expect_code(0)?;
    ensure!(outcome.stdout.starts_with("confirmed"), "{}", outcome.stdout);
    a.write(CONFIG, &file, 0o644)?;
    let again = hostseal(&a, "confirm")?.expect_code(0)?;
    ensure!(again.stdout.starts_with("nothing to confirm"), "{}", again.stdout);
    for host in [&a, &b] {
        until("no policy has an end", Duration::from_secs(5), || {
            let policies = host.run("ip -s xfrm policy")?;
            let lasting = policies.lines().filter(|line| line.contains("expire add"));
            ensure!(lasting.clone().all(|line| line.contains("hard 0(sec)")), "{policies}");
            Ok::<_, anyhow::Error>(())
        })?;
    }
    // Past the latest moment at which anything would have gone.
    std::thread::sleep(end.saturating_duration_since(Instant::now()) + Duration::from_secs(7));
    traffic.ensure_complete()?;
    for host in [&a, &b] {
        let status = status(host)?;
        ensure!(status.all_protected() && status.at("/try_ends_in_s").is_null(), "{:#}", status.0);
    }
    ensure_pings(&a, &b, 3)
}

/// The state directory tells of a trial under another start of the system.
fn is_over_after_a_reboot(lab: &mut Lab) -> Result<()> {
    let (a, b, _) = on_trial(lab, 60)?;
    kill_agent(&a)?;
    a.run("ip xfrm policy flush && ip xfrm state flush")?;
    let state = "/var/lib/hostseal/state.json";
    let boot = a.read("/proc/sys/kernel/random/boot_id")?;
    let remembered = a.read(state)?;
    ensure!(remembered.contains(boot.trim()), "{remembered}");
    a.write(state, &remembered.replace(boot.trim(), "another"), 0o600)?;
    let _agent = start_agent(&a)?;
    status_until(&a, "off", Duration::from_secs(5), |status| status.at("/protection") == "off")?;
    ensure_nothing_of_ours(&a)?;
    hostseal(&b, "disable")?.expect_code(0)?;
    ensure_clear(lab, &a, &b)
}
