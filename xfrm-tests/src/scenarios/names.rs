//! Nobody's packets pass for another member's: what comes out of an SA is its peer's.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Socket, Type};

use super::seal_all;
use crate::lab::agent::{hostseal, kill_agent, status_until};
use crate::lab::{Cluster, FAMILIES, Family, Host, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("names::esp_in_another_members_name_is_refused", 3, |lab| refused(lab, "never")),
    Test::new("names::esp_in_udp_in_another_members_name_is_refused", 3, |lab| refused(lab, "always")),
    Test::new("names::sas_of_an_older_agent_are_replaced", 3, |lab| older_sas_are_replaced(lab, "never")),
    Test::new("names::sas_in_udp_of_an_older_agent_are_replaced", 3, |lab| {
        older_sas_are_replaced(lab, "always")
    }),
];

/// A protocol for experiments (RFC 3692). Nothing in it covers the addresses, as in VXLAN's UDP without a checksum: what
/// covers them is refused further up at best.
const PROTOCOL: i32 = 253;
/// How many packets an attack sends.
const PACKETS: u64 = 20;

fn refused(lab: &mut Lab, encapsulation: &str) -> Result<()> {
    seal_in(lab, encapsulation)?;
    ensure_refused(lab)
}

fn seal_in(lab: &Lab, encapsulation: &str) -> Result<()> {
    let cluster = Cluster::of(lab.hosts()).with("esp", &format!("encapsulation = \"{encapsulation}\""));
    seal_all(&cluster, lab.hosts())
}

/// a is the victim, b attacks it in the name of c: without a key from the path, and as a member with its own keys.
fn ensure_refused(lab: &Lab) -> Result<()> {
    let [a, b, c] = lab.all();
    for family in FAMILIES {
        let service = Service::start(&a, family)?;
        service.hears(&b, b.address(family))?;
        let before = mismatches(&a)?;
        rename(lab, family)?;
        send(&b, b.address(family), a.address(family))?;
        service.has_refused(&a, before, c.address(family))?;
        lab.wire().pass_all(&b)?;
        service.hears(&b, b.address(family))?;
    }
    kill_agent(&b)?;
    b.run("ip xfrm policy flush")?;
    for family in FAMILIES {
        let service = Service::start(&a, family)?;
        let before = mismatches(&a)?;
        pass_for(&b, [&a, &c], family)?;
        send(&b, c.address(family), a.address(family))?;
        service.has_refused(&a, before, c.address(family))?;
    }
    Ok(())
}

/// Has what b sends to a pass for c's on its way.
fn rename(lab: &Lab, family: Family) -> Result<()> {
    let [a, b, c] = lab.all();
    lab.wire().rename(&b, [&a, &c].map(|host| host.address(family)), b.address(family))
}

/// SAs as an agent made them that knew nothing of selectors: they take what the new ones refuse, until the next agent
/// has replaced them, at once and under traffic.
fn older_sas_are_replaced(lab: &mut Lab, encapsulation: &str) -> Result<()> {
    let [a, b, c] = lab.all();
    seal_in(lab, encapsulation)?;
    kill_agent(&a)?;
    unbind_inbound(&a)?;
    for family in FAMILIES {
        // The attack as it was, to know that it would work.
        let service = Service::start(&a, family)?;
        rename(lab, family)?;
        send(&b, b.address(family), a.address(family))?;
        until("the service hears c", Duration::from_secs(5), || {
            let heard = service.heard(c.address(family));
            ensure!(heard > 0, "{heard} packets");
            Ok::<_, anyhow::Error>(())
        })?;
        lab.wire().pass_all(&b)?;
    }
    let shown = hostseal(&a, "status --json")?.json()?;
    ensure!(shown["problems"].to_string().contains("unbound_sa"), "{shown:#}");
    let traffic = super::Traffic::start(&a, &b, 250)?;
    hostseal(&a, "enable")?.expect_code(0)?;
    status_until(&a, "no earlier SA is left", Duration::from_secs(30), |status| {
        status.all_protected() && !status.at("/problems").to_string().contains("unbound_sa")
    })?;
    ensure!(hostseal(&a, "plan --exit-code")?.code == 0, "nothing is left to replace");
    traffic.ensure_complete()?;
    let states = a.run("ip xfrm state")?;
    ensure!(!states.contains("sel src 0.0.0.0/0") && !states.contains("sel src ::/0"), "{states}");
    ensure_refused(lab)
}

/// A service that notes whom it hears.
struct Service {
    heard: Arc<Mutex<BTreeMap<IpAddr, u64>>>,
    at: IpAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    fn start(host: &Host, family: Family) -> Result<Self> {
        let at = host.address(family);
        let socket = host.within(|| open(at))??;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (heard, over) = (Arc::new(Mutex::new(BTreeMap::new())), Arc::new(AtomicBool::new(false)));
        let (note, end) = (heard.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            let mut room = [MaybeUninit::uninit(); 128];
            while !end.load(Ordering::Relaxed) {
                let from = socket.recv_from(&mut room).ok().and_then(|(_, from)| from.as_socket());
                if let Some(from) = from {
                    *note.lock().unwrap_or_else(PoisonError::into_inner).entry(from.ip()).or_default() += 1;
                }
            }
        });
        Ok(Self { heard, at, over, thread: Some(thread) })
    }

    fn heard(&self, from: IpAddr) -> u64 {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(&from).copied().unwrap_or_default()
    }

    /// Checks that it hears a host in its own name.
    fn hears(&self, host: &Host, from: IpAddr) -> Result<()> {
        let before = self.heard(from);
        send(host, from, self.at)?;
        until("the service hears its sender", Duration::from_secs(5), || {
            let more = self.heard(from) - before;
            ensure!(more == PACKETS, "{more} of {PACKETS}");
            Ok::<_, anyhow::Error>(())
        })
    }

    /// Waits until the kernel has refused what was sent in the name of `other`, and checks that none came through.
    fn has_refused(&self, host: &Host, before: u64, other: IpAddr) -> Result<()> {
        until("the kernel refuses what is not its peer's", Duration::from_secs(10), || {
            let (refused, heard) = (mismatches(host)? - before, self.heard(other));
            ensure!(heard == 0, "{heard} packets came in the name of {other}");
            ensure!(refused >= PACKETS, "{refused} of {PACKETS} are refused");
            Ok(())
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn open(local: IpAddr) -> Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(SocketAddr::new(local, 0)), Type::RAW, Some(PROTOCOL.into()))?;
    socket.bind(&SocketAddr::new(local, 0).into())?;
    Ok(socket)
}

/// Sends [`PACKETS`] datagrams from an address of a host to the service of another.
fn send(host: &Host, from: IpAddr, to: IpAddr) -> Result<()> {
    host.within(|| -> Result<()> {
        let socket = open(from)?;
        for number in 0..PACKETS {
            socket.send_to(&number.to_be_bytes(), &SocketAddr::new(to, 0).into())?;
        }
        Ok(())
    })?
}

/// Packets that came out of an SA with addresses that are not the SA's.
fn mismatches(host: &Host) -> Result<u64> {
    let line = host.run("grep XfrmInStateMismatch /proc/net/xfrm_stat")?;
    line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).context("no such counter")
}

/// An SA with its key, as `ip` shows it.
struct Shown {
    source: IpAddr,
    destination: IpAddr,
    /// The words of `ip xfrm state add` after the addresses, without window, direction and selector.
    words: String,
    /// The words that name it in a template.
    name: String,
}

impl Shown {
    fn all(host: &Host) -> Result<Vec<Self>> {
        let shown = host.run("ip xfrm state list proto esp")?;
        shown.split("\nsrc ").map(|state| Self::read(state.trim_start_matches("src "))).collect()
    }

    fn read(state: &str) -> Result<Self> {
        let words: Vec<&str> = state.split_whitespace().collect();
        let after = |word: &str, skip: usize| {
            let at = words.iter().position(|found| *found == word);
            at.and_then(|at| words.get(at + skip)).with_context(|| format!("`{word}` in {state}"))
        };
        let name = format!("proto esp spi {} reqid {} mode transport", after("spi", 1)?, after("reqid", 1)?);
        let encapsulation = if words.contains(&"encap") { "encap espinudp 4500 4500 0.0.0.0" } else { "" };
        let (cipher, key) = (after("aead", 1)?, after("aead", 2)?);
        Ok(Self {
            source: words.first().context("a source")?.parse()?,
            destination: after("dst", 1)?.parse()?,
            words: format!("{name} flag esn aead '{cipher}' {key} 128 {encapsulation}"),
            name,
        })
    }
}

/// Has root on `b` send to `a` in the name of `c`, with the keys that b shares with a.
fn pass_for(b: &Host, [a, c]: [&Host; 2], family: Family) -> Result<()> {
    let [to, own, other] = [a, b, c].map(|host| host.address(family));
    let sas = Shown::all(b)?;
    let found = sas.iter().find(|sa| (sa.source, sa.destination) == (own, to)).context("b has an SA")?;
    let Shown { words, name, .. } = found;
    b.run(&format!(
        "ip address add {other} dev lo && ip xfrm state deleteall src {own} dst {to} && \
         ip xfrm state add src {other} dst {to} {words} replay-window 0 replay-oseq 100000 dir out && \
         ip xfrm policy add dir out src {other} dst {to} tmpl src {other} dst {to} {name}"
    ))?;
    Ok(())
}

/// Takes the selectors from the inbound SAs of a host, and makes the outbound ones anew after them: an agent makes them
/// in this order, and one that finds them in the other takes the inbound ones for those of a peer without proof.
fn unbind_inbound(host: &Host) -> Result<()> {
    let own = FAMILIES.map(|family| host.address(family));
    let (inbound, outbound): (Vec<Shown>, Vec<Shown>) =
        Shown::all(host)?.into_iter().partition(|sa| own.contains(&sa.destination));
    let inbound = inbound.iter().map(|sa| (sa, "replay-window 4096 dir in"));
    let outbound = outbound.iter().map(|sa| (sa, "replay-window 0 replay-oseq 100000 dir out"));
    for (Shown { source, destination, words, name }, rest) in inbound.chain(outbound) {
        let ends = format!("src {source} dst {destination}");
        let (id, _) = name.split_once(" reqid").context("a reqid")?;
        host.run(&format!("ip xfrm state delete {ends} {id} && ip xfrm state add {ends} {words} {rest}"))?;
    }
    Ok(())
}
