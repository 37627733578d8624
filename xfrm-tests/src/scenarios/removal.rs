//! Nodes that are removed from a cluster: how soon the others are rid of them, and what becomes of those that try to come
//! back.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::members::{LONG, await_cluster, cluster_status, is_protected};
use super::{Traffic, await_sealed, ensure_pings, ensure_silence, every_way};
use crate::lab::agent::{hostseal, kill_agent, status_until};
use crate::lab::members::{found, join};
use crate::lab::{Capture, FAMILIES, Host, Kind, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("removal::a_removed_node_is_gone_and_stays_out_with_an_older_backup", 4, a_living_node)
        .within(300),
    Test::new("removal::a_dead_node_is_gone_also_where_it_is_heard_of_late", 4, a_dead_node).within(300),
    Test::new("removal::a_compromised_node_is_told_nothing_and_blocked", 3, a_compromised_node).within(300),
];

/// Where a host keeps what it knows, and where it keeps an older copy of that.
const KNOWN: &str = "/var/lib/hostseal";
const OLDER: &str = "/run/older";

/// How long a busy machine may take until all hosts have had their turns: half a minute was seen with ten builds beside it.
/// That SAs go within this time is due to the removal, since their keys are for an hour. How soon it is on a quiet machine,
/// `cargo lab bench members` measures; `host::sim::removal` has the bound in virtual time.
const RID: Duration = Duration::from_secs(120);

/// Waits until none of these hosts has an SA with one that is gone, and returns when that was, counted from `since`.
///
/// # Errors
/// After two minutes.
pub(crate) fn await_rid_of(gone: &Host, hosts: &[&Host], since: Instant) -> Result<Duration> {
    for host in hosts {
        until(&format!("{} has no SA with {}", host.name(), gone.name()), RID, || {
            let found = with(host, gone)?;
            if found.is_empty() { Ok(()) } else { Err(anyhow::anyhow!("{found:?}")) }
        })?;
    }
    Ok(since.elapsed())
}

/// The SAs of a host with another one, by their addresses.
pub(crate) fn with(host: &Host, other: &Host) -> Result<Vec<String>> {
    let states = host.run("ip xfrm state")?;
    let of_other = |line: &&str| {
        line.split_whitespace().any(|word| FAMILIES.iter().any(|it| word == other.address(*it).to_string()))
    };
    Ok(states.lines().filter(of_other).map(str::to_owned).collect())
}

/// Checks that a removed node, whose agent runs, has tried to come back with the keys that it had, and that nobody has taken
/// it in since `begun`.
fn ensure_stays_out(gone: &Host, others: &[&Host], captures: Vec<Capture>, begun: SystemTime) -> Result<()> {
    // Whoever hears of its removal only now tells it. The others do not answer.
    status_until(gone, "it is told that it is out, or nobody answers", LONG, |status| {
        let blocked = |row: &Value| row["state"] == "blocked" && row["reason_code"] == "no_answer";
        let refused = !status.peers().is_empty() && status.peers().iter().all(blocked);
        refused || status.at("/protection") == "off"
    })?;
    for host in others {
        let found = with(host, gone)?;
        ensure!(found.is_empty(), "{} has SAs with {}: {found:?}", host.name(), gone.name());
    }
    for capture in captures {
        let report = capture.stop()?.since(begun);
        let to_gone = |target: IpAddr| FAMILIES.iter().any(|it| gone.address(*it) == target);
        let mut esp = report.packets.iter().filter(|packet| packet.kind == Kind::Esp);
        let sent = esp.find(|packet| packet.addresses.is_some_and(|(_, target)| to_gone(target)));
        ensure!(sent.is_none(), "{sent:?}");
    }
    Ok(())
}

/// It goes to the clear without loss. Then its disk and that of another node are those of the day before.
fn a_living_node(lab: &mut Lab) -> Result<()> {
    found(lab.hosts())?;
    let [a, b, c, d] = lab.all();
    hostseal(&c, "enable --cluster --timeout 50s")?.expect_code(0)?;
    lab.hosts().iter().try_for_each(await_sealed)?;
    for host in [&c, &d] {
        host.run(&format!("cp -a {KNOWN} {OLDER}"))?;
    }
    let others = [&a, &b, &c];
    let traffic = Traffic::of(&every_way(&lab.hosts()[..3]), &FAMILIES, 40)?;
    let to_gone = Traffic::start(&c, &d, 100)?;
    let ordered = Instant::now();
    hostseal(&a, "remove d")?.expect_code(0)?;
    println!(
        "a living node: no SA is left with it {:?} after the order",
        await_rid_of(&d, &others, ordered)?
    );
    status_until(&d, "protection is off", LONG, |status| status.at("/protection") == "off")?;
    to_gone.ensure_complete()?;
    await_cluster(&b, "three are protected", |status| is_protected(status, 3))?;
    let own = hostseal(&d, "status --cluster")?.expect_code(3)?;
    ensure!(own.stdout.contains("was removed"), "{}", own.stdout);

    for host in [&c, &d] {
        kill_agent(host)?;
        host.run(&format!("rm -r {KNOWN}/* && cp -a {OLDER}/. {KNOWN}"))?;
    }
    let (captures, begun) = (vec![lab.capture(&a)?, lab.capture(&b)?], SystemTime::now());
    for host in [&d, &c] {
        hostseal(host, "enable --no-wait")?;
    }
    // To both, d is a member until c hears otherwise.
    await_cluster(&c, "three are protected", |status| is_protected(status, 3))?;
    await_rid_of(&d, &[&c], Instant::now())?;
    ensure_stays_out(&d, &others, captures, begun)?;
    traffic.ensure_complete()?;
    // With a new token it is a new node.
    hostseal(&d, "disable --force")?.expect_code(0)?;
    d.run(&format!("mv {KNOWN}/cluster /run/former"))?;
    join(&a, &d)?;
    await_cluster(&b, "four are protected", |status| is_protected(status, 4)).map(drop)
}

/// Its power is cut. One of the others is cut off when it is removed, and hears of it later.
fn a_dead_node(lab: &mut Lab) -> Result<()> {
    found(lab.hosts())?;
    let [a, b, c, d] = lab.all();
    hostseal(&b, "enable --cluster --timeout 50s")?.expect_code(0)?;
    lab.hosts().iter().try_for_each(await_sealed)?;
    let traffic = Traffic::start(&a, &b, 500)?;
    let d = lab.reboot(&d)?;
    lab.wire().part(&[&c], &[&a, &b])?;
    let ordered = Instant::now();
    hostseal(&a, "remove d")?.expect_code(0)?;
    println!(
        "a dead node: no SA is left with it {:?} after the order",
        await_rid_of(&d, &[&a, &b], ordered)?
    );
    ensure!(!with(&c, &d)?.is_empty(), "c has heard of it");
    lab.wire().pass_all(&c)?;
    let healed = Instant::now();
    println!("and {:?} after the heal on who was cut off", await_rid_of(&d, &[&c], healed)?);
    let (captures, begun) = (lab.capture_all()?, SystemTime::now());
    hostseal(&d, "guard")?.expect_code(0)?;
    d.network_up()?;
    hostseal(&d, "enable --no-wait")?;
    await_cluster(&b, "three are protected", |status| is_protected(status, 3))?;
    ensure_stays_out(&d, &[&a, &b, &c], captures, begun)?;
    traffic.ensure_complete()
}

fn a_compromised_node(lab: &mut Lab) -> Result<()> {
    found(lab.hosts())?;
    let [a, b, c] = lab.all();
    hostseal(&b, "enable --cluster --timeout 50s")?.expect_code(0)?;
    let traffic = Traffic::start(&a, &b, 500)?;
    let ordered = Instant::now();
    hostseal(&a, "remove c --compromised")?.expect_code(0)?;
    println!(
        "a compromised node: no SA is left with it {:?} after the order",
        await_rid_of(&c, &[&a, &b], ordered)?
    );
    for host in [&a, &b] {
        ensure_silence(host, &c)?;
        ensure_silence(&c, host)?;
    }
    traffic.ensure_complete()?;
    let told = cluster_status(&c)?;
    ensure!(told["summary"]["nodes"] == 3 && told["summary"]["answering"] == 1, "{told:#}");
    // It stays so when agents start anew, and ends with protection.
    kill_agent(&a)?;
    hostseal(&a, "enable --timeout 50s")?.expect_code(0)?;
    ensure_silence(&a, &c)?;
    await_cluster(&b, "two are protected", |status| is_protected(status, 2))?;
    hostseal(&a, "disable --cluster --timeout 50s")?.expect_code(0)?;
    hostseal(&c, "disable")?.expect_code(0)?;
    until("all is clear", LONG, || ensure_pings(&a, &c, 2))
}
