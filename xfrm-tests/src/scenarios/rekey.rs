//! Rekeying: nothing lost, nothing clear, and totals that are exact across all SAs.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};

use super::{Traffic, await_one_pair, seal_all, spis_sent};
use crate::lab::agent::{Status, hostseal_all, status, status_until};
use crate::lab::stream::Shape;
use crate::lab::{Cluster, FAMILIES, Family, Lab};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("rekey::thirty_seconds_of_rekeys_lose_nothing", 2, |lab| rekeys_lose_nothing(lab, "ike", 30)),
    Test::new("rekey::both_ends_at_once_under_loss", 2, both_ends_at_once_under_loss),
];

/// For so many seconds, with a rekey every two.
pub(super) fn rekeys_lose_nothing(lab: &mut Lab, method: &str, seconds: u64) -> Result<()> {
    let [a, b] = lab.all();
    seal_all(&Cluster::of(lab.hosts()).by(method).with("keying", "rekey_after = \"2s\""), lab.hosts())?;
    let captures = lab.capture_all()?;
    let started = SystemTime::now();
    let before = [status(&a)?, status(&b)?];
    let traffic = Traffic::start(&a, &b, 250)?;
    sleep(Duration::from_secs(seconds));
    let counts = traffic.stop()?;
    let after = [status(&a)?, status(&b)?];
    for capture in captures {
        let report = capture.stop()?.since(started);
        println!("{report}");
        report.ensure_nothing_clear()?;
        let other = if report.host == a.name() { &b } else { &a };
        for family in FAMILIES {
            let spis = spis_sent(&report, other.address(family));
            let enough = spis.len() as u64 > seconds / 4;
            ensure!(enough, "only {} SAs in {seconds} s with a rekey every 2 s", spis.len());
        }
    }
    // In the order in which the streams were started.
    let ends = [(0, &b, 1, &a), (1, &a, 0, &b)];
    let flows = ends.into_iter().flat_map(|ends| FAMILIES.map(|family| (ends, family)));
    for (((from, to_host, to, from_host), family), count) in flows.zip(&counts) {
        count.ensure_complete()?;
        let sent = moved(&before[from], &after[from], to_host.address(family), "/tx")?;
        let received = moved(&before[to], &after[to], from_host.address(family), "/rx")?;
        println!("{family:?} to {}: {count:?}, tx moved by {sent:?}, rx by {received:?}", to_host.name());
        // The kernel counts the UDP header and the payload.
        let exact = (count.sent, count.sent * (8 + Shape::default().size as u64));
        ensure!(
            sent == exact && received == exact,
            "{exact:?} were sent, and {sent:?}, {received:?} counted"
        );
    }
    Ok(())
}

/// How far the total of a row has moved: packets and bytes.
fn moved(before: &Status, after: &Status, remote: IpAddr, total: &str) -> Result<(u64, u64)> {
    let (before, after) = (before.peer(remote)?, after.peer(remote)?);
    let step = |figure: &str| -> Result<u64> {
        let path = format!("{total}/{figure}");
        let (old, new) = (before.number(&path), after.number(&path));
        new.checked_sub(old).with_context(|| format!("{path} went back from {old} to {new}"))
    };
    Ok((step("packets")?, step("bytes")?))
}

fn both_ends_at_once_under_loss(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    for host in [&a, &b] {
        lab.wire().netem(host, "loss 30% delay 5ms 5ms duplicate 10%")?;
    }
    let cluster = Cluster::of_v4(lab.hosts()).with("keying", "rekey_after = \"6s\"");
    cluster.install_all(lab.hosts())?;
    hostseal_all(lab.hosts(), "enable --no-wait")?;
    for host in lab.hosts() {
        status_until(host, "protected", Duration::from_secs(60), Status::all_protected)?;
    }
    // Rekeys under loss, most of them with retransmissions; then quiet.
    sleep(Duration::from_secs(30));
    for host in [&a, &b] {
        lab.wire().netem(host, "")?;
    }
    await_one_pair(&a, &b, Family::V4, Duration::from_secs(30))?;
    ensure!(a.ping(&b, Family::V4, 5)? == 5);
    Ok(())
}
