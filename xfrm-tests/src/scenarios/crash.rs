//! The agent dies and another one takes over: the kernel goes on meanwhile.

use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};

use super::{Traffic, await_one_pair, await_protected, ensure_only_esp, sealed_pair, sealed_pair_by, spis};
use crate::lab::agent::{hostseal, kill_agent, status};
use crate::lab::{FAMILIES, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("crash::a_killed_agent_loses_nothing", 2, |lab| {
        a_killed_agent_loses_nothing(lab, "ike", MINUTE)
    })
    .within(180),
    Test::new("crash::both_agents_killed_and_started_again", 2, both_agents_killed).within(180),
];

const MINUTE: Duration = Duration::from_secs(60);

/// Looks for so long, and for a minute at most, at what the next agent does.
pub(super) fn a_killed_agent_loses_nothing(lab: &mut Lab, method: &str, look: Duration) -> Result<()> {
    let (a, b) = sealed_pair_by(lab, method)?;
    let traffic = Traffic::start(&a, &b, 250)?;
    let captures = lab.capture_all()?;
    let sealed = SystemTime::now();
    kill_agent(&a)?;
    let outcome = hostseal(&a, "status --json")?.expect_code(3)?;
    let without = crate::lab::agent::Status(outcome.json()?);
    ensure!(without.at("/agent/running") == false, "{:#}", without.0);
    for family in FAMILIES {
        let row = without.peer(b.address(family))?;
        ensure!(row.number("/tx/packets") > 0 && row.number("/rx/packets") > 0, "{:#}", row.0);
    }
    sleep(look / 12);
    let old = spis(&a)?;
    hostseal(&a, "enable")?.expect_code(0)?;
    await_protected(&a)?;
    await_protected(&b)?;
    ensure!(status(&a)?.agent().is_ok(), "a new agent runs");
    sleep(look);
    until("no earlier SA is left", MINUTE.saturating_sub(look), || {
        let left: Vec<String> = spis(&a)?.into_iter().filter(|spi| old.contains(spi)).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    traffic.ensure_complete()?;
    ensure_only_esp(captures, sealed)?;
    for family in FAMILIES {
        await_one_pair(&a, &b, family, MINUTE.saturating_sub(look) + Duration::from_secs(5))?;
    }
    Ok(())
}

fn both_agents_killed(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let traffic = Traffic::start(&a, &b, 250)?;
    let captures = lab.capture_all()?;
    let sealed = SystemTime::now();
    for host in [&a, &b] {
        kill_agent(host)?;
    }
    for outcome in crate::lab::agent::hostseal_all(lab.hosts(), "enable")? {
        outcome.expect_code(0)?;
    }
    sleep(MINUTE);
    traffic.ensure_complete()?;
    ensure_only_esp(captures, sealed)?;
    for family in FAMILIES {
        await_one_pair(&a, &b, family, Duration::from_secs(5))?;
    }
    Ok(())
}
