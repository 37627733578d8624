//! Messages to bytes and back.

use std::net::IpAddr;

use proptest::prelude::*;

use crate::ike::crypto::suite::{OwnKe, choose_esp, choose_ike};
use crate::ike::reason::{Incompatible, Reason};
use crate::ike::wire::codes::{Exchange, notify, payload, protocol};
use crate::ike::wire::{
    Delete, HEADER, Header, HeaderFlags, Id, Ke, Message, Notify, Parts, Payload, Proposal, TrafficSelector,
    Transform, parse_chain, write_chain, write_clear,
};
use crate::types::Proposals;

fn header() -> Header {
    Header {
        initiator_spi: 0x1122_3344_5566_7788,
        responder_spi: 0,
        first: 0,
        exchange: Exchange::IKE_SA_INIT,
        flags: HeaderFlags { from_initiator: true, response: false },
        message_id: 7,
    }
}

fn bytes(limit: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..limit)
}

fn transforms() -> impl Strategy<Value = Transform> {
    (1..6u8, any::<u16>(), any::<Option<u16>>()).prop_map(|(kind, id, key_bits)| Transform {
        kind,
        id,
        key_bits,
        unknown_attribute: false,
    })
}

fn proposals() -> impl Strategy<Value = Proposal> {
    (any::<u8>(), 1..4u8, bytes(9), prop::collection::vec(transforms(), 1..6))
        .prop_map(|(number, protocol, spi, transforms)| Proposal { number, protocol, spi, transforms })
}

fn selectors() -> impl Strategy<Value = TrafficSelector> {
    let v4 = (any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    let v6 = (any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    (any::<u8>(), any::<(u16, u16)>(), prop_oneof![v4, v6])
        .prop_map(|(protocol, ports, addresses)| TrafficSelector { protocol, ports, addresses })
}

fn ids() -> impl Strategy<Value = Id> {
    (any::<u8>(), bytes(20)).prop_map(|(kind, data)| Id { kind, data })
}

fn notifies() -> impl Strategy<Value = Notify> {
    let about = (any::<u8>(), prop::collection::vec(any::<u8>(), 1..9));
    (prop::option::of(about), any::<u16>(), bytes(40)).prop_map(|(about, kind, data)| Notify {
        about,
        kind,
        data,
    })
}

fn payloads() -> impl Strategy<Value = Payload> {
    prop_oneof![
        prop::collection::vec(proposals(), 1..4).prop_map(Payload::Sa),
        (any::<u16>(), bytes(64)).prop_map(|(group, data)| Payload::Ke(Ke { group, data })),
        ids().prop_map(Payload::IdI),
        ids().prop_map(Payload::IdR),
        (any::<u8>(), bytes(64)).prop_map(|(method, data)| Payload::Auth { method, data }),
        prop::collection::vec(any::<u8>(), 16..=256).prop_map(Payload::Nonce),
        notifies().prop_map(Payload::Notify),
        Just(Payload::Delete(Delete::Ike)),
        prop::collection::vec(any::<u32>(), 0..5).prop_map(|spis| Payload::Delete(Delete::Esp(spis))),
        bytes(40).prop_map(Payload::VendorId),
        prop::collection::vec(selectors(), 0..4).prop_map(Payload::TsI),
        prop::collection::vec(selectors(), 0..4).prop_map(Payload::TsR),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(payloads in prop::collection::vec(payloads(), 0..8)) {
        let message = write_clear(header(), &payloads);
        let parsed = Message::parse(&message).unwrap();
        prop_assert_eq!(&parsed.payloads, &payloads);
        prop_assert_eq!(parsed.header.initiator_spi, header().initiator_spi);
        prop_assert_eq!(parsed.header.message_id, 7);
        prop_assert!(parsed.encrypted.is_none());
        prop_assert_eq!(write_clear(parsed.header, &parsed.payloads), message);
    }

    #[test]
    fn a_part_of_a_message_is_none(payloads in prop::collection::vec(payloads(), 1..4), cut in any::<prop::sample::Index>()) {
        let message = write_clear(header(), &payloads);
        let mut part = message[..cut.index(message.len())].to_vec();
        prop_assert!(Message::parse(&part).is_err());
        if part.len() >= HEADER {
            let length = u32::try_from(part.len()).unwrap().to_be_bytes();
            part[24..28].copy_from_slice(&length);
            prop_assert!(Message::parse(&part).is_err());
        }
    }

    #[test]
    fn random_bytes_do_not_panic(first in any::<u8>(), bytes in bytes(400)) {
        let _ = parse_chain(first, &bytes);
        let _ = Message::parse(&bytes);
    }

    #[test]
    fn changed_bytes_do_not_panic(
        payloads in prop::collection::vec(payloads(), 1..6),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut chain = Vec::new();
        write_chain(&payloads, &mut chain);
        for (at, value) in changes {
            let at = at.index(chain.len());
            chain[at] = value;
        }
        if let Ok(parsed) = parse_chain(payloads[0].kind(), &chain) {
            let _ = Parts(&parsed).sa().map(|offers| {
                (choose_ike(&Proposals::default(), offers, true).is_ok(), choose_esp(&Proposals::default(), offers, OwnKe::Never).is_ok())
            });
        }
    }
}

#[test]
fn unknown_payloads_are_skipped_and_critical_ones_reported() {
    let chain = |critical| [0, critical, 0, 6, 1, 2];
    assert_eq!(parse_chain(200, &chain(0)), Ok(Vec::new()));
    assert_eq!(parse_chain(200, &chain(0x80)), Err(Incompatible::CriticalPayload(200).into()));
    let answer = Reason::from(Incompatible::CriticalPayload(200)).to_notify();
    assert_eq!(answer, Payload::notify(notify::UNSUPPORTED_CRITICAL_PAYLOAD, vec![200]));
    // The bit means nothing on a payload that we know (RFC 7296 section 2.5).
    let mut known = vec![0, 0x80, 0, 20];
    known.extend([9; 16]);
    assert_eq!(parse_chain(payload::NONCE, &known), Ok(vec![Payload::Nonce(vec![9; 16])]));
}

#[test]
fn a_chain_has_an_end() {
    let endless: Vec<u8> = [200, 0, 0, 4].repeat(1000);
    assert!(matches!(parse_chain(200, &endless), Err(Reason::BadMessage(_))));
}

#[test]
fn selectors_contain_addresses_of_their_family() {
    let [a, b, c] = ["10.0.0.1", "10.0.0.9", "fd00::1"].map(|text| text.parse::<IpAddr>().unwrap());
    let range = TrafficSelector { protocol: 0, ports: (0, 65535), addresses: (a, b) };
    assert!(range.contains(a) && range.contains(b) && !range.contains(c));
    assert!(!TrafficSelector { protocol: 6, ..range }.contains(a));
    assert!(!TrafficSelector { ports: (0, 80), ..range }.contains(a));
    assert_eq!(protocol::ESP, 3);
}
