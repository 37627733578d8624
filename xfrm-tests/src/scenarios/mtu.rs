//! Enabling makes no large packet vanish: transfers live through it, and who sends what does not fit any more
//! is told what does. On a wire of 1,500 bytes, and behind a router where it is one of 1,400.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::seal_all;
use crate::lab::agent::{Status, hostseal, status_until};
use crate::lab::{Cluster, FAMILIES, Family, Host, Lab, Process, Wire, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("mtu::transfers_live_through_enabling_at_1500", 2, |lab| transfers(lab, 1500)),
    Test::new("mtu::transfers_live_through_enabling_at_1400", 3, |lab| transfers(lab, 1400)),
    Test::new("mtu::datagrams_pass_or_are_told_at_1500", 2, |lab| datagrams(lab, 1500)),
    Test::new("mtu::datagrams_pass_or_are_told_at_1400", 3, |lab| datagrams(lab, 1400)),
    Test::new("mtu::a_path_that_loses_large_packets_in_silence_is_named", 2, black_hole),
    Test::new("mtu::a_narrow_path_that_says_so_is_no_problem", 3, told),
];

/// Seconds that what is sent while enabling goes on: longer than enabling takes.
const SECONDS: u32 = 7;

/// Two hosts on a path of `mtu` bytes: on one wire, or with a third host as the router in between, which is
/// no member.
fn path(lab: &Lab, mtu: u32) -> Result<[Host; 2]> {
    let [a, b] = [lab.hosts()[0].clone(), lab.hosts()[1].clone()];
    if let Some(router) = lab.hosts().get(2) {
        lab.wire().route_through(router, [&a, &b], mtu)?;
    }
    Ok([a, b])
}

/// The bytes that IP and UDP, or IP and ICMP, put in front of a datagram's payload.
fn headers(family: Family) -> u32 {
    if family == Family::V4 { 28 } else { 48 }
}

fn narrow(status: &Status) -> Vec<String> {
    let problems = status.at("/problems").as_array().cloned().unwrap_or_default();
    let narrow = problems.iter().filter(|it| it["code"] == "mtu" && it["severity"] == "critical");
    narrow.map(|it| it["message"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A bridge in between drops what is larger than 1,400 octets and says nothing. What `status` tells to do helps.
fn black_hole(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts();
    let [a, b] = [hosts[0].clone(), hosts[1].clone()];
    lab.wire().host().run(&format!("ip link set {} mtu 1400", Wire::port(&b)))?;
    seal_all(&Cluster::of_v4(hosts), hosts)?;
    for (host, other) in [(&a, &b), (&b, &a)] {
        let found =
            status_until(host, "the path is measured", Duration::from_secs(60), |it| narrow(it).len() == 1)?;
        println!("{:?}", narrow(&found));
        ensure!(found.all_protected());
        hostseal(host, "status")?.expect_code(3)?;
        let [message] = &narrow(&found)[..] else { bail!("{:#}", found.0) };
        let mtu: u32 =
            message.split(" to ").find_map(|it| it.split(" (").next()?.parse().ok()).context("an MTU")?;
        // A bridge leaves room for the four octets of a VLAN's tag.
        ensure!((1384..=1404).contains(&mtu), "{mtu}: {message}");
        host.run(&format!("ip route replace {}/32 dev eth0 mtu {mtu}", other.v4()))?;
    }
    for host in [&a, &b] {
        status_until(host, "it is mended", Duration::from_secs(100), |it| narrow(it).is_empty())?;
        hostseal(host, "status")?.expect_code(0)?;
    }
    Ok(())
}

/// Where a router says what does not fit, senders know, and nothing is lost for long.
fn told(lab: &mut Lab) -> Result<()> {
    let [a, b] = path(lab, 1400)?;
    let hosts = [a.clone(), b.clone()];
    seal_all(&Cluster::of_v4(&hosts), &hosts)?;
    // Time is the subject: a search for a bound that is none would be over by then.
    for host in &hosts {
        let late = |status: &Status| status.number("/agent/uptime_s") >= 30;
        let seen = status_until(host, "it had time to search", Duration::from_secs(60), late)?;
        ensure!(narrow(&seen).is_empty() && seen.all_protected(), "{:#}", seen.0);
    }
    Ok(())
}

/// A TCP server for each family.
fn serve(b: &Host, family: Family) -> Result<(Process, u16)> {
    let port = if family == Family::V4 { 5201 } else { 5202 };
    let line = ["-s", "-p", &port.to_string()];
    let server = b.spawn(Command::new("iperf3").args(line).stdout(Stdio::null()))?;
    until("iperf3 listens", Duration::from_secs(5), || {
        let listening = b.run(&format!("ss -Hltn sport = :{port}"))?;
        ensure!(!listening.is_empty(), "nothing listens");
        Ok::<_, anyhow::Error>(())
    })?;
    Ok((server, port))
}

fn transfers(lab: &mut Lab, mtu: u32) -> Result<()> {
    let [a, b] = path(lab, mtu)?;
    let servers = [serve(&b, Family::V4)?, serve(&b, Family::V6)?];
    let ends = [a.clone(), b.clone()];
    std::thread::scope(|scope| -> Result<()> {
        let running = [0, 1].map(|at| {
            let (a, target, port) = (&a, b.address(FAMILIES[at]), servers[at].1);
            scope.spawn(move || {
                a.run(&format!("iperf3 -J -c {target} -p {port} -b 8M -i {EVERY} -t {SECONDS}"))
            })
        });
        seal_all(&Cluster::of(&ends), &ends)?;
        for (transfer, family) in running.into_iter().zip(FAMILIES) {
            let report = transfer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            ensure_steady(&serde_json::from_str(&report)?).with_context(|| format!("by {family:?}"))?;
        }
        Ok(())
    })?;
    // One that begins now knows from the start what fits.
    for (family, (_, port)) in FAMILIES.into_iter().zip(&servers) {
        a.run(&format!("iperf3 -c {} -p {port} -n 5M", b.address(family)))?;
    }
    Ok(())
}

/// How often iperf3 tells of a transfer, and how late it does so at most where the machine lets it.
const EVERY: f64 = 0.5;
const LATE: f64 = 0.05;

/// What iperf3 tells of a part of a transfer.
#[derive(Debug)]
#[expect(dead_code, reason = "what the sender takes for the path's MTU stands in the error")]
struct Interval {
    seconds: f64,
    bytes: u64,
    retransmits: u64,
    /// What the sender takes for the largest packet that passes.
    mtu: u64,
}

fn intervals(report: &Value) -> Option<Vec<Interval>> {
    let read = |one: &Value| {
        let stream = &one["streams"][0];
        let number = |name: &str| stream[name].as_u64();
        let (bytes, retransmits, mtu) = (number("bytes")?, number("retransmits")?, number("pmtu")?);
        Some(Interval { seconds: stream["seconds"].as_f64()?, bytes, retransmits, mtu })
    };
    report["intervals"].as_array()?.iter().map(read).collect()
}

/// Whether a transfer stood still for these intervals, in which no byte went: for a second, or for a packet that was
/// sent again in vain. A machine that starves shows in intervals that are late themselves, and loses nothing.
fn stands_still(run: &[Interval]) -> bool {
    let on_time = run.iter().all(|interval| (interval.seconds - EVERY).abs() < LATE);
    let again: u64 = run.iter().map(|interval| interval.retransmits).sum();
    (run.len() > 1 && on_time) || again > 1
}

/// Checks that a transfer never stood still for more than a second, and that all of it came.
fn ensure_steady(report: &Value) -> Result<()> {
    let intervals = intervals(report).with_context(|| format!("no intervals in {report}"))?;
    println!("{intervals:?}");
    let mut runs = intervals.split(|interval| interval.bytes > 0);
    ensure!(intervals.len() >= 10 && !runs.any(stands_still), "it stood still: {intervals:?}");
    let number = |side: &str| report["end"][side]["bytes"].as_f64().unwrap_or_default();
    let (sent, received) = (number("sum_sent"), number("sum_received"));
    let wanted = 8e6 / 8.0 * f64::from(SECONDS);
    ensure!(received > 0.8 * wanted, "{received} of {sent} bytes arrived, and {wanted} were wanted");
    Ok(())
}

/// What became of pings that may not be cut.
#[derive(Debug)]
struct Pings {
    sent: u32,
    answered: u32,
    /// Refused by the sender's own kernel with EMSGSIZE.
    told: u32,
}

/// Sends `count` echo requests with `payload` bytes that may not be cut, 20 ms apart.
fn pings(a: &Host, b: &Host, family: Family, payload: u32, count: u32) -> Result<Pings> {
    let target = b.address(family);
    let output = a.output(&format!("ping -n -M do -i 0.02 -W 1 -c {count} -s {payload} {target} 2>&1"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let figure = |ending: &str| {
        text.split([',', '\n']).find_map(|part| part.trim().strip_suffix(ending)?.trim().parse::<u32>().ok())
    };
    let told = text.lines().filter(|line| line.contains("essage too long")).count();
    let sent = figure("packets transmitted").with_context(|| text.clone())?;
    let answered = figure("received").with_context(|| text.clone())?;
    Ok(Pings { sent, answered, told: u32::try_from(told)? })
}

/// The largest packet that passes uncut; of every larger one the sender is told at once.
fn largest(a: &Host, b: &Host, family: Family, mtu: u32) -> Result<u32> {
    for bytes in (mtu - 45..=mtu).rev() {
        let ping = pings(a, b, family, bytes - headers(family), 1)?;
        match (ping.answered, ping.told) {
            (1, 0) => return Ok(bytes),
            (0, 1) => {}
            _ => bail!("{bytes} of {mtu} bytes vanish by {family:?}: {ping:?}"),
        }
    }
    bail!("nothing passes by {family:?} on a path of {mtu} bytes")
}

fn datagrams(lab: &mut Lab, mtu: u32) -> Result<()> {
    let [a, b] = path(lab, mtu)?;
    let ends = [a.clone(), b.clone()];
    let count = SECONDS * 50;
    std::thread::scope(|scope| -> Result<()> {
        let running = FAMILIES.map(|family| {
            let (a, b, full) = (&a, &b, mtu - headers(family));
            let stream = |payload| scope.spawn(move || pings(a, b, family, payload, count));
            (family, stream(full - 100), stream(full))
        });
        seal_all(&Cluster::of(&ends), &ends)?;
        for (family, small, full) in running {
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Pings>>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            let (small, full) = (join(small)?, join(full)?);
            println!("{family:?}: small {small:?}, full {full:?}");
            ensure!((small.answered, small.told) == (count, 0), "what fits passes, by {family:?}: {small:?}");
            // Behind a router the sender has to learn the limit once, from a packet that is lost for it.
            let vanished = full.sent - full.answered - full.told;
            let learning = if mtu < 1500 { 5 } else { 0 };
            ensure!(full.answered > 0 && full.told > 0, "first they pass, then not, by {family:?}: {full:?}");
            ensure!(vanished <= learning, "{vanished} vanished by {family:?}: {full:?}");
        }
        Ok(())
    })?;
    for family in FAMILIES {
        let largest = largest(&a, &b, family, mtu)?;
        println!("{family:?}: {largest} of {mtu} bytes");
        // ESP takes 34 to 37 bytes.
        ensure!((mtu - 37..=mtu - 34).contains(&largest), "{largest} of {mtu} bytes by {family:?}");
    }
    Ok(())
}
