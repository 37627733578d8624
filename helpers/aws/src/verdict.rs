//! What an answer of AWS means for the key. Touches nothing.
//!
//! Four answers cut a host off within a minute, so nothing counts as one of them but what AWS KMS itself has said of the
//! key: whatever else goes wrong, wrong or expired credentials and a wrong clock too, means that the KMS is away.

use std::collections::HashSet;
use std::error::Error;

use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId as _;
use aws_sdk_kms::primitives::{DateTime, DateTimeFormat};
use aws_sdk_kms::types::{KeyMetadata, KeyState};
use hostseal_kms_protocol::{Answer, Given, Refusal};

/// Nobody could be asked.
pub fn unavailable(why: String) -> Answer {
    Answer { outcome: Err(Refusal::Unavailable), why: Some(why), request_id: None }
}

/// What a failed ask means.
pub fn of_error<E>(error: &SdkError<E, HttpResponse>) -> Answer
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(said) => {
            let (code, message) = (said.err().code().unwrap_or_default(), said.err().message());
            let message = message.unwrap_or_default();
            let why = match (code, message) {
                ("", "") => format!("AWS answers with the HTTP status {}", said.raw().status().as_u16()),
                (code, "") => code.to_owned(),
                (code, message) => format!("{code}: {message}"),
            };
            let request_id = error.request_id().map(str::to_owned);
            Answer { outcome: Err(of_code(code, message)), why: Some(why), request_id }
        }
        SdkError::TimeoutError(_) => unavailable("AWS does not answer".to_owned()),
        other => unavailable(causes(other)),
    }
}

/// Whether AWS said that the state of the key is in the way, and not which: the key itself can be asked for that.
pub fn is_about_state<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    error.as_service_error().is_some_and(|said| said.code() == Some(INVALID_STATE))
}

/// The code of an error that has to do with the state of the key.
const INVALID_STATE: &str = "KMSInvalidStateException";

fn of_code(code: &str, message: &str) -> Refusal {
    match code {
        "AccessDeniedException" | "NotAuthorized" => Refusal::Denied,
        "DisabledException" => Refusal::Disabled,
        "NotFoundException" => Refusal::NotFound,
        "InvalidCiphertextException" | "IncorrectKeyException" | "InvalidKeyUsageException" => {
            Refusal::Broken
        }
        INVALID_STATE => of_state_in_words(message),
        _ => Refusal::Unavailable,
    }
}

/// What AWS's words say of the state, where the key itself may not be asked.
fn of_state_in_words(message: &str) -> Refusal {
    let says = |words: &str| message.to_ascii_lowercase().contains(words);
    if says("pending deletion") || says("pending replica deletion") {
        Refusal::PendingDeletion(None)
    } else if says("pending import") || says("is disabled") {
        Refusal::Disabled
    } else {
        // A key store of the customer's that cannot be reached, or a key that is still being made.
        Refusal::Unavailable
    }
}

/// What AWS says of a key.
pub fn of_metadata(key: Option<&KeyMetadata>, request_id: Option<&str>) -> Answer {
    let state = key.and_then(KeyMetadata::key_state);
    let outcome = match state {
        Some(KeyState::Enabled) => Ok(Given::Enabled),
        // Its key material was taken away, or has expired.
        Some(KeyState::Disabled | KeyState::PendingImport) => Err(Refusal::Disabled),
        Some(KeyState::PendingDeletion | KeyState::PendingReplicaDeletion) => {
            Err(Refusal::PendingDeletion(key.and_then(KeyMetadata::deletion_date).and_then(date)))
        }
        _ => Err(Refusal::Unavailable),
    };
    let why = match (&outcome, state) {
        (Ok(_), _) => None,
        (Err(_), Some(state)) => Some(format!("the state of the key is {}", state.as_str())),
        (Err(_), None) => Some("AWS does not say how the key stands".to_owned()),
    };
    Answer { outcome, why, request_id: request_id.map(str::to_owned) }
}

/// Without parts of a second.
fn date(at: &DateTime) -> Option<String> {
    DateTime::from_secs(at.secs()).fmt(DateTimeFormat::DateTime).ok()
}

/// What went wrong, from the outside in, each once.
fn causes(error: &dyn Error) -> String {
    let chain = std::iter::successors(Some(error), |error| (*error).source());
    let mut told = HashSet::new();
    let words: Vec<String> =
        chain.map(ToString::to_string).filter(|words| told.insert(words.clone())).collect();
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::error::{BoxError, ConnectorError, ErrorMetadata};
    use aws_sdk_kms::operation::decrypt::DecryptError;
    use aws_sdk_kms::operation::describe_key::DescribeKeyError;
    use aws_sdk_kms::types::error as kind;

    use super::*;

    const ARN: &str = "arn:aws:kms:eu-central-1:1:key/2";

    fn response(status: u16) -> HttpResponse {
        let mut response = HttpResponse::new(status.try_into().unwrap(), "".into());
        response.headers_mut().insert("x-amzn-requestid", "r-1");
        response
    }

    fn meta(code: &str, message: &str) -> ErrorMetadata {
        ErrorMetadata::builder().code(code).message(message).build()
    }

    /// What is answered where AWS says no to a Decrypt.
    fn said(error: DecryptError) -> Answer {
        of_error(&SdkError::service_error(error, response(400)))
    }

    fn by_code(code: &str) -> Option<Refusal> {
        said(DecryptError::generic(meta(code, "words"))).outcome.err()
    }

    #[test]
    fn what_aws_says_of_the_key_counts() {
        let message = format!("{ARN} is pending deletion.");
        let state = |message: &str| {
            let error = kind::KmsInvalidStateException::builder().message(message);
            DecryptError::KmsInvalidStateException(error.meta(meta(INVALID_STATE, message)).build())
        };
        macro_rules! modeled {
            ($name:ident, $code:literal) => {
                DecryptError::$name(kind::$name::builder().meta(meta($code, "words")).build())
            };
        }
        for (error, expected) in [
            (modeled!(DisabledException, "DisabledException"), Refusal::Disabled),
            (modeled!(NotFoundException, "NotFoundException"), Refusal::NotFound),
            (modeled!(InvalidCiphertextException, "InvalidCiphertextException"), Refusal::Broken),
            (modeled!(IncorrectKeyException, "IncorrectKeyException"), Refusal::Broken),
            (modeled!(InvalidKeyUsageException, "InvalidKeyUsageException"), Refusal::Broken),
            (modeled!(KeyUnavailableException, "KeyUnavailableException"), Refusal::Unavailable),
            (modeled!(KmsInternalException, "KMSInternalException"), Refusal::Unavailable),
            (modeled!(DependencyTimeoutException, "DependencyTimeoutException"), Refusal::Unavailable),
            (DecryptError::generic(meta("AccessDeniedException", "words")), Refusal::Denied),
            (state(&message), Refusal::PendingDeletion(None)),
            (state(&format!("{ARN} is pending replica deletion.")), Refusal::PendingDeletion(None)),
            (state(&format!("{ARN} is pending import.")), Refusal::Disabled),
            (state("The key store is not connected"), Refusal::Unavailable),
        ] {
            let words = error.to_string();
            assert_eq!(said(error).outcome.err(), Some(expected), "{words}");
        }
        let answer = said(state(&message));
        assert_eq!(answer.why, Some(format!("KMSInvalidStateException: {message}")));
        assert_eq!(answer.request_id.as_deref(), Some("r-1"));
        assert!(is_about_state(&SdkError::service_error(state(&message), response(400))));
        let denied = DecryptError::generic(meta("AccessDeniedException", "words"));
        assert!(!is_about_state(&SdkError::service_error(denied, response(400))));
    }

    /// Who cannot prove himself, or is too fast, is not refused the key.
    #[test]
    fn whatever_else_is_wrong_cuts_nobody() {
        for code in [
            "ExpiredTokenException",
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "IncompleteSignature",
            "MissingAuthenticationToken",
            "RequestExpired",
            "ThrottlingException",
            "RequestLimitExceeded",
            "ServiceUnavailable",
            "InternalFailure",
            "ValidationException",
            "InvalidArnException",
            "SomethingNew",
            "",
        ] {
            assert_eq!(by_code(code), Some(Refusal::Unavailable), "{code}");
        }
        let nothing = DescribeKeyError::generic(ErrorMetadata::builder().build());
        let answer = of_error(&SdkError::service_error(nothing, response(503)));
        assert_eq!(answer.why.as_deref(), Some("AWS answers with the HTTP status 503"));
        assert_eq!(answer.outcome.err(), Some(Refusal::Unavailable));
    }

    #[test]
    fn who_is_not_reached_is_away() {
        let cause = || BoxError::from(std::io::Error::other("connection refused"));
        let errors: [SdkError<DecryptError, HttpResponse>; 4] = [
            SdkError::timeout_error(cause()),
            SdkError::dispatch_failure(ConnectorError::io(cause())),
            SdkError::construction_failure(cause()),
            SdkError::response_error(cause(), response(200)),
        ];
        for error in &errors {
            assert_eq!(of_error(error).outcome.err(), Some(Refusal::Unavailable), "{error}");
        }
        assert_eq!(
            of_error(&errors[1]).why.as_deref(),
            Some("dispatch failure: io error: connection refused")
        );
    }

    #[test]
    fn a_key_says_how_it_stands() {
        let key = |state: KeyState| {
            let at = DateTime::from_secs_f64(1_800_000_000.5);
            let key = KeyMetadata::builder().key_id(ARN).key_state(state).deletion_date(at).build().unwrap();
            of_metadata(Some(&key), Some("r-2"))
        };
        assert!(matches!(key(KeyState::Enabled).outcome, Ok(Given::Enabled)));
        let date = Some("2027-01-15T08:00:00Z".to_owned());
        for (state, expected) in [
            (KeyState::Disabled, Refusal::Disabled),
            (KeyState::PendingImport, Refusal::Disabled),
            (KeyState::PendingDeletion, Refusal::PendingDeletion(date.clone())),
            (KeyState::PendingReplicaDeletion, Refusal::PendingDeletion(date)),
            (KeyState::Creating, Refusal::Unavailable),
            (KeyState::Updating, Refusal::Unavailable),
            (KeyState::Unavailable, Refusal::Unavailable),
            (KeyState::from("New"), Refusal::Unavailable),
        ] {
            let (words, answer) = (format!("the state of the key is {}", state.as_str()), key(state));
            assert_eq!(answer.outcome.err(), Some(expected));
            assert_eq!((answer.why, answer.request_id.as_deref()), (Some(words), Some("r-2")));
        }
        assert_eq!(of_metadata(None, None).outcome.err(), Some(Refusal::Unavailable));
    }
}
