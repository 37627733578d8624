use super::golden;
use super::*;
use crate::types::{Op, OpError, PolicyReading};
use crate::xfrm::decode;
use crate::xfrm::tables::{independent, is_target, refusal};

fn update() -> Op {
    Op::UpdatePolicy { policy: seal(), index: 0x6800_0001 }
}

fn delete() -> Op {
    Op::DeletePolicy { id: seal().id(), index: 0x6800_0001 }
}

#[test]
fn only_the_very_policy_of_ours_is_touched() {
    let there = decode::policy(only(&hex(golden::DUMPED_SEAL))).expect("well-formed").expect("main");
    for op in [update(), delete()] {
        assert!(is_target(&op, &there));
        // A stranger replaced it: the kernel keeps the index, and the priority tells.
        assert!(!is_target(&op, &PolicyReading { priority: 5, ..there }));
        assert!(!is_target(&op, &PolicyReading { index: 9, ..there }));
        assert!(!is_target(&op, &PolicyReading { index: 0x6800_0009, ..there }));
        assert!(!is_target(&op, &PolicyReading { id: require().id(), ..there }));
    }
    // What would be added must find its index free.
    assert!(!is_target(&Op::AddPolicy { policy: seal(), index: 0x6800_0001 }, &there));
}

/// What changes what is there goes together with what adds: for ops that touch different objects the kernel is read
/// once, whatever their order.
#[test]
fn ops_are_proven_together_up_to_one_that_depends_on_another() {
    let sa = sa("10.99.0.1", "10.99.0.2", 256, true, 4096);
    let add = Op::AddPolicy { policy: require(), index: 0x6800_0009 };
    let ops = [update(), Op::AddSa(sa), add, Op::DeleteSa(sa.id()), delete()];
    assert_eq!(independent(&ops), &ops[..3]);
    assert_eq!(independent(&ops[3..]), &ops[3..]);
    assert_eq!(independent(&ops[4..]), &ops[4..]);
    assert_eq!(independent(&[update(), delete()]), &[update()]);
}

#[test]
fn refusals_say_what_there_is() {
    let refused = |op: &Op, errno| refusal(op, &decode::Ack { errno, words: String::new() });
    let (exists, nothing, no_process, invalid) = (17, 2, 3, 22);
    assert!(matches!(refused(&update(), exists), OpError::Exists { .. }));
    assert!(matches!(refused(&delete(), nothing), OpError::Missing { .. }));
    let sa = sa("10.99.0.1", "10.99.0.2", 256, true, 4096);
    assert!(matches!(refused(&Op::DeleteSa(sa.id()), no_process), OpError::Missing { .. }));
    // The same number for an SA that is added means that the kernel lacks the cipher.
    assert!(matches!(refused(&Op::AddSa(sa), nothing), OpError::Refused { .. }));
    assert_eq!(
        refused(&Op::DeleteSa(sa.id()), invalid).to_string(),
        "delete SA 0xc1d2e3f4 to 10.99.0.2: Invalid argument"
    );
    let words = decode::verdict(only(&hex(golden::REFUSED))).expect("well-formed");
    assert_eq!(
        refusal(&Op::AddSa(sa), &words).to_string(),
        "add SA 0xc1d2e3f4 to 10.99.0.2 (In, 256 bits): Function not implemented: Requested AEAD algorithm not found"
    );
}
