//! A real Prometheus over real exporters: what is sent is what it sees.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};

use super::seal_all;
use crate::lab::agent::{await_end, hostseal, status};
use crate::lab::exporter::{self, PORT};
use crate::lab::prometheus::{ALERTS, Prometheus, ShownPart};
use crate::lab::stream::Shape;
use crate::lab::{Cluster, Host, Lab, Stream, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] =
    &[Test::new("monitoring::prometheus_sees_what_is_sent_and_no_counter_resets", 3, sees_what_is_sent)
        .within(600)];

const LIMIT: Duration = Duration::from_secs(120);
/// How long what is sent is compared with what Prometheus sees.
const WINDOW: Duration = Duration::from_secs(120);
/// What is counted of a pair and of a host.
const COUNTED: [&str; 5] =
    ["transmit_bytes", "transmit_packets", "receive_bytes", "receive_packets", "errors"];
/// Where exporters listen whom another host asks.
const EVERYWHERE: &str = "0.0.0.0:10931";

fn instance(host: &Host) -> String {
    format!("{}:{PORT}", host.v4())
}

/// Keys are replaced every ten seconds, and the agents of both ends are restarted in the middle, one after the other.
fn sees_what_is_sent(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts().to_vec();
    hosts.iter().try_for_each(exporter::make_group)?;
    seal_all(&Cluster::of_v4(&hosts).with("keying", "rekey_after = \"10s\""), &hosts)?;
    let _exporters =
        hosts.iter().map(|host| exporter::start(host, true, EVERYWHERE)).collect::<Result<Vec<_>>>()?;
    let (a, b) = (&hosts[0], &hosts[1]);
    let prometheus = Prometheus::start(&hosts[2], &hosts, ALERTS, 1)?;
    let shape = Shape { rate: 500, ..Shape::default() };
    let stream = Stream::start(a, b, shape)?;
    // The first scrapes of the window have traffic already.
    until("traffic is seen", LIMIT, || {
        let seen = prometheus.value("sum(rate(hostseal_pair_transmit_packets_total[5s]))")?;
        ensure!(seen > 100.0, "{seen}");
        Ok::<_, anyhow::Error>(())
    })?;
    std::thread::sleep(Duration::from_secs(5));
    let (begun, before) = (Instant::now(), stream.arrived());
    std::thread::sleep(WINDOW / 2);
    for host in [a, b] {
        let agent = status(host)?.agent()?;
        kill(agent, Signal::SIGTERM)?;
        await_end(host, agent)?;
        hostseal(host, "enable")?.expect_code(0)?;
    }
    std::thread::sleep(WINDOW.saturating_sub(begun.elapsed()));
    let (took, arrived) = (begun.elapsed(), stream.arrived() - before);
    let range = format!("[{}s]", took.as_secs());
    let sent = (a, b, "transmit");
    let received = (b, a, "receive");
    for (host, peer, way) in [sent, received] {
        let pair = format!("{{instance=\"{}\",peer=\"{}\"}}", instance(host), peer.name());
        // ESP encrypts what follows the IP header: that of UDP, and the datagram.
        for (unit, size) in [("packets", 1), ("bytes", 8 + shape.size)] {
            let truth = (arrived * size as u64) as f64 / took.as_secs_f64();
            let series = format!("hostseal_pair_{way}_{unit}_total{pair}");
            let rate = prometheus.value(&format!("rate({series}{range})"))?;
            println!("{series}: {rate:.1}/s, and {truth:.1}/s were sent");
            ensure!((rate / truth - 1.0).abs() < 0.01, "{series}: {rate} instead of {truth}");
        }
    }
    // Of the pairs and of the hosts, also what was refused.
    for (of, counted) in ["pair_", ""].into_iter().flat_map(|of| COUNTED.map(|counted| (of, counted))) {
        let resets = prometheus.value(&format!("sum(resets(hostseal_{of}{counted}_total{range}))"))?;
        ensure!(resets == 0.0, "{of}{counted} was reset {resets} times");
    }
    let rekeys = prometheus
        .value(&format!("sum(hostseal_rekeys_total{{result=\"ok\",instance=\"{}\"}})", instance(b)))?;
    ensure!(rekeys >= 5.0, "{rekeys} rekeys");
    stream.stop()?.ensure_complete()?;
    prometheus.ensure_shown(&[ShownPart::Host])?;
    let firing = prometheus.firing()?;
    ensure!(firing.is_empty(), "a healthy cluster: {firing:?}");
    Ok(())
}
