//! What the cluster is to do becomes this host's wish, once for each entry that says so: what its operator wants here since
//! then counts more, until the cluster is to do something else.

use std::time::{Duration, Instant};

use crate::control::Terms;
use crate::host::Host;
use crate::host::system::System;
use crate::host::wish::Wish;
use crate::roster::{ClusterTrial, DesiredProtection, EntryId};
use crate::types::Protection;

/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// What was tried to follow the cluster.
#[derive(Debug, Default)]
pub(super) struct Follower {
    /// What was begun last, and when it is begun again unless it comes to its end.
    begun: Option<(EntryId, Instant)>,
}

impl Follower {
    /// When it is to be tried again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.begun.map(|(_, at)| at)
    }
}

impl Host {
    /// Wishes what the cluster is to do, unless that was done.
    pub(super) fn follow_cluster(&mut self, now: Instant, system: &mut dyn System) {
        if self.wish.is_some() || self.core.is_none() {
            return;
        }
        self.pass_over_lapsed(now);
        let Some((entry, wish)) = self.due_wish() else {
            self.cluster.iter_mut().for_each(|cluster| cluster.follower.begun = None);
            return;
        };
        if matches!(wish, Wish::Enable(_)) && self.awaits_first_answer() {
            // As an order of this host's operator does: before, it would fail where it would succeed a moment later. What
            // was protected is sealed meanwhile, and no answer counts as one after a while.
            self.cluster.iter_mut().for_each(|cluster| cluster.follower.begun = None);
            return;
        }
        let Some(cluster) = &mut self.cluster else { return };
        let waits = |(begun, at): (EntryId, Instant)| begun == entry && at > now;
        if cluster.follower.begun.is_some_and(waits) {
            return;
        }
        cluster.follower.begun = Some((entry, now + PAUSE));
        match &wish {
            Wish::Enable(_) => tracing::info!("the cluster is to be protected: enabling"),
            Wish::Confirm => tracing::info!("the cluster's trial is confirmed"),
            Wish::Disable => tracing::info!("the cluster is to be in the clear: disabling"),
        }
        self.order_for_cluster(now, system, wish, entry);
    }

    /// A trial that was over when this host heard of it is not tried later, whatever becomes of the clock.
    fn pass_over_lapsed(&mut self, now: Instant) {
        let Some((roster, _)) = self.roster() else { return };
        let Some(desired) = &roster.view().desired else { return };
        if self.wish_of(&desired.says).is_none() && self.saved.followed != Some(desired.id) {
            self.saved.followed = Some(desired.id);
            self.ledger.hurry(now);
        }
    }

    /// What the cluster is to do and this host has not done, and the entry that says so.
    fn due_wish(&self) -> Option<(EntryId, Wish)> {
        let (roster, (own, _)) = self.roster()?;
        let view = roster.view();
        if view.removed.iter().any(|removed| removed.line == own) {
            // Nobody talks to it any more. One that is held out stays as it is until an admin decides.
            let is_on = self.saved.protection != Protection::Off;
            return is_on.then_some((own, Wish::Disable));
        }
        let desired = view.desired.as_ref().filter(|desired| self.saved.followed != Some(desired.id))?;
        Some((desired.id, self.wish_of(&desired.says)?))
    }

    /// What comes of it here; nothing where it is a trial that was over when this host heard of it.
    fn wish_of(&self, desired: &DesiredProtection) -> Option<Wish> {
        let lapsed = |trial: ClusterTrial| !trial.before && trial.left(self.moment.wall) == 0;
        if desired.on && desired.trial.is_some_and(lapsed) {
            // What is protected since the cluster was to be is in the clear with it; what its operator wants stays.
            let follows = self.saved.protection == Protection::On && self.saved.followed.is_some();
            return follows.then_some(Wish::Disable);
        }
        let on_trial = self.saved.protection == Protection::On && self.saved.trial.is_some();
        Some(match (desired.on, desired.trial) {
            (false, _) => Wish::Disable,
            (true, None) if on_trial => Wish::Confirm,
            // A trial of what is on already ends as it began.
            (true, Some(trial)) if !trial.before && self.saved.protection == Protection::Off => {
                Wish::Enable(Terms { strict: false, try_s: Some(trial.left(self.moment.wall)) })
            }
            (true, _) => Wish::Enable(Terms::default()),
        })
    }
}
