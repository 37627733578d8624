//! A line on the control socket, at either end: what can be read says the same once it is written again.

#![no_main]

use hostseal::control::{decode_reply, decode_request, encode_reply, encode_request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    if let Ok(request) = decode_request(line) {
        assert_eq!(decode_request(encode_request(&request).as_bytes()), Ok(request));
    }
    if let Ok(reply) = decode_reply(line) {
        assert_eq!(decode_reply(encode_reply(reply.clone()).as_bytes()), Ok(reply));
    }
});
