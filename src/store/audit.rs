//! What was done with the key that wraps the secret, a line each. Each line holds the hash of the one before it, so that
//! none can be altered, removed, added or moved without a trace.
//!
//! ```text
//! {"seq":17,"time":…,"event":"use",…,"previous":H(16)}
//! {"seq":18,"time":…,"event":"cut",…,"previous":H(17)}    H(n): SHA-256 of line n, without its end
//! ```
//! The chain proves nothing against somebody who writes all of it anew. So its head, the number and the hash of the last
//! line, is told elsewhere too: whoever has a head can tell whether these are the lines that led to it.
//!
//! Here are the lines as values; `files` keeps them, `check` tells whether they are whole.

mod check;
mod files;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use self::check::{AuditCheck, AuditFlaw, AuditVerdict};
pub use self::files::AuditFiles;
use crate::types::{NodeName, UnixTime};

/// The hash of a line, in hexadecimal digits where it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LineHash([u8; 32]);

impl LineHash {
    /// Of a line without its end.
    fn of(line: &[u8]) -> Self {
        Self(Sha256::digest(line).into())
    }
}

impl fmt::Display for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl FromStr for LineHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let octet = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
        let octets: Option<Vec<u8>> = text.as_bytes().chunks(2).map(octet).collect();
        let is_plain = text.bytes().all(|c| c.is_ascii_hexdigit());
        let octets = octets.filter(|_| is_plain).and_then(|octets| octets.try_into().ok());
        octets.map(Self).ok_or_else(|| "a hash has 64 hexadecimal digits".to_owned())
    }
}

impl Serialize for LineHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LineHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditKind {
    /// The agent has started.
    Start,
    /// It has ended.
    Stop,
    /// The files in force name this key now, or say something else of it.
    Configured,
    /// They name no key any more.
    Released,
    /// The secret was unwrapped.
    Use,
    /// It was not.
    Refusal,
    /// This host was cut off.
    Cut,
    /// It has its secret again.
    Restore,
    /// Root had a secret wrapped here.
    Wrap,
    /// Root had the wrapped secret wrapped anew.
    Rewrap,
    /// Root had it tried whether the key can be used.
    Check,
    /// Something that only a later version knows.
    #[serde(other)]
    Other,
}

/// Something that happened, to be recorded. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// When.
    pub time: UnixTime,
    /// The cluster.
    pub cluster: String,
    /// On which node of it.
    pub node: NodeName,
    /// What.
    pub event: AuditKind,
    /// Which kind of KMS has the key.
    pub provider: String,
    /// What the KMS calls the key.
    pub key: String,
    /// What the KMS said, in a word for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// When the KMS deletes the key, in its words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_date: Option<String>,
    /// What was said to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What the KMS calls the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// How many SAs were removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sas_cut: Option<u64>,
}

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct AuditLine {
    /// Lines are counted from 1.
    seq: u64,
    #[serde(flatten)]
    event: AuditEvent,
    /// So many events before this one have no line: they could not be written.
    #[serde(default, skip_serializing_if = "is_zero")]
    missing: u64,
    /// The hash of what stands between the line before and this one, and is no line: a write that did not end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    torn: Option<LineHash>,
    /// The hash of the line before; of the first one it is zero.
    previous: LineHash,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl AuditLine {
    /// Reads a line; `None` where it is something else.
    fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}

/// How far a chain has come: its last line. By default there is none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChainHead {
    /// The number of the line.
    pub seq: u64,
    /// Its hash.
    pub hash: LineHash,
}

impl ChainHead {
    /// Where a line is the last one.
    fn at(line: &AuditLine, text: &[u8]) -> Self {
        Self { seq: line.seq, hash: LineHash::of(text) }
    }
}

impl fmt::Display for ChainHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, {}", self.seq, self.hash)
    }
}

/// What is to be written at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditBatch {
    /// Events, the oldest first.
    pub events: Vec<AuditEvent>,
    /// How many before the first one have no line, and will not have one.
    pub missing: u64,
    /// The last line that whoever writes this knows of.
    pub known: Option<ChainHead>,
}

impl AuditBatch {
    /// The lines that follow `head`, without their ends, and the last one. The hash of what else stands behind the line
    /// before is `torn`.
    pub fn lines(&self, head: ChainHead, torn: Option<LineHash>) -> AuditWritten {
        let mut written = AuditWritten { head, lines: Vec::new() };
        let (mut missing, mut torn) = (self.missing, torn);
        for event in &self.events {
            let line = AuditLine {
                seq: written.head.seq.saturating_add(1),
                event: event.clone(),
                missing: std::mem::take(&mut missing),
                torn: torn.take(),
                previous: written.head.hash,
            };
            // Nothing in it can fail to be written.
            let text = serde_json::to_string(&line).unwrap_or_default();
            written.head = ChainHead::at(&line, text.as_bytes());
            written.lines.push(text);
        }
        written
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditWritten {
    /// The last line.
    pub head: ChainHead,
    /// The lines, without their ends.
    pub lines: Vec<String>,
}

/// What stands where lines should be, and is none: what a power cut has left of one, or what somebody else wrote. The
/// line that follows holds its hash.
#[derive(Debug, Clone, Default)]
struct Torn(Option<Sha256>);

impl Torn {
    fn add(&mut self, text: &[u8]) {
        let hash = self.0.get_or_insert_default();
        hash.update(text);
        hash.update(b"\n");
    }

    fn hash(&self) -> Option<LineHash> {
        self.0.clone().map(|hash| LineHash(hash.finalize().into()))
    }
}

#[cfg(test)]
mod tests;
