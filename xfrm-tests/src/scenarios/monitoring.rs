//! A real Prometheus over real exporters: what is sent is what it sees, and alerts fire where they should.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};

use super::{enable_all, seal_all};
use crate::lab::agent::{await_end, hostseal, status, status_until};
use crate::lab::exporter::{self, PORT};
use crate::lab::prometheus::{ALERTS, ALERTS_TEST, Prometheus, expressions, queries};
use crate::lab::stream::Shape;
use crate::lab::{Cluster, Host, Lab, Stream, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("monitoring::prometheus_sees_what_is_sent_and_no_counter_resets", 3, sees_what_is_sent)
        .within(600),
    Test::new("monitoring::alerts_fire_where_they_should", 3, alerts_fire).within(600),
];

const LIMIT: Duration = Duration::from_secs(120);
/// How long what is sent is compared with what Prometheus sees.
const WINDOW: Duration = Duration::from_secs(120);
/// Where exporters listen whom another host asks.
const EVERYWHERE: &str = "0.0.0.0:10931";

fn instance(host: &Host) -> String {
    format!("{}:{PORT}", host.v4())
}

/// Keys are replaced every ten seconds, and an agent is restarted in the middle.
fn sees_what_is_sent(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts().to_vec();
    hosts.iter().try_for_each(exporter::make_group)?;
    seal_all(&Cluster::of_v4(&hosts).with("keying", "rekey_after = \"10s\""), &hosts)?;
    let _exporters =
        hosts.iter().map(|host| exporter::start(host, true, EVERYWHERE)).collect::<Result<Vec<_>>>()?;
    let (a, b) = (&hosts[0], &hosts[1]);
    let prometheus = Prometheus::start(&hosts[2], &hosts, ALERTS, 1)?;
    let stream = Stream::start(a, b, Shape { rate: 500, ..Shape::default() })?;
    // The first scrapes of the window have traffic already.
    until("traffic is seen", LIMIT, || {
        let seen = prometheus.value("sum(rate(hostseal_pair_transmit_packets_total[5s]))")?;
        ensure!(seen > 100.0, "{seen}");
        Ok::<_, anyhow::Error>(())
    })?;
    std::thread::sleep(Duration::from_secs(5));
    let (begun, before) = (Instant::now(), stream.arrived());
    std::thread::sleep(WINDOW / 2);
    let agent = status(a)?.agent()?;
    kill(agent, Signal::SIGTERM)?;
    await_end(a, agent)?;
    hostseal(a, "enable")?.expect_code(0)?;
    std::thread::sleep(WINDOW.saturating_sub(begun.elapsed()));
    let (took, arrived) = (begun.elapsed(), stream.arrived() - before);
    let range = format!("[{}s]", took.as_secs());
    let pair = format!("{{instance=\"{}\",peer=\"{}\"}}", instance(a), b.name());
    let truth = arrived as f64 / took.as_secs_f64();
    for (series, of) in [
        ("hostseal_pair_transmit_packets_total", pair.clone()),
        (
            "hostseal_pair_receive_packets_total",
            format!("{{instance=\"{}\",peer=\"{}\"}}", instance(b), a.name()),
        ),
    ] {
        let rate = prometheus.value(&format!("rate({series}{of}{range})"))?;
        println!("{series}: {rate:.1}/s, and {truth:.1}/s were sent");
        ensure!((rate / truth - 1.0).abs() < 0.01, "{series}: {rate} instead of {truth}");
    }
    for series in
        ["pair_transmit_bytes", "pair_receive_bytes", "transmit_bytes", "receive_bytes", "transmit_packets"]
    {
        let resets = prometheus.value(&format!("sum(resets(hostseal_{series}_total{range}))"))?;
        ensure!(resets == 0.0, "{series} was reset {resets} times");
    }
    let rekeys = prometheus
        .value(&format!("sum(hostseal_rekeys_total{{result=\"ok\",instance=\"{}\"}})", instance(b)))?;
    ensure!(rekeys >= 5.0, "{rekeys} rekeys");
    stream.stop()?.ensure_complete()?;
    for query in queries()? {
        let samples = prometheus.query(&query)?;
        ensure!(!samples.is_empty(), "nothing to show: {query}");
    }
    for expression in expressions() {
        prometheus.query(expression)?;
    }
    let firing = prometheus.firing()?;
    ensure!(firing.is_empty(), "a healthy cluster: {firing:?}");
    Ok(())
}

/// The same alerts, without their patience.
fn alerts_fire(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts().to_vec();
    let (a, b, c) = (&hosts[0], &hosts[1], &hosts[2]);
    a.write("/run/rules/alerts.yaml", ALERTS, 0o644)?;
    a.write("/run/rules/alerts_test.yaml", ALERTS_TEST, 0o644)?;
    println!("{}", a.run("promtool check rules /run/rules/alerts.yaml")?);
    // Half a minute of work on a machine that has nothing else to do.
    let tested =
        a.output_of(Command::new("promtool").args(["test", "rules", "/run/rules/alerts_test.yaml"]))?;
    ensure!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
    let impatient: String = ALERTS
        .lines()
        .map(|line| {
            if line.trim().starts_with("for:") { "        for: 1s\n".to_owned() } else { format!("{line}\n") }
        })
        .collect();
    hosts.iter().try_for_each(exporter::make_group)?;
    let cluster = Cluster::of_v4(&hosts).with("keying", "rekey_after = \"1h\"");
    enable_all(&cluster, &hosts)?;
    let mut exporters =
        hosts.iter().map(|host| exporter::start(host, true, EVERYWHERE)).collect::<Result<Vec<_>>>()?;
    hosts.iter().try_for_each(|host| {
        status_until(host, "all is protected", LIMIT, |status| status.all_protected()).map(drop)
    })?;
    // The exporter gives an agent two seconds.
    let prometheus = Prometheus::start(a, &hosts, &impatient, 4)?;
    let fires = |alert: &str, whom: &str| {
        until(&format!("{alert} fires for {whom}"), LIMIT, || {
            let firing = prometheus.firing()?;
            ensure!(firing.contains(&(alert.to_owned(), whom.to_owned())), "{firing:?}");
            Ok::<_, anyhow::Error>(firing)
        })
    };
    let calms = || {
        until("nothing fires", LIMIT, || {
            let firing = prometheus.firing()?;
            ensure!(firing.is_empty(), "{firing:?}");
            Ok::<_, anyhow::Error>(())
        })
    };
    calms()?;
    // An agent that hangs.
    let agent = status(b)?.agent()?;
    kill(agent, Signal::SIGSTOP)?;
    let firing = fires("HostsealAgentDown", &instance(b))?;
    ensure!(firing.len() == 1, "{firing:?}");
    kill(agent, Signal::SIGCONT)?;
    calms()?;
    // An exporter that is gone.
    drop(exporters.remove(1));
    let firing = fires("HostsealExporterDown", &instance(b))?;
    ensure!(firing.len() == 1, "{firing:?}");
    exporters.push(exporter::start(b, true, EVERYWHERE)?);
    calms()?;
    // Another file on one host.
    cluster.clone().with("keying", "expire_after = \"23h\"").install(c, crate::lab::agent::SECRETS[0])?;
    hostseal(c, "reload")?.expect_code(0)?;
    fires("HostsealConfigDiffers", "lab")?;
    cluster.install(c, crate::lab::agent::SECRETS[0])?;
    hostseal(c, "reload")?.expect_code(0)?;
    calms()?;
    // Somebody takes the keys of a pair away, and the other end is not there to make new ones.
    let agent = status(c)?.agent()?;
    kill(agent, Signal::SIGSTOP)?;
    b.run("ip xfrm state deleteall")?;
    fires("HostsealBlocked", &instance(b))?;
    kill(agent, Signal::SIGCONT)?;
    calms().context("keys are agreed again")
}
