//! What `hostseal prove` reports, and who says so.
//!
//! **What is signed** are these octets: the 32 of [`LABEL`], and then the report as JSON in UTF-8, without its field
//! `signature`, without spaces between anything, and with the names in each object in the order of their octets (what
//! `jq -cjS 'del(.signature)'` prints). So a report may be formatted anew, and nothing of it be changed. The signature is
//! that of Ed25519 (RFC 8032), or ECDSA with SHA2-256 on P-256 and SHA2-384 on P-384 as an ECDSA-Sig-Value (RFC 3279
//! section 2.2.3).
//!
//! The label sets it apart from all else that the key signs: what is signed in IKE_AUTH begins with an IKE message
//! (RFC 7296 section 2.15), whose 18th octet is 0x20 where the label has a letter; what is signed for a roster begins with
//! the label of rosters.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::pair_proof::{PairProof, ProofResult};
use crate::identity::{PrivateKey, PublicKey};
use crate::types::{NodeName, UnixTime};

/// The version of the report.
pub const PROOF_SCHEMA: u32 = 1;
/// What is signed begins with this.
const LABEL: [u8; 32] = *b"hostseal prove report, version 1";

/// What one host has found out about its pairs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofReport {
    /// [`PROOF_SCHEMA`].
    pub schema: u32,
    /// When the last pair was done.
    pub time: UnixTime,
    /// The name of the cluster.
    pub cluster: String,
    /// The host that says it.
    pub node: NodeName,
    /// Its version.
    pub version: String,
    /// The pairs.
    pub pairs: Vec<PairProof>,
    /// Other nodes of the cluster that could not be asked to prove theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unasked: Vec<UnaskedNode>,
    /// By the key of the node; `None` where it has none.
    pub signature: Option<ReportSignature>,
}

/// A node that could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnaskedNode {
    /// Its name.
    pub node: NodeName,
    /// Why.
    pub reason: String,
}

/// Who says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportSignature {
    /// The public key, as `hostseal key show` prints it.
    pub key: String,
    /// The signature in base64.
    pub value: String,
}

/// Why a report does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAReport {
    /// It is none.
    #[error("not a report of `hostseal prove --json`: {0}")]
    Malformed(String),
    /// It is of a version that is not known here.
    #[error(
        "a report of schema {0}, and this hostseal knows schema {PROOF_SCHEMA}: verify it with a newer one"
    )]
    Schema(u64),
    /// Nobody has signed it.
    #[error(
        "the report is not signed: its node has no key (it proves itself with the secret of the cluster), so anybody can \
         have written it"
    )]
    Unsigned,
    /// It was changed after it was signed, or the signature is none.
    #[error("the signature does not hold: the report was changed, or somebody else has signed it")]
    Forged,
    /// It is signed with another key.
    #[error(
        "the report is signed with another key than that of {0}: it was replaced since, or somebody else has signed it"
    )]
    OtherKey(NodeName),
}

impl ProofReport {
    /// Signs it.
    ///
    /// # Errors
    /// The cryptography library failed, in words.
    pub fn sign(&mut self, key: &PrivateKey) -> Result<(), String> {
        // Plain data: nothing in it cannot be said in JSON.
        let value = serde_json::to_value(&*self).map_err(|error| error.to_string())?;
        let signature = key.sign(&message(value)).map_err(|error| error.to_string())?;
        let (key, value) = (key.public().to_string(), STANDARD.encode(signature));
        self.signature = Some(ReportSignature { key, value });
        Ok(())
    }

    /// The report in `text`, which `key` must have signed, as the one of its node.
    ///
    /// # Errors
    /// It is none, or was not signed by that key.
    pub fn verified(text: &str, key: impl FnOnce(&Self) -> PublicKey) -> Result<Self, NotAReport> {
        let report = Self::read(text)?;
        let signature = report.signature.as_ref().ok_or(NotAReport::Unsigned)?;
        let key = key(&report);
        if signature.key.parse::<PublicKey>().ok().as_ref() != Some(&key) {
            return Err(NotAReport::OtherKey(report.node));
        }
        let value = STANDARD.decode(&signature.value).map_err(|_| NotAReport::Forged)?;
        let said: Value = serde_json::from_str(text).map_err(|error| malformed(&error))?;
        key.has_signed(&message(said), &value).then_some(()).ok_or(NotAReport::Forged)?;
        Ok(report)
    }

    /// The report in `text`, whoever has written it.
    ///
    /// # Errors
    /// It is none.
    pub fn read(text: &str) -> Result<Self, NotAReport> {
        let said: Value = serde_json::from_str(text).map_err(|error| malformed(&error))?;
        if !is_plain(&said) {
            return Err(NotAReport::Malformed(
                "it has characters that would change what a terminal shows".to_owned(),
            ));
        }
        match said.get("schema").and_then(Value::as_u64) {
            Some(schema) if schema != u64::from(PROOF_SCHEMA) => Err(NotAReport::Schema(schema)),
            _ => serde_json::from_value(said).map_err(|error| malformed(&error)),
        }
    }

    /// Whether there are pairs, and all of them are proven, of all nodes that were to be asked.
    pub fn is_proven(&self) -> bool {
        let all = self.pairs.iter().all(|pair| pair.result == ProofResult::Proven);
        all && !self.pairs.is_empty() && self.unasked.is_empty()
    }
}

/// Whether all texts in it can be shown: whoever wrote it may have gone bad.
fn is_plain(value: &Value) -> bool {
    let shown = |text: &str| !text.chars().any(char::is_control);
    match value {
        Value::String(text) => shown(text),
        Value::Array(list) => list.iter().all(is_plain),
        Value::Object(fields) => fields.iter().all(|(name, value)| shown(name) && is_plain(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

fn malformed(error: &serde_json::Error) -> NotAReport {
    NotAReport::Malformed(error.to_string())
}

/// What is signed of a report.
fn message(mut report: Value) -> Vec<u8> {
    if let Value::Object(fields) = &mut report {
        fields.remove("signature");
    }
    report.sort_all_objects();
    [&LABEL[..], report.to_string().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Pair;

    fn report() -> ProofReport {
        let pair = Pair::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).unwrap();
        ProofReport {
            schema: PROOF_SCHEMA,
            time: UnixTime(1_767_225_600),
            cluster: "demo".to_owned(),
            node: "a".parse().unwrap(),
            version: "0.1.0".to_owned(),
            pairs: vec![PairProof::proven("b".parse().unwrap(), pair)],
            unasked: Vec::new(),
            signature: None,
        }
    }

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::from_seed(&[seed; 32]).unwrap()
    }

    /// Whoever checks it with other tools has to find the same octets.
    #[test]
    fn what_is_signed_is_what_the_page_says() {
        let octets = message(serde_json::to_value(report()).unwrap());
        assert_eq!(
            String::from_utf8(octets).unwrap(),
            "hostseal prove report, version 1{\"cluster\":\"demo\",\"node\":\"a\",\"pairs\":[{\"family\":\"ipv4\",\
             \"in\":null,\"local\":\"10.0.0.1\",\"node\":\"b\",\"out\":null,\"reason\":null,\"reason_code\":null,\
             \"remote\":\"10.0.0.2\",\"result\":\"proven\",\"rounds\":0,\"wire\":null}],\"schema\":1,\
             \"time\":\"2026-01-01T00:00:00Z\",\"version\":\"0.1.0\"}"
        );
    }

    #[test]
    fn a_signed_report_holds_and_a_changed_one_does_not() {
        let mut signed = report();
        signed.sign(&key(1)).unwrap();
        let public = || key(1).public().clone();
        for text in [serde_json::to_string(&signed).unwrap(), serde_json::to_string_pretty(&signed).unwrap()]
        {
            assert_eq!(ProofReport::verified(&text, |_| public()).as_ref(), Ok(&signed));
            let other = NotAReport::OtherKey("a".parse().unwrap());
            assert_eq!(ProofReport::verified(&text, |_| key(2).public().clone()), Err(other));
            for (from, to) in [("10.0.0.2", "10.0.0.3"), ("\"rounds\"", "\"more\":1,\"rounds\"")] {
                let changed = text.replace(from, to);
                assert_ne!(changed, text);
                assert_eq!(ProofReport::verified(&changed, |_| public()), Err(NotAReport::Forged));
            }
        }
        // A key that somebody puts into the report himself is not that of the node.
        let mut forged = report();
        forged.sign(&key(2)).unwrap();
        forged.signature.as_mut().unwrap().key = public().to_string();
        let text = serde_json::to_string(&forged).unwrap();
        assert_eq!(ProofReport::verified(&text, |_| public()), Err(NotAReport::Forged));
        let unsigned = serde_json::to_string(&report()).unwrap();
        assert_eq!(ProofReport::verified(&unsigned, |_| public()), Err(NotAReport::Unsigned));
    }

    #[test]
    fn a_node_that_was_not_asked_leaves_it_open() {
        let proven = report();
        assert!(proven.is_proven());
        let unasked =
            vec![UnaskedNode { node: "c".parse().unwrap(), reason: "it does not answer".to_owned() }];
        assert!(!ProofReport { unasked, ..proven.clone() }.is_proven());
        assert!(!ProofReport { pairs: Vec::new(), ..proven }.is_proven());
    }

    #[test]
    fn what_is_no_report_is_named() {
        assert!(matches!(ProofReport::read("{}"), Err(NotAReport::Malformed(_))));
        assert!(matches!(ProofReport::read("so"), Err(NotAReport::Malformed(_))));
        assert_eq!(ProofReport::read("{\"schema\":2}"), Err(NotAReport::Schema(2)));
        let mut painted = report();
        painted.pairs[0].reason = Some("\x1b[2J all is well".to_owned());
        let text = serde_json::to_string(&painted).unwrap();
        assert!(matches!(ProofReport::read(&text), Err(NotAReport::Malformed(_))));
    }
}
