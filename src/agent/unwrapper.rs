//! Has the secret unwrapped by the KMS that the files name, beside the loop: the KMS may take its time.

use std::future::pending;
use std::sync::Arc;

use hostseal_kms_protocol::Refusal;

use super::writer::Writer;
use crate::config::{Config, OfferedSecret};
use crate::host::OfferTried;
use crate::host::lease::AskId;
use crate::host::setup::Setup;
use crate::host::unwrap::Unwrapped;
use crate::identity::Secret;
use crate::store::kms::{self, KmsAnswer, KmsGift, KmsRefusal};

/// One ask after the other; what comes of each is a `T`.
pub(super) struct Unwrapper<T> {
    /// There is none before there is an ask.
    worker: Option<Writer<T>>,
    /// An ask has not ended.
    is_busy: bool,
}

impl<T> Default for Unwrapper<T> {
    fn default() -> Self {
        Self { worker: None, is_busy: false }
    }
}

impl Unwrapper<Unwrapped> {
    /// Asks for the secret of this host.
    pub(super) fn ask(&mut self, ask: AskId, setup: &Setup) {
        let config = setup.config.clone();
        self.begin(move || Unwrapped { ask, answer: unwrap(&config), rules: config.kms });
    }
}

impl Unwrapper<OfferTried> {
    /// Tries what the cluster offers. What comes is compared, and gone.
    pub(super) fn try_out(&mut self, offer: OfferedSecret, setup: &Setup) {
        let cluster = setup.config.cluster.clone();
        self.begin(move || {
            let answer = kms::unwrap_blob(&cluster, &offer.rules, &offer.wrapped);
            let answer = answer.map(|KmsGift { why, request_id, .. }| KmsGift { given: (), why, request_id });
            OfferTried { offer, answer }
        });
    }
}

impl<T: Send + 'static> Unwrapper<T> {
    /// Begins an ask. Where there is no thread for it, or the one before has not ended, no answer comes: the host counts
    /// that, and asks again.
    fn begin(&mut self, job: impl FnOnce() -> T + Send + 'static) {
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
        self.is_busy = true;
        worker.begin(job);
    }

    /// What came of the oldest, once it is over.
    pub(super) async fn outcome(&mut self) -> T {
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
