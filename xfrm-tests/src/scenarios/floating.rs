//! Addresses that move between hosts: their protection moves along, and no packet is clear on the way.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::keys::{base64, key};
use super::{await_one_pair_as_seen, await_protected, enable_all, ensure_nothing_of_ours};
use crate::lab::agent::{CONFIG, hostseal, hostseal_all, status, status_until};
use crate::lab::members::found;
use crate::lab::{Capture, Cluster, Host, Kind, Lab, Packet, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("floating::an_address_moves_under_traffic", 3, moves_under_traffic),
    Test::new("floating::whoever_has_the_address_proves_itself", 3, by_public_keys),
    Test::new("floating::an_address_moves_between_members", 3, between_members),
    Test::new("floating::an_agent_that_was_dead_when_the_address_left", 3, dead_agent),
];

/// The address in both families.
const ADDRESSES: [&str; 2] = ["10.99.0.200", "fd99::200"];
/// How long what is waited for may take.
const LIMIT: Duration = Duration::from_secs(15);

/// a, b and c, of which a and c may have the address.
fn cluster(hosts: &[Host]) -> Cluster {
    let entry = format!("name = \"db\"\naddresses = {ADDRESSES:?}\nnodes = [\"a\", \"c\"]");
    Cluster::of(hosts).with("[floating]", &entry)
}

/// Gives the address to a host, which tells its neighbours as a cluster manager does.
fn give(host: &Host, neighbours: &[&Host]) -> Result<()> {
    let [v4, v6] = ADDRESSES;
    host.run(&format!("ip address add {v4}/16 dev eth0 && ip address add {v6}/64 dev eth0 nodad"))?;
    let mac = host.mac().map(|byte| format!("{byte:02x}")).join(":");
    for neighbour in neighbours {
        for address in ADDRESSES {
            neighbour.run(&format!("ip neigh replace {address} lladdr {mac} dev eth0 nud reachable"))?;
        }
    }
    Ok(())
}

fn take(host: &Host) -> Result<()> {
    let [v4, v6] = ADDRESSES;
    host.run(&format!("ip address del {v4}/16 dev eth0 && ip address del {v6}/64 dev eth0")).map(drop)
}

/// The keys of the address are those of its host and of `other` alone, one pair of them.
fn await_keys_at(holder: &Host, other: &Host, elsewhere: &Host) -> Result<()> {
    for (address, own) in ADDRESSES.into_iter().zip([other.v4().into(), other.v6().into()]) {
        let address: IpAddr = address.parse()?;
        await_one_pair_as_seen([(other, [own, address]), (holder, [address, own])], LIMIT)?;
        let own = format!("ip xfrm state list src {address}");
        until("the host without the address has no key of it", LIMIT, || {
            let left = elsewhere.run(&own)?;
            // With who has it now it has some, by its own address.
            ensure!(
                !left.contains(&format!("dst {}", other.v4())) && !left.contains("dst fd99::2"),
                "{left}"
            );
            Ok::<_, anyhow::Error>(())
        })?;
    }
    Ok(())
}

/// The host that had the address treats it as a peer's.
fn await_left(host: &Host) -> Result<()> {
    for (address, own) in ADDRESSES.into_iter().zip([IpAddr::from(host.v4()), host.v6().into()]) {
        until(&format!("{} has a policy towards {address}", host.name()), LIMIT, || {
            let policies = host.run(&format!("ip xfrm policy list src {own} dst {address} dir out"))?;
            ensure!(!policies.is_empty(), "none yet");
            Ok::<_, anyhow::Error>(())
        })?;
    }
    Ok(())
}

/// Pings the address in both families until it answers, and says how long that took.
fn await_answers(from: &Host) -> Result<Duration> {
    let started = Instant::now();
    for address in ADDRESSES {
        until(&format!("{address} answers"), LIMIT, || {
            ensure!(from.succeeds(&format!("ping -n -q -i 0.01 -c 3 -W 1 {address}"))?, "not yet");
            Ok::<_, anyhow::Error>(())
        })?;
    }
    Ok(started.elapsed())
}

/// What a host that loses an address sends there until its agent has reacted, which is clear: its kernel took the
/// address for its own (docs/configuration.md).
struct Parting {
    host: Host,
    time: RangeInclusive<SystemTime>,
}

impl Parting {
    fn covers(&self, packet: &Packet) -> bool {
        let from = [IpAddr::from(self.host.v4()), self.host.v6().into()];
        let to = ADDRESSES.map(|address| address.parse::<IpAddr>().ok());
        let ends = packet
            .addresses
            .is_some_and(|(source, destination)| from.contains(&source) && to.contains(&Some(destination)));
        ends && self.time.contains(&packet.time)
    }
}

/// Nothing but ESP passed, beside what is said at these partings.
fn ensure_esp_alone(captures: Vec<Capture>, since: SystemTime, partings: &[Parting]) -> Result<()> {
    for capture in captures {
        let report = capture.stop()?.since(since);
        let report = report.filter(|packet| !partings.iter().any(|parting| parting.covers(packet)));
        println!("{report}");
        report.ensure_nothing_clear()?;
        ensure!(report.count(Kind::Esp) > 0, "no ESP: {report}");
    }
    Ok(())
}

/// Seals everything with the address at a.
fn sealed_with_address_at_a(lab: &Lab, cluster: &Cluster) -> Result<[Host; 3]> {
    let [a, b, c] = lab.all();
    give(&a, &[&b, &c])?;
    enable_all(cluster, lab.hosts())?;
    for host in [&a, &b, &c] {
        await_protected(host)?;
        super::await_sealed(host)?;
    }
    await_keys_at(&a, &b, &c)?;
    Ok([a, b, c])
}

/// The nodes of a cluster hear from an admin which address floats, and follow it as hosts with files do.
fn between_members(lab: &mut Lab) -> Result<()> {
    found(lab.hosts())?;
    let [a, b, c] = lab.all();
    let addresses = ADDRESSES.join(",");
    let refused =
        hostseal(&b, &format!("floating set db --address {addresses} --node a,c"))?.expect_code(1)?;
    ensure!(refused.stderr.contains("the admins are a"), "{refused:?}");
    hostseal(&a, &format!("floating set db --address {addresses} --node a --node c"))?.expect_code(0)?;
    until("b has heard of it", LIMIT, || {
        let listed = hostseal(&b, "floating")?.expect_code(0)?.stdout;
        ensure!(listed == format!("db  {} at a, c\n", ADDRESSES.join(", ")), "{listed}");
        Ok::<_, anyhow::Error>(())
    })?;
    give(&a, &[&b, &c])?;
    hostseal(&b, "enable --cluster --timeout 50s")?.expect_code(0)?;
    for host in [&a, &b, &c] {
        await_protected(host)?;
        super::await_sealed(host)?;
    }
    await_keys_at(&a, &b, &c)?;
    let (captures, since) = (lab.capture_all()?, SystemTime::now());
    let leaves = SystemTime::now();
    take(&a)?;
    give(&c, &[&a, &b])?;
    println!("the address answers after {:?}", await_answers(&b)?);
    await_left(&a)?;
    let parting = Parting { host: a.clone(), time: leaves..=SystemTime::now() };
    await_keys_at(&c, &b, &a)?;
    ensure_esp_alone(captures, since, &[parting])?;
    hostseal(&a, "floating remove db")?.expect_code(0)?;
    until("nobody has a pair with it", LIMIT, || {
        let policies = b.run(&format!("ip xfrm policy list dst {} dir out", ADDRESSES[0]))?;
        ensure!(policies.is_empty(), "{policies}");
        Ok::<_, anyhow::Error>(())
    })
}

/// The address goes from a to c and back while b and the two themselves talk to it.
fn moves_under_traffic(lab: &mut Lab) -> Result<()> {
    let [a, b, c] = sealed_with_address_at_a(lab, &cluster(lab.hosts()))?;
    // By row: a has b and c from its own address and from the one that floats, in two families.
    ensure!(status(&a)?.number("/summary/peers") == 8, "{:#}", status(&a)?.0);
    ensure!(status(&b)?.peer(ADDRESSES[0].parse()?)?.at("/node") == "db");
    let (captures, since) = (lab.capture_all()?, SystemTime::now());
    let (mut pings, mut partings) = (Vec::new(), Vec::new());
    for address in ADDRESSES {
        let mut ping = Command::new("ping");
        ping.args(["-n", "-q", "-i", "0.01", address]).stdout(Stdio::piped());
        pings.push(b.spawn(&mut ping)?);
    }
    for (from, to) in [(&a, &c), (&c, &a), (&a, &c)] {
        let left = SystemTime::now();
        take(from)?;
        give(to, &[&b, from])?;
        println!("{} to {}: {:?} for both families", from.name(), to.name(), await_answers(&b)?);
        await_left(from)?;
        partings.push(Parting { host: from.clone(), time: left..=SystemTime::now() });
        println!("and from {}: {:?}", from.name(), await_answers(from)?);
        ensure!(to.succeeds(&format!("ping -n -q -c 1 -W 1 {}", ADDRESSES[0]))?, "the host reaches itself");
        ensure!(to.succeeds(&format!("ping -n -q -c 1 -W 1 {}", ADDRESSES[1]))?, "the host reaches itself");
        await_keys_at(to, &b, from)?;
        for host in [&a, &b, &c] {
            await_protected(host)?;
        }
        hostseal(from, "status")?.expect_code(0)?;
    }
    for mut ping in pings {
        ping.signal(Signal::SIGINT)?;
        ping.wait(LIMIT)?;
    }
    ensure_esp_alone(captures, since, &partings)?;
    for outcome in hostseal_all(lab.hosts(), "disable")? {
        outcome.expect_code(0)?;
    }
    lab.hosts().iter().try_for_each(ensure_nothing_of_ours)
}

/// Both hosts may speak for the address, each with its own key. A third may not.
fn by_public_keys(lab: &mut Lab) -> Result<()> {
    let mut cluster = cluster(lab.hosts()).with("auth", "method = \"public_key\"");
    for host in lab.hosts() {
        cluster = cluster.with_node(host, &key(host, "ed25519")?);
    }
    let [a, b, c] = sealed_with_address_at_a(lab, &cluster)?;
    take(&a)?;
    give(&c, &[&a, &b])?;
    println!("{:?}", await_answers(&b)?);
    await_keys_at(&c, &b, &a)?;
    // c is no node of the address any more, for b.
    let keys = [&a, &b, &c].map(|host| hostseal(host, "key show").map(|outcome| outcome.stdout));
    let [of_a, _, of_c] = keys;
    ensure!(base64(&of_a?)? != base64(&of_c?)?);
    let without = cluster.text().replace("nodes = [\"a\", \"c\"]", "nodes = [\"a\", \"b\"]");
    b.write(CONFIG, &without, 0o644).context("b's file")?;
    hostseal(&b, "reload")?.expect_code(0)?;
    status_until(&b, "c does not speak for the address any more", LIMIT, |status| {
        let row = ADDRESSES[0].parse().ok().and_then(|address| status.peer(address).ok());
        let told = status.0.to_string();
        row.is_some_and(|row| row.at("/state") != "protected")
            || told.contains("that the files no longer accept")
    })
    .map(drop)
}

/// What the kernel of a still has for the address goes with the next agent.
fn dead_agent(lab: &mut Lab) -> Result<()> {
    let [a, b, c] = sealed_with_address_at_a(lab, &cluster(lab.hosts()))?;
    let captures = lab.capture_all()?;
    crate::lab::agent::kill_agent(&a)?;
    take(&a)?;
    give(&c, &[&a, &b])?;
    println!("{:?}", await_answers(&b)?);
    hostseal(&a, "status")?.expect_code(3)?;
    hostseal(&a, "enable --timeout 30s")?.expect_code(0)?;
    await_protected(&a)?;
    super::await_sealed(&a)?;
    // Before that a knows no way to the address but the clear one: to its kernel it was its own.
    let since = SystemTime::now();
    await_keys_at(&c, &b, &a)?;
    await_answers(&a)?;
    await_answers(&b)?;
    ensure_esp_alone(captures, since, &[])
}
