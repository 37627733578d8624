//! `hostseal prove` with real packets: what is sealed is proven, and what is not is named.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::encapsulation::await_carried;
use super::keys::{base64, key};
use super::{Traffic, await_protected, await_sealed, seal_all, sealed_pair_by};
use crate::lab::agent::{CONFIG, Outcome, SECRETS, hostseal, hostseal_all, kill_agent};
use crate::lab::stream::Shape;
use crate::lab::{Cluster, Connection, Family, Host, Lab, Peer as _, Stream, Swan, Toward, members, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("prove::a_sealed_pair_is_proven_and_the_report_signed", 2, sealed_and_signed),
    Test::new("prove::with_derived_keys", 2, derived),
    Test::new("prove::with_esp_in_udp", 2, in_udp),
    Test::new("prove::what_is_not_sealed_is_not_proven", 2, not_sealed),
    Test::new("prove::an_exemption_that_covers_it_is_named", 2, exempted),
    Test::new("prove::a_policy_of_somebody_else_is_found_out", 2, other_policies),
    Test::new("prove::a_policy_removed_by_hand_is_found_out", 2, removed_by_hand),
    Test::new("prove::hosts_that_prove_at_once_take_turns", 4, at_once),
    Test::new("prove::a_firewall_in_between_leaves_it_open", 2, firewall),
    Test::new("prove::strongswan_does_not_know_how", 2, foreign),
    Test::new("prove::members_of_a_cluster_know_the_key", 2, of_cluster),
];

/// What `hostseal prove` reports.
struct Report(Value);

impl Report {
    fn of(outcome: &Outcome) -> Result<Self> {
        Ok(Self(outcome.json()?))
    }

    /// The row of the pair with this address of the other.
    fn pair(&self, remote: impl Into<IpAddr>) -> Result<&Value> {
        let remote = remote.into().to_string();
        let rows = self.0["pairs"].as_array().context("no pairs")?;
        rows.iter().find(|row| row["remote"] == remote.as_str()).with_context(|| format!("{:#}", self.0))
    }

    /// Checks that all of so many pairs are proven, by figures that show it.
    fn ensure_proven(&self, pairs: usize) -> Result<()> {
        let rows = self.0["pairs"].as_array().context("no pairs")?;
        ensure!(rows.len() == pairs, "{:#}", self.0);
        for row in rows {
            ensure!(row["result"] == "proven" && row["reason"].is_null(), "{row:#}");
            for way in ["out", "in"] {
                let number = |path: &str| row[way].pointer(path).and_then(Value::as_u64).unwrap_or_default();
                let (clear, sealed) = (number("/clear/sent"), number("/sealed/sent"));
                ensure!((16..=64).contains(&clear) && (16..=64).contains(&sealed), "{row:#}");
                ensure!(number("/clear/delivered") == 0 && number("/clear/refused") >= clear, "{row:#}");
                ensure!(number("/sealed/delivered") == sealed, "{row:#}");
                ensure!(
                    number("/sealed/outbound") >= sealed && number("/sealed/inbound") >= sealed,
                    "{row:#}"
                );
            }
            let wire = &row["wire"];
            ensure!(wire["clear_out"] == 0 && wire["missed"] == 0, "{row:#}");
            ensure!(wire["esp_out"].as_u64() > Some(0), "ESP was seen: {row:#}");
            ensure!(wire["left_out"]["IKE"].as_u64() > Some(0), "{row:#}");
            ensure!(wire["left_out"]["clear packets of the proof"].as_u64() >= Some(32), "{row:#}");
        }
        Ok(())
    }
}

/// Has a host prove its pairs; expects the exit status.
fn prove(host: &Host, code: i32) -> Result<Report> {
    let outcome = hostseal(host, "prove --json")?;
    let report = Report::of(&outcome);
    outcome.expect_code(code)?;
    report
}

/// Has a host prove its pairs, of which the one with `remote` turns out so, with words that say why.
fn ensure_not_proven(
    host: &Host,
    remote: impl Into<IpAddr>,
    (result, code): (&str, &str),
    words: &str,
) -> Result<()> {
    let report = prove(host, 3)?;
    let row = report.pair(remote)?;
    println!("{row:#}");
    ensure!(row["result"] == result && row["reason_code"] == code, "{row:#}");
    ensure!(row["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{row:#}");
    Ok(())
}

/// Hosts with keys: both ends prove, while traffic flows of which nothing is lost. The report is signed.
fn sealed_and_signed(lab: &mut Lab) -> Result<()> {
    const REPORT: &str = "/run/proof.json";
    let [a, b] = lab.all();
    let lines = [key(&a, "ed25519")?, key(&b, "ecdsa-p256")?];
    let cluster = Cluster::of(lab.hosts()).with("auth", "method = \"public_key\"");
    let cluster = cluster.with_node(&a, &lines[0]).with_node(&b, &lines[1]);
    for host in [&a, &b] {
        host.write(CONFIG, &cluster.text(), 0o644)?;
    }
    for outcome in hostseal_all(lab.hosts(), "enable --timeout 30s")? {
        outcome.expect_code(0)?;
    }
    [&a, &b].into_iter().try_for_each(await_sealed)?;
    let policies = a.run("ip xfrm policy | sort")?;
    let traffic = Traffic::start(&a, &b, 100)?;
    for (host, other, line) in [(&a, &b, &lines[0]), (&b, &a, &lines[1])] {
        prove(host, 0)?.ensure_proven(2)?;
        let shown = hostseal(host, &format!("prove {} --out {REPORT}", other.name()))?.expect_code(0)?;
        println!("{}", shown.stdout);
        ensure!(shown.stdout.contains("2 proven") && shown.stdout.contains("signed"), "{}", shown.stdout);
        let report = host.read(REPORT)?;
        // The other one knows the key by its file, and everybody by its line.
        other.write(REPORT, &report, 0o644)?;
        hostseal(other, &format!("prove --verify {REPORT}"))?.expect_code(0)?;
        hostseal(other, &format!("prove --verify {REPORT} --key {}", base64(line)?))?.expect_code(0)?;
        let wrong = lines.iter().find(|it| *it != line).context("another key")?;
        let refused = hostseal(other, &format!("prove --verify {REPORT} --key {}", base64(wrong)?))?;
        ensure!(refused.expect_code(1)?.stderr.contains("another key"));
        other.write(REPORT, &report.replacen("\"rounds\": 1", "\"rounds\": 2", 1), 0o644)?;
        let refused = hostseal(other, &format!("prove --verify {REPORT}"))?.expect_code(1)?;
        println!("{}", refused.stderr);
        ensure!(refused.stderr.contains("the report was changed"), "{}", refused.stderr);
    }
    traffic.ensure_complete()?;
    ensure!(a.run("ip xfrm policy | sort")? == policies, "no policy has changed");
    kill_agent(&a)?;
    hostseal(&a, "prove")?.expect_code(4)?;
    Ok(())
}

fn derived(lab: &mut Lab) -> Result<()> {
    let (a, _) = sealed_pair_by(lab, "derived")?;
    let report = prove(&a, 0)?;
    report.ensure_proven(2)?;
    ensure!(report.0["signature"].is_null(), "there is no key: {:#}", report.0);
    a.write("/run/proof.json", &report.0.to_string(), 0o644)?;
    let refused = hostseal(&a, "prove --verify /run/proof.json")?.expect_code(1)?;
    ensure!(refused.stderr.contains("not signed"), "{}", refused.stderr);
    Ok(())
}

fn in_udp(lab: &mut Lab) -> Result<()> {
    let cluster = Cluster::of(lab.hosts()).with("esp", "encapsulation = \"always\"");
    seal_all(&cluster, lab.hosts())?;
    let [a, b] = lab.all();
    for host in [&a, &b] {
        await_carried(host, "udp", Duration::from_secs(10))?;
        prove(host, 0)?.ensure_proven(2)?;
    }
    Ok(())
}

fn not_sealed(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    Cluster::of_v4(lab.hosts()).install_all(lab.hosts())?;
    hostseal(&a, "prove")?.expect_code(4)?;
    hostseal(&a, "enable --no-wait")?.expect_code(0)?;
    ensure_not_proven(&a, b.v4(), ("failed", "not_sealed"), "in the clear")?;
    println!("{}", hostseal(&a, "prove")?.expect_code(3)?.stdout);
    let unknown = hostseal(&a, "prove c")?.expect_code(2)?;
    ensure!(unknown.stderr.contains('c'), "{}", unknown.stderr);
    hostseal(&b, "enable")?.expect_code(0)?;
    [&a, &b].into_iter().try_for_each(await_sealed)?;
    prove(&a, 0)?.ensure_proven(1)
}

/// An exemption of all high UDP ports lets everything of the proof pass in the clear, also what should be encrypted.
fn exempted(lab: &mut Lab) -> Result<()> {
    let cluster = Cluster::of_v4(lab.hosts()).with("protection", "exempt = [\"udp/32768-65535\"]");
    seal_all(&cluster, lab.hosts())?;
    let [a, b] = lab.all();
    ensure_not_proven(&a, b.v4(), ("failed", "clear_accepted"), "exemption udp/32768-65535")
}

/// Somebody's policies in front of ours, which the agent leaves alone: they let clear packets in, or the pair's out.
fn other_policies(lab: &mut Lab) -> Result<()> {
    seal_all(&Cluster::of_v4(lab.hosts()), lab.hosts())?;
    let [a, b] = lab.all();
    prove(&a, 0)?.ensure_proven(1)?;
    let policy = |from: &Host, to: &Host, more: &str| {
        format!("src {}/32 dst {}/32 {more} priority 1", from.v4(), to.v4())
    };
    let with = |host: &Host, policy: &str, check: &dyn Fn() -> Result<()>| -> Result<()> {
        host.run(&format!("ip xfrm policy add {policy}"))?;
        check()?;
        let selector = policy.split(" priority").next().unwrap_or_default();
        host.run(&format!("ip xfrm policy del {selector}")).map(drop)
    };
    // Only to its address, as the exact one is taken: the same selector is ours, which the kernel does not add twice.
    let inbound = policy(&a, &b, "proto udp dir in");
    with(&b, &inbound, &|| ensure_not_proven(&a, b.v4(), ("failed", "clear_accepted"), "b took"))?;
    with(&b, &inbound, &|| ensure_not_proven(&b, a.v4(), ("failed", "clear_accepted"), "this host took"))?;
    let outbound = policy(&a, &b, "proto udp dir out");
    with(&a, &outbound, &|| ensure_not_proven(&a, b.v4(), ("failed", "not_encrypted"), "left without"))?;
    with(&a, &outbound, &|| ensure_not_proven(&b, a.v4(), ("failed", "not_encrypted"), "a sent"))?;
    // A program of which some packets are clear: the proof's are not, and the wire shows the others.
    let some = policy(&a, &b, "proto udp dport 9999 dir out");
    let stream = Stream::start(&a, &b, Shape { port: 9999, rate: 200, ..Shape::default() })?;
    with(&a, &some, &|| ensure_not_proven(&a, b.v4(), ("failed", "clear_on_wire"), "port 9999"))?;
    stream.stop()?;
    prove(&a, 0)?.ensure_proven(1)?;
    prove(&b, 0)?.ensure_proven(1)
}

/// Somebody removes a policy of ours by hand. The agent puts it back at once, so he does it again and again.
fn removed_by_hand(lab: &mut Lab) -> Result<()> {
    seal_all(&Cluster::of_v4(lab.hosts()), lab.hosts())?;
    let [a, b] = lab.all();
    let removal = format!(
        "while :; do ip xfrm policy del src {}/32 dst {}/32 dir in 2>/dev/null; done",
        a.v4(),
        b.v4()
    );
    let mut hand = b.spawn(Command::new("sh").args(["-c", &removal]))?;
    // Whether packets come while it is away is a matter of luck.
    until("it is found out", Duration::from_secs(60), || {
        ensure_not_proven(&a, b.v4(), ("failed", "clear_accepted"), "b took")
    })?;
    hand.signal(Signal::SIGKILL)?;
    hand.wait(Duration::from_secs(10))?;
    [&a, &b].into_iter().try_for_each(await_sealed)?;
    // The last removal may come after the hand that began it.
    until("it is proven again", Duration::from_secs(60), || prove(&a, 0)?.ensure_proven(1))
}

/// Each kernel counts what it refuses for all pairs together, so one proof waits for the other.
fn at_once(lab: &mut Lab) -> Result<()> {
    seal_all(&Cluster::of_v4(lab.hosts()), lab.hosts())?;
    for outcome in hostseal_all(lab.hosts(), "prove --json")? {
        Report::of(&outcome.expect_code(0)?)?.ensure_proven(lab.hosts().len() - 1)?;
    }
    Ok(())
}

/// What drops clear packets on the way hides what the other end would do with them.
fn firewall(lab: &mut Lab) -> Result<()> {
    seal_all(&Cluster::of_v4(lab.hosts()), lab.hosts())?;
    let [a, b] = lab.all();
    let high_ports = "protocol ip flower ip_proto udp dst_port 32768-65535";
    lab.wire().drop_matching(&a, Toward::Wire, high_ports)?;
    ensure_not_proven(&a, b.v4(), ("inconclusive", "not_refused"), "firewall")
}

fn foreign(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    Cluster::of_v4(lab.hosts()).install(&a, SECRETS[0])?;
    let swan = Swan::start(&b, &[])?;
    swan.load(&[Connection::between(&b, &a, Family::V4, SECRETS[0])])?;
    hostseal(&a, "enable")?.expect_code(0)?;
    ensure_not_proven(&a, b.v4(), ("unsupported", "foreign"), "not hostseal")
}

fn of_cluster(lab: &mut Lab) -> Result<()> {
    const REPORT: &str = "/run/proof.json";
    let [a, b] = lab.all();
    members::found(lab.hosts())?;
    hostseal(&a, "enable --cluster")?.expect_code(0)?;
    lab.hosts().iter().try_for_each(await_protected)?;
    lab.hosts().iter().try_for_each(await_sealed)?;
    hostseal(&b, &format!("prove --out {REPORT}"))?.expect_code(0)?;
    let report = b.read(REPORT)?;
    a.write(REPORT, &report, 0o644)?;
    let verified = hostseal(&a, &format!("prove --verify {REPORT} --json"))?.expect_code(0)?;
    Report::of(&verified)?.ensure_proven(2)?;
    ensure!(verified.stderr.contains("as the cluster knows it"), "{}", verified.stderr);
    a.write(REPORT, &report.replacen("\"node\": \"b\"", "\"node\": \"a\"", 1), 0o644)?;
    hostseal(&a, &format!("prove --verify {REPORT}"))?.expect_code(1)?;
    Ok(())
}
