//! What the agent says. However many ask the exporter, it asks once for all of them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::task::spawn_blocking;

use super::asked_once::AskedOnce;
use super::memory::Memory;
use crate::cli::client::{AskError, Client};
use crate::cli::metrics::{AgentWord, ask};
use crate::observe::metrics::{self, LastKnown};

/// For how long an answer serves others who ask.
const FRESH: Duration = Duration::from_millis(250);

/// A status, and what there is to read.
pub(super) type ScrapeAnswer = (StatusCode, Bytes);

/// The agent, as seen from here.
pub(super) struct AgentSource {
    client: Arc<Client>,
    memory: RefCell<Memory>,
    /// Pairs have had series: they keep them until the exporter ends.
    with_pairs: Cell<bool>,
    said: Rc<AskedOnce<ScrapeAnswer>>,
}

impl AgentSource {
    pub(super) fn new(client: Client, memory: Memory) -> Rc<Self> {
        Rc::new(Self {
            client: Arc::new(client),
            memory: RefCell::new(memory),
            with_pairs: Cell::new(false),
            said: AskedOnce::new(FRESH),
        })
    }

    /// All series, or why there are none.
    pub(super) async fn metrics(self: &Rc<Self>) -> ScrapeAnswer {
        self.said.get(self.clone().ask()).await.unwrap_or_else(came_to_nothing)
    }

    async fn ask(self: Rc<Self>) -> ScrapeAnswer {
        let (client, pairs) = (self.client.clone(), self.with_pairs.get().then_some(true));
        let asked = spawn_blocking(move || ask(&client, pairs)).await;
        asked.map_or_else(|_| came_to_nothing(), |answer| self.series(answer))
    }

    fn series(&self, answer: Result<AgentWord, AskError>) -> ScrapeAnswer {
        match answer {
            Ok(AgentWord::Figures(figures)) => {
                self.with_pairs.set(figures.pairs.is_some());
                self.memory.borrow_mut().note(LastKnown::from(&*figures));
                (StatusCode::OK, metrics::text(&figures).into())
            }
            Ok(word) => {
                let mut memory = self.memory.borrow_mut();
                if matches!(word, AgentWord::Ended) {
                    memory.end();
                }
                (StatusCode::OK, metrics::away(memory.last()).into())
            }
            // The agent may be fine: it is not for the exporter to say that it is not.
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", in_words(&error)).into()),
        }
    }
}

/// Why the agent says nothing, to whoever asks the exporter.
pub(super) fn in_words(error: &AskError) -> String {
    match error {
        AskError::NotPermitted(socket) => format!(
            "{}: permission denied: run the exporter in the group hostseal, which the agent finds when it starts",
            socket.display()
        ),
        error => error.to_string(),
    }
}

fn came_to_nothing() -> ScrapeAnswer {
    (StatusCode::INTERNAL_SERVER_ERROR, Bytes::from_static(b"the question came to nothing\n"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixListener;

    use tokio::task::LocalSet;
    use tokio::time::timeout;

    use super::*;
    use crate::config::Mode;
    use crate::observe::metrics::LastKeys;
    use crate::observe::status::Summary;
    use crate::types::{Protection, UnixTime};

    /// The kernel goes on with its keys only where an agent has left its socket.
    #[test]
    fn keys_of_an_agent_that_is_gone_are_shown_as_long_as_it_has_left_some() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        let mut memory = Memory::open(None, String::new(), None);
        memory.note(LastKnown {
            cluster: "c".to_owned(),
            node: None,
            mode: Mode::Require,
            protection: Protection::On,
            keys: Some(LastKeys { summary: Summary::default(), earliest_expiry: Some(UnixTime(7)) }),
        });
        let source = AgentSource::new(Client::new(path.clone()), memory);
        let shows_keys = || {
            let (_, page) = source.series(ask(&source.client, None));
            String::from_utf8_lossy(&page).contains("\nhostseal_earliest_expiry_timestamp_seconds 7\n")
        };
        assert!(shows_keys());
        std::fs::remove_file(&path).unwrap();
        assert!(!shows_keys());
    }

    /// A client that has gone, or was let go of, is no reason to ask again, nor for others to wait in vain.
    #[test]
    fn the_answer_outlives_those_who_asked_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let agent = UnixListener::bind(&path).unwrap();
        let source = AgentSource::new(Client::new(path), Memory::open(None, String::new(), None));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            for _ in 0..3 {
                timeout(Duration::from_millis(20), source.metrics()).await.unwrap_err();
            }
            let (mut asked, _) = agent.accept().unwrap();
            agent.set_nonblocking(true).unwrap();
            agent.accept().unwrap_err();
            asked.write_all(b"{}\n").unwrap();
            let (status, words) = source.metrics().await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{words:?}");
            agent.accept().unwrap_err();
        });
    }
}
