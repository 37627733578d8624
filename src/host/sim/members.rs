//! Clusters that have a roster: whole hosts with their control IKE SAs, what their operators order on any of them, and what
//! becomes of it on the others.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::cluster::{MILLISECOND, SECOND};
use super::kernel::Leaves;
use super::lease::opened;
use super::net::Weather;
use super::world::World;
use crate::control::{
    ClusterReply, ClusterRequest, ErrorCode, Reply, Request, SecretLine, SettingsOrder, TokenOrder,
};
use crate::host::ClusterStart;
use crate::host::ledger::Asker;
use crate::host::membership::tests::{cluster, seeds};
use crate::host::setup::{Secrets, Setup};
use crate::identity::Secret;
use crate::observe::cluster::{ClusterStatus, DesiredState, MemberRow, MemberTrouble};
use crate::roster::{EntryId, RecoveryKey, Roster};
use crate::store::{ClusterFiles, ClusterState, NodeKeys, credentials, member_config};
use crate::types::{Protection, RowState, Unready};

/// An Ed25519 key by its seed (RFC 8410 section 7).
pub(super) fn pem(seed: [u8; 32]) -> String {
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend(seed);
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
}

impl World {
    /// Hosts that are members of one cluster. The first one is its admin, and agents run.
    pub(super) fn of_members(hosts: usize, seed: u64, weather: Weather) -> Self {
        let mut world = Self::new(hosts, seed, weather);
        let (roster, _) = cluster(hosts);
        let entries: Vec<Vec<u8>> = roster.in_order().map(|entry| entry.octets().to_vec()).collect();
        let keys = tempfile::tempdir().unwrap();
        for at in 0..hosts {
            let directory = keys.path().join(format!("{at}/cluster"));
            fs::create_dir_all(&directory).unwrap();
            for (file, seed) in ["signing.key", "ike.key"].into_iter().zip(seeds(at)) {
                let file = directory.join(file);
                fs::write(&file, pem(seed)).unwrap();
                fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            }
            world.hosts[at].disk.roster.clone_from(&entries);
            let files = ClusterFiles::of(&keys.path().join(at.to_string()));
            world.hosts[at].disk.keys = Some((files, at as u8));
        }
        world.keys = Some(keys);
        (0..hosts).for_each(|at| world.start(at));
        world
    }

    fn state_dir(&self, at: usize) -> Option<PathBuf> {
        Some(self.keys.as_ref()?.path().join(at.to_string()))
    }

    /// The keys of a member, and those that are to follow.
    fn node_keys(&self, at: usize) -> Option<(NodeKeys, Option<NodeKeys>)> {
        let (files, _) = self.hosts[at].disk.keys.as_ref()?;
        Some(files.load_all_keys().expect("they are there"))
    }

    /// What a member has on its disk.
    fn kept(&self, at: usize) -> Option<ClusterState> {
        let (keys, next) = self.node_keys(at)?;
        let entries = &self.hosts[at].disk.roster;
        let mut roster = Roster::found(&entries[0]).expect("it founds a cluster");
        roster.merge(entries[1..].iter().map(Vec::as_slice));
        let signer = crate::roster::Signer::of(&keys.signing).expect("it is of that kind");
        let own = roster.line_of(&signer).expect("it has joined");
        Some(ClusterState { roster, own, keys, next })
    }

    pub(super) fn member_start(&self, at: usize) -> Option<ClusterStart> {
        let ids = [at as u8; 16];
        Some(ClusterStart { state: self.kept(at)?, machine: ids, boot: ids })
    }

    pub(super) fn member_setup(&self, at: usize) -> Option<Setup> {
        let local = format!("state_dir = {:?}\n", self.state_dir(at)?.display().to_string());
        let agent = self.hosts[at].agent.as_ref();
        let config = match agent.and_then(|agent| Some((agent.roster()?, agent.tried_settings()))) {
            Some(((roster, own), tried)) => member_config(roster, own, tried, (&local, "file")),
            None => self.kept(at)?.config(&local, "file"),
        };
        let config = config.expect("it is a configuration");
        let node = config.node_named(config.node.as_ref()?.as_str())?.clone();
        Some(Setup::new(config, node))
    }

    pub(super) fn member_secrets(&self, at: usize) -> Option<Secrets> {
        let Setup { config, node, .. } = self.member_setup(at)?;
        let wrapped = config.secret.wrapped.as_ref();
        let root = wrapped.map(|it| opened(None, &it.key, it).expect("its key has wrapped it"));
        let root = root.map(|secret| Arc::new(Secret::new(secret)));
        let credentials = credentials::load_with(&config, &node, root.as_deref()).expect("its key is there");
        Some(match root {
            Some(root) => Secrets::of_root(root, false, credentials),
            None => Secrets::new(None, None, credentials),
        })
    }

    /// Orders something about the cluster on a host, and waits for the answer.
    pub(super) fn order(&mut self, at: usize, request: ClusterRequest) -> Result<ClusterReply, String> {
        let asker = self.ask(at, Request::Cluster(request));
        self.answer(at, asker)
    }

    /// Waits for the answer to what was asked.
    pub(super) fn answer(&mut self, at: usize, asker: Asker) -> Result<ClusterReply, String> {
        let told = move |world: &World| world.hosts[at].replies.iter().any(|(to, ..)| *to == asker);
        assert!(self.run_until(10 * SECOND, told));
        let reply = self.hosts[at].replies.iter().find(|(to, ..)| *to == asker).map(|(_, reply, _)| reply);
        match reply {
            Some(Reply::Cluster(reply)) => Ok(reply.clone()),
            Some(Reply::Error { code: ErrorCode::Cluster, message }) => Err(message.clone()),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn cluster_status(&mut self, at: usize) -> ClusterStatus {
        match self.order(at, ClusterRequest::Status) {
            Ok(ClusterReply::Status(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn line(&self, at: usize) -> EntryId {
        self.kept(at).expect("it is a member").own
    }

    pub(super) fn is_one_roster(&self) -> bool {
        let id = |at: usize| self.hosts[at].agent.as_ref().and_then(|agent| Some(agent.roster()?.0.id()));
        (0..self.hosts.len()).all(|at| id(at) == id(0))
    }

    /// The same without one of them.
    fn is_one_roster_but(&self, out: usize) -> bool {
        let id = |at: usize| self.hosts[at].agent.as_ref().and_then(|agent| Some(agent.roster()?.0.id()));
        (0..self.hosts.len()).filter(|at| *at != out).all(|at| id(at) == id(usize::from(out == 0)))
    }

    pub(super) fn all_are(&self, protection: Protection) -> bool {
        self.hosts.iter().filter_map(|host| host.agent.as_ref()).all(|agent| agent.protection == protection)
    }

    /// All members talk to all others, and have heard what these know.
    pub(super) fn all_talk(&self) -> bool {
        let others = self.hosts.len() - 1;
        let talks = |host: &super::world::Host| {
            let members = host.core().and_then(|core| core.membership());
            members.is_some_and(|it| it.reached().count() == others && it.is_up_to_date())
        };
        self.hosts.iter().all(|host| host.agent.is_none() || talks(host))
    }
}

/// Members that talk to each other.
pub(super) fn talking(hosts: usize, seed: u64) -> World {
    let mut world = World::of_members(hosts, seed, Weather::FAIR);
    assert!(world.run_until(10 * SECOND, World::all_talk));
    world
}

/// The same, protected by one order.
pub(super) fn protected(hosts: usize, seed: u64) -> World {
    let mut world = talking(hosts, seed);
    world.order(seed as usize % hosts, ClusterRequest::Enable { try_s: None }).unwrap();
    assert!(world.run_until(20 * SECOND, World::all_protected));
    world.run(3 * SECOND, None);
    world
}

pub(super) fn row(status: &ClusterStatus, at: usize) -> &MemberRow {
    status.nodes.iter().find(|row| row.name.as_str() == format!("n{at}")).unwrap()
}

#[test]
fn one_order_on_any_node_protects_all_and_one_of_an_admin_opens_all_without_a_loss() {
    for seed in 0..4 {
        let mut world = talking(5, seed);
        let ways = world.ways();
        let any = seed as usize % 5;
        assert_eq!(world.cluster_status(any).desired, DesiredState::Unset);
        world.order(any, ClusterRequest::Enable { try_s: None }).unwrap();
        world.run(5 * SECOND, Some((20 * MILLISECOND, &ways)));
        assert!(world.run_until(20 * SECOND, World::all_protected) && world.is_one_roster());
        world.run(3 * SECOND, Some((20 * MILLISECOND, &ways)));
        let (lost, clear) = (world.total().lost, world.total().clear);
        assert_eq!(lost, 0, "{seed}");
        world.run(3 * SECOND, Some((20 * MILLISECOND, &ways)));
        assert_eq!(world.total().clear, clear);
        let status = world.cluster_status(any);
        assert_eq!(
            (status.desired, status.consistent, status.is_healthy()),
            (DesiredState::On, true, true),
            "{status:?}"
        );
        assert_eq!((status.summary.nodes, status.summary.answering), (5, 5));
        assert_eq!((status.summary.rows, status.summary.protected), (20, 20));
        let refused = world.order(1 + seed as usize % 4, ClusterRequest::Disable).unwrap_err();
        assert!(refused.contains("the admins are n0"), "{refused}");
        world.order(0, ClusterRequest::Disable).unwrap();
        world.run(5 * SECOND, Some((20 * MILLISECOND, &ways)));
        assert!(world.run_until(20 * SECOND, |world| world.all_are(Protection::Off)));
        world.run(SECOND, Some((20 * MILLISECOND, &ways)));
        assert_eq!((world.total().lost, world.total().leaked), (0, 0), "{seed}");
        assert!(world.hosts.iter().all(|host| host.kernel.state.sas.is_empty()));
        // And again.
        world.order(2, ClusterRequest::Enable { try_s: None }).unwrap();
        world.run(5 * SECOND, Some((20 * MILLISECOND, &ways)));
        assert!(world.run_until(20 * SECOND, World::all_protected));
        assert_eq!(world.total().lost, 0, "{seed}");
    }
}

#[test]
fn who_was_away_catches_up_by_itself_and_is_closed_until_then() {
    for seed in 0..4 {
        let mut world = talking(4, seed);
        world.kill(3);
        world.order(1, ClusterRequest::Enable { try_s: None }).unwrap();
        world.run(5 * SECOND, None);
        assert_eq!(row(&world.cluster_status(1), 3).reason_code, Some(MemberTrouble::NoAnswer));
        world.start(3);
        assert!(world.run_until(60 * SECOND, World::all_protected), "{seed}");
        world.run(3 * SECOND, None);
        // It is off while all others are told to open.
        world.kill(2);
        world.order(0, ClusterRequest::Disable).unwrap();
        world.run(20 * SECOND, None);
        world.reboot(2);
        world.guard(2);
        world.start(2);
        world.run_until(SECOND / 10, |_| false);
        let clear = world.total().clear;
        world.send_data(2, 0);
        world.run(10 * MILLISECOND, None);
        assert_eq!(world.total().clear, clear, "it does not know yet");
        assert!(world.run_until(120 * SECOND, |world| world.all_are(Protection::Off)), "{seed}");
        assert!(world.hosts.iter().all(|host| host.disk.saved.protection == Protection::Off));
    }
}

#[test]
fn a_trial_of_the_cluster_goes_back_everywhere_also_where_its_node_is_dead_and_stays_where_it_is_confirmed() {
    for seed in 0..4 {
        let mut world = talking(4, seed);
        world.order(1, ClusterRequest::Enable { try_s: Some(10) }).unwrap();
        assert!(world.run_until(8 * SECOND, World::all_protected));
        assert!(world.cluster_status(2).try_ends_in_s.is_some_and(|left| left <= 10));
        let confirms = seed % 2 == 1;
        if confirms {
            world.order(3, ClusterRequest::Confirm).unwrap();
        } else {
            world.kill(1);
        }
        world.run(40 * SECOND, None);
        let wanted = if confirms { Protection::On } else { Protection::Off };
        assert!(world.all_are(wanted), "{seed}");
        let status = world.cluster_status(2);
        let desired = if confirms { DesiredState::On } else { DesiredState::Off };
        assert_eq!((status.desired, status.try_ends_in_s), (desired, None));
        assert!(row(&status, 3).reason_code.is_none(), "{status:?}");
        assert!(world.order(2, ClusterRequest::Confirm).unwrap_err().contains("no trial"));
        assert!(world.all_are(wanted));
        if !confirms {
            // One that is over is in nobody's way.
            world.order(2, ClusterRequest::Enable { try_s: Some(20) }).unwrap();
        }
    }
}

/// Who was away takes what is left of a trial, and nothing of one that is over.
#[test]
fn a_trial_is_over_everywhere_at_the_same_time() {
    for (seed, away) in [(0, 5), (1, 30)] {
        let mut world = talking(4, seed);
        world.kill(3);
        world.order(1, ClusterRequest::Enable { try_s: Some(20) }).unwrap();
        world.run(away * SECOND, None);
        world.start(3);
        let tries = world.run_until(10 * SECOND, |world| world.hosts[3].is_at_work());
        assert_eq!(tries, away < 20, "{seed}");
        world.run((25 - away.min(15)) * SECOND, None);
        assert!(world.all_are(Protection::Off), "{seed}");
        let status = world.cluster_status(3);
        assert_eq!((status.desired, status.is_healthy()), (DesiredState::Off, true), "{status:?}");
    }
}

/// Who was away while all opened, and while a trial came and went, opens with them.
#[test]
fn who_missed_an_order_and_a_trial_after_it_follows_the_order() {
    let mut world = protected(4, 1);
    world.kill(3);
    world.order(0, ClusterRequest::Disable).unwrap();
    assert!(world.run_until(30 * SECOND, |world| (0..3).all(|at| !world.hosts[at].is_at_work())));
    world.order(0, ClusterRequest::Enable { try_s: Some(5) }).unwrap();
    world.run(30 * SECOND, None);
    world.start(3);
    assert!(world.run_until(120 * SECOND, |world| world.all_are(Protection::Off)));
    assert!(world.cluster_status(0).is_healthy());
}

/// A node that its operator has protected before tries nothing, and wants nothing else meanwhile.
#[test]
fn a_trial_where_one_is_protected_already_ends_as_it_began() {
    let mut world = talking(3, 1);
    world.enable(2);
    world.run(3 * SECOND, None);
    world.order(0, ClusterRequest::Enable { try_s: Some(20) }).unwrap();
    assert!(world.run_until(15 * SECOND, World::all_protected));
    let status = world.cluster_status(0);
    assert_eq!((row(&status, 2).local, status.desired), (None, DesiredState::On), "{status:?}");
    world.order(2, ClusterRequest::Confirm).unwrap();
    world.run(30 * SECOND, None);
    assert!(world.all_protected());
}

#[test]
fn what_an_operator_wants_on_one_host_counts_there_and_is_shown_until_the_cluster_is_to_do_something_else() {
    let mut world = protected(3, 1);
    world.ask(2, Request::Disable);
    world.run(5 * SECOND, None);
    let status = world.cluster_status(0);
    let overridden = row(&status, 2);
    assert_eq!(
        (overridden.local, overridden.reason_code),
        (Some(Protection::Off), Some(MemberTrouble::Overridden))
    );
    assert!(!status.is_healthy());
    world.stop(2);
    world.start(2);
    world.run(20 * SECOND, None);
    assert!(!world.hosts[2].is_at_work(), "it lasts");
    world.order(0, ClusterRequest::Enable { try_s: None }).unwrap();
    assert!(world.run_until(60 * SECOND, World::all_protected));
    assert!(world.run_until(10 * SECOND, |world| world.is_one_roster()));
    assert!(world.cluster_status(2).is_healthy());
}

#[test]
fn what_was_ordered_on_two_sides_of_a_partition_comes_to_one_roster_and_the_lost_order_is_shown() {
    for seed in 0..4 {
        let mut world = protected(5, seed);
        let sides: Vec<(usize, usize)> = (0..3).flat_map(|one| [(one, 3), (one, 4)]).collect();
        sides.iter().for_each(|(one, other)| world.cut(*one, *other));
        world
            .order(0, ClusterRequest::SetSettings(SettingsOrder::of("[esp]\nreplay_window = 128\n")))
            .unwrap();
        world.order(0, ClusterRequest::Disable).unwrap();
        world.order(4, ClusterRequest::Enable { try_s: None }).unwrap();
        world.run(60 * SECOND, None);
        assert!((0..3).all(|at| !world.hosts[at].is_at_work()) && world.hosts[4].is_at_work());
        assert!(!world.is_one_roster());
        // Nothing between the sides was opened by one of them alone.
        let clear = world.total().clear;
        world.send_data(4, 0);
        world.run(10 * MILLISECOND, None);
        assert_eq!(world.total().clear, clear);
        sides.iter().for_each(|(one, other)| world.mend(*one, *other));
        assert!(world.run_until(120 * SECOND, World::is_one_roster), "{seed}");
        assert!(
            world.run_until(120 * SECOND, |world| world.all_are(Protection::Off)),
            "an admin's order counts"
        );
        let status = world.cluster_status(4);
        assert_eq!(
            (status.desired, status.consistent, status.conflicts.len()),
            (DesiredState::Off, false, 1)
        );
        let conflict = &status.conflicts[0];
        assert_eq!((conflict.winner.as_str(), conflict.loser.as_str()), ("n0", "n4"), "{conflict:?}");
        world.order(0, ClusterRequest::Enable { try_s: None }).unwrap();
        assert!(world.run_until(60 * SECOND, World::all_protected));
        assert!(world.cluster_status(4).conflicts.is_empty());
    }
}

#[test]
fn a_removed_node_goes_to_the_clear_without_a_loss_and_the_others_do_not_notice() {
    for seed in 0..4 {
        let mut world = protected(4, seed);
        let ways = world.ways();
        let node = "n3".parse().unwrap();
        world.order(0, ClusterRequest::Remove { node, address: None, compromised: false }).unwrap();
        world.run(2 * SECOND, Some((20 * MILLISECOND, &ways)));
        let left = |world: &World, at: usize| {
            let pair = world.pair(at, 3);
            world.hosts[at].kernel.state.sas.values().filter(|sa| sa.is_between(pair)).count()
        };
        assert!(world.run_until(10 * SECOND, |world| (0..3).all(|at| left(world, at) == 0)), "{seed}");
        assert!(world.run_until(20 * SECOND, |world| !world.hosts[3].is_at_work()));
        world.run(SECOND, Some((20 * MILLISECOND, &ways)));
        assert_eq!((world.total().lost, world.total().leaked), (0, 0), "{seed}");
        let among = [(0, 1), (1, 2), (2, 0)];
        assert!(among.iter().all(|(from, to)| world.state(*from, *to) == RowState::Protected));
        let status = world.cluster_status(1);
        assert!(status.is_healthy() && status.nodes.len() == 3, "{status:?}");
        assert_eq!(world.cluster_status(3).node, None);
        // It cannot come back.
        world.stop(3);
        world.start(3);
        world.run(60 * SECOND, None);
        assert!((0..3).all(|at| left(&world, at) == 0));
        // Its keys turn out to be in other hands.
        let remove =
            |compromised| ClusterRequest::Remove { node: "n3".parse().unwrap(), address: None, compromised };
        let refused = world.order(0, remove(false)).unwrap_err();
        assert!(refused.contains("hostseal remove n3 --compromised"), "{refused}");
        world.order(0, remove(true)).unwrap();
        let is_blocked = |world: &World, at: usize| {
            let (kernel, pair) = (&world.hosts[at].kernel, world.pair(at, 3));
            kernel.leaves(pair) == Leaves::Dropped && !kernel.accepts_clear(pair)
        };
        assert!(world.run_until(10 * SECOND, |world| (0..3).all(|at| is_blocked(world, at))), "{seed}");
        for compromised in [true, false] {
            let refused = world.order(0, remove(compromised)).unwrap_err();
            assert_eq!(refused, "n3 is removed as compromised already");
        }
    }
}

/// `enable --cluster` asks that first.
#[test]
fn a_node_that_could_not_be_protected_says_why() {
    let mut world = talking(3, 0);
    assert!(world.cluster_status(0).nodes.iter().all(|node| node.unready.is_none()));
    world.hosts[2].kernel.lacks = Some(Unready::NoEsp);
    world.run(3 * SECOND, None);
    for asked in [0, 2] {
        let status = world.cluster_status(asked);
        assert_eq!(row(&status, 2).unready_code, Some(Unready::NoEsp));
        let words = row(&status, 2).unready.as_deref().unwrap_or_default();
        assert!(words.contains("module esp4") && words.contains("hostseal doctor"), "{status:?}");
        assert_eq!(row(&status, 2).reason_code, Some(MemberTrouble::Problems));
        assert!((0..2).all(|at| row(&status, at).unready.is_none()));
    }
    // Its modules are not looked for each time.
    world.hosts[2].kernel.lacks = None;
    world.run(3 * SECOND, None);
    assert!(row(&world.cluster_status(0), 2).unready.is_some());
    world.run(15 * SECOND, None);
    assert_eq!(row(&world.cluster_status(0), 2).unready, None);
}

#[test]
fn a_compromised_node_is_told_nothing_and_blocked_until_all_is_open() {
    for seed in 0..4 {
        let mut world = protected(4, seed);
        let node = "n3".parse().unwrap();
        world.order(0, ClusterRequest::Remove { node, address: None, compromised: true }).unwrap();
        world.run(2 * SECOND, None);
        for at in 0..3 {
            let (kernel, pair) = (&world.hosts[at].kernel, world.pair(at, 3));
            assert!(!kernel.state.sas.values().any(|sa| sa.is_between(pair)), "{seed}");
            assert_eq!(kernel.leaves(pair), Leaves::Dropped);
            assert!(!kernel.accepts_clear(pair));
        }
        let knows = world.hosts[3].agent.as_ref().unwrap().roster().unwrap().0.view().removed.len();
        assert_eq!(knows, 0, "it is told nothing");
        // What it has, it can try: nobody answers, also after a start of everything.
        world.reboot(1);
        world.guard(1);
        assert_eq!(world.hosts[1].kernel.leaves(world.pair(1, 3)), Leaves::Dropped);
        world.start(1);
        world.stop(3);
        world.start(3);
        world.run(100 * SECOND, None);
        let status = world.cluster_status(1);
        assert!(status.is_healthy() && status.nodes.len() == 3, "{status:?}");
        assert_eq!(world.hosts[2].kernel.leaves(world.pair(2, 3)), Leaves::Dropped);
        world.order(0, ClusterRequest::Disable).unwrap();
        let is_off = |host: &super::world::Host| host.agent.as_ref().unwrap().protection == Protection::Off;
        assert!(world.run_until(60 * SECOND, |world| world.hosts[..3].iter().all(is_off)));
        assert!((0..3).all(|at| world.hosts[at].kernel.leaves(world.pair(at, 3)) == Leaves::Clear));
    }
}

#[test]
fn settings_are_the_same_everywhere_and_wrong_ones_change_nothing() {
    let mut world = protected(3, 0);
    let settings = "[keying]\nrekey_after = \"2h\"\n";
    let set = |settings: &str| ClusterRequest::SetSettings(SettingsOrder::of(settings));
    let refused = world.order(0, set("[keying]\nrekey_after = \"2\"\n"));
    assert!(refused.unwrap_err().contains("rekey_after"));
    assert!(world.order(1, set(settings)).unwrap_err().contains("admin"));
    world.order(0, set(settings)).unwrap();
    let hours = |world: &World| {
        let of = |host: &super::world::Host| host.agent.as_ref().unwrap().setup().config.keying.rekey_after;
        world.hosts.iter().all(|host| of(host) == Duration::from_secs(7200))
    };
    assert!(world.run_until(5 * SECOND, hours));
    assert_eq!(world.toml(2), settings);
    assert!(world.all_protected() && world.cluster_status(2).is_healthy());
}

#[test]
fn an_order_is_on_the_disk_before_anybody_hears_of_it() {
    let mut world = talking(3, 0);
    world.hosts[1].disk.delay = 2 * SECOND;
    let asker = world.ask(1, Request::Cluster(ClusterRequest::Enable { try_s: None }));
    world.run(SECOND, None);
    assert!(world.all_are(Protection::Off) && world.hosts[1].replies.iter().all(|(to, ..)| *to != asker));
    world.kill(1);
    world.start(1);
    world.run(30 * SECOND, None);
    assert!(
        world.all_are(Protection::Off) && world.is_one_roster(),
        "it was not written, so it was not said"
    );
}

/// The roster is being written, as another member has said something: that write does not have the order.
#[test]
fn an_order_waits_for_the_write_that_has_it() {
    let mut world = talking(3, 0);
    world.hosts[1].disk.delay = 2 * SECOND;
    let settings = SettingsOrder::of("[keying]\nrekey_after = \"2h\"\n");
    world.order(0, ClusterRequest::SetSettings(settings)).unwrap();
    assert!(world.run_until(SECOND, World::is_one_roster));
    let asker = world.ask(1, Request::Cluster(ClusterRequest::Enable { try_s: None }));
    let told = move |world: &World| world.hosts[1].replies.iter().any(|(to, ..)| *to == asker);
    assert!(world.run_until(60 * SECOND, told));
    assert!(world.kept(1).unwrap().roster.view().desired.is_some(), "it was told before it was written");
}

/// It may have been restored from a backup, and what it would sign could be old.
#[test]
fn a_node_that_has_heard_no_other_since_its_start_signs_nothing_unless_it_is_told_to() {
    let mut world = talking(3, 1);
    (0..3).for_each(|at| world.kill(at));
    world.start(0);
    world.run(5 * SECOND, None);
    let refused = world.order(0, ClusterRequest::Enable { try_s: None }).unwrap_err();
    assert!(refused.contains("has heard no other member") && refused.contains("--alone"), "{refused}");
    world.order(0, ClusterRequest::Alone(Box::new(ClusterRequest::Disable))).unwrap();
    world.start(1);
    assert!(world.run_until(60 * SECOND, |world| {
        world.hosts[1].agent.as_ref().unwrap().roster().unwrap().0.view().desired.is_some()
    }));
    world.order(0, ClusterRequest::Enable { try_s: None }).unwrap();
}

#[test]
fn tokens_are_made_by_admins_for_names_that_are_free() {
    let mut world = talking(3, 0);
    let order = |node: Option<&str>| TokenOrder {
        node: node.map(|name| name.parse().unwrap()),
        admin: false,
        ttl_s: 3600,
        within: Vec::new(),
    };
    let Ok(ClusterReply::Token { token, .. }) =
        world.order(0, ClusterRequest::CreateToken(order(Some("new"))))
    else {
        panic!("no token")
    };
    let token = crate::roster::Token::from_line(&token.0).unwrap();
    assert_eq!((token.cluster.as_str(), token.name.unwrap().as_str()), ("prod", "new"));
    assert_eq!(token.seeds[0].ip(), world.hosts[0].address);
    let refused =
        |world: &mut World, at, node| world.order(at, ClusterRequest::CreateToken(order(node))).unwrap_err();
    assert!(refused(&mut world, 0, Some("n1")).contains("there is a node n1 already"));
    assert!(refused(&mut world, 1, None).contains("only an admin"));
    let within = TokenOrder { within: vec!["10.0.0.0/33".to_owned()], ..order(None) };
    assert!(world.order(0, ClusterRequest::CreateToken(within)).unwrap_err().contains("10.0.0.0/33"));
}

/// All admins are lost.
#[test]
fn the_recovery_key_makes_admins_and_takes_nodes_out_from_any_node() {
    let mut world = talking(3, 0);
    world.kill(0);
    let [n0, n2] = ["n0", "n2"].map(|name| name.parse().unwrap());
    let key = |seed| SecretLine(RecoveryKey::new([seed; 32]).to_line().to_string());
    let by = |seed, order| ClusterRequest::Recovered { key: key(seed), order: Box::new(order) };
    let admin = ClusterRequest::Admin { node: n2, admin: true };
    assert!(
        world.order(1, by(98, admin.clone())).unwrap_err().contains("not the recovery key of this cluster")
    );
    assert!(world.order(1, by(99, ClusterRequest::Disable)).unwrap_err().contains("only an admin"));
    world.order(1, by(99, admin)).unwrap();
    world.order(1, by(99, ClusterRequest::Remove { node: n0, address: None, compromised: true })).unwrap();
    let gone =
        |world: &World| world.hosts[2].agent.as_ref().unwrap().roster().unwrap().0.view().members.len() == 2;
    assert!(world.run_until(10 * SECOND, gone));
    world.order(2, ClusterRequest::Disable).unwrap();
}

#[test]
fn a_node_that_is_no_member_any_more_says_so() {
    let mut world = talking(3, 2);
    let own = world.line(2);
    world.order(2, ClusterRequest::Leave).unwrap();
    assert!(world.run_until(5 * SECOND, World::is_one_roster));
    assert!(world.hosts[0].agent.as_ref().unwrap().roster().unwrap().0.view().member(own).is_none());
    let status = world.cluster_status(2);
    assert!(!status.is_healthy() && status.problems[0].message.contains("was removed"), "{status:?}");
    assert!(world.order(2, ClusterRequest::Enable { try_s: None }).unwrap_err().contains("no member"));
}

/// More than talk to each other all the time: whoever asks calls the others, and lets go of them.
#[test]
fn with_many_nodes_any_of_them_says_how_all_stand() {
    const NODES: usize = 70;
    let talks_to = |world: &World, at: usize| {
        let members = world.hosts[at].core().and_then(|core| core.membership());
        members.map_or(0, |members| members.reached().count())
    };
    let mut world = World::of_members(NODES, 31, Weather::FAIR);
    let few = |world: &World| (0..NODES).all(|at| (6..=16).contains(&talks_to(world, at)));
    assert!(world.run_until(20 * SECOND, few));
    world.run(5 * SECOND, None);
    for (at, away) in [(3, None), (66, Some(40))] {
        away.into_iter().for_each(|away| world.kill(away));
        let begun = world.now;
        let status = world.cluster_status(at);
        let there = NODES - away.iter().count();
        assert_eq!((status.summary.nodes, status.summary.answering), (NODES, there), "{:?}", status.summary);
        assert!(status.consistent && world.now - begun < 4 * SECOND, "{:?}", world.now - begun);
        let silent = status.nodes.iter().filter(|row| !row.answers).count();
        assert_eq!(silent, away.iter().count());
    }
    // Who asks while others are being called waits for these, too.
    let first = world.ask(50, Request::Cluster(ClusterRequest::Status));
    world.run(200 * MILLISECOND, None);
    assert_eq!(world.cluster_status(50).summary.answering, NODES - 1);
    assert!(world.run_until(3 * SECOND, |world| world.hosts[50].replies.iter().any(|(to, ..)| *to == first)));
    // One that is removed is told by those who talk to it, and nobody calls it for that.
    let status = world.cluster_status(0);
    let name = status.nodes.iter().find(|row| row.addresses == [super::world::address(20)]);
    let remove = ClusterRequest::Remove {
        node: name.expect("it is listed").name.clone(),
        compromised: false,
        address: None,
    };
    assert!(world.order(0, remove).is_ok());
    let begun = world.now;
    assert!(world.run_until(5 * SECOND, |world| talks_to(world, 20) == 0), "{:?}", world.now - begun);
    // Nobody is called any more after a while.
    assert!(world.run_until(90 * SECOND, |world| [3, 66, 20].iter().all(|at| talks_to(world, *at) <= 16)));
    assert!(world.is_one_roster_but(40));
}
