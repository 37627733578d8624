//! Who waits for this host to begin a proof: commands on it, and members of its cluster.
//!
//! Commands come first. Of the members, each has one proof at a time, and after it a rest; the one has the next turn that
//! was served the longest ago. So one that has proofs made all the time takes no more than half of it, and the others
//! wait for one of its proofs at most.

use std::collections::VecDeque;
use std::time::Instant;

use super::turns::{ProofPace, Turns};
use super::{ProofAsker, WAIT_PATIENCE};
use crate::host::ledger::Asker;
use crate::roster::EntryId;
use crate::types::Pair;

/// How many commands may wait.
const COMMANDS_MOST: usize = 16;

/// Those that wait.
#[derive(Default)]
pub(super) struct ProofQueue {
    commands: VecDeque<(Asker, Pair)>,
    /// One of each at most, so no more than there are members.
    members: VecDeque<MemberWaits>,
    turns: Turns<EntryId>,
}

/// A member that waits.
struct MemberWaits {
    line: EntryId,
    /// That of its question.
    number: u64,
    pair: Pair,
    /// It does not wait any longer.
    until: Instant,
}

impl ProofQueue {
    /// Somebody wants a pair proven. `false`: too many commands wait, or that member waits already.
    pub(super) fn push(&mut self, now: Instant, asker: ProofAsker, pair: Pair) -> bool {
        match asker {
            ProofAsker::Here(asker) => {
                let has_room = self.commands.len() < COMMANDS_MOST;
                self.commands.extend(has_room.then_some((asker, pair)));
                has_room
            }
            ProofAsker::Member { line, number } => {
                let has_room = self.members.iter().all(|other| other.line != line);
                let until = now + WAIT_PATIENCE;
                self.members.extend(has_room.then_some(MemberWaits { line, number, pair, until }));
                has_room
            }
        }
    }

    /// Whoever asked does not wait any more.
    pub(super) fn forget(&mut self, gone: Asker) {
        self.commands.retain(|(asker, _)| *asker != gone);
    }

    /// Takes the next one that may begin now.
    pub(super) fn take(&mut self, now: Instant, pace: &ProofPace) -> Option<(ProofAsker, Pair)> {
        if let Some((asker, pair)) = self.commands.pop_front() {
            return Some((ProofAsker::Here(asker), pair));
        }
        if pace.is_quiet(now) {
            return None;
        }
        let rested = |(_, waits): &(usize, &MemberWaits)| !self.turns.rests(now, &waits.line);
        let (next, _) = self
            .members
            .iter()
            .enumerate()
            .filter(rested)
            .min_by_key(|(_, waits)| self.turns.served(&waits.line))?;
        let MemberWaits { line, number, pair, .. } = self.members.remove(next)?;
        self.turns.begin(now, &line);
        Some((ProofAsker::Member { line, number }, pair))
    }

    /// Takes a member that has waited for too long: which one, and the number of its question.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<(EntryId, u64)> {
        let late = self.members.iter().position(|waits| waits.until <= now)?;
        self.members.remove(late).map(|waits| (waits.line, waits.number))
    }

    /// A member has had its proof, which `began` then.
    pub(super) fn end(&mut self, now: Instant, line: EntryId, began: Instant) {
        self.turns.end(now, &line, began);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.members.is_empty()
    }

    /// When a member has waited for too long.
    pub(super) fn late_at(&self) -> Option<Instant> {
        self.members.iter().map(|waits| waits.until).min()
    }

    /// When the next member may begin, where this host is free.
    pub(super) fn due(&self, pace: &ProofPace) -> Option<Instant> {
        let rests = |waits: &MemberWaits| self.turns.rest(&waits.line);
        self.members.iter().map(rests).min()?.max(pace.quiet())
    }
}
