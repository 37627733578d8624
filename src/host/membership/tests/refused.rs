//! What members send and others do not take: who is named for it, and who is not.

use super::*;
use crate::host::membership::Nuisance;
use crate::roster::NotTaken;

/// A page with these entries, as any member can write it.
pub(in crate::host) fn page(number: u32, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut page = vec![1, 5];
    page.extend(number.to_be_bytes());
    for entry in entries {
        page.extend(u16::try_from(entry.len()).unwrap().to_be_bytes());
        page.extend(entry);
    }
    page
}

/// What an admin seems to have signed.
pub(in crate::host) fn forged(roster: &Roster, text: &str) -> Vec<u8> {
    let says = Saying::Settings(ClusterSettings { toml: text.to_owned(), trial: None });
    let mut entry = said(roster, 0, says).octets().to_vec();
    // The first octet of the signature.
    entry[2 + 32] ^= 1;
    entry
}

impl Land {
    /// Member `at` tells member `other` these pages, one every 100 ms.
    fn tell(&mut self, at: usize, other: usize, pages: impl IntoIterator<Item = Vec<u8>>) {
        self.tell_each(100 * MILLISECOND, at, other, pages);
    }

    /// The same, with such a time between two of them.
    fn tell_each(
        &mut self,
        time: Duration,
        at: usize,
        other: usize,
        pages: impl IntoIterator<Item = Vec<u8>>,
    ) {
        let pair = Pair { local: address(at), remote: address(other) };
        for page in pages {
            self.nodes[at].engine.tell(self.now, pair, Topic::Control, Arc::new(move |_| page.clone()));
            self.run(time);
        }
    }

    /// Whom this member names, and for what.
    fn named(&self, at: usize, lines: &[EntryId]) -> Vec<(usize, Nuisance)> {
        let member = &self.nodes[at].member;
        let named = lines.iter().enumerate();
        named.filter_map(|(of, line)| Some((of, member.annoyance(self.now, *line)?.what))).collect()
    }
}

#[test]
fn a_member_that_forges_is_named_where_it_does_so_and_nobody_else_is() {
    let (roster, lines) = cluster(3);
    let mut land = Land::new(31, &roster, &lines);
    assert!(land.run_until(5 * SECOND, |land| (0..3).all(|at| land.sessions(at) == 2)));
    let page_of = |at: u32| {
        let entries: Vec<Vec<u8>> = (0..4).map(|part| forged(&roster, &format!("x = {at}{part}"))).collect();
        page(at, &entries)
    };
    land.tell(1, 0, (0..50).map(page_of));
    assert_eq!(land.named(0, &lines), [(1, Nuisance::Forges)]);
    assert_eq!((land.named(1, &lines), land.named(2, &lines)), (vec![], vec![]));
    let refused = *land.nodes[0].member.refused();
    assert_eq!((refused.not_signed, refused.total()), (200, 200));
    assert!(land.is_one() && land.nodes[0].member.roster().id() == roster.id(), "and nothing has come of it");
    // What it says rightly counts, and it is named as long as it goes on.
    land.say(1, on());
    assert!(land.run_until(5 * SECOND, |land| land.nodes.iter().all(is_on)));
    land.run(61 * SECOND);
    assert_eq!(land.named(0, &lines), []);
}

/// A member that was away knows a node that was removed meanwhile, has heard from it, and passes that on.
#[test]
fn who_passes_on_what_a_removed_node_has_signed_is_not_named() {
    let (roster, lines) = cluster(4);
    let mut land = Land::new(32, &roster, &lines);
    assert!(land.run_until(5 * SECOND, |land| (0..4).all(|at| land.sessions(at) == 3)));
    land.cut = vec![2];
    let of_removed = said(land.nodes[2].member.roster(), 3, on());
    let Node { engine, member, .. } = &mut land.nodes[2];
    member.handle_signed(land.now, engine, std::slice::from_ref(&of_removed));
    land.say(0, Saying::Gone(Gone { of: lines[3], kept: Vec::new(), compromised: false }));
    land.run(30 * SECOND);
    land.cut.clear();
    land.nodes.remove(3);
    let (begin, mut agreed) = (land.now, None);
    // Also after they agree, as somebody is named for a minute then.
    while agreed.is_none_or(|at| land.now < at + 120 * SECOND) {
        land.run(SECOND);
        for at in 0..3 {
            assert_eq!(land.named(at, &lines), [], "member {at}");
        }
        agreed = agreed.or(land.is_one().then_some(land.now));
        assert!(agreed.is_some() || land.now < begin + 600 * SECOND);
    }
    for at in 0..3 {
        let member = &land.nodes[at].member;
        assert!(member.roster().get(of_removed.id()).is_some(), "member {at} has it too");
        let refused = member.refused();
        assert_eq!((refused.not_signed, refused.other_cluster), (0, 0));
    }
}

/// It may say each of them, and not all the time. What counts of it reaches the others by those who listen to it.
#[test]
fn who_changes_the_same_all_the_time_is_named_and_those_who_pass_on_what_counts_are_not() {
    let (roster, lines) = cluster(3);
    let mut land = Land::new(33, &roster, &lines);
    assert!(land.run_until(5 * SECOND, |land| (0..3).all(|at| land.sessions(at) == 2)));
    let [signing, _] = keys(1);
    let by = Signer::of(&signing).unwrap();
    let cluster = roster.cluster();
    let page_of = |at: u32| {
        let version = Version(0, u64::from(at) + 1);
        let statement = Statement { by, version, after: Vec::new(), basis: None, says: on() };
        page(at, &[sign(cluster, statement, &[&signing]).octets().to_vec()])
    };
    land.tell(1, 0, (0..900).map(page_of));
    assert_eq!(land.named(0, &lines), [(1, Nuisance::Strange)]);
    assert_eq!(land.named(2, &lines), []);
    let node = &land.nodes[0].member;
    assert!(node.refused().put_off > 800, "{:?}", node.refused());
    assert!(node.roster().ids().count() < roster.ids().count() + 4);
}

/// More than anybody listens to, and nothing that is new.
#[test]
fn a_member_that_floods_is_named_where_it_does_so_and_nobody_else_is() {
    let (roster, lines) = cluster(3);
    let mut land = Land::new(34, &roster, &lines);
    assert!(land.run_until(5 * SECOND, |land| (0..3).all(|at| land.sessions(at) == 2)));
    land.tell_each(20 * MILLISECOND, 1, 0, (0..7000).map(|at| page(at, &[])));
    let ignored = land.nodes[0].member.refused().pages_too_many;
    assert_eq!(land.named(0, &lines), [(1, Nuisance::Floods)], "{ignored} were ignored");
    assert_eq!((land.named(1, &lines), land.named(2, &lines)), (vec![], vec![]));
    land.say(1, on());
    assert!(land.run_until(60 * SECOND, |land| land.nodes.iter().all(is_on)), "and it can talk to all");
    land.run(61 * SECOND);
    assert_eq!(land.named(0, &lines), []);
}

/// Whom a member may be named for, and whom not: the words of the log and of `status` rest on it.
#[test]
fn only_what_no_sound_member_has_is_its_carriers_fault() {
    use NotTaken::{Full, Malformed, NotEntitled, NotSigned, OtherCluster, TooLong, TooMany, UnknownSigner};
    let all = [TooLong, Malformed, OtherCluster, UnknownSigner, NotSigned, NotEntitled, TooMany, Full];
    let blamed: Vec<NotTaken> = all.into_iter().filter(|why| why.is_carriers_fault()).collect();
    assert_eq!(blamed, [OtherCluster, NotSigned]);
}
