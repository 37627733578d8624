//! A datagram on the IKE socket as a probe, and what a peer tells as a report: what is one is written again as it came.

#![no_main]

use std::time::Instant;

use hostseal::host::probe::{decode, encode};
use hostseal::protect::report::Report;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    if let Some(probe) = decode(datagram) {
        assert_eq!(encode(probe), datagram);
    }
    let now = Instant::now();
    if let Some(report) = Report::from_octets(datagram, now) {
        let said = report.to_octets(now);
        assert_eq!(Report::from_octets(&said, now).map(|again| again.to_octets(now)), Some(said));
    }
});
