//! Exemptions: what the operator leaves in the clear stays so, both ways and in both families, and is not
//! disturbed when protection comes and goes.

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};

use super::{Traffic, ensure_pings, seal_all};
use crate::lab::agent::{hostseal, hostseal_all};
use crate::lab::stream::Shape;
use crate::lab::wait::until;
use crate::lab::{Cluster, FAMILIES, Host, Kind, Lab, Process, Stream};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("exempt::stays_clear_and_undisturbed", 2, stays_clear),
    Test::new("exempt::served_by_one_host_opens_no_other", 2, served_by_one),
];

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

/// Whether a TCP connection from `from`, out of its port `port` where that is not 0, to a port of `to` comes
/// about.
fn connects(from: &Host, port: u16, to: &Host, target: u16) -> Result<bool> {
    let own = if port == 0 { String::new() } else { format!("-p {port}") };
    from.succeeds(&format!("nc -z -w 2 {own} {} {target}", to.v4()))
}

/// Where a alone serves port 22, the port 22 of another host opens nothing.
fn served_by_one(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let listen = |host: &Host, port: u16| -> Result<Process> {
        let process = host.spawn(Command::new("nc").args(["-l", "-k", &port.to_string()]))?;
        until("nc listens", Duration::from_secs(5), || {
            ensure!(!host.run(&format!("ss -Hltn sport = :{port}"))?.is_empty(), "nothing listens");
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(process)
    };
    let _servers = [listen(&a, 22)?, listen(&a, 40_000)?];
    let check = |entry: &str| -> Result<()> {
        let cluster = Cluster::of(lab.hosts()).with("protection", &format!("exempt = [{entry}]"));
        seal_all(&cluster, lab.hosts())
    };
    check("{ port = \"tcp/22\", served_by = [\"a\"] }")?;
    let words = hostseal(&a, "config check")?.expect_code(0)?.stdout;
    ensure!(words.contains("TCP port 22 of a is open to all nodes, and from that port TCP ports"), "{words}");
    // Port 22 is left alone here: a connection that ended well keeps it (TIME-WAIT), and the next one could not begin.
    ensure!(connects(&b, 0, &a, 22)? && connects(&b, 0, &a, 40_000)?, "sealed, all of it works");
    // b's place is taken by somebody who has its address and no keys.
    hostseal(&b, "disable --force")?.expect_code(0)?;
    ensure!(connects(&b, 0, &a, 22)?, "the exempt port is not open");
    ensure!(!connects(&b, 22, &a, 40_000)?, "port 22 of a host that does not serve it opens a's ports");
    ensure!(!connects(&b, 0, &a, 40_000)?, "a port that is not exempt is open");
    for outcome in hostseal_all(lab.hosts(), "disable --force")? {
        outcome.expect_code(0)?;
    }
    // Where everybody serves it, b's does too: that is what the entry above closes.
    check("\"tcp/22\"")?;
    hostseal(&b, "disable --force")?.expect_code(0)?;
    ensure!(connects(&b, 22, &a, 40_000)?, "what is exempt everywhere");
    Ok(())
}
