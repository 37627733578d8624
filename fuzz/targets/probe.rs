//! A datagram on the IKE socket as a probe: what is one is written again as it came.

#![no_main]

use hostseal::host::probe::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    if let Some(probe) = decode(datagram) {
        assert_eq!(encode(probe), datagram);
    }
});
