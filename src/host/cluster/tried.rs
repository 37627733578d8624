//! Settings that are on trial: this host goes by them for their time, and by those before them afterwards, whoever is there
//! to say so. What an agent finds when it starts it does not try: it cannot know how long that was tried already.

use std::time::{Duration, Instant};

use super::Host;
use crate::roster::{ClusterSettings, EntryId, Newest, RosterView, SettingsTrial};
use crate::types::UnixTime;

/// The settings that this host tries.
#[derive(Debug, Default)]
pub(super) struct TriedSettings {
    /// The newest settings that this host knows of.
    known: Option<EntryId>,
    /// Those that are on trial, and until when.
    tried: Option<(EntryId, Instant)>,
}

impl TriedSettings {
    /// Tries nothing of what `view` has already.
    pub(super) fn of(view: &RosterView) -> Self {
        Self { known: view.settings.as_ref().map(|newest| newest.id), tried: None }
    }

    /// These are the newest settings, at the time of day `wall`.
    fn note(&mut self, now: Instant, wall: UnixTime, newest: Option<&Newest<ClusterSettings>>) {
        let id = newest.map(|newest| newest.id);
        if std::mem::replace(&mut self.known, id) != id {
            let trial = newest.and_then(|newest| Some((newest.id, newest.says.trial.as_ref()?)));
            self.tried = trial.map(|(id, trial)| (id, now + left(trial, wall)));
        }
    }

    /// Ends what is over. Says whether that was anything.
    fn end(&mut self, now: Instant) -> bool {
        self.tried.take_if(|(_, at)| *at <= now).is_some()
    }

    /// The settings that are on trial now.
    pub(super) fn in_force(&self) -> Option<EntryId> {
        self.tried.map(|(id, _)| id)
    }

    /// When that ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.tried.map(|(_, at)| at)
    }
}

/// What is left of a trial for a host that hears of it at `wall`: no more than its length, whatever its clock says.
fn left(trial: &SettingsTrial, wall: UnixTime) -> Duration {
    let until = UnixTime(trial.until.0).since(wall);
    until.min(Duration::from_secs(trial.seconds))
}

impl Host {
    /// The settings of the cluster that are on trial here.
    pub fn tried_settings(&self) -> Option<EntryId> {
        self.cluster.as_ref()?.tried.in_force()
    }

    /// Looks at which settings there are, and which are over; says whether this host goes by others now.
    pub(super) fn look_at_settings(&mut self, now: Instant) -> bool {
        let wall = self.moment.wall;
        let newest = self.roster().and_then(|(roster, _)| roster.view().settings.clone());
        let Some(cluster) = &mut self.cluster else { return false };
        cluster.tried.note(now, wall, newest.as_ref());
        let ended = cluster.tried.end(now);
        if ended {
            tracing::warn!("the settings on trial were not confirmed: this host goes by those before them");
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::{Seconds, Signer, Version};

    const WALL: UnixTime = UnixTime(1_800_000_000);

    fn settings(id: u8, trial: Option<(u64, u64)>) -> Newest<ClusterSettings> {
        let trial = trial.map(|(seconds, until)| SettingsTrial {
            seconds,
            until: Seconds(WALL.0 + until),
            before: String::new(),
        });
        let says = ClusterSettings { toml: String::new(), trial };
        Newest { id: EntryId::new([id; 32]), version: Version(1, 0), by: Signer::new([0; 32]), says }
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_tried_is_over_in_time_and_not_tried_again() {
        let (now, mut tried) = (Instant::now(), TriedSettings::default());
        let newest = settings(1, Some((60, 60)));
        tried.note(now, WALL, Some(&newest));
        assert_eq!((tried.in_force(), tried.deadline()), (Some(newest.id), Some(now + s(60))));
        tried.note(now + s(30), WALL.after(s(30)), Some(&newest));
        assert!(!tried.end(now + s(59)) && tried.end(now + s(60)) && !tried.end(now + s(60)));
        tried.note(now + s(61), WALL.after(s(61)), Some(&newest));
        assert_eq!(tried.in_force(), None);
        // Whoever hears of it late takes what is left; nobody takes more, whatever his clock says.
        tried.note(now, WALL, Some(&settings(2, Some((60, 20)))));
        assert_eq!(tried.deadline(), Some(now + s(20)));
        tried.note(now, WALL, Some(&settings(3, Some((60, 1000)))));
        assert_eq!(tried.deadline(), Some(now + s(60)));
        tried.note(now, WALL.after(s(100)), Some(&settings(4, Some((60, 60)))));
        assert!(tried.end(now));
    }

    #[test]
    fn what_is_confirmed_or_replaced_is_not_on_trial_any_more() {
        let (now, mut tried) = (Instant::now(), TriedSettings::default());
        tried.note(now, WALL, Some(&settings(1, Some((60, 60)))));
        tried.note(now, WALL, Some(&settings(2, None)));
        assert_eq!(tried.in_force(), None);
    }
}
