//! A host boots: its kernel's tables are empty, its state directory is not. What was sealed stays closed
//! from the first packet on.

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::signal::Signal;

use super::{
    await_protected, ensure_nothing_of_ours, ensure_only_esp, ensure_pings, seal_all, sealed_pair,
    sealed_pair_by,
};
use crate::lab::agent::{CONFIG, hostseal, kill_agent, start_agent, status, status_until};
use crate::lab::stream::Shape;
use crate::lab::{Cluster, Direction, FAMILIES, Family, HOSTSEAL, Host, Kind, Lab, Stream, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("reboot::a_guarded_host_boots_without_a_clear_packet", 2, |lab| {
        boots_without_a_clear_packet(lab, "ike")
    }),
    Test::new("reboot::a_guard_lets_nothing_clear_in_or_out", 2, nothing_clear_in_or_out),
    Test::new("reboot::a_guard_finds_nothing_to_do", 2, nothing_to_do),
    Test::new("reboot::a_guard_with_a_broken_state_blocks_everything", 2, a_broken_state_blocks_everything),
    Test::new("reboot::a_broken_file_without_a_good_copy_stays_closed", 2, a_broken_file_stays_closed),
    Test::new("reboot::a_lost_state_directory_stays_closed_and_is_mended", 2, a_lost_state_stays_closed),
    Test::new("reboot::a_host_that_was_never_enabled_is_not_touched", 2, never_enabled),
    Test::new(
        "reboot::a_full_disk_keeps_no_agent_from_starting",
        2,
        a_full_disk_keeps_no_agent_from_starting,
    ),
    Test::new("reboot::the_name_server_is_a_member", 2, the_name_server_is_a_member),
    Test::new("reboot::an_agent_waits_for_its_address", 2, an_agent_waits_for_its_address),
    Test::new("reboot::the_service_manager_hears_of_an_agent", 2, the_service_manager_hears_of_an_agent),
];

/// How long the guard stands alone: what boots before an agent takes its time.
const ALONE: Duration = Duration::from_millis(1500);

/// A program that talks to another host from before there is a network: it sends to all of its addresses
/// every millisecond, whatever the kernel says to it.
struct Talker {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Talker {
    fn start(from: &Host, to: &Host) -> Result<Self> {
        let sockets = from
            .within(|| -> Result<_> { Ok([UdpSocket::bind("0.0.0.0:0")?, UdpSocket::bind("[::]:0")?]) })??;
        let targets = FAMILIES.map(|family| SocketAddr::new(to.address(family), 7000));
        let stopping = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stopping);
        let talk = move || {
            let mut taken = 0;
            while !seen.load(Ordering::Relaxed) {
                for (socket, target) in sockets.iter().zip(targets) {
                    taken += u64::from(socket.send_to(&[0; 100], target).is_ok());
                }
                sleep(Duration::from_millis(1));
            }
            Ok(taken)
        };
        Ok(Self { stopping, thread: thread::spawn(talk) })
    }

    /// Ends it; returns how many packets the kernel took.
    fn stop(self) -> Result<u64> {
        self.stopping.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the talker panicked"))?
    }
}

/// Has a host start anew, with the guard before its network.
fn reboot_guarded(lab: &mut Lab, host: &Host) -> Result<Host> {
    let host = lab.reboot(host)?;
    hostseal(&host, "guard")?.expect_code(0)?;
    Ok(host)
}

/// Checks that the kernel lets a program talk to nobody there: `connect` fails at once.
fn ensure_no_way(from: &Host, to: &Host, family: Family) -> Result<()> {
    let address = to.address(family);
    ensure!(!from.succeeds(&format!("ping -n -c 1 -W 1 {address}"))?, "{address} answers");
    Ok(())
}

pub(super) fn boots_without_a_clear_packet(lab: &mut Lab, method: &str) -> Result<()> {
    let (a, b) = sealed_pair_by(lab, method)?;
    let a = reboot_guarded(lab, &a)?;
    let captures = lab.capture_all()?;
    let began = SystemTime::now();
    // The peer has not noticed; programs here are there before the network is.
    a.run("sysctl -q -w net.ipv4.ip_nonlocal_bind=1 net.ipv6.ip_nonlocal_bind=1")?;
    let inbound =
        FAMILIES.map(|family| Stream::start(&b, &a, Shape { family, port: 7001, ..Shape::default() }));
    let outbound = Talker::start(&a, &b)?;
    a.network_up()?;
    sleep(ALONE);
    let _agent = start_agent(&a)?;
    await_protected(&a)?;
    await_protected(&b)?;
    let protected = SystemTime::now();
    until("ESP flows both ways again", Duration::from_secs(10), || {
        for capture in &captures {
            let after = capture.so_far()?.since(protected);
            for family in FAMILIES {
                for direction in [Direction::In, Direction::Out] {
                    let esp = after.count_of(Kind::Esp, family, direction);
                    ensure!(esp > 100, "{family:?} {direction:?}: {esp} ESP packets: {after}");
                }
            }
        }
        Ok::<_, anyhow::Error>(())
    })?;
    ensure!(outbound.stop()? > 0, "nothing was sent at all");
    for stream in inbound {
        let count = stream?.stop()?;
        println!("{count:?}");
        ensure!(count.received > 0, "nothing came through again: {count:?}");
    }
    ensure_only_esp(captures, began)
}

fn nothing_clear_in_or_out(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts().to_vec();
    seal_all(&Cluster::of(&hosts).with("protection", "exempt = [\"udp/7002\"]"), &hosts)?;
    let [a, b] = lab.all();
    let a = reboot_guarded(lab, &a)?;
    a.network_up()?;
    hostseal(&b, "disable --force")?.expect_code(0)?;
    let capture = lab.capture(&a)?;
    for family in FAMILIES {
        ensure_no_way(&a, &b, family)?;
        let plain = Shape { family, port: 7003, rate: 200, ..Shape::default() };
        let count = Stream::run(&b, &a, plain, Duration::from_millis(300))?;
        ensure!(count.received == 0 && count.sent > 0, "clear packets came in: {count:?}");
        let exempt = Shape { family, port: 7002, rate: 200, ..Shape::default() };
        Stream::run(&b, &a, exempt, Duration::from_millis(300))?.ensure_complete()?;
    }
    let sent = capture.stop()?.filter(|packet| packet.direction == Direction::Out);
    sent.ensure_nothing_clear()?;
    // Without an agent the way out is the usual one.
    hostseal(&a, "disable --force")?.expect_code(0)?;
    ensure_nothing_of_ours(&a)?;
    ensure_pings(&a, &b, 3)
}

fn nothing_to_do(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts().to_vec();
    let cluster = Cluster::of(&hosts);
    cluster.install_all(&hosts)?;
    let [a, _] = lab.all();
    let said = |host: &Host| Ok::<_, anyhow::Error>(hostseal(host, "guard")?.expect_code(0)?.stdout);
    ensure!(said(&a)?.contains("protection is off"));
    // The other one is not there: nothing gets sealed.
    a.run("ip link add hole type dummy && sysctl -q -w net.ipv4.conf.hole.disable_xfrm=1")?;
    let enable = hostseal(&a, "enable --no-wait --try 1h")?.expect_code(0)?;
    ensure!(enable.stderr.contains("interface hole is a hole"), "{enable:?}");
    ensure!(said(&a)?.contains("an agent runs"));
    kill_agent(&a)?;
    ensure!(said(&a)?.contains("on trial"));
    // A boot goes back, so nothing is to be guarded.
    let a = lab.reboot(&a)?;
    ensure!(said(&a)?.contains("protection is off"));
    a.network_up()?;
    hostseal(&a, "enable --no-wait")?.expect_code(0)?;
    let a = lab.reboot(&a)?;
    ensure!(said(&a)?.contains("no pair was sealed"));
    ensure_nothing_of_ours(&a)?;
    a.network_up()?;
    seal_all(&cluster, lab.hosts())?;
    let a = reboot_guarded(lab, &a)?;
    let policies = a.run("ip xfrm policy")?;
    ensure!(said(&a)?.contains("(0 changes in the kernel)"));
    ensure!(a.run("ip xfrm policy")? == policies, "the guard is not idempotent");
    Ok(())
}

fn a_broken_state_blocks_everything(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let a = lab.reboot(&a)?;
    a.write("/var/lib/hostseal/state.json", "{\"schema\":1,\"prot", 0o600)?;
    let guard = hostseal(&a, "guard")?.expect_code(1)?;
    for part in ["every listed address is blocked", "state.json", "disable --force"] {
        ensure!(guard.stderr.contains(part), "{guard:?}");
    }
    a.network_up()?;
    for family in FAMILIES {
        ensure_no_way(&a, &b, family)?;
    }
    // An agent does not guess either, and says what to do.
    let agent = hostseal(&a, "agent")?.expect_code(1)?;
    ensure!(agent.stderr.contains("state.json") && agent.stderr.contains("disable --force"), "{agent:?}");
    for family in FAMILIES {
        ensure_no_way(&a, &b, family)?;
    }
    hostseal(&a, "disable --force")?.expect_code(0)?;
    ensure_nothing_of_ours(&a)?;
    hostseal(&a, "enable")?.expect_code(0)?;
    await_protected(&b)
}

/// Neither a good copy nor a sound file: the state alone knows what was sealed.
fn a_broken_file_stays_closed(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let good = a.read(CONFIG)?;
    for broken in [Some("cluster = [[[\n"), None] {
        let a = lab.reboot(&lab.hosts()[0].clone())?;
        a.run(&format!("rm /var/lib/hostseal/config.last-good.toml {CONFIG}"))?;
        broken.map_or(Ok(()), |text| a.write(CONFIG, text, 0o644))?;
        let guard = hostseal(&a, "guard")?.expect_code(1)?;
        ensure!(guard.stderr.contains(&b.v4().to_string()), "{guard:?}");
        a.network_up()?;
        let capture = lab.capture(&a)?;
        let talker = Talker::start(&a, &b)?;
        for family in FAMILIES {
            ensure_no_way(&a, &b, family)?;
        }
        talker.stop()?;
        capture.stop()?.filter(|packet| packet.direction == Direction::Out).ensure_nothing_clear()?;
        a.write(CONFIG, &good, 0o644)?;
        hostseal(&a, "enable")?.expect_code(0)?;
        await_protected(&b)?;
    }
    Ok(())
}

/// The file is there, and what was sealed is lost: it counts as all that the file names, for the agent too.
fn a_lost_state_stays_closed(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let a = lab.reboot(&a)?;
    a.run("rm -r /var/lib/hostseal")?;
    let guard = hostseal(&a, "guard")?.expect_code(0)?;
    ensure!(guard.stdout.contains("guarding 2 sealed pairs"), "{guard:?}");
    a.network_up()?;
    let capture = lab.capture(&a)?;
    let talker = Talker::start(&a, &b)?;
    for family in FAMILIES {
        ensure_no_way(&a, &b, family)?;
    }
    let agent = start_agent(&a)?;
    await_protected(&a)?;
    await_protected(&b)?;
    talker.stop()?;
    let sent = capture.stop()?.filter(|packet| packet.direction == Direction::Out);
    sent.ensure_nothing_clear()?;
    ensure_pings(&a, &b, 3)?;
    // A state that is lost after `disable` says nothing.
    hostseal(&a, "disable")?.expect_code(0)?;
    drop(agent);
    a.run("rm -r /var/lib/hostseal")?;
    let guard = hostseal(&a, "guard")?.expect_code(0)?;
    ensure!(guard.stdout.contains("protection is off"), "{guard:?}");
    ensure_nothing_of_ours(&a)
}

/// The file is installed, and nobody has enabled anything: whatever is broken, the host is as it was.
fn never_enabled(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    Cluster::of(lab.hosts()).install_all(lab.hosts())?;
    ensure!(hostseal(&a, "guard")?.expect_code(0)?.stdout.contains("protection is off"));
    a.write(CONFIG, "cluster = [[[\naddresses = [\"10.99.0.2\"]\n", 0o644)?;
    hostseal(&a, "guard")?.expect_code(2)?;
    ensure_nothing_of_ours(&a)?;
    ensure_pings(&a, &b, 3)
}

fn a_full_disk_keeps_no_agent_from_starting(lab: &mut Lab) -> Result<()> {
    let a = &lab.hosts()[0];
    let state = "/var/lib/hostseal";
    a.run(&format!("mkdir -p {state} && mount -t tmpfs -o size=32k,mode=700 tmpfs {state}"))?;
    let (a, b) = sealed_pair(lab)?;
    kill_agent(&a)?;
    ensure!(!a.succeeds(&format!("dd if=/dev/zero of={state}/full bs=1k"))?, "the disk is not full");
    let before = a.read(&format!("{state}/state.json"))?;
    let _agent = start_agent(&a)?;
    await_protected(&a)?;
    ensure_pings(&a, &b, 3)?;
    ensure!(a.read(&format!("{state}/state.json"))? == before, "what was saved is whole");
    // What cannot be remembered is said.
    let disable = hostseal(&a, "disable")?;
    ensure!(disable.code == 1 && disable.stderr.contains("No space left"), "{disable:?}");
    Ok(())
}

/// Answers each question for the address of a name, and counts them, for as long as the count is held.
fn serve_names(on: &Host) -> Result<Arc<AtomicUsize>> {
    let socket = on.within(|| UdpSocket::bind("0.0.0.0:53"))??;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    thread::spawn(move || {
        let mut question = [0; 512];
        while Arc::strong_count(&counted) > 1 {
            let Ok((length, from)) = socket.recv_from(&mut question) else { continue };
            counted.fetch_add(1, Ordering::SeqCst);
            // RFC 1035 section 4.1: the id, an answer without error, one question and one answer; the
            // question again; its name, type A, class IN, a minute, four bytes of address.
            let mut answer = question[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            answer.extend(question.get(12..length).unwrap_or_default());
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 53]);
            let _ = socket.send_to(&answer, from);
        }
    });
    Ok(asked)
}

fn the_name_server_is_a_member(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let asked = serve_names(&b)?;
    let a = reboot_guarded(lab, &a)?;
    a.write("/etc/resolv.conf", &format!("nameserver {}\n", b.v4()), 0o644)?;
    a.network_up()?;
    ensure!(!a.succeeds("timeout 1 getent ahostsv4 early.example")?, "it can be asked in the clear");
    let _agent = start_agent(&a)?;
    await_protected(&a)?;
    ensure!(asked.load(Ordering::SeqCst) == 0, "somebody looks up names before there is a way");
    let found = a.run("getent ahostsv4 name.example")?;
    ensure!(found.contains("192.0.2.53"), "{found}");
    ensure!(asked.load(Ordering::SeqCst) > 0, "it was not asked");
    Ok(())
}

fn an_agent_waits_for_its_address(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let a = reboot_guarded(lab, &a)?;
    let _agent = start_agent(&a)?;
    let waiting = status_until(&a, "the agent runs", Duration::from_secs(10), |status| {
        status.agent().is_ok() && status.peers().iter().all(|row| row["state"] == "blocked")
    })?;
    ensure!(waiting.at("/node") == "a", "{:#}", waiting.0);
    a.network_up()?;
    await_protected(&a)?;
    await_protected(&b)?;
    ensure!(status(&a)?.agent()? == waiting.agent().context("it ran")?, "it is the same agent");
    ensure_pings(&a, &b, 3)
}

fn the_service_manager_hears_of_an_agent(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts();
    Cluster::of(hosts).install_all(hosts)?;
    let a = &hosts[0];
    let ear = a.within(|| UnixDatagram::bind("/run/notify"))??;
    ear.set_read_timeout(Some(Duration::from_secs(10)))?;
    let hear = || -> Result<String> {
        let mut buffer = [0; 256];
        let length = ear.recv(&mut buffer).context("the agent is silent")?;
        Ok(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
    };
    let mut command = Command::new(HOSTSEAL);
    command.arg("agent").env("NOTIFY_SOCKET", "/run/notify").env("WATCHDOG_USEC", "400000");
    let mut agent = a.spawn(&mut command)?;
    ensure!(hear()? == "READY=1");
    ensure!(hear()? == "WATCHDOG=1");
    let began = Instant::now();
    for _ in 0..3 {
        ensure!(hear()? == "WATCHDOG=1");
    }
    let gap = began.elapsed() / 3;
    ensure!(gap > Duration::from_millis(100) && gap < Duration::from_millis(400), "every {gap:?}");
    agent.signal(Signal::SIGTERM)?;
    while hear()? != "STOPPING=1" {}
    ensure!(agent.wait(Duration::from_secs(5))?.success());
    Ok(())
}
