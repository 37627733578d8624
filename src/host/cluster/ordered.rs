//! Settings that an operator orders for the cluster. Nobody undoes by the way what somebody else has ordered meanwhile, and no
//! member comes to a wrapped secret that it could not try before.

use std::time::Duration;

use anyhow::ensure;

use super::Host;
use crate::config::{ClusterKey, own_part};
use crate::control::SettingsOrder;
use crate::roster::{ClusterSettings, EntryId, RosterView, Seconds, SettingsTrial};
use crate::store::{settings_in_force, shared};
use crate::types::{UnixTime, trial};

/// The entry that says which settings the cluster has; empty while none does.
pub(super) fn settings_entry(view: &RosterView) -> String {
    view.settings.as_ref().map(|newest| newest.id.to_string()).unwrap_or_default()
}

impl Host {
    /// What is signed of an order, if the cluster can go by it.
    pub(super) fn ordered_settings(
        &self,
        (view, own): (&RosterView, EntryId),
        order: SettingsOrder,
        wall: UnixTime,
    ) -> anyhow::Result<ClusterSettings> {
        let SettingsOrder { toml, try_s, after, other_secret } = order;
        if let Some(after) = after {
            // One that is on trial now was not when they were made, or is to be replaced by another trial.
            let on_trial = try_s.is_none() && self.tried_settings().is_some();
            ensure!(
                after == settings_entry(view) && !on_trial,
                "somebody else has changed the settings meanwhile: look at them (`hostseal settings`), and try again"
            );
        }
        let local = own_part(&self.setup.config);
        shared(view, own, self.tried_settings()).check_settings(&toml, &local)?;
        ensure!(
            other_secret || self.was_offered(view, &toml),
            "secret.wrapped is another one than the cluster has or is offered: members would go by it untried, and be cut \
             off if they cannot unwrap it. `hostseal secret wrap` offers it first. To do without that, say --other-secret"
        );
        let trial = match try_s {
            None => None,
            Some(seconds) => {
                ensure!(
                    (1..=trial::LONGEST.as_secs()).contains(&seconds),
                    "a trial lasts a second at least, and a day at most"
                );
                let until = Seconds::from(wall.after(Duration::from_secs(seconds)));
                Some(SettingsTrial { seconds, until, before: settings_in_force(view, None).to_owned() })
            }
        };
        Ok(ClusterSettings { toml, trial })
    }

    /// Whether the wrapped secret in these settings is none, the one in force, or the one that is offered. That all have
    /// unwrapped the latter, `secret wrap` sees to: this keeps a secret out that nobody has been offered.
    fn was_offered(&self, view: &RosterView, toml: &str) -> bool {
        let Some(wanted) = ClusterKey::of(toml).in_force else { return true };
        let known = [self.tried_settings(), None].map(|tried| ClusterKey::of(settings_in_force(view, tried)));
        known.iter().flat_map(|key| key.in_force.iter().chain(&key.next)).any(|it| *it == wanted)
    }
}
