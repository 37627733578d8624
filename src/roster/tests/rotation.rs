//! New keys for all nodes: who may ask for them, and whose keys count meanwhile.

use super::people::{NOW, Town, keys, sign, signer, site, statement};
use crate::roster::{
    KEYS_MAX, KeyStage, Keys, Listed, NotEntitled, NotTaken, Retired, Rotation, Saying, Statement,
};

const WANTED: Saying = Saying::Rotation(Rotation {});

impl Town {
    /// A node says that the keys of `next` follow its own.
    fn offer(&mut self, by: &str, next: &str) {
        let statement = self.roster.draft(signer(by), Saying::Keys(keys(next)), NOW).unwrap();
        let entry = self.signed_with(by, next, statement);
        assert_eq!(self.take(entry).taken, 1);
    }

    fn signed_with(&self, by: &str, next: &str, statement: Statement) -> Vec<u8> {
        sign(self.roster.cluster(), statement, &[by, next, &format!("{next} ike")])
    }

    fn retire(&mut self, by: &str) {
        self.say(by, Saying::Retired(Retired {}));
    }

    fn stage(&self, name: &str) -> Option<KeyStage> {
        self.roster.key_stage(self.member(name).unwrap())
    }
}

#[test]
fn all_nodes_are_to_have_new_keys_and_the_ones_before_count_until_they_say_otherwise() {
    let mut town = Town::of(&["a", "b"]);
    assert_eq!(town.stage("b"), Some(KeyStage::Current));
    assert!(matches!(town.roster.draft(signer("b"), WANTED, NOW), Err(NotEntitled::NoAdmin(_))));
    assert_eq!(town.take(town_entry(&town, "b")).refused.len(), 1);
    town.say("a", WANTED);
    assert_eq!((town.stage("a"), town.stage("b")), (Some(KeyStage::Due), Some(KeyStage::Due)));
    assert!(town.roster.wants_new_keys(town.member("b").unwrap()));
    town.offer("b", "b2");
    let b = town.member("b").unwrap();
    assert_eq!((&b.keys, b.previous_ike), (&Some(keys("b2")), Some(signer("b ike"))));
    assert_eq!(town.stage("b"), Some(KeyStage::Offered));
    assert!(!town.roster.wants_new_keys(town.member("b").unwrap()));
    // One rotation comes after the other.
    let busy = town.roster.draft(signer("a"), WANTED, NOW);
    assert_eq!(busy, Err(NotEntitled::KeysBusy(vec!["a".to_owned(), "b".to_owned()])));
    // Whoever has the old key does not say that the node has changed over.
    let early = statement("b", (0, 0), Saying::Retired(Retired {}));
    let early = sign(town.roster.cluster(), early, &["b"]);
    assert!(town.take(early).refused.contains_key(&NotTaken::NotEntitled));
    town.retire("b2");
    let b = town.member("b").unwrap();
    assert_eq!((&b.keys, b.previous_ike), (&Some(keys("b2")), None));
    town.offer("a", "a2");
    town.retire("a2");
    assert_eq!((town.stage("a"), town.stage("b")), (Some(KeyStage::Current), Some(KeyStage::Current)));
    // And again, by the new keys.
    town.say("a2", WANTED);
    town.offer("b2", "b3");
    assert_eq!(town.member("b").unwrap().previous_ike, Some(signer("b2 ike")));
}

/// An order that who is no admin has written all the same.
fn town_entry(town: &Town, by: &str) -> Vec<u8> {
    sign(town.roster.cluster(), statement(by, (1, 0), WANTED), &[by])
}

#[test]
fn who_has_joined_since_has_new_keys_already() {
    let mut town = Town::of(&["a"]);
    town.say("a", WANTED);
    town.offer("a", "a2");
    town.retire("a2");
    town.join("a2", "c", 3, false);
    assert_eq!((town.stage("a"), town.stage("c")), (Some(KeyStage::Current), Some(KeyStage::Current)));
    town.say("a2", WANTED);
    assert_eq!(town.stage("c"), Some(KeyStage::Due));
    town.join("a2", "d", 4, false);
    assert_eq!(town.stage("d"), Some(KeyStage::Current));
}

#[test]
fn nobody_is_asked_who_could_not_know_or_could_not_follow() {
    let mut town = Town::of(&["a"]);
    let foreign = Saying::Node(Listed { line: None, site: site("db", 9), foreign: true, ike: None });
    town.say("a", foreign);
    assert_eq!(
        town.roster.draft(signer("a"), WANTED, NOW),
        Err(NotEntitled::FixedKeys(vec!["db".to_owned()]))
    );
    let mut town = Town::of(&["a"]);
    for at in 0..KEYS_MAX {
        let [by, next] = [at, at + 1].map(|at| if at == 0 { "a".to_owned() } else { format!("a{at}") });
        town.say(&by, WANTED);
        town.offer(&by, &next);
        town.retire(&next);
    }
    let last = format!("a{KEYS_MAX}");
    assert_eq!(
        town.roster.draft(signer(&last), WANTED, NOW),
        Err(NotEntitled::KeysSpent(vec!["a".to_owned()]))
    );
}

/// What came to a configuration must not have a key twice.
#[test]
fn no_node_has_the_key_that_another_one_had_before() {
    let mut town = Town::of(&["a", "b"]);
    town.say("a", WANTED);
    town.offer("b", "b2");
    let stolen = Keys { signing: signer("a2"), ike: signer("b ike") };
    let statement = town.roster.draft(signer("a"), Saying::Keys(stolen), NOW).unwrap();
    let entry = sign(town.roster.cluster(), statement, &["a", "a2", "b ike"]);
    town.take(entry);
    assert_eq!(town.roster.view().members.len() + town.roster.view().held_out.len(), 2);
    assert_eq!(town.roster.view().held_out.len(), 1);
}

#[test]
fn an_admin_that_goes_leaves_what_it_has_asked_for_and_a_stolen_one_does_not() {
    for compromised in [false, true] {
        let mut town = Town::of(&["a", "b"]);
        town.set_admin("a", "b", true);
        town.say("b", WANTED);
        let line = town.line("b");
        for statement in town.roster.removal(signer("a"), line, compromised, NOW).unwrap() {
            let entry = sign(town.roster.cluster(), statement, &["a"]);
            town.take(entry);
        }
        assert_eq!(town.names(), ["a"]);
        assert_eq!(town.roster.view().rotation.is_some(), !compromised);
    }
}
