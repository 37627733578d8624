//! What an agent knows stays in memory: none of it is swapped to disk.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::seal_all;
use crate::lab::agent::{hostseal, kill_agent, status, status_until};
use crate::lab::{Cluster, HOSTSEAL, Host, Lab};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[Test::new("memory::is_locked", 2, is_locked)];

fn is_locked(lab: &mut Lab) -> Result<()> {
    let cluster = Cluster::of_v4(lab.hosts());
    seal_all(&cluster, lab.hosts())?;
    let a = &lab.hosts()[0];
    let (locked, unlocked) = own_memory(a)?;
    ensure!(!locked.is_empty() && unlocked.is_empty(), "locked: {locked:#?}, not locked: {unlocked:#?}");
    ensure!(locked.iter().any(|place| place.ends_with("[heap]")), "{locked:#?}");
    // One that may not, as in a container: what it says, and that it does its work all the same.
    kill_agent(a)?;
    a.run(&format!(
        "prlimit --memlock=65536 setpriv --bounding-set=-sys_resource {HOSTSEAL} enable --no-wait"
    ))?;
    status_until(a, "protection by one that may not lock memory", Duration::from_secs(20), |status| {
        status.number("/summary/protected") == 1 && status.at("/agent/running") == true
    })?;
    let log = a.read("/run/hostseal/agent.log")?;
    ensure!(log.matches("secrets may be swapped to disk").count() == 1, "once, by the second: {log}");
    let (_, unlocked) = own_memory(a)?;
    ensure!(unlocked.iter().any(|place| place.ends_with("[heap]")), "{unlocked:#?}");
    hostseal(a, "status")?.expect_code(0)?;
    Ok(())
}

/// The private memory that the agent of a host has written to or can write to, as lines of smaps: what is
/// locked, and what is not.
fn own_memory(host: &Host) -> Result<(Vec<String>, Vec<String>)> {
    let (mut locked, mut unlocked) = (Vec::new(), Vec::new());
    let mut place = String::new();
    for line in fs::read_to_string(format!("/proc/{}/smaps", status(host)?.agent()?))?.lines() {
        match line.split_once(' ') {
            Some(("VmFlags:", flags)) if place.contains(" rw") => {
                let is_locked = flags.split_whitespace().any(|flag| flag == "lo");
                let list = if is_locked { &mut locked } else { &mut unlocked };
                list.push(place.clone());
            }
            Some((head, _)) if !head.ends_with(':') => line.clone_into(&mut place),
            _ => {}
        }
    }
    Ok((locked, unlocked))
}
