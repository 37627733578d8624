//! Somebody flushes the kernel's tables: the agent puts them right within a second.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};

use super::{LOG, Traffic, await_protected, ensure_pings, ours_in_kernel, sealed_pair};
use crate::lab::agent::status;
use crate::lab::{FAMILIES, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("flush::of_states", 2, |lab| flush(lab, &["state"])),
    Test::new("flush::of_policies", 2, |lab| flush(lab, &["policy"])),
    Test::new("flush::of_both", 2, |lab| flush(lab, &["state", "policy"])),
    Test::new("flush::a_storm", 2, storm),
];

fn flush(lab: &mut Lab, tables: &[&str]) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let drift = status(&a)?.number("/agent/drift");
    let traffic = Traffic::of(&[(&a, &b), (&b, &a)], &FAMILIES, 200)?;
    let captures = lab.capture_all()?;
    for table in tables {
        a.run(&format!("ip xfrm {table} flush"))?;
    }
    until("policies of ours are back", Duration::from_secs(1), || {
        let found = ours_in_kernel(&a)?;
        ensure!(found.contains("dir out") || found.contains("priority"), "none");
        Ok::<_, anyhow::Error>(())
    })?;
    let back = SystemTime::now();
    sleep(Duration::from_secs(3));
    for count in traffic.stop()? {
        println!("{count:?}");
        ensure!(count.longest_silence <= Duration::from_secs(1), "traffic was away for longer: {count:?}");
        ensure!(count.received > 0 && count.duplicated == 0, "{count:?}");
    }
    for capture in captures {
        let report = capture.stop()?.since(back);
        println!("{report}");
        report.ensure_nothing_clear()?;
    }
    for host in [&a, &b] {
        await_protected(host)?;
    }
    let after = status(&a)?.number("/agent/drift");
    ensure!(after > drift, "the drift is not counted: {drift}, then {after}");
    Ok(())
}

/// Twenty flushes in two seconds: what is dead counts for nothing, so the pair is back as soon as they end.
fn storm(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let (captures, sealed) = (lab.capture_all()?, SystemTime::now());
    a.run("for _ in $(seq 20); do ip xfrm state flush; sleep 0.1; done")?;
    let ended = Instant::now();
    for host in [&a, &b] {
        await_protected(host)?;
    }
    println!("protected {:?} after the last flush", ended.elapsed());
    for (from, to) in [(&a, &b), (&b, &a)] {
        ensure_pings(from, to, 3)?;
    }
    for host in [&a, &b] {
        let log = host.read(LOG)?;
        ensure!(!log.contains("NO_ADDITIONAL_SAS"), "{log}");
    }
    for capture in captures {
        capture.stop()?.since(sealed).ensure_nothing_clear()?;
    }
    Ok(())
}
