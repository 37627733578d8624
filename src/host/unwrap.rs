//! A secret that somebody else's key wraps: asked for again and again, taken away when its lease ends, and given back.
//! What a lease is, `lease` says; what it is to be without a secret, `secret`.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hostseal_kms_protocol::{KmsGift, KmsRefusal, Refusal};

use super::Host;
use super::core::{Core, Persist, Withholding};
use super::lease::{AskId, KeyState, Lease, LeaseChange, spread};
use super::ledger::Asker;
use super::ports::SecretSource;
use super::setup::Secrets;
use super::system::{Moment, System};
use super::wish::Wish;
use crate::config::{KmsRules, SecretMark};
use crate::control::Terms;
use crate::identity::Secret;
use crate::observe::KeyReport;
use crate::observe::audit::{AuditReport, AuditWords};
use crate::observe::causes;
use crate::observe::kms::{self, KeyStanding};
use crate::store::{AuditKind, SavedLease};

/// What came of unwrapping the secret.
pub struct Unwrapped {
    /// The ask.
    pub ask: AskId,
    /// What the files said of the key then.
    pub rules: Option<KmsRules>,
    /// The secret, or why there is none.
    pub answer: Result<KmsGift<Arc<Secret>>, KmsRefusal>,
}

/// The secret of a host that a key wraps.
pub(super) struct Leased {
    rules: KmsRules,
    lease: Lease,
    /// How often what was answered.
    answers: BTreeMap<KeyStanding, u64>,
    /// What was unwrapped last and is in use, where a cluster has given it.
    opened: Option<SecretMark>,
}

impl Leased {
    /// A lease that begins under the start of the system that is called `boot`, after what an agent before this one has
    /// left of it.
    pub(super) fn new(rules: &KmsRules, moment: Moment, boot: &str, saved: Option<&SavedLease>) -> Self {
        let lease = match saved {
            Some(saved) => Lease::resumed(rules, moment, boot, saved),
            None => Lease::new(rules, moment),
        };
        Self { rules: rules.clone(), lease, answers: BTreeMap::new(), opened: None }
    }

    pub(super) fn rules(&self) -> &KmsRules {
        &self.rules
    }

    fn saved(&self, boot: &str) -> SavedLease {
        self.lease.saved(boot, &self.rules.key)
    }

    fn refused(&self) -> Option<&KmsRefusal> {
        match self.lease.state() {
            KeyState::Refused(refused) => Some(refused),
            KeyState::Unasked | KeyState::Valid(_) => None,
        }
    }

    /// Why there is no secret.
    pub(super) fn withholding(&self, moment: Moment) -> Withholding {
        let refused = self.refused();
        let refusal = refused.map(|refused| &refused.refusal);
        let what = match (refusal, self.lease.state()) {
            (Some(refusal), _) => kms::refusal(refusal),
            (None, KeyState::Valid(_)) => "another file is wrong".to_owned(),
            (None, _) => "the KMS has not answered".to_owned(),
        };
        let why = refused.and_then(|refused| refused.why.as_ref());
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        let hope = kms::hope(self.lease.is_given_up(moment));
        let words = format!(
            "this host has no secret: {what}{why}. The key is {}, at {}. {hope}: see `hostseal kms status`",
            self.rules.key, self.rules.provider
        );
        Withholding { code: kms::reason_code(refusal), words: words.into() }
    }

    pub(super) fn report(&self, moment: Moment, audit: AuditReport) -> KeyReport {
        let left = self.lease.left(moment);
        let (why, request_id) = match self.lease.state() {
            KeyState::Unasked => (None, None),
            KeyState::Valid(gift) => (gift.why.clone(), gift.request_id.clone()),
            KeyState::Refused(refused) => (refused.why.clone(), refused.request_id.clone()),
        };
        KeyReport {
            provider: self.rules.provider.clone(),
            key: self.rules.key.clone(),
            state: match self.lease.state() {
                KeyState::Unasked => KeyStanding::Unasked,
                KeyState::Valid(_) => KeyStanding::Valid,
                KeyState::Refused(refused) => KeyStanding::of(&refused.refusal),
            },
            deletion_date: match self.refused().map(|refused| &refused.refusal) {
                Some(Refusal::PendingDeletion(date)) => date.clone(),
                _ => None,
            },
            why,
            request_id,
            last_use: self.lease.used(),
            cut: left.is_none(),
            given_up: self.lease.is_given_up(moment),
            lease_left_s: left.map(|left| left.as_secs()),
            short: self.lease.is_short(moment),
            bound_s: self.rules.bound().as_secs(),
            max_offline_s: self.rules.max_offline.as_secs(),
            answers: self.answers.clone(),
            audit: Some(audit),
        }
    }
}

impl Host {
    /// The next ask to unwrap the secret; what comes of it is an input: [`Host::handle_unwrapped`].
    pub fn poll_unwrap(&mut self) -> Option<AskId> {
        self.leased.as_mut()?.lease.poll_ask(self.moment)
    }

    /// The secret was unwrapped, or was not. `source` makes of it what the files in force want.
    pub fn handle_unwrapped(
        &mut self,
        moment: Moment,
        system: &mut dyn System,
        source: &mut dyn SecretSource,
        unwrapped: Unwrapped,
    ) {
        let now = self.note_moment(moment);
        let Unwrapped { ask, rules, answer } = unwrapped;
        if let Some(rules) = &rules {
            self.record_answer(rules, answer.as_ref());
        }
        let (given, answer) = match answer {
            Ok(KmsGift { given, why, request_id }) => {
                (self.secrets_of(source, &given), Ok(KmsGift { given: (), why, request_id }))
            }
            Err(refused) => (None, Err(refused)),
        };
        self.with_lease(now, system, given, |lease, chance| lease.handle_answer(moment, ask, answer, chance));
    }

    /// Counts what was answered, and has it recorded: also what comes too late, as the KMS has it on record, too.
    fn record_answer<T>(&mut self, rules: &KmsRules, answer: Result<&KmsGift<T>, &KmsRefusal>) {
        let standing =
            answer.map_or_else(|refused| KeyStanding::of(&refused.refusal), |_| KeyStanding::Valid);
        if let Some(leased) = &mut self.leased {
            *leased.answers.entry(standing).or_default() += 1;
        }
        match answer {
            Ok(gift) => self.record_of(rules, AuditKind::Use, AuditWords::of_gift(gift)),
            Err(refused) => self.record_of(rules, AuditKind::Refusal, AuditWords::of_refusal(refused)),
        }
    }

    /// What the files in force make of what was unwrapped. The key can be used, whatever is wrong with another file: then
    /// those secrets stay that are in force.
    fn secrets_of(&mut self, source: &mut dyn SecretSource, root: &Arc<Secret>) -> Option<Secrets> {
        match source.read(&self.setup, Some(root)) {
            Ok(secrets) => secrets,
            Err(error) => {
                self.note_trouble(causes::words(error.as_ref()));
                None
            }
        }
    }

    /// Time has passed for the lease.
    pub(super) fn handle_lease_timeout(&mut self, system: &mut dyn System) {
        let moment = self.moment;
        let leased = self.leased.as_ref().filter(|leased| leased.lease.waits_in_vain(moment));
        if let Some(rules) = leased.map(|leased| leased.rules.clone()) {
            self.record_answer(&rules, Err::<&KmsGift<()>, _>(&Lease::silence()));
        }
        self.with_lease(moment.now, system, None, |lease, chance| lease.handle_timeout(moment, chance));
    }

    /// A peer may have said that it was cut off: then this host soon asks for its own key.
    pub(super) fn heed_farewell(&mut self, now: Instant) {
        let heard = self.core.as_mut().is_some_and(Core::poll_farewell);
        if let Some(leased) = self.leased.as_mut().filter(|_| heard) {
            let mut chance = [0];
            (self.chance)().fill(&mut chance);
            leased.lease.handle_hint(self.moment.uptime_at(now), chance[0]);
        }
    }

    /// Lets the lease take an input, which came with what was `given`, and does what follows from it.
    fn with_lease(
        &mut self,
        now: Instant,
        system: &mut dyn System,
        given: Option<Secrets>,
        input: impl FnOnce(&mut Lease, u8) -> Option<LeaseChange>,
    ) {
        let Some(leased) = &mut self.leased else { return };
        let mut chance = [0];
        (self.chance)().fill(&mut chance);
        let (was, end) = (leased.lease.state().clone(), leased.lease.end());
        let was_cut = leased.lease.left(self.moment).is_none();
        let denied = leased.lease.denial().cloned();
        let change = input(&mut leased.lease, chance[0]);
        if !is_alike(&was, leased.lease.state()) {
            let report = leased.report(self.moment, AuditReport::default());
            match leased.refused() {
                None => tracing::info!("the key {} was used: {}", report.key, report.in_words()),
                Some(_) => tracing::error!("the key {} was not used: {}", report.key, report.in_words()),
            }
        }
        // An agent after this one has no more of it than this one, and knows what was said.
        if leased.lease.end() < end || leased.lease.denial() != denied.as_ref() {
            self.ledger.note(now, Persist::Seals);
        } else if leased.lease.end() > end {
            self.ledger.note(now, Persist::Figures);
        }
        self.take_lease_change(now, system, change, given);
        if was_cut && matches!(change, Some(LeaseChange::Renewed { .. })) {
            self.record(AuditKind::Restore, AuditWords::default());
        }
        if self.secrets.is_none()
            && let Some(leased) = &self.leased
        {
            let why = leased.withholding(self.moment);
            self.note_withholding(now, system, why);
        }
    }

    fn take_lease_change(
        &mut self,
        now: Instant,
        system: &mut dyn System,
        change: Option<LeaseChange>,
        given: Option<Secrets>,
    ) {
        // Its end may be nearer than it was, and the clock of SAs stands still while the host sleeps.
        self.bound_sas();
        match change {
            Some(LeaseChange::Renewed { short }) => {
                if let Some(leased) = self.leased.as_mut().filter(|_| given.is_some()) {
                    leased.opened = self.setup.config.wrapped_mark();
                }
                given.into_iter().for_each(|secrets| self.take_given(system, secrets));
                if let Some(core) = self.core.as_mut().filter(|_| short && self.secrets.is_some()) {
                    core.renew_all(now, system);
                }
            }
            Some(LeaseChange::Ended) => self.cut_with_lease(system),
            None => {}
        }
    }

    /// Takes what was unwrapped, if that is new: all else that the files want was taken with the files, or waits for it.
    fn take_given(&mut self, system: &mut dyn System, secrets: Secrets) {
        let [before, given] = [self.secrets.as_ref(), Some(&secrets)]
            .map(|it| it.and_then(Secrets::root).map(|it| it.digest()));
        if before != given || self.secrets_lag {
            self.secrets_lag = false;
            self.handle_secret(self.moment, system, Ok(secrets));
        }
    }

    fn cut_with_lease(&mut self, system: &mut dyn System) {
        if let Some(why) = self.leased.as_ref().map(|leased| leased.withholding(self.moment)) {
            let sas = |system: &mut dyn System| system.read_sas().map(|sas| sas.len() as u64).ok();
            let before = sas(system);
            self.handle_secret(self.moment, system, Err(why));
            // What could not be read is not known.
            let removed = before.zip(sas(system)).map(|(before, after)| before.saturating_sub(after));
            let refused = self.leased.as_ref().and_then(Leased::refused);
            let words = refused.map(AuditWords::of_refusal).unwrap_or_default();
            self.record(AuditKind::Cut, words.of_cut(removed));
        }
    }

    /// What tells the wrapped secret that this host has unwrapped last and goes by.
    pub(super) fn opened_mark(&self) -> Option<&SecretMark> {
        self.leased.as_ref()?.opened.as_ref()
    }

    /// When SAs end that are made now, beside their own limits: with the lease.
    pub(super) fn lease_end(&self) -> Option<Instant> {
        let left = self.leased.as_ref()?.lease.left(self.moment)?;
        Some(self.moment.now + left)
    }

    fn bound_sas(&mut self) {
        let end = self.lease_end();
        self.core.iter_mut().for_each(|core| core.bound_sas(end));
    }

    /// The files in force may say something else of the key, or of what it wraps, than when this was the mark: then it is
    /// asked for out of turn, and also where somebody has touched the files or wants it, `by_hand`. Whatever else a cluster
    /// says makes nobody ask.
    pub(super) fn follow_kms(&mut self, before: Option<&SecretMark>, by_hand: bool) {
        let moment = self.moment;
        self.record_rules();
        let mark = self.setup.config.wrapped_mark();
        self.leased = match (self.setup.config.kms.clone(), self.leased.take()) {
            (None, _) => None,
            (Some(rules), None) => {
                let mut leased = Leased::new(&rules, moment, &self.boot, None);
                leased.lease.put_off(self.next_hurry(by_hand));
                Some(leased)
            }
            (Some(rules), Some(mut leased)) => {
                let is_other = leased.rules != rules;
                if is_other {
                    let same_key =
                        (&leased.rules.provider, &leased.rules.key) == (&rules.provider, &rules.key);
                    leased.lease = leased.lease.followed_by(&rules, moment, same_key);
                    leased.rules = rules;
                }
                if is_other || before != mark.as_ref() {
                    leased.lease.ask_anew(self.next_hurry(by_hand));
                } else if by_hand && mark.is_none() {
                    // The file that holds what the key wraps may be another one.
                    leased.lease.ask_anew(moment.uptime);
                } else if by_hand {
                    leased.lease.hurry(moment.uptime);
                }
                Some(leased)
            }
        };
        self.bound_sas();
    }

    /// When to ask for what is new. All members hear of it at once, and somebody may say something new all the time; but
    /// not `by_hand`.
    fn next_hurry(&mut self, by_hand: bool) -> Duration {
        let now = self.moment.uptime;
        let mut chance = [0];
        (self.chance)().fill(&mut chance);
        let soonest = now + spread(self.setup.config.nodes.len(), chance[0]);
        if by_hand { soonest } else { self.hurry.next(now, soonest) }
    }

    /// Has it recorded where the files say something else of the key than before.
    fn record_rules(&mut self) {
        let (before, after) =
            (self.leased.as_ref().map(|leased| leased.rules.clone()), self.setup.config.kms.clone());
        match (before, after) {
            (before, Some(after)) if before.as_ref() != Some(&after) => {
                self.record_of(&after, AuditKind::Configured, AuditWords::default());
            }
            (Some(before), None) => self.record_of(&before, AuditKind::Released, AuditWords::default()),
            _ => {}
        }
    }

    /// Takes the order to protect this host, as soon as it is known whether it has a secret.
    pub(super) fn order_protection(
        &mut self,
        now: Instant,
        system: &mut dyn System,
        terms: Terms,
        asker: Asker,
    ) {
        if self.awaits_first_answer() {
            self.awaiting_first_answer.push((terms, asker));
        } else {
            self.order(now, system, Wish::Enable(terms), Some(asker));
        }
    }

    /// Takes an order that has waited for the first answer of the KMS.
    pub(super) fn take_waiting_order(&mut self, now: Instant, system: &mut dyn System) {
        if self.wish.is_none() && !self.awaiting_first_answer.is_empty() && !self.awaits_first_answer() {
            let (terms, asker) = self.awaiting_first_answer.remove(0);
            self.order(now, system, Wish::Enable(terms), Some(asker));
        }
    }

    /// Whoever asked does not wait any more.
    pub(super) fn forget_waiting_order(&mut self, gone: Asker) {
        self.awaiting_first_answer.retain(|(_, asker)| *asker != gone);
    }

    /// Whether a KMS is to say yet whether this host has a secret.
    pub(super) fn awaits_first_answer(&self) -> bool {
        let awaits = |leased: &Leased| leased.lease.awaits_first_answer();
        self.secrets.is_none() && self.leased.as_ref().is_some_and(awaits)
    }

    /// Takes what an agent after this one is to know of the lease. Nothing rests on it where nothing is protected.
    pub(super) fn take_lease(&mut self) {
        let leased = self.leased.as_ref().filter(|_| self.goes_on());
        self.saved.lease = leased.map(|leased| leased.saved(&self.boot));
    }

    /// When the lease needs something.
    pub(super) fn lease_deadline(&self) -> Option<Instant> {
        let due = self.leased.as_ref()?.lease.deadline()?;
        Some(self.moment.now + due.saturating_sub(self.moment.uptime))
    }
}

/// Whether both say the same of the key, whatever the request.
fn is_alike(one: &KeyState, other: &KeyState) -> bool {
    match (one, other) {
        (KeyState::Refused(one), KeyState::Refused(other)) => one.refusal == other.refusal,
        _ => discriminant(one) == discriminant(other),
    }
}
