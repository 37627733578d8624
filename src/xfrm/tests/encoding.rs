use std::time::{Duration, Instant};

use netlink_packet_xfrm::XFRMA_MTIMER_THRESH;

use super::golden;
use super::*;
use crate::types::{Ports, SaId, SaKey, UdpPorts};
use crate::xfrm::batch::{BATCH, Batch};
use crate::xfrm::encode;
use crate::xfrm::preflight::Features;
use crate::xfrm::wire::Attributes;

const OLD: Features = Features { sa_dir: false };
const NEW: Features = Features { sa_dir: true };

/// The one message that `fill` puts into a batch, as it leaves, with port and sequence number 0.
fn sent(fill: impl FnOnce(&mut Batch)) -> Vec<u8> {
    let mut batch = Batch::new(0, 0);
    fill(&mut batch);
    batch.acknowledge_last();
    batch.bytes().to_vec()
}

fn added(sa: &Sa, features: Features) -> Vec<u8> {
    sent(|batch| encode::add_sa(batch, sa, &key(sa.suite.key_bits), features).expect("a sound SA"))
}

fn attributes(message: &[u8]) -> Attributes<'_> {
    let (_, attributes) = only(message).split(224).expect("an xfrm_usersa_info");
    attributes
}

#[test]
fn sas_are_written_as_ip_writes_them() {
    let mut narrow = sa("10.99.0.1", "10.99.0.2", 128, false, 32);
    narrow.limits = Limits {
        hard_seconds: Some(86400),
        soft_bytes: Some(1000),
        hard_bytes: Some(2000),
        soft_packets: Some(30),
        hard_packets: Some(40),
    };
    assert_eq!(added(&narrow, OLD), hex(golden::SA_NARROW));
    let wide = sa("10.99.0.1", "10.99.0.2", 256, false, 64);
    assert_eq!(added(&wide, OLD), hex(golden::SA_WIDE));
    let esn = sa("fd99::1", "fd99::2", 256, true, 4096);
    assert_eq!(added(&esn, OLD), hex(golden::SA_ESN));
}

#[test]
fn an_sa_in_udp_has_the_ports_of_who_sends_and_who_receives() {
    let ports = Some(UdpPorts { local: 14_500, remote: 4500 });
    let inbound = Sa { encapsulation: ports, ..sa("10.99.0.1", "10.99.0.2", 128, false, 32) };
    // And the kernel is told how often to report that ESP comes from elsewhere, which `ip` does not know.
    let mut expected = hex(golden::SA_IN_UDP);
    expected.extend([8, 0, XFRMA_MTIMER_THRESH as u8, 0, 1, 0, 0, 0]);
    expected[0] += 8;
    assert_eq!(added(&inbound, OLD), expected);
    let ports = Some(UdpPorts { local: 4500, remote: 14_500 });
    let pair = inbound.pair.mirrored();
    let outbound = Sa { encapsulation: ports, direction: Direction::Out, pair, ..inbound };
    let template = |message: &[u8]| attributes(message).get(4).map(<[u8]>::to_vec);
    let outbound = added(&outbound, OLD);
    assert_eq!(template(&outbound), template(&hex(golden::SA_IN_UDP)));
    assert_eq!(attributes(&outbound).get(XFRMA_MTIMER_THRESH), None, "the kernel refuses it there");
}

#[test]
fn an_sa_names_its_direction_where_the_kernel_knows_it() {
    let inbound = sa("fd99::1", "fd99::2", 256, true, 4096);
    assert_eq!(added(&inbound, NEW), hex(golden::SA_IN));
    let outbound = sa("10.99.0.2", "10.99.0.1", 256, true, 4096);
    assert_eq!(added(&Sa { direction: Direction::Out, ..outbound }, NEW), hex(golden::SA_OUT));
}

#[test]
fn an_outbound_sa_has_no_replay_window_unless_an_old_kernel_insists() {
    let outbound = Sa { direction: Direction::Out, ..sa("10.99.0.2", "10.99.0.1", 256, true, 4096) };
    let esn = |features| {
        let message = added(&outbound, features);
        let state = attributes(&message).get(23).expect("XFRMA_REPLAY_ESN_VAL").to_vec();
        let word = |at: usize| u32::from_ne_bytes(state[at..at + 4].try_into().expect("4 bytes"));
        assert_eq!(state.len(), 24);
        (word(0), word(20))
    };
    assert_eq!(esn(NEW), (0, 0), "bitmap words and window");
    assert_eq!(esn(OLD), (1, 32), "bitmap words and window");

    let without = Sa { suite: EspSuite { key_bits: 256, esn: false }, ..outbound };
    for features in [OLD, NEW] {
        let message = added(&without, features);
        assert_eq!(message[16 + 215], 0, "window");
        assert!(attributes(&message).get(23).is_none());
    }
}

#[test]
fn an_sa_that_makes_no_sense_is_not_sent() {
    let sound = sa("10.99.0.1", "10.99.0.2", 256, true, 4096);
    let refused = |sa: &Sa, key: &SaKey| {
        let mut batch = Batch::new(0, 0);
        let refused = encode::add_sa(&mut batch, sa, key, NEW).is_err();
        assert_eq!(batch.len(), usize::from(!refused));
        refused
    };
    assert!(!refused(&sound, &key(256)));
    assert!(refused(&sound, &key(128)), "a short key");
    assert!(refused(&sound, &SaKey::new(vec![7; 4096])), "a long key");
    assert!(refused(&Sa { replay_window: 4097, ..sound }, &key(256)), "a window wider than the kernel's");
    let mixed = Pair { local: address("fd99::1"), ..sound.pair };
    assert!(refused(&Sa { pair: mixed, ..sound }, &key(256)), "two families");
    let odd = Sa { suite: EspSuite { key_bits: 40, esn: true }, ..sound };
    assert!(refused(&odd, &key(40)), "no AES key");
}

#[test]
fn sas_are_named_as_ip_names_them() {
    let id = SaId { destination: address("10.99.0.2"), spi: SPI };
    // `ip` adds the source (XFRMA_SRCADDR, 20 bytes); for ESP the kernel goes by destination and SPI alone.
    for (golden, ours) in [
        (golden::DELETE_SA, sent(|batch| encode::delete_sa(batch, id))),
        (golden::GET_SA, sent(|batch| encode::get_sa(batch, id))),
    ] {
        let golden = hex(golden);
        assert_eq!(ours[0], golden[0] - 20, "length");
        assert_eq!(ours[4..6], golden[4..6], "type");
        assert_eq!(ours[16..], golden[16..40]);
    }
}

#[test]
fn policies_are_written_as_ip_writes_them() {
    let added = |policy: &Policy, index| {
        sent(|batch| encode::add_policy(batch, policy, index).expect("a sound policy"))
    };
    assert_eq!(added(&seal(), 0x6800_0001), hex(golden::SEAL));
    assert_eq!(added(&seal_set(), 0x6800_0001), hex(golden::SEAL_SET));
    assert_eq!(added(&accept(), 0x6800_0008), hex(golden::ACCEPT));
    assert_eq!(added(&require(), 0x6800_000a), hex(golden::REQUIRE));
    assert_eq!(added(&neighbour_discovery(), 0x6800_0018), hex(golden::ND));
    let updated = sent(|batch| encode::update_policy(batch, &block(), 0x6800_0011).expect("sound"));
    assert_eq!(updated, hex(golden::BLOCK));
}

/// `ip xfrm policy add … limit time-hard 60` differs in this one number.
#[test]
fn a_policy_that_is_to_go_by_itself_says_when() {
    let until = Instant::now() + Duration::from_millis(59_500);
    let mut lasting = sent(|batch| {
        encode::add_policy(batch, &seal().lasting(Some(until)), 0x6800_0001).expect("a sound policy")
    });
    // Header, selector, and five of the eight limits.
    let seconds = 16 + 56 + 40..16 + 56 + 48;
    assert_eq!(lasting[seconds.clone()], 60u64.to_ne_bytes());
    lasting[seconds].fill(0);
    assert_eq!(lasting, hex(golden::SEAL));
}

#[test]
fn an_exemption_masks_the_far_port() {
    let mut exempt = policy(PolicyDirection::Out, "10.99.0.1", "10.99.0.2", Action::Allow);
    exempt.priority = ours::priority::EXEMPT;
    exempt.selector.protocol = 6;
    exempt.selector.source_ports = Ports::one(22);
    exempt.selector.destination_ports = Ports { port: 0x8000, mask: 0x8000 };
    let ours = sent(|batch| encode::add_policy(batch, &exempt, 0x6800_0019).expect("sound"));
    // `ip` cannot mask a port: it wrote 0xffff for the destination's mask, 34 bytes into the selector.
    let mut golden = hex(golden::EXEMPT);
    assert_eq!(golden[16 + 34..16 + 36], [0xff, 0xff]);
    golden[16 + 34..16 + 36].copy_from_slice(&[0x80, 0]);
    assert_eq!(ours, golden);
}

#[test]
fn policies_are_named_as_ip_names_them() {
    // With an index the selector does not count: `ip` says AF_INET in it, 40 bytes on, and we say nothing.
    for (golden, ours) in [
        (
            golden::DELETE_POLICY,
            sent(|batch| encode::delete_policy(batch, PolicyDirection::Out, 0x6800_0011)),
        ),
        (golden::GET_POLICY, sent(|batch| encode::get_policy(batch, PolicyDirection::Out, 0x6800_0019))),
    ] {
        let mut golden = hex(golden);
        golden[16 + 40] = 0;
        // `ip` does not ask for a yes when it asks for a report.
        golden[6] |= 4;
        assert_eq!(ours, golden);
    }
}

#[test]
fn the_default_is_asked_for_as_ip_asks() {
    let mut golden = hex(golden::GET_DEFAULT);
    golden[6] |= 4;
    // `ip` pads the message, which the kernel does not need.
    golden.truncate(19);
    assert_eq!(sent(encode::get_default), golden);
}

#[test]
fn a_policy_that_would_leak_or_is_not_ours_is_not_sent() {
    let refused = |policy: &Policy, index| {
        let mut batch = Batch::new(0, 0);
        let add = encode::add_policy(&mut batch, policy, index).is_err();
        let update = encode::update_policy(&mut batch, policy, index).is_err();
        assert_eq!(add, update);
        assert_eq!(batch.len(), if add { 0 } else { 2 });
        add
    };
    let out = 0x6800_0001;
    assert!(!refused(&seal(), out));
    assert!(refused(&seal(), 9), "a stranger's index");
    assert!(refused(&seal(), 0x6800_0008), "the index of another direction");
    assert!(refused(&Policy { priority: 1, ..seal() }, out), "a stranger's priority");
    assert!(refused(&Policy { action: Action::Accept, ..seal() }, out), "clear when the SA is gone");
    assert!(refused(&Policy { action: Action::Require, ..seal() }, out), "any SA");
    let mut mixed = seal();
    mixed.action = Action::Allow;
    mixed.selector.source = Block::host(address("fd99::1"));
    assert!(refused(&mixed, out), "two families");
    let mut subnet = seal();
    subnet.selector.destination.prefix = 24;
    assert!(refused(&subnet, out), "an SA for more than its host");
    assert!(
        refused(&Policy { action: Action::Seal { through: Through::Sa(SPI) }, ..require() }, 0x6800_000a),
        "inbound"
    );
}

#[test]
fn a_full_batch_of_the_longest_messages_does_not_grow() {
    let mut batch = Batch::new(7, u32::MAX - 1);
    let start = batch.bytes().as_ptr();
    for _ in 0..BATCH {
        encode::add_sa(&mut batch, &sa("fd99::1", "fd99::2", 256, true, 4096), &key(256), NEW)
            .expect("sound");
    }
    assert_eq!(batch.bytes().as_ptr(), start, "a key was left behind in the old buffer");
    assert_eq!(batch.len(), BATCH);

    // Sequence numbers wrap around and go on after the batch.
    let sequences: Vec<u32> =
        Messages(batch.bytes()).map(|message| message.expect("sound").sequence).collect();
    assert_eq!(sequences[..3], [u32::MAX - 1, u32::MAX, 0]);
    assert_eq!((batch.position(u32::MAX), batch.position(0)), (Some(1), Some(2)));
    assert_eq!((batch.position(u32::MAX - 2), batch.position(62)), (None, None));
    batch.clear();
    assert_eq!((batch.len(), batch.position(62)), (0, None));
    encode::get_sa(&mut batch, sa("10.0.0.1", "10.0.0.2", 256, true, 1).id());
    assert_eq!(batch.position(62), Some(0));
    assert_eq!(only(batch.bytes()).port, 7);
}

#[test]
fn only_the_last_message_asks_for_a_yes() {
    let mut batch = Batch::new(0, 0);
    for index in [0x6800_0001, 0x6800_0009] {
        encode::get_policy(&mut batch, PolicyDirection::Out, index);
    }
    batch.acknowledge_last();
    let flags: Vec<u16> = Messages(batch.bytes()).map(|message| message.expect("sound").flags).collect();
    assert_eq!(flags, [1, 1 | 4]);
}
