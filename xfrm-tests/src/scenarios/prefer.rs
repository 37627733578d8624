//! Mode `prefer`: ESP with whoever can, clear with whoever cannot, and never in silence.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};

use super::{await_logged, ensure_pings, ensure_silence};
use crate::lab::agent::{hostseal, hostseal_all, kill_agent, status, status_until};
use crate::lab::{Cluster, Direction, FAMILIES, Family, Host, Lab};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("prefer::who_cannot_stays_clear_and_is_named", 3, who_cannot_stays_clear),
    Test::new("prefer::what_was_sealed_does_not_fall_back", 2, what_was_sealed_does_not_fall_back),
];

fn cluster(hosts: &[Host]) -> Cluster {
    Cluster::of(hosts).with("protection", "mode = \"prefer\"")
}

/// Host c runs nothing.
fn who_cannot_stays_clear(lab: &mut Lab) -> Result<()> {
    let [a, b, c] = lab.all();
    cluster(lab.hosts()).install_all(lab.hosts())?;
    let started = Instant::now();
    let members = [a.clone(), b.clone()];
    for outcome in hostseal_all(&members, "enable --timeout 50s --json")? {
        let status = crate::lab::agent::Status(outcome.expect_code(6)?.json()?);
        ensure!(status.at("/mode") == "prefer" && status.at("/waiting_for/0") == "c", "{:#}", status.0);
    }
    ensure!(started.elapsed() < Duration::from_secs(40), "it does not wait for the time to be over");
    for (host, other) in [(&a, &b), (&b, &a)] {
        for family in FAMILIES {
            let row = status(host)?.peer(other.address(family))?;
            ensure!(row.at("/state") == "protected", "{:#}", row.0);
        }
    }
    for (host, family) in [&a, &b].into_iter().zip(FAMILIES) {
        status_until(host, "c is named", Duration::from_secs(30), |status| {
            status
                .peer(c.address(family))
                .is_ok_and(|row| row.at("/state") == "clear" && row.at("/reason_code") == "no_answer")
        })?;
    }
    hostseal(&a, "status")?.expect_code(3)?;
    await_logged(&a, "c is named", |line| {
        line.contains("answer") && (line.contains(&c.v4().to_string()) || line.contains(": c"))
    })?;
    let capture = lab.capture(&a)?;
    ensure_pings(&a, &b, 3)?;
    ensure_pings(&a, &c, 3)?;
    // Beside the pairs nothing is blocked.
    a.run("ip address add 10.99.1.1/16 dev eth0")?;
    ensure!(a.succeeds(&format!("ping -n -c 2 -W 1 -I 10.99.1.1 {}", b.v4()))?, "another address of a");
    let report = capture.stop()?;
    let with_b = report.filter(|packet| {
        packet.addresses.is_some_and(|ends| FAMILIES.iter().any(|family| is_between(ends, &a, &b, *family)))
    });
    with_b.ensure_nothing_clear()
}

fn is_between(ends: (std::net::IpAddr, std::net::IpAddr), a: &Host, b: &Host, family: Family) -> bool {
    let (a, b) = (a.address(family), b.address(family));
    ends == (a, b) || ends == (b, a)
}

/// Dropped packets, a flushed kernel and a reboot block a sealed pair; they do not open it.
fn what_was_sealed_does_not_fall_back(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    super::seal_all(&cluster(lab.hosts()), lab.hosts())?;
    let capture = lab.capture(&a)?;
    let sealed = SystemTime::now();
    // The other host falls silent, and this one's kernel forgets all that it had.
    kill_agent(&b)?;
    a.run("ip xfrm state flush")?;
    status_until(&a, "blocked", Duration::from_secs(10), |status| {
        status.peers().iter().all(|row| row["state"] == "blocked")
    })?;
    ensure_silence(&a, &b)?;
    kill_agent(&a)?;
    a.run("ip xfrm policy flush && ip xfrm state flush")?;
    hostseal(&a, "enable --no-wait")?.expect_code(0)?;
    ensure_silence(&a, &b)?;
    hostseal(&b, "enable")?.expect_code(0)?;
    super::await_protected(&a)?;
    ensure_pings(&a, &b, 3)?;
    let report = capture.stop()?.filter(|packet| packet.direction == Direction::Out);
    println!("{report}");
    report.since(sealed).ensure_nothing_clear()
}
