//! Members that have nothing but a store between them, which may lose, forget, repeat and lie.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::host::membership::tests::{NOW, cluster, keys, said};
use crate::roster::{Carriage, DesiredProtection, Saying, SignedEntry, Signer, Statement};

const SECOND: Duration = Duration::from_secs(1);

/// A member: what it knows, and its way to the store.
struct Node {
    roster: Roster,
    own: EntryId,
    carriage: Carriage<EntryId>,
    shared: SharedStore,
    /// What it will hear.
    inbox: VecDeque<StoreEvent>,
    connected: bool,
}

/// The store, and those who use it.
struct Fleet {
    now: Instant,
    nodes: Vec<Node>,
    store: BTreeMap<EntryName, Vec<u8>>,
    /// In the order in which they were stored.
    order: Vec<EntryName>,
    dice: StdRng,
}

impl Fleet {
    fn new(count: usize, seed: u64) -> Self {
        let (roster, lines) = cluster(count);
        let node = |own| Node {
            roster: roster.clone(),
            own,
            carriage: Carriage::default(),
            shared: SharedStore::default(),
            inbox: VecDeque::new(),
            connected: false,
        };
        let nodes = lines.into_iter().map(node).collect();
        let dice = StdRng::seed_from_u64(seed);
        Self { now: Instant::now(), nodes, store: BTreeMap::new(), order: Vec::new(), dice }
    }

    /// What a helper tells after it has (re)connected.
    fn list(&mut self, at: usize) {
        let all = self.order.iter().map(|name| entry(name, &self.store[name]));
        let all = all.map(|entry| StoreEvent::News(StoreNews::Has(entry)));
        let inbox = &mut self.nodes[at].inbox;
        inbox.push_back(StoreEvent::News(StoreNews::Listing));
        inbox.extend(all);
        inbox.push_back(StoreEvent::News(StoreNews::Listed { strange: 0 }));
        self.nodes[at].connected = true;
    }

    fn lose(&mut self, at: usize) {
        self.nodes[at].inbox.push_back(StoreEvent::Lost("gone".to_owned()));
        self.nodes[at].connected = false;
    }

    fn put(&mut self, put: StoredEntry) {
        if self.store.contains_key(&put.name) {
            return;
        }
        self.order.push(put.name.clone());
        self.store.insert(put.name.clone(), put.value.clone());
        for node in self.nodes.iter_mut().filter(|node| node.connected) {
            node.inbox.push_back(StoreEvent::News(StoreNews::Has(put.clone())));
        }
    }

    /// One member does what there is to do; says whether there was anything.
    fn step(&mut self, at: usize) -> bool {
        let (now, node) = (self.now, &mut self.nodes[at]);
        let mut busy = false;
        while let Some(event) = node.inbox.pop_front() {
            busy = true;
            node.shared.handle(now, event, &node.roster, node.own);
        }
        let part = node.shared.poll_look(now);
        if !part.is_empty() {
            busy = true;
            let values: Vec<Vec<u8>> = part.iter().map(|entry| entry.value.clone()).collect();
            let carried = node.carriage.handle_entries(now, &values, &mut node.roster);
            node.shared.handle_looked(now, part, &carried, &node.roster);
        }
        node.shared.compare(now, &node.roster, node.own);
        let mut puts = Vec::new();
        while let Some(put) = node.shared.poll_put(now, &node.roster) {
            puts.push(put);
        }
        busy |= !puts.is_empty();
        let connected = node.connected;
        puts.into_iter().filter(|_| connected).for_each(|put| self.put(put));
        busy
    }

    /// Goes on until nobody has anything to do for a while.
    fn settle(&mut self) {
        let end = self.now + 60 * SECOND;
        while self.now < end {
            while (0..self.nodes.len()).fold(false, |busy, at| self.step(at) | busy) {}
            let due = self.nodes.iter().filter_map(|node| node.shared.deadline()).min();
            self.now = due.unwrap_or(end).max(self.now + Duration::from_millis(1));
        }
    }

    fn sign(&mut self, at: usize, on: bool) -> SignedEntry {
        let node = &mut self.nodes[at];
        let says = Saying::Desired(DesiredProtection { on, trial: None, confirms: None });
        let entry = said(&node.roster, at, says);
        node.roster.merge([entry.octets()]);
        node.shared.handle_signed(self.now);
        entry
    }

    fn assert_agree(&self) {
        for node in &self.nodes {
            assert_eq!(node.roster.id(), self.nodes[0].roster.id());
            assert!(node.roster.ids().all(|id| self.store.contains_key(&EntryName::of(id.octets()))));
            assert_eq!(node.shared.problems(self.now, "/p/"), []);
        }
    }
}

fn entry(name: &EntryName, value: &[u8]) -> StoredEntry {
    StoredEntry { name: name.clone(), value: value.to_vec() }
}

#[test]
fn what_one_signs_all_have_by_the_store_alone() {
    let mut fleet = Fleet::new(5, 1);
    (0..5).for_each(|at| fleet.list(at));
    fleet.settle();
    fleet.assert_agree();
    let before = fleet.store.len();
    let signed = fleet.sign(3, true);
    // Whoever has signed it puts it at once, and it is known to all before anybody else would.
    for at in (0..5).cycle().take(25) {
        fleet.step(at);
    }
    assert!(fleet.nodes.iter().all(|node| node.roster.get(signed.id()).is_some()));
    assert_eq!(fleet.store.len(), before + 1);
    fleet.settle();
    fleet.assert_agree();
}

#[test]
fn what_the_store_forgets_is_put_again_and_what_was_signed_meanwhile_merges() {
    for seed in 0..20 {
        let mut fleet = Fleet::new(6, seed);
        (0..6).for_each(|at| fleet.list(at));
        fleet.settle();
        let backup = (fleet.store.clone(), fleet.order.clone());
        for round in 0..12 {
            let at = fleet.dice.random_range(0..6);
            match fleet.dice.random_range(0..5) {
                0 => fleet.lose(at),
                1 => fleet.list(at),
                2 => {
                    // Restored: all have lost it, and list again.
                    (fleet.store, fleet.order) = backup.clone();
                    (0..6).for_each(|at| fleet.lose(at));
                    (0..6).for_each(|at| fleet.list(at));
                }
                _ => {
                    fleet.sign(at, at != 0 || round % 2 == 0);
                }
            }
            for _ in 0..fleet.dice.random_range(0..4) {
                let at = fleet.dice.random_range(0..6);
                fleet.step(at);
            }
            fleet.now += SECOND * fleet.dice.random_range(0..12);
        }
        (0..6).for_each(|at| fleet.list(at));
        fleet.settle();
        fleet.assert_agree();
    }
}

/// A store that hands out entries in any order: what rests on others waits for them.
#[test]
fn the_order_does_not_matter_and_a_new_member_has_all() {
    let mut fleet = Fleet::new(40, 7);
    fleet.list(0);
    fleet.settle();
    // The order of their names is none.
    fleet.order = fleet.store.keys().cloned().collect();
    let founding = fleet.nodes[0].roster.in_order().next().unwrap().octets().to_vec();
    let full = fleet.nodes[0].roster.id();
    fleet.nodes[1].roster = Roster::found(&founding).unwrap();
    fleet.list(1);
    fleet.settle();
    assert_eq!(fleet.nodes[1].roster.id(), full);
    assert_eq!(fleet.nodes[1].shared.problems(fleet.now, "/p/"), []);
}

#[test]
fn lies_count_for_nothing_and_are_told() {
    let mut fleet = Fleet::new(3, 3);
    (0..3).for_each(|at| fleet.list(at));
    fleet.settle();
    let (other, _) = cluster(4);
    let before = fleet.nodes[0].roster.id();
    let mut lie =
        |number: u8, value: Vec<u8>| fleet.put(StoredEntry { name: EntryName::of(&[number; 32]), value });
    lie(1, b"nonsense".to_vec());
    let mut altered = other.in_order().last().unwrap().octets().to_vec();
    let last = altered.len() - 3;
    altered[last] ^= 1;
    lie(2, altered);
    let stranger = keys(200);
    let says = Saying::Desired(DesiredProtection { on: false, trial: None, confirms: None });
    let statement = other.draft(Signer::of(&keys(0)[0]).unwrap(), says, NOW).unwrap();
    let statement = Statement { by: Signer::of(&stranger[0]).unwrap(), ..statement };
    lie(3, SignedEntry::sign(other.cluster(), statement, &[&stranger[0]]).unwrap().octets().to_vec());
    fleet.settle();
    for node in &fleet.nodes {
        assert_eq!(node.roster.id(), before);
        let problems = node.shared.problems(fleet.now, "/hostseal/x/");
        assert_eq!((problems.len(), problems[0].code), (1, ProblemCode::StoreStrange));
        assert!(
            problems[0].message.contains("below /hostseal/x/ etcd holds things")
                && problems[0].message.contains("(3)")
        );
    }
}

/// A helper may say as much as it likes: it is bounded here too.
#[test]
fn a_flood_takes_no_more_room_than_a_roster_may() {
    let (roster, lines) = cluster(1);
    let (mut shared, now) = (SharedStore::default(), Instant::now());
    shared.handle(now, StoreEvent::News(StoreNews::Listing), &roster, lines[0]);
    let mut octets = [0; 32];
    for number in 0..2 * LISTED_MAX as u32 {
        octets[..4].copy_from_slice(&number.to_be_bytes());
        let entry = StoredEntry { name: EntryName::of(&octets), value: vec![7; 600] };
        shared.handle(now, StoreEvent::News(StoreNews::Has(entry)), &roster, lines[0]);
    }
    assert!(shared.has.len() <= LISTED_MAX && shared.waiting_octets <= LISTED_OCTETS_MAX);
    assert_eq!(shared.strange as usize + shared.has.len(), 2 * LISTED_MAX);
    assert_eq!(shared.waiting.len(), shared.has.len());
    // Nor does one name with rubbish, again and again, that is looked at and left each time.
    for number in 0..2 * LISTED_MAX {
        let entry = StoredEntry { name: EntryName::of(&octets), value: vec![7; 600] };
        shared.handle(now, StoreEvent::News(StoreNews::Has(entry)), &roster, lines[0]);
        if number % 1_000 == 0 {
            let part = shared.poll_look(now);
            shared.handle_looked(now, part, &Carried::default(), &roster);
        }
    }
    assert!(shared.waiting.len() + shared.left.len() <= LISTED_MAX);
    assert!(shared.waiting_octets + shared.left_octets <= LISTED_OCTETS_MAX);
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let mut fleet = Fleet::new(2, 1);
    assert_eq!(fleet.nodes[0].shared.problems(fleet.now, "/p/"), [], "nothing was heard yet");
    let why = "https://a:2379: connection refused".to_owned();
    fleet.nodes[0].inbox.push_back(StoreEvent::News(StoreNews::Away { why }));
    fleet.step(0);
    fleet.now += 90 * SECOND;
    let told = |fleet: &Fleet| {
        let problems = fleet.nodes[0].shared.problems(fleet.now, "/p/");
        let is_warning = |problem: &Problem| !problem.is_critical();
        assert!(problems.iter().all(is_warning));
        problems.into_iter().map(|problem| (problem.code, problem.message)).collect::<Vec<_>>()
    };
    let [(ProblemCode::StoreAway, words)] = &told(&fleet)[..] else { panic!() };
    assert!(
        words
            .starts_with("etcd does not answer: https://a:2379: connection refused (for 1m 30s). Protection"),
        "{words}"
    );

    // It answers, and takes nothing; then its helper hangs.
    fleet.list(0);
    fleet.nodes[0].connected = false;
    fleet.step(0);
    assert_eq!(told(&fleet), []);
    fleet.now += 3 * SECOND;
    fleet.step(0);
    let refused = StoreEvent::News(StoreNews::Refused { why: "no space".to_owned() });
    fleet.nodes[0].inbox.push_back(refused);
    fleet.step(0);
    let [(ProblemCode::StoreRefuses, words)] = &told(&fleet)[..] else { panic!() };
    assert!(words.starts_with("etcd takes nothing from this host: no space"), "{words}");
    fleet.now += REFUSED;
    assert!(fleet.step(0), "it is tried again");
    fleet.now += PATIENCE + SECOND;
    let [(ProblemCode::StoreAway, words), _] = &told(&fleet)[..] else { panic!() };
    assert!(words.contains("has not stored anything for 31s"), "{words}");
    // What gets through ends it.
    fleet.list(0);
    fleet.settle();
    fleet.list(1);
    fleet.settle();
    assert_eq!(told(&fleet), []);
}
