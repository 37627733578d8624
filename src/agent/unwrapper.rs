//! Has the secret unwrapped by the KMS that the files name, beside the loop: the KMS may take its time.

use std::future::pending;
use std::sync::Arc;

use hostseal_kms_protocol::Refusal;

use super::writer::Writer;
use crate::config::Config;
use crate::host::lease::AskId;
use crate::host::setup::Setup;
use crate::host::unwrap::Unwrapped;
use crate::identity::Secret;
use crate::store::kms::{self, KmsAnswer, KmsGift, KmsRefusal};

/// One ask after the other.
#[derive(Default)]
pub(super) struct Unwrapper {
    /// There is none before there is an ask.
    worker: Option<Writer<Unwrapped>>,
    /// An ask has not ended.
    is_busy: bool,
}

impl Unwrapper {
    /// Begins an ask. Where there is no thread for it, or the one before has not ended, no answer comes: the host counts
    /// that, and asks again.
    pub(super) fn begin(&mut self, ask: AskId, setup: &Setup) {
        if self.is_busy {
            return;
        }
        if self.worker.is_none() {
            let started = Writer::start("hostseal-kms");
            let started =
                started.inspect_err(|error| tracing::error!("there is no thread to ask a KMS: {error}"));
            self.worker = started.ok();
        }
        let Some(worker) = &self.worker else { return };
        let config = setup.config.clone();
        self.is_busy = true;
        worker.begin(move || Unwrapped { ask, answer: unwrap(&config), rules: config.kms });
    }

    /// What came of the oldest, once it is over.
    pub(super) async fn outcome(&mut self) -> Unwrapped {
        let outcome = match &self.worker {
            Some(worker) => worker.outcome().await,
            None => pending().await,
        };
        self.is_busy = false;
        outcome
    }
}

fn unwrap(config: &Config) -> KmsAnswer<KmsGift<Arc<Secret>>> {
    match &config.kms {
        Some(kms) => kms::unwrap(config, kms),
        None => Err(KmsRefusal::because(Refusal::Unavailable, "[kms] is missing".to_owned())),
    }
}
