//! One child of a pair: a bundle of SAs each way, what both ends have done for them, and their way out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq as _;

use super::clock::Clock;
use super::pair::AdoptedSa;
use super::proof::PathProof;
use super::reason::BlockedWay;
use super::report::{Flags, Passage, Probe, Report};
use super::talk::Talk;
use super::timing::{IN_GRACE, OUT_GRACE};
use crate::types::{Bundle, Direction, Limits, NewChild, OpError, Reqid, Sa, SaId, Spi, Through, UdpPorts};

/// Where the SAs stand in this host's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Install {
    /// On their way.
    Pending,
    /// All are there.
    Done,
    /// The kernel did not take them.
    Refused,
    /// They were there and are not any more, without our doing.
    Lost,
}

/// How the key exchange came to forget a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// One of the ends deleted it: the peer does not use it any more.
    Deleted,
    /// Its IKE SA is gone silently: the peer's kernel may well go on using it.
    Orphaned,
}

/// One child. The machine of its pair tells it what happens.
pub struct Child {
    /// The inbound SAs.
    incoming: Bundle,
    /// The outbound SAs.
    outgoing: Bundle,
    /// Whether this host initiated it.
    initiator: bool,
    /// Whether the peer is not hostseal.
    foreign: bool,
    /// What both ends have told each other of it.
    talk: Talk,
    /// What our probes carry, once the peer has told.
    their_token: Option<[u8; 16]>,
    /// What the peer has done.
    peer: Flags,
    /// Whether ESP gets through, both ways.
    proof: PathProof,
    /// A probe is to be answered with one.
    answers: bool,
    /// A foreign peer is known to have installed it.
    foreign_ready: bool,
    install: Install,
    closed: Option<(Instant, Closing)>,
    /// Since when both ends have sent through another that takes its place.
    replaced: Option<Instant>,
    /// The key exchange is deleting it.
    deleting: bool,
    /// The inbound SA is not wanted any more.
    in_gone: bool,
    /// The outbound SA is not wanted any more.
    out_gone: bool,
    /// The key exchange was told that it carries traffic both ways.
    announced: bool,
    /// The key exchange was asked for a child whose ESP goes in UDP instead.
    evaded: bool,
}

impl Child {
    /// A child that was just agreed: what probes through its inbound SA must carry, and what the peer said of it in the
    /// same message.
    pub fn new(
        new: &NewChild,
        token: [u8; 16],
        report: Option<&Report>,
        replay_window: u32,
        limits: Limits,
    ) -> Self {
        let sa = |direction, spi| {
            let (pair, suite, encapsulation) = (new.pair, new.suite, new.encapsulation);
            let reqid = Reqid::COMMON;
            Sa { pair, direction, spi, reqid, suite, encapsulation, replay_window, limits }
        };
        let incoming = sa(Direction::In, new.in_spi);
        let answered_stranger = new.foreign && !new.initiator;
        let limits = if answered_stranger { limits.at_first_packet() } else { limits };
        let mut talk = Talk::new(token, new.initiator);
        let report = report.filter(|report| talk.hear(report));
        Self {
            incoming: Bundle::new(Sa { limits, ..incoming }),
            outgoing: Bundle::new(sa(Direction::Out, new.out_spi)),
            initiator: new.initiator,
            foreign: new.foreign,
            talk,
            their_token: report.map(|report| report.token),
            peer: report.map(|report| report.flags).unwrap_or_default(),
            proof: PathProof::default(),
            answers: false,
            foreign_ready: false,
            install: Install::Pending,
            closed: None,
            replaced: None,
            deleting: false,
            in_gone: false,
            out_gone: false,
            announced: false,
            evaded: false,
        }
    }

    /// The inbound SAs.
    pub(super) fn incoming(&self) -> &Bundle {
        &self.incoming
    }

    /// The outbound SAs.
    pub(super) fn outgoing(&self) -> &Bundle {
        &self.outgoing
    }

    /// Whether it has that SA.
    pub(super) fn owns(&self, id: SaId) -> bool {
        self.incoming.has(id) || self.outgoing.has(id)
    }

    /// Whether this host initiated it.
    pub(super) fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// Whether the peer is not hostseal.
    pub(super) fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// What the peer has done for it, as it said last.
    pub(super) fn peer(&self) -> &Flags {
        &self.peer
    }

    /// Whether a probe with this token is meant for it.
    pub(super) fn is_meant_by(&self, token: &[u8; 16]) -> bool {
        // Only the peer knows it: nobody learns from how long this takes how much of a guess was right.
        self.talk.token().ct_eq(token).into()
    }

    /// Our name of it.
    pub(super) fn in_spi(&self) -> Spi {
        self.incoming.lead().spi
    }

    /// How the outbound policy names it.
    pub(super) fn through(&self) -> Through {
        self.outgoing.through()
    }

    /// Whether the kernel reports the first packet of its inbound SA: a peer that sends no reports, and whose
    /// request this host answered, has shown with it that the child is there. The report precedes the check
    /// of the packet's integrity, so a forger can make this host send ESP a moment early, and nothing else.
    pub(super) fn reports_first_packet(&self) -> bool {
        self.foreign && !self.initiator
    }

    pub(super) fn is_pending(&self) -> bool {
        self.install == Install::Pending
    }

    pub(super) fn was_refused(&self) -> bool {
        self.install == Install::Refused
    }

    /// The kernel was given all SAs. Answers why it did not take them.
    pub(super) fn note_applied<'e>(&mut self, refused: &'e BTreeMap<SaId, OpError>) -> Option<&'e OpError> {
        let error = self.incoming.ids().chain(self.outgoing.ids()).find_map(|id| refused.get(&id));
        self.install = if error.is_none() { Install::Done } else { Install::Refused };
        error
    }

    /// The peer, which is foreign, is known to have installed it.
    pub(super) fn note_foreign_ready(&mut self) {
        self.foreign_ready = true;
    }

    /// Traffic flows through it both ways. Says whether the key exchange does not know that yet.
    pub(super) fn announce(&mut self) -> bool {
        !std::mem::replace(&mut self.announced, true)
    }

    /// A probe has left.
    pub(super) fn note_probe_sent(&mut self, now: Instant) {
        self.proof.note_sent(now);
    }

    /// A probe has not left, as there was no room for it.
    pub(super) fn note_probe_unsent(&mut self) {
        self.proof.note_unsent();
    }

    /// Whether it is proven both ways, once more where that was asked for.
    pub(super) fn is_proven(&self) -> bool {
        self.proof.is_over()
    }

    /// The peer's report about it, which `waited` to be read. `false` where a newer one was heard.
    #[must_use]
    pub(super) fn hear(&mut self, now: Instant, report: &Report, waited: Duration) -> bool {
        if !self.talk.hear(report) {
            return false;
        }
        if report.flags.sending && !self.peer.sending {
            self.take_up();
        }
        self.peer = report.flags;
        self.their_token = Some(report.token);
        self.proof.hear(now, &report.flags, waited);
        true
    }

    /// The peer begins anew, and does not go on with it.
    pub(super) fn forget_peer(&mut self) {
        self.peer = Flags::default();
        self.proof = PathProof::default();
    }

    /// The key exchange is deleting it by itself.
    pub(super) fn doom(&mut self) {
        self.deleting = true;
    }

    /// The key exchange forgot it. `void`: not because its IKE SA went silently.
    pub(super) fn close(&mut self, now: Instant, void: bool) {
        let closing = if void || self.deleting { Closing::Deleted } else { Closing::Orphaned };
        self.closed.get_or_insert((now, closing));
    }

    /// Compares it with what the kernel holds. `true` when it turns out to be lost just now.
    pub(super) fn note_missing(&mut self, present: impl Fn(SaId) -> bool) -> bool {
        let whole = |bundle: &Bundle| bundle.ids().all(&present);
        let (inbound, outbound) = (whole(&self.incoming), whole(&self.outgoing));
        let missing = !(self.in_gone || inbound) || !(self.out_gone || outbound);
        let lost = self.install == Install::Done && missing;
        if lost {
            self.install = Install::Lost;
            self.in_gone |= !inbound;
            self.out_gone |= !outbound;
        }
        lost
    }

    /// Whether neither of its SAs is there any more, without our doing.
    pub(super) fn is_lost(&self) -> bool {
        self.install == Install::Lost && self.in_gone && self.out_gone
    }

    /// Whether one of the ends has deleted it.
    pub(super) fn is_deleted(&self) -> bool {
        matches!(self.closed, Some((_, Closing::Deleted)))
    }

    /// Whether this host may send through it: invariant 2, "IN before OUT".
    pub(super) fn is_usable(&self) -> bool {
        self.carries()
            && !self.deleting
            && !self.is_deleted()
            && (self.proof.has_reached() || self.foreign_ready)
    }

    /// Both ends send through a child: `this` one, or another, which is newer than this one if it is `older`.
    pub(super) fn note_settled(&mut self, now: Instant, this: bool, older: bool) {
        if this {
            self.replaced = None;
        } else if older || !self.is_known() {
            self.replaced.get_or_insert(now);
        }
    }

    /// One of the ends sends through it again: whatever has taken its place has not done so for good.
    pub(super) fn take_up(&mut self) {
        self.replaced = None;
    }

    /// Since when both ends have sent through another that takes its place.
    pub(super) fn replaced(&self) -> Option<Instant> {
        self.replaced
    }

    /// Whether the key exchange still knows it.
    pub(super) fn is_known(&self) -> bool {
        self.closed.is_none()
    }

    /// Whether its outbound SA is in the kernel.
    pub(super) fn carries(&self) -> bool {
        self.install == Install::Done && !self.out_gone
    }

    /// Whether the peer sends through it.
    pub(super) fn peer_sends(&self) -> bool {
        self.peer.sending || self.foreign_ready
    }

    /// Whether the peer's kernel may still send through it: it said so, and did not delete it since.
    pub(super) fn peer_may_send(&self) -> bool {
        self.peer.sending && !self.is_deleted()
    }

    /// Whether it is proven that ESP does not get through it, one way or the other.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_known() && (self.proof.is_unheard() || self.peer.unheard)
    }

    /// Which way is blocked, as far as both ends know.
    pub(super) fn blocked_way(&self) -> BlockedWay {
        match (self.proof.is_unheard(), self.peer.unheard) {
            (true, true) => BlockedWay::Both,
            (true, false) => BlockedWay::Out,
            (false, true) => BlockedWay::In,
            (false, false) => BlockedWay::Unknown,
        }
    }

    /// Whether ESP has been tried for long enough without result to say that it is blocked, as long as nothing
    /// depends on it. A peer that heeds probes knows of rounds, and will answer the question: until then all that was
    /// sent may wait to be read, here or there.
    pub(super) fn seems_blocked(&self) -> bool {
        self.is_blocked() || (!self.peer.heeds && self.proof.has_waited_long())
    }

    /// The UDP ports that its ESP goes between, where it goes in UDP.
    pub(super) fn encapsulation(&self) -> Option<UdpPorts> {
        self.outgoing.lead().encapsulation
    }

    /// Whether its ESP goes in UDP.
    pub(super) fn is_encapsulated(&self) -> bool {
        self.encapsulation().is_some()
    }

    /// The key exchange is to be asked for another whose ESP goes in UDP, unless its own does already.
    /// Answers `true` once.
    pub(super) fn ask_encapsulation(&mut self) -> bool {
        !self.is_encapsulated() && !std::mem::replace(&mut self.evaded, true)
    }

    /// Whether all SAs have left, and the key exchange has forgotten it.
    pub(super) fn is_over(&self) -> bool {
        self.closed.is_some() && self.in_gone && self.out_gone
    }

    /// Its SAs that are in the kernel, for whoever goes on without it.
    pub(super) fn left_behind(&self) -> Vec<(SaId, AdoptedSa)> {
        let there = matches!(self.install, Install::Done | Install::Lost);
        let bundles = [(self.in_gone, &self.incoming), (self.out_gone, &self.outgoing)];
        let left = bundles.into_iter().filter(|(gone, _)| there && !gone);
        left.flat_map(|(_, bundle)| bundle.sas()).map(|sa| (sa.id(), AdoptedSa::of(sa))).collect()
    }

    /// How long a packet takes to the peer and back, at most, if that could be measured.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.proof.round_trip()
    }

    /// Its SAs as the kernel should hold them: those to add, and those to keep.
    pub(super) fn desired(&self, fresh: &mut Vec<Sa>, keep: &mut impl Extend<SaId>) {
        match self.install {
            Install::Pending => fresh.extend(self.incoming.sas().chain(self.outgoing.sas())),
            Install::Done | Install::Lost => {
                keep.extend(self.incoming.ids().filter(|_| !self.in_gone));
                keep.extend(self.outgoing.ids().filter(|_| !self.out_gone));
            }
            Install::Refused => {}
        }
    }

    /// Whether the peer was told last that this end sends through it.
    pub(super) fn is_said_to_send(&self) -> bool {
        self.talk.said().sending
    }

    /// The report for the peer and until when it waits, if it is news: `sending`, `open` and `trial` are the pair's.
    pub(super) fn news(
        &mut self,
        clock: &mut Clock,
        sending: bool,
        open: bool,
        trial: Option<Instant>,
    ) -> Option<(Report, Option<Instant>)> {
        if self.foreign || self.closed.is_some() {
            return None;
        }
        let flags = Flags {
            installed: self.install == Install::Done,
            seen: self.proof.has_come(),
            sending,
            open,
            unheard: self.proof.is_unheard(),
            heeds: true,
            trial,
            rounds: Some(self.proof.rounds()),
        };
        self.talk.news(clock, flags)
    }

    /// A probe of the peer came, and `waited` to be read: the peer has installed the child. One that comes again is
    /// answered: the answer to the first is lost, or is a report that is late.
    pub(super) fn meet_probe(&mut self, now: Instant, probe: &Probe, waited: Duration) {
        self.peer.installed = true;
        self.answers |= self.proof.has_come() && probe.passage != Passage::Both;
        self.proof.note_probe(now, probe.passage, waited);
    }

    /// A probe, when one is due, or is to be answered: ESP is proven before traffic moves, and again when traffic
    /// does not seem to arrive.
    pub(super) fn probe(&mut self, clock: &mut Clock) -> Option<Probe> {
        let token = self.their_token.filter(|_| self.can_probe())?;
        let answers = std::mem::take(&mut self.answers) && self.peer.heeds;
        let passage = if self.peer.heeds { self.proof.passage() } else { Passage::Unsaid };
        (self.proof.probe(clock) || answers).then_some(Probe { token, passage })
    }

    /// Its outbound SA, and what the peer wants to find in what proves it; `None` while it carries nothing.
    pub(super) fn way_to_peer(&self) -> Option<(Sa, [u8; 16])> {
        Some((*self.outgoing.lead(), self.their_token.filter(|_| self.carries() && self.is_known())?))
    }

    /// Begins to prove it once more; `false` where that is under way or cannot be.
    pub(super) fn prove_anew(&mut self) -> bool {
        self.can_probe() && self.proof.begin()
    }

    fn can_probe(&self) -> bool {
        self.carries() && self.peer.installed && self.is_known()
    }

    /// The way out of a child that the key exchange has forgotten. One that was merely orphaned serves
    /// until another has `replaced` it.
    pub(super) fn retire_closed(&mut self, clock: &mut Clock, replaced: Option<Instant>) {
        let from = match self.closed {
            Some((at, Closing::Deleted)) => Some(at),
            Some((at, Closing::Orphaned)) => replaced.map(|replaced| replaced.max(at)),
            None => None,
        };
        if let Some(from) = from {
            self.out_gone |= clock.due(from + OUT_GRACE);
            self.in_gone |= clock.due(from + IN_GRACE);
        }
    }

    /// The policy has moved to another child for good: the outbound SA goes.
    pub(super) fn retire_outbound(&mut self) {
        self.out_gone = true;
    }

    /// Whether the key exchange is still to be asked to delete it. Answers `true` once.
    pub(super) fn ask_deletion(&mut self) -> bool {
        let ask = !self.deleting && self.closed.is_none();
        self.deleting |= ask;
        ask
    }
}
