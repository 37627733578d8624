//! Which machine speaks for each member, and which others would like to.
//!
//! A copied disk has the keys of the machine that it is a copy of, and its name too (`/etc/machine-id`); another start
//! of it has another boot id. A machine that has rebooted looks the same. They are told apart by asking: who has rebooted
//! knows nothing of the control IKE SAs before, and does not answer on them. So a newcomer waits while the one that
//! speaks is asked whether it is there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::MemberMark;
use crate::ike::SessionKey;
use crate::roster::EntryId;
use crate::types::Pair;

/// How long the one that speaks has to answer: what is sent to it may get lost several times, and is sent again after a
/// second. The newcomer has more patience than that.
const ANSWERS_WITHIN: Duration = Duration::from_millis(4500);
/// How long it is said that two machines speak for a member, after one of them was refused: a copy that is there goes on
/// trying, with pauses of some minutes at most.
const DUPLICATE_SHOWN: Duration = Duration::from_secs(15 * 60);
/// So many wait for one member: a copy, and attempts that it has begun anew.
const WAITING_MAX: usize = 8;

/// One start of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MachineStart {
    machine: [u8; 16],
    boot: [u8; 16],
}

/// Whoever would like to speak for a member for which another one speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WaitingMachine {
    pub(super) session: SessionKey,
    pub(super) pair: Pair,
    pub(super) line: EntryId,
    pub(super) start: MachineStart,
    /// Since when the other one is asked whether it is there.
    since: Instant,
}

/// What becomes of a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MachineVerdict {
    Admit,
    Refuse,
}

/// The machines that speak for members, as they have said so.
#[derive(Debug, Default)]
pub(super) struct Machines {
    /// Those that can be talked to.
    speaking: BTreeMap<EntryId, MachineStart>,
    /// Those that were admitted last.
    admitted: BTreeMap<EntryId, MachineStart>,
    /// Those whose place these have taken, and when.
    former: BTreeMap<EntryId, (MachineStart, Instant)>,
    newcomers: Vec<WaitingMachine>,
    /// The members for which two machines have spoken, and when that was seen last.
    duplicates: BTreeMap<EntryId, Instant>,
}

impl From<MemberMark> for MachineStart {
    fn from(MemberMark { machine, boot, .. }: MemberMark) -> Self {
        Self { machine, boot }
    }
}

impl Machines {
    /// A proven peer says that it is this. `None`: it waits, and whoever speaks for the member is to be asked whether it is
    /// there.
    pub(super) fn meet(
        &mut self,
        now: Instant,
        (pair, line): (Pair, EntryId),
        session: SessionKey,
        start: MachineStart,
    ) -> Option<MachineVerdict> {
        // Nobody comes back so soon whose place another one has taken: both are there.
        let came_back =
            |(former, at): &(MachineStart, Instant)| *former == start && now < *at + DUPLICATE_SHOWN;
        if self.former.get(&line).is_some_and(came_back) {
            self.duplicates.insert(line, now);
        }
        if self.is_free_for(line, start) {
            return Some(MachineVerdict::Admit);
        }
        if self.newcomers.iter().filter(|it| it.line == line).count() >= WAITING_MAX {
            return Some(MachineVerdict::Refuse);
        }
        self.newcomers.push(WaitingMachine { session, pair, line, start, since: now });
        None
    }

    /// This one speaks for the member from now on. Says whether others wait for its place: it is to be asked whether it is
    /// there, and has as much time to answer as the one before.
    #[must_use]
    pub(super) fn note_admitted(&mut self, now: Instant, line: EntryId, start: MachineStart) -> bool {
        self.speaking.insert(line, start);
        if let Some(last) = self.admitted.insert(line, start).filter(|last| *last != start) {
            self.former.insert(line, (last, now));
        }
        let waiting = |it: &&mut WaitingMachine| it.line == line && it.start != start;
        let waiting = self.newcomers.iter_mut().filter(waiting);
        waiting.map(|newcomer| newcomer.since = now).count() > 0
    }

    /// Whether another start was admitted last.
    pub(super) fn is_another(&self, line: EntryId, start: MachineStart) -> bool {
        self.admitted.get(&line).is_some_and(|last| *last != start)
    }

    /// Nobody speaks for the member any more.
    pub(super) fn part(&mut self, line: EntryId) {
        self.speaking.remove(&line);
    }

    /// The next newcomer whose time to wait is over. `heard`: when the one that speaks was heard last.
    pub(super) fn poll_newcomer(
        &mut self,
        now: Instant,
        heard: impl Fn(EntryId) -> Option<Instant>,
    ) -> Option<(WaitingMachine, MachineVerdict)> {
        let is_over =
            |it: &WaitingMachine| self.is_free_for(it.line, it.start) || it.since + ANSWERS_WITHIN <= now;
        let at = self.newcomers.iter().position(is_over)?;
        let newcomer = self.newcomers.remove(at);
        let WaitingMachine { line, start, since, .. } = newcomer;
        let answers = !self.is_free_for(line, start) && heard(line).is_some_and(|at| at > since);
        if answers {
            self.duplicates.insert(line, now);
        }
        Some((newcomer, if answers { MachineVerdict::Refuse } else { MachineVerdict::Admit }))
    }

    /// The next newcomer for whose member nobody speaks any more.
    pub(super) fn poll_free(&mut self) -> Option<WaitingMachine> {
        let at = self.newcomers.iter().position(|it| self.is_free_for(it.line, it.start))?;
        Some(self.newcomers.remove(at))
    }

    /// When [`Machines::poll_newcomer`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.newcomers.iter().map(|it| it.since + ANSWERS_WITHIN).min()
    }

    /// The members for which two machines have spoken: one of them has a copy of the other's keys.
    pub(super) fn duplicates(&self, now: Instant) -> impl Iterator<Item = EntryId> {
        let lately = move |at: &Instant| now.saturating_duration_since(*at) < DUPLICATE_SHOWN;
        self.duplicates.iter().filter(move |(_, at)| lately(at)).map(|(line, _)| *line)
    }

    /// All control IKE SAs are gone: those that come may have their numbers, and be with other members.
    pub(super) fn begin(&mut self) {
        self.newcomers.clear();
    }

    /// Forgets all members but these.
    pub(super) fn retain(&mut self, is_member: impl Fn(EntryId) -> bool) {
        self.admitted.retain(|line, _| is_member(*line));
        self.former.retain(|line, _| is_member(*line));
        self.duplicates.retain(|line, _| is_member(*line));
        self.newcomers.retain(|newcomer| is_member(newcomer.line));
    }

    /// Whether nobody else speaks for the member.
    fn is_free_for(&self, line: EntryId, start: MachineStart) -> bool {
        self.speaking.get(&line).is_none_or(|speaking| *speaking == start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One start speaks, and another one waits for its place.
    fn waiting(now: Instant, line: EntryId) -> Machines {
        let start = |boot| MachineStart { machine: [1; 16], boot: [boot; 16] };
        let pair = Pair { local: [10, 0, 0, 1].into(), remote: [10, 0, 0, 2].into() };
        let mut machines = Machines::default();
        assert!(!machines.note_admitted(now, line, start(1)), "nobody waits");
        assert_eq!(machines.meet(now, (pair, line), SessionKey::numbered(7), start(2)), None);
        machines
    }

    /// The machine was started twice in a moment, as at an update: the start between has answered nothing.
    #[test]
    fn who_was_just_admitted_is_asked_too_before_the_next_one_is_refused() {
        let (now, line) = (Instant::now(), EntryId::new([1; 32]));
        let start = |boot| MachineStart { machine: [1; 16], boot: [boot; 16] };
        let mut machines = waiting(now, line);
        let pair = Pair { local: [10, 0, 0, 1].into(), remote: [10, 0, 0, 2].into() };
        let second = now + Duration::from_secs(2);
        assert_eq!(machines.meet(second, (pair, line), SessionKey::numbered(8), start(3)), None);
        let later = now + ANSWERS_WITHIN;
        let (next, verdict) = machines.poll_newcomer(later, |_| None).unwrap();
        assert_eq!((next.session, verdict), (SessionKey::numbered(7), MachineVerdict::Admit));
        assert!(machines.note_admitted(later, line, next.start), "another one waits");
        // It was heard when it was admitted, and not since.
        let heard = |_| Some(later);
        assert!(machines.poll_newcomer(second + ANSWERS_WITHIN, heard).is_none(), "it has time to answer");
        let (next, verdict) = machines.poll_newcomer(later + ANSWERS_WITHIN, heard).unwrap();
        assert_eq!((next.session, verdict), (SessionKey::numbered(8), MachineVerdict::Admit));
        assert_eq!(machines.duplicates(later).count(), 0);
    }

    /// What came at the same time may not have been read yet: only the clock says who has not answered.
    #[test]
    fn the_end_of_one_decides_about_nobody_else() {
        let (now, line) = (Instant::now(), EntryId::new([1; 32]));
        let mut machines = waiting(now, line);
        assert!(machines.poll_free().is_none());
        machines.part(EntryId::new([2; 32]));
        assert!(machines.poll_free().is_none());
        machines.part(line);
        assert_eq!(machines.poll_free().map(|it| it.session), Some(SessionKey::numbered(7)));
    }

    #[test]
    fn who_waits_is_forgotten_with_its_session_and_with_its_member() {
        let (now, line) = (Instant::now(), EntryId::new([1; 32]));
        let later = now + ANSWERS_WITHIN;
        let next = |mut machines: Machines| machines.poll_newcomer(later, |_| None).map(|(it, _)| it.session);
        assert_eq!(next(waiting(now, line)), Some(SessionKey::numbered(7)));
        let mut machines = waiting(now, line);
        machines.begin();
        machines.part(line);
        assert_eq!((machines.poll_timeout(), next(machines)), (None, None));
        let mut machines = waiting(now, line);
        machines.retain(|it| it == line);
        assert!(machines.poll_timeout().is_some());
        machines.retain(|_| false);
        assert_eq!((machines.poll_timeout(), next(machines)), (None, None));
    }
}
