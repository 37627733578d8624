//! IKE datagrams, and what is inside of them once it is decrypted.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| hostseal::ike::digest(bytes));
