//! What is said of members that do not answer.

use super::*;
use crate::host::membership::tests::cluster;

const WALL: UnixTime = UnixTime(1_800_000_000);

/// What is said of a member that does not answer leads to what is wrong.
#[test]
fn whoever_answers_in_the_place_of_a_member_is_told_apart_from_nobody() {
    let (roster, _) = cluster(3);
    let member = &roster.view().members[1];
    let reason = crate::ike::reason::BadProof::Member.into();
    let silent = |elsewhere, unproven| {
        let (report, roster_id, heard, keys, annoys) = (None, None, None, None, None);
        let (now, desired) = (WALL, DesiredState::On);
        MemberSeen { member, report, roster_id, heard, keys, annoys, elsewhere, unproven, now, desired }
            .silent()
    };
    let (code, words) = silent(false, None);
    assert!(code == MemberTrouble::NoAnswer && words.contains("UDP 500"), "{words}");
    let (code, words) = silent(false, Some(&reason));
    assert!(code == MemberTrouble::NoAnswer && words.contains("none of the keys"), "{words}");
    assert!(words.contains("hostseal remove n1") && !words.contains("UDP 500"), "{words}");
    let (code, words) = silent(true, Some(&reason));
    assert!(code == MemberTrouble::OtherCluster && words.contains("hostseal leave"), "{words}");
}
