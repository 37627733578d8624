//! Which addresses packets to the peers leave from: asked for again whenever addresses or routes have changed, and told
//! where that is one without a pair, or where no packet gets to a peer.

use std::time::{Duration, Instant};

use super::Host;
use super::pace::Pace;
use crate::observe::ways_out;
use crate::types::{Problem, WaysOut};

/// How often at most it is asked, and how long after a change: routes may change all the time, and it is one question for
/// each address of a peer.
const PAUSE: Duration = Duration::from_secs(1);
/// The part of the time that may go into it: one of so many.
const SHARE: u32 = 20;

/// How often at most the log says something of it: anybody on a network of this host can announce ways there.
const SILENCE: Duration = Duration::from_secs(60);

/// The last answer, and when it is asked next.
pub(super) struct Ways {
    pace: Pace,
    /// It is being asked.
    asking: bool,
    /// What is wrong with the last answer.
    problems: Vec<Problem>,
    told: Told,
}

/// The problems that the log names already.
#[derive(Default)]
struct Told {
    problems: Vec<Problem>,
    at: Option<Instant>,
    /// When the log is to say the rest.
    due: Option<Instant>,
}

impl Told {
    /// The line for the log about these problems, unless it has said something recently.
    fn note(&mut self, now: Instant, found: &[Problem]) -> Option<String> {
        self.due = None;
        self.problems.retain(|problem| found.contains(problem));
        let mut news = found.iter().filter(|problem| !self.problems.contains(problem));
        let first = news.next()?;
        self.due = self.at.map(|at| at + SILENCE).filter(|until| now < *until);
        if self.due.is_some() {
            return None;
        }
        let words = match news.count() {
            0 => first.message.clone(),
            others => format!("{} ({others} more like it: see `hostseal status`)", first.message),
        };
        *self = Self { problems: found.to_vec(), at: Some(now), due: None };
        Some(words)
    }
}

impl Ways {
    /// Nothing is known yet.
    pub(super) fn new(now: Instant) -> Self {
        let (pace, told) = (Pace::new(now, PAUSE, SHARE), Told::default());
        Self { pace, asking: false, problems: Vec::new(), told }
    }

    /// Addresses, routes or peers may have changed: as long as a change goes on, the answer is of little use.
    pub(super) fn want(&mut self, now: Instant) {
        self.pace.want_at(now + PAUSE);
    }

    /// When something is to be asked or told.
    pub(super) fn deadline(&self) -> Option<Instant> {
        // The question under way comes first.
        let ask = self.pace.deadline().filter(|_| !self.asking);
        ask.into_iter().chain(self.told.due).min()
    }

    /// Tells the rest when it is time.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.told.due.is_some_and(|at| at <= now) {
            self.tell(now);
        }
    }

    fn tell(&mut self, now: Instant) {
        if let Some(words) = self.told.note(now, &self.problems) {
            tracing::warn!("{words}");
        }
    }

    /// What is wrong with the last answer.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl Host {
    /// Whether the ways to the peers are to be asked for; the answer is an input: [`Host::handle_ways`].
    pub fn poll_ways(&mut self, now: Instant) -> bool {
        let Ways { pace, asking, .. } = &mut self.ways;
        let due = !*asking && pace.is_due(now);
        if due {
            pace.begin(now);
            *asking = true;
        }
        due
    }

    /// The ways to the peers, where they could be asked for. The log names once what is wrong with them.
    pub fn handle_ways(&mut self, now: Instant, ways: Option<WaysOut>) {
        self.ways.asking = false;
        self.ways.pace.end(now);
        if let Some(ways) = ways {
            self.ways.problems = ways_out::problems(&self.setup.config, &self.setup.node, &ways);
            self.ways.tell(now);
            if let Some(core) = &mut self.core {
                core.know_vrfs(ways.vrfs);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ProblemCode;

    fn problem(words: &str) -> Problem {
        Problem::critical(ProblemCode::UnlistedSource, None, words.to_owned())
    }

    /// Somebody announces a way from another address each second.
    #[test]
    fn the_log_gets_one_line_a_minute_whatever_is_announced() {
        let (mut told, start) = (Told::default(), Instant::now());
        let lines = (0..600).filter(|second| {
            let now = start + Duration::from_secs(*second);
            told.note(now, &[problem("mine"), problem(&second.to_string())]).is_some()
        });
        assert_eq!(lines.count(), 10);
    }

    #[test]
    fn what_is_asked_already_is_not_due() {
        let now = Instant::now();
        let mut ways = Ways { asking: true, ..Ways::new(now) };
        ways.want(now);
        assert_eq!(ways.deadline(), None, "the loop would wake all the time");
    }

    #[test]
    fn what_stays_is_said_once_and_what_comes_within_the_minute_after_it() {
        let (mut told, start) = (Told::default(), Instant::now());
        let said = |words: &str| Some(words.to_owned());
        let all = [problem("a"), problem("b"), problem("c")];
        assert_eq!(told.note(start, &[]), None);
        assert_eq!(told.note(start, &all[..1]), said("a"));
        assert_eq!(told.note(start, &all[..1]), None);
        let later = start + SILENCE;
        assert_eq!((told.note(start, &all), told.due), (None, Some(later)));
        assert_eq!(told.note(later, &all), said("b (1 more like it: see `hostseal status`)"));
        assert_eq!(told.due, None);
        assert_eq!(told.note(later + SILENCE, &all), None);
        assert_eq!(told.note(later + SILENCE, &[]), None);
        assert_eq!(told.note(later + SILENCE, &all[2..]), said("c"), "it is back");
    }
}
