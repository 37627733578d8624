//! What happens to a pair of hostseal and a stock peer, and what must hold after each of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use super::course::{Ends, Way};
use crate::lab::agent::{hostseal, status, status_until};
use crate::lab::stream::Shape;
use crate::lab::{Direction, Host, Implementation, Kind, Lab, Listed, Order, Stream, until};
use crate::scenarios::ensure_nothing_of_ours;
use crate::scenarios::reload::give;
use crate::scenarios::strongswan::Role;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// They meet.
    Connect,
    /// It replaces the SAs of the data.
    PeerRekeysChild,
    /// We replace them.
    WeRekeyChild,
    /// It replaces the IKE SA.
    PeerRekeysIke,
    /// We replace it.
    WeRekeyIke,
    /// The SAs of the data come again.
    PeerDeletesChild,
    /// They meet again.
    PeerDeletesIke,
    /// We are disabled and enabled.
    WeDelete,
    /// Its daemon is killed and its kernel forgets everything; later another one comes.
    PeerDies,
}

/// All of them in an order in which they can happen.
pub const EVENTS: [Event; 9] = [
    Event::Connect,
    Event::PeerRekeysChild,
    Event::WeRekeyChild,
    Event::PeerRekeysIke,
    Event::WeRekeyIke,
    Event::PeerDeletesChild,
    Event::PeerDeletesIke,
    Event::WeDelete,
    Event::PeerDies,
];

/// How long an event may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long it may take until a peer that does not answer counts as gone.
const SILENCE: Duration = Duration::from_secs(90);

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connect => "connect",
            Self::PeerRekeysChild => "child rekey by it",
            Self::WeRekeyChild => "child rekey by us",
            Self::PeerRekeysIke => "IKE rekey by it",
            Self::WeRekeyIke => "IKE rekey by us",
            Self::PeerDeletesChild => "child delete by it",
            Self::PeerDeletesIke => "IKE delete by it",
            Self::WeDelete => "disable, enable",
            Self::PeerDies => "killed",
        })
    }
}

impl Ends {
    /// Lets something happen, and checks what must hold after it. Returns how long it took.
    ///
    /// # Errors
    /// With what does not hold, and the peer's log.
    pub fn undergo(&mut self, lab: &Lab, event: Event) -> Result<Duration> {
        let started = Instant::now();
        self.happen(lab, event)
            .and_then(|()| self.ensure_sound(lab))
            .map(|()| started.elapsed())
            .map_err(|error| error.context(format!("{event}; the peer's log:\n{}", self.peer.log())))
    }

    fn happen(&mut self, lab: &Lab, event: Event) -> Result<()> {
        let name = self.connection.name.clone();
        match event {
            Event::Connect => self.connect(lab),
            Event::PeerRekeysChild => self.child_changes(|ends| ends.peer.order(Order::RekeyChild, &name)),
            Event::PeerDeletesChild => self.child_changes(|ends| ends.peer.order(Order::DeleteChild, &name)),
            Event::PeerDeletesIke => self.child_changes(|ends| ends.peer.order(Order::DeleteIke, &name)),
            Event::PeerRekeysIke => self.ike_changes(|ends| ends.peer.order(Order::RekeyIke, &name)),
            Event::WeRekeyChild => self.child_changes(|ends| {
                ends.cluster = ends.cluster.clone().with("esp", "replay_window = 2048");
                give(&ends.cluster, &ends.ours)
            }),
            Event::WeRekeyIke => self.ike_changes(|ends| {
                // What stands first is of another kind than the IKE SA that there is.
                let first = "aes128gcm16-prfsha512-x25519";
                let proposals = format!("proposals = {:?}", [first, ends.course.proposals]);
                ends.cluster = ends.cluster.clone().with("keying", &proposals);
                give(&ends.cluster, &ends.ours)
            }),
            Event::WeDelete => self.disable_and_enable(),
            Event::PeerDies => self.peer_dies(lab),
        }
    }

    /// Does something after which the pair has other SAs.
    fn child_changes(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let before = self.spis()?;
        act(self)?;
        until("other SAs", LIMIT, || {
            let now = self.spis()?;
            ensure!(now.iter().any(|spi| !before.contains(spi)), "they are as before");
            Ok::<_, anyhow::Error>(())
        })
    }

    /// Does something after which there is another IKE SA.
    fn ike_changes(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let before = self.peer.list()?.iter().map(|ike| ike.number).max();
        act(self)?;
        until("another IKE SA", LIMIT, || {
            let listed = self.peer.list()?;
            ensure!(listed.iter().map(|ike| ike.number).max() > before, "{listed:?}");
            Ok::<_, anyhow::Error>(())
        })
    }

    fn disable_and_enable(&self) -> Result<()> {
        hostseal(&self.ours, "disable")?.expect_code(0)?;
        ensure_nothing_of_ours(&self.ours)?;
        until("the peer has no IKE SA", LIMIT, || {
            let listed = self.peer.list()?;
            ensure!(!listed.iter().any(is_established), "{listed:?}");
            Ok::<_, anyhow::Error>(())
        })?;
        hostseal(&self.ours, "enable --timeout 30s")?.expect_code(0).map(drop)
    }

    /// Traffic without an answer is what has us look whether it is alive.
    fn peer_dies(&mut self, lab: &Lab) -> Result<()> {
        let (capture, died) = (lab.capture(&self.ours)?, SystemTime::now());
        self.peer.daemon().signal(Signal::SIGKILL)?;
        self.peer.daemon().wait(LIMIT)?;
        self.foreigner().run("ip xfrm state flush && ip xfrm policy flush")?;
        let shape = Shape { family: self.course.family(), rate: 10, ..Shape::default() };
        let traffic = Stream::start(&self.ours, self.foreigner(), shape)?;
        // The SAs stay: a peer whose daemon alone has died goes on with its own.
        status_until(&self.ours, "the problems say that nobody answers", SILENCE, |status| {
            status.at("/problems").to_string().contains("no answer from")
        })?;
        traffic.stop()?;
        let report = capture.stop()?.since(died).filter(|packet| packet.direction == Direction::Out);
        report.ensure_nothing_clear()?;
        let foreigner = self.foreigner().clone();
        self.peer = self.course.implementation.start(&foreigner)?;
        self.peer.load(std::slice::from_ref(&self.connection))?;
        if self.course.role == Role::Responder {
            self.peer.order(Order::Initiate, &self.connection.name)?;
        }
        status_until(&self.ours, "protected again", SILENCE, |status| status.all_protected()).map(drop)
    }

    /// The PPK is in the keys that is to be there, and in which exchange it came in.
    fn ensure_ppk(&self) -> Result<()> {
        let way = self.course.way;
        let wanted = if way.has_ppk() { "used" } else { "none" };
        status_until(&self.ours, "the PPK is in the keys, or none", LIMIT, |status| {
            status.at("/peers/0/ppk") == wanted
        })?;
        if self.course.implementation == Implementation::Libreswan {
            let early = self.peer.log().contains("PPK used in IKE_INTERMEDIATE");
            ensure!(early == (way.is_early() && way.has_ppk()), "the peer's log:\n{}", self.peer.log());
        }
        Ok(())
    }

    /// One pair of SAs is left, of one IKE SA; packets flow both ways as ESP alone; and both ends count them alike.
    fn ensure_sound(&self, lab: &Lab) -> Result<()> {
        status_until(&self.ours, "protected", LIMIT, |status| status.all_protected())?;
        self.ensure_ppk()?;
        let family = self.course.family();
        self.sites.await_one_pair(LIMIT)?;
        until("one IKE SA with one child is left", LIMIT, || {
            let listed = self.peer.list()?;
            let one = listed.len() == 1 && is_established(&listed[0]) && listed[0].children == ["INSTALLED"];
            ensure!(one, "{listed:?}");
            Ok::<_, anyhow::Error>(())
        })?;
        let capture = lab.capture(&self.ours)?;
        self.sites.ensure_pings()?;
        let report = capture.stop()?;
        report.ensure_nothing_clear()?;
        let (kind, other) = match self.course.way {
            Way::InUdp | Way::Nat => (Kind::UdpEsp, Kind::Esp),
            _ => (Kind::Esp, Kind::UdpEsp),
        };
        report.ensure_none(other)?;
        for direction in [Direction::In, Direction::Out] {
            let count = report.count_of(kind, family, direction);
            ensure!(count >= 6, "{count} packets of ESP {direction:?}: {report}");
        }
        // An end whose SAs were replaced keeps the old inbound one for some seconds more (strongSwan: five). We replace
        // those of a peer that we found behind a NAT as soon as we know which port it comes from.
        until("both ends count alike", LIMIT, || self.ensure_counts_agree())
    }

    /// The kernels of both ends, and what we say.
    fn ensure_counts_agree(&self) -> Result<()> {
        let [ours, theirs] = [counts(&self.ours)?, counts(self.foreigner())?];
        ensure!(ours == theirs, "{ours:?} here and {theirs:?} there");
        let status = status(&self.ours)?;
        let rows = status.peers().iter().filter_map(|row| row["sas"].as_array()).flatten();
        let number = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
        let said: BTreeMap<String, (u64, u64)> = rows
            .map(|sa| {
                let spi = sa["spi"].as_str().unwrap_or_default().to_owned();
                (spi, (number(&sa["bytes"]), number(&sa["packets"])))
            })
            .collect();
        ensure!(said == ours, "status says {said:?}, and the kernel {ours:?}");
        Ok(())
    }

    /// The SPIs between both hosts.
    fn spis(&self) -> Result<Vec<String>> {
        Ok(counts(&self.ours)?.into_keys().collect())
    }
}

fn is_established(listed: &Listed) -> bool {
    listed.state == "ESTABLISHED"
}

/// Bytes and packets of each SA of a host, by its SPI.
fn counts(host: &Host) -> Result<BTreeMap<String, (u64, u64)>> {
    let text = host.run("ip -s xfrm state list proto esp")?;
    let sas = text.split("\nsrc ").filter_map(|sa| {
        let spi = sa.split("spi ").nth(1)?.split('(').next()?.to_owned();
        // `lifetime current:` and below it `1234(bytes), 5(packets)`
        let current = sa.split("lifetime current:").nth(1)?.lines().nth(1)?;
        let mut numbers = current.split(", ").map(|part| part.trim().split('(').next()?.parse().ok());
        Some((spi, (numbers.next()??, numbers.next()??)))
    });
    Ok(sas.collect())
}
