//! A peer's offer in words: strongSwan's where there are any, and numbers where there are none.

use crate::ike::wire::codes::{protocol, transform};
use crate::ike::wire::{Proposal, Transform};

/// As many proposals are told, and as many algorithms of each: anybody can offer more.
const PROPOSALS: usize = 3;
const ALGORITHMS: usize = 16;

/// Algorithms by type and number, hostseal's own and those that other software offers (the registry of IKEv2
/// parameters at IANA).
const NAMES: &[(u8, u16, &str)] = &[
    (transform::ENCR, 3, "3des"),
    (transform::ENCR, transform::ENCR_AES_CBC, "aes"),
    (transform::ENCR, 13, "aesctr"),
    (transform::ENCR, 18, "aesgcm8"),
    (transform::ENCR, 19, "aesgcm12"),
    (transform::ENCR, transform::ENCR_AES_GCM_16, "aesgcm16"),
    (transform::ENCR, 28, "chacha20poly1305"),
    (transform::PRF, 1, "prfmd5"),
    (transform::PRF, 2, "prfsha1"),
    (transform::PRF, 4, "prfaesxcbc"),
    (transform::PRF, transform::PRF_HMAC_SHA2_256, "prfsha256"),
    (transform::PRF, transform::PRF_HMAC_SHA2_384, "prfsha384"),
    (transform::PRF, transform::PRF_HMAC_SHA2_512, "prfsha512"),
    (transform::PRF, 8, "prfaescmac"),
    (transform::INTEG, 1, "md5"),
    (transform::INTEG, 2, "sha1"),
    (transform::INTEG, 5, "aesxcbc"),
    (transform::INTEG, transform::INTEG_HMAC_SHA2_256_128, "sha256"),
    (transform::INTEG, transform::INTEG_HMAC_SHA2_384_192, "sha384"),
    (transform::INTEG, 14, "sha512"),
    (transform::DH, 2, "modp1024"),
    (transform::DH, 5, "modp1536"),
    (transform::DH, 14, "modp2048"),
    (transform::DH, 15, "modp3072"),
    (transform::DH, 16, "modp4096"),
    (transform::DH, transform::DH_ECP_256, "ecp256"),
    (transform::DH, transform::DH_ECP_384, "ecp384"),
    (transform::DH, 21, "ecp521"),
    (transform::DH, transform::DH_CURVE25519, "x25519"),
    (transform::DH, 32, "x448"),
    (transform::ESN, transform::ESN_NO, "noesn"),
    (transform::ESN, transform::ESN_YES, "esn"),
    (transform::ADDKE1, transform::ADDKE_ML_KEM_768, "ke1_mlkem768"),
];

/// What `offers` say.
pub fn words(offers: &[Proposal]) -> String {
    let mut told: Vec<String> = offers.iter().take(PROPOSALS).map(proposal).collect();
    match offers.len() {
        0 => "nothing".to_owned(),
        count => {
            told.extend((count > PROPOSALS).then(|| format!("{} more", count - PROPOSALS)));
            told.join(", ")
        }
    }
}

fn proposal(offer: &Proposal) -> String {
    // What is not there at all is not said (of each type one is NONE, number 0; of sequence numbers it is a choice).
    let is_said = |transform: &&Transform| transform.id != 0 || transform.kind == transform::ESN;
    let said = offer.transforms.iter().filter(is_said).take(ALGORITHMS).map(algorithm);
    let said = said.collect::<Vec<_>>().join("-");
    match offer.protocol {
        protocol::IKE | protocol::ESP if !said.is_empty() => said,
        other => format!("protocol {other}"),
    }
}

fn algorithm(transform: &Transform) -> String {
    let Transform { kind, id, key_bits, .. } = transform;
    let bits = key_bits.map(|bits| bits.to_string()).unwrap_or_default();
    let known = NAMES.iter().find(|(of, number, _)| (of, number) == (kind, id)).map(|(_, _, name)| *name);
    match known {
        // strongSwan puts the size in the middle.
        Some(name) if name.starts_with("aes") => format!("aes{bits}{}", &name["aes".len()..]),
        Some(name) => format!("{name}{bits}"),
        None => format!("{kind}/{id}{}", key_bits.map(|bits| format!("/{bits}")).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::crypto::suite::{esp_offer, ike_offer};
    use crate::types::{EspProposal, IkeProposal, Proposals, Spi};

    #[test]
    fn what_is_known_here_is_told_as_the_file_says_it() {
        for text in ["aes256gcm16-prfsha384-x25519-ke1_mlkem768", "aes256-sha256-prfsha256-ecp384"] {
            let ours = Proposals::new(vec![text.parse::<IkeProposal>().unwrap()]).unwrap();
            assert_eq!(words(&ike_offer(&ours, &[])), text);
        }
        let default = Proposals::<EspProposal>::default();
        assert_eq!(words(&esp_offer(&default, Spi(300))), default.to_string());
    }

    #[test]
    fn others_are_told_too_but_not_without_end() {
        let of = |transforms| Proposal { number: 1, protocol: protocol::IKE, spi: Vec::new(), transforms };
        let [sha1, modp, none, odd] = [
            Transform::new(transform::INTEG, 2),
            Transform::new(transform::DH, 14),
            Transform::new(transform::ADDKE1, 0),
            Transform::keyed(transform::ENCR, 999, 64),
        ];
        let old = of(vec![Transform::keyed(transform::ENCR, 12, 128), sha1, modp, none]);
        assert_eq!(words(&[old.clone(), of(vec![odd])]), "aes128-sha1-modp2048, 1/999/64");
        assert_eq!(words(&[]), "nothing");
        assert_eq!(words(&[of(vec![])]), "protocol 1");
        let many = vec![of(vec![odd; 1000]); 1000];
        assert!(words(&many).len() < 600 && words(&many).ends_with("997 more"));
    }
}
