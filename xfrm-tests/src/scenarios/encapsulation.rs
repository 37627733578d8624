//! ESP in UDP: where protocol 50 does not get through, where the file says so, and with strongSwan.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow, ensure};
use hostseal::xfrm::receive_descriptors;
use nix::sys::signal::{Signal, kill};

use super::{Traffic, await_logged, await_one_pair, await_protected, ensure_pings, seal_all};
use crate::lab::agent::{SECRETS, Status, hostseal, hostseal_all, kill_agent, status, status_until};
use crate::lab::stream::Shape;
use crate::lab::{
    Capture, Cluster, Connection, FAMILIES, Family, HOSTSEAL, Host, Kind, Lab, Packet, Peer as _, Stream,
    Swan, Toward, until,
};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("encapsulation::protocol_50_is_dropped_in_between", 2, protocol_50_is_dropped),
    Test::new("encapsulation::protocol_50_stops_getting_through", 2, protocol_50_stops),
    Test::new("encapsulation::always_through_rekeys_and_back_to_clear", 2, always),
    Test::new("encapsulation::a_changed_file_moves_pairs_there_and_back", 2, changed_file),
    Test::new("encapsulation::an_agent_that_is_killed_or_stopped_loses_nothing", 2, killed_or_stopped),
    Test::new("encapsulation::a_service_manager_keeps_the_socket", 2, kept_by_a_service_manager),
    Test::new("encapsulation::strongswan_answers", 2, |lab| with_strongswan(lab, false, ALWAYS, false)),
    Test::new("encapsulation::strongswan_initiates", 2, |lab| with_strongswan(lab, true, ALWAYS, false)),
    Test::new("encapsulation::strongswan_asks_for_it", 2, |lab| with_strongswan(lab, true, AUTO, true)),
];

const AUTO: &str = "encapsulation = \"auto\"";
const ALWAYS: &str = "encapsulation = \"always\"";

/// Drops protocol 50 from a host, in both families.
fn drop_esp(lab: &Lab, host: &Host) -> Result<()> {
    for protocol in ["ip", "ipv6"] {
        let esp = format!("protocol {protocol} flower ip_proto 0x32");
        lab.wire().drop_matching(host, Toward::Wire, &esp)?;
    }
    Ok(())
}

/// Whether all rows are protected, with ESP in UDP or by itself.
pub(super) fn is_carried(status: &Status, carrier: &str) -> bool {
    status.all_protected() && status.peers().iter().all(|row| row["encapsulation"] == carrier)
}

pub(super) fn await_carried(host: &Host, carrier: &str, limit: Duration) -> Result<()> {
    let what = format!("all is protected, encapsulation {carrier}");
    status_until(host, &what, limit, |status| is_carried(status, carrier)).map(drop)
}

/// Checks that since `time` all was ESP in UDP. Ends the captures.
pub(super) fn ensure_only_udp(captures: Vec<Capture>, time: SystemTime) -> Result<()> {
    for capture in captures {
        let report = capture.stop()?.since(time);
        println!("{report}");
        report.ensure_nothing_clear()?;
        report.ensure_none(Kind::Esp)?;
        ensure!(report.count(Kind::UdpEsp) > 0, "{report}");
    }
    Ok(())
}

fn protocol_50_is_dropped(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    Cluster::of(lab.hosts()).install_all(lab.hosts())?;
    drop_esp(lab, &a)?;
    drop_esp(lab, &b)?;
    let traffic = Traffic::start(&a, &b, 250)?;
    for outcome in hostseal_all(lab.hosts(), "enable --timeout 20s")? {
        outcome.expect_code(0)?;
    }
    for host in [&a, &b] {
        await_carried(host, "udp", Duration::from_secs(5))?;
    }
    let (captures, protected) = (lab.capture_all()?, SystemTime::now());
    ensure_pings(&a, &b, 5)?;
    traffic.ensure_complete()?;
    ensure_only_udp(captures, protected)
}

/// Noticed by the counters within half a minute of traffic that is not answered, and moved within some seconds; then
/// reminders each 20 s: the time is the subject here.
fn protocol_50_stops(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    seal_all(&Cluster::of(lab.hosts()), lab.hosts())?;
    let (captures, started) = (lab.capture_all()?, SystemTime::now());
    drop_esp(lab, &a)?;
    drop_esp(lab, &b)?;
    let shape = Shape { rate: 50, ..Shape::default() };
    let lost = [Stream::start(&a, &b, shape)?, Stream::start(&b, &a, Shape { family: Family::V6, ..shape })?];
    for host in [&a, &b] {
        await_carried(host, "udp", Duration::from_secs(50))?;
    }
    println!("moved after {:?}", started.elapsed()?);
    await_logged(&a, "that the pair has moved", |line| line.contains("moved to ESP in UDP"))?;
    let moved = SystemTime::now();
    until("what is sent arrives", Duration::from_secs(5), || {
        let arrived = lost.each_ref().map(Stream::arrived);
        ensure!(arrived.iter().all(|count| *count > 0), "{arrived:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    for stream in lost {
        println!("{:?}", stream.stop()?);
    }
    Traffic::start(&a, &b, 250)?.ensure_complete()?;
    ensure_pings(&a, &b, 3)?;
    let is_reminder = |packet: &Packet| packet.kind == Kind::UdpEsp && packet.spi.is_none();
    until("a NAT would be reminded", Duration::from_secs(25), || {
        let seen = captures[0].so_far()?.packets.iter().filter(|packet| is_reminder(packet)).count();
        ensure!(seen > 0, "no reminder yet");
        Ok::<_, anyhow::Error>(())
    })?;
    println!("reminded after {:?}", moved.elapsed()?);
    for capture in captures {
        capture.stop()?.since(started).ensure_nothing_clear()?;
    }
    Ok(())
}

/// The processes of a host that keep its sockets.
fn keepers(host: &Host) -> Result<usize> {
    let pids = host.processes()?;
    let name =
        |pid: &nix::unistd::Pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Ok(pids.iter().filter(|pid| name(pid).trim() == "hostseal-keeper").count())
}

fn always(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let captures = lab.capture_all()?;
    let cluster = Cluster::of(lab.hosts()).with("esp", ALWAYS).with("keying", "rekey_after = \"3s\"");
    let traffic = Traffic::start(&a, &b, 250)?;
    seal_all(&cluster, lab.hosts())?;
    let sealed = SystemTime::now();
    until("keys are renewed", Duration::from_secs(20), || {
        let spis = super::spis_sent(&captures[0].so_far()?.since(sealed), b.v4().into());
        ensure!(spis.len() >= 2, "{spis:x?}");
        Ok::<_, anyhow::Error>(())
    })?;
    for host in [&a, &b] {
        ensure!(is_carried(&status(host)?, "udp"), "{:#}", status(host)?.0);
        ensure!(keepers(host)? == 1, "{} processes keep sockets", keepers(host)?);
    }
    let shown = hostseal(&a, "status")?.expect_code(0)?;
    ensure!(shown.stdout.contains("aes-gcm-256 in udp"), "{}", shown.stdout);
    ensure_only_udp(captures, sealed)?;
    hostseal(&a, "disable")?.expect_code(0)?;
    hostseal(&b, "disable")?.expect_code(0)?;
    traffic.ensure_complete()?;
    for host in [&a, &b] {
        super::ensure_nothing_of_ours(host)?;
        ensure!(keepers(host)? == 0, "a process keeps sockets of {} still", host.name());
    }
    Ok(())
}

fn changed_file(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    seal_all(&Cluster::of(lab.hosts()), lab.hosts())?;
    let (captures, sealed) = (lab.capture_all()?, SystemTime::now());
    let traffic = Traffic::start(&a, &b, 250)?;
    for (line, carrier) in [(ALWAYS, "udp"), ("encapsulation = \"never\"", "none")] {
        let cluster = Cluster::of(lab.hosts()).with("esp", line);
        for host in [&a, &b] {
            cluster.install(host, SECRETS[0])?;
            let said = hostseal(host, "reload")?.expect_code(0)?;
            println!("{}", said.stdout);
        }
        for host in [&a, &b] {
            await_carried(host, carrier, Duration::from_secs(10))?;
        }
    }
    traffic.ensure_complete()?;
    for capture in captures {
        capture.stop()?.since(sealed).ensure_nothing_clear()?;
    }
    Ok(())
}

/// What is under way meanwhile finds the socket that takes it out of UDP: a process of ours keeps it.
fn killed_or_stopped(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    seal_all(&Cluster::of(lab.hosts()).with("esp", ALWAYS), lab.hosts())?;
    let (captures, sealed) = (lab.capture_all()?, SystemTime::now());
    let traffic = Traffic::start(&a, &b, 500)?;
    kill_agent(&a)?;
    sleep(Duration::from_secs(3));
    let row = status(&a)?.peer(IpAddr::from(b.v4()))?;
    ensure!(row.at("/encapsulation") == "udp", "{:#}", row.0);
    hostseal(&a, "enable")?.expect_code(0)?;
    await_protected(&a)?;
    let agent = status(&b)?.agent()?;
    kill(agent, Signal::SIGTERM)?;
    until("the agent is gone", Duration::from_secs(5), || {
        ensure!(!b.processes()?.contains(&agent), "process {agent} is there");
        Ok::<_, anyhow::Error>(())
    })?;
    sleep(Duration::from_secs(1));
    hostseal(&b, "enable")?.expect_code(0)?;
    for host in [&a, &b] {
        await_carried(host, "udp", Duration::from_secs(10))?;
        ensure!(keepers(host)? == 1);
    }
    for family in FAMILIES {
        await_one_pair(&a, &b, family, Duration::from_secs(20))?;
    }
    traffic.ensure_complete()?;
    ensure_only_udp(captures, sealed)
}

/// What systemd does for a service with a file descriptor store, done by hand.
fn kept_by_a_service_manager(lab: &mut Lab) -> Result<()> {
    const NOTIFY: &str = "/run/notify.sock";
    let [a, b] = lab.all();
    Cluster::of_v4(lab.hosts()).with("esp", ALWAYS).install_all(lab.hosts())?;
    let manager = a.within(|| UnixDatagram::bind(NOTIFY))??;
    let mut first = Command::new(HOSTSEAL);
    let first = a.spawn(first.arg("agent").env("NOTIFY_SOCKET", NOTIFY).stderr(Stdio::null()))?;
    until("the agent listens", Duration::from_secs(5), || status(&a)?.agent().map(drop))?;
    for outcome in hostseal_all(lab.hosts(), "enable")? {
        outcome.expect_code(0)?;
    }
    await_carried(&a, "udp", Duration::from_secs(5))?;
    let stored = stored(&manager)?;
    ensure!(keepers(&a)? == 0, "nobody else keeps it");
    let traffic = Traffic::of(&[(&a, &b), (&b, &a)], &[Family::V4], 500)?;
    drop(first);
    sleep(Duration::from_secs(2));
    ensure!(status(&a)?.agent().is_err(), "the agent is gone");
    let next = format!(
        "exec 3<&1 1>/dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 NOTIFY_SOCKET={NOTIFY}; exec {HOSTSEAL} agent"
    );
    let _next = a.spawn(Command::new("sh").args(["-c", &next]).stdout(stored).stderr(Stdio::null()))?;
    until("another agent listens", Duration::from_secs(5), || status(&a)?.agent().map(drop))?;
    await_one_pair(&a, &b, Family::V4, Duration::from_secs(20))?;
    traffic.ensure_complete()?;
    ensure!(is_carried(&status(&a)?, "udp"), "{:#}", status(&a)?.0);
    hostseal(&a, "disable")?.expect_code(0)?;
    let mut text = [0; 256];
    until("the store is to be emptied", Duration::from_secs(5), || {
        let length = manager.recv(&mut text)?;
        let said = String::from_utf8_lossy(&text[..length]).into_owned();
        ensure!(said.contains("FDSTOREREMOVE=1") && said.contains("FDNAME=hostseal-nat"), "{said}");
        Ok::<_, anyhow::Error>(())
    })
}

/// The one descriptor that a service manager was given to keep.
fn stored(manager: &UnixDatagram) -> Result<OwnedFd> {
    manager.set_read_timeout(Some(Duration::from_secs(5)))?;
    loop {
        let mut text = [0; 256];
        let (length, descriptors) = receive_descriptors(manager.as_fd(), &mut text)?;
        let said = String::from_utf8_lossy(&text[..length]).into_owned();
        if said.contains("FDSTORE=1") {
            ensure!(said.contains("FDPOLL=0"), "an error that ICMP reports must not close it: {said}");
            let [only] =
                <[OwnedFd; 1]>::try_from(descriptors).map_err(|all| anyhow!("{} of them", all.len()))?;
            return Ok(only);
        }
    }
}

/// hostseal with `line` in its file, and strongSwan that wants ESP in UDP by itself, or not (`encap`).
fn with_strongswan(lab: &mut Lab, initiates: bool, line: &str, encap: bool) -> Result<()> {
    let [a, b] = lab.all();
    // Who has the smaller address begins.
    let (ours, foreigner) = if initiates { (&b, &a) } else { (&a, &b) };
    let swan = Swan::start(foreigner, &[])?;
    let connection = Connection::between(foreigner, ours, Family::V4, SECRETS[0]);
    swan.load(&[connection.encap(encap)])?;
    Cluster::of_v4(lab.hosts()).with("esp", line).install(ours, SECRETS[0])?;
    hostseal(ours, "enable --no-wait")?.expect_code(0)?;
    let name = format!("{}-v4", ours.name());
    if initiates {
        swan.initiate(&name)?;
    }
    await_carried(ours, "udp", Duration::from_secs(10))?;
    let (captures, protected) = (lab.capture_all()?, SystemTime::now());
    let pings = || -> Result<()> {
        ensure!(a.ping(&b, Family::V4, 3)? == 3 && b.ping(&a, Family::V4, 3)? == 3);
        Ok(())
    };
    pings()?;
    let before = super::strongswan::outbound_spi(ours, foreigner)?;
    for command in ["--rekey --child", "--rekey --ike"] {
        swan.command(&format!("{command} {name}"))?;
        await_one_pair(ours, foreigner, Family::V4, Duration::from_secs(20))?;
        pings()?;
    }
    ensure!(super::strongswan::outbound_spi(ours, foreigner)? != before, "another child");
    ensure!(is_carried(&status(ours)?, "udp"), "{:#}", status(ours)?.0);
    let listed = swan.command("--list-sas")?;
    ensure!(listed.contains("TRANSPORT-in-UDP"), "{listed}");
    ensure_only_udp(captures, protected)
}
