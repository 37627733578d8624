//! Somebody flushes the kernel's tables: the agent puts them right within a second.

use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};

use super::{Traffic, await_protected, ours_in_kernel, sealed_pair};
use crate::lab::agent::status;
use crate::lab::{FAMILIES, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("flush::of_states", 2, |lab| flush(lab, &["state"])),
    Test::new("flush::of_policies", 2, |lab| flush(lab, &["policy"])),
    Test::new("flush::of_both", 2, |lab| flush(lab, &["state", "policy"])),
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
