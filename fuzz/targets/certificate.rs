//! Certificates as a peer sends them and as files hold them, with revocation lists and keys: whatever of it can
//! be read is checked as a peer's proof would be, and proves nothing.

#![no_main]

use hostseal::identity::certificate::{Authorities, Chain, Subject};
use hostseal::config::Config;
use hostseal::identity::{PrivateKey, PublicKey, Secret};
use hostseal::types::UnixTime;
use libfuzzer_sys::fuzz_target;

/// When the seeds are valid.
const NOW: UnixTime = UnixTime(1_800_000_000);

/// A CA of whose key nothing is left.
const CA: &str = include_str!("../seeds/certificate/ca.pem");

/// Whose certificate is asked for: the seeds are another's.
const NODES: &str = "cluster = \"x\"\n[[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n";

/// Certificates one behind the other, each as long as it says.
fn parts(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let [0x30, 0x82, high, low, ..] = *bytes {
        let length = 4 + usize::from(u16::from_be_bytes([high, low]));
        let (part, rest) = bytes.split_at(length.min(bytes.len()));
        parts.push(part);
        bytes = rest;
    }
    if !bytes.is_empty() {
        parts.push(bytes);
    }
    parts
}

fuzz_target!(|bytes: &[u8]| {
    let config = Config::parse(NODES, "fuzz.toml").expect("a configuration");
    let node = &config.nodes[0];
    let subject = Subject { node: &node.name, addresses: &node.addresses };
    let ours = Authorities::from_pem(CA).expect("the CA of the seeds");
    let der = Chain::from_der(parts(bytes).into_iter());
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    for chain in [der, Chain::from_pem(text)].into_iter().flatten() {
        let _ = (chain.public_key(), chain.names(subject));
        // Only what the CA has signed can be right, and that names others.
        assert!(ours.verify(&chain, NOW, subject).is_err());
        if let Ok(mut theirs) = Authorities::from_pem(text) {
            let _ = theirs.revoke(text);
            let _ = theirs.verify(&chain, NOW, subject);
        }
    }
    if let Ok(key) = PublicKey::from_der(bytes) {
        assert_eq!(key.to_string().parse().as_ref(), Ok(&key));
    }
    if let Ok(key) = PrivateKey::from_pem(text) {
        assert!(key.sign(b"octets").is_ok());
    }
    if let Ok(secret) = Secret::from_line(text) {
        assert_eq!(Secret::from_line(&secret.to_line()).map(|again| again.id()), Ok(secret.id()));
    }
});
