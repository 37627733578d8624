//! hostseal on the hosts of the lab: what the product promises, shown on real packets.

mod acquire;
pub mod alerts;
mod algorithms;
mod beside;
mod bundle;
mod causes;
mod certificates;
mod clones;
pub mod compat;
mod crash;
mod deploy;
mod derived;
mod disable;
mod doctor;
mod enable;
mod encapsulation;
pub mod etcd;
mod exempt;
mod exporter;
mod fate;
mod faults;
mod firewall;
mod floating;
mod flood;
mod flush;
mod holes;
mod imposter;
pub mod interop;
mod keys;
pub mod kms;
mod kms_aws;
mod kms_members;
mod lives;
mod logs;
mod members;
mod memory;
mod migrate;
mod monitoring;
mod mtu;
mod names;
mod nat;
pub mod page;
mod paths;
mod prefer;
mod process;
mod proofs;
mod prove;
mod prove_cluster;
mod reboot;
mod refusal;
mod rekey;
pub mod reload;
pub mod relocation;
pub mod removal;
pub mod rotation;
mod scale;
mod sight;
mod strangers;
mod strict;
pub mod strongswan;
mod top;
mod trial;
mod whereabouts;
mod wireshark;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use hostseal::types::Reqid;

use crate::lab::agent::{hostseal, hostseal_all, status_until};
use crate::lab::stream::Shape;
use crate::lab::{Capture, Cluster, Count, FAMILIES, Family, Host, Kind, Lab, Stream, until};
use crate::tests::Test;

/// All scenarios.
pub fn all() -> impl Iterator<Item = &'static Test> {
    [
        enable::ALL,
        firewall::ALL,
        proofs::ALL,
        strict::ALL,
        strangers::ALL,
        prefer::ALL,
        process::ALL,
        trial::ALL,
        lives::ALL,
        members::ALL,
        whereabouts::ALL,
        relocation::ALL,
        removal::ALL,
        rotation::ALL,
        page::ALL,
        deploy::ALL,
        etcd::ALL,
        exporter::ALL,
        migrate::ALL,
        disable::ALL,
        doctor::ALL,
        exempt::ALL,
        rekey::ALL,
        reload::ALL,
        flush::ALL,
        fate::ALL,
        holes::ALL,
        crash::ALL,
        paths::ALL,
        memory::ALL,
        alerts::ALL,
        monitoring::ALL,
        mtu::ALL,
        names::ALL,
        reboot::ALL,
        faults::ALL,
        refusal::ALL,
        floating::ALL,
        flood::ALL,
        prove::ALL,
        prove_cluster::ALL,
        sight::ALL,
        top::ALL,
        causes::ALL,
        clones::ALL,
        imposter::ALL,
        scale::ALL,
        encapsulation::ALL,
        nat::ALL,
        keys::ALL,
        kms::ALL,
        kms_aws::ALL,
        kms_members::ALL,
        logs::ALL,
        certificates::ALL,
        derived::ALL,
        strongswan::ALL,
        algorithms::ALL,
        beside::ALL,
        acquire::ALL,
        bundle::ALL,
        interop::ALL,
        wireshark::ALL,
    ]
    .into_iter()
    .flatten()
}

/// Where an agent that `enable` started logs.
const LOG: &str = "/run/hostseal/agent.log";

/// How long after `enable` returned inbound ESP is required everywhere: the grace for plaintext that is
/// still queued.
const SEALED: Duration = Duration::from_secs(10);

/// Installs the cluster's files on all its hosts and enables them at the same time.
pub(crate) fn enable_all(cluster: &Cluster, hosts: &[Host]) -> Result<()> {
    cluster.install_all(hosts)?;
    for (host, outcome) in hosts.iter().zip(hostseal_all(hosts, "enable --timeout 30s")?) {
        // On a busy machine one host may be up some seconds before another.
        match outcome.code {
            6 => hostseal(host, "status --wait 30s")?.expect_code(0)?,
            _ => outcome.expect_code(0)?,
        };
    }
    Ok(())
}

/// The same, and waits until each pair is sealed.
pub(crate) fn seal_all(cluster: &Cluster, hosts: &[Host]) -> Result<()> {
    enable_all(cluster, hosts)?;
    hosts.iter().try_for_each(await_protected)?;
    hosts.iter().try_for_each(await_sealed)
}

/// Waits until the log of the agent that `enable` started has a line that is `wanted`.
fn await_logged(host: &Host, what: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
    until(&format!("{} logs {what}", host.name()), SEALED, || {
        let log = host.read(LOG)?;
        ensure!(log.lines().any(&wanted), "{log}");
        Ok::<_, anyhow::Error>(())
    })
}

/// Waits until every row of a host is protected.
pub(crate) fn await_protected(host: &Host) -> Result<()> {
    status_until(host, "every pair is protected", SEALED, |status| status.all_protected()).map(drop)
}

/// Waits until the kernel of a host accepts nothing but ESP: no inbound policy of a pair is optional.
pub(crate) fn await_sealed(host: &Host) -> Result<()> {
    until(&format!("{} requires ESP", host.name()), SEALED, || {
        let policies = host.run("ip xfrm policy")?;
        ensure!(policies.contains("tmpl") && !policies.contains("level use"), "{policies}");
        Ok::<_, anyhow::Error>(())
    })
}

/// What `ip` shows of ours: SAs and templates by the reqid, policies by their priorities.
fn ours_in_kernel(host: &Host) -> Result<String> {
    let states = host.run("ip xfrm state")?;
    let policies = host.run("ip -d xfrm policy")?;
    let reqid = format!("reqid {}", Reqid::COMMON.number());
    let of_ours = |line: &&str| {
        let priority = line.split("priority ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let priority = priority.and_then(|text| text.parse::<u32>().ok());
        line.contains(&reqid) || priority.is_some_and(|priority| (1000..=1299).contains(&priority))
    };
    let found: Vec<&str> = states.lines().chain(policies.lines()).filter(of_ours).collect();
    Ok(found.join("\n"))
}

/// Checks that nothing of ours is left in a kernel.
pub(crate) fn ensure_nothing_of_ours(host: &Host) -> Result<()> {
    let found = ours_in_kernel(host)?;
    ensure!(found.is_empty(), "left of ours on {}:\n{found}", host.name());
    Ok(())
}

/// An SA and a policy of somebody else.
fn put_foreign(host: &Host) -> Result<()> {
    host.run(
        "ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1234 reqid 42 mode transport \
         aead 'rfc4106(gcm(aes))' 0x000102030405060708090a0b0c0d0e0f10111213 128 && \
         ip xfrm policy add src 192.0.2.1 dst 192.0.2.2 dir out priority 5000 \
         tmpl src 192.0.2.1 dst 192.0.2.2 proto esp reqid 42 mode transport",
    )?;
    Ok(())
}

/// What [`put_foreign`] left, as `ip` shows it, with its index and without when it was last used.
fn foreign(host: &Host) -> Result<String> {
    let state = host.run("ip xfrm state get src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1234")?;
    let policy = host.run("ip -d xfrm policy get src 192.0.2.1 dst 192.0.2.2 dir out")?;
    let lasting = policy.lines().filter(|line| !line.contains(" use "));
    Ok(state + &lasting.collect::<Vec<_>>().join("\n"))
}

/// Streams in both directions and both families between two hosts, each at `rate` packets a second.
pub(crate) struct Traffic(Vec<Stream>);

impl Traffic {
    fn start(a: &Host, b: &Host, rate: u32) -> Result<Self> {
        Self::of(&[(a, b), (b, a)], &FAMILIES, rate)
    }

    pub(crate) fn of(pairs: &[(&Host, &Host)], families: &[Family], rate: u32) -> Result<Self> {
        let mut streams = Vec::new();
        for (from, to) in pairs {
            for family in families {
                let shape = Shape { family: *family, rate, ..Shape::default() };
                // Several senders to one host need a port each.
                let shape = Shape { port: shape.port + from.number(), ..shape };
                streams.push(Stream::start(from, to, shape)?);
            }
        }
        let traffic = Self(streams);
        // What follows happens to streams that flow.
        until("all streams flow", Duration::from_secs(5), || {
            let arrived = traffic.arrived();
            ensure!(arrived.iter().all(|count| *count > 0), "{arrived:?}");
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(traffic)
    }

    /// How many packets have arrived so far, by stream.
    fn arrived(&self) -> Vec<u64> {
        self.0.iter().map(Stream::arrived).collect()
    }

    fn stop(self) -> Result<Vec<Count>> {
        self.0.into_iter().map(Stream::stop).collect()
    }

    /// How many packets did not arrive.
    pub(crate) fn lost(self) -> Result<u64> {
        Ok(self.stop()?.iter().map(|count| count.lost).sum())
    }

    fn ensure_complete(self) -> Result<()> {
        let counts = self.stop()?;
        println!("{counts:?}");
        counts.iter().try_for_each(Count::ensure_complete)
    }
}

/// Each of these hosts with each other one, both ways.
fn every_way(hosts: &[Host]) -> Vec<(&Host, &Host)> {
    let all = hosts.iter().flat_map(|from| hosts.iter().map(move |to| (from, to)));
    all.filter(|(from, to)| from.number() != to.number()).collect()
}

/// Checks that nothing clear has passed any cable since `time`, and that ESP has. Ends the captures.
fn ensure_only_esp(captures: Vec<Capture>, time: SystemTime) -> Result<()> {
    for capture in captures {
        let report = capture.stop()?.since(time);
        println!("{report}");
        report.ensure_nothing_clear()?;
        ensure!(report.count(Kind::Esp) > 0, "no ESP at all: {report}");
    }
    Ok(())
}

/// The SPIs of all SAs of a host.
pub(crate) fn spis(host: &Host) -> Result<Vec<String>> {
    let states = host.run("ip xfrm state")?;
    let words = states.split_whitespace().collect::<Vec<_>>();
    Ok(words.windows(2).filter(|pair| pair[0] == "spi").map(|pair| pair[1].to_owned()).collect())
}

/// The SPIs of the ESP that a host sent to an address, in order of appearance.
fn spis_sent(report: &crate::lab::Report, to: std::net::IpAddr) -> Vec<u32> {
    let mut found = Vec::new();
    for packet in &report.packets {
        let sent = packet.addresses.is_some_and(|(_, target)| target == to);
        if let Some(spi) = packet.spi.filter(|spi| sent && !found.contains(spi)) {
            found.push(spi);
        }
    }
    found
}

/// Waits until a pair is down to one SA in each direction on both hosts.
pub(crate) fn await_one_pair(a: &Host, b: &Host, family: Family, limit: Duration) -> Result<()> {
    let [at_a, at_b] = [a, b].map(|host| host.address(family));
    await_one_pair_as_seen([(a, [at_a, at_b]), (b, [at_b, at_a])], limit)
}

/// The same, with the address that each host has for itself and the one that it has for the other.
fn await_one_pair_as_seen(ends: [(&Host, [IpAddr; 2]); 2], limit: Duration) -> Result<()> {
    until("one pair of SAs is left", limit, || {
        for (host, [own, other]) in ends {
            for (source, target) in [(own, other), (other, own)] {
                let states = host.run(&format!("ip xfrm state list src {source} dst {target} proto esp"))?;
                let count = states.lines().filter(|line| line.contains("proto esp spi 0x")).count();
                ensure!(count == 1, "on {} {count} SAs:\n{states}", host.name());
            }
        }
        Ok::<_, anyhow::Error>(())
    })
}

/// Pings in both families, all answered.
fn ensure_pings(from: &Host, to: &Host, count: u32) -> Result<()> {
    for family in FAMILIES {
        let answered = from.ping(to, family, count)?;
        ensure!(answered == count, "{} to {}: {answered} of {count} by {family:?}", from.name(), to.name());
    }
    Ok(())
}

/// Pings in both families, none answered: where a policy blocks, they do not even leave.
fn ensure_silence(from: &Host, to: &Host) -> Result<()> {
    for family in FAMILIES {
        let line = format!("ping -n -q -i 0.05 -W 1 -c 3 {}", to.address(family));
        ensure!(!from.succeeds(&line)?, "{} reaches {} by {family:?}", from.name(), to.name());
    }
    Ok(())
}

/// A pair of the first two hosts, sealed.
fn sealed_pair(lab: &Lab) -> Result<(Host, Host)> {
    sealed_pair_by(lab, "ike")
}

/// The same with keys that are made by `method`.
fn sealed_pair_by(lab: &Lab, method: &str) -> Result<(Host, Host)> {
    let hosts = lab.hosts();
    ensure!(hosts.len() >= 2, "a pair needs two hosts");
    seal_all(&Cluster::of(hosts).by(method), hosts)?;
    Ok((hosts[0].clone(), hosts[1].clone()))
}
