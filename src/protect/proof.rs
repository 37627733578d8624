//! Proving that ESP gets through a child: probes out, reports of them back.
//!
//! A proof goes in rounds, and both ends are in the same one: whoever begins a round says so, and the other
//! follows. In each, each end proves its own direction: it probes until the other says that a probe of this
//! round has come. A new child begins with round 0; a later one is begun when traffic looks as if it did not
//! arrive.
//!
//! When all probes of a round were sent and the other has not said that one came, the next round is begun.
//! That is the question: an answer of that round which still knows of no probe is proof that none arrived,
//! however slow or lossy the exchange of reports is.
//! ```text
//! a  --- probe, 12 times --->        lost
//! a  --- report: round 1 ----->  b
//! a  <-- report: round 1, no probe of round 0 ---  b     a: blocked
//! a  --- report: unheard ----->  b                       b: blocked
//! a  --- probe, each 10 s -->  b
//! a  <-- report: probe of round 1 ---------------  b     a: through
//! ```
//! A probe says how far its sender knows the passage, ahead of the report. So the other end answers the first one with
//! its own probe, and each further one, as where reports are late, with another.
//!
//! Until the question is answered nothing is said of the path, however long that takes. Probes and reports wait in an
//! end that is busy; what came first is read first, so the answer knows of the probes before it.
//!
//! An old agent does not know rounds: with it there is round 0 alone, and patience instead of the question.

use std::time::{Duration, Instant};

use super::clock::Clock;
use super::report::{Flags, Passage, Rounds};
use super::timing::{PROBE_BLOCKED, PROBE_EVERY, PROBES_PATIENT};

/// How far the proof of a child has come.
#[derive(Debug, Default)]
pub(super) struct PathProof {
    /// The round that this end is in.
    round: u16,
    /// The newest round in which a probe came.
    came: Option<u16>,
    /// What the peer says of its rounds; `None` as long as it says nothing of them.
    peer: Option<Rounds>,
    /// The peer says that a probe has come through, once: by a report, or by its own probe.
    reached: bool,
    /// The peer has said so by a report.
    told: bool,
    /// The newest round in which all probes were sent and the peer told of none.
    tried: Option<u16>,
    /// Probes sent in this round.
    probes: u32,
    /// When the first probe of all left.
    left: Option<Instant>,
    next_probe: Option<Instant>,
    /// When the first probe of all came to this host.
    first_came: Option<Instant>,
    /// From the first probe to the peer's report that one has come through, without the time for which either
    /// waited, to be sent, read or answered: a round trip, or more.
    round_trip: Option<Duration>,
}

impl PathProof {
    /// A probe of the peer came, which says how far it knows the `passage`, and `waited` to be read.
    pub(super) fn note_probe(&mut self, now: Instant, passage: Passage, waited: Duration) {
        self.reached |= passage != Passage::Unsaid;
        self.first_came = self.first_came.or(now.checked_sub(waited));
        self.came = Some(self.round);
    }

    /// What the peer said last, which `waited` to be read.
    pub(super) fn hear(&mut self, now: Instant, flags: &Flags, waited: Duration) {
        if flags.seen && !self.told {
            let came = flags.rounds.and_then(|rounds| rounds.came).unwrap_or(now);
            let took = |left: Instant| came.saturating_duration_since(left).saturating_sub(waited);
            self.round_trip = self.left.map(took);
        }
        self.told |= flags.seen;
        self.reached |= flags.seen;
        if self.peer.is_none() && self.probes >= PROBES_PATIENT {
            // All were sent before the first report came: the question need not wait any more.
            self.next_probe = None;
        }
        self.peer = flags.rounds.or(self.peer);
        if let Some(peer) = self.peer
            && peer.round > self.round
        {
            self.enter(peer.round);
        }
    }

    /// Whether a probe of the peer has come, once.
    pub(super) fn has_come(&self) -> bool {
        self.came.is_some()
    }

    /// Whether a probe of ours has come through to the peer, once.
    pub(super) fn has_reached(&self) -> bool {
        self.reached
    }

    /// How long a packet takes to the peer and back, at most.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// What a probe tells the peer, where it heeds that.
    pub(super) fn passage(&self) -> Passage {
        match (self.has_come(), self.reached) {
            (false, _) => Passage::Unsaid,
            (true, false) => Passage::In,
            (true, true) => Passage::Both,
        }
    }

    /// What the peer is told.
    pub(super) fn rounds(&self) -> Rounds {
        Rounds { round: self.round, passed: self.came.unwrap_or_default(), came: self.first_came }
    }

    /// Begins a round, where one can be: the peer must know of rounds, and the one before must have succeeded
    /// both ways.
    pub(super) fn begin(&mut self) -> bool {
        let next = self.round.checked_add(1).filter(|_| self.is_over());
        if let Some(round) = next {
            self.enter(round);
        }
        next.is_some()
    }

    /// Whether this round has succeeded both ways, with a peer that knows of rounds.
    pub(super) fn is_over(&self) -> bool {
        self.peer.is_some() && !self.is_wanting() && self.came == Some(self.round)
    }

    /// Whether it is proven that our probes do not arrive.
    pub(super) fn is_unheard(&self) -> bool {
        let Some((peer, tried)) = self.peer.zip(self.tried) else { return false };
        peer.round > tried && !self.has_passed(tried)
    }

    /// Whether probes were sent for long and nothing was heard of them: no proof, as reports may be late, but all that
    /// there is with a peer that knows no rounds.
    pub(super) fn has_waited_long(&self) -> bool {
        self.probes >= PROBES_PATIENT && self.is_wanting()
    }

    /// Whether a probe is to be sent now.
    pub(super) fn probe(&mut self, clock: &mut Clock) -> bool {
        if !self.is_wanting() || !self.next_probe.is_none_or(|at| clock.due(at)) {
            return false;
        }
        let patient = self.probes < PROBES_PATIENT && !self.is_unheard();
        if !patient && self.ask() {
            return false;
        }
        self.probes = self.probes.saturating_add(1);
        let next = clock.now + if patient { PROBE_EVERY } else { PROBE_BLOCKED };
        self.next_probe = Some(next);
        clock.due(next);
        // With a peer that knows no rounds, the end that is through counts on, to know how long it has waited
        // for the other.
        self.peer.is_some() || !self.reached
    }

    /// A probe has left.
    pub(super) fn note_sent(&mut self, now: Instant) {
        self.left.get_or_insert(now);
    }

    /// The last probe has not left, as there was no room for it: it does not count.
    pub(super) fn note_unsent(&mut self) {
        self.probes = self.probes.saturating_sub(1);
    }

    /// All probes of this round are sent: the next one begins with the question, unless the answer is known.
    fn ask(&mut self) -> bool {
        let ask = self.peer.is_some() && !self.is_unheard();
        let next = self.round.checked_add(1).filter(|_| ask);
        if let Some(round) = next {
            self.tried = Some(self.round);
            self.enter(round);
        }
        next.is_some()
    }

    fn enter(&mut self, round: u16) {
        self.round = round;
        self.probes = 0;
        self.next_probe = None;
    }

    /// Whether probes of this round are still to be sent. The peer must have entered the round, or it would
    /// count them to the one before.
    fn is_wanting(&self) -> bool {
        match self.peer {
            Some(peer) => peer.round >= self.round && !self.has_passed(self.round),
            None => !(self.reached && self.has_come()),
        }
    }

    /// Whether the peer says that a probe of `round`, or of a later one, has come.
    fn has_passed(&self, round: u16) -> bool {
        self.reached && self.peer.is_some_and(|peer| peer.passed >= round)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_no_part_of_a_round_trip() {
        let (start, milliseconds) = (Instant::now(), Duration::from_millis);
        let heard = start + milliseconds(300);
        let seen = |there| {
            let rounds = Rounds { came: heard.checked_sub(there), ..Rounds::default() };
            Flags { installed: true, seen: true, rounds: Some(rounds), ..Flags::default() }
        };
        let measured = |there, here| {
            let mut proof = PathProof::default();
            assert!(proof.probe(&mut Clock::new(start - milliseconds(500))));
            proof.note_sent(start);
            proof.note_sent(start + milliseconds(250));
            proof.hear(heard, &seen(there), here);
            proof.round_trip()
        };
        assert_eq!(measured(Duration::ZERO, Duration::ZERO), Some(milliseconds(300)));
        assert_eq!(measured(milliseconds(80), milliseconds(200)), Some(milliseconds(20)));
        assert_eq!(measured(milliseconds(400), Duration::ZERO), Some(Duration::ZERO), "whatever a peer says");
        assert_eq!(
            measured(Duration::MAX, Duration::ZERO),
            Some(milliseconds(300)),
            "what it cannot have seen"
        );
        let mut proof = PathProof::default();
        proof.note_probe(start + milliseconds(7), Passage::Unsaid, milliseconds(5));
        proof.note_probe(start + milliseconds(9), Passage::Unsaid, milliseconds(1));
        assert_eq!(proof.rounds().came, Some(start + milliseconds(2)), "the first probe");
    }

    /// Want of room on this host says nothing of a path.
    #[test]
    fn what_does_not_leave_is_no_try() {
        let mut now = Instant::now();
        let mut proof = PathProof { peer: Some(Rounds::default()), ..PathProof::default() };
        for _ in 0..10 * PROBES_PATIENT {
            assert!(proof.probe(&mut Clock::new(now)));
            proof.note_unsent();
            now += PROBE_EVERY;
        }
        assert_eq!((proof.round, proof.has_waited_long()), (0, false));
        for _ in 0..PROBES_PATIENT {
            assert!(proof.probe(&mut Clock::new(now)));
            now += PROBE_EVERY;
        }
        assert!(!proof.probe(&mut Clock::new(now)));
        assert_eq!(proof.round, 1, "the question");
    }
}
