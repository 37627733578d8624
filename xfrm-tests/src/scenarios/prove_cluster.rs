//! `hostseal prove --cluster` with real packets: each pair of three nodes is proven once, and what is wrong is named,
//! wherever it is.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{await_protected, await_sealed};
use crate::lab::agent::{hostseal, kill_agent};
use crate::lab::{Host, Lab, members, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] =
    &[Test::new("prove_cluster::what_is_wrong_is_named_wherever_it_is", 3, of_all).within(300)];

/// The longest that anything takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// What `prove --cluster` says on a host; it ends with `code`.
fn prove(host: &Host, code: i32) -> Result<Value> {
    let outcome = hostseal(host, "prove --cluster --json")?;
    let report = outcome.json();
    outcome.expect_code(code)?;
    report
}

/// The rows of the pair of two nodes, by whichever end.
fn of<'r>(report: &'r Value, ends: [&str; 2]) -> Result<Vec<&'r Value>> {
    let rows = report["pairs"].as_array().context("no pairs")?;
    let is = |row: &&Value| {
        let by = [&row["by"], &row["node"]].map(|it| it.as_str().unwrap_or_default());
        by == ends || by == [ends[1], ends[0]]
    };
    let found: Vec<&Value> = rows.iter().filter(is).collect();
    ensure!(!found.is_empty(), "{report:#}");
    Ok(found)
}

/// Checks that all rows of that pair came out so.
fn ensure_all(report: &Value, ends: [&str; 2], result: &str, code: Option<&str>) -> Result<()> {
    for row in of(report, ends)? {
        ensure!(row["result"] == result && row["reason_code"].as_str() == code, "{row:#}");
    }
    Ok(())
}

fn of_all(lab: &mut Lab) -> Result<()> {
    const REPORT: &str = "/run/proof.json";
    let [a, b, c] = lab.all();
    members::found(lab.hosts())?;
    hostseal(&a, "enable --cluster")?.expect_code(0)?;
    lab.hosts().iter().try_for_each(await_protected)?;
    lab.hosts().iter().try_for_each(await_sealed)?;

    let shown = hostseal(&a, &format!("prove --cluster --out {REPORT}"))?.expect_code(0)?;
    println!("{}", shown.stdout);
    let written = a.read(REPORT)?;
    let report: Value = serde_json::from_str(&written)?;
    for ends in [["a", "b"], ["a", "c"], ["b", "c"]] {
        ensure_all(&report, ends, "proven", None)?;
        let by = of(&report, ends)?;
        ensure!(by.iter().all(|row| row["by"] == ends[0]), "{report:#}");
        // Who watches the wire is this node alone.
        ensure!(by.iter().all(|row| row["wire"].is_null() == (ends[0] == "b")), "{report:#}");
    }
    ensure!(report.get("unasked").is_none(), "{report:#}");
    b.write(REPORT, &written, 0o644)?;
    let verified = hostseal(&b, &format!("prove --verify {REPORT}"))?.expect_code(0)?;
    ensure!(verified.stderr.contains("a has signed this report"), "{}", verified.stderr);
    ensure!(verified.stdout.contains("signed by the key of a"), "{}", verified.stdout);

    // Somebody removes a policy on c again and again, as the agent puts it back.
    let removal = format!(
        "while :; do ip xfrm policy del src {}/32 dst {}/32 dir in 2>/dev/null; done",
        b.v4(),
        c.v4()
    );
    let mut hand = c.spawn(Command::new("sh").args(["-c", &removal]))?;
    until("the pair that leaks is named", PATIENCE, || {
        let report = prove(&a, 3)?;
        let rows = of(&report, ["b", "c"])?;
        let leaks = |row: &&&Value| row["result"] == "failed" && row["reason_code"] == "clear_accepted";
        let named = rows.iter().find(leaks).with_context(|| format!("{report:#}"))?;
        ensure!(named["reason"].as_str().is_some_and(|reason| reason.contains("c took")), "{named:#}");
        ensure_all(&report, ["a", "b"], "proven", None)
    })?;
    hand.signal(Signal::SIGKILL)?;
    hand.wait(Duration::from_secs(10))?;
    until("all are proven again", PATIENCE, || prove(&a, 0).map(drop))?;

    kill_agent(&c)?;
    until("who is not there is named", PATIENCE, || {
        let report = prove(&a, 3)?;
        let unasked = report["unasked"].as_array().context("all were asked")?;
        ensure!(unasked.iter().any(|row| row["node"] == "c") && unasked.len() == 1, "{report:#}");
        ensure_all(&report, ["a", "b"], "proven", None)?;
        ensure_all(&report, ["a", "c"], "inconclusive", Some("no_answer"))?;
        ensure_all(&report, ["b", "c"], "inconclusive", Some("no_answer"))
    })?;
    let shown = hostseal(&a, "prove --cluster")?.expect_code(3)?;
    println!("{}", shown.stdout);
    ensure!(shown.stdout.contains("c was not asked"), "{}", shown.stdout);
    hostseal(&a, "prove --cluster b")?.expect_code(3).map(drop)
}
