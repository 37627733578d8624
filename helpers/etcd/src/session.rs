//! A session: the way to etcd for one agent, for as long as that is connected. Nothing outlives it: after each break
//! everything is listed again, so there is nothing to get out of step.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hostseal_store_protocol::{StoreNews, StoredEntry, words};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::rustls::ClientConfig;

use crate::agent::{AgentEnd, Gone};
use crate::etcd::{Change, Endpoint, Etcd};
use crate::rpc::RpcError;

/// How often etcd is asked whether it is there, when nothing else happens.
const BEAT: Duration = Duration::from_secs(10);
/// How long all endpoints are left in peace when none answers: at first, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(16);

/// Which store.
pub struct Store {
    /// Where it is.
    pub endpoints: Vec<Endpoint>,
    /// What it proves itself by, and this end to it.
    pub config: Arc<ClientConfig>,
    /// What the names of all entries stand behind.
    pub prefix: String,
}

/// Why an endpoint is not talked to any more.
enum Ended {
    Agent(Gone),
    Etcd(RpcError),
}

impl From<Gone> for Ended {
    fn from(gone: Gone) -> Self {
        Self::Agent(gone)
    }
}

impl From<RpcError> for Ended {
    fn from(error: RpcError) -> Self {
        Self::Etcd(error)
    }
}

impl Store {
    /// Serves the agent until it is gone.
    pub async fn serve(&self, agent: &mut AgentEnd) -> Gone {
        let mut pause = PAUSE;
        let mut failures: Vec<String> = Vec::new();
        for at in (0..self.endpoints.len()).cycle() {
            let endpoint = &self.endpoints[at];
            let mut listed = false;
            let Err(ended) = self.talk(endpoint, agent, &mut listed).await;
            match ended {
                Ended::Agent(gone) => return gone,
                Ended::Etcd(error) => {
                    if listed {
                        // The others may well answer, and this one again after them.
                        (pause, failures) = (PAUSE, Vec::new());
                    }
                    failures.push(format!("{}: {}", endpoint.url, self.explained(&error)));
                }
            }
            if failures.len() >= self.endpoints.len() {
                let why = words(&std::mem::take(&mut failures).join("; "));
                if let Err(gone) = self.rest(agent, why, pause).await {
                    return gone;
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        Gone
    }

    /// Talks to one endpoint until it fails; says in `listed` whether it has told everything.
    async fn talk(
        &self,
        endpoint: &Endpoint,
        agent: &mut AgentEnd,
        listed: &mut bool,
    ) -> Result<Infallible, Ended> {
        let mut etcd = Etcd::connect(endpoint, &self.config, &self.prefix).await?;
        let listing = etcd.list().await?;
        // Before anything is told, so that nothing that is put then is missed.
        let mut changes = etcd.follow(listing.revision).await?;
        // What was put before now may be lost: the agent sees so by what is listed.
        agent.forget()?;
        agent.tell(&StoreNews::Listing).await?;
        for entry in listing.entries {
            agent.tell(&StoreNews::Has(entry)).await?;
        }
        agent.tell(&StoreNews::Listed { strange: listing.strange }).await?;
        *listed = true;
        let mut beat = Instant::now() + BEAT;
        loop {
            tokio::select! {
                changed = changes.next() => tell_changes(agent, changed?).await?,
                put = agent.put() => store(&mut etcd, agent, put?).await?,
                () = sleep_until(beat) => etcd.check().await?,
            }
            beat = Instant::now() + BEAT;
        }
    }

    /// Leaves etcd in peace for a while.
    async fn rest(&self, agent: &mut AgentEnd, why: String, pause: Duration) -> Result<(), Gone> {
        agent.tell(&StoreNews::Away { why }).await?;
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                // The agent puts them again.
                lost = agent.put() => drop(lost?),
                () = sleep_until(end) => return Ok(()),
            }
        }
    }

    fn explained(&self, error: &RpcError) -> String {
        match error {
            RpcError::TooLong => format!(
                "there is more below {} than a roster can be: `etcdctl del --prefix {}` removes it, and the members \
                 store what counts again",
                self.prefix, self.prefix
            ),
            other => other.to_string(),
        }
    }
}

async fn tell_changes(agent: &mut AgentEnd, changes: Vec<Change>) -> Result<(), Gone> {
    for change in changes {
        agent
            .tell(&match change {
                Change::Stored(entry) => StoreNews::Has(entry),
                Change::Gone(name) => StoreNews::Gone { name },
            })
            .await?;
    }
    Ok(())
}

async fn store(etcd: &mut Etcd, agent: &mut AgentEnd, put: StoredEntry) -> Result<(), Ended> {
    match etcd.store(put).await {
        Err(error) if error.is_refusal() => {
            Ok(agent.tell(&StoreNews::Refused { why: words(&error.to_string()) }).await?)
        }
        stored => Ok(stored?),
    }
}
