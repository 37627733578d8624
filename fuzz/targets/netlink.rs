//! A datagram on a netlink socket.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| hostseal::xfrm::digest(datagram));
