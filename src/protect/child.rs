//! One child of a pair: two SAs, what both ends have done for them, and their way out.

use std::time::{Duration, Instant};

use super::clock::Clock;
use super::timing::{IN_GRACE, OUT_GRACE, PROBE_BLOCKED, PROBE_EVERY, PROBES_PATIENT};
use crate::model::word::Flags;
use crate::model::{Direction, Limits, NewChild, Sa, SaId, Spi, Word};

/// Where the two SAs stand in this host's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Install {
    /// On their way.
    Pending,
    /// Both are there.
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
    /// Its IKE SA is gone without a word: the peer's kernel may well go on using it.
    Orphaned,
}

/// One child. The facts are recorded by the machine of its pair.
pub struct Child {
    /// The inbound SA.
    pub(super) incoming: Sa,
    /// The outbound SA.
    pub(super) outgoing: Sa,
    /// Whether this host initiated it.
    pub(super) initiator: bool,
    /// Whether the peer is not hostseal.
    pub(super) foreign: bool,
    /// What the peer's probes carry.
    pub(super) my_token: [u8; 16],
    /// What our probes carry, once the peer has told.
    their_token: Option<[u8; 16]>,
    /// What the peer has done.
    pub(super) peer: Flags,
    /// A probe of the peer came through `incoming`.
    pub(super) seen: bool,
    /// A foreign peer is known to have installed it.
    pub(super) foreign_ready: bool,
    /// What the peer was told last.
    said: Flags,
    install: Install,
    closed: Option<(Instant, Closing)>,
    /// The key exchange was asked to delete it.
    deleting: bool,
    /// The inbound SA is not wanted any more.
    in_gone: bool,
    /// The outbound SA is not wanted any more.
    out_gone: bool,
    probes: u32,
    /// When the first probe went out.
    probed: Option<Instant>,
    next_probe: Option<Instant>,
    /// From the first probe to the peer's word that one has come through: a round trip, or more.
    round_trip: Option<Duration>,
    /// The key exchange was told that it carries traffic both ways.
    pub(super) announced: bool,
}

impl Child {
    /// A child that was just agreed, and what the peer said of it in the same message.
    pub fn new(
        new: &NewChild,
        my_token: [u8; 16],
        word: Option<&Word>,
        replay_window: u32,
        limits: Limits,
    ) -> Self {
        let sa =
            |direction, spi| Sa { pair: new.pair, direction, spi, suite: new.suite, replay_window, limits };
        Self {
            incoming: sa(Direction::In, new.in_spi),
            outgoing: sa(Direction::Out, new.out_spi),
            initiator: new.initiator,
            foreign: new.foreign,
            my_token,
            their_token: word.map(|word| word.token),
            peer: word.map(|word| word.flags).unwrap_or_default(),
            seen: false,
            foreign_ready: false,
            said: Flags::default(),
            install: Install::Pending,
            closed: None,
            deleting: false,
            in_gone: false,
            out_gone: false,
            probes: 0,
            probed: None,
            next_probe: None,
            round_trip: None,
            announced: false,
        }
    }

    /// Our name of it.
    pub(super) fn in_spi(&self) -> Spi {
        self.incoming.spi
    }

    /// The peer's name of it.
    pub(super) fn out_spi(&self) -> Spi {
        self.outgoing.spi
    }

    pub(super) fn is_pending(&self) -> bool {
        self.install == Install::Pending
    }

    pub(super) fn was_refused(&self) -> bool {
        self.install == Install::Refused
    }

    /// The kernel answered.
    pub(super) fn installed(&mut self, ok: bool) {
        self.install = if ok { Install::Done } else { Install::Refused };
    }

    /// The peer's newest word about it.
    pub(super) fn hear(&mut self, now: Instant, word: &Word) {
        if word.flags.seen && !self.peer.seen {
            self.round_trip = self.probed.map(|probed| now - probed);
        }
        self.peer = word.flags;
        self.their_token = Some(word.token);
    }

    /// The key exchange forgot it. `deleted` tells whether one of the ends wanted that.
    pub(super) fn close(&mut self, now: Instant, by_peer: bool) {
        let closing = if by_peer || self.deleting { Closing::Deleted } else { Closing::Orphaned };
        self.closed.get_or_insert((now, closing));
    }

    /// Compares it with what the kernel holds. `true` when it turns out to be lost just now.
    pub(super) fn note_missing(&mut self, present: impl Fn(SaId) -> bool) -> bool {
        let missing = |gone: bool, sa: &Sa| !gone && !present(sa.id());
        let lost = self.install == Install::Done
            && (missing(self.in_gone, &self.incoming) || missing(self.out_gone, &self.outgoing));
        if lost {
            self.install = Install::Lost;
        }
        lost
    }

    /// Whether this host may send through it: invariant 2, "IN before OUT".
    pub(super) fn is_usable(&self) -> bool {
        let deleted = matches!(self.closed, Some((_, Closing::Deleted)));
        self.carries() && !self.deleting && !deleted && (self.peer.seen || self.foreign_ready)
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

    /// Whether a path to the peer has been tried for long enough without result.
    pub(super) fn is_blocked(&self) -> bool {
        self.probes >= PROBES_PATIENT && !(self.peer.seen && self.seen)
    }

    /// Whether both SAs have left, and the key exchange has forgotten it.
    pub(super) fn is_over(&self) -> bool {
        self.closed.is_some() && self.in_gone && self.out_gone
    }

    /// How long a packet takes to the peer and back, at most, if that could be measured.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Its SAs as the kernel should hold them: those to add, and those to keep.
    pub(super) fn desired(&self, fresh: &mut Vec<Sa>, keep: &mut impl Extend<SaId>) {
        match self.install {
            Install::Pending => fresh.extend([self.incoming, self.outgoing]),
            Install::Done | Install::Lost => {
                keep.extend((!self.in_gone).then(|| self.incoming.id()));
                keep.extend((!self.out_gone).then(|| self.outgoing.id()));
            }
            Install::Refused => {}
        }
    }

    /// What the peer should know, if it does not: `sending`, `open` and `trial` are the pair's.
    pub(super) fn news(&mut self, sending: bool, open: bool, trial: Option<Instant>) -> Option<Flags> {
        let installed = self.install == Install::Done;
        let flags = Flags { installed, seen: self.seen, sending, open, trial };
        let news = !self.foreign && self.closed.is_none() && flags != self.said;
        if news {
            self.said = flags;
        }
        news.then_some(flags)
    }

    /// The token to probe with, when a probe is due: ESP is proven before traffic moves. The end whose own
    /// probe has arrived already counts on, to know how long it has waited for the other's.
    pub(super) fn probe(&mut self, clock: &mut Clock) -> Option<[u8; 16]> {
        let token = self.their_token?;
        let unproven = !(self.peer.seen && self.seen);
        let wanted = self.carries() && self.peer.installed && unproven && self.closed.is_none();
        if !wanted || !self.next_probe.is_none_or(|at| clock.due(at)) {
            return None;
        }
        self.probes = self.probes.saturating_add(1);
        let pause = if self.probes < PROBES_PATIENT { PROBE_EVERY } else { PROBE_BLOCKED };
        let next = clock.now + pause;
        self.next_probe = Some(next);
        clock.due(next);
        self.probed.get_or_insert(clock.now);
        (!self.peer.seen).then_some(token)
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
