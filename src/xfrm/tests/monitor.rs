use super::golden;
use super::*;
use crate::types::{Pair, Reqid, SaId, SaReading};
use crate::xfrm::monitor::{Notification, notification};

const PORT: u32 = 0x1234_5678;

/// A message from the kernel about what `PORT` did.
fn message(kind: u16, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut message = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&[0; 6]);
    message.extend_from_slice(&PORT.to_ne_bytes());
    message.extend_from_slice(&body);
    message
}

fn heard(kind: u16, parts: &[&[u8]]) -> Option<Notification> {
    notification(Ok(only(&message(kind, parts))))
}

/// The `xfrm_usersa_info` of the golden SA of 64-bit sequence numbers, and its attributes.
fn golden_sa() -> (Vec<u8>, Vec<u8>) {
    let mut body = hex(golden::SA_ESN).split_off(16);
    let attributes = body.split_off(224);
    (body, attributes)
}

/// `xfrm_usersa_info` as the attribute XFRMA_SA.
fn nested(info: &[u8]) -> Vec<u8> {
    [&228u16.to_ne_bytes()[..], &6u16.to_ne_bytes(), info].concat()
}

/// The SA of the golden notifications: outbound, and 508 bytes a packet.
fn outbound_reading(key_bits: u16, packets: u64, added: u64) -> SaReading {
    SaReading {
        source: address("10.99.0.1"),
        id: SaId { destination: address("10.99.0.2"), spi: SPI },
        key_bits,
        bytes: 508 * packets,
        packets,
        ..inbound_reading(added)
    }
}

#[test]
fn a_deleted_sa_comes_with_its_final_counters() {
    let Some(Notification::SaDeleted { reading, port: 0 }) = notification(Ok(only(&hex(golden::DELETED_SA))))
    else {
        panic!("not a deletion");
    };
    let used = SaReading { last_used: Some(reading.added), ..outbound_reading(256, 3, reading.added) };
    assert_eq!(reading, used, "used in the second in which it was made");
    let (info, attributes) = golden_sa();
    let deleted = heard(0x11, &[&[0; 24], &nested(&info), &attributes]);
    assert!(matches!(deleted, Some(Notification::SaDeleted { port: PORT, .. })));
}

#[test]
fn an_expired_sa_says_whether_it_is_gone() {
    for (golden, hard, packets) in [(golden::EXPIRED_SOFT, false, 1), (golden::EXPIRED_HARD, true, 3)] {
        let Some(Notification::SaExpired { reading, hard: gone }) = notification(Ok(only(&hex(golden))))
        else {
            panic!("not an expiry");
        };
        assert_eq!(gone, hard);
        let reached = SaReading { dying: true, ..outbound_reading(0, packets, reading.added) };
        assert_eq!(reading, reached);
    }
}

#[test]
fn a_packet_that_finds_no_sa_is_told() {
    let golden = [(golden::ACQUIRE, "10.99.0.1", "10.99.0.2"), (golden::ACQUIRE_V6, "fd99::1", "fd99::2")];
    for (golden, local, remote) in golden {
        let pair = Pair { local: address(local), remote: address(remote) };
        assert_eq!(notification(Ok(only(&hex(golden)))), Some(Notification::SaWanted { pair }));
        let mut stranger = hex(golden);
        // The index of the policy, which the kernel chose.
        stranger[268..272].copy_from_slice(&9u32.to_ne_bytes());
        assert_eq!(notification(Ok(only(&stranger))), None, "a stranger's");
    }
    let whole = hex(golden::ACQUIRE);
    assert_eq!(heard(0x17, &[&whole[16..292]]), Some(Notification::Overrun), "cut off");
    assert_eq!(notification(Ok(only(&hex(golden::EXPIRED_LARVAL)))), None, "no SA has ended");
}

/// `struct xfrm_user_mapping`: the SA, the reqid, the source address before and now, and the ports.
fn mapping(reqid: u32, from: &str) -> Vec<u8> {
    let padded = |address: &str| {
        let IpAddr::V4(v4) = address.parse().unwrap() else { panic!("IPv4") };
        [&v4.octets()[..], &[0; 12]].concat()
    };
    [
        padded("10.99.0.2"),
        SPI.0.to_be_bytes().to_vec(),
        vec![2, 0, 50, 0],
        reqid.to_ne_bytes().to_vec(),
        padded("10.99.0.1"),
        padded(from),
        4500u16.to_be_bytes().to_vec(),
        24_500u16.to_be_bytes().to_vec(),
    ]
    .concat()
}

#[test]
fn esp_from_another_port_is_told() {
    let id = SaId { destination: address("10.99.0.2"), spi: SPI };
    let remote = "10.99.0.1:24500".parse().unwrap();
    assert_eq!(
        heard(0x26, &[&mapping(Reqid::COMMON.number(), "10.99.0.1")]),
        Some(Notification::SaMapped { id, remote })
    );
    assert_eq!(heard(0x26, &[&mapping(42, "10.99.0.1")]), None, "a stranger's");
    assert_eq!(
        heard(0x26, &[&mapping(Reqid::COMMON.number(), "10.99.0.1")[..63]]),
        Some(Notification::Overrun)
    );
}

#[test]
fn strangers_sas_and_larval_ones_are_left_out() {
    let (info, attributes) = golden_sa();
    assert_eq!(heard(0x10, &[&info, &attributes]), Some(Notification::Changed { port: PORT }));
    for (field, at) in [("reqid", 209), ("protocol", 76), ("mode", 214)] {
        let mut foreign = info.clone();
        foreign[at] ^= 1;
        assert_eq!(heard(0x10, &[&foreign, &attributes]), None, "{field}");
        assert_eq!(heard(0x11, &[&[0; 24], &nested(&foreign), &attributes]), None, "{field}");
        assert_eq!(heard(0x18, &[&foreign, &[1; 8]]), None, "{field}");
    }
    assert_eq!(notification(Ok(only(&hex(golden::REPORTED_SA)))), Some(Notification::Changed { port: 0 }));
    let mut larval = info.clone();
    larval[72..76].fill(0);
    assert_eq!(heard(0x18, &[&larval, &[1; 8]]), None);
    assert_eq!(heard(0x11, &[&[0; 24], &nested(&info)]), None, "without a cipher");
}

#[test]
fn everything_else_says_look_again() {
    for golden in [golden::FLUSHED_SAS, golden::FLUSHED_POLICIES] {
        assert_eq!(notification(Ok(only(&hex(golden)))), Some(Notification::Flushed { port: 0 }));
    }
    assert_eq!(notification(Ok(only(&hex(golden::REMOVED_POLICY)))), Some(Notification::Changed { port: 0 }));
    for kind in [0x13, 0x14, 0x19, 0x1b, 0x7f] {
        assert_eq!(heard(kind, &[]), Some(Notification::Changed { port: PORT }), "{kind:#x}");
    }
}

#[test]
fn what_cannot_be_read_counts_as_lost() {
    let (info, _) = golden_sa();
    assert_eq!(heard(0x10, &[&info[1..]]), Some(Notification::Overrun));
    assert_eq!(heard(0x18, &[&info]), Some(Notification::Overrun));
    assert_eq!(heard(0x11, &[&[0; 24]]), Some(Notification::Overrun), "no XFRMA_SA");
    let cut = message(0x10, &[&info]);
    let all: Vec<_> = Messages(&cut[..100]).map(notification).collect();
    assert_eq!(all, [Some(Notification::Overrun)]);
}
