//! A secret that somebody else's key wraps: asked for again and again, taken away when its lease ends, and given back.
//! What a lease is, `lease` says; what it is to be without a secret, `secret`.

use std::time::Instant;

use hostseal_kms_protocol::Refusal;

use super::Host;
use super::core::Withholding;
use super::lease::{AskId, KeyState, Lease, LeaseChange};
use super::ledger::Asker;
use super::setup::Secrets;
use super::system::{Moment, System};
use super::wish::Wish;
use crate::config::KmsRules;
use crate::control::Terms;
use crate::observe::KeyReport;
use crate::observe::kms::{self, KeyStanding};

/// What came of unwrapping the secret.
pub struct Unwrapped {
    /// The ask.
    pub ask: AskId,
    /// The secret, or why there is none.
    pub secrets: Result<Secrets, Refusal>,
    /// What was said to that.
    pub why: Option<String>,
    /// What the KMS calls the request.
    pub request_id: Option<String>,
}

/// The secret of a host that a key wraps.
pub(super) struct Leased {
    rules: KmsRules,
    lease: Lease,
    why: Option<String>,
    request_id: Option<String>,
    /// Who wants this host protected, before it is known whether it has a secret.
    early: Vec<(Terms, Asker)>,
}

impl Leased {
    pub(super) fn new(rules: &KmsRules, moment: Moment) -> Self {
        let lease = Lease::new(rules, moment);
        Self { rules: rules.clone(), lease, why: None, request_id: None, early: Vec::new() }
    }

    fn refusal(&self) -> Option<&Refusal> {
        match self.lease.state() {
            KeyState::Refused(refusal) => Some(refusal),
            KeyState::Unasked | KeyState::Valid => None,
        }
    }

    /// Why there is no secret.
    fn withholding(&self) -> Withholding {
        let refusal = self.refusal();
        let what = refusal.map_or_else(|| "the KMS has not answered".to_owned(), kms::refusal);
        let why = self.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        let words = format!(
            "this host has no secret: {what}{why}. The key is {}, at {}. This host is protected as soon as the key can be \
             used: see `hostseal kms status`",
            self.rules.key, self.rules.provider
        );
        Withholding { code: kms::reason_code(refusal), words: words.into() }
    }

    pub(super) fn report(&self, moment: Moment) -> KeyReport {
        let left = self.lease.left(moment);
        let refusal = self.refusal();
        KeyReport {
            provider: self.rules.provider.clone(),
            key: self.rules.key.clone(),
            state: match self.lease.state() {
                KeyState::Unasked => KeyStanding::Unasked,
                KeyState::Valid => KeyStanding::Valid,
                KeyState::Refused(refusal) => KeyStanding::of(refusal),
            },
            deletion_date: match refusal {
                Some(Refusal::PendingDeletion(date)) => date.clone(),
                _ => None,
            },
            why: self.why.clone(),
            request_id: self.request_id.clone(),
            last_use: self.lease.used(),
            cut: left.is_none(),
            lease_left_s: left.map(|left| left.as_secs()),
            short: self.lease.is_short(moment),
            bound_s: self.rules.bound().as_secs(),
            max_offline_s: self.rules.max_offline.as_secs(),
        }
    }
}

impl Host {
    /// The next ask to unwrap the secret; what comes of it is an input: [`Host::handle_unwrapped`].
    pub fn poll_unwrap(&mut self) -> Option<AskId> {
        self.leased.as_mut()?.lease.poll_ask(self.moment)
    }

    /// The secret was unwrapped, or was not.
    pub fn handle_unwrapped(&mut self, moment: Moment, system: &mut dyn System, unwrapped: Unwrapped) {
        let now = self.note_moment(moment);
        let chance = self.chance_octet();
        let Unwrapped { ask, secrets, why, request_id } = unwrapped;
        let Some(leased) = &mut self.leased else { return };
        let (given, answer) = match secrets {
            Ok(secrets) => (Some(secrets), Ok(())),
            Err(refusal) => (None, Err(refusal)),
        };
        let before = leased.lease.state().clone();
        let change = leased.lease.handle_answer(moment, ask, answer, chance);
        (leased.why, leased.request_id) = (why, request_id);
        if *leased.lease.state() != before {
            let report = leased.report(moment);
            match leased.refusal() {
                None => tracing::info!("the key {} was used: {}", report.key, report.in_words()),
                Some(_) => tracing::error!("the key {} was not used: {}", report.key, report.in_words()),
            }
        }
        self.take_lease_change(now, system, change, given);
        if self.secrets.is_none()
            && let Some(why) = self.leased.as_ref().map(Leased::withholding)
        {
            self.note_withholding(now, system, why);
        }
    }

    /// Time has passed for the lease.
    pub(super) fn handle_lease_timeout(&mut self, system: &mut dyn System) {
        let (moment, chance) = (self.moment, self.chance_octet());
        let Some(leased) = &mut self.leased else { return };
        let change = leased.lease.handle_timeout(moment, chance);
        self.take_lease_change(moment.now, system, change, None);
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
        match (change, given) {
            (Some(LeaseChange::Renewed { short }), Some(secrets)) => {
                let is_new = self.secrets.as_ref().is_none_or(|before| !before.changes(&secrets).is_empty());
                if is_new {
                    self.handle_secret(self.moment, system, Ok(secrets));
                }
                if let Some(core) = self.core.as_mut().filter(|_| short) {
                    core.renew_all(now, system);
                }
            }
            (Some(LeaseChange::Ended), _) => self.cut_with_lease(system),
            (Some(LeaseChange::Renewed { .. }) | None, _) => {}
        }
    }

    fn cut_with_lease(&mut self, system: &mut dyn System) {
        if let Some(why) = self.leased.as_ref().map(Leased::withholding) {
            self.handle_secret(self.moment, system, Err(why));
        }
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

    /// The files in force may say something else of it: the key is asked for now.
    pub(super) fn follow_kms(&mut self) {
        let moment = self.moment;
        self.leased = match (self.setup.config.kms.as_ref(), self.leased.take()) {
            (None, _) => None,
            (Some(rules), None) => Some(Leased::new(rules, moment)),
            (Some(rules), Some(mut leased)) => {
                if leased.rules != *rules {
                    leased.lease = leased.lease.followed_by(rules, moment);
                    leased.rules = rules.clone();
                }
                leased.lease.hurry(moment);
                Some(leased)
            }
        };
        self.bound_sas();
    }

    /// Takes the order to protect this host, as soon as it is known whether it has a secret.
    pub(super) fn order_protection(
        &mut self,
        now: Instant,
        system: &mut dyn System,
        terms: Terms,
        asker: Asker,
    ) {
        match &mut self.leased {
            Some(leased) if self.secrets.is_none() && leased.lease.is_unasked() => {
                leased.early.push((terms, asker));
            }
            _ => self.order(now, system, Wish::Enable(terms), Some(asker)),
        }
    }

    /// Takes an order that has waited for the first answer of the KMS.
    pub(super) fn take_early_order(&mut self, now: Instant, system: &mut dyn System) {
        let known = |leased: &&mut Leased| !leased.lease.is_unasked();
        if self.wish.is_none()
            && let Some(leased) = self.leased.as_mut().filter(known)
            && !leased.early.is_empty()
        {
            let (terms, asker) = leased.early.remove(0);
            self.order(now, system, Wish::Enable(terms), Some(asker));
        }
    }

    /// Whoever asked does not wait any more.
    pub(super) fn forget_early_order(&mut self, gone: Asker) {
        self.leased.iter_mut().for_each(|leased| leased.early.retain(|(_, asker)| *asker != gone));
    }

    /// When the lease needs something.
    pub(super) fn lease_deadline(&self) -> Option<Instant> {
        let due = self.leased.as_ref()?.lease.deadline()?;
        Some(self.moment.now + due.saturating_sub(self.moment.uptime))
    }

    fn chance_octet(&mut self) -> u8 {
        let mut octet = [0];
        (self.chance)().fill(&mut octet);
        octet[0]
    }
}
