//! What the last agent left, as far as it can be read, or what stands in its place.

use std::path::Path;

use super::exit::CommandError;
use crate::config::Config;
use crate::store::{Saved, SavedError, enabled};
use crate::types::{KernelState, Problem, ProblemCode, Protection};

/// What to do where no agent runs.
const ENABLE: &str = "`hostseal enable` starts one";
/// What to do where `enable` would not start with this state.
const ANEW: &str = "run `hostseal disable --force`, then `hostseal enable`";
/// What to do where an agent died on the way to the clear.
const FINISH: &str = "`systemctl start hostseal` (or `hostseal agent`) finishes the way to the clear, `hostseal enable` \
                      protects again";

/// What is remembered.
pub(super) struct Remembered {
    pub(super) saved: Saved,
    /// What is wrong with the file.
    pub(super) problem: Option<Problem>,
    /// What the operator is to do where no agent runs.
    pub(super) remedy: &'static str,
}

impl Remembered {
    /// Reads what the agent of `config`, which lies in `file`, left. Where that is lost, the mark of a host that was
    /// enabled stands in its place; where it is broken, the mark tells that too, and the kernel what was in force.
    ///
    /// # Errors
    /// The system refused to read it.
    pub(super) fn load(file: &Path, config: &Config) -> Result<Self, CommandError> {
        let state = config.state_path();
        if let Some(saved) = enabled::in_place_of_lost_state(file, config) {
            let words = format!("{} is lost: every pair counts as sealed", state.display());
            let problem = Some(Problem::critical(ProblemCode::StateNotSaved, None, words));
            return Ok(Self { saved, problem, remedy: ENABLE });
        }
        match Saved::load(&state) {
            Ok(saved) => Ok(Self { saved, problem: None, remedy: ENABLE }),
            Err(error @ SavedError::Broken { .. }) => {
                let protection = if enabled::is_marked(file) { Protection::On } else { Protection::Off };
                let problem = Some(Problem::critical(ProblemCode::StateNotSaved, None, error.to_string()));
                Ok(Self { saved: Saved { protection, ..Saved::default() }, problem, remedy: ANEW })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The same for a host whose kernel holds this: its objects were put there, whatever the file says.
    pub(super) fn seen_beside(mut self, kernel: &KernelState) -> Self {
        if kernel.holds_ours() && self.saved.protection == Protection::Off {
            (self.saved.protection, self.remedy) = match self.problem {
                Some(_) => (Protection::On, ANEW),
                None => (Protection::Disabling, FINISH),
            };
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Node;
    use crate::types::ours::{policy_index, priority};
    use crate::types::{Action, Pair, PolicyDirection, PolicyId, PolicyReading};

    /// The place of a configuration with the nodes a and b.
    struct Place {
        directory: tempfile::TempDir,
        config: Config,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let text = format!(
                "cluster = \"x\"\nstate_dir = \"{}\"\n[[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n\
                 [[nodes]]\nname = \"b\"\naddresses = [\"10.0.0.2\"]\n",
                directory.path().display()
            );
            Self { config: Config::parse(&text, "file").unwrap(), directory }
        }

        fn file(&self) -> std::path::PathBuf {
            self.directory.path().join("hostseal.toml")
        }

        fn node(&self) -> &Node {
            self.config.node_named("a").unwrap()
        }

        fn mark(&self) {
            enabled::mark(&self.file(), &self.node().name).unwrap();
        }

        fn write_state(&self, text: &str) {
            fs::write(self.config.state_path(), text).unwrap();
        }

        /// What a status is built from where the kernel holds this.
        fn seen(&self, kernel: &KernelState) -> (Protection, bool, &'static str) {
            let seen = Remembered::load(&self.file(), &self.config).unwrap().seen_beside(kernel);
            let critical = seen.problem.is_some_and(|problem| problem.is_critical());
            (seen.saved.protection, critical, seen.remedy)
        }
    }

    fn held() -> KernelState {
        let pair = Pair::new("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()).unwrap();
        let policy = PolicyReading {
            id: PolicyId::of(pair, PolicyDirection::Out),
            index: policy_index(PolicyDirection::Out, 0),
            priority: priority::PAIR,
            action: Some(Action::Block),
            until: None,
        };
        KernelState { policies: [(policy.id, policy)].into(), ..KernelState::default() }
    }

    #[test]
    fn a_host_that_never_was_enabled_is_off() {
        assert_eq!(Place::new().seen(&KernelState::default()), (Protection::Off, false, ENABLE));
    }

    #[test]
    fn where_the_state_is_lost_the_mark_says_that_the_host_is_on() {
        let place = Place::new();
        place.mark();
        assert_eq!(place.seen(&KernelState::default()), (Protection::On, true, ENABLE));
        let seen = Remembered::load(&place.file(), &place.config).unwrap();
        assert_eq!(seen.saved.sealed().len(), 1);
        assert!(seen.problem.unwrap().message.contains("state.json is lost"));
    }

    #[test]
    fn where_it_is_broken_the_mark_and_the_kernel_say_what_was_wanted() {
        let place = Place::new();
        place.write_state("{");
        assert_eq!(place.seen(&KernelState::default()), (Protection::Off, true, ANEW));
        assert_eq!(place.seen(&held()), (Protection::On, true, ANEW));
        place.mark();
        assert_eq!(place.seen(&KernelState::default()), (Protection::On, true, ANEW));
    }

    #[test]
    fn what_is_left_in_the_kernel_of_a_host_that_is_off_is_on_its_way_to_the_clear() {
        let place = Place::new();
        assert_eq!(place.seen(&held()), (Protection::Disabling, false, FINISH));
    }
}
