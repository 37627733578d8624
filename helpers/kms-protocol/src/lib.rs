//! What hostseal and a helper that speaks to a KMS say to each other: one JSON object a line. A helper is started for one
//! ask, reads it on standard input, answers on standard output, and ends (docs/byok.md).
//!
//! ```text
//! hostseal  --- decrypt ---->  helper     what this blob holds
//! hostseal  --- encrypt ---->  helper     a blob that holds this
//! hostseal  --- describe --->  helper     how the key stands
//! hostseal  --- reencrypt -->  helper     a blob that holds what this one holds, of another key
//! hostseal  <-- plaintext --   helper     or blob, or enabled
//! hostseal  <-- denied ------  helper     or disabled, pending_deletion, not_found, broken, unavailable
//! ```
//! Who runs helpers is told first which one, in a line before the ask ([`Order`]).
//!
//! Neither end believes the other: a line has a bound, and whatever cannot be read counts as no answer.

mod helper;
mod memory;
mod outcome;
mod program;
#[cfg(test)]
mod properties;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use helper::Question;
pub use memory::{forbid_core_files, forbid_dumps, lock_memory};
pub use outcome::{KmsGift, KmsRefusal};
pub use program::run_program;

/// The version of all this. A helper that does not know it ends without an answer.
pub const VERSION: u32 = 1;
/// The most octets of an answer, with its end.
pub const ANSWER_MAX: usize = 64 << 10;
/// The most octets of a blob.
pub const BLOB_MAX: usize = 16 << 10;
/// The most octets that a blob may hold.
pub const PLAINTEXT_MAX: usize = 4 << 10;
/// How many characters of the words of a helper are told.
const WORDS_MAX: usize = 300;
/// How many of the number that a KMS gives to a request.
const REQUEST_MAX: usize = 100;

/// The name under which the cluster is bound to a blob: a blob of one cluster does not open for another.
pub const CONTEXT_CLUSTER: &str = "hostseal-cluster";

/// What is bound to a blob, and must be said again to open it.
pub type Context = BTreeMap<String, String>;

/// What hostseal asks.
#[derive(Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Ask<'a> {
    /// What a blob holds.
    Decrypt {
        /// The key that has wrapped it.
        key: &'a str,
        /// What is bound to it.
        context: &'a Context,
        /// The blob, in base64.
        blob: &'a str,
    },
    /// A blob that holds this.
    Encrypt {
        /// The key to wrap it with.
        key: &'a str,
        /// What is to be bound to it.
        context: &'a Context,
        /// What it is to hold, in base64.
        plaintext: &'a str,
    },
    /// How a key stands.
    Describe {
        /// Which.
        key: &'a str,
    },
    /// A blob that holds the same, wrapped with another key.
    Reencrypt {
        /// The key that has wrapped it.
        key: &'a str,
        /// What is bound to it, and is to be bound again.
        context: &'a Context,
        /// The blob, in base64.
        blob: &'a str,
        /// The key to wrap it with; the same one gives a blob of its newest version.
        new_key: &'a str,
    },
}

#[derive(Serialize)]
struct Versioned<'a> {
    version: u32,
    #[serde(flatten)]
    ask: &'a Ask<'a>,
}

impl Ask<'_> {
    /// The line, with its end.
    pub fn to_line(&self) -> Zeroizing<Vec<u8>> {
        // Its full size at once: growing would leave copies behind. Nothing in it can fail to be written.
        let mut line = Zeroizing::new(Vec::with_capacity(ANSWER_MAX));
        let _ = serde_json::to_writer(&mut *line, &Versioned { version: VERSION, ask: self });
        line.push(b'\n');
        line
    }
}

/// Which helper is to be run for the ask that follows.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its file.
    pub program: PathBuf,
}

impl Order {
    /// The line, with its end.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// Reads what [`Order::to_line`] wrote.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_line(line: &[u8]) -> Result<Self, NoAnswer> {
        serde_json::from_slice(line).map_err(|_| NoAnswer("it is no order"))
    }
}

/// The line by which one says that nobody could be asked, and why.
pub fn unavailable(why: &str) -> Vec<u8> {
    let mut line = serde_json::json!({ "answer": "unavailable", "why": why }).to_string().into_bytes();
    line.push(b'\n');
    line
}

/// What a KMS gives.
pub enum Given {
    /// What the blob holds.
    Plaintext(Zeroizing<Vec<u8>>),
    /// A blob, in base64.
    Blob(String),
    /// The key can be used.
    Enabled,
}

/// Why a KMS gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It does not let this host.
    Denied,
    /// The key is disabled.
    Disabled,
    /// The key is going to be deleted, at this time in its words.
    PendingDeletion(Option<String>),
    /// There is no such key.
    NotFound,
    /// The blob was not made with this key or this context, or was changed.
    Broken,
    /// It could not be asked: time-out, throttled, no or expired credentials, a wrong clock.
    Unavailable,
}

impl Refusal {
    /// Whether a KMS has said so, and means that the key is not to be used any more.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Denied | Self::Disabled | Self::PendingDeletion(_) | Self::NotFound => true,
            Self::Broken | Self::Unavailable => false,
        }
    }
}

/// What a helper answers.
pub struct Answer {
    /// What came of it.
    pub outcome: Result<Given, Refusal>,
    /// What the helper says to that, in one line.
    pub why: Option<String>,
    /// What the KMS calls the request.
    pub request_id: Option<String>,
}

/// Why a line is no answer. It never repeats the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoAnswer(&'static str);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl std::error::Error for NoAnswer {}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Plaintext,
    Blob,
    Enabled,
    Denied,
    Disabled,
    PendingDeletion,
    NotFound,
    Broken,
    Unavailable,
}

#[derive(Deserialize)]
struct Line<'a> {
    answer: Kind,
    // Borrowed, so that no copy of it stays behind: base64 has nothing to escape.
    #[serde(borrow, default)]
    plaintext: Option<&'a str>,
    #[serde(default)]
    blob: Option<String>,
    #[serde(default)]
    date: Option<String>,
    #[serde(default)]
    why: Option<String>,
    #[serde(default)]
    request_id: Option<String>,
}

impl Answer {
    /// Reads the line of a helper.
    ///
    /// # Errors
    /// It is none, or larger than it may be.
    pub fn from_line(line: &[u8]) -> Result<Self, NoAnswer> {
        if line.len() > ANSWER_MAX {
            return Err(NoAnswer("it is longer than an answer may be"));
        }
        let line: Line<'_> = serde_json::from_slice(line)
            .map_err(|_| NoAnswer("it is no answer (byok.md says what is one)"))?;
        let outcome = match line.answer {
            Kind::Plaintext => Ok(Given::Plaintext(plaintext(line.plaintext)?)),
            Kind::Blob => Ok(Given::Blob(blob(line.blob)?)),
            Kind::Enabled => Ok(Given::Enabled),
            Kind::Denied => Err(Refusal::Denied),
            Kind::Disabled => Err(Refusal::Disabled),
            Kind::PendingDeletion => {
                Err(Refusal::PendingDeletion(line.date.map(|date| words(&date, REQUEST_MAX))))
            }
            Kind::NotFound => Err(Refusal::NotFound),
            Kind::Broken => Err(Refusal::Broken),
            Kind::Unavailable => Err(Refusal::Unavailable),
        };
        let told =
            |said: Option<String>, most| said.map(|said| words(&said, most)).filter(|it| !it.is_empty());
        Ok(Self { outcome, why: told(line.why, WORDS_MAX), request_id: told(line.request_id, REQUEST_MAX) })
    }
}

fn plaintext(text: Option<&str>) -> Result<Zeroizing<Vec<u8>>, NoAnswer> {
    let text = text.ok_or(NoAnswer("the plaintext is missing"))?;
    // Its full size at once: growing would leave copies behind.
    let mut octets = Zeroizing::new(vec![0; text.len() / 4 * 3 + 3]);
    let length =
        STANDARD.decode_slice(text, &mut octets).map_err(|_| NoAnswer("the plaintext is no base64"))?;
    match length <= PLAINTEXT_MAX {
        true => octets.truncate(length),
        false => return Err(NoAnswer("the plaintext is longer than it may be")),
    }
    Ok(octets)
}

fn blob(text: Option<String>) -> Result<String, NoAnswer> {
    let text = text.ok_or(NoAnswer("the blob is missing"))?;
    match STANDARD.decode(&text) {
        Ok(octets) if octets.len() <= BLOB_MAX => Ok(text),
        Ok(_) => Err(NoAnswer("the blob is longer than it may be")),
        Err(_) => Err(NoAnswer("the blob is no base64")),
    }
}

/// Words of somebody else as they may be told: one line of printable text, and not too much of it.
fn words(said: &str, most: usize) -> String {
    let printable = said.chars().map(|c| if c.is_control() || is_unseen(c) { ' ' } else { c });
    printable.take(most).collect::<String>().trim().to_owned()
}

/// Characters that nobody sees, and by which a line could read otherwise than it is: marks of direction, spaces without
/// width, ends of lines.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(line: &str) -> Answer {
        Answer::from_line(line.as_bytes()).unwrap()
    }

    fn refusal(line: &str) -> Option<Refusal> {
        answer(line).outcome.err()
    }

    /// Whoever writes another helper goes by these lines.
    #[test]
    fn what_is_asked_looks_like_this() {
        let context = Context::from([(CONTEXT_CLUSTER.to_owned(), "prod".to_owned())]);
        let line = |ask: Ask<'_>| String::from_utf8(ask.to_line().to_vec()).unwrap();
        assert_eq!(
            line(Ask::Decrypt { key: "k", context: &context, blob: "Bwc=" }),
            "{\"version\":1,\"op\":\"decrypt\",\"key\":\"k\",\"context\":{\"hostseal-cluster\":\"prod\"},\"blob\":\"Bwc=\"}\n"
        );
        assert_eq!(
            line(Ask::Encrypt { key: "k", context: &context, plaintext: "Bwc=" }),
            "{\"version\":1,\"op\":\"encrypt\",\"key\":\"k\",\"context\":{\"hostseal-cluster\":\"prod\"},\"plaintext\":\"Bwc=\"}\n"
        );
        assert_eq!(line(Ask::Describe { key: "k" }), "{\"version\":1,\"op\":\"describe\",\"key\":\"k\"}\n");
        assert_eq!(
            line(Ask::Reencrypt { key: "k", context: &context, blob: "Bwc=", new_key: "n" }),
            "{\"version\":1,\"op\":\"reencrypt\",\"key\":\"k\",\"context\":{\"hostseal-cluster\":\"prod\"},\"blob\":\"Bwc=\",\"new_key\":\"n\"}\n"
        );
    }

    #[test]
    fn what_is_answered_looks_like_this() {
        let given = answer("{\"answer\":\"plaintext\",\"plaintext\":\"Bwc=\",\"request_id\":\"r-1\"}");
        assert!(matches!(given.outcome, Ok(Given::Plaintext(octets)) if **octets == [7, 7]));
        assert_eq!(given.request_id.as_deref(), Some("r-1"));
        let wrapped = answer("{\"answer\":\"blob\",\"blob\":\"AAAA\"}\n");
        assert!(matches!(wrapped.outcome, Ok(Given::Blob(blob)) if blob == "AAAA"));
        assert!(matches!(answer("{\"answer\":\"enabled\"}").outcome, Ok(Given::Enabled)));
        for (word, expected) in [
            ("denied", Refusal::Denied),
            ("disabled", Refusal::Disabled),
            ("pending_deletion", Refusal::PendingDeletion(None)),
            ("not_found", Refusal::NotFound),
            ("broken", Refusal::Broken),
            ("unavailable", Refusal::Unavailable),
        ] {
            assert_eq!(refusal(&format!("{{\"answer\":\"{word}\",\"later\":1}}")), Some(expected));
        }
        let dated =
            "{\"answer\":\"pending_deletion\",\"date\":\"2026-01-02\",\"why\":\"one\\ntwo\\u001b[31m\"}";
        assert_eq!(refusal(dated), Some(Refusal::PendingDeletion(Some("2026-01-02".to_owned()))));
        assert_eq!(answer(dated).why.as_deref(), Some("one two [31m"));
    }

    #[test]
    fn what_is_run_looks_like_this() {
        let order = Order { program: "/usr/libexec/hostseal/kms-aws".into() };
        assert_eq!(order.to_line(), b"{\"program\":\"/usr/libexec/hostseal/kms-aws\"}\n");
        assert_eq!(Order::from_line(&order.to_line()), Ok(order));
        assert!(Order::from_line(b"{}").is_err());
        let line = unavailable("it is \"gone\"");
        let answer = Answer::from_line(&line).unwrap();
        assert_eq!(
            (answer.outcome.err(), answer.why.as_deref()),
            (Some(Refusal::Unavailable), Some("it is \"gone\""))
        );
    }

    #[test]
    fn what_is_no_answer_is_refused_and_not_repeated() {
        let long = format!("{{\"answer\":\"blob\",\"blob\":\"{}\"}}", "A".repeat(ANSWER_MAX));
        let large =
            format!("{{\"answer\":\"plaintext\",\"plaintext\":\"{}\"}}", "AAAA".repeat(PLAINTEXT_MAX));
        for line in [
            "",
            "\n",
            "secret",
            "{}",
            "[]",
            "{\"answer\":\"yes\"}",
            "{\"answer\":\"plaintext\"}",
            "{\"answer\":\"plaintext\",\"plaintext\":\"secret?\"}",
            "{\"answer\":\"plaintext\",\"plaintext\":\"\\u0041AAA\"}",
            "{\"answer\":\"blob\",\"blob\":\"?\"}",
            "{\"answer\":\"enabled\"} more",
            &long,
            &large,
        ] {
            let error = Answer::from_line(line.as_bytes()).err().expect("it is none");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(Answer::from_line(b"\xff\xfe").is_err());
    }
}
