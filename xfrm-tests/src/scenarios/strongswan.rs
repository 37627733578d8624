//! Stock strongSwan with the same secret is a full member.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{await_one_pair, await_protected, await_sealed, ensure_pings, spis_sent};
use crate::lab::agent::{SECRETS, hostseal, kill_agent, status_until};
use crate::lab::{
    Capture, Cluster, Connection, Count, Direction, FAMILIES, Family, Host, Kind, Lab, Packet, Peer as _,
    Report, Swan, until,
};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("strongswan::answers", 3, |lab| full_member(lab, 2, false)),
    Test::new("strongswan::initiates", 3, |lab| full_member(lab, 0, true)),
    Test::new("strongswan::rekeys_and_deletes", 2, strongswan_rekeys_and_deletes),
    Test::new("strongswan::is_rekeyed_by_us", 2, strongswan_is_rekeyed_by_us),
    Test::new("strongswan::is_deleted_by_us_and_comes_again", 2, strongswan_is_deleted_by_us),
    Test::new("strongswan::restarts_while_the_pair_is_sealed", 2, restarts_while_the_pair_is_sealed),
    Test::new("strongswan::has_ordinary_sequence_numbers", 2, strongswan_has_ordinary_sequence_numbers),
    Test::new("strongswan::enabling_towards_it_costs_a_round_trip", 2, |lab| {
        enabling_costs(lab, Role::Initiator)
    }),
    Test::new("strongswan::enabling_by_it_costs_a_round_trip", 2, |lab| enabling_costs(lab, Role::Responder)),
];

/// Starts strongSwan on a host, with connections of that kind to all `others`.
fn start(host: &Host, others: &[&Host], kind: impl Fn(Connection) -> Connection) -> Result<Swan> {
    let swan = Swan::start(host, &[])?;
    let connection = |other: &Host, family| kind(Connection::between(host, other, family, SECRETS[0]));
    let connections: Vec<Connection> =
        others.iter().flat_map(|other| FAMILIES.map(|family| connection(other, family))).collect();
    swan.load(&connections)?;
    Ok(swan)
}

/// Three hosts, of which number `foreign` runs strongSwan.
fn full_member(lab: &mut Lab, foreign: usize, starts: bool) -> Result<()> {
    let cluster = Cluster::of(lab.hosts());
    let foreigner = lab.hosts()[foreign].clone();
    let ours: Vec<&Host> = lab.hosts().iter().filter(|host| host.number() != foreigner.number()).collect();
    for host in &ours {
        cluster.install(host, SECRETS[0])?;
        hostseal(host, "enable --no-wait")?.expect_code(0)?;
    }
    let _swan = start(&foreigner, &ours, |connection| connection.starts(starts))?;
    for host in &ours {
        status_until(host, "every pair is protected", Duration::from_secs(40), |status| {
            status.all_protected()
        })?;
    }
    let protected = SystemTime::now();
    let captures = lab.capture_all()?;
    for host in &ours {
        ensure_pings(host, &foreigner, 10)?;
        ensure_pings(&foreigner, host, 10)?;
    }
    ensure_pings(ours[0], ours[1], 3)?;
    super::ensure_only_esp(captures, protected)?;
    for host in &ours {
        for family in FAMILIES {
            await_one_pair(host, &foreigner, family, Duration::from_secs(30))?;
        }
    }
    Ok(())
}

/// What hostseal asks for first.
const ESN: &str = "aes256gcm16-esn";

/// A pair of hostseal on a and strongSwan on b, IPv4, up.
fn mixed_pair(lab: &Lab, keying: &str, esp_proposals: &str) -> Result<(Host, Host, Swan)> {
    let [a, b] = lab.all();
    let cluster = Cluster::of_v4(lab.hosts()).with("keying", keying);
    cluster.install(&a, SECRETS[0])?;
    let swan = start(&b, &[&a], |connection| connection.esp_proposals(esp_proposals))?;
    hostseal(&a, "enable")?.expect_code(0)?;
    ensure!(a.ping(&b, Family::V4, 5)? == 5);
    Ok((a, b, swan))
}

/// The one SPI that a sends to b with, by the kernel.
pub(super) fn outbound_spi(a: &Host, b: &Host) -> Result<String> {
    let states = a.run(&format!("ip xfrm state list src {} dst {} proto esp", a.v4(), b.v4()))?;
    let spi = states.split("spi ").nth(1).and_then(|rest| rest.split_whitespace().next());
    Ok(spi.unwrap_or_default().to_owned())
}

fn strongswan_rekeys_and_deletes(lab: &mut Lab) -> Result<()> {
    let (a, b, swan) = mixed_pair(lab, "rekey_after = \"1h\"", ESN)?;
    let capture = lab.capture(&a)?;
    let started = SystemTime::now();
    for command in ["--rekey --child a-v4", "--rekey --ike a-v4", "--rekey --child a-v4"] {
        let before = outbound_spi(&a, &b)?;
        swan.command(command)?;
        if command.contains("--child") {
            until("another SA", Duration::from_secs(10), || {
                let now = outbound_spi(&a, &b)?;
                ensure!(now != before, "{now}");
                Ok::<_, anyhow::Error>(())
            })?;
        }
        await_one_pair(&a, &b, Family::V4, Duration::from_secs(30))?;
        until("one IKE SA is left", Duration::from_secs(10), || {
            let listed = swan.list()?;
            ensure!(listed.len() == 1 && listed[0].state == "ESTABLISHED", "{listed:?}");
            ensure!(listed[0].children == ["INSTALLED"], "{listed:?}");
            Ok::<_, anyhow::Error>(())
        })?;
        ensure!(a.ping(&b, Family::V4, 5)? == 5, "after {command}");
    }
    for command in ["--terminate --child a-v4", "--terminate --ike a-v4"] {
        swan.command(command)?;
        status_until(&a, "protected again", Duration::from_secs(30), |status| status.all_protected())?;
        await_one_pair(&a, &b, Family::V4, Duration::from_secs(30))?;
        until("pings pass again", Duration::from_secs(5), || {
            let answered = a.ping(&b, Family::V4, 5)?;
            ensure!(answered == 5, "{answered} of 5");
            Ok::<_, anyhow::Error>(())
        })?;
    }
    let report = capture.stop()?.since(started);
    println!("{report}");
    // strongSwan itself takes its policies away when it deletes a child, so what it sends may be clear.
    report.filter(|packet| packet.direction == Direction::Out).ensure_nothing_clear()
}

fn strongswan_is_rekeyed_by_us(lab: &mut Lab) -> Result<()> {
    let (a, b, swan) = mixed_pair(lab, "rekey_after = \"8s\"", ESN)?;
    let capture = lab.capture(&a)?;
    let traffic = super::Traffic::of(&[(&a, &b), (&b, &a)], &[Family::V4], 200)?;
    std::thread::sleep(Duration::from_secs(30));
    let [ours, theirs] = two(traffic.stop()?)?;
    println!("to strongSwan {ours:?}\nfrom strongSwan {theirs:?}");
    ours.ensure_perfect()?;
    // strongSwan deletes its old SA with the answer, and its kernel refuses what holds the route to it.
    let on_the_way = theirs.lost - theirs.refused + theirs.duplicated + theirs.reordered;
    ensure!(on_the_way == 0 && theirs.refused <= 10, "{theirs:?}");
    let report = capture.stop()?;
    println!("{report}");
    report.ensure_nothing_clear()?;
    ensure!(spis_sent(&report, b.v4().into()).len() >= 3, "rekeys by us: {report}");
    ensure!(report.count(Kind::Ike) > 0);
    await_protected(&a)?;
    await_one_pair(&a, &b, Family::V4, Duration::from_secs(20))?;
    ensure!(swan.list()?.len() == 1, "{:?}", swan.list()?);
    Ok(())
}

/// Its host loses everything while the pair is sealed: keys are agreed anew, though no SA is there before their proof.
fn restarts_while_the_pair_is_sealed(lab: &mut Lab) -> Result<()> {
    let (a, b, swan) = mixed_pair(lab, "rekey_after = \"1h\"", ESN)?;
    await_sealed(&a)?;
    let before = outbound_spi(&a, &b)?;
    drop(swan);
    b.run("ip xfrm state flush && ip xfrm policy flush")?;
    let _swan = start(&b, &[&a], |connection| connection.esp_proposals(ESN))?;
    let capture = lab.capture(&a)?;
    // It would find out by itself after a while; the next agent asks at once.
    kill_agent(&a)?;
    hostseal(&a, "enable --no-wait")?.expect_code(0)?;
    until("other SAs, and pings through them", Duration::from_secs(30), || {
        let now = outbound_spi(&a, &b)?;
        ensure!(now != before, "{now}");
        ensure!(a.ping(&b, Family::V4, 5)? == 5);
        Ok::<_, anyhow::Error>(())
    })?;
    await_protected(&a)?;
    await_one_pair(&a, &b, Family::V4, Duration::from_secs(30))?;
    capture.stop()?.filter(|packet| packet.direction == Direction::Out).ensure_nothing_clear()
}

/// The counts of the two streams.
fn two(counts: Vec<Count>) -> Result<[Count; 2]> {
    counts.try_into().map_err(|counts| anyhow!("two streams: {counts:?}"))
}

fn strongswan_is_deleted_by_us(lab: &mut Lab) -> Result<()> {
    let (a, b, swan) = mixed_pair(lab, "rekey_after = \"1h\"", ESN)?;
    for _ in 0..2 {
        let before = outbound_spi(&a, &b)?;
        hostseal(&a, "disable")?.expect_code(0)?;
        super::ensure_nothing_of_ours(&a)?;
        until("strongSwan has no IKE SA", Duration::from_secs(5), || {
            let listed = swan.list()?;
            ensure!(listed.is_empty(), "{listed:?}");
            Ok::<_, anyhow::Error>(())
        })?;
        let capture = lab.capture(&a)?;
        ensure!(a.ping(&b, Family::V4, 5)? == 5, "in the clear");
        ensure!(capture.stop()?.count(Kind::Clear) >= 10);
        hostseal(&a, "enable")?.expect_code(0)?;
        await_one_pair(&a, &b, Family::V4, Duration::from_secs(10))?;
        ensure!(outbound_spi(&a, &b)? != before, "the SAs are new");
        ensure!(swan.list()?.len() == 1, "{:?}", swan.list()?);
        let capture = lab.capture(&a)?;
        ensure!(a.ping(&b, Family::V4, 5)? == 5);
        capture.stop()?.ensure_nothing_clear()?;
    }
    Ok(())
}

/// It refuses what IKE_AUTH offers, and gets its child with the next exchange.
fn strongswan_has_ordinary_sequence_numbers(lab: &mut Lab) -> Result<()> {
    let started = Instant::now();
    let (a, b, swan) = mixed_pair(lab, "rekey_after = \"1h\"", "aes256gcm16")?;
    println!("protected after {:?}", started.elapsed());
    await_one_pair(&a, &b, Family::V4, Duration::from_secs(10))?;
    let states = a.run("ip -d xfrm state")?;
    ensure!(!states.contains("flag esn"), "{states}");
    ensure!(swan.list()?.len() == 1, "{:?}", swan.list()?);
    swan.command("--rekey --child a-v4")?;
    await_one_pair(&a, &b, Family::V4, Duration::from_secs(30))?;
    ensure!(a.ping(&b, Family::V4, 5)? == 5);
    Ok(())
}

/// What hostseal is to strongSwan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It has the smaller address, and begins.
    Initiator,
    /// It answers.
    Responder,
}

/// How long the wire between the hosts of a [`Mixed`] takes, each way.
pub const DELAY: Duration = Duration::from_millis(10);

/// hostseal on one of the first two hosts and strongSwan on the other, with nothing between them yet.
pub struct Mixed {
    /// The host of hostseal.
    pub ours: Host,
    /// strongSwan, on the other host.
    pub swan: Swan,
    role: Role,
}

impl Mixed {
    /// `role` is ours.
    pub fn start(lab: &Lab, role: Role) -> Result<Self> {
        let hosts = &lab.hosts()[..2];
        let (ours, foreigner) = match role {
            Role::Initiator => (&hosts[0], &hosts[1]),
            Role::Responder => (&hosts[1], &hosts[0]),
        };
        for host in hosts {
            lab.wire().netem(host, &format!("delay {}ms", DELAY.as_millis()))?;
        }
        Cluster::of_v4(hosts).install(ours, SECRETS[0])?;
        // It asks again soon, as an agent that is being enabled does not answer yet.
        let swan = Swan::start(
            foreigner,
            &["retransmit_timeout = 0.3", "retransmit_base = 1", "retransmit_tries = 60"],
        )?;
        swan.load(&[Connection::between(foreigner, ours, Family::V4, SECRETS[0])])?;
        Ok(Self { ours: ours.clone(), swan, role })
    }

    /// Enables our end, after strongSwan has asked where it is the one to begin. `capture` is of our cable.
    pub fn enable(&self, capture: &Capture) -> Result<()> {
        let Self { ours, swan, role } = self;
        std::thread::scope(|scope| -> Result<()> {
            let initiated = (*role == Role::Responder)
                .then(|| scope.spawn(|| swan.command(&format!("--initiate --child {}-v4", ours.name()))));
            if initiated.is_some() {
                until("strongSwan asks", Duration::from_secs(10), || {
                    let asked = capture.so_far()?.count(Kind::Ike);
                    ensure!(asked > 0, "nothing asked");
                    Ok::<_, anyhow::Error>(())
                })?;
            }
            hostseal(ours, "enable")?.expect_code(0)?;
            match initiated {
                Some(thread) => {
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(drop)
                }
                None => Ok(()),
            }
        })
    }
}

/// Under 1,000 packets a second in each direction, over a wire that takes 10 ms each way.
///
/// Whoever has installed the SAs first drops what the other still sends in the clear: the packets of one
/// round trip, and of the time that we take to go over. The test is that we go over upon the very message
/// that says that strongSwan is ready, before we send it any other; `cargo lab transitions` tells the time.
fn enabling_costs(lab: &mut Lab, role: Role) -> Result<()> {
    let mixed = Mixed::start(lab, role)?;
    let (ours, foreigner) = (&mixed.ours, mixed.swan.host());
    let traffic = super::Traffic::of(&[(ours, foreigner), (foreigner, ours)], &[Family::V4], 1000)?;
    let capture = lab.capture(ours)?;
    mixed.enable(&capture)?;
    let protected = SystemTime::now();
    until("ESP flows both ways", Duration::from_secs(10), || {
        let report = capture.so_far()?;
        for direction in [Direction::In, Direction::Out] {
            let esp = report.count_of(Kind::Esp, Family::V4, direction);
            ensure!(esp > 300, "{direction:?}: {esp} ESP packets: {report}");
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let [to_it, from_it] = two(traffic.stop()?)?;
    println!("to strongSwan {to_it:?}\nfrom strongSwan {from_it:?}");
    let report = capture.stop()?;
    let first = report.packets.iter().find(|packet| packet.kind == Kind::Ike);
    let begun_by_us = first.is_some_and(|packet| packet.direction == Direction::Out);
    ensure!(begun_by_us == (role == Role::Initiator), "the wrong end began: {report}");
    // What was sent before is on the wire for 10 ms.
    report.since(protected + 4 * DELAY).ensure_nothing_clear()?;
    ensure!(from_it.lost == 0, "what strongSwan sends finds the inbound SA: {from_it:?}");
    ensure!(to_it.gaps <= 1, "what is lost is lost in one go: {to_it:?}");
    let said = said_between(&report, role)?;
    ensure!(said == 0, "{said} messages were sent before the first ESP packet: {report}");
    Ok(())
}

/// How many IKE messages we sent from the one on which we could know that strongSwan was ready, its answer
/// or its first ESP packet, to our own first ESP packet. The wire delays all that we send by the same time.
fn said_between(report: &Report, role: Role) -> Result<usize> {
    let tells = |packet: &Packet| match role {
        Role::Initiator => exchange(packet) == Some(IKE_AUTH),
        Role::Responder => packet.kind == Kind::Esp,
    };
    let from = |direction| move |packet: &&Packet| packet.direction == direction;
    let signal = report.packets.iter().position(|packet| tells(packet) && packet.direction == Direction::In);
    let after = &report.packets[signal.context("strongSwan never got ready")?..];
    let to_it = after.iter().filter(from(Direction::Out));
    Ok(to_it.take_while(|packet| packet.kind != Kind::Esp).filter(|packet| packet.kind == Kind::Ike).count())
}

/// The exchange that an IKE message belongs to (RFC 7296 section 3.1).
pub(super) fn exchange(packet: &Packet) -> Option<u8> {
    packet.ike_header()?.get(18).copied()
}

pub(super) const IKE_AUTH: u8 = 35;
