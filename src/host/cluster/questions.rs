//! Questions of this host's operator that the other members answer, each for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Host;
use crate::host::ledger::Asker;
use crate::roster::EntryId;

/// How much longer the answer waits for each member that is to be reached first.
const REACHING: Duration = Duration::from_millis(20);
/// And for all of them at most: the command that asked waits for ten seconds.
const REACHING_MOST: Duration = Duration::from_secs(7);

/// Questions about `A` that wait for answers `R`.
pub(super) struct Questions<A, R> {
    open: Vec<OpenQuestion<A, R>>,
    asked: u64,
}

/// Somebody wants to know something of all.
pub(super) struct OpenQuestion<A, R> {
    /// Where the answer goes.
    pub(super) askers: Vec<Asker>,
    /// What it is about.
    pub(super) about: A,
    /// What was answered.
    pub(super) answers: BTreeMap<EntryId, R>,
    number: u64,
    /// As the members are asked.
    said: Vec<u8>,
    deadline: Instant,
    waits_for: BTreeSet<EntryId>,
    /// Those among them that were asked, and can be talked to since.
    asked: BTreeSet<EntryId>,
}

/// Those who are asked.
#[derive(Default)]
pub(super) struct AskedMembers {
    /// They can be talked to.
    reached: BTreeSet<EntryId>,
    /// They can be, soon.
    far: BTreeSet<EntryId>,
}

impl AskedMembers {
    /// That one, if it is among them.
    pub(super) fn only(mut self, line: EntryId) -> Self {
        self.reached.retain(|it| *it == line);
        self.far.retain(|it| *it == line);
        self
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.reached.is_empty() && self.far.is_empty()
    }
}

impl<A, R> OpenQuestion<A, R> {
    /// Those who were asked, and have said nothing.
    pub(super) fn mute(&self) -> BTreeSet<EntryId> {
        let silent = self.waits_for.intersection(&self.asked);
        silent.filter(|line| !self.answers.contains_key(line)).copied().collect()
    }
}

impl<A, R> Default for Questions<A, R> {
    fn default() -> Self {
        Self { open: Vec::new(), asked: 0 }
    }
}

impl<A, R> Questions<A, R> {
    /// How many wait for answers.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// The number of the next one.
    pub(super) fn next(&self) -> u64 {
        self.asked + 1
    }

    /// Asks all of these, who have `patience` to answer.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        (askers, about): (Vec<Asker>, A),
        said: Vec<u8>,
        patience: Duration,
        all: AskedMembers,
    ) {
        self.asked += 1;
        let AskedMembers { reached, far } = all;
        let reaching =
            u32::try_from(far.len()).map_or(REACHING_MOST, |count| REACHING_MOST.min(REACHING * count));
        let waits_for: BTreeSet<EntryId> = reached.union(&far).copied().collect();
        self.open.push(OpenQuestion {
            askers,
            about,
            answers: BTreeMap::new(),
            number: self.asked,
            said,
            deadline: now + patience + reaching,
            waits_for,
            asked: BTreeSet::new(),
        });
    }

    /// What is to be said to those of `reached` who were not asked yet.
    fn unasked(&mut self, reached: &BTreeSet<EntryId>) -> Vec<(EntryId, Vec<u8>)> {
        let mut said = Vec::new();
        for OpenQuestion { waits_for, asked, said: words, .. } in &mut self.open {
            // Whoever was lost meanwhile may not have heard it.
            asked.retain(|line| reached.contains(line));
            for line in waits_for.intersection(reached) {
                if asked.insert(*line) {
                    said.push((*line, words.clone()));
                }
            }
        }
        said
    }

    /// A member has answered.
    pub(super) fn note(&mut self, number: u64, line: EntryId, answer: R) {
        self.note_part(number, line, true, |answers| drop(answers.insert(line, answer)));
    }

    /// A member has answered, or that is the last part of its answer; `take` puts it to the answers.
    pub(super) fn note_part(
        &mut self,
        number: u64,
        line: EntryId,
        is_last: bool,
        take: impl FnOnce(&mut BTreeMap<EntryId, R>),
    ) {
        let asked = self.open.iter_mut().find(|question| question.number == number);
        if let Some(question) = asked.filter(|question| question.waits_for.contains(&line)) {
            take(&mut question.answers);
            if is_last {
                question.waits_for.remove(&line);
            }
        }
    }

    /// Others want to know the same. Says whether it is being asked.
    pub(super) fn wait_too(&mut self, askers: &mut Vec<Asker>) -> bool {
        let last = self.open.last_mut();
        last.map(|question| question.askers.append(askers)).is_some()
    }

    /// Those that all have answered, or have had the time to.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<OpenQuestion<A, R>> {
        let is_due =
            |question: &mut OpenQuestion<A, R>| question.waits_for.is_empty() || question.deadline <= now;
        self.open.extract_if(.., is_due).collect()
    }

    /// When an answer is due, whoever is still silent.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.iter().map(|question| question.deadline).min()
    }
}

impl Host {
    /// All members, of whom those that are far are called.
    pub(super) fn call_members(&mut self, now: Instant) -> AskedMembers {
        let far = self.core.as_mut().map(|core| core.call_members(now)).unwrap_or_default();
        AskedMembers { reached: self.reached(), far }
    }

    /// Those members that can be talked to anyway.
    pub(super) fn near_members(&self) -> AskedMembers {
        AskedMembers { reached: self.reached(), far: BTreeSet::new() }
    }

    pub(super) fn reached(&self) -> BTreeSet<EntryId> {
        self.membership().map(|members| members.reached().collect()).unwrap_or_default()
    }

    /// Asks those who can be talked to by now.
    pub(super) fn go_on_asking(&mut self, now: Instant) {
        let reached = self.reached();
        let Some(cluster) = &mut self.cluster else { return };
        let mut said = cluster.standings.questions.unasked(&reached);
        said.extend(cluster.previews.questions.unasked(&reached));
        said.extend(cluster.checks.questions.unasked(&reached));
        said.extend(cluster.proofs.unasked(&reached));
        said.extend(cluster.pairs.questions.unasked(&reached));
        for (line, said) in said {
            self.core.iter_mut().for_each(|core| core.say_aside(now, line, said.clone()));
        }
    }
}
