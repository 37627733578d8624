//! The keys of IKE SAs for Wireshark, so that somebody who shares no code with us can read along: only with the
//! feature `key-export`, which no release has.

use std::cell::RefCell;

use crate::ike::crypto::keys::Spis;
use crate::ike::crypto::suite::Suite;
use crate::types::{IkeCipher, Integrity};

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A key of the initiator and one of the responder.
type Both<'a> = [&'a [u8]; 2];

/// Remembers the keys of an IKE SA: what encrypts, and what authenticates beside it.
pub(super) fn remember(suite: Suite, spis: Spis, encrypt: Both<'_>, check: Both<'_>) {
    let encryption = match suite.cipher {
        IkeCipher::AesGcm16(bits) => format!("AES-GCM-{bits} with 16 octet ICV [RFC5282]"),
        IkeCipher::AesCbc(bits) => format!("AES-CBC-{bits} [RFC3602]"),
    };
    let integrity = match suite.integrity {
        None => "NONE [RFC4306]",
        Some(Integrity::HmacSha256) => "HMAC_SHA2_256_128 [RFC4868]",
        Some(Integrity::HmacSha384) => "HMAC_SHA2_384_192 [RFC4868]",
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let ([ei, er], [ai, ar]) = (encrypt.map(hex), check.map(hex));
    let Spis { initiator, responder } = spis;
    let line =
        format!("{initiator:016x},{responder:016x},{ei},{er},\"{encryption}\",{ai},{ar},\"{integrity}\"");
    LINES.with_borrow_mut(|lines| lines.push(line));
}

/// The lines for Wireshark's `ikev2_decryption_table` that are new since the last call in this thread.
pub fn exported_keys() -> Vec<String> {
    LINES.with_borrow_mut(std::mem::take)
}
