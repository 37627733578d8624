//! The secret may come late, be withdrawn, and come again: each is an input. While it cannot be read yet, the kernel goes
//! on with its SAs. When it is withdrawn, no key of it stays.

use std::time::Instant;

use super::Host;
use super::core::{Persist, Withholding};
use super::setup::Secrets;
use super::system::{Moment, System};
use crate::ike;
use crate::observe::causes;
use crate::types::Protection;

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
        let outcome = match given {
            Ok(secrets) => self.take_secrets(now, system, secrets),
            Err(why) => self.withdraw(now, system, why),
        };
        if let Err(error) = outcome {
            let words = causes::words(error.as_ref());
            tracing::error!("{words}");
            self.withheld = Some(Withholding::internal(words));
        }
    }

    /// Goes on with these secrets, and with what has waited for them.
    fn take_secrets(
        &mut self,
        now: Instant,
        system: &mut dyn System,
        secrets: Secrets,
    ) -> anyhow::Result<()> {
        if self.withheld.take().is_some() {
            tracing::info!("this host has its secret");
        }
        let settings = self.setup.settings(&secrets, false);
        self.secrets = Some(secrets);
        if let Some(core) = &mut self.core {
            core.reconfigure(now, self.moment.wall, system, self.setup.scheme(), settings);
        }
        self.go_on_with_secrets(now, system)
    }

    /// What has waited for secrets begins.
    pub(super) fn go_on_with_secrets(&mut self, now: Instant, system: &mut dyn System) -> anyhow::Result<()> {
        self.withheld = None;
        match &mut self.core {
            Some(core) => core.resume(now, system),
            None if self.protection == Protection::On => self.go_on(now, system)?,
            None => {}
        }
        Ok(())
    }

    fn withdraw(&mut self, now: Instant, system: &mut dyn System, why: Withholding) -> anyhow::Result<()> {
        self.secrets = None;
        if self.core.is_none() && self.protection == Protection::Off {
            return Ok(());
        }
        if self.withheld.replace(why.clone()).is_none_or(|before| before != why) {
            tracing::error!("{}: its keys are gone, and what was protected is blocked", why.words);
        }
        let without = Secrets::default();
        let settings = self.setup.settings(&without, true);
        match &mut self.core {
            // Nothing is left of what the engine knows of the peers.
            Some(core) => core.cut(now, system, ike::Engine::new(settings, (self.chance)()), why),
            // The kernel goes on with what an agent before this one has left, until this one keeps the pairs.
            None => {
                self.work_with(now, system, settings)?;
                if let Some(core) = &mut self.core {
                    core.begin_cut(why);
                }
                self.go_on(now, system)?;
            }
        }
        // The last figures of SAs that are gone.
        self.handle_kernel_events(now, system);
        self.ledger.note(now, Persist::Seals);
        Ok(())
    }

    /// Why the files or the secret are not in force.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref().or(self.withheld.as_ref().map(|why| &*why.words))
    }
}
