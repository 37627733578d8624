//! Somebody floods a host with first requests of IKE from many addresses that are not its own, and a peer begins
//! in the middle of it.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::lab::agent::{hostseal, status, status_until};
use crate::lab::{Cluster, Host, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[Test::new("flood::a_peer_gets_through", 3, a_peer_gets_through)];

/// An IKE_SA_INIT request that every host answers.
const REQUEST: &[u8] = include_bytes!("../../../fuzz/seeds/ike/init");
/// Requests of the flood before the peer begins; it goes on until that is protected.
const REQUESTS: u32 = 50_000;
/// How many of them are sent at a time.
const BURST: u32 = 100;
/// The next ones follow when the victim's socket holds no more octets than that. So it always has more to do than it can,
/// however slow the machine is, and what is lost is what it chooses to drop.
const QUEUE: u64 = 256 * 1024;
/// How often that is looked at.
const PAUSE: Duration = Duration::from_millis(1);
/// The members whose addresses are forged, besides the peer.
const FORGED: u8 = 20;

fn forged(at: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 1, at)
}

/// Sends the flood from `from` to `victim` under the addresses of its members, and counts what was sent.
fn flood(from: &Host, peer: &Host, victim: &Host, sent: &AtomicU32, over: &AtomicBool) -> Result<()> {
    // Nobody is to take this host for those: it answers for no address but its own, and asks as nobody else.
    from.run("sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")?;
    let addresses: Vec<Ipv4Addr> = (1..=FORGED).map(forged).chain([peer.v4()]).collect();
    for address in &addresses {
        from.run(&format!("ip address add {address}/32 dev lo"))?;
    }
    let table = PathBuf::from(format!("/proc/{}/net/udp", status(victim)?.agent()?));
    from.within(|| -> Result<()> {
        let sockets = addresses.iter().map(|address| UdpSocket::bind((*address, 500)));
        let sockets = sockets.collect::<Result<Vec<_>, _>>().context("a forged address")?;
        let mut request = REQUEST.to_vec();
        for (count, socket) in (0..u32::MAX).zip(sockets.iter().cycle()) {
            if over.load(Ordering::Relaxed) {
                break;
            }
            request[..4].copy_from_slice(&(count + 1).to_be_bytes());
            // A full queue on the way is a lost packet, as anywhere.
            let _ = socket.send_to(&request, (victim.v4(), 500));
            sent.fetch_add(1, Ordering::Relaxed);
            while count % BURST == 0 && queued(&table)? > QUEUE && !over.load(Ordering::Relaxed) {
                sleep(PAUSE);
            }
        }
        Ok(())
    })?
}

/// Octets that wait in the victim's IKE socket; `table` is its `/proc/net/udp`.
fn queued(table: &Path) -> Result<u64> {
    let sockets = fs::read_to_string(table).context("the victim's sockets")?;
    let ike = sockets.lines().map(str::split_whitespace).map(Vec::from_iter);
    let ike = ike.filter(|columns| columns.get(1).is_some_and(|local| local.ends_with(":01F4")));
    let waiting = ike.filter_map(|columns| columns.get(4)?.split_once(':')).map(|(_, receive)| receive);
    Ok(waiting.map(|octets| u64::from_str_radix(octets, 16)).sum::<Result<u64, _>>()?)
}

fn a_peer_gets_through(lab: &mut Lab) -> Result<()> {
    let [peer, victim, flooder] = lab.all();
    let members = [
        (&peer, vec![peer.v4().to_string()]),
        (&victim, vec![victim.v4().to_string()]),
        (&flooder, (1..=FORGED).map(|at| forged(at).to_string()).collect()),
    ];
    Cluster::new(members).install_all(&[peer.clone(), victim.clone()])?;
    hostseal(&victim, "enable --no-wait")?.expect_code(0)?;
    let (sent, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let (took, by_then) = scope(|threads| -> Result<_> {
        let flood = threads.spawn(|| flood(&flooder, &peer, &victim, &sent, &over));
        let outcome = connect(&peer, &victim, &sent);
        over.store(true, Ordering::Relaxed);
        flood.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        outcome
    })?;
    println!("protected after {took:?}, with {by_then} requests of others");
    Ok(())
}

/// Enables `peer` once the flood is there; returns how long it took to be protected, and how large the flood was then.
fn connect(peer: &Host, victim: &Host, sent: &AtomicU32) -> Result<(Duration, u32)> {
    until("the flood is there", Duration::from_secs(90), || {
        ensure!(sent.load(Ordering::Relaxed) > REQUESTS);
        Ok::<_, anyhow::Error>(())
    })?;
    let begun = Instant::now();
    hostseal(peer, "enable --no-wait")?.expect_code(0)?;
    status_until(peer, "protected in the flood", Duration::from_secs(20), |status| {
        status.peer(victim.v4().into()).is_ok_and(|row| row.at("/state") == "protected")
    })?;
    Ok((begun.elapsed(), sent.load(Ordering::Relaxed)))
}
