//! `enable` while a host is on its way to the clear: the last word of each operator holds.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use super::{await_protected, ensure_only_esp, seal_all};
use crate::lab::agent::{hostseal, hostseal_all, status_until};
use crate::lab::{Cluster, HOSTSEAL, Host, Lab};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("lives::an_interrupted_disable_and_enable", 3, interrupted),
    Test::new("lives::disable_and_enable_at_the_same_time", 3, at_the_same_time),
    Test::new("lives::all_hosts_at_once", 3, all_at_once),
    Test::new("lives::enable_after_a_trial_that_just_ended", 3, after_a_trial),
];

/// Where a host is in the middle of going back to the clear, and at its end.
const MOMENTS: [u64; 4] = [50, 500, 1_800, 2_100];

/// Three hosts, sealed.
fn sealed(lab: &Lab) -> Result<[Host; 3]> {
    seal_all(&Cluster::of(lab.hosts()), lab.hosts())?;
    Ok(lab.all())
}

/// Begins `disable`, which is not waited for to its end.
fn begin_to_disable(host: &Host, milliseconds: u64) -> Result<()> {
    let seconds = Duration::from_millis(milliseconds).as_secs_f64();
    host.run(&format!("timeout -s INT {seconds} {HOSTSEAL} disable >/dev/null 2>&1 || true")).map(drop)
}

/// Checks that all pairs of all hosts are protected, and stay so.
fn ensure_all_protected(lab: &Lab) -> Result<()> {
    lab.hosts().iter().try_for_each(await_protected)?;
    let captures = lab.capture_all()?;
    let now = std::time::SystemTime::now();
    for (from, to) in lab.hosts().iter().zip(lab.hosts().iter().cycle().skip(1)) {
        super::ensure_pings(from, to, 3)?;
    }
    ensure_only_esp(captures, now)?;
    for host in lab.hosts() {
        hostseal(host, "status")?.expect_code(0)?;
    }
    Ok(())
}

fn interrupted(lab: &mut Lab) -> Result<()> {
    let [_, b, _] = sealed(lab)?;
    for moment in MOMENTS {
        println!("after {moment} ms");
        begin_to_disable(&b, moment)?;
        hostseal(&b, "enable")?.expect_code(0)?;
        ensure_all_protected(lab)?;
    }
    Ok(())
}

fn at_the_same_time(lab: &mut Lab) -> Result<()> {
    let [a, ..] = sealed(lab)?;
    for moment in [0, 20, 200] {
        std::thread::scope(|scope| {
            let disable = scope.spawn(|| hostseal(&a, "disable"));
            sleep(Duration::from_millis(moment));
            begin_to_disable(&a, 100)?;
            let enable = hostseal(&a, "enable");
            // Whether it was there first, it does not matter: the other one has the last word.
            let _ = disable.join();
            enable.map(drop)
        })?;
        hostseal(&a, "enable")?.expect_code(0)?;
        ensure_all_protected(lab)?;
    }
    Ok(())
}

fn all_at_once(lab: &mut Lab) -> Result<()> {
    sealed(lab)?;
    for moment in MOMENTS {
        println!("after {moment} ms");
        std::thread::scope(|scope| {
            let hosts = lab.hosts().iter().map(|host| scope.spawn(move || begin_to_disable(host, moment)));
            let hosts: Vec<_> = hosts.collect();
            hosts
                .into_iter()
                .try_for_each(|host| host.join().unwrap_or_else(|it| std::panic::resume_unwind(it)))
        })?;
        for outcome in hostseal_all(lab.hosts(), "enable")? {
            outcome.expect_code(0)?;
        }
        ensure_all_protected(lab)?;
    }
    Ok(())
}

fn after_a_trial(lab: &mut Lab) -> Result<()> {
    let [a, b, c] = lab.all();
    Cluster::of(lab.hosts()).install_all(lab.hosts())?;
    for host in [&b, &c] {
        hostseal(host, "enable --no-wait")?.expect_code(0)?;
    }
    for moment in [0, 300, 3_000] {
        println!("{moment} ms after the trial");
        hostseal(&a, "enable --try 8s")?.expect_code(0)?;
        status_until(&a, "the trial is over", Duration::from_secs(20), |status| {
            status.at("/protection") != "on"
        })?;
        sleep(Duration::from_millis(moment));
        hostseal(&a, "enable")?.expect_code(0)?;
        ensure_all_protected(lab)?;
        hostseal(&a, "disable")?.expect_code(0)?;
    }
    Ok(())
}
