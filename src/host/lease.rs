//! For how long a host goes on with a secret that somebody else's key wraps: a lease, which each use of the key renews.
//!
//! ```text
//!             unwrapped: renewed            unwrapped: given back
//!            +----------------+          +------------------------+
//!            v                |          v                        |
//!  start -> held -------------+----> held, and ends ----------> cut -> nobody asks any more
//!                refused: in a minute       its end        the restore window is over
//!                clocks part: in a minute
//!                no answer: at its end
//! ```
//! A lease has one deadline. An answer that is none leaves it; what says that the key is not to be used any more brings it
//! near; only a use of the key moves it away. Whether the secret is known yet or not makes no difference: what an agent
//! before this one has left in the kernel rests on the key too, so that its lease goes on, and what was said against the
//! key still counts.
//!
//! Time is that since the start of the system, sleep included, as a host must not outlive its lease by sleeping; only
//! whether the clocks part is seen by the time of day. It has no clock, entropy or secret: time and chance are arguments,
//! and what it decides are values.

use std::time::Duration;

use hostseal_kms_protocol::{KmsGift, KmsRefusal, Refusal};

use super::system::Moment;
use crate::config::KmsRules;
use crate::store::SavedLease;
use crate::types::units::human_duration;
use crate::types::{Boot, UnixTime};

/// How far the time of day may move against the time since the start: more is a clock that was set, or a machine that goes
/// on from a copy of itself.
const PARTED: Duration = Duration::from_secs(60);
/// How often a key is asked for that is not given, at first and later; `check_every` where that is less.
const AGAIN: Duration = Duration::from_secs(60);
const AGAIN_LATER: Duration = Duration::from_secs(5 * 60);
/// How often a KMS that is away is asked where that cannot wait: the end is near, or this agent has just begun and has no
/// secret yet, as while a system starts.
const SOON: Duration = Duration::from_secs(7);
const JUST_BEGUN: Duration = Duration::from_secs(5 * 60);
/// When [`AGAIN_LATER`] begins.
const LATER: Duration = Duration::from_secs(60 * 60);
/// How long an answer may take. One that is later counts as none.
const ANSWER: Duration = Duration::from_secs(20);
/// A peer says that it was cut off from its key: this host asks for its own one so much later, or sooner by chance, as
/// many hosts hear of it at once.
const HINT_SPREAD: Duration = Duration::from_secs(20);
/// But there is so much time between two such asks: whoever says it may have gone bad.
const HINT_PAUSE: Duration = Duration::from_secs(60);
/// Over what time the hosts of a cluster ask first that has more than [`SPREAD_FROM`], where all hear of something in one
/// second.
const SPREAD: Duration = Duration::from_secs(20);
const SPREAD_FROM: usize = 64;
/// Chance makes a pause up to a quarter shorter, and never longer.
const JITTER: u32 = 4 * 256;

/// How the key stood when it was asked for last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyState {
    /// It was not asked for yet.
    Unasked,
    /// It was used.
    Valid(KmsGift<()>),
    /// It was not: for this reason.
    Refused(KmsRefusal),
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseChange {
    /// The secret may be used, until the new end. `short`: the end of SAs that were made under the lease is near, or not
    /// known.
    Renewed {
        /// Whether what was made under it needs a successor.
        short: bool,
    },
    /// The secret and all that rests on it goes, now.
    Ended,
}

/// An ask, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskId(u64);

/// An ask that has no answer yet.
#[derive(Debug, Clone, Copy)]
struct OpenAsk {
    id: AskId,
    began: Duration,
    /// A yes to it proves nothing of now.
    is_void: bool,
}

/// The lease of a host.
#[derive(Debug)]
pub struct Lease {
    check_every: Duration,
    /// How long it goes on that is to end.
    grace: Duration,
    length: Duration,
    restore_window: Duration,
    /// When it ends, since the start of the system; `None` where it has ended.
    ends: Option<Duration>,
    /// When it has ended.
    ended: Option<Duration>,
    state: KeyState,
    /// Whether an answer has come, or was awaited in vain.
    answered: bool,
    /// Since when the key is not given.
    failing: Option<Duration>,
    /// When it was used last.
    used: Option<UnixTime>,
    /// When to ask next; while an answer is awaited, only where somebody wants one that is asked for later.
    next: Option<Duration>,
    /// When to ask because a peer was cut off, and when that was done last.
    hint: Option<Duration>,
    hinted: Option<Duration>,
    /// The ask that has no answer yet.
    asked: Option<OpenAsk>,
    asks: u64,
    /// The two clocks, at first or when they parted last.
    clocks: (Duration, UnixTime),
}

impl Lease {
    /// One that begins now, without an answer yet: the key is asked for at once.
    pub fn new(rules: &KmsRules, moment: Moment) -> Self {
        let up = moment.uptime;
        Self {
            check_every: rules.check_every,
            grace: rules.grace(),
            length: rules.max_offline,
            restore_window: rules.restore_window,
            ends: Some(up + rules.max_offline),
            ended: None,
            state: KeyState::Unasked,
            answered: false,
            failing: None,
            used: None,
            next: Some(up),
            hint: None,
            hinted: None,
            asked: None,
            asks: 0,
            clocks: (up, moment.wall),
        }
    }

    /// The same after an agent that has left `saved`, under this start of the system, which is called `boot`: it ends no
    /// later, and what was said against the key counts until it is used.
    pub fn resumed(rules: &KmsRules, moment: Moment, boot: &str, saved: &SavedLease) -> Self {
        let mut lease = Self::new(rules, moment);
        if let Some(end) = saved.end(boot) {
            lease.ends = lease.ends.map(|ends| ends.min(end));
        }
        if let Some(denial) = saved.denial(&rules.key) {
            lease.state = KeyState::Refused(denial.clone());
            lease.failing = Some(moment.uptime);
            lease.end_within_grace(moment);
        }
        lease
    }

    /// What an agent after this one is to know of it, under this start of the system, which is called `boot`; `key` is
    /// whom it is about.
    pub fn saved(&self, boot: &str, key: &str) -> SavedLease {
        let end = Boot { id: boot.to_owned(), uptime: self.end() };
        SavedLease::new(&end, key.to_owned(), self.denial().cloned())
    }

    /// The same after other rules, under which a secret may be in force: it ends no later than it would have, and somebody
    /// says when it asks first. With the `same_key`, what was said against it counts.
    pub fn followed_by(&self, rules: &KmsRules, moment: Moment, same_key: bool) -> Self {
        let next = Self::new(rules, moment);
        let ends = self.ends.zip(next.ends).map(|(before, after)| before.min(after));
        let (state, failing) = match same_key {
            true => (self.state.clone(), self.failing),
            false => (KeyState::Unasked, None),
        };
        Self { ends, ended: self.ended, asks: self.asks, next: None, state, failing, ..next }
    }

    /// The ask that is to be made now. The answer is an input: [`Lease::handle_answer`].
    pub fn poll_ask(&mut self, moment: Moment) -> Option<AskId> {
        let due = [self.next, self.hint].into_iter().flatten().min();
        if self.asked.is_some() || due.is_none_or(|due| due > moment.uptime) {
            return None;
        }
        self.next = None;
        // Any ask tells what the hint was about; only one that it was needed for counts.
        if self.hint.take().is_some_and(|hint| hint <= moment.uptime) {
            self.hinted = Some(moment.uptime);
        }
        self.asks += 1;
        let id = AskId(self.asks);
        self.asked = Some(OpenAsk { id, began: moment.uptime, is_void: false });
        Some(id)
    }

    /// Asks then, or sooner if it would ask sooner: somebody wants it. A yes that is under way will do.
    pub fn hurry(&mut self, at: Duration) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// The same where something else is to be unwrapped than before: no answer that is under way will do.
    pub fn ask_anew(&mut self, at: Duration) {
        self.asked.iter_mut().for_each(|asked| asked.is_void = true);
        self.hurry(at);
    }

    /// The first ask is no sooner than that.
    pub fn put_off(&mut self, until: Duration) {
        self.next = self.next.map(|next| next.max(until));
    }

    /// A peer was cut off from its key when the system had been up for `up`, as it says. That is obeyed in nothing: it
    /// makes one ask a minute, at most. Whoever has been refused the key knows more than that.
    pub fn handle_hint(&mut self, up: Duration, chance: u8) {
        if self.ends.is_none() || self.denial().is_some() {
            return;
        }
        let soon = up + HINT_SPREAD * u32::from(chance) / u32::from(u8::MAX);
        let due = self.hinted.map_or(soon, |last| soon.max(last + HINT_PAUSE));
        self.hint = Some(self.hint.map_or(due, |hint| hint.min(due)));
    }

    /// The key was asked for, and this came of it. `chance` spreads what follows.
    pub fn handle_answer(
        &mut self,
        moment: Moment,
        id: AskId,
        answer: Result<KmsGift<()>, KmsRefusal>,
        chance: u8,
    ) -> Option<LeaseChange> {
        // One that is too late was counted as none.
        let late = self.handle_timeout(moment, chance);
        let Some(asked) = self.asked.take_if(|asked| asked.id == id) else { return late };
        match answer {
            Ok(_) if asked.is_void => late,
            Ok(gift) => Some(self.renew(moment, asked.began, gift, chance)),
            Err(refusal) => {
                self.refuse(moment, refusal, chance);
                late
            }
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, moment: Moment, chance: u8) -> Option<LeaseChange> {
        self.handle_clocks(moment);
        if self.asked.take_if(|asked| asked.began + ANSWER <= moment.uptime).is_some() {
            self.refuse(moment, Self::silence(), chance);
        }
        let ended = self.ends.take_if(|ends| *ends <= moment.uptime)?;
        self.ended = Some(ended);
        Some(LeaseChange::Ended)
    }

    /// What counts as said where nothing is.
    pub fn silence() -> KmsRefusal {
        let why = format!("no answer came within {}", human_duration(ANSWER));
        KmsRefusal::because(Refusal::Unavailable, why)
    }

    fn renew(&mut self, moment: Moment, asked: Duration, gift: KmsGift<()>, chance: u8) -> LeaseChange {
        // Of what was given there is no telling when: it was after it was asked for.
        let ends = asked + self.length;
        // Keys are replaced within half of a lease, with an eighth to spare; the ask before this one was no longer ago than a
        // quarter of it.
        let enough = self.length / 8 * 5;
        let short = self.used.is_none() || self.ends.is_none_or(|ends| ends < moment.uptime + enough);
        (self.state, self.failing, self.ended) = (KeyState::Valid(gift), None, None);
        self.answered = true;
        (self.used, self.ends) = (Some(moment.wall), Some(ends));
        self.next = Some(moment.uptime + shortened(self.check_every, chance));
        LeaseChange::Renewed { short }
    }

    /// The key was not given. Where somebody wants an answer that is asked for later, that is asked for then.
    fn refuse(&mut self, moment: Moment, refused: KmsRefusal, chance: u8) {
        self.answered = true;
        let failing = *self.failing.get_or_insert(moment.uptime);
        let is_final = refused.refusal.is_final();
        if is_final {
            self.end_within_grace(moment);
        }
        // What is away says nothing against what a KMS has said.
        if is_final || self.denial().is_none() {
            self.state = KeyState::Refused(refused);
        }
        let pause = match moment.uptime {
            now if !is_final && self.cannot_wait(now, failing) => SOON,
            now if now < failing + LATER => AGAIN,
            _ => AGAIN_LATER,
        };
        let pause = shortened(pause.min(self.check_every), chance);
        self.next = self.next.or_else(|| (!self.is_given_up(moment)).then_some(moment.uptime + pause));
    }

    /// Whether an answer is needed soon by a host whose key is not given since `failing`.
    fn cannot_wait(&self, now: Duration, failing: Duration) -> bool {
        let has_begun = self.used.is_none() && now < failing + JUST_BEGUN;
        self.ends.is_some_and(|ends| has_begun || ends <= now + self.grace)
    }

    /// Whether nobody asks any more, unless somebody wants it.
    pub fn is_given_up(&self, moment: Moment) -> bool {
        self.ended.is_some_and(|ended| ended + self.restore_window <= moment.uptime)
    }

    fn end_within_grace(&mut self, moment: Moment) {
        self.ends = self.ends.map(|ends| ends.min(moment.uptime + self.grace));
    }

    /// Sees whether the clocks part. What was asked before that proves nothing of now.
    fn handle_clocks(&mut self, moment: Moment) {
        let (up, wall) = self.clocks;
        let expected = wall.after(moment.uptime.saturating_sub(up));
        let parted = expected.since(moment.wall).max(moment.wall.since(expected));
        if parted >= PARTED {
            self.clocks = (moment.uptime, moment.wall);
            self.ask_anew(moment.uptime);
            self.end_within_grace(moment);
        }
    }

    /// What a KMS has said against the key, unless it was used since.
    pub fn denial(&self) -> Option<&KmsRefusal> {
        match &self.state {
            KeyState::Refused(refused) => Some(refused).filter(|refused| refused.refusal.is_final()),
            KeyState::Unasked | KeyState::Valid(_) => None,
        }
    }

    /// When it ends or has ended, since the start of the system.
    pub fn end(&self) -> Duration {
        self.ends.or(self.ended).unwrap_or_default()
    }

    /// How long it goes on; `None` where it has ended.
    pub fn left(&self, moment: Moment) -> Option<Duration> {
        self.ends.map(|ends| ends.saturating_sub(moment.uptime))
    }

    /// Whether less of it is left than it should be: a part of it is gone without an answer, or its end was brought near.
    pub fn is_short(&self, moment: Moment) -> bool {
        self.left(moment).is_none_or(|left| left < self.length / 4 * 3)
    }

    /// How the key stands.
    pub fn state(&self) -> &KeyState {
        &self.state
    }

    /// Whether an answer was awaited in vain, and counts as none from now on.
    pub fn waits_in_vain(&self, moment: Moment) -> bool {
        self.asked.is_some_and(|asked| asked.began + ANSWER <= moment.uptime)
    }

    /// When it was used last.
    pub fn used(&self) -> Option<UnixTime> {
        self.used
    }

    /// Whether the first answer is still to come.
    pub fn awaits_first_answer(&self) -> bool {
        !self.answered
    }

    /// When [`Lease::handle_timeout`] or [`Lease::poll_ask`] is due, since the start of the system.
    pub fn deadline(&self) -> Option<Duration> {
        let answer = self.asked.map(|asked| asked.began + ANSWER);
        let [next, hint] = [self.next, self.hint].map(|due| due.filter(|_| self.asked.is_none()));
        [self.ends, next, hint, answer].into_iter().flatten().min()
    }
}

/// How much later a host asks that hears of something at once with all others of a cluster of so many.
pub fn spread(hosts: usize, chance: u8) -> Duration {
    match hosts {
        0..=SPREAD_FROM => Duration::ZERO,
        _ => SPREAD * u32::from(chance) / 256,
    }
}

/// A pause, as `chance` has it: hosts that begin together do not go on together.
pub(super) fn shortened(pause: Duration, chance: u8) -> Duration {
    pause - pause * u32::from(chance) / JITTER
}

#[cfg(test)]
mod tests;
