//! Enabling: fast, without a lost packet, and nothing clear afterwards.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};

use super::{Traffic, await_protected, await_sealed, enable_all, ensure_only_esp, ensure_pings, seal_all};
use crate::lab::agent::{hostseal, hostseal_all, status};
use crate::lab::{Cluster, FAMILIES, Family, Host, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("enable::three_hosts_are_protected_within_two_seconds", 3, three_hosts_within_two_seconds),
    Test::new("enable::one_host_after_the_other", 5, one_host_after_the_other),
    Test::new("enable::nothing_is_lost_while_enabling", 3, nothing_is_lost_while_enabling),
    Test::new("enable::sparse_traffic_on_a_slow_link_is_not_lost", 2, sparse_traffic_on_a_slow_link),
    Test::new("enable::kernels_note_whose_packets_met_a_policy", 2, kernels_note_what_met_a_policy),
    Test::new("enable::nothing_is_clear_from_then_on", 3, |lab| nothing_is_clear_from_then_on(lab, "ike")),
    Test::new("enable::pings_count_exactly", 3, pings_count_exactly),
    Test::new("enable::a_tcp_transfer_lives_through_it", 2, a_tcp_transfer_lives_through_it),
    Test::new("enable::large_datagrams_pass_or_are_told_the_mtu", 2, large_datagrams),
    Test::new("enable::enabling_twice_changes_nothing", 2, enabling_twice_changes_nothing),
    Test::new("enable::a_plan_is_empty_when_all_is_done", 2, a_plan_is_empty_when_all_is_done),
];

fn three_hosts_within_two_seconds(lab: &mut Lab) -> Result<()> {
    let cluster = Cluster::of(lab.hosts());
    cluster.install_all(lab.hosts())?;
    let started = Instant::now();
    let outcomes = hostseal_all(lab.hosts(), "enable")?;
    let taken = started.elapsed();
    for outcome in outcomes {
        outcome.expect_code(0)?;
    }
    for host in lab.hosts() {
        let status = status(host)?;
        ensure!(status.all_protected(), "{:#}", status.0);
        ensure!(status.number("/summary/protected") == 4, "two peers by two families: {:#}", status.0);
    }
    println!("12 pairs in {taken:?}");
    ensure!(taken <= Duration::from_secs(2), "it took {taken:?}");
    Ok(())
}

/// As most people roll it out: each command ends by itself within seconds, and says whom it waits for.
fn one_host_after_the_other(lab: &mut Lab) -> Result<()> {
    Cluster::of(lab.hosts()).install_all(lab.hosts())?;
    let names: Vec<&str> = lab.hosts().iter().map(Host::name).collect();
    for (at, host) in lab.hosts().iter().enumerate() {
        let (started, last) = (Instant::now(), at + 1 == lab.hosts().len());
        let outcome = hostseal(host, "enable --timeout 50s")?.expect_code(if last { 0 } else { 6 })?;
        println!("{} after {:?}: {:?}", host.name(), started.elapsed(), outcome.stdout.lines().last());
        ensure!(started.elapsed() < Duration::from_secs(15), "it took {:?}", started.elapsed());
        if !last {
            let words = format!("enabled; waiting for {}\n", names[at + 1..].join(", "));
            ensure!(outcome.stdout.ends_with(&words), "{}", outcome.stdout);
            let status = status(host)?;
            ensure!(*status.at("/waiting_for") == serde_json::json!(names[at + 1..]), "{:#}", status.0);
            hostseal(host, "status")?.expect_code(3)?;
        }
    }
    for outcome in hostseal_all(lab.hosts(), "status --wait 20s")? {
        outcome.expect_code(0)?;
    }
    Ok(())
}

fn nothing_is_lost_while_enabling(lab: &mut Lab) -> Result<()> {
    let [a, b, _] = lab.all();
    let traffic = Traffic::start(&a, &b, 500)?;
    seal_all(&Cluster::of(lab.hosts()), lab.hosts())?;
    traffic.ensure_complete()
}

/// Two packets a second each way, on a link where each takes 50 ms: none need have come in when both ends
/// have just begun to send ESP, and one that was sent in the clear before may be on its way.
fn sparse_traffic_on_a_slow_link(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    for host in [&a, &b] {
        lab.wire().netem(host, "delay 50ms")?;
    }
    let traffic = Traffic::start(&a, &b, 2)?;
    seal_all(&Cluster::of(lab.hosts()), lab.hosts())?;
    // The last ones to be sent in the clear, and the first ones to be sent as ESP, are among them.
    traffic.ensure_complete()
}

/// What the length of the grace rests on: IKE's datagrams and probes do not meet the inbound policies of a
/// pair, and everything else does.
fn kernels_note_what_met_a_policy(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let cluster = Cluster::of_v4(lab.hosts()).with("keying", "rekey_after = \"2s\"");
    seal_all(&cluster, lab.hosts())?;
    let inbound = |host: &Host, peer: &Host| -> Result<String> {
        host.run(&format!("ip -s xfrm policy get src {} dst {} dir in", peer.v4(), host.v4()))
    };
    let spis = || b.run("ip xfrm state | grep -o 'spi 0x[0-9a-f]*'");
    let first = spis()?;
    until("all SAs are others", Duration::from_secs(20), || {
        let now = spis()?;
        ensure!(!now.is_empty() && now.lines().all(|spi| !first.contains(spi)), "{first} -> {now}");
        Ok::<_, anyhow::Error>(())
    })?;
    for (host, peer) in [(&a, &b), (&b, &a)] {
        let policy = inbound(host, peer)?;
        ensure!(policy.contains("use -"), "probes and IKE met it: {policy}");
    }
    ensure!(a.ping(&b, Family::V4, 1)? == 1, "no answer");
    for (host, peer) in [(&a, &b), (&b, &a)] {
        let policy = inbound(host, peer)?;
        ensure!(!policy.contains("use -"), "a ping did not meet it: {policy}");
    }
    Ok(())
}

pub(super) fn nothing_is_clear_from_then_on(lab: &mut Lab, method: &str) -> Result<()> {
    enable_all(&Cluster::of(lab.hosts()).by(method), lab.hosts())?;
    for host in lab.hosts() {
        await_protected(host)?;
    }
    let protected = SystemTime::now();
    let captures = lab.capture_all()?;
    for from in lab.hosts() {
        for to in lab.hosts().iter().filter(|to| to.number() != from.number()) {
            ensure_pings(from, to, 3)?;
        }
        await_sealed(from)?;
    }
    ensure_only_esp(captures, protected)
}

fn pings_count_exactly(lab: &mut Lab) -> Result<()> {
    let [a, b, _] = lab.all();
    seal_all(&Cluster::of(lab.hosts()), lab.hosts())?;
    for family in FAMILIES {
        let read = || -> Result<[u64; 4]> {
            let (ours, theirs) = (status(&a)?.peer(b.address(family))?, status(&b)?.peer(a.address(family))?);
            Ok([
                ours.number("/tx/packets"),
                ours.number("/rx/packets"),
                theirs.number("/tx/packets"),
                theirs.number("/rx/packets"),
            ])
        };
        let before = read()?;
        ensure!(a.ping(&b, family, 20)? == 20);
        let after = read()?;
        let moved: Vec<u64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
        ensure!(moved == [20; 4], "by {family:?} tx and rx of both moved by {moved:?}");
    }
    Ok(())
}

/// A transfer that began in the clear goes on in ESP, and 100 MB more get through.
fn a_tcp_transfer_lives_through_it(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let _server = b.spawn(Command::new("iperf3").arg("-s").stdout(Stdio::null()))?;
    until("iperf3 listens", Duration::from_secs(5), || {
        let listening = b.run("ss -Hltn sport = :5201")?;
        ensure!(!listening.is_empty(), "nothing listens");
        Ok::<_, anyhow::Error>(())
    })?;
    let target = b.v4();
    std::thread::scope(|scope| -> Result<()> {
        let transfer = scope.spawn(|| a.run(&format!("iperf3 -c {target} -b 20M -t 8")));
        seal_all(&Cluster::of(lab.hosts()), lab.hosts())?;
        transfer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(drop)
    })?;
    println!("{}", a.run(&format!("iperf3 -c {target} -n 100M"))?);
    Ok(())
}

/// 1,472 bytes of payload fill an Ethernet frame exactly; with ESP they do not fit, and DF forbids to cut.
fn large_datagrams(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    for (family, payload) in [(Family::V4, 1472), (Family::V6, 1452)] {
        let line = format!("ping -n -M do -c 2 -W 1 -s {payload} {}", b.address(family));
        ensure!(a.succeeds(&line)?, "{payload} bytes pass in the clear by {family:?}");
    }
    seal_all(&Cluster::of(lab.hosts()), lab.hosts())?;
    for (family, payload) in [(Family::V4, 1472), (Family::V6, 1452)] {
        let line = format!("ping -n -M do -c 2 -W 1 -s {payload} {}", b.address(family));
        let output = a.output(&line)?;
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() || said.to_lowercase().contains("mtu") || said.contains("too long"),
            "{payload} bytes vanish by {family:?}: {said}"
        );
        // What was told is true, and what may be cut arrives.
        let dont_care = format!("ping -n -M dont -c 2 -W 1 -s {payload} {}", b.address(family));
        ensure!(a.succeeds(&dont_care)?, "{payload} bytes in fragments by {family:?}");
        ensure!(
            a.succeeds(&format!("ping -n -M do -c 2 -W 1 -s 1400 {}", b.address(family)))?,
            "1400 bytes uncut"
        );
    }
    Ok(())
}

fn enabling_twice_changes_nothing(lab: &mut Lab) -> Result<()> {
    let (a, b) = super::sealed_pair(lab)?;
    let spis = |host| -> Result<Vec<String>> {
        Ok(crate::lab::Host::run(host, "ip xfrm state")?
            .lines()
            .filter(|line| line.contains("spi"))
            .map(str::to_owned)
            .collect())
    };
    let before = spis(&a)?;
    let agent = status(&a)?.agent()?;
    let traffic = Traffic::start(&a, &b, 500)?;
    hostseal(&a, "enable")?.expect_code(0)?;
    traffic.ensure_complete()?;
    ensure!(status(&a)?.agent()? == agent, "it is the same agent");
    ensure!(spis(&a)? == before, "they are the same SAs");
    Ok(())
}

fn a_plan_is_empty_when_all_is_done(lab: &mut Lab) -> Result<()> {
    let (a, b) = super::sealed_pair(lab)?;
    for host in [&a, &b] {
        hostseal(host, "plan --exit-code")?.expect_code(0)?;
    }
    Ok(())
}
