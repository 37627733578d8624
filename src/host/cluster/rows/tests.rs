//! Reports of members that do not agree with each other, or with this host.

use std::sync::Arc;

use super::*;
use crate::host::membership::tests::{cluster, keys};

const WALL: UnixTime = UnixTime(1_800_000_000);

/// What a member of three says with which nothing is wrong.
fn well() -> MemberReport {
    MemberReport {
        version: VERSION.to_owned(),
        time: WALL,
        protection: Protection::On,
        overridden: false,
        rows: 4,
        protected: 4,
        under_way: Some(0),
        waiting: Some(0),
        unprotected: Vec::new(),
        unprotected_rows: Vec::new(),
        config_id: Some("5f3a1d0c9be2a771".to_owned()),
        secret_id: None,
        problems: 0,
        is_stuck: false,
        wrapped: None,
        unready: None,
    }
}

/// Says that so many of its rows with these are down.
fn down(with: &[(&str, u32)]) -> MemberReport {
    let (unprotected, unprotected_rows): (Vec<NodeName>, Vec<u32>) =
        with.iter().map(|(name, count)| (name.parse::<NodeName>().unwrap(), *count)).unzip();
    let count: u32 = unprotected_rows.iter().sum();
    MemberReport { protected: 4 - u64::from(count), unprotected, unprotected_rows, ..well() }
}

/// What the first of three says, when these are the reports: the troubles of all, and how many rows are called protected at
/// one end alone.
fn seen(reports: [MemberReport; 3]) -> (Vec<Option<MemberTrouble>>, u64) {
    let (rows, one_sided) = rows(reports);
    (rows.into_iter().map(|row| row.reason_code).collect(), one_sided)
}

fn rows(reports: [MemberReport; 3]) -> (Vec<MemberRow>, u64) {
    let (roster, lines) = cluster(3);
    let [_, key] = keys(0);
    let members = Membership::new(roster, lines[0], Arc::new(key), ([0; 16], [0; 16]));
    let reports: BTreeMap<EntryId, MemberReport> = lines.iter().copied().zip(reports).collect();
    let own_id = hex(members.roster().id().octets());
    let view = members.roster().view();
    let one_sided = one_sided(&reports, view);
    let usual = usual(&reports, lines[0]);
    let rows = view.members.iter().map(|member| {
        let seen = MemberSeen {
            member,
            report: reports.get(&member.line),
            usual,
            roster_id: Some(own_id.clone()),
            heard: None,
            keys: None,
            annoys: None,
            elsewhere: false,
            unproven: None,
            now: WALL,
            desired: DesiredState::On,
        };
        seen.row(&own_id, false, disagreement(member, &reports, view))
    });
    (rows.collect(), one_sided)
}

use MemberTrouble::{ConfigDiffers, NotProtected, PairDisagrees};

#[test]
fn a_pair_that_one_end_calls_protected_and_the_other_does_not_is_not_protected_and_both_are_named() {
    assert_eq!(seen([well(), well(), well()]), (vec![None, None, None], 0));
    // n1 says that both rows with n2 are down, and n2 knows nothing of it.
    let one = seen([well(), down(&[("n2", 2)]), well()]);
    assert_eq!(one, (vec![None, Some(NotProtected), Some(PairDisagrees)], 2));
    // Both say so of one of them.
    let both = seen([well(), down(&[("n2", 1)]), down(&[("n1", 1)])]);
    assert_eq!(both, (vec![None, Some(NotProtected), Some(NotProtected)], 0));
    // One end has lost one more.
    let more = seen([well(), down(&[("n2", 2)]), down(&[("n1", 1)])]);
    assert_eq!(more.1, 1);
    let (rows, _) = rows([well(), down(&[("n2", 1)]), well()]);
    let words = rows[2].reason.as_deref().unwrap();
    assert!(words.contains("n1 says that the pair with it is not protected"), "{words}");
}

/// A member that has gone bad says what it likes, and takes away no more than there is.
#[test]
fn who_says_too_much_takes_no_more_than_the_other_end_claims() {
    let mut liar = down(&[("n0", 1), ("n2", 1)]);
    liar.unprotected_rows = vec![u32::MAX; 2];
    assert_eq!(seen([well(), liar, well()]).1, 8);
    // One of an earlier version says no number.
    let mut older = down(&[("n2", 2)]);
    older.unprotected_rows = Vec::new();
    assert_eq!(seen([well(), older, well()]).1, 1);
    // Somebody who is no member is no end of a pair.
    assert_eq!(seen([well(), down(&[("n9", 2)]), well()]).1, 0);
}

#[test]
fn a_member_with_the_same_roster_that_goes_by_something_else_is_named() {
    let of = |id: Option<&str>| MemberReport { config_id: id.map(str::to_owned), ..well() };
    let other = of(Some("0011223344556677"));
    assert_eq!(seen([well(), other.clone(), well()]).0, [None, Some(ConfigDiffers), None]);
    // One that does not say it yet, as it is about to go by the roster, or of an earlier version.
    assert_eq!(seen([well(), of(None), well()]).0, [None, None, None]);
    // Of two, the other one: of more, the one that stands alone, be it this host.
    assert_eq!(seen([well(), other.clone(), of(None)]).0, [None, Some(ConfigDiffers), None]);
    assert_eq!(seen([other.clone(), well(), well()]).0, [Some(ConfigDiffers), None, None]);
    // What is wrong with its files says more.
    let stuck = MemberReport { is_stuck: true, ..other.clone() };
    assert_eq!(seen([well(), stuck, well()]).0, [None, Some(MemberTrouble::Problems), None]);
    let newer = MemberReport { version: "9.0.0".to_owned(), ..other };
    let (rows, _) = rows([well(), newer, well()]);
    let words = rows[1].reason.as_deref().unwrap();
    assert!(words.contains("0011223344556677") && words.contains("it runs hostseal 9.0.0"), "{words}");
}

/// What is said of a member that does not answer leads to what is wrong.
#[test]
fn whoever_answers_in_the_place_of_a_member_is_told_apart_from_nobody() {
    let (roster, _) = cluster(3);
    let member = &roster.view().members[1];
    let reason = crate::ike::reason::BadProof::Member.into();
    let silent = |elsewhere, unproven| {
        let (report, usual, roster_id, heard, keys, annoys) = (None, None, None, None, None, None);
        let (now, desired) = (WALL, DesiredState::On);
        MemberSeen {
            member,
            report,
            usual,
            roster_id,
            heard,
            keys,
            annoys,
            elsewhere,
            unproven,
            now,
            desired,
        }
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
