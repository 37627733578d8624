//! What routing chooses towards the peers, asked for again whenever addresses or routes have changed.

use std::future::pending;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::pace::Pace;
use super::setup::Setup;
use crate::model::Problem;
use crate::route::{self, Sources, Table};

/// How often at most it is asked: routes may change all the time, and it is one question for each address of a peer.
const PAUSE: Duration = Duration::from_secs(1);
/// The part of the time that may go into it: one of so many.
const SHARE: u32 = 20;

/// The last answer, and the way to the next.
pub(super) struct Routes {
    /// `None` where the routing table cannot be asked.
    table: Option<Table>,
    asking: Option<JoinHandle<Sources>>,
    pace: Pace,
    /// When what is being asked was.
    asked: Instant,
    unlisted: Vec<Problem>,
}

impl Routes {
    /// Nothing is known yet.
    pub(super) fn open(now: Instant) -> Self {
        let table = Table::open();
        let table = table.inspect_err(|error| tracing::warn!("routes cannot be asked for: {error}")).ok();
        Self { table, asking: None, pace: Pace::new(now, PAUSE, SHARE), asked: now, unlisted: Vec::new() }
    }

    /// Addresses, routes or peers may have changed.
    pub(super) fn note_change(&mut self) {
        self.pace.want();
    }

    /// When [`Routes::handle_timeout`] is due; what is asked already comes first.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.pace.deadline().filter(|_| self.asking.is_none())
    }

    /// Asks for the ways to all others, where it is time to.
    pub(super) fn handle_timeout(&mut self, now: Instant, setup: &Setup) {
        let due = self.poll_timeout().is_some_and(|at| at <= now);
        if let Some(table) = self.table.clone().filter(|_| due) {
            self.pace.rest();
            self.asked = now;
            let remotes = route::remotes(&setup.config, &setup.node);
            self.asking = Some(tokio::spawn(async move { table.towards(remotes).await }));
        }
    }

    /// Waits for the answer to what was asked, and says once of each source that has no pair.
    pub(super) async fn answered(&mut self, setup: &Setup) {
        let Some(asking) = &mut self.asking else { return pending().await };
        let answer = asking.await;
        self.asking = None;
        self.pace.done_beside(self.asked, Instant::now());
        if let Ok(sources) = answer {
            let unlisted = route::unlisted(&setup.config, &setup.node, &sources);
            let news = unlisted.iter().filter(|problem| !self.unlisted.contains(problem));
            news.for_each(|problem| tracing::warn!("{}", problem.message));
            self.unlisted = unlisted;
        }
    }

    /// What is wrong with what was answered last.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.unlisted
    }
}
