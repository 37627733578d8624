//! `enable --strict`: nothing in the clear from the first moment on.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};

use super::{await_protected, await_sealed, ensure_pings, ensure_silence};
use crate::lab::agent::{hostseal, kill_agent, status};
use crate::lab::{Cluster, Direction, FAMILIES, Host, Kind, Lab};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("strict::nothing_clear_leaves_until_the_peer_is_up", 2, nothing_clear_leaves),
    Test::new("strict::survives_a_reboot", 2, survives_a_reboot),
];

fn ensure_blocked(host: &Host, other: &Host) -> Result<()> {
    let status = status(host)?;
    for family in FAMILIES {
        let row = status.peer(other.address(family))?;
        ensure!(row.at("/state") == "blocked" && row.at("/reason").is_string(), "{:#}", row.0);
    }
    Ok(())
}

fn nothing_clear_leaves(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    Cluster::of(lab.hosts()).install_all(lab.hosts())?;
    ensure_pings(&a, &b, 1)?;
    let capture = lab.capture(&a)?;
    hostseal(&a, "enable --strict --no-wait")?.expect_code(0)?;
    let strict = SystemTime::now();
    ensure_silence(&a, &b)?;
    ensure_blocked(&a, &b)?;
    hostseal(&a, "enable --timeout 1s")?.expect_code(3)?;
    let waits = hostseal(&a, "enable --strict --json")?.expect_code(6)?;
    ensure!(waits.json()?["waiting_for"] == serde_json::json!(["b"]), "{}", waits.stdout);
    // The other host does not know, and is not heard.
    ensure_silence(&b, &a)?;
    hostseal(&b, "enable")?.expect_code(0)?;
    await_protected(&a)?;
    for host in [&a, &b] {
        await_sealed(host)?;
    }
    let sealed = SystemTime::now();
    ensure_pings(&a, &b, 3)?;
    let report = capture.stop()?;
    report.since(strict).filter(|packet| packet.direction == Direction::Out).ensure_nothing_clear()?;
    report.since(sealed).ensure_nothing_clear()
}

/// The kernel forgets everything, the state directory does not.
fn survives_a_reboot(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    Cluster::of(lab.hosts()).install_all(lab.hosts())?;
    hostseal(&a, "enable --strict --no-wait")?.expect_code(0)?;
    kill_agent(&a)?;
    a.run("ip xfrm policy flush && ip xfrm state flush")?;
    hostseal(&a, "enable --no-wait")?.expect_code(0)?;
    let capture = lab.capture(&a)?;
    ensure_silence(&a, &b)?;
    ensure_blocked(&a, &b)?;
    hostseal(&b, "enable")?.expect_code(0)?;
    crate::lab::agent::status_until(&a, "protected", Duration::from_secs(20), |status| {
        status.all_protected()
    })?;
    ensure_pings(&a, &b, 3)?;
    // What comes in: where no agent listens yet, what IKE sends is answered by ICMP.
    let report = capture.stop()?.filter(|packet| packet.direction == Direction::Out);
    report.ensure_nothing_clear()?;
    ensure!(report.count(Kind::Esp) > 0, "no ESP at all: {report}");
    Ok(())
}
