//! What routing chooses towards the peers, asked for without anybody waiting for the answer.

use std::future::pending;
use std::net::IpAddr;

use tokio::task::{JoinHandle, yield_now};

use crate::host::setup::Setup;
use crate::machine::Network;
use crate::observe::sources;
use crate::types::WaysOut;

/// So many ways are asked for at once, some microseconds each.
const AT_ONCE: usize = 16;

/// The connection to ask over, and a question that is under way.
pub(super) struct Routes {
    /// `None` while it is asked, and where it cannot be.
    network: Option<Network>,
    asking: Option<JoinHandle<(Network, WaysOut)>>,
}

/// Asks for the ways to each of `remotes`, and lets the loop do other things now and then.
async fn ask(mut network: Network, remotes: Vec<IpAddr>) -> (Network, WaysOut) {
    let mut ways = WaysOut { vrfs: network.vrfs().unwrap_or_default(), ..WaysOut::default() };
    for some in remotes.chunks(AT_ONCE) {
        ways.sources.append(&mut network.sources(some));
        yield_now().await;
    }
    (network, ways)
}

impl Routes {
    /// Nothing is asked yet.
    pub(super) fn open() -> Self {
        let network = Network::open();
        let network = network.inspect_err(|error| tracing::warn!("routes cannot be asked for: {error}")).ok();
        Self { network, asking: None }
    }

    /// Asks for the ways to all others. Where nobody can be asked there is no answer.
    pub(super) fn ask(&mut self, setup: &Setup) {
        if let Some(network) = self.network.take() {
            let remotes = sources::remotes(&setup.config, &setup.node);
            self.asking = Some(tokio::spawn(ask(network, remotes)));
        }
    }

    /// Waits for the answer to what was asked; `None` where that has failed.
    pub(super) async fn answer(&mut self) -> Option<WaysOut> {
        let Some(asking) = &mut self.asking else { return pending().await };
        let answer = asking.await;
        self.asking = None;
        let (network, ways) = answer.ok()?;
        self.network = Some(network);
        Some(ways)
    }
}
