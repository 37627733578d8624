//! A datagram on the IKE socket as a probe, or on that of a proof; what a peer tells as a report, of itself, or of a proof;
//! and what comes to `doctor --listen`: what is one is written again as it came.

#![no_main]

use std::time::Instant;

use hostseal::host::probe::{decode, decode_try, encode, encode_try};
use hostseal::host::prover::word::ProofWord;
use hostseal::observe::About;
use hostseal::observe::doctor::knock;
use hostseal::protect::report::Report;
use hostseal::types::Nonce;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    if let Some(probe) = decode(datagram) {
        assert_eq!(encode(probe), datagram);
    }
    if let Some(token) = decode_try(datagram) {
        assert_eq!(encode_try(&token), datagram);
    }
    if let Some(nonce) = knock::asked(datagram) {
        assert_eq!(knock::asked(&knock::question(&nonce)), Some(nonce));
    }
    for has_header in [false, true] {
        let _ = knock::esp_nonce(datagram, has_header);
    }
    let _ = knock::answered(datagram, &[0; 16]);
    if let Some(about) = About::from_bytes(datagram) {
        assert_eq!(About::from_bytes(&about.to_bytes()).map(|about| about.exam), Some(about.exam));
    }
    if let Some((kind, nonce)) = Nonce::from_datagram(datagram) {
        assert_eq!(nonce.datagram(kind), datagram);
    }
    if let Some(word) = ProofWord::from_octets(datagram) {
        assert_eq!(ProofWord::from_octets(&word.to_octets()), Some(word));
    }
    let now = Instant::now();
    if let Some(report) = Report::from_octets(datagram, now) {
        let said = report.to_octets(now);
        assert_eq!(Report::from_octets(&said, now).map(|again| again.to_octets(now)), Some(said));
    }
});
