//! The secret may come late, be withdrawn, and come again: each is an input. While it is not there yet, the kernel goes
//! on with its SAs, and its policies are kept. When it is withdrawn, no key of it stays.

use std::time::Instant;

use super::Host;
use super::core::{Persist, Withholding};
use super::setup::Secrets;
use super::system::{Moment, System};
use crate::ike;

/// What is told of a host whose secret was not given yet.
pub(super) const AWAITED: &str = "this host waits for its secret";

impl Host {
    /// The source gives these secrets; or it withdraws those it gave, or will not give any, and says why. Then all SAs and
    /// all keys go at once, also those of the agent before, and sealed pairs stay blocked until secrets are given.
    pub fn handle_secret(
        &mut self,
        moment: Moment,
        system: &mut dyn System,
        given: Result<Secrets, Withholding>,
    ) {
        let now = self.note_moment(moment);
        match given {
            Ok(secrets) => self.take_secrets(now, system, secrets),
            Err(why) => self.withdraw(now, system, why),
        }
    }

    /// Goes on with these secrets, and with what has waited for them.
    fn take_secrets(&mut self, now: Instant, system: &mut dyn System, secrets: Secrets) {
        if self.withheld.is_some() {
            tracing::info!("this host has its secret");
        }
        let settings = self.setup.settings(&secrets, false);
        self.secrets = Some(secrets);
        if let Some(core) = &mut self.core {
            core.reconfigure(now, self.moment.wall, system, self.setup.scheme(), settings);
        }
        self.go_on_with_secrets(now, system);
    }

    /// What has waited for secrets begins.
    pub(super) fn go_on_with_secrets(&mut self, now: Instant, system: &mut dyn System) {
        self.withheld = None;
        self.core.iter_mut().for_each(|core| core.resume(now, system));
    }

    fn withdraw(&mut self, now: Instant, system: &mut dyn System, why: Withholding) {
        self.secrets = None;
        let before = self.withheld.replace(why.clone());
        let Some(core) = &mut self.core else { return };
        if before.is_none_or(|before| before != why) {
            tracing::error!("{}: its keys are gone, and what was protected is blocked", why.words);
        }
        // Nothing is left of what the engine knows of the peers.
        let settings = self.setup.settings(&Secrets::default(), true);
        core.cut(now, system, ike::Engine::new(settings, (self.chance)()), why);
        // The last figures of SAs that are gone.
        self.handle_kernel_events(now, system);
        self.ledger.note(now, Persist::Seals);
    }

    /// Why this host still has no secret, which may be another reason by now.
    pub(super) fn note_withholding(&mut self, now: Instant, system: &mut dyn System, why: Withholding) {
        if self.withheld.as_ref() != Some(&why) {
            self.core.iter_mut().for_each(|core| core.note_withholding(now, system, why.clone()));
            self.withheld = Some(why);
        }
    }

    /// Why the files or the secret are not in force.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref().or(self.withheld.as_ref().map(|why| &*why.words))
    }
}
