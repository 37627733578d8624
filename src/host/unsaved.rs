//! What should have been written to the state directory and was not: it is named, and tried again.

use std::fmt;
use std::time::{Duration, Instant};

use crate::types::{Problem, ProblemCode};

/// The first pause before writing is tried again; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What could not be written last, and why.
#[derive(Debug, Default)]
pub struct Unsaved {
    state: LastWrite,
    config: LastWrite,
    roster: LastWrite,
}

/// Something that could not be written, so many times in a row.
#[derive(Debug, Default)]
struct LastWrite {
    error: Option<String>,
    times: u32,
}

impl Unsaved {
    /// The state was written, or could not be. Returns when to try again.
    pub fn note_state<T, E: fmt::Display>(
        &mut self,
        now: Instant,
        outcome: &Result<T, E>,
    ) -> Option<Instant> {
        self.state.note(now, outcome)
    }

    /// The configuration in force was kept, or could not be. Returns when to try again.
    pub fn note_config<T, E: fmt::Display>(
        &mut self,
        now: Instant,
        outcome: &Result<T, E>,
    ) -> Option<Instant> {
        self.config.note(now, outcome)
    }

    /// The roster of the cluster was written, or could not be. Returns when to try again.
    pub fn note_roster<T, E: fmt::Display>(
        &mut self,
        now: Instant,
        outcome: &Result<T, E>,
    ) -> Option<Instant> {
        self.roster.note(now, outcome)
    }

    /// Whether what must survive a reboot is still to be written.
    pub fn lacks_state(&self) -> bool {
        self.state.error.is_some()
    }

    /// What is wrong, for `status`.
    pub fn problems(&self) -> Vec<Problem> {
        let state = self.state.error.as_ref().map(|error| {
            format!(
                "the state cannot be written: {error}. After a reboot this host would not know \
                 what is sealed, and would send it in the clear. Make room; the agent tries again by itself"
            )
        });
        let config = self.config.error.as_ref().map(|error| {
            format!(
                "the configuration in force cannot be kept: {error}. If the file is broken at the next start, this \
                 host does not know what to protect. Make room; the agent tries again by itself"
            )
        });
        let roster = self.roster.error.as_ref().map(|error| {
            format!(
                "what is new in the cluster cannot be written: {error}. This host would have to hear it again after its \
                 next start. Make room; the agent tries again by itself"
            )
        });
        let problem = |words| Problem::critical(ProblemCode::StateNotSaved, None, words);
        state.into_iter().chain(config).chain(roster).map(problem).collect()
    }
}

impl LastWrite {
    /// Says in the log what is new: not each time, as it may go on for days. Returns when to try again.
    fn note<T, E: fmt::Display>(&mut self, now: Instant, outcome: &Result<T, E>) -> Option<Instant> {
        let words = outcome.as_ref().err().map(ToString::to_string);
        match (&words, &self.error) {
            (Some(words), before) if before.as_ref() != Some(words) => tracing::error!("{words}"),
            (None, Some(before)) => tracing::info!("written at last; before: {before}"),
            _ => {}
        }
        self.error = words;
        self.times = if outcome.is_err() { self.times.saturating_add(1) } else { 0 };
        let doublings = self.times.checked_sub(1)?.min(16);
        Some(now + PAUSE_FIRST.saturating_mul(1 << doublings).min(PAUSE_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_is_tried_again_with_growing_pauses_until_it_succeeds() {
        let now = Instant::now();
        let mut unsaved = Unsaved::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let again = unsaved.note_state(now, &Err::<(), _>("no space left")).unwrap();
            pauses.push((again - now).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        let [problem] = &unsaved.problems()[..] else { panic!("{:?}", unsaved.problems()) };
        assert!(problem.is_critical() && problem.code == ProblemCode::StateNotSaved);
        assert!(problem.message.contains("no space left"), "{}", problem.message);
        assert_eq!(unsaved.note_state(now, &Ok::<(), String>(())), None);
        assert!(unsaved.problems().is_empty());
        let again = unsaved.note_state(now, &Err::<(), _>("again"));
        assert_eq!(again, Some(now + PAUSE_FIRST), "from the beginning");
    }

    #[test]
    fn a_configuration_that_could_not_be_kept_is_named_too_and_tried_on_its_own() {
        let (now, mut unsaved) = (Instant::now(), Unsaved::default());
        let mut pauses = Vec::new();
        for _ in 0..4 {
            pauses.push(unsaved.note_config(now, &Err::<(), _>("no space left")).unwrap() - now);
            // There is room for the state, which is smaller.
            assert_eq!(unsaved.note_state(now, &Ok::<(), String>(())), None);
        }
        assert_eq!(pauses, [1, 2, 4, 8].map(|pause| PAUSE_FIRST * pause));
        assert_eq!(unsaved.problems().len(), 1);
        assert_eq!(unsaved.note_config(now, &Ok::<(), String>(())), None);
        assert!(unsaved.problems().is_empty());
    }
}
