//! Somebody on the path without any credential drops what a member says, answers in its place with its own key
//! exchanges, and sends ESP by what they make.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hostseal::agent::SystemEntropy;
use hostseal::identity::Secret;
use hostseal::ike::{Engine, Posture, Settings};
use hostseal::types::{EncapsulationMode, Inside, Method, Pair, Proposals};

use super::keys::key;
use super::{await_protected, await_sealed};
use crate::lab::agent::{CONFIG, SECRETS, hostseal, hostseal_all, kill_agent, status};
use crate::lab::{Cluster, Host, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("imposter::sends_nothing_into_a_pair_with_a_secret", 3, |lab| sends_nothing(lab, false)),
    Test::new("imposter::sends_nothing_into_a_pair_with_keys", 3, |lab| sends_nothing(lab, true)),
];

/// Where the victim listens.
const PORT: u16 = 7777;
/// Numbers of exchanges, as they stand in the header.
const IKE_SA_INIT: u8 = 34;
const IKE_AUTH: u8 = 35;
/// Types of payloads: Notify and Vendor ID.
const NOTIFY: u8 = 41;
const VENDOR_ID: u8 = 43;
/// What an answer says of signatures instead of who it is of: SIGNATURE_HASH_ALGORITHMS, all that are known.
const HASHES: [u8; 12] = [0, 0, 0x40, 0x2f, 0, 2, 0, 3, 0, 4, 0, 5];

/// An engine that knows no secret of anybody.
fn engine() -> Engine {
    let settings = Settings {
        credentials: Arc::default(),
        secret: Some(Arc::new(Secret::new([66; 32]))),
        previous: None,
        cluster: "nobody's".to_owned(),
        inside: Inside::default(),
        method: Method::Ike,
        accept: vec![Method::Ike],
        port: 500,
        nat_port: 4500,
        encapsulation: EncapsulationMode::Never,
        ike_proposals: Proposals::default(),
        esp_proposals: Proposals::default(),
        rekey_after: Duration::from_secs(3600),
        initial_contact: false,
        jitter: Duration::ZERO,
        about: Arc::default(),
        first: |token, _| token.to_vec(),
        control: None,
    };
    Engine::new(settings, Box::new(SystemEntropy))
}

/// An answer to IKE_SA_INIT without our Vendor ID, so that it is of no hostseal; it knows signatures instead.
fn disguised(bytes: &[u8]) -> Vec<u8> {
    let (mut next, mut rest) = (bytes[16], &bytes[28..]);
    let mut payloads = Vec::new();
    while next != 0 && rest.len() >= 4 {
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let (payload, behind) = rest.split_at(length.clamp(4, rest.len()));
        match next {
            VENDOR_ID => payloads.push((NOTIFY, HASHES.to_vec())),
            kind => payloads.push((kind, payload[4..].to_vec())),
        }
        (next, rest) = (payload[0], behind);
    }
    let mut answer = bytes[..28].to_vec();
    answer[16] = payloads.first().map_or(0, |(kind, _)| *kind);
    let following = payloads.iter().skip(1).map(|(kind, _)| *kind).chain([0]);
    for ((_, data), next) in payloads.iter().zip(following) {
        answer.extend([next, 0]);
        answer.extend((data.len() as u16 + 4).to_be_bytes());
        answer.extend(data);
    }
    let length = (answer.len() as u32).to_be_bytes();
    answer[24..28].copy_from_slice(&length);
    answer
}

/// Answers on `host` in the name of `instead_of`, until it is `over`; counts messages of IKE_AUTH, which it does not
/// answer: nobody is told that it could not.
fn answer(host: &Host, instead_of: &Host, victim: &Host, asked: &AtomicU32, over: &AtomicBool) -> Result<()> {
    let (local, remote) = (instead_of.v4().into(), victim.v4().into());
    let mut engine = engine();
    engine.keep(Instant::now(), Pair { local, remote }, Posture::Passive);
    host.within(|| -> Result<()> {
        let socket = UdpSocket::bind((local, 500)).context("the member's address")?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut bytes = [0; 4096];
        while !over.load(Ordering::Relaxed) {
            // Nothing came in time, or nobody takes what was sent last.
            let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
            if length < 28 || bytes[18] == IKE_AUTH {
                asked.fetch_add(u32::from(length >= 28), Ordering::Relaxed);
                continue;
            }
            engine.handle_datagram(Instant::now(), SocketAddr::new(local, 500), from, &bytes[..length]);
            while engine.poll_event().is_some() {}
            while let Some(answer) = engine.poll_transmit() {
                let is_first = answer.bytes[18] == IKE_SA_INIT;
                let bytes = if is_first { disguised(&answer.bytes) } else { answer.bytes };
                let _ = socket.send_to(&bytes, from);
            }
        }
        Ok(())
    })?
}

/// The SAs of a host that its peer sends by, with their keys: whoever did the key exchange knows them.
fn inbound(victim: &Host, peer: &Host) -> Result<Vec<(String, String)>> {
    let states =
        victim.run(&format!("ip xfrm state list src {} dst {} proto esp", peer.v4(), victim.v4()))?;
    let words: Vec<&str> = states.split_whitespace().collect();
    let after = |word: &'static str, by: usize| {
        words.windows(by + 1).filter(move |words| words[0] == word).map(move |words| words[by].to_owned())
    };
    Ok(after("spi", 1).zip(after("aead", 2)).collect())
}

/// Sends datagrams by an SA of the victim's.
fn inject(host: &Host, peer: &Host, victim: &Host, (spi, key): &(String, String)) -> Result<()> {
    let (from, to) = (peer.v4(), victim.v4());
    host.run(&format!(
        "ip xfrm state add src {from} dst {to} proto esp spi {spi} reqid 7 mode transport replay-window 128 flag esn \
         aead 'rfc4106(gcm(aes))' {key} 128 && \
         ip xfrm policy add src {from} dst {to} proto 17 dport {PORT} dir out tmpl src {from} dst {to} proto esp reqid 7 \
         mode transport"
    ))?;
    host.within(|| -> Result<()> {
        let socket = UdpSocket::bind((from, 0))?;
        for _ in 0..10 {
            socket.send_to(b"from whom?", (to, PORT))?;
        }
        Ok(())
    })?
}

/// a and b, sealed, with a secret or with keys.
fn sealed(a: &Host, b: &Host, by_keys: bool) -> Result<()> {
    let hosts = [a.clone(), b.clone()];
    let mut cluster = Cluster::of_v4(&hosts);
    if by_keys {
        cluster = cluster.with("auth", "method = \"public_key\"");
        for host in &hosts {
            cluster = cluster.with_node(host, &key(host, "ed25519")?);
        }
    }
    for host in &hosts {
        if by_keys {
            host.write(CONFIG, &cluster.text(), 0o644)?;
        } else {
            cluster.install(host, SECRETS[0])?;
        }
    }
    for outcome in hostseal_all(&hosts, "enable --timeout 30s")? {
        outcome.expect_code(0)?;
    }
    hosts.iter().try_for_each(await_protected)?;
    hosts.iter().try_for_each(await_sealed)
}

fn sends_nothing(lab: &mut Lab, by_keys: bool) -> Result<()> {
    let [a, b, c] = lab.all();
    sealed(&a, &b, by_keys)?;
    let service = a.within(|| UdpSocket::bind((a.v4(), PORT)))??;
    service.set_nonblocking(true)?;
    let before = inbound(&a, &b)?;
    // What b says does not arrive, and what is for b arrives at c.
    lab.wire().plug(&b, false)?;
    c.run(&format!("ip address add {}/32 dev eth0", b.v4()))?;
    let mac = c.mac().map(|octet| format!("{octet:02x}")).join(":");
    a.run(&format!("ip neigh replace {} lladdr {mac} nud permanent dev eth0", b.v4()))?;
    let (asked, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let outcome = scope(|threads| -> Result<_> {
        let imposter = threads.spawn(|| answer(&c, &b, &a, &asked, &over));
        let outcome = attack([&a, &b, &c], &before, &asked);
        over.store(true, Ordering::Relaxed);
        imposter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        outcome
    });
    let heard = std::iter::from_fn(|| service.recv_from(&mut [0; 64]).ok()).count();
    println!(
        "{} messages of IKE_AUTH, {heard} datagrams heard by the service",
        asked.load(Ordering::Relaxed)
    );
    ensure!(heard == 0, "the service on a took {heard} datagrams of whoever sits in b's place");
    outcome?;
    // It was no more than an attempt.
    c.run(&format!("ip address del {}/32 dev eth0", b.v4()))?;
    a.run(&format!("ip neigh del {} dev eth0", b.v4()))?;
    lab.wire().plug(&b, true)?;
    until("a and b have new keys", Duration::from_secs(60), || {
        let now = inbound(&a, &b)?;
        ensure!(now.iter().any(|sa| !before.contains(sa)), "{now:?}");
        ensure!(status(&a)?.all_protected());
        Ok::<_, anyhow::Error>(())
    })
}

/// a asks b anew, and is answered by c, twice. What that has made is used at once.
fn attack([a, b, c]: [&Host; 3], before: &[(String, String)], asked: &AtomicU32) -> Result<()> {
    kill_agent(a)?;
    hostseal(a, "enable --no-wait")?.expect_code(0)?;
    for attempt in 1..=2 {
        let so_far = asked.load(Ordering::Relaxed);
        until("a has answered with IKE_AUTH", Duration::from_secs(30), || {
            ensure!(asked.load(Ordering::Relaxed) > so_far);
            Ok::<_, anyhow::Error>(())
        })?;
        let new: Vec<_> = inbound(a, b)?.into_iter().filter(|sa| !before.contains(sa)).collect();
        new.iter().try_for_each(|sa| inject(c, b, a, sa))?;
        ensure!(new.is_empty(), "attempt {attempt}: {} SAs of who has proven nothing", new.len());
    }
    Ok(())
}
