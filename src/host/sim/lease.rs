//! A key of somebody else wraps the secret of hosts.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hostseal_kms_protocol::{KmsGift, KmsRefusal, Refusal};

use super::cluster::{MILLISECOND, SECOND};
use super::net::Weather;
use super::world::World;
use crate::config::{KmsRules, WrappedSecret};
use crate::control::Reply;
use crate::host::OfferTried;
use crate::host::lease::AskId;
use crate::host::unwrap::Unwrapped;
use crate::identity::Secret;
use crate::observe::kms::KeyStanding;
use crate::store::AuditEvent;
use crate::types::{Method, ProblemCode, Protection, ReasonCode, RowState};

const WAYS: [(usize, usize); 2] = [(0, 1), (1, 0)];
pub(super) const CHECK: Duration = Duration::from_secs(60);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);
pub(super) const LENGTH: Duration = Duration::from_secs(3600);

/// What the files of hosts say that have one.
pub(super) fn rules() -> KmsRules {
    KmsRules {
        provider: "exec".to_owned(),
        program: "/p".into(),
        key: "k".to_owned(),
        check_every: CHECK,
        max_offline: LENGTH,
        restore_window: 24 * LENGTH,
        socket: "/s".into(),
    }
}

/// What a key of a KMS makes of a secret, each `time` something else: no other key opens it.
pub(super) fn wrapped_with(key: &str, secret: [u8; 32], time: u8) -> WrappedSecret {
    let blob = STANDARD.encode([key.as_bytes(), b":", &secret, &[time]].concat());
    WrappedSecret { key: key.to_owned(), digest: Secret::new(secret).digest(), blob }
}

/// What a KMS gives that is asked with this key.
pub(super) fn opened(revoked: Option<&str>, key: &str, wrapped: &WrappedSecret) -> Result<[u8; 32], Refusal> {
    let blob = STANDARD.decode(&wrapped.blob).expect("it is base64");
    let secret = blob.strip_prefix(key.as_bytes()).and_then(|rest| rest.strip_prefix(b":"));
    match secret.and_then(|secret| secret.first_chunk().copied()) {
        _ if revoked == Some(key) => Err(Refusal::Disabled),
        Some(secret) if Secret::new(secret).digest() == wrapped.digest => Ok(secret),
        _ => Err(Refusal::Broken),
    }
}

impl World {
    /// The KMS answers what the agent of a host asks. Says whether it has asked.
    pub(super) fn unwrap(&mut self, at: usize) -> bool {
        let (moment, mut asked) = (self.moment(), self.try_offer(at));
        while let Some(ask) = self.next_ask(at) {
            let answer = self.hosts[at].file.kms.clone().unwrap_or(Err(Refusal::Unavailable));
            let request_id = Some("r".to_owned());
            let answer = match answer {
                Ok(()) => self
                    .asked_secret(at)
                    .map_err(|refusal| KmsRefusal::because(refusal, "so it is"))
                    .map(|secret| KmsGift { given: Arc::new(Secret::new(secret)), why: None, request_id }),
                Err(refusal) => {
                    let why = (refusal == Refusal::Unavailable).then(|| "a time-out".to_owned());
                    Err(KmsRefusal { refusal, why, request_id })
                }
            };
            let mut source = self.source(at);
            let host = &mut self.hosts[at];
            let refusal = answer.as_ref().err().map(|refused| &refused.refusal);
            host.watch.iter_mut().for_each(|watch| watch.note_answer(moment.now, refusal));
            let agent = host.agent.as_mut().expect("it asks");
            agent.handle_unwrapped(
                moment,
                &mut host.kernel,
                &mut source,
                Unwrapped { ask, rules: Some(rules()), answer },
            );
            asked = true;
        }
        asked
    }

    /// The KMS answers what the agent of a host asks to try what its cluster offers.
    fn try_offer(&mut self, at: usize) -> bool {
        let host = &mut self.hosts[at];
        let Some(agent) = host.agent.as_mut() else { return false };
        let Some(offer) = agent.poll_offer(self.now) else { return false };
        let answer = host.file.kms.clone().unwrap_or(Err(Refusal::Unavailable));
        let answer = answer.and_then(|()| opened(self.revoked_key, &offer.rules.key, &offer.wrapped));
        let answer = answer.map(|_| KmsGift { given: (), why: None, request_id: None });
        let answer = answer.map_err(|refusal| KmsRefusal::because(refusal, "so it is"));
        agent.handle_offer_tried(OfferTried { offer, answer });
        true
    }

    /// What a KMS unwraps for the agent of a host, which asks it for what its configuration says.
    fn asked_secret(&self, at: usize) -> Result<[u8; 32], Refusal> {
        let host = &self.hosts[at];
        let config = host.agent.as_ref().map(|agent| &agent.setup().config);
        match config.and_then(|config| config.kms.as_ref().zip(config.secret.wrapped.as_ref())) {
            Some((kms, wrapped)) => opened(self.revoked_key, &kms.key, wrapped),
            None => Ok(host.file.secret),
        }
    }

    /// What the agent of a host asks that is to be answered now.
    fn next_ask(&mut self, at: usize) -> Option<AskId> {
        let (host, now) = (&mut self.hosts[at], self.now);
        let asked = host.agent.as_mut()?.poll_unwrap().map(|asked| (asked, now));
        if self.kms_waits {
            // Whoever has waited for too long asks anew.
            host.unanswered = asked.or(host.unanswered);
            return None;
        }
        let (asked, since) = asked.or_else(|| host.unanswered.take())?;
        // A helper that takes longer is killed.
        (now < since + ANSWER).then_some(asked)
    }

    /// What was asked of the KMS is answered now.
    pub(super) fn hear_kms(&mut self) {
        self.kms_waits = false;
        (0..self.hosts.len()).for_each(|at| self.on(at, |_, _, _| {}));
    }

    pub(super) fn kms(&mut self, at: usize, answer: Result<(), Refusal>) {
        self.hosts[at].file.kms = Some(answer);
    }

    fn hard_seconds(&self, at: usize) -> Vec<u64> {
        let sas = self.hosts[at].kernel.state.sas.values();
        sas.map(|sa| sa.hard_seconds.expect("it ends")).collect()
    }
}

/// Two hosts whose secret a key wraps, protected.
pub(super) fn leased(seed: u64) -> World {
    let mut world = World::new(2, seed, Weather::FAIR);
    world.rekey_after(Duration::from_secs(600));
    for at in 0..2 {
        world.kms(at, Ok(()));
        world.enable(at);
    }
    assert!(world.run_until(30 * SECOND, World::all_protected));
    world.run(3 * SECOND, None);
    world
}

/// The same, where they have the secret in their PPK.
pub(super) fn leased_in_ppk(seed: u64) -> World {
    let mut world = World::new(2, seed, Weather::FAIR);
    world.rekey_after(Duration::from_secs(600));
    for at in 0..2 {
        let file = &mut world.hosts[at].file;
        (file.method, file.accept, file.ppks) = (Method::Ike, vec![Method::Ike], vec![("one", 1)]);
        world.kms(at, Ok(()));
        world.enable(at);
    }
    assert!(world.run_until(30 * SECOND, |world| world.all_have_ppk("one")));
    world.run(3 * SECOND, None);
    world
}

/// A PPK that comes from the wrapped secret goes and comes with it.
#[test]
fn hosts_whose_ppk_is_gone_are_cut_and_have_it_again_by_themselves() {
    let mut world = leased_in_ppk(3);
    let clear = world.total().clear;
    (0..2).for_each(|at| world.kms(at, Err(Refusal::Disabled)));
    let cut = |world: &World| world.hosts.iter().all(|host| host.kernel.state.sas.is_empty());
    assert!(world.run_until(2 * CHECK + 60 * SECOND, cut));
    world.run(3 * SECOND, Some((10 * MILLISECOND, &WAYS)));
    assert_eq!(world.total().clear, clear, "nothing goes out in the clear");
    (0..2).for_each(|at| world.kms(at, Ok(())));
    assert!(world.run_until(2 * CHECK + 60 * SECOND, |world| world.all_have_ppk("one")));
}

/// What the files say of peers and PPKs is in force at once: it does not wait for a KMS, which may be away.
#[test]
fn files_that_change_are_followed_while_the_kms_is_away() {
    let mut world = leased(4);
    let clear = world.total().clear;
    (0..2).for_each(|at| world.kms(at, Err(Refusal::Unavailable)));
    for required in [false, true] {
        for at in 0..2 {
            world.reconfigure(at, |file| {
                (file.method, file.accept, file.ppks) = (Method::Ike, vec![Method::Ike], vec![("one", 1)]);
                file.ppk_required = required;
            });
            world.run(5 * SECOND, Some((10 * MILLISECOND, &WAYS)));
        }
        assert!(world.all_have_ppk("one"), "required: {required}");
    }
    assert_eq!((world.total().lost, world.total().clear), (0, clear));
    world.reconfigure(0, |file| file.ppks = vec![("two", 2)]);
    world.run(Duration::from_secs(1200), None);
    assert_ne!(world.state(0, 1), RowState::Protected, "the peer does not know it");
}

/// The KMS has not given the new secret yet, and then the old one is back: what else the files have said meanwhile counts.
#[test]
fn files_that_came_with_another_secret_count_when_the_old_one_is_back() {
    let mut world = leased(7);
    for at in 0..2 {
        world.kms(at, Err(Refusal::Unavailable));
        let old = world.hosts[at].file.secret;
        world.reconfigure(at, |file| {
            file.secret = [9; 32];
            (file.method, file.accept, file.ppks) = (Method::Ike, vec![Method::Ike], vec![("one", 1)]);
        });
        world.run(SECOND, None);
        world.reconfigure(at, |file| file.secret = old);
    }
    assert!(world.run_until(30 * SECOND, |world| world.all_have_ppk("one")));
    world.run(5 * SECOND, Some((10 * MILLISECOND, &WAYS)));
    assert!(world.all_protected());
}

/// Peers are told of it, as the agent waits for its secret first.
#[test]
fn an_agent_that_starts_on_the_way_to_the_clear_goes_on_in_stages() {
    let mut begun = 0;
    for delay in (0..100).step_by(10) {
        let mut world = leased(6);
        world.disable(0);
        world.run(delay * MILLISECOND, None);
        world.kill(0);
        if !world.hosts[0].disk.saved.leaving {
            continue;
        }
        begun += 1;
        world.start(0);
        let ended = |world: &World| world.hosts[0].kernel.state.policies.is_empty();
        assert!(world.run_until(60 * SECOND, ended), "after {delay} ms");
        world.run(SECOND, None);
        let lost = world.total().lost;
        world.run(SECOND, Some((10 * MILLISECOND, &WAYS)));
        assert_eq!(world.total().lost, lost, "the peer knows, after {delay} ms: {:?}", world.state(1, 0));
    }
    assert!(begun > 0);
}

/// `enable` starts the agent, and gives its order before the KMS has answered.
#[test]
fn an_order_waits_for_the_first_answer() {
    let mut world = leased(1);
    assert_eq!(world.status(0).kms.map(|kms| (kms.state, kms.cut)), Some((KeyStanding::Valid, false)));

    let mut slow = World::new(2, 1, Weather::FAIR);
    for at in 0..2 {
        slow.kms(at, Ok(()));
        slow.kms_waits = true;
        slow.enable(at);
    }
    slow.run(10 * SECOND, None);
    assert!(slow.hosts.iter().all(|host| host.replies.is_empty()), "nobody knows yet");
    slow.hear_kms();
    assert!(slow.run_until(30 * SECOND, World::all_protected));
    // Nothing is waited for where no KMS is to be asked any more.
    let mut without = World::new(2, 1, Weather::FAIR);
    without.kms(0, Ok(()));
    without.kms_waits = true;
    without.enable(0);
    without.run(SECOND, None);
    without.reconfigure(0, |file| file.kms = None);
    without.run(SECOND, None);
    assert!(without.hosts[0].is_at_work());

    let mut denied = World::new(2, 1, Weather::FAIR);
    denied.kms(0, Err(Refusal::Denied));
    denied.kms_waits = true;
    denied.enable(0);
    denied.run(SECOND, None);
    denied.hear_kms();
    denied.run(SECOND, None);
    let refused = denied.hosts[0].replies.iter().find_map(|(_, reply, _)| match reply {
        Reply::Error { message, .. } => Some(message.clone()),
        _ => None,
    });
    assert!(refused.is_some_and(|words| words.contains("the KMS does not let this host use the key")));
    assert_eq!(denied.status(0).protection, Protection::Off);
    assert!(denied.hosts[0].kernel.state.policies.is_empty());
}

/// A host whose key is fine says of the pair why it is blocked, and asks for its own key, which changes nothing.
#[test]
fn a_peer_of_a_host_that_is_cut_off_says_so_and_asks_for_itself() {
    for seed in 0..4 {
        let mut world = leased(seed);
        world.kms(0, Err(Refusal::Denied));
        let cut = |world: &World| world.hosts[0].kernel.state.sas.is_empty();
        while !cut(&world) {
            world.run(100 * MILLISECOND, None);
        }
        let at = world.moment().wall;
        world.run(SECOND, None);
        let row = world.status(1).peers.remove(0);
        assert_eq!(
            (row.state, row.reason_code),
            (RowState::Blocked, Some(ReasonCode::PeerCutOff)),
            "at once"
        );
        world.run(21 * SECOND, Some((100 * MILLISECOND, &WAYS)));
        let kms = world.status(1).kms.expect("it has a key");
        assert!(kms.last_use >= Some(at) && !kms.cut, "seed {seed}: cut at {at:?}, {kms:?}");
        // It tries on, and is not answered.
        world.run(5 * CHECK, Some((SECOND, &WAYS)));
        let row = world.status(1).peers.remove(0);
        assert_eq!((row.state, row.reason_code), (RowState::Blocked, Some(ReasonCode::PeerCutOff)));
        assert!(row.reason.is_some_and(|words| words.contains("was cut off from its key")));
        world.kms(0, Ok(()));
        assert!(world.run_until(3 * CHECK, World::all_protected), "by itself");
        assert_eq!((world.total().clear, world.total().leaked), (0, 0));
        assert!(world.status(1).is_healthy());
    }
}

/// Whatever the seed, with both methods of keying.
#[test]
fn a_key_that_is_denied_cuts_within_the_bound_and_one_that_is_back_restores() {
    for seed in 0..4 {
        let mut world = leased(seed);
        let refusal = Refusal::PendingDeletion(Some("2027-01-02".to_owned()));
        world.kms(0, Err(refusal));
        world.run(2 * CHECK + SECOND, Some((100 * MILLISECOND, &WAYS)));
        assert!(world.hosts[0].kernel.state.sas.is_empty());
        let status = world.status(0);
        let row = &status.peers[0];
        assert_eq!((row.state, row.reason_code), (RowState::Blocked, Some(ReasonCode::KeyPendingDeletion)));
        assert!(row.reason.as_ref().is_some_and(|words| words.contains("deleted on 2027-01-02")), "{row:?}");
        assert!(status.problems.iter().any(|problem| problem.is_critical()));
        assert!(status.kms.is_some_and(|kms| kms.cut && kms.request_id.as_deref() == Some("r")));
        world.kms(0, Ok(()));
        assert!(world.run_until(2 * CHECK, World::all_protected), "by itself");
        assert_eq!((world.total().clear, world.total().leaked), (0, 0));
        assert!(world.status(0).is_healthy());
    }
}

/// The kernel ends SAs with the lease, as no agent may be left then; and what was made under a short rest of it is
/// replaced when the key is back, before it ends.
#[test]
fn no_sa_outlives_the_lease_and_none_ends_before_its_successor() {
    let mut world = leased(2);
    assert!(
        world.hard_seconds(0).iter().all(|hard| *hard <= LENGTH.as_secs()),
        "{:?}",
        world.hard_seconds(0)
    );
    (0..2).for_each(|at| world.kms(at, Err(Refusal::Unavailable)));
    let mut rest = LENGTH;
    while rest > 2 * CHECK {
        world.run(CHECK, Some((SECOND, &WAYS)));
        rest -= CHECK;
    }
    // SAs that were made ten minutes ago at the most.
    let most = rest + Duration::from_secs(600) + 2 * CHECK;
    assert!(world.hard_seconds(0).iter().all(|hard| *hard <= most.as_secs()), "{:?}", world.hard_seconds(0));
    assert!(world.all_protected());
    (0..2).for_each(|at| world.kms(at, Ok(())));
    let renewed = |world: &World| {
        let of = |at| world.hard_seconds(at);
        (0..2).all(|at| !of(at).is_empty() && of(at).iter().all(|hard| *hard > LENGTH.as_secs() * 3 / 4))
    };
    assert!(world.run_until(2 * CHECK, renewed), "{:?}", world.hard_seconds(0));
    assert_eq!((world.total().lost, world.total().clear), (0, 0));

    (0..2).for_each(|at| world.kms(at, Err(Refusal::Unavailable)));
    world.run(LENGTH, Some((SECOND, &WAYS)));
    let status = world.status(0);
    assert_eq!(status.peers[0].reason_code, Some(ReasonCode::KeyOffline));
    assert!(world.hosts[0].kernel.state.sas.is_empty());
}

/// Whether an agent before this one has left something, or the system has just started.
#[test]
fn a_host_that_has_not_heard_its_kms_yet_keeps_its_pairs_and_says_what_is_wrong() {
    for reboots in [false, true] {
        let mut world = leased(5);
        world.kms(0, Err(Refusal::Unavailable));
        match reboots {
            true => world.reboot(0),
            false => world.kill(0),
        }
        world.start(0);
        world.flush_policies(0);
        world.run(200 * MILLISECOND, None);
        world.run(2 * CHECK, Some((100 * MILLISECOND, &WAYS)));
        assert_eq!((world.total().clear, world.total().leaked), (0, 0));
        let row = world.status(0).peers.remove(0);
        if reboots {
            assert_eq!((row.state, row.reason_code), (RowState::Blocked, Some(ReasonCode::KeyOffline)));
        } else {
            assert_eq!((row.state, world.total().lost), (RowState::Protected, 0));
        }
        world.kms(0, Err(Refusal::Disabled));
        world.run(3 * CHECK, Some((100 * MILLISECOND, &WAYS)));
        assert!(world.hosts[0].kernel.state.sas.is_empty(), "cut");
        let row = world.status(0).peers.remove(0);
        assert_eq!((row.state, row.reason_code), (RowState::Blocked, Some(ReasonCode::KeyRevoked)));
        assert!(row.reason.is_some_and(|words| words.contains("the key is disabled")));
        world.kms(0, Ok(()));
        assert!(world.run_until(3 * CHECK, World::all_protected), "by itself");
        assert_eq!((world.total().clear, world.total().leaked), (0, 0));
    }
}

/// Whatever else is answered meanwhile but success, and whoever has begun anew.
#[test]
fn a_denial_outlives_the_agent_and_what_was_said_of_it_stays() {
    for reboots in [false, true] {
        let mut world = leased(7);
        world.kms(0, Err(Refusal::Denied));
        let denied = |world: &World| {
            world.hosts[0].disk.saved.lease.as_ref().is_some_and(|it| it.denial("k").is_some())
        };
        assert!(world.run_until(2 * CHECK, denied), "it is written soon");
        world.kms(0, Err(Refusal::Unavailable));
        match reboots {
            true => world.reboot(0),
            false => world.kill(0),
        }
        world.start(0);
        world.run(SECOND, None);
        let kms = world.status(0).kms.expect("it has a key");
        assert_eq!((kms.state, kms.why, kms.request_id.as_deref()), (KeyStanding::Denied, None, Some("r")));
        world.run(CHECK, None);
        assert!(world.hosts[0].kernel.state.sas.is_empty(), "cut off within a minute");
        let row = world.status(0).peers.remove(0);
        assert_eq!((row.state, row.reason_code), (RowState::Blocked, Some(ReasonCode::KeyRevoked)));
        world.kms(0, Ok(()));
        assert!(world.run_until(3 * CHECK, World::all_protected));
        world.run(3 * SECOND, None);
        assert!(!denied(&world), "a success lifts it");
        assert_eq!((world.total().clear, world.total().leaked), (0, 0));
    }
}

/// A restart gives nothing, however often.
#[test]
fn a_host_that_cannot_ask_is_cut_off_in_time_though_its_agent_starts_anew() {
    let mut world = leased(8);
    world.kms(0, Err(Refusal::Unavailable));
    let begun = world.now;
    while world.now < begun + LENGTH - 2 * CHECK {
        world.run(LENGTH / 8, None);
        world.kill(0);
        world.start(0);
    }
    world.run((begun + LENGTH + 2 * CHECK).saturating_duration_since(world.now), None);
    let kms = world.status(0).kms.expect("it has a key");
    assert!(kms.cut && world.hosts[0].kernel.state.sas.is_empty());
}

/// Rows say what is so now, and not why they were cut off.
#[test]
fn rows_follow_what_the_kms_says_and_say_when_nobody_asks_any_more() {
    let mut world = leased(9);
    world.kms(0, Err(Refusal::PendingDeletion(None)));
    world.run(3 * CHECK, None);
    let code = |world: &mut World| world.status(0).peers.remove(0).reason_code;
    assert_eq!(code(&mut world), Some(ReasonCode::KeyPendingDeletion));
    world.kms(0, Err(Refusal::Disabled));
    world.run(2 * CHECK, None);
    assert_eq!(code(&mut world), Some(ReasonCode::KeyRevoked));
    world.kms(0, Err(Refusal::Unavailable));
    world.run(2 * CHECK, None);
    let kms = world.status(0).kms.expect("it has a key");
    assert_eq!((kms.state, kms.why, kms.given_up), (KeyStanding::Disabled, None, false));

    world.run(24 * LENGTH, None);
    let status = world.status(0);
    assert!(status.kms.as_ref().is_some_and(|kms| kms.given_up));
    assert!(status.peers[0].reason.as_ref().is_some_and(|words| words.contains("Nobody asks")), "{status:?}");
    world.kms(0, Ok(()));
    world.run(CHECK, None);
    assert!(!world.all_protected());
    world.reconfigure(0, |_| {});
    assert!(world.run_until(2 * CHECK, World::all_protected));
}

#[test]
fn a_trial_that_ends_before_the_key_can_be_used_is_over() {
    let mut world = World::new(2, 6, Weather::FAIR);
    for at in 0..2 {
        world.kms(at, Ok(()));
        world.enable_with(at, false, Some(world.now + CHECK));
    }
    assert!(world.run_until(30 * SECOND, World::all_protected));
    for at in 0..2 {
        world.kill(at);
        world.kms(at, Err(Refusal::Unavailable));
        world.start(at);
    }
    world.run(2 * CHECK, None);
    (0..2).for_each(|at| world.kms(at, Ok(())));
    let are_off = |world: &World| world.hosts.iter().all(|host| host.kernel.state.policies.is_empty());
    assert!(world.run_until(2 * CHECK, are_off));
}

/// A live host moves from a file to a key.
#[test]
fn a_secret_in_a_file_is_wrapped_without_a_lost_packet() {
    let mut world = World::new(2, 3, Weather::FAIR);
    world.rekey_after(Duration::from_secs(600));
    (0..2).for_each(|at| world.enable(at));
    assert!(world.run_until(30 * SECOND, World::all_protected));
    world.run(3 * SECOND, None);
    assert!(
        world.status(0).kms.is_none() && world.hard_seconds(0).iter().all(|hard| *hard > LENGTH.as_secs())
    );
    (0..2).for_each(|at| world.reconfigure(at, |file| file.kms = Some(Ok(()))));
    world.run(30 * SECOND, Some((10 * MILLISECOND, &WAYS)));
    assert!(world.all_protected() && world.all_single());
    assert!(
        world.hard_seconds(0).iter().all(|hard| *hard <= LENGTH.as_secs()),
        "{:?}",
        world.hard_seconds(0)
    );
    assert_eq!((world.total().lost, world.total().clear), (0, 0));
}

impl World {
    /// What is on record on a host: what happened, what the KMS said, and how many SAs went.
    pub(super) fn record(&self, at: usize) -> Vec<(String, Option<String>, Option<u64>)> {
        let lines = self.hosts[at].disk.audit.iter();
        let read = |line: &String| serde_json::from_str::<AuditEvent>(line).expect("it is a line");
        lines.map(read).map(|it| (format!("{:?}", it.event), it.answer, it.sas_cut)).collect()
    }
}

/// Each use, each refusal, and what follows, in order; and nothing of it twice.
#[test]
fn what_is_done_with_the_key_is_on_record() {
    let mut world = leased(10);
    world.kms(0, Err(Refusal::Denied));
    assert!(world.run_until(3 * CHECK, |world| world.hosts[0].kernel.state.sas.is_empty()));
    world.kms(0, Ok(()));
    assert!(world.run_until(3 * CHECK, World::all_protected));
    world.kill(0);
    world.start(0);
    world.run(5 * SECOND, None);
    let mut record = world.record(0);
    let is_use = |it: &(String, Option<String>, Option<u64>)| it.0 == "Use";
    assert!(record.iter().filter(|it| is_use(it)).all(|it| it.1.as_deref() == Some("valid")));
    record.dedup_by(|one, other| one.0 == other.0 && one.1 == other.1);
    let kinds: Vec<&str> = record.iter().map(|it| it.0.as_str()).collect();
    assert_eq!(kinds, ["Start", "Use", "Refusal", "Cut", "Use", "Restore", "Start", "Use"], "{record:?}");
    let (_, answer, sas_cut) = &record[3];
    assert!(answer.as_deref() == Some("denied") && sas_cut.is_some_and(|count| count >= 2), "{record:?}");
    let kms = world.status(0).kms.expect("it has a key");
    assert_eq!(kms.audit.and_then(|audit| audit.head), Some(world.hosts[0].disk.audit_head));
    assert!(kms.answers.get(&KeyStanding::Valid).is_some_and(|count| *count > 0));
}

/// A disk that takes nothing delays nothing; what it did not take is written later, and what cannot wait is counted.
#[test]
fn a_full_disk_leaves_a_gap_that_is_told() {
    let mut world = leased(11);
    let before = world.hosts[0].disk.audit.len();
    world.hosts[0].disk.keeps_no_audit = true;
    world.run(2 * CHECK, None);
    let audit = |world: &mut World| world.status(0).kms.and_then(|kms| kms.audit).expect("it is kept");
    let told = audit(&mut world);
    assert!(told.unwritten > 0 && told.lost == 0 && told.trouble.is_some(), "{told:?}");
    let codes: Vec<ProblemCode> = world.status(0).problems.iter().map(|problem| problem.code).collect();
    assert!(codes.contains(&ProblemCode::AuditNotWritten) && world.all_protected(), "{codes:?}");
    world.run(80 * CHECK, None);
    assert!(audit(&mut world).lost > 0);
    world.hosts[0].disk.keeps_no_audit = false;
    world.run(2 * CHECK, None);
    let told = audit(&mut world);
    assert_eq!((told.unwritten, told.trouble), (0, None));
    let first = &world.hosts[0].disk.audit[before];
    assert!(first.contains(&format!("\"missing\":{}", told.lost)), "{first}");
}

/// Whoever takes the key out of the file, or names another, is on record.
#[test]
fn other_rules_are_on_record() {
    let mut world = World::new(2, 12, Weather::FAIR);
    world.enable(0);
    world.run(SECOND, None);
    assert!(world.record(0).is_empty(), "no key wraps its secret");
    world.reconfigure(0, |file| file.kms = Some(Ok(())));
    world.run(SECOND, None);
    world.reconfigure(0, |file| file.kms = None);
    world.run(SECOND, None);
    let kinds: Vec<String> = world.record(0).into_iter().map(|it| it.0).collect();
    assert_eq!((kinds.first(), kinds.last()), (Some(&"Configured".to_owned()), Some(&"Released".to_owned())));
}
