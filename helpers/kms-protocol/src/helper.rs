//! The end of helpers: what they read, and what they answer.

use std::io::{self, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{
    ANSWER_MAX, Answer, BLOB_MAX, Context, Given, NoAnswer, REQUEST_MAX, Refusal, VERSION, WORDS_MAX,
    plaintext, words,
};

/// What a helper is asked.
pub enum Question {
    /// What does this blob hold?
    Decrypt {
        /// The key that has wrapped it.
        key: String,
        /// What is bound to it.
        context: Context,
        /// It.
        blob: Vec<u8>,
    },
    /// Wrap this.
    Encrypt {
        /// The key to wrap it with.
        key: String,
        /// What is to be bound to it.
        context: Context,
        /// It.
        plaintext: Zeroizing<Vec<u8>>,
    },
    /// How does this key stand?
    Describe {
        /// Which.
        key: String,
    },
    /// Wrap what this blob holds with another key.
    Reencrypt {
        /// The key that has wrapped it.
        key: String,
        /// What is bound to it, and is to be bound again.
        context: Context,
        /// It.
        blob: Vec<u8>,
        /// The key to wrap it with; it may be the same one, which has a newer version now.
        new_key: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Op {
    Decrypt,
    Encrypt,
    Describe,
    Reencrypt,
}

#[derive(Deserialize)]
struct Asked<'a> {
    version: u32,
    op: Op,
    key: String,
    #[serde(default)]
    context: Context,
    #[serde(default)]
    blob: Option<String>,
    // Borrowed, so that no copy of it stays behind: base64 has nothing to escape.
    #[serde(borrow, default)]
    plaintext: Option<&'a str>,
    #[serde(default)]
    new_key: Option<String>,
}

impl Question {
    /// Reads the line of whoever asks, and not more of it than an ask may have.
    ///
    /// # Errors
    /// It is none, or of another version. It is not repeated.
    pub fn read(input: &mut impl Read) -> io::Result<Self> {
        // Its full size at once: growing would leave copies behind.
        let mut line = Zeroizing::new(vec![0; ANSWER_MAX]);
        let mut length = 0;
        while length < line.len() && !line[..length].contains(&b'\n') {
            match input.read(&mut line[length..]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let end = line[..length].iter().position(|octet| *octet == b'\n').unwrap_or(length);
        Self::from_line(&line[..end]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn from_line(line: &[u8]) -> Result<Self, NoAnswer> {
        let asked: Asked<'_> =
            serde_json::from_slice(line).map_err(|_| NoAnswer("it is no ask (byok.md says what is one)"))?;
        let Asked { version, op, key, context, blob, plaintext: wrapped, new_key } = asked;
        if version != VERSION {
            return Err(NoAnswer("it is of another version"));
        }
        Ok(match op {
            Op::Decrypt => Self::Decrypt { key, context, blob: octets(blob)? },
            Op::Encrypt => Self::Encrypt { key, context, plaintext: plaintext(wrapped)? },
            Op::Describe => Self::Describe { key },
            Op::Reencrypt => {
                let new_key = new_key.ok_or(NoAnswer("new_key is missing"))?;
                Self::Reencrypt { key, context, blob: octets(blob)?, new_key }
            }
        })
    }
}

fn octets(blob: Option<String>) -> Result<Vec<u8>, NoAnswer> {
    let blob = blob.ok_or(NoAnswer("the blob is missing"))?;
    let octets = STANDARD.decode(blob).map_err(|_| NoAnswer("the blob is no base64"))?;
    if octets.len() > BLOB_MAX {
        return Err(NoAnswer("the blob is longer than it may be"));
    }
    Ok(octets)
}

impl Answer {
    /// The line, with its end.
    pub fn to_line(&self) -> Zeroizing<Vec<u8>> {
        // Its full size at once: growing would leave copies behind.
        let mut line = Zeroizing::new(Vec::with_capacity(ANSWER_MAX));
        let member = |line: &mut Vec<u8>, name: &str, value: &str| {
            // Nothing in it can fail to be written.
            line.extend_from_slice(format!(",\"{name}\":").as_bytes());
            let _ = serde_json::to_writer(line, value);
        };
        let word = match &self.outcome {
            Ok(Given::Plaintext(_)) => "plaintext",
            Ok(Given::Blob(_)) => "blob",
            Ok(Given::Enabled) => "enabled",
            Err(Refusal::Denied) => "denied",
            Err(Refusal::Disabled) => "disabled",
            Err(Refusal::PendingDeletion(_)) => "pending_deletion",
            Err(Refusal::NotFound) => "not_found",
            Err(Refusal::Broken) => "broken",
            Err(Refusal::Unavailable) => "unavailable",
        };
        line.extend_from_slice(format!("{{\"answer\":\"{word}\"").as_bytes());
        match &self.outcome {
            Ok(Given::Plaintext(octets)) => {
                let mut text = Zeroizing::new(vec![0; octets.len().div_ceil(3) * 4]);
                let length = STANDARD.encode_slice(&**octets, &mut text).unwrap_or_default();
                member(&mut line, "plaintext", std::str::from_utf8(&text[..length]).unwrap_or_default());
            }
            Ok(Given::Blob(blob)) => member(&mut line, "blob", blob),
            Err(Refusal::PendingDeletion(Some(date))) => member(&mut line, "date", &words(date, REQUEST_MAX)),
            _ => {}
        }
        // No more than whoever has asked takes of them: an answer with too many words would be none.
        for (name, value, most) in
            [("why", &self.why, WORDS_MAX), ("request_id", &self.request_id, REQUEST_MAX)]
        {
            if let Some(value) = value {
                member(&mut line, name, &words(value, most));
            }
        }
        line.extend_from_slice(b"}\n");
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, CONTEXT_CLUSTER, PLAINTEXT_MAX};

    fn context() -> Context {
        Context::from([(CONTEXT_CLUSTER.to_owned(), "prod".to_owned())])
    }

    #[test]
    fn a_helper_reads_what_hostseal_asks() {
        let context = context();
        let read = |ask: Ask<'_>| Question::read(&mut &ask.to_line()[..]).unwrap();
        assert!(matches!(
            read(Ask::Decrypt { key: "k", context: &context, blob: "Bwc=" }),
            Question::Decrypt { key, context: bound, blob } if key == "k" && bound == context && blob == [7, 7]
        ));
        assert!(matches!(
            read(Ask::Encrypt { key: "k", context: &context, plaintext: "Bwc=" }),
            Question::Encrypt { key, context: bound, plaintext } if key == "k" && bound == context && **plaintext == [7, 7]
        ));
        assert!(matches!(read(Ask::Describe { key: "k" }), Question::Describe { key } if key == "k"));
        assert!(matches!(
            read(Ask::Reencrypt { key: "k", context: &context, blob: "Bwc=", new_key: "n" }),
            Question::Reencrypt { key, blob, new_key, .. } if key == "k" && blob == [7, 7] && new_key == "n"
        ));
    }

    #[test]
    fn what_is_no_ask_is_refused_and_not_repeated() {
        let long = "x".repeat(ANSWER_MAX + 7);
        for line in [
            "",
            "\n",
            "secret",
            "{}",
            &long,
            "{\"version\":2,\"op\":\"describe\",\"key\":\"k\"}",
            "{\"version\":1,\"op\":\"other\",\"key\":\"k\"}",
            "{\"version\":1,\"op\":\"decrypt\",\"key\":\"k\",\"blob\":\"secret?\"}",
            "{\"version\":1,\"op\":\"decrypt\",\"key\":\"k\"}",
            "{\"version\":1,\"op\":\"encrypt\",\"key\":\"k\"}",
            "{\"version\":1,\"op\":\"reencrypt\",\"key\":\"k\",\"blob\":\"Bwc=\"}",
        ] {
            let error = Question::read(&mut line.as_bytes()).err().expect("it is none");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    /// What somebody else has put into an error decides nothing, however long it is.
    #[test]
    fn a_refusal_is_heard_whatever_words_come_with_it() {
        let long = "\u{202e}\"".repeat(ANSWER_MAX);
        let answer = Answer {
            outcome: Err(Refusal::PendingDeletion(Some(long.clone()))),
            why: Some(long.clone()),
            request_id: Some(long),
        };
        let heard = Answer::from_line(&answer.to_line()).unwrap();
        assert!(matches!(heard.outcome, Err(Refusal::PendingDeletion(Some(_)))));
        let why = heard.why.unwrap();
        assert!(why.len() <= WORDS_MAX && !why.contains('\u{202e}'), "{why}");
    }

    #[test]
    fn hostseal_reads_what_a_helper_answers() {
        let answer = |outcome| Answer { outcome, why: Some("a \"b\"".to_owned()), request_id: None };
        let there_and_back = |outcome| Answer::from_line(&answer(outcome).to_line()).unwrap();
        let octets = vec![7; PLAINTEXT_MAX];
        let given = there_and_back(Ok(Given::Plaintext(Zeroizing::new(octets.clone()))));
        assert!(matches!(given.outcome, Ok(Given::Plaintext(back)) if **back == octets));
        assert_eq!((given.why.as_deref(), given.request_id), (Some("a \"b\""), None));
        assert!(
            matches!(there_and_back(Ok(Given::Blob("AAAA".to_owned()))).outcome, Ok(Given::Blob(blob)) if blob == "AAAA")
        );
        assert!(matches!(there_and_back(Ok(Given::Enabled)).outcome, Ok(Given::Enabled)));
        for refusal in [
            Refusal::Denied,
            Refusal::Disabled,
            Refusal::PendingDeletion(None),
            Refusal::PendingDeletion(Some("2026-01-02".to_owned())),
            Refusal::NotFound,
            Refusal::Broken,
            Refusal::Unavailable,
        ] {
            assert_eq!(there_and_back(Err(refusal.clone())).outcome.err(), Some(refusal));
        }
    }
}
