//! Has the secret unwrapped by the KMS that the files name, beside the loop: the KMS may take its time.

use std::future::pending;

use hostseal_kms_protocol::Refusal;

use super::writer::Writer;
use crate::host::lease::AskId;
use crate::host::setup::{Secrets, Setup};
use crate::host::unwrap::Unwrapped;
use crate::identity::AuthMethod;
use crate::store::kms::{self, KmsRefusal};
use crate::store::{CredentialsError, credentials};

/// One ask after the other.
#[derive(Default)]
pub(super) struct Unwrapper {
    /// There is none before there is an ask.
    worker: Option<Writer<Unwrapped>>,
}

impl Unwrapper {
    /// Begins an ask. Where there is no thread for it, no answer comes: the host counts that.
    pub(super) fn begin(&mut self, ask: AskId, setup: &Setup) {
        if self.worker.is_none() {
            let started = Writer::start("hostseal-kms");
            let started =
                started.inspect_err(|error| tracing::error!("there is no thread to ask a KMS: {error}"));
            self.worker = started.ok();
        }
        let Some(worker) = &self.worker else { return };
        let (config, node) = (setup.config.clone(), setup.node.clone());
        worker.begin(move || {
            let asked = config.kms.as_ref().map(|kms| kms::unwrap(&config, kms));
            let gift = match asked {
                Some(Ok(gift)) => gift,
                Some(Err(KmsRefusal { refusal, why, request_id })) => {
                    return Unwrapped { ask, secrets: Err(refusal), why, request_id };
                }
                None => {
                    return Unwrapped {
                        ask,
                        secrets: Err(Refusal::Unavailable),
                        why: None,
                        request_id: None,
                    };
                }
            };
            let (secrets, why) = match credentials::load_with(&config, &node, Some(&gift.given)) {
                Ok(credentials) => {
                    let secret = config.uses(AuthMethod::Secret).then_some(gift.given);
                    (Ok(Secrets::unwrapped(secret, credentials)), None)
                }
                Err(error) => (Err(Refusal::Unavailable), Some(CredentialsError::to_string(&error))),
            };
            Unwrapped { ask, secrets, why, request_id: gift.request_id }
        });
    }

    /// What came of the oldest, once it is over.
    pub(super) async fn outcome(&self) -> Unwrapped {
        match &self.worker {
            Some(worker) => worker.outcome().await,
            None => pending().await,
        }
    }
}
