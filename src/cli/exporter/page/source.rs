//! What is shown. However many look, the agent is asked once for all of them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::task::spawn_blocking;

use super::PageView;
use super::sheet::{self, ROWS_MAX, standing};
use crate::cli::client::{AskError, Client};
use crate::cli::exporter::asked_once::AskedOnce;
use crate::cli::exporter::source::{ScrapeAnswer, in_words};
use crate::observe::member_pairs::ClusterPairs;
use crate::observe::status::Status;

/// For how long a page serves others who look.
const FRESH: Duration = Duration::from_secs(1);
/// How long the agent may take to say how its host stands.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same for all nodes, which it may have to ask first.
const PAIRS_PATIENCE: Duration = Duration::from_secs(5);

/// What the agent says.
type PageAnswers = (Result<Status, AskError>, Result<Option<ClusterPairs>, AskError>);

/// The agent, as those see it who look at the page.
pub(in crate::cli::exporter) struct PageSource {
    client: Arc<Client>,
    /// What was shown last: while the agent is away, it is still worth something.
    last: RefCell<PageView>,
    made: Rc<AskedOnce<ScrapeAnswer>>,
}

impl PageSource {
    pub(in crate::cli::exporter) fn new(client: Client) -> Rc<Self> {
        Rc::new(Self { client: Arc::new(client), last: RefCell::default(), made: AskedOnce::new(FRESH) })
    }

    /// The page.
    pub(in crate::cli::exporter) async fn page(self: &Rc<Self>) -> ScrapeAnswer {
        let made = self.made.get(self.clone().make()).await;
        made.unwrap_or((StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()))
    }

    async fn make(self: Rc<Self>) -> ScrapeAnswer {
        let client = self.client.clone();
        let asked = spawn_blocking(move || {
            let status = client.status_in_turn(PATIENCE);
            // Of an agent that does not answer, nothing else is to be had.
            let pairs = status.as_ref().map_or(Ok(None), |_| client.pairs_in_turn(PAIRS_PATIENCE));
            (status, pairs)
        });
        // Only one page is made at a time.
        let mut last = self.last.take();
        let is_known = match asked.await {
            Ok(answers) => last.take(answers),
            Err(_) => false,
        };
        let html = sheet::document(&last, SystemTime::now().into());
        let status = if is_known { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        self.last.replace(last);
        (status, html.into())
    }
}

impl PageView {
    /// What is not known now stays as it was. Says whether it is known how this host stands.
    fn take(&mut self, (status, pairs): PageAnswers) -> bool {
        let told = [status.as_ref().err(), pairs.as_ref().err()];
        self.trouble = told.into_iter().flatten().map(in_words).collect();
        let is_known = status.is_ok();
        if is_known && let Ok(pairs) = pairs {
            self.pairs = pairs;
        }
        self.status = status.ok().map(worst_first).or(self.status.take());
        is_known
    }
}

/// A status with the rows that are shown, the worst first: what is kept does not grow with the host.
fn worst_first(mut status: Status) -> Status {
    status.peers.sort_by(|a, b| standing(b).cmp(&standing(a)).then_with(|| a.node.cmp(&b.node)));
    status.peers.truncate(ROWS_MAX);
    status.peers.shrink_to_fit();
    status
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster, status};
    use super::*;
    use crate::types::RowState;

    #[test]
    fn what_is_kept_of_a_host_is_bounded_and_the_worst() {
        let mut large = status();
        // Protected, and one in the middle that is clear.
        let (clear, protected) = (large.peers[1].clone(), large.peers[2].clone());
        large.peers = vec![protected; 2 * ROWS_MAX];
        large.peers[ROWS_MAX] = clear;
        let kept = worst_first(large);
        assert_eq!(kept.peers.len(), ROWS_MAX);
        assert_eq!(kept.peers[0].state, RowState::Clear);
    }

    #[test]
    fn while_the_agent_is_away_what_was_known_last_is_shown() {
        let mut view = PageView::default();
        let away = || AskError::NoAgent("/run/hostseal/status.sock".into());
        assert!(!view.take((Err(away()), Ok(None))));
        assert!(view.status.is_none() && view.trouble[0].contains("no agent runs"), "{view:?}");
        let pairs = cluster(&[("a", None)]);
        assert!(view.take((Ok(status()), Ok(Some(pairs.clone())))));
        assert!(view.status.is_some() && view.trouble.is_empty());
        view.take((Err(away()), Ok(None)));
        assert_eq!((view.status.is_some(), view.pairs.as_ref(), view.trouble.len()), (true, Some(&pairs), 1));
        // It answers, and the others take too long.
        assert!(view.take((Ok(status()), Err(away()))));
        assert_eq!((view.pairs.as_ref(), view.trouble.len()), (Some(&pairs), 1));
        // It belongs to no cluster any more.
        view.take((Ok(status()), Ok(None)));
        assert_eq!((view.pairs, view.trouble.len()), (None, 0));
    }
}
