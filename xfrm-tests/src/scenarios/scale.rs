//! Many hosts that are not there, a slow disk, limits that a link outruns: none of them delays or cuts anything.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};

use super::{Traffic, await_protected, await_sealed, seal_all, spis_sent};
use crate::campaign::faults::MORTAL;
use crate::lab::agent::{CONFIG, Status, hostseal, hostseal_all, kill_agent, status, status_until};
use crate::lab::{Cluster, FAMILIES, Family, HOSTSEAL, Host, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("scale::hundreds_of_dead_hosts_delay_nobody", 3, dead_hosts_delay_nobody),
    Test::new("scale::a_slow_disk_delays_nothing_but_the_answers", 2, a_slow_disk_delays_nothing).mortal(),
    Test::new("scale::limits_that_a_link_outruns_cut_nothing", 2, outrun_limits_cut_nothing),
];

/// How long a write takes on a slow disk.
const WRITE: Duration = Duration::from_secs(3);

/// How long the live may take on a busy machine: nobody waits for those that are not there. How soon they are
/// protected is a matter of the simulations.
const SOON: Duration = Duration::from_secs(10);
/// Hosts that the file lists beside, none of which is there.
const DEAD: usize = 400;

fn dead_hosts_delay_nobody(lab: &mut Lab) -> Result<()> {
    let cluster = Cluster::of_v4(lab.hosts());
    cluster.install_all(lab.hosts())?;
    let dead: String = (0..DEAD)
        .map(|at| {
            let address = format!("10.99.{}.{}", 1 + at / 250, 1 + at % 250);
            format!("\n[[nodes]]\nname = \"dead{at}\"\naddresses = [\"{address}\"]\n")
        })
        .collect();
    for host in lab.hosts() {
        host.write(CONFIG, &(cluster.text() + &dead), 0o644)?;
    }
    hostseal_all(lab.hosts(), "enable --no-wait")?
        .into_iter()
        .try_for_each(|it| it.expect_code(0).map(drop))?;
    for host in lab.hosts() {
        live_are_protected(lab, host)?;
    }
    let [a, b, _] = lab.all();
    sleep(Duration::from_secs(1));
    let a = lab.reboot(&a)?;
    hostseal(&a, "guard")?.expect_code(0)?;
    a.network_up()?;
    hostseal_all(std::slice::from_ref(&a), "enable --no-wait")?;
    live_are_protected(lab, &a)?;
    let log = until("the log tells of the dead", Duration::from_secs(60), || {
        let log = b.read("/run/hostseal/agent.log")?;
        ensure!(log.contains(&format!("{DEAD} hosts do not answer: ")), "{log}");
        Ok::<_, anyhow::Error>(log)
    })?;
    println!("{log}");
    ensure!(log.lines().count() < 40, "{} lines", log.lines().count());
    Ok(())
}

fn live_are_protected(lab: &Lab, host: &Host) -> Result<()> {
    let others = lab.hosts().iter().filter(|other| other.name() != host.name());
    let others: Vec<_> = others.map(Host::v4).collect();
    let protected = |status: &Status| {
        let state = |remote| status.peer(remote).map(|row| row.at("/state") == "protected");
        others.iter().all(|remote| state((*remote).into()).unwrap_or(false))
    };
    status_until(host, "the live are protected", SOON, protected).map(drop)
}

/// Keys are replaced every two seconds meanwhile, and the operator has his wishes written.
fn a_slow_disk_delays_nothing(lab: &mut Lab) -> Result<()> {
    const SECONDS: u64 = 20;
    for host in lab.hosts() {
        host.run(&format!("mount --bind {MORTAL} {HOSTSEAL}"))?;
    }
    let [a, b] = lab.all();
    seal_all(&Cluster::of(lab.hosts()).with("keying", "rekey_after = \"2s\""), lab.hosts())?;
    for host in lab.hosts() {
        host.write("/run/hostseal-slow-disk", &WRITE.as_millis().to_string(), 0o644)?;
    }
    let captures = lab.capture_all()?;
    let started = SystemTime::now();
    let traffic = Traffic::start(&a, &b, 250)?;
    sleep(Duration::from_secs(SECONDS));
    // Nothing but figures has changed, and nobody waits for those.
    let asked = Instant::now();
    hostseal(&a, "status")?.expect_code(0)?;
    println!("status took {:?}", asked.elapsed());
    traffic.ensure_complete()?;
    for capture in captures {
        let report = capture.stop()?.since(started);
        report.ensure_nothing_clear()?;
        let other = if report.host == a.name() { &b } else { &a };
        for family in FAMILIES {
            let spis = spis_sent(&report, other.address(family));
            ensure!(spis.len() as u64 > SECONDS / 4, "only {} SAs in {SECONDS} s", spis.len());
        }
    }
    what_is_told_was_saved(&a, &b)
}

/// Whoever hears that all pairs are protected may cut the power.
fn what_is_told_was_saved(a: &Host, b: &Host) -> Result<()> {
    const STATE: &str = "/var/lib/hostseal/state.json";
    let ordered = Instant::now();
    hostseal(a, "disable")?.expect_code(0)?;
    ensure!(ordered.elapsed() >= WRITE, "it was not written before");
    ensure!(a.read(STATE)?.contains("\"protection\":\"off\""), "{}", a.read(STATE)?);
    ensure!(a.ping(b, Family::V4, 3)? == 3);
    hostseal(a, "enable --timeout 60s")?.expect_code(0)?;
    await_protected(a)?;
    let told = kill_agent(a).and_then(|()| a.read(STATE))?;
    ensure!(told.matches("\"sealed\":true").count() == FAMILIES.len(), "{told}");
    Ok(())
}

/// 500 packets a second each way and family use up 300 in a moment.
fn outrun_limits_cut_nothing(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    seal_all(&Cluster::of(lab.hosts()).with("keying", "rekey_packets = 300"), lab.hosts())?;
    lab.hosts().iter().try_for_each(await_sealed)?;
    let traffic = Traffic::start(&a, &b, 500)?;
    let spis =
        || -> Result<String> { Ok(status(&a)?.peer(b.address(Family::V4))?.at("/sas/0/spi").to_string()) };
    let first = spis()?;
    sleep(Duration::from_secs(20));
    let last = spis()?;
    traffic.ensure_complete()?;
    ensure!(first != last, "keys are replaced");
    ensure!(a.read("/run/hostseal/agent.log")?.contains("raise the limit"), "it is told");
    for host in lab.hosts() {
        let sas = host.run("ip xfrm state count")?;
        println!("{}: {sas}", host.name());
    }
    Ok(())
}
