//! What routing chooses towards the peers, asked for again whenever addresses or routes have changed.

use std::future::pending;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, yield_now};

use crate::host::pace::Pace;
use crate::host::setup::Setup;
use crate::machine::Network;
use crate::observe::sources;
use crate::types::{Problem, Sources};

/// How often at most it is asked, and how long after a change: routes may change all the time, and it is one question for
/// each address of a peer.
const PAUSE: Duration = Duration::from_secs(1);
/// The part of the time that may go into it: one of so many.
const SHARE: u32 = 20;
/// So many ways are asked for at once, some microseconds each.
const AT_ONCE: usize = 16;

/// How often at most the log says something of it: anybody on a network of this host can announce ways there.
const SILENCE: Duration = Duration::from_secs(60);

/// The last answer, and the way to the next.
pub(super) struct Routes {
    /// `None` while it is asked, and where it cannot be.
    network: Option<Network>,
    asking: Option<JoinHandle<(Network, Sources)>>,
    pace: Pace,
    unlisted: Vec<Problem>,
    told: Told,
}

/// Asks for the ways to each of `remotes`, and lets the loop do other things now and then.
async fn ask(mut network: Network, remotes: Vec<IpAddr>) -> (Network, Sources) {
    let mut sources = Sources::new();
    for some in remotes.chunks(AT_ONCE) {
        sources.append(&mut network.sources(some));
        yield_now().await;
    }
    (network, sources)
}

/// The sources without a pair that the log names already.
#[derive(Default)]
struct Told {
    problems: Vec<Problem>,
    at: Option<Instant>,
    /// When the log is to say the rest.
    due: Option<Instant>,
}

impl Told {
    /// What the log is to say where these are the problems, unless it has said something recently.
    fn note(&mut self, now: Instant, unlisted: &[Problem]) -> Option<String> {
        self.due = None;
        self.problems.retain(|problem| unlisted.contains(problem));
        let mut news = unlisted.iter().filter(|problem| !self.problems.contains(problem));
        let first = news.next()?;
        self.due = self.at.map(|at| at + SILENCE).filter(|until| now < *until);
        if self.due.is_some() {
            return None;
        }
        let words = match news.count() {
            0 => first.message.clone(),
            others => format!("{} ({others} more like it: see `hostseal status`)", first.message),
        };
        *self = Self { problems: unlisted.to_vec(), at: Some(now), due: None };
        Some(words)
    }
}

impl Routes {
    /// Nothing is known yet.
    pub(super) fn open(now: Instant) -> Self {
        let network = Network::open();
        let network = network.inspect_err(|error| tracing::warn!("routes cannot be asked for: {error}")).ok();
        let (pace, told) = (Pace::new(now, PAUSE, SHARE), Told::default());
        Self { network, asking: None, pace, unlisted: Vec::new(), told }
    }

    /// Addresses, routes or peers may have changed: as long as a change goes on, the answer is of little use.
    pub(super) fn note_change(&mut self, now: Instant) {
        self.pace.want_at(now + PAUSE);
    }

    /// When [`Routes::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.ask_at().into_iter().chain(self.told.due).min()
    }

    /// What is asked already comes first; where nobody can be asked, never.
    fn ask_at(&self) -> Option<Instant> {
        self.pace.deadline().filter(|_| self.network.is_some())
    }

    /// Asks for the ways to all others, and tells what is left to tell, where it is time to.
    pub(super) fn handle_timeout(&mut self, now: Instant, setup: &Setup) {
        if self.told.due.is_some_and(|at| at <= now) {
            self.tell(now);
        }
        let due = self.ask_at().is_some_and(|at| at <= now);
        if let Some(network) = self.network.take_if(|_| due) {
            self.pace.begin(now);
            let remotes = sources::remotes(&setup.config, &setup.node);
            self.asking = Some(tokio::spawn(ask(network, remotes)));
        }
    }

    /// Waits for the answer to what was asked. The log names each source that has no pair once.
    pub(super) async fn answered(&mut self, setup: &Setup) {
        let Some(asking) = &mut self.asking else { return pending().await };
        let answer = asking.await;
        self.asking = None;
        self.pace.end(Instant::now());
        if let Ok((network, sources)) = answer {
            self.network = Some(network);
            self.unlisted = sources::problems(&setup.config, &setup.node, &sources);
            self.tell(Instant::now());
        }
    }

    fn tell(&mut self, now: Instant) {
        if let Some(words) = self.told.note(now, &self.unlisted) {
            tracing::warn!("{words}");
        }
    }

    /// What is wrong with what was answered last.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.unlisted
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
    fn where_nobody_can_be_asked_nothing_is_due() {
        let now = Instant::now();
        let (pace, told) = (Pace::new(now, PAUSE, SHARE), Told::default());
        let mut routes = Routes { network: None, asking: None, pace, unlisted: Vec::new(), told };
        routes.note_change(now);
        assert_eq!(routes.poll_timeout(), None, "the loop would wake all the time");
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
