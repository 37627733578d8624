//! Transit: what is asked of a key, as requests to Vault.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hostseal_kms_protocol::{Answer, Context, Given, PLAINTEXT_MAX, Question, Refusal};
use serde::Serialize;
use tokio::time::sleep;
use zeroize::Zeroizing;

use crate::http::{Client, json};
use crate::key::{Binding, Key};
use crate::login::{self, Token};
use crate::refused::Refused;
use crate::says::{CANNOT_BIND, Reply};
use crate::settings::Settings;

/// The kind of key that Vault is to make if the one that is to wrap does not exist: none. It would make one with all
/// defaults for whoever may create keys and has mistyped a name, and says that it does not know this kind instead. Of a
/// key that exists it ignores what kind is wished for.
const NO_KIND: &str = "none";
/// How long nodes of a Vault may take to hear of a token that one of them has just given.
const SPREAD: Duration = Duration::from_millis(500);
/// The kinds of keys that authenticate data with what they wrap.
const BINDING_KINDS: [&str; 4] = ["aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"];

/// Vault, for one ask.
pub struct Transit {
    client: Client,
    token: Token,
}

/// What a request says beside its path.
#[derive(Default, Serialize)]
struct Parameters<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    associated_data: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
}

/// What Vault has given, and its number of the request.
struct Gift {
    given: Given,
    request_id: Option<String>,
}

impl From<Gift> for Answer {
    fn from(Gift { given, request_id }: Gift) -> Self {
        Self { outcome: Ok(given), why: None, request_id }
    }
}

impl Transit {
    /// Proves this host to Vault.
    ///
    /// # Errors
    /// Vault does not know it, or cannot be asked.
    pub async fn begin(settings: &Settings) -> Result<Self, Refused> {
        let client = Client::new(settings)?;
        let token = login::token(&client, &settings.login).await?;
        Ok(Self { client, token })
    }

    /// What Vault says to a question.
    ///
    /// # Errors
    /// It gives nothing.
    pub async fn ask(&self, question: &Question) -> Result<Answer, Refused> {
        let said = self.answer(question).await.map_err(|refused| refused.without(self.token.value()));
        self.token.give_back(&self.client).await;
        said
    }

    async fn answer(&self, question: &Question) -> Result<Answer, Refused> {
        match question {
            Question::Decrypt { key, context, blob } => {
                self.decrypt(&Key::read(key)?, context, blob).await.map(Into::into)
            }
            Question::Encrypt { key, context, plaintext } => {
                self.encrypt(&Key::read(key)?, context, plaintext).await.map(Into::into)
            }
            Question::Describe { key } => self.describe(&Key::read(key)?).await,
            Question::Reencrypt { key, context, blob, new_key } => {
                self.reencrypt(&Key::read(key)?, context, blob, &Key::read(new_key)?).await
            }
        }
    }

    async fn decrypt(&self, key: &Key, context: &Context, blob: &[u8]) -> Result<Gift, Refused> {
        let (binding, ciphertext) = Binding::read(blob)?;
        let [context, associated_data] = binding.parameters(context);
        let asked =
            Parameters { ciphertext: Some(ciphertext), context, associated_data, ..Parameters::default() };
        let reply = self.post(&key.path("decrypt"), &asked).await?;
        let body = reply.given(key)?;
        let text = body.data.and_then(|data| data.plaintext);
        let text = text.ok_or_else(|| Refused::unavailable("Vault gives no plaintext"))?;
        let mut octets = Zeroizing::new(vec![0; text.len() / 4 * 3 + 3]);
        let length = STANDARD.decode_slice(text, &mut octets).ok().filter(|length| *length <= PLAINTEXT_MAX);
        octets.truncate(
            length.ok_or_else(|| Refused::unavailable("what Vault gives is no plaintext of hostseal's"))?,
        );
        Ok(Gift { given: Given::Plaintext(octets), request_id: body.request_id })
    }

    async fn encrypt(&self, key: &Key, context: &Context, plaintext: &[u8]) -> Result<Gift, Refused> {
        let binding = match self.binding(key).await {
            // Vault decides below whether this host may encrypt.
            Err(refused) if *refused.refusal() == Refusal::Denied => Binding::Both,
            known => known?,
        };
        let mut text = Zeroizing::new(vec![0; plaintext.len().div_ceil(3) * 4]);
        let length = STANDARD.encode_slice(plaintext, &mut text).unwrap_or_default();
        let text = std::str::from_utf8(&text[..length]).unwrap_or_default();
        let [context, associated_data] = binding.parameters(context);
        let asked = Parameters {
            plaintext: Some(text),
            context,
            associated_data,
            kind: Some(NO_KIND),
            ..Parameters::default()
        };
        let reply = self.post(&key.path("encrypt"), &asked).await?;
        let body = reply.given(key).map_err(|refused| refused.without(text))?;
        if binding != Binding::Context && body.ignores("associated_data") {
            return Err(Refused::new(
                Refusal::Broken,
                "this Vault is too old to bind what such a key wraps: make one with derived=true",
            ));
        }
        wrapped(binding, body.data.and_then(|data| data.ciphertext), body.request_id)
    }

    async fn describe(&self, key: &Key) -> Result<Answer, Refused> {
        let reply = self.get(&key.path("keys")).await?;
        let request_id = reply.given(key)?.request_id;
        binding_of(&reply, key)?;
        Ok(Gift { given: Given::Enabled, request_id }.into())
    }

    /// By what a key binds.
    async fn binding(&self, key: &Key) -> Result<Binding, Refused> {
        binding_of(&self.get(&key.path("keys")).await?, key)
    }

    /// Transit wraps anew with the newest version of a key. For another key, or where data is authenticated, it gives the
    /// secret, and wraps it.
    async fn reencrypt(
        &self,
        key: &Key,
        context: &Context,
        blob: &[u8],
        new_key: &Key,
    ) -> Result<Answer, Refused> {
        let (binding, ciphertext) = Binding::read(blob)?;
        if key == new_key && binding == Binding::Context {
            let [context, _] = binding.parameters(context);
            let asked = Parameters { ciphertext: Some(ciphertext), context, ..Parameters::default() };
            let reply = self.post(&key.path("rewrap"), &asked).await?;
            let body = reply.given(key)?;
            return wrapped(binding, body.data.and_then(|data| data.ciphertext), body.request_id)
                .map(Into::into);
        }
        let Gift { given, .. } = self.decrypt(key, context, blob).await?;
        let Given::Plaintext(plaintext) = given else {
            return Err(Refused::unavailable("Vault gives no plaintext"));
        };
        let mut answer = Answer::from(self.encrypt(new_key, context, &plaintext).await?);
        answer.why =
            Some("Transit cannot wrap this anew by itself, so this host has unwrapped the secret".to_owned());
        Ok(answer)
    }

    async fn post(&self, path: &str, asked: &Parameters<'_>) -> Result<Reply, Refused> {
        self.judged(async || self.client.post(path, Some(self.token.value()), json(asked)).await).await
    }

    async fn get(&self, path: &str) -> Result<Reply, Refused> {
        self.judged(async || self.client.get(path, self.token.value()).await).await
    }

    /// Vault says the same to whoever may not, and to a token that has expired, or that the node which is asked has not
    /// heard of yet. So it is asked of an old token, too, and a new one is tried again.
    async fn judged(&self, ask: impl AsyncFn() -> Result<Reply, Refused>) -> Result<Reply, Refused> {
        let reply = ask().await?;
        if !reply.is_forbidden() {
            return Ok(reply);
        }
        if self.token.is_new() {
            sleep(SPREAD).await;
            return ask().await;
        }
        match self.client.get("auth/token/lookup-self", self.token.value()).await?.status {
            200 => Ok(reply),
            403 => Err(Refused::unavailable(
                "the token has expired or is revoked, or it may not look itself up (auth/token/lookup-self)",
            )),
            status => Err(Refused::unavailable(format!(
                "Vault refuses, and does not say whether the token is good (HTTP status {status})"
            ))),
        }
    }
}

/// By what a key binds, as Vault describes it.
fn binding_of(reply: &Reply, key: &Key) -> Result<Binding, Refused> {
    let data = reply.given(key)?.data.unwrap_or_default();
    let kind = data.kind.ok_or_else(|| Refused::unavailable("Vault says nothing of the key"))?;
    match (data.soft_deleted, data.derived, BINDING_KINDS.contains(&kind.as_str())) {
        (Some(true), ..) => Err(Refused::new(Refusal::Disabled, "it is soft-deleted")),
        (_, Some(true), true) => Ok(Binding::Context),
        (_, _, true) => Ok(Binding::AssociatedData),
        (_, _, false) => Err(Refused::new(Refusal::Broken, CANNOT_BIND)),
    }
}

fn wrapped(
    binding: Binding,
    ciphertext: Option<String>,
    request_id: Option<String>,
) -> Result<Gift, Refused> {
    let ciphertext = ciphertext.ok_or_else(|| Refused::unavailable("Vault gives no ciphertext"))?;
    Ok(Gift { given: Given::Blob(binding.blob(&ciphertext)), request_id })
}
