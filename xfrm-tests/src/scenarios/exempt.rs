//! Exemptions: what the operator leaves in the clear stays so, both ways and in both families, and is not
//! disturbed when protection comes and goes.

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};

use super::{Traffic, ensure_pings, seal_all};
use crate::lab::agent::hostseal_all;
use crate::lab::stream::Shape;
use crate::lab::wait::until;
use crate::lab::{Cluster, FAMILIES, Host, Kind, Lab, Process, Stream};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[Test::new("exempt::stays_clear_and_undisturbed", 2, stays_clear)];

/// The exempted TCP ports: a server serves one client at a time.
const PORTS: [u16; 2] = [5201, 5202];

/// TCP to a port of `to`, for so many seconds in each family.
fn transfer(from: &Host, to: &Host, port: u16, seconds: u64) -> Result<()> {
    FAMILIES.iter().try_for_each(|family| {
        let target = to.address(*family);
        from.run(&format!("iperf3 -c {target} -p {port} -b 2M -t {seconds}")).map(drop)
    })
}

fn serve(host: &Host, port: u16) -> Result<Process> {
    let server =
        host.spawn(Command::new("iperf3").args(["-s", "-p", &port.to_string()]).stdout(Stdio::null()))?;
    until("iperf3 listens", Duration::from_secs(5), || {
        let listening = host.run(&format!("ss -Hltn sport = :{port}"))?;
        ensure!(!listening.is_empty(), "nothing listens");
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(server)
}

fn stays_clear(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let cluster = Cluster::of(lab.hosts())
        .with("protection", "exempt = [\"tcp/5201-5202\", \"udp/7001-7002\", \"icmp\"]");
    let _servers = [serve(&a, PORTS[0])?, serve(&b, PORTS[0])?, serve(&b, PORTS[1])?];
    // These go to ports 7001 and 7002.
    let exempted = Traffic::start(&a, &b, 250)?;
    let ways = [(&a, &b), (&b, &a)];
    std::thread::scope(|scope| -> Result<()> {
        let transfers = ways.map(|(from, to)| scope.spawn(move || transfer(from, to, PORTS[0], 3)));
        let pings = ways.map(|(from, to)| scope.spawn(move || ensure_pings(from, to, 60)));
        seal_all(&cluster, lab.hosts())?;
        let sealed = SystemTime::now();
        let capture = lab.capture(&a)?;
        ensure_pings(&a, &b, 2)?;
        transfer(&a, &b, PORTS[1], 1)?;
        let other =
            Stream::run(&a, &b, Shape { port: 7100, rate: 100, ..Shape::default() }, Duration::from_secs(1))?;
        other.ensure_complete()?;
        let report = capture.stop()?.since(sealed);
        println!("{report}");
        let clear = report.filter(|packet| packet.kind == Kind::Clear);
        for protocol in [6, 17, 1, 58] {
            let found = clear.packets.iter().any(|packet| packet.protocol == protocol);
            ensure!(found, "nothing of protocol {protocol} is in the clear: {report}");
        }
        ensure!(report.count(Kind::Esp) >= 100, "the rest is ESP: {report}");
        clear.filter(|packet| packet.ports.1 == 7100).ensure_nothing_clear()?;
        for outcome in hostseal_all(lab.hosts(), "disable")? {
            outcome.expect_code(0)?;
        }
        transfers
            .into_iter()
            .chain(pings)
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    exempted.ensure_complete()
}
