//! A cluster moves to a secret that a key wraps, and to another key, while its traffic goes on.

use hostseal_kms_protocol::Refusal;

use super::cluster::{MILLISECOND, SECOND};
use super::lease::wrapped_with;
use super::members::protected;
use super::world::World;
use crate::config::{ClusterKey, SharedSecret, with_offer, with_offer_in_force, with_required_ppk};
use crate::control::{ClusterRequest, SettingsOrder};
use crate::observe::cluster::ClusterStatus;
use crate::observe::wrapping::WrapStage;
use crate::types::{ProblemCode, UnixTime};

const HOSTS: usize = 3;
/// When the secret is required, if nobody requires it before.
const END: UnixTime = UnixTime(4_000_000_000);

/// What all hosts unwrap, as this key has wrapped it.
fn wrapped(key: &str) -> SharedSecret {
    wrapped_again(key, 1)
}

/// The same as this key has wrapped it another time.
fn wrapped_again(key: &str, time: u8) -> SharedSecret {
    SharedSecret { provider: "exec".to_owned(), wrapped: wrapped_with(key, [7; 32], time) }
}

impl World {
    fn set(&mut self, settings: &str) {
        self.order(0, ClusterRequest::SetSettings(SettingsOrder::of(settings))).unwrap();
    }

    /// How far the cluster is, once traffic has gone on for a while.
    fn stage(&mut self, settings: &str) -> (WrapStage, ClusterStatus) {
        let ways = self.ways();
        self.run(10 * SECOND, Some((50 * MILLISECOND, &ways)));
        let status = self.cluster_status(0);
        (WrapStage::of(&ClusterKey::of(settings).at(self.wall()), &status.nodes), status)
    }

    fn kms_of_all(&mut self, answer: Result<(), Refusal>) {
        self.hosts.iter_mut().for_each(|host| host.file.kms = Some(answer.clone()));
    }

    /// Whether the agents of all hosts go by this key.
    fn all_go_by(&self, key: &str) -> bool {
        let mut agents = self.hosts.iter().filter_map(|host| host.agent.as_ref());
        agents.all(|agent| agent.setup().config.kms.as_ref().is_some_and(|kms| kms.key == key))
    }
}

/// The cluster goes by a secret that the key `k` wraps, and requires it.
fn moved(seed: u64) -> (World, String) {
    let mut world = protected(HOSTS, seed);
    world.kms_of_all(Ok(()));
    let first = wrapped("k");
    let id = format!("kms-{}", first.wrapped.digest.id());
    let offered = with_offer("", &first);
    world.set(&offered);
    let (stage, _) = world.stage(&offered);
    assert!(matches!(&stage, WrapStage::Offered(waits) if waits.are_over(false)), "{stage:?}");
    let in_force = with_offer_in_force(&offered, END);
    world.set(&in_force);
    let (stage, _) = world.stage(&in_force);
    let over = matches!(&stage, WrapStage::TakenUp { waits, required: false } if waits.are_over(false));
    assert!(over && world.all_have_ppk(&id), "{stage:?}");
    let required = with_required_ppk(&in_force);
    world.set(&required);
    let (stage, status) = world.stage(&required);
    assert_eq!(stage, WrapStage::InForce, "{status:?}");
    assert!(world.all_have_ppk(&id) && world.all_protected());
    assert_eq!((world.total().lost, world.total().leaked), (0, 0));
    (world, required)
}

#[test]
fn a_live_cluster_moves_to_a_wrapped_secret_and_to_another_key() {
    for seed in 0..2 {
        let (mut world, settings) = moved(seed);
        let offered = with_offer(&settings, &wrapped("k2"));
        world.set(&offered);
        let (stage, _) = world.stage(&offered);
        assert!(matches!(&stage, WrapStage::Offered(waits) if waits.are_over(false)), "{stage:?}");
        assert!(world.all_go_by("k"), "nothing rests on what is offered");
        let in_force = with_offer_in_force(&offered, END);
        world.set(&in_force);
        let (stage, status) = world.stage(&in_force);
        assert_eq!(stage, WrapStage::InForce, "{status:?}");
        assert!(world.all_go_by("k2") && world.all_protected());
        // The old key is of no use any more, as all members ask with the new one.
        world.revoked_key = Some("k");
        world.run(7 * 60 * SECOND, Some((SECOND, &world.ways())));
        assert!(world.all_protected() && world.cluster_status(0).is_healthy());
        assert_eq!((world.total().lost, world.total().leaked), (0, 0));
        assert_eq!(world.stage(&in_force).0, WrapStage::InForce);
    }
}

/// Whoever changes the roster otherwise, and however often, has no host ask its KMS: it asks in its turn, and goes on.
#[test]
fn a_roster_that_changes_otherwise_has_nobody_ask() {
    let (mut world, settings) = moved(7);
    let uses = |world: &World, host| world.record(host).iter().filter(|it| it.0 == "Use").count();
    let before: Vec<usize> = (0..HOSTS).map(|host| uses(&world, host)).collect();
    for change in 0..40 {
        world.set(&format!("{settings}\n[esp]\nreplay_window = {}\n", [128, 256][change % 2]));
        world.run(SECOND, None);
    }
    for (host, before) in before.into_iter().enumerate() {
        assert!(uses(&world, host) <= before + 1, "host {host}: {:?}", world.record(host));
    }
    assert_eq!(world.stage(&settings).0, WrapStage::InForce);
}

/// An admin gone bad that has the key and the secret changed all the time.
#[test]
fn a_key_that_changes_all_the_time_is_asked_for_in_turn() {
    let (mut world, settings) = moved(8);
    let asks = |world: &World, host: usize| world.record(host).iter().filter(|it| it.0 == "Use").count();
    let before = asks(&world, 2);
    for change in 0..40 {
        let next = with_offer(&settings, &wrapped_again("k", change));
        let next = with_offer_in_force(&next, END);
        // Now and then there is no key at all.
        let next = if change % 4 == 3 { String::new() } else { next };
        let order = SettingsOrder { other_secret: true, ..SettingsOrder::of(next.as_str()) };
        world.order(0, ClusterRequest::SetSettings(order)).unwrap();
        world.run(SECOND, None);
    }
    // Three a minute, and one in its turn.
    let after = asks(&world, 2) - before;
    assert!((1..=4).contains(&after), "{after}: {:?}", world.record(2));
}

#[test]
fn what_is_in_force_counts_once_it_was_unwrapped_and_a_kms_that_is_away_takes_nothing_away() {
    let (mut world, settings) = moved(5);
    world.kms_of_all(Err(Refusal::Unavailable));
    world.run(6 * 60 * SECOND, None);
    assert_eq!(world.stage(&settings).0, WrapStage::InForce, "it goes on with its lease");
    world.kms_of_all(Ok(()));
    let offered = with_offer(&settings, &wrapped_again("k", 2));
    world.set(&offered);
    let (stage, _) = world.stage(&offered);
    assert!(matches!(&stage, WrapStage::Offered(waits) if waits.are_over(false)), "{stage:?}");
    // The key and the secret are the same, but nobody has asked with what is in force now.
    world.kms_waits = true;
    let in_force = with_offer_in_force(&offered, END);
    world.set(&in_force);
    let (stage, _) = world.stage(&in_force);
    let behind =
        matches!(&stage, WrapStage::TakenUp { waits, required: true } if waits.behind.len() == HOSTS);
    assert!(behind, "{stage:?}");
    world.hear_kms();
    world.run(60 * SECOND, None);
    assert_eq!(world.stage(&in_force).0, WrapStage::InForce);
    assert_eq!((world.total().lost, world.total().leaked), (0, 0));
}

/// Settings that were kept from before a move would bring the old key back on all members, untried.
#[test]
fn a_wrapped_secret_that_was_not_offered_is_refused_unless_somebody_says_so() {
    let (mut world, before) = moved(3);
    let offered = with_offer(&before, &wrapped("k2"));
    world.set(&offered);
    let in_force = with_offer_in_force(&offered, END);
    world.set(&in_force);
    world.run(10 * SECOND, None);
    for try_s in [None, Some(30)] {
        let order = SettingsOrder { try_s, ..SettingsOrder::of(before.as_str()) };
        let refused = world.order(0, ClusterRequest::SetSettings(order)).unwrap_err();
        assert!(refused.contains("secret.wrapped is another one"), "{refused}");
    }
    assert!(world.toml(0) == in_force && world.all_go_by("k2"));
    let other = SettingsOrder { other_secret: true, ..SettingsOrder::of(before.as_str()) };
    world.order(0, ClusterRequest::SetSettings(other)).unwrap();
    world.run(10 * SECOND, None);
    assert!(world.all_go_by("k") && world.all_protected());
    world.set("");
    world.run(10 * SECOND, None);
    assert!(world.toml(0).is_empty() && world.all_protected(), "its use can be ended");
}

/// Nobody finishes the first move: keys are made without the secret for longer than that takes.
#[test]
fn a_move_that_nobody_finishes_becomes_critical() {
    let mut world = protected(HOSTS, 4);
    world.kms_of_all(Ok(()));
    let offered = with_offer("", &wrapped("k"));
    world.set(&offered);
    world.stage(&offered);
    world.set(&with_offer_in_force(&offered, END));
    let unfinished = |world: &mut World| {
        let problems = world.cluster_status(0).problems;
        let found = problems.into_iter().find(|problem| problem.code == ProblemCode::WrapUnfinished);
        found.map(|problem| (problem.is_critical(), problem.message))
    };
    world.run(60 * SECOND, None);
    assert!(
        unfinished(&mut world).is_some_and(|(critical, words)| !critical && words.contains("secret wrap"))
    );
    world.run(60 * 60 * SECOND, None);
    assert!(unfinished(&mut world).is_some_and(|(critical, _)| critical));
    world.set(&with_required_ppk(&with_offer_in_force(&offered, END)));
    world.run(10 * SECOND, None);
    assert_eq!(unfinished(&mut world), None);
}

#[test]
fn a_member_that_cannot_unwrap_an_offer_is_named_and_nothing_changes() {
    let mut world = protected(HOSTS, 1);
    world.kms_of_all(Ok(()));
    world.hosts[2].file.kms = Some(Err(Refusal::Denied));
    let offered = with_offer("", &wrapped("k"));
    world.set(&offered);
    let (stage, status) = world.stage(&offered);
    let WrapStage::Offered(waits) = &stage else { panic!("{stage:?}") };
    assert_eq!((waits.done, waits.behind.len()), (HOSTS - 1, 1));
    assert!(waits.lines()[0].contains("n2: cannot unwrap it: the KMS does not let"), "{:?}", waits.lines());
    let shown = status.problems.iter().any(|it| it.message.contains("n2: cannot unwrap it"));
    assert!(shown && world.all_protected(), "{:?}", status.problems);
    // It is asked again, and mends itself.
    world.hosts[2].file.kms = Some(Ok(()));
    let over =
        |world: &mut World| matches!(world.stage(&offered).0, WrapStage::Offered(it) if it.are_over(false));
    assert!((0..8).any(|_| over(&mut world)));
    assert_eq!(world.total().lost, 0);
}

/// Nothing is in force yet, and the record of the member is kept and told as it is later.
#[test]
fn a_member_that_only_tries_an_offer_has_its_record() {
    let mut world = protected(HOSTS, 4);
    world.kms_of_all(Ok(()));
    world.hosts[2].file.kms = Some(Err(Refusal::Denied));
    let offered = with_offer("", &wrapped("k"));
    world.set(&offered);
    world.stage(&offered);
    let kinds = |world: &World| world.record(2).into_iter().map(|it| it.0).collect::<Vec<_>>();
    let before = kinds(&world);
    assert!(!before.is_empty() && before.iter().all(|kind| kind == "Refusal"), "{before:?}");
    let head = |world: &mut World| world.status(2).audit().and_then(|audit| audit.head);
    let written = world.hosts[2].disk.audit_head.seq;
    assert!(head(&mut world).is_some_and(|told| told.seq >= written));
    assert!(world.status(2).kms.is_none() && world.status(2).problems.is_empty());

    world.hosts[2].disk.keeps_no_audit = true;
    world.run(2 * 60 * SECOND, None);
    let codes = |world: &mut World| world.status(2).problems.iter().map(|it| it.code).collect::<Vec<_>>();
    assert_eq!(codes(&mut world), [ProblemCode::AuditNotWritten]);
    world.hosts[2].disk.keeps_no_audit = false;
    world.stop(2);
    world.start(2);
    world.run(SECOND, None);
    let record = kinds(&world);
    let at = record.iter().position(|kind| kind == "Stop").expect("the agent has ended");
    assert!(record[at - 1] == "Refusal" && at > before.len(), "what waited is written with it: {record:?}");
    assert_eq!(record[at + 1..].first().map(String::as_str), Some("Start"), "{record:?}");

    // Nobody tries it any more. What was recorded stays, and that the agent ends.
    world.set("");
    world.run(SECOND, None);
    assert!(head(&mut world).is_some());
    world.stop(2);
    assert_eq!(kinds(&world).last().map(String::as_str), Some("Stop"));
}

/// The disk has room again when nobody tries it any more.
#[test]
fn a_record_that_could_not_be_written_is_written_though_nothing_is_added_to_it() {
    let mut world = protected(HOSTS, 4);
    world.kms_of_all(Ok(()));
    world.hosts[2].file.kms = Some(Err(Refusal::Denied));
    world.hosts[2].disk.keeps_no_audit = true;
    world.set(&with_offer("", &wrapped("k")));
    world.run(10 * SECOND, None);
    world.set("");
    world.run(5 * 60 * SECOND, None);
    let codes = |world: &mut World| world.status(2).problems.iter().map(|it| it.code).collect::<Vec<_>>();
    assert_eq!(codes(&mut world), [ProblemCode::AuditNotWritten]);
    world.hosts[2].disk.keeps_no_audit = false;
    world.run(61 * SECOND, None);
    assert!(codes(&mut world).is_empty() && !world.record(2).is_empty());
    assert!(world.status(2).audit().is_some_and(|audit| audit.head == Some(world.hosts[2].disk.audit_head)));
}

/// Who puts it in force without waiting for a member that cannot, cuts that member alone.
#[test]
fn a_member_that_cannot_is_cut_alone() {
    let (mut world, settings) = moved(2);
    world.hosts[2].file.kms = Some(Err(Refusal::Denied));
    let offered = with_offer(&settings, &wrapped("k2"));
    world.set(&offered);
    let in_force = with_offer_in_force(&offered, END);
    world.set(&in_force);
    let stage = |world: &mut World| world.stage(&in_force);
    let cut = |world: &mut World| world.hosts[2].kernel.state.sas.is_empty();
    assert!((0..30).any(|_| {
        stage(&mut world);
        cut(&mut world)
    }));
    let (stage, status) = stage(&mut world);
    let WrapStage::TakenUp { waits, required: true } = &stage else { panic!("{stage:?}") };
    assert!(waits.lines()[0].contains("n2: has not unwrapped it"), "{:?}", waits.lines());
    assert!(
        status.nodes.iter().filter(|node| node.name.as_str() != "n2").all(|node| node.protected == Some(1))
    );
    world.hosts[2].file.kms = Some(Ok(()));
    assert!(world.run_until(400 * SECOND, World::all_protected));
}

/// Members that have not unwrapped it yet need it all the same once it is required, also with each other.
#[test]
fn nobody_goes_on_without_a_secret_that_he_has_not_unwrapped_yet() {
    let mut world = protected(HOSTS, 11);
    world.kms_of_all(Ok(()));
    let offered = with_offer("", &wrapped("k"));
    world.set(&offered);
    world.stage(&offered);
    for host in [1, 2] {
        world.hosts[host].file.kms = Some(Err(Refusal::Unavailable));
    }
    let end = UnixTime(world.wall().0 + 600);
    let in_force = with_offer_in_force(&offered, end);
    world.set(&in_force);
    world.run(300 * SECOND, None);
    assert!(world.all_protected(), "until then they do without");
    world.run(400 * SECOND, None);
    let (stage, status) = world.stage(&in_force);
    assert!(matches!(stage, WrapStage::TakenUp { required: true, .. }), "{stage:?}");
    let words = status.problems.iter().find(|problem| problem.code == ProblemCode::WrapUnfinished);
    assert!(words.is_some_and(|problem| !problem.message.contains("not required")), "{words:?}");
    let rekey_after = world.hosts[1].agent.as_ref().map(|agent| agent.setup().config.keying.rekey_after);
    world.run(rekey_after.unwrap() + 60 * SECOND, None);
    let summary = world.status(1).summary;
    assert_eq!((summary.protected, summary.clear), (0, 0), "{summary:?}");
    world.kms_of_all(Ok(()));
    assert!(world.run_until(600 * SECOND, World::all_protected));
    assert_eq!(world.total().leaked, 0);
}
