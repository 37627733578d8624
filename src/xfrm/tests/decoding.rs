use super::golden;
use super::*;
use std::time::{Duration, Instant, SystemTime};

use crate::types::stranger::{DefaultBlocks, Verdict};
use crate::types::{PolicyReading, SaReading, UnixTime};
use crate::xfrm::statistics;
use crate::xfrm::{decode, strangers};

fn dumped(golden: &str) -> Option<PolicyReading> {
    decode::policy(only(&hex(golden))).expect("well-formed")
}

#[test]
fn policies_are_read_as_they_were_meant() {
    for (golden, policy, index) in [
        (golden::DUMPED_SEAL, seal(), 0x6800_0001),
        // A request has the form of a report.
        (golden::SEAL_SET, seal_set(), 0x6800_0001),
        (golden::DUMPED_ACCEPT, accept(), 0x6800_0008),
        (golden::DUMPED_REQUIRE, require(), 0x6800_000a),
        (golden::DUMPED_BLOCK, block(), 0x6800_0011),
        (golden::DUMPED_ND, neighbour_discovery(), 0x6800_0018),
    ] {
        let reading = dumped(golden).expect("a policy that counts");
        let Policy { priority, action, .. } = policy;
        assert_eq!(
            reading,
            PolicyReading { id: policy.id(), index, priority, action: Some(action), until: None }
        );
        assert!(ours::is_our_policy(&reading));
    }
}

#[test]
fn the_end_of_a_policy_is_read() {
    let mut dumped = hex(golden::DUMPED_SEAL);
    let added = 16 + 56 + 64 + 16;
    dumped[added..added + 8].copy_from_slice(&UnixTime::from(SystemTime::now()).0.to_ne_bytes());
    dumped[16 + 56 + 40..16 + 56 + 48].copy_from_slice(&60u64.to_ne_bytes());
    let reading = decode::policy(only(&dumped)).expect("well-formed").expect("main");
    let left = reading.until.expect("it has an end").saturating_duration_since(Instant::now());
    assert!(left > Duration::from_secs(57) && left <= Duration::from_secs(60), "{left:?}");
    assert_eq!(reading.action, Some(seal().action));
}

#[test]
fn a_strangers_policy_is_read_without_an_action() {
    let reading = dumped(golden::DUMPED_TUNNEL).expect("it may be in the way");
    assert_eq!(reading.id.to_string(), "policy out 10.1.0.0/24 -> 10.2.0.0/24");
    assert_eq!((reading.priority, reading.action), (7, None));
    assert!(!ours::is_our_policy(&reading));
}

#[test]
fn policies_that_no_policy_of_ours_can_collide_with_are_left_out() {
    for golden in [golden::DUMPED_SUB, golden::DUMPED_IF_ID, golden::DUMPED_MARK, golden::DUMPED_SOCKET] {
        assert_eq!(dumped(golden), None);
    }
}

#[test]
fn a_policy_with_any_other_template_is_not_taken_for_ours() {
    let sound = hex(golden::DUMPED_SEAL);
    let action = |message: &[u8]| decode::policy(only(message)).expect("well-formed").expect("main").action;
    assert!(action(&sound).is_some());
    // The template follows header, structure and the attribute's own header.
    let template = 16 + 168 + 4;
    for (field, at) in [
        ("daddr", 0),
        ("proto", 20),
        ("saddr", 28),
        ("reqid", 44),
        ("mode", 48),
        ("share", 49),
        ("optional", 50),
    ] {
        let mut changed = sound.clone();
        changed[template + at] ^= 1;
        assert_eq!(action(&changed), None, "{field}");
    }
    for (field, at) in [("flags", 162), ("share", 163)] {
        let mut changed = sound.clone();
        changed[16 + at] ^= 1;
        assert_eq!(action(&changed), None, "{field}");
    }
}

#[test]
fn an_sa_is_read_with_its_counters() {
    let reading = decode::sa(only(&hex(golden::REPORTED_SA))).expect("well-formed").expect("ours");
    assert_eq!(reading, SaReading { hard_seconds: Some(86400), ..inbound_reading(reading.added) });
    let in_udp = decode::sa(only(&hex(golden::SA_IN_UDP))).expect("well-formed").expect("ours");
    assert!(in_udp.encapsulated);
    for bytes in [golden::SA_NARROW, golden::SA_IN, golden::SA_OUT] {
        let mut bytes = hex(bytes);
        let bound = |bytes: &[u8]| decode::sa(only(bytes)).expect("well-formed").expect("ours").bound;
        assert!(bound(&bytes), "its selector is its two addresses");
        for (what, at) in [("destination", 0), ("source", 16), ("bits", 42), ("bits of the source", 43)] {
            bytes[16 + at] ^= 1;
            assert!(!bound(&bytes), "another {what}");
            bytes[16 + at] ^= 1;
        }
    }

    // The fields that are zero in a fresh SA, at their places in xfrm_usersa_info.
    let mut used = hex(golden::REPORTED_SA);
    for (at, value) in [(96, 1500u64), (160, 1499), (168, 3)] {
        used[16 + at..16 + at + 8].copy_from_slice(&value.to_ne_bytes());
    }
    for (at, value) in [(192, 5u32), (196, 6), (200, 7)] {
        used[16 + at..16 + at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    let expected =
        SaReading { bytes: 1499, packets: 3, replay_window: 5, replay: 6, integrity: 7, ..reading };
    assert_eq!(decode::sa(only(&used)), Ok(Some(expected)));
    used[16 + 160] += 1;
    let dying = decode::sa(only(&used)).expect("well-formed").expect("ours");
    assert!(dying.dying, "1500 of 1500 bytes");
}

#[test]
fn a_larval_sa_has_no_key_bits() {
    // Its SPI is the template's, and so is its reqid.
    let larval = decode::sa(only(&hex(golden::REPORTED_LARVAL))).expect("well-formed").expect("ours");
    assert_eq!((larval.id.spi, larval.key_bits), (SPI, 0));
}

#[test]
fn a_short_message_is_malformed() {
    let sa = hex(golden::REPORTED_SA);
    let policy = hex(golden::DUMPED_SEAL);
    for length in 0..224 {
        let message = NetlinkMessage { body: &sa[16..16 + length], ..only(&sa) };
        assert!(decode::sa(message).is_err(), "{length}");
        if length < 168 {
            let message = NetlinkMessage { body: &policy[16..16 + length], ..only(&policy) };
            assert!(decode::policy(message).is_err(), "{length}");
        }
    }
}

#[test]
fn the_default_says_what_is_dropped() {
    let answer = hex(golden::DEFAULT);
    let read = |length: usize| {
        strangers::default_blocks(NetlinkMessage { body: &answer[16..16 + length], ..only(&answer) })
    };
    let forwarded = DefaultBlocks { forwarded: true, ..DefaultBlocks::default() };
    assert_eq!(read(3), Ok(forwarded));
    assert!((0..3).all(|length| read(length).is_err()));
}

#[test]
fn verdicts_carry_the_kernels_words() {
    // Answer to SA_NARROW on a kernel without the cipher, with NETLINK_EXT_ACK and NETLINK_CAP_ACK.
    let refusal = decode::verdict(only(&hex(golden::REFUSED))).expect("well-formed");
    assert_eq!(refusal.reason(), "Function not implemented: Requested AEAD algorithm not found");
    let yes = decode::verdict(only(&hex(golden::YES))).expect("well-formed");
    assert_eq!((yes.errno, yes.words.as_str()), (0, ""));
    let denied = decode::Ack { errno: 1, words: String::new() };
    assert!(denied.reason().contains("CAP_NET_ADMIN"));
}

#[test]
fn statistics_are_numbers_by_name() {
    let parsed = statistics::parse("XfrmInError             \t0\nXfrmInNoStates          \t17\n\nodd line\n");
    assert_eq!(parsed.len(), 2);
    assert_eq!((parsed["XfrmInError"], parsed["XfrmInNoStates"]), (0, 17));
}

#[test]
fn strangers_policies_are_read_with_their_marks_and_templates() {
    let read = |golden| strangers::policy(only(&hex(golden))).expect("well-formed");
    let tunnel = read(golden::DUMPED_TUNNEL).expect("packets can meet it");
    assert_eq!(tunnel.id.to_string(), "policy out 10.1.0.0/24 -> 10.2.0.0/24");
    assert!(matches!(tunnel.verdict, Verdict::Transform { .. }), "{tunnel:?}");
    assert_eq!((tunnel.priority, tunnel.mark), (7, (0, 0)));
    // What lies beyond the prefix does not count: 10.2.0.9/24 is 10.2.0.0/24 (its destination comes first).
    let mut loose = hex(golden::DUMPED_TUNNEL);
    loose[16 + 3] = 9;
    assert_eq!(strangers::policy(only(&loose)), Ok(Some(tunnel)));
    let marked = read(golden::DUMPED_MARK).expect("packets with the mark meet it");
    assert_ne!(marked.mark, (0, 0));
    let seen = |golden, verdict| assert_eq!(read(golden).expect("main").verdict, verdict);
    seen(golden::DUMPED_BLOCK, Verdict::Block);
    seen(golden::DUMPED_ND, Verdict::Allow);
    seen(golden::DUMPED_REQUIRE, Verdict::Transform { reqid: Reqid::COMMON.number() });
    // Its template is optional.
    seen(golden::DUMPED_ACCEPT, Verdict::Allow);
    for golden in [golden::DUMPED_SUB, golden::DUMPED_IF_ID, golden::DUMPED_SOCKET] {
        assert_eq!(read(golden), None);
    }
}

#[test]
fn strangers_sas_are_those_that_are_not_ours() {
    let mut report = hex(golden::REPORTED_SA);
    assert_eq!(strangers::sa(only(&report)), Ok(None));
    // Its reqid: of a generation, and beyond the range of ours.
    report[16 + 208] = 0xff;
    assert_eq!(decode::sa(only(&report)).map(|sa| sa.map(|sa| sa.reqid)), Ok(Reqid::new(0x6873_00ff)));
    assert_eq!(strangers::sa(only(&report)), Ok(None));
    report[16 + 208] = 1;
    report[16 + 209] ^= 1;
    let stranger = strangers::sa(only(&report)).expect("well-formed").expect("a stranger's");
    assert_eq!((stranger.id.spi, stranger.reqid), (SPI, 0x6873_0101));
    assert_eq!(decode::sa(only(&report)), Ok(None));
    // In tunnel mode it is no SA of packets between two hosts.
    report[16 + 214] = 1;
    assert_eq!(strangers::sa(only(&report)), Ok(None));
}
