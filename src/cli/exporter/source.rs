//! What the agent says. However many ask the exporter, it asks once for all of them.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::memory::Memory;
use crate::cli::client::{AskError, Client};
use crate::cli::metrics::ask;
use crate::observe::Figures;
use crate::observe::metrics::{self, LastKnown};

/// For how long an answer serves others who ask.
const FRESH: Duration = Duration::from_millis(250);

/// The agent, as seen from here.
pub(super) struct AgentSource {
    client: Arc<Client>,
    memory: RefCell<Memory>,
    /// Pairs have had series: they keep them until the exporter ends.
    with_pairs: Cell<bool>,
    /// What was said last, and when.
    said: Mutex<Option<(Instant, (StatusCode, Bytes))>>,
}

impl AgentSource {
    pub(super) fn new(client: Client, memory: Memory) -> Self {
        Self {
            client: Arc::new(client),
            memory: RefCell::new(memory),
            with_pairs: Cell::new(false),
            said: Mutex::new(None),
        }
    }

    /// All series, or why there are none.
    pub(super) async fn metrics(&self) -> (StatusCode, Bytes) {
        // Those who come meanwhile wait here, and are served by the same answer.
        let mut said = self.said.lock().await;
        if let Some((at, page)) = said.as_ref()
            && at.elapsed() < FRESH
        {
            return page.clone();
        }
        let (client, pairs) = (self.client.clone(), self.with_pairs.get().then_some(true));
        let asked = spawn_blocking(move || ask(&client, pairs)).await;
        let page = match asked {
            Ok(answer) => self.page(answer),
            Err(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, Bytes::from_static(b"the question came to nothing\n"))
            }
        };
        *said = Some((Instant::now(), page.clone()));
        page
    }

    fn page(&self, answer: Result<Option<Figures>, AskError>) -> (StatusCode, Bytes) {
        match answer {
            Ok(Some(figures)) => {
                self.with_pairs.set(figures.pairs.is_some());
                self.memory.borrow_mut().note(LastKnown::from(&figures));
                (StatusCode::OK, metrics::text(&figures).into())
            }
            Ok(None) => (StatusCode::OK, metrics::away(self.memory.borrow().last()).into()),
            // The agent may be fine: it is not for the exporter to say that it is not.
            Err(AskError::NotPermitted(socket)) => {
                let words = format!(
                    "{}: permission denied: run the exporter in the group hostseal, which the agent finds when it starts\n",
                    socket.display()
                );
                (StatusCode::SERVICE_UNAVAILABLE, words.into())
            }
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n").into()),
        }
    }
}
