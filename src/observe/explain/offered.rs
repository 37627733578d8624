//! A peer's offer in words: strongSwan's where there are any, and numbers where there are none.

use crate::ike::reason::{Algorithm, Offered, OfferedProposal};

/// Types of transforms (RFC 7296 section 3.3.2; ADDKE1: RFC 9370 section 2.2.1).
const ENCR: u8 = 1;
const PRF: u8 = 2;
const INTEG: u8 = 3;
const DH: u8 = 4;
const ESN: u8 = 5;
const ADDKE1: u8 = 6;

/// Protocols (RFC 7296 section 3.3.1).
const IKE: u8 = 1;
const ESP: u8 = 3;

/// Algorithms by type and number, hostseal's own and those that other software offers (the registry of IKEv2
/// parameters at IANA).
const NAMES: &[(u8, u16, &str)] = &[
    (ENCR, 3, "3des"),
    (ENCR, 12, "aes"),
    (ENCR, 13, "aesctr"),
    (ENCR, 18, "aesgcm8"),
    (ENCR, 19, "aesgcm12"),
    (ENCR, 20, "aesgcm16"),
    (ENCR, 28, "chacha20poly1305"),
    (PRF, 1, "prfmd5"),
    (PRF, 2, "prfsha1"),
    (PRF, 4, "prfaesxcbc"),
    (PRF, 5, "prfsha256"),
    (PRF, 6, "prfsha384"),
    (PRF, 7, "prfsha512"),
    (PRF, 8, "prfaescmac"),
    (INTEG, 1, "md5"),
    (INTEG, 2, "sha1"),
    (INTEG, 5, "aesxcbc"),
    (INTEG, 12, "sha256"),
    (INTEG, 13, "sha384"),
    (INTEG, 14, "sha512"),
    (DH, 2, "modp1024"),
    (DH, 5, "modp1536"),
    (DH, 14, "modp2048"),
    (DH, 15, "modp3072"),
    (DH, 16, "modp4096"),
    (DH, 19, "ecp256"),
    (DH, 20, "ecp384"),
    (DH, 21, "ecp521"),
    (DH, 31, "x25519"),
    (DH, 32, "x448"),
    (ESN, 0, "noesn"),
    (ESN, 1, "esn"),
    (ADDKE1, 36, "ke1_mlkem768"),
];

/// What is offered.
pub(super) fn words(offered: &Offered) -> String {
    let mut told: Vec<String> = offered.proposals.iter().map(proposal).collect();
    told.extend((offered.more > 0).then(|| format!("{} more", offered.more)));
    match told.is_empty() {
        true => "nothing".to_owned(),
        false => told.join(", "),
    }
}

fn proposal(offered: &OfferedProposal) -> String {
    let said: Vec<String> = offered.algorithms.iter().map(algorithm).collect();
    match offered.protocol {
        IKE | ESP if !said.is_empty() => said.join("-"),
        other => format!("protocol {other}"),
    }
}

fn algorithm(Algorithm { kind, id, key_bits }: &Algorithm) -> String {
    let bits = key_bits.map(|bits| bits.to_string()).unwrap_or_default();
    let known = NAMES.iter().find(|(of, number, _)| (of, number) == (kind, id)).map(|(_, _, name)| *name);
    match known {
        // strongSwan puts the size in the middle.
        Some(name) if name.starts_with("aes") => format!("aes{bits}{}", &name["aes".len()..]),
        Some(name) => format!("{name}{bits}"),
        None => format!("{kind}/{id}{}", key_bits.map(|bits| format!("/{bits}")).unwrap_or_default()),
    }
}
