//! What was told is what comes back: any sequence of orders, questions, deaths before and after each write, reboots,
//! changed files, slow disks and full ones, on two hosts. A model that knows nothing of how it is done looks at the disk
//! whenever somebody is told something, and at what comes after the next start.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::cluster::{MILLISECOND, SECOND};
use super::kernel::Leaves;
use super::net::Weather;
use super::world::World;
use crate::control::{Reply, Request, Terms};
use crate::host::ledger::Asker;
use crate::store::Saved;
use crate::types::{Pair, Protection, RowState};

/// How long a slow write takes.
const SLOW: Duration = Duration::from_secs(3);
/// Octets for which there is room where there is little: the state of a host that is enabled, and not what is sealed.
const LITTLE: usize = 320;
/// How often a host is looked at while time passes.
const LOOK: Duration = Duration::from_millis(50);

/// What happens on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Enable,
    /// For a minute, unless it is confirmed.
    Try,
    Confirm,
    Disable,
    Status,
    Follow,
    /// The agent dies, and with it what it is writing. Or that had been written, and it did not hear of it.
    Die {
        written: bool,
    },
    /// The same of the host.
    Reboot {
        written: bool,
    },
    /// The other host goes out of the file, or comes back.
    Reload,
    /// The disk is as fast as ever, or slow.
    Disk {
        slow: bool,
    },
    /// There is room for everything, for little, or for nothing.
    Room(Option<usize>),
    /// Time passes on both.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Enable),
        1 => Just(Step::Try),
        1 => Just(Step::Confirm),
        2 => Just(Step::Disable),
        2 => Just(Step::Status),
        4 => Just(Step::Follow),
        2 => any::<bool>().prop_map(|written| Step::Die { written }),
        2 => any::<bool>().prop_map(|written| Step::Reboot { written }),
        1 => Just(Step::Reload),
        1 => any::<bool>().prop_map(|slow| Step::Disk { slow }),
        1 => prop_oneof![Just(None), Just(Some(LITTLE)), Just(Some(0))].prop_map(Step::Room),
        6 => prop_oneof![Just(1), Just(20), Just(200), Just(1_500), Just(5_000)].prop_map(Step::Pass),
    ]
}

/// What a host was told to do, and has told.
#[derive(Debug, Default, Clone)]
struct Told {
    /// What was asked and is not answered, and whether the pair has been sealed since.
    asked: BTreeMap<Asker, (Request, bool)>,
    /// The last order among them.
    last: Option<Asker>,
    /// How many of its answers were looked at.
    seen: usize,
    /// What was promised by the last order that was carried out; `None` where another one has come since.
    protection: Option<Protection>,
    /// That was for good.
    lasting: bool,
    /// Somebody was told that the pair is protected, and it has stayed sealed since.
    sealed: bool,
    /// There is less room than when it was enabled.
    shrunk: bool,
}

struct Story {
    world: World,
    told: [Told; 2],
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut world = World::new(2, seed, Weather::FAIR);
        (0..2).for_each(|at| world.start(at));
        Self { world, told: Default::default() }
    }

    fn pair(&self, at: usize) -> Pair {
        self.world.pair(at, 1 - at)
    }

    fn ask(&mut self, at: usize, request: Request) {
        if self.world.hosts[at].agent.is_none() {
            return;
        }
        let was_off = self.world.hosts[at].disk.saved.protection == Protection::Off;
        let asker = self.world.ask(at, request.clone());
        let told = &mut self.told[at];
        if matches!(request, Request::Enable | Request::EnableWith(_) | Request::Confirm | Request::Disable) {
            // Until it is answered, either is right.
            (told.protection, told.last) = (None, Some(asker));
            told.shrunk &= !was_off;
        }
        let is_sealed = self.world.is_saved_as_sealed(at, 1 - at);
        self.told[at].asked.insert(asker, (request, is_sealed));
        self.look();
    }

    fn take(&mut self, at: usize, step: Step) {
        match step {
            Step::Enable => self.ask(at, Request::Enable),
            Step::Try => self.ask(at, Terms { strict: false, try_s: Some(60) }.into()),
            Step::Confirm => self.ask(at, Request::Confirm),
            Step::Disable => self.ask(at, Request::Disable),
            Step::Status => self.ask(at, Request::Status),
            Step::Follow => self.ask(at, Request::Follow { after: 0, hold_ms: 0 }),
            Step::Die { written } => self.end(at, written, false),
            Step::Reboot { written } => self.end(at, written, true),
            Step::Reload => self.world.reconfigure(at, |file| {
                file.nodes = if file.nodes.len() == 2 { vec![at] } else { vec![0, 1] };
            }),
            Step::Disk { slow } => self.world.hosts[at].disk.delay = if slow { SLOW } else { Duration::ZERO },
            Step::Room(room) => {
                self.world.hosts[at].disk.room = room;
                self.told[at].shrunk |= room.is_some();
            }
            Step::Pass(milliseconds) => {
                let end = self.world.now + Duration::from_millis(milliseconds);
                while self.world.now < end {
                    self.world.run(LOOK.min(end - self.world.now), None);
                    self.look();
                }
            }
        }
        self.look();
    }

    /// What is told is on the disk at that moment, unless nothing can be written there, which `status` says.
    fn look(&mut self) {
        for at in 0..2 {
            let is_sealed = self.world.is_saved_as_sealed(at, 1 - at);
            // The peer may have opened it.
            let is_open = self.world.hosts[at].kernel.leaves(self.pair(at)) == Leaves::Clear;
            self.told[at].sealed &= is_sealed && !is_open;
            self.told[at].asked.values_mut().for_each(|(_, sealed)| *sealed &= is_sealed);
            let replies = self.world.hosts[at].replies[self.told[at].seen..].to_vec();
            for (asker, reply, saved) in replies {
                self.told[at].seen += 1;
                let Some((request, sealed)) = self.told[at].asked.remove(&asker) else { continue };
                self.hear(at, &reply, sealed, &saved);
                if reply == Reply::Done && self.told[at].last == Some(asker) {
                    self.obey(at, &request, &saved);
                }
            }
        }
    }

    /// Somebody got an answer while the disk had `saved`. The pair was `sealed` from the question on.
    fn hear(&mut self, at: usize, reply: &Reply, sealed: bool, saved: &Saved) {
        let (pair, failed) = (self.pair(at), self.world.hosts[at].disk.failed);
        let told = &mut self.told[at];
        let protected = match reply {
            Reply::Status(status) => status.peers.iter().any(|row| row.state == RowState::Protected),
            Reply::Progress(progress) => progress.rows.iter().any(|row| row.state == RowState::Protected),
            _ => false,
        };
        if protected && sealed {
            let is_saved = saved.sealed().contains(&pair);
            // A host that is enabled has room for what it seals; what takes the room from it later is named.
            assert!(is_saved || (failed && told.shrunk), "{at} said that it is protected: {saved:?}");
            told.sealed |= is_saved;
        }
    }

    /// An order, the last of all, was carried out.
    fn obey(&mut self, at: usize, request: &Request, saved: &Saved) {
        let told = &mut self.told[at];
        match request {
            Request::Enable | Request::EnableWith(_) => {
                assert_eq!(saved.protection, Protection::On, "{at} was told that it is enabled");
                assert!(saved.trial.is_some() || *request == Request::Enable, "on trial");
                (told.protection, told.lasting) = (Some(Protection::On), saved.trial.is_none());
            }
            Request::Confirm => {
                assert_eq!((saved.protection, &saved.trial), (Protection::On, &None), "{at} was confirmed");
                (told.protection, told.lasting) = (Some(Protection::On), true);
            }
            Request::Disable => {
                assert_eq!(saved.protection, Protection::Off, "{at} was told that it is disabled");
                (told.protection, told.lasting) = (Some(Protection::Off), true);
            }
            _ => {}
        }
    }

    /// An agent or a host ends, and the next one starts.
    fn end(&mut self, at: usize, written: bool, reboots: bool) {
        self.look();
        if written {
            self.world.hosts[at].disk.finish();
        }
        let told = &mut self.told[at];
        told.asked.clear();
        if reboots {
            self.world.reboot(at);
            self.world.guard(at);
        } else {
            self.world.kill(at);
        }
        self.world.start(at);
        let (host, told) = (&self.world.hosts[at], &self.told[at]);
        let at_work = host.is_at_work();
        match told.protection {
            Some(Protection::On) if told.lasting => {
                assert!(at_work, "{at} was protected: {:?}", host.disk.saved)
            }
            Some(Protection::Off) => assert!(!at_work, "{at} was disabled: {:?}", host.disk.saved),
            _ => {}
        }
        // Whoever was told that this pair is sealed finds it protected or dropped, from the first moment after a boot on.
        let holds = told.sealed && told.lasting && told.protection == Some(Protection::On);
        if reboots && holds && host.file.nodes.len() == 2 {
            let leaves = host.kernel.leaves(self.pair(at));
            assert_ne!(leaves, Leaves::Clear, "{at} was sealed: {:?}", host.disk.saved);
        }
        self.look();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn what_was_told_is_what_comes_back(
        seed in 0..1000_u64,
        steps in prop::collection::vec((0..2_usize, step()), 1..40),
    ) {
        let mut story = Story::new(seed);
        steps.into_iter().for_each(|(at, step)| story.take(at, step));
        // In the end too.
        (0..2).for_each(|at| story.end(at, false, true));
    }
}

/// It was answered as done when it was said a second time.
#[test]
fn a_confirmation_that_cannot_be_written_is_not_done_by_saying_it_again() {
    let mut story = Story::new(1);
    for step in [Step::Try, Step::Room(Some(0)), Step::Confirm, Step::Confirm] {
        story.take(0, step);
    }
    let answers: Vec<bool> =
        story.world.hosts[0].replies.iter().map(|(_, reply, _)| *reply == Reply::Done).collect();
    assert_eq!(answers, [true, false, false]);
    story.take(0, Step::Room(None));
    story.take(0, Step::Confirm);
    assert_eq!(story.told[0].protection, Some(Protection::On));
    story.end(0, false, true);
}

/// A disk that takes seconds keeps whoever asked waiting, and nothing else: keys are agreed and replaced meanwhile.
#[test]
fn a_slow_disk_delays_neither_ike_nor_rekeys() {
    let mut world = World::new(2, 1, Weather::FAIR);
    (0..2).for_each(|at| world.enable(at));
    assert!(world.run_until(10 * SECOND, World::all_protected));
    world.hosts.iter_mut().for_each(|host| host.disk.delay = 20 * SECOND);
    world.rekey_after(2 * SECOND);
    let (ways, writes) = ([(0, 1), (1, 0)], world.hosts[0].disk.writes);
    let before = world.hosts[0].kernel.leaves(world.pair(0, 1));
    for at in 0..2 {
        world.reconfigure(at, |_| {});
    }
    let asker = world.ask(0, Request::Follow { after: 0, hold_ms: 0 });
    world.run(15 * SECOND, Some((10 * MILLISECOND, &ways)));
    assert_eq!(world.hosts[0].disk.writes, writes, "it is still being written");
    let after = world.hosts[0].kernel.leaves(world.pair(0, 1));
    assert!(matches!(after, Leaves::Esp(_)) && after != before, "{before:?}: the keys are new");
    assert!(world.all_protected());
    assert_eq!((world.total().lost, world.total().clear), (0, 0));
    let told = |world: &World| world.hosts[0].replies.iter().any(|(to, ..)| *to == asker);
    assert!(!told(&world), "whoever asks waits for what it is told");
    assert!(world.run_until(60 * SECOND, told));
}
