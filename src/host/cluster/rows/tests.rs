//! Reports of members that do not agree with each other, or with this host.

use std::sync::Arc;

use super::*;
use crate::host::membership::tests::{cluster, keys, said, site};
use crate::roster::{FloatingPlace, Listed, Saying};
use crate::types::Severity;

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
        roster_id: None,
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

/// What member 0 says, which is an admin.
fn say(roster: &mut Roster, says: Saying) {
    let said = said(roster, 0, says);
    assert_eq!(roster.merge([said.octets()]).taken, 1);
}

/// What the first of three says of an address that may be at the two others, when these are the reports: the troubles of all, and how many rows are called protected at
/// one end alone.
fn seen(reports: [MemberReport; 3]) -> (Vec<Option<MemberTrouble>>, u64) {
    let (rows, one_sided) = rows(reports, None);
    (rows.into_iter().map(|row| row.reason_code).collect(), one_sided)
}

fn rows(reports: [MemberReport; 3], annoys: Option<Annoyance>) -> (Vec<MemberRow>, u64) {
    let (mut roster, lines) = cluster(3);
    let addresses = vec![IpAddr::from([10, 0, 1, 1])];
    let nodes = vec![lines[1], lines[2]];
    say(&mut roster, Saying::Floating(FloatingPlace { name: "vip".parse().unwrap(), addresses, nodes }));
    let [_, key] = keys(0);
    let members = Membership::new(roster, lines[0], Arc::new(key), ([0; 16], [0; 16]));
    let reports: BTreeMap<EntryId, MemberReport> = lines.iter().copied().zip(reports).collect();
    let own_id = hex(members.roster().id().octets());
    let view = members.roster().view();
    let one_sided = one_sided(&reports, view);
    let rows = view.members.iter().map(|member| {
        let seen = MemberSeen {
            member,
            report: reports.get(&member.line),
            roster_id: Some(own_id.clone()),
            heard: None,
            keys: None,
            annoys,
            elsewhere: false,
            unproven: None,
            now: WALL,
            desired: DesiredState::On,
        };
        seen.row(&own_id, false, disagreement(member, &reports, view))
    });
    (rows.collect(), one_sided)
}

use MemberTrouble::{NotProtected, PairDisagrees};

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
    let (rows, _) = rows([well(), down(&[("n2", 1)]), well()], None);
    let words = rows[2].reason.as_deref().unwrap();
    assert!(words.contains("n1 says that the pair with it is not protected"), "{words}");
}

/// A member that has gone bad says what it likes, and takes away no more than there is.
#[test]
fn who_says_too_much_takes_no_more_than_the_pairs_that_both_have() {
    let mut liar = down(&[("n0", 1), ("n2", 1)]);
    liar.unprotected_rows = vec![u32::MAX; 2];
    assert_eq!(seen([well(), liar, well()]).1, 6, "two rows with n0, and four with n2");
    // One of an earlier version says no number: where both ends name each other, they agree.
    let older = |with| MemberReport { unprotected_rows: Vec::new(), ..down(&[(with, 2)]) };
    assert_eq!(seen([well(), older("n2"), well()]).1, 1);
    assert_eq!(seen([well(), older("n2"), down(&[("n1", 2)])]).1, 0);
    assert_eq!(seen([well(), older("n2"), older("n1")]).1, 0);
    // Who has an address that floats is named by it as well, be it by who means another end.
    assert_eq!(seen([well(), down(&[("n2", 1), ("vip", 1)]), down(&[("n1", 2)])]).1, 0);
    assert_eq!(seen([well(), down(&[("n2", 1), ("vip", 1)]), down(&[("n1", 1)])]).1, 0);
    // Somebody who is no member is no end of a pair.
    assert_eq!(seen([well(), down(&[("n9", 2)]), well()]).1, 0);
}

/// Who is said to go by something else than most, with which words.
fn differ(reports: [MemberReport; 3], roster: &Roster, lines: &[EntryId]) -> Vec<(String, String)> {
    let own = hex(roster.id().octets());
    let of_now = |report: MemberReport| match report.roster_id {
        None => MemberReport { roster_id: Some(own.clone()), ..report },
        Some(_) => report,
    };
    let reports = lines.iter().copied().zip(reports.map(of_now)).collect();
    let named = skewed(&reports, roster, lines[0]).into_iter();
    assert!(
        named.clone().all(|it| it.severity == Severity::Warning && it.code == ProblemCode::ConfigDiffers)
    );
    named.map(|it| (it.node.unwrap().to_string(), it.message)).collect()
}

#[test]
fn a_member_with_the_same_roster_that_goes_by_something_else_is_named() {
    let (roster, lines) = cluster(3);
    let named = |reports| -> Vec<String> {
        differ(reports, &roster, &lines).into_iter().map(|(name, _)| name).collect()
    };
    let of = |id: Option<&str>| MemberReport { config_id: id.map(str::to_owned), ..well() };
    let other = of(Some("0011223344556677"));
    assert_eq!(named([well(), other.clone(), well()]), ["n1"]);
    // One that does not say it yet, as it is about to go by the roster, or of an earlier version.
    assert_eq!(named([well(), of(None), well()]), [""; 0]);
    // Of two, the other one: of more, the one that stands alone, be it this host.
    assert_eq!(named([well(), other.clone(), of(None)]), ["n1"]);
    assert_eq!(named([other.clone(), well(), well()]), ["n0"]);
    // What is wrong with its files says more.
    assert_eq!(named([well(), MemberReport { is_stuck: true, ..other.clone() }, well()]), [""; 0]);
    let newer = MemberReport { version: "9.0.0".to_owned(), ..other };
    let (_, words) = &differ([well(), newer, well()], &roster, &lines)[0];
    assert!(words.contains("0011223344556677") && words.contains("it runs hostseal 9.0.0"), "{words}");
}

/// What somebody said by the roster of before is no difference, and does not make that of others one.
#[test]
fn what_was_said_by_another_roster_is_not_compared() {
    let (roster, lines) = cluster(3);
    let config_id = Some("0011223344556677".to_owned());
    let before = MemberReport { config_id, roster_id: Some("9b".repeat(32)), ..well() };
    assert_eq!(differ([well(), before.clone(), before.clone()], &roster, &lines), []);
    assert_eq!(differ([well(), before, well()], &roster, &lines), []);
}

/// A host with the secret of before has pairs with those that have not joined, and one without it has none.
#[test]
fn nobody_differs_while_some_are_proven_by_a_secret_that_not_all_have() {
    let (mut roster, lines) = cluster(3);
    let other = MemberReport { config_id: Some("0011223344556677".to_owned()), ..well() };
    assert_eq!(differ([well(), other.clone(), well()], &roster, &lines).len(), 1);
    let waits = Listed { line: None, site: site(3), foreign: false, ike: None };
    say(&mut roster, Saying::Node(waits));
    assert_eq!(differ([well(), other, well()], &roster, &lines), []);
}

/// Sound members send much while the roster changes all the time: it is no reason to act against them.
#[test]
fn only_who_forges_is_what_is_wrong_with_its_row() {
    let trouble = |what| {
        let annoys = Annoyance { what, count: 9000, time: Duration::from_secs(300) };
        assert!(
            what == Nuisance::Forges || !annoys.words().contains("hostseal remove"),
            "{}",
            annoys.words()
        );
        rows([well(), well(), well()], Some(annoys)).0[1].reason_code
    };
    assert_eq!(trouble(Nuisance::Forges), Some(MemberTrouble::Forges));
    assert_eq!((trouble(Nuisance::Floods), trouble(Nuisance::Strange)), (None, None));
}

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
