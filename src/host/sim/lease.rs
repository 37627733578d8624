//! A key of somebody else wraps the secret of hosts.

use std::time::Duration;

use hostseal_kms_protocol::Refusal;

use super::cluster::{MILLISECOND, SECOND};
use super::net::Weather;
use super::world::World;
use crate::config::KmsRules;
use crate::control::Reply;
use crate::host::Host as Agent;
use crate::host::unwrap::Unwrapped;
use crate::observe::kms::KeyStanding;
use crate::types::{Method, Protection, ReasonCode, RowState};

const WAYS: [(usize, usize); 2] = [(0, 1), (1, 0)];
const CHECK: Duration = Duration::from_secs(60);
const LENGTH: Duration = Duration::from_secs(3600);

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

impl World {
    /// The KMS answers what the agent of a host asks. Says whether it has asked.
    pub(super) fn unwrap(&mut self, at: usize) -> bool {
        let (moment, mut asked) = (self.moment(), false);
        while let Some(ask) = self.hosts[at].agent.as_mut().and_then(Agent::poll_unwrap) {
            let answer = self.hosts[at].file.kms.clone().unwrap_or(Err(Refusal::Unavailable));
            let secrets = answer.map(|()| self.secrets(at));
            let unwrapped = Unwrapped { ask, secrets, why: None, request_id: Some("r".to_owned()) };
            let host = &mut self.hosts[at];
            let agent = host.agent.as_mut().expect("it asks");
            agent.handle_unwrapped(moment, &mut host.kernel, unwrapped);
            asked = true;
        }
        asked
    }

    fn kms(&mut self, at: usize, answer: Result<(), Refusal>) {
        self.hosts[at].file.kms = Some(answer);
    }

    fn hard_seconds(&self, at: usize) -> Vec<u64> {
        let sas = self.hosts[at].kernel.state.sas.values();
        sas.map(|sa| sa.hard_seconds.expect("it ends")).collect()
    }
}

/// Two hosts whose secret a key wraps, protected.
fn leased(seed: u64) -> World {
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

/// A PPK that comes from the wrapped secret goes and comes with it.
#[test]
fn hosts_whose_ppk_is_gone_are_cut_and_have_it_again_by_themselves() {
    let mut world = World::new(2, 3, Weather::FAIR);
    world.rekey_after(Duration::from_secs(600));
    for at in 0..2 {
        let file = &mut world.hosts[at].file;
        (file.method, file.accept, file.ppks) = (Method::Ike, vec![Method::Ike], vec![("one", 1)]);
        world.kms(at, Ok(()));
        world.enable(at);
    }
    assert!(world.run_until(30 * SECOND, |world| world.all_have_ppk("one")));
    world.run(3 * SECOND, None);
    let clear = world.total().clear;
    (0..2).for_each(|at| world.kms(at, Err(Refusal::Disabled)));
    let cut = |world: &World| world.hosts.iter().all(|host| host.kernel.state.sas.is_empty());
    assert!(world.run_until(2 * CHECK + 60 * SECOND, cut));
    world.run(3 * SECOND, Some((10 * MILLISECOND, &WAYS)));
    assert_eq!(world.total().clear, clear, "nothing goes out in the clear");
    (0..2).for_each(|at| world.kms(at, Ok(())));
    assert!(world.run_until(2 * CHECK + 60 * SECOND, |world| world.all_have_ppk("one")));
}

/// `enable` starts the agent, and gives its order before the KMS has answered.
#[test]
fn an_order_waits_for_the_first_answer() {
    let mut world = leased(1);
    assert_eq!(world.status(0).kms.map(|kms| (kms.state, kms.cut)), Some((KeyStanding::Valid, false)));
    let mut denied = World::new(2, 1, Weather::FAIR);
    denied.kms(0, Err(Refusal::Denied));
    denied.enable(0);
    denied.run(SECOND, None);
    let refused = denied.hosts[0].replies.iter().find_map(|(_, reply, _)| match reply {
        Reply::Error { message, .. } => Some(message.clone()),
        _ => None,
    });
    assert!(refused.is_some_and(|words| words.contains("the KMS does not let this host use the key")));
    assert_eq!(denied.status(0).protection, Protection::Off);
    assert!(denied.hosts[0].kernel.state.policies.is_empty());
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
