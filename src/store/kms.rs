//! Asks the KMS that keeps the customer's key: through a program that is run for one ask, apart from this process
//! (docs/byok.md). Who runs it listens at a socket that root has bound.
//!
//! Nothing here can do more than give an answer: it has a bound, and whoever is silent or makes no sense is away.

mod exchange;

use std::sync::Arc;

use hostseal_kms_protocol::{ANSWER_MAX, Answer, Ask, CONTEXT_CLUSTER, Context, Given, Order, Refusal};
pub use hostseal_kms_protocol::{KmsGift, KmsRefusal};
use zeroize::Zeroizing;

use self::exchange::{NoLine, exchange};
use super::{WrappedFileError, owner};
use crate::config::{Config, KmsRules, WrappedSecret};
use crate::identity::{Secret, SecretDigest};

/// What a KMS that is asked answers, in words too.
pub type KmsAnswer<T> = Result<T, KmsRefusal>;

/// What is bound to the blobs of a cluster.
fn context(cluster: &str) -> Context {
    Context::from([(CONTEXT_CLUSTER.to_owned(), cluster.to_owned())])
}

/// Unwraps the secret that `config` names.
///
/// # Errors
/// Its KMS does not give it, or gives another one.
pub fn unwrap(config: &Config, kms: &KmsRules) -> KmsAnswer<KmsGift<Arc<Secret>>> {
    let wrapped =
        load(config, kms).map_err(|error| KmsRefusal::because(Refusal::Broken, error.to_string()))?;
    unwrap_blob(&config.cluster, kms, &wrapped)
}

/// Unwraps a secret.
///
/// # Errors
/// As [`unwrap`].
pub fn unwrap_blob(
    cluster: &str,
    kms: &KmsRules,
    wrapped: &WrappedSecret,
) -> KmsAnswer<KmsGift<Arc<Secret>>> {
    let context = context(cluster);
    let KmsGift { given, why, request_id } =
        ask(kms, &Ask::Decrypt { key: &kms.key, context: &context, blob: &wrapped.blob })?;
    let Given::Plaintext(octets) = given else { return Err(senseless(request_id)) };
    let secret = Secret::shared(&octets).ok().filter(|secret| secret.digest() == wrapped.digest);
    match secret {
        Some(given) => Ok(KmsGift { given, why, request_id }),
        None => {
            let words = format!("what was unwrapped is not the secret with the id {}", wrapped.digest.id());
            Err(KmsRefusal { request_id, ..KmsRefusal::because(Refusal::Broken, words) })
        }
    }
}

/// Wraps a secret.
///
/// # Errors
/// The KMS does not.
pub fn wrap(cluster: &str, kms: &KmsRules, secret: &Secret) -> KmsAnswer<WrappedSecret> {
    let context = context(cluster);
    let plaintext = secret.to_line();
    let asked = Ask::Encrypt { key: &kms.key, context: &context, plaintext: &plaintext };
    match ask(kms, &asked)? {
        KmsGift { given: Given::Blob(blob), .. } => {
            Ok(WrappedSecret { key: kms.key.clone(), digest: secret.digest(), blob })
        }
        KmsGift { request_id, .. } => Err(senseless(request_id)),
    }
}

/// Wraps with the key `new_key` what another key has wrapped. The KMS does so by itself, where it can.
///
/// # Errors
/// It does not.
pub fn rewrap(
    cluster: &str,
    kms: &KmsRules,
    wrapped: &WrappedSecret,
    new_key: &str,
) -> KmsAnswer<KmsGift<WrappedSecret>> {
    let context = context(cluster);
    let asked = Ask::Reencrypt { key: &kms.key, context: &context, blob: &wrapped.blob, new_key };
    match ask(kms, &asked)? {
        KmsGift { given: Given::Blob(blob), why, request_id } => {
            let given = WrappedSecret { key: new_key.to_owned(), digest: wrapped.digest, blob };
            Ok(KmsGift { given, why, request_id })
        }
        KmsGift { request_id, .. } => Err(senseless(request_id)),
    }
}

/// How the key stands: nothing, where it can be used.
///
/// # Errors
/// It cannot, or this host may not know.
pub fn describe(kms: &KmsRules) -> KmsAnswer<KmsGift<()>> {
    match ask(kms, &Ask::Describe { key: &kms.key })? {
        KmsGift { given: Given::Enabled, why, request_id } => Ok(KmsGift { given: (), why, request_id }),
        KmsGift { request_id, .. } => Err(senseless(request_id)),
    }
}

/// The wrapped secret that `config` names.
///
/// # Errors
/// The file does not give it.
pub fn load(config: &Config, kms: &KmsRules) -> Result<WrappedSecret, WrappedFileError> {
    if let Some(wrapped) = &config.secret.wrapped {
        return Ok(wrapped.clone());
    }
    // Who has [kms] names it.
    WrappedSecret::load(config.secret.wrapped_file.as_deref().unwrap_or(&config.secret.file), &kms.key)
}

/// The fingerprint of the wrapped secret that `config` names; `None` where it names none.
///
/// # Errors
/// The file does not give it.
pub fn digest(config: &Config) -> Result<Option<SecretDigest>, WrappedFileError> {
    config.kms.as_ref().map(|kms| Ok(load(config, kms)?.digest)).transpose()
}

fn ask(kms: &KmsRules, asked: &Ask<'_>) -> KmsAnswer<KmsGift<Given>> {
    answer(kms, asked).map_err(|why| KmsRefusal::because(Refusal::Unavailable, why))?.into()
}

fn answer(kms: &KmsRules, asked: &Ask<'_>) -> Result<Answer, String> {
    let (socket, program) = (kms.socket.display(), kms.program.display());
    // Whoever listens there sees the secret, so nobody but root may have bound it.
    let places = [Some(kms.socket.as_path()), kms.socket.parent()];
    places.into_iter().flatten().try_for_each(owner::check).map_err(|error| error.to_string())?;
    let (order, asked) = (Order { program: kms.program.clone() }.to_line(), asked.to_line());
    let mut said = Zeroizing::new(Vec::with_capacity(order.len() + asked.len()));
    said.extend_from_slice(&order);
    said.extend_from_slice(&asked);
    let mut line = Zeroizing::new(vec![0; ANSWER_MAX + 1]);
    let length = exchange(&kms.socket, &said, &mut line).map_err(|none| match none {
        NoLine::Nobody(error) => format!(
            "nobody runs {program} at {socket}: {error} (run `systemctl enable --now hostseal-kms.socket`)"
        ),
        NoLine::Silent => format!("{program} does not answer"),
        NoLine::Ended(error) => format!("{program} has ended: {error}"),
    })?;
    match &line[..length] {
        [] => Err(format!("{program} has ended without an answer")),
        line => Answer::from_line(line).map_err(|error| format!("{program}: {error}")),
    }
}

fn senseless(request_id: Option<String>) -> KmsRefusal {
    let why = "the helper answered another question: see the protocol in byok.md";
    KmsRefusal { request_id, ..KmsRefusal::because(Refusal::Unavailable, why) }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Asks who answers with `answer`, whatever he is asked. Says what he was told, too.
    fn asked(directory: &Path, answer: Vec<u8>) -> (KmsAnswer<KmsGift<Arc<Secret>>>, Vec<String>) {
        let socket = directory.join("kms.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let helper = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap).collect();
            // Who asks takes no more than he must.
            let _ = stream.write_all(&answer);
            lines
        });
        let kms = KmsRules {
            provider: "exec".to_owned(),
            program: "/p".into(),
            key: "k".to_owned(),
            check_every: Duration::from_secs(300),
            max_offline: Duration::from_secs(3600),
            restore_window: Duration::from_secs(3600),
            socket,
        };
        let digest = Secret::new([7; 32]).digest();
        let wrapped = WrappedSecret { key: "k".to_owned(), digest, blob: "AAAA".to_owned() };
        let outcome = unwrap_blob("demo", &kms, &wrapped);
        (outcome, helper.join().unwrap())
    }

    fn plaintext(octet: u8) -> Vec<u8> {
        let line = Secret::new([octet; 32]).to_line();
        format!("{{\"answer\":\"plaintext\",\"plaintext\":\"{}\",\"request_id\":\"r\"}}\n", *line)
            .into_bytes()
    }

    #[test]
    fn a_secret_is_unwrapped_by_whoever_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (outcome, told) = asked(directory.path(), plaintext(7));
        let gift = outcome.unwrap();
        assert_eq!((gift.given.expose(), gift.request_id.as_deref()), (&[7; 32], Some("r")));
        let ask = "{\"version\":1,\"op\":\"decrypt\",\"key\":\"k\",\"context\":{\"hostseal-cluster\":\"demo\"},\"blob\":\"AAAA\"}";
        assert_eq!(told, ["{\"program\":\"/p\"}", ask]);
    }

    /// Whoever answers in the place of the KMS chooses nobody's secret.
    #[test]
    fn another_secret_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let refusal = asked(directory.path(), plaintext(8)).0.err().unwrap();
        assert_eq!((refusal.refusal, refusal.request_id.as_deref()), (Refusal::Broken, Some("r")));
    }

    #[test]
    fn what_a_helper_does_wrong_is_bounded_and_means_that_it_is_away() {
        let directory = tempfile::tempdir().unwrap();
        let flood = vec![b'x'; 8 << 20];
        for (answer, words) in [
            (Vec::new(), "has ended without an answer"),
            (b"{}\n".to_vec(), "is no answer"),
            (b"{\"answer\":\"enabled\"}\n".to_vec(), "answered another question"),
            (flood, "longer than an answer may be"),
            (vec![0xff, b'\n'], "is no answer"),
        ] {
            let refusal = asked(directory.path(), answer).0.err().unwrap();
            assert_eq!(refusal.refusal, Refusal::Unavailable, "{words}");
            assert!(refusal.why.as_ref().is_some_and(|why| why.contains(words)), "{:?}", refusal.why);
        }
    }

    #[test]
    fn what_the_kms_says_comes_through() {
        let directory = tempfile::tempdir().unwrap();
        let line = b"{\"answer\":\"denied\",\"why\":\"AccessDeniedException\",\"request_id\":\"r\"}".to_vec();
        let refusal = asked(directory.path(), line).0.err().unwrap();
        assert_eq!(
            (refusal.refusal, refusal.why.as_deref()),
            (Refusal::Denied, Some("AccessDeniedException"))
        );
    }
}
