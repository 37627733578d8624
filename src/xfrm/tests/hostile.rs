//! Netlink messages that no kernel sends: nothing may panic, nothing may come out of thin air.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::golden;
use super::*;
use crate::xfrm::digest;

fn run(cases: u32, strategy: impl Strategy<Value = Vec<u8>>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&strategy, |datagram| {
            digest(&datagram);
            Ok(())
        })
        .expect("no panic");
}

/// One of the real messages.
fn real() -> impl Strategy<Value = Vec<u8>> {
    let messages: Vec<_> = golden::ALL.iter().map(|text| hex(text)).collect();
    prop::sample::select(messages)
}

#[test]
fn random_bytes_do_no_harm() {
    run(20_000, vec(any::<u8>(), 0..512));
}

#[test]
fn random_bodies_of_every_type_do_no_harm() {
    let message = (0u16..0x30, any::<u16>(), vec(any::<u8>(), 0..512)).prop_map(|(kind, flags, body)| {
        let mut message = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(&body);
        message
    });
    run(20_000, message);
}

#[test]
fn mutated_messages_do_no_harm() {
    let mutations = vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    let mutated = (real(), real(), mutations, 0u16..0x30, any::<bool>()).prop_map(
        |(one, two, mutations, kind, retype)| {
            let mut datagram = [one, two].concat();
            if retype {
                datagram[4..6].copy_from_slice(&kind.to_ne_bytes());
            }
            for (at, byte) in mutations {
                let at = at.index(datagram.len());
                datagram[at] = byte;
            }
            datagram
        },
    );
    run(40_000, mutated);
}

#[test]
fn truncated_messages_do_no_harm() {
    // Cut short both as they arrive and with a length that admits it.
    let cut = (real(), any::<prop::sample::Index>(), any::<bool>()).prop_map(|(mut message, at, admit)| {
        message.truncate(at.index(message.len()));
        let length = message.len() as u32;
        if let Some(field) = message.get_mut(..4).filter(|_| admit) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        message
    });
    run(20_000, cut);
}
