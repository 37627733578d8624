//! Asks AWS, with its official SDK.

use std::env;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_kms::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_kms::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kms::error::BoxError;
use aws_sdk_kms::operation::RequestId;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::{Client, Config};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hostseal_kms_protocol::{Answer, Context, Given, Question, Refusal};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::key;
use crate::verdict::{is_about_state, of_error, of_metadata, unavailable};

/// How often one thing is asked at most: the agent asks again in any case.
const ATTEMPTS: u32 = 2;
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Where the environment says whom to ask instead of AWS, for all of it or for a service that is asked here.
const ENDPOINTS: [&str; 3] = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL_STS"];

/// Asks AWS, and says by `end` what came of it.
pub async fn answer(question: Question, end: Instant) -> Answer {
    // Credentials of a web identity are had from another service, which [`OnlyEncrypted`] does not see.
    if let Some((name, url)) = unencrypted(|name| env::var(name).ok()) {
        return unavailable(format!(
            "{name} is {url}, which is asked without TLS: the secret could be read on the way"
        ));
    }
    match question {
        Question::Decrypt { key, context, blob } => decrypt(&key, context, blob, end).await,
        Question::Encrypt { key, context, plaintext } => encrypt(&key, context, &plaintext, end).await,
        Question::Describe { key } => describe(&client(&key).await, &key).await,
        Question::Reencrypt { key, context, blob, new_key } => reencrypt(&key, context, blob, &new_key).await,
    }
}

async fn decrypt(key: &str, context: Context, blob: Vec<u8>, end: Instant) -> Answer {
    let client = client(key).await;
    let ask = client.decrypt().key_id(key).ciphertext_blob(Blob::new(blob));
    match ask.set_encryption_context(Some(context.into_iter().collect())).send().await {
        Ok(mut given) => {
            let request_id = request_id(&given);
            let octets = given.plaintext.take().map(|octets| Zeroizing::new(octets.into_inner()));
            let outcome = octets.map(Given::Plaintext).ok_or(Refusal::Unavailable);
            Answer { outcome, why: None, request_id }
        }
        Err(error) if is_about_state(&error) => state(&client, key, of_error(&error), end).await,
        Err(error) => of_error(&error),
    }
}

async fn encrypt(key: &str, context: Context, plaintext: &[u8], end: Instant) -> Answer {
    let client = client(key).await;
    let ask = client.encrypt().key_id(key).plaintext(Blob::new(plaintext));
    match ask.set_encryption_context(Some(context.into_iter().collect())).send().await {
        Ok(given) => wrapped(given.ciphertext_blob.as_ref(), request_id(&given)),
        Err(error) if is_about_state(&error) => state(&client, key, of_error(&error), end).await,
        Err(error) => of_error(&error),
    }
}

async fn reencrypt(key: &str, context: Context, blob: Vec<u8>, new_key: &str) -> Answer {
    let regions = [key, new_key].map(key::region);
    if let [Some(old), Some(new)] = regions
        && old != new
    {
        return unavailable(format!(
            "AWS wraps nothing anew from {old} to {new}: use `hostseal secret wrap` with the new key"
        ));
    }
    let context = Some(context.into_iter().collect());
    let ask = client(key).await.re_encrypt().source_key_id(key).destination_key_id(new_key);
    let ask = ask.set_source_encryption_context(context.clone()).set_destination_encryption_context(context);
    match ask.ciphertext_blob(Blob::new(blob)).send().await {
        Ok(given) => wrapped(given.ciphertext_blob.as_ref(), request_id(&given)),
        // It may be the state of either key.
        Err(error) => of_error(&error),
    }
}

fn wrapped(blob: Option<&Blob>, request_id: Option<String>) -> Answer {
    let blob = blob.map(|blob| Given::Blob(STANDARD.encode(blob)));
    Answer { outcome: blob.ok_or(Refusal::Unavailable), why: None, request_id }
}

async fn describe(client: &Client, key: &str) -> Answer {
    match client.describe_key().key_id(key).send().await {
        Ok(given) => of_metadata(given.key_metadata(), given.request_id()),
        Err(error) => of_error(&error),
    }
}

/// How the key stands that AWS has refused for its state, in more than the `words` of that: who may ask gets a date too.
/// An answer to this is not worth more than what was said already.
async fn state(client: &Client, key: &str, words: Answer, end: Instant) -> Answer {
    let described = timeout_at(end, describe(client, key)).await;
    match described {
        Ok(Answer { outcome: Err(refusal @ (Refusal::PendingDeletion(_) | Refusal::Disabled)), .. }) => {
            Answer { outcome: Err(refusal), ..words }
        }
        _ => words,
    }
}

/// The first of [`ENDPOINTS`] that is not encrypted, as `value` says them.
fn unencrypted(value: impl Fn(&str) -> Option<String>) -> Option<(&'static str, String)> {
    let said = ENDPOINTS.into_iter().filter_map(|name| Some((name, value(name)?)));
    said.into_iter().find(|(_, url)| !url.is_empty() && !url.starts_with("https://"))
}

/// Who asks in the region of the key.
async fn client(key: &str) -> Client {
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(timeouts);
    if let Some(region) = key::region(key) {
        loader = loader.region(Region::new(region.to_owned()));
    }
    let config = Config::from(&loader.load().await).to_builder().interceptor(OnlyEncrypted).build();
    Client::from_conf(config)
}

fn request_id(given: &impl RequestId) -> Option<String> {
    given.request_id().map(str::to_owned)
}

/// Lets nothing leave that could be read on the way: the answer holds the secret.
#[derive(Debug)]
struct OnlyEncrypted;

impl Intercept for OnlyEncrypted {
    fn name(&self) -> &'static str {
        "OnlyEncrypted"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let uri = context.request().uri();
        match uri.starts_with("https://") {
            true => Ok(()),
            false => Err(format!("{uri} is asked without TLS: the secret could be read on the way").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::unencrypted;

    #[test]
    fn whom_to_ask_is_named_with_tls() {
        let with = |name: &'static str, url: &str| {
            let url = url.to_owned();
            unencrypted(move |asked| (asked == name).then(|| url.clone()))
        };
        assert_eq!(with("AWS_ENDPOINT_URL_STS", "http://s").map(|it| it.0), Some("AWS_ENDPOINT_URL_STS"));
        assert_eq!(with("AWS_ENDPOINT_URL", "kms.example").map(|it| it.0), Some("AWS_ENDPOINT_URL"));
        assert_eq!(with("AWS_ENDPOINT_URL_KMS", "https://k"), None);
        assert_eq!(with("AWS_ENDPOINT_URL", ""), None);
        assert_eq!(with("HOME", "http://s"), None);
    }
}
