//! Random histories of two hosts whose secret a key wraps. What becomes of a packet is judged by a watch beside each host
//! that knows what its KMS has answered and nothing of how leases are kept.

use std::time::{Duration, Instant};

use hostseal_kms_protocol::Refusal;
use proptest::prelude::*;

use super::cluster::{SECOND, times};
use super::lease::{LENGTH, leased, leased_in_ppk, rules};
use super::world::World;
use crate::config::KmsRules;

const WAYS: [(usize, usize); 2] = [(0, 1), (1, 0)];
/// How long a host may need beyond a bound: an ask that was answered late began that much earlier, and deadlines are whole
/// seconds.
const SLACK: Duration = Duration::from_secs(22);
/// How long it may take until all is back: an ask each minute, and a handshake after pauses of a minute.
const RESTORE: Duration = Duration::from_secs(400);
/// How soon a denial is on the disk.
const WRITTEN: Duration = Duration::from_secs(3);

/// What is known of a host and its key by whoever looks on.
pub(super) struct LeaseWatch {
    grace: Duration,
    /// When the key was given last.
    given: Instant,
    /// When it was first denied since.
    denied: Option<Instant>,
    /// How far the time of day was set back in all.
    back: Duration,
    /// Packets that were encrypted and should not have been.
    pub(super) wrong: Vec<String>,
}

impl LeaseWatch {
    fn new(now: Instant, rules: &KmsRules) -> Self {
        Self { grace: rules.grace(), given: now, denied: None, back: Duration::ZERO, wrong: Vec::new() }
    }

    /// An agent has heard its KMS.
    pub(super) fn note_answer(&mut self, now: Instant, refusal: Option<&Refusal>) {
        match refusal {
            None => (self.given, self.denied) = (now, None),
            Some(refusal) if refusal.is_final() => _ = self.denied.get_or_insert(now),
            Some(_) => {}
        }
    }

    /// A packet was encrypted, whether an agent `runs` or not. Where none does, the kernel ends SAs by the time of day.
    pub(super) fn note_packet(&mut self, now: Instant, runs: bool) {
        let back = if runs { Duration::ZERO } else { self.back };
        if now > self.given + LENGTH + back + SLACK {
            self.wrong
                .push(format!("{:?} after the key was given last, agent runs: {runs}", now - self.given));
        }
        if let Some(denied) = self.denied.filter(|denied| runs && now > *denied + self.grace + SLACK) {
            self.wrong.push(format!("{:?} after the key was denied", now - denied));
        }
    }
}

/// What a KMS says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Gives,
    Denied,
    Disabled,
    PendingDeletion,
    NotFound,
    Broken,
    Away,
}

impl Word {
    fn answer(self) -> Result<(), Refusal> {
        Err(match self {
            Word::Gives => return Ok(()),
            Word::Denied => Refusal::Denied,
            Word::Disabled => Refusal::Disabled,
            Word::PendingDeletion => Refusal::PendingDeletion(Some("2027-01-02".to_owned())),
            Word::NotFound => Refusal::NotFound,
            Word::Broken => Refusal::Broken,
            Word::Away => Refusal::Unavailable,
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    /// What the KMS says to a host from now on.
    Kms(usize, Word),
    /// No KMS answers, until one says something else.
    Hangs,
    Kill(usize),
    Stop(usize),
    Start(usize),
    Reboot(usize),
    /// The state of a host can be written no more, or again.
    Disk(usize, bool),
    /// The time of day is set, on all hosts.
    Set(i64),
    /// Traffic goes on for so many seconds.
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    use Word::{Away, Broken, Denied, Disabled, Gives, NotFound, PendingDeletion};
    let host = || 0..2_usize;
    let word = prop_oneof![
        4 => Just(Gives),
        2 => Just(Away),
        1 => prop::sample::select(vec![Denied, Disabled, PendingDeletion, NotFound, Broken]),
    ];
    prop_oneof![
        4 => (host(), word).prop_map(|(at, word)| Event::Kms(at, word)),
        1 => Just(Event::Hangs),
        1 => host().prop_map(Event::Kill),
        1 => host().prop_map(Event::Stop),
        2 => host().prop_map(Event::Start),
        1 => host().prop_map(Event::Reboot),
        1 => (host(), any::<bool>()).prop_map(|(at, full)| Event::Disk(at, full)),
        1 => prop_oneof![-50..50_i64, -2_000..2_000_i64].prop_map(Event::Set),
        6 => prop_oneof![3 => 1..10_u64, 3 => 10..200_u64, 1 => 1_000..4_000_u64].prop_map(Event::Pass),
    ]
}

impl World {
    /// From now on each host is watched, its kernel ends SAs by itself, and its disk keeps what is written.
    fn watch(&mut self) {
        let now = self.now;
        for host in &mut self.hosts {
            host.watch = Some(LeaseWatch::new(now, &rules()));
            host.kernel.end_sas(now);
        }
    }

    fn watched(&mut self, at: usize) -> &mut LeaseWatch {
        self.hosts[at].watch.as_mut().expect("it is watched")
    }

    /// An agent goes. One after it knows what it has written, and no more.
    fn lose_agent(&mut self, at: usize, now: Instant) -> Result<(), TestCaseError> {
        let host = &self.hosts[at];
        let knows = host.disk.saved.lease.as_ref().is_some_and(|lease| lease.denial("k").is_some());
        let full = host.disk.room.is_some();
        let watch = self.watched(at);
        if let Some(denied) = watch.denied.filter(|_| !knows) {
            prop_assert!(full || now < denied + WRITTEN, "a denial is not written");
            watch.denied = None;
        }
        Ok(())
    }

    fn take_event(&mut self, event: Event) -> Result<(), TestCaseError> {
        let now = self.now;
        match event {
            Event::Kms(at, word) => {
                self.kms(at, word.answer());
                self.hear_kms();
            }
            Event::Hangs => self.kms_waits = true,
            Event::Stop(at) if self.hosts[at].agent.is_some() => {
                self.on(at, |agent, now, _| agent.hurry(now));
                self.lose_agent(at, now)?;
                self.kill(at);
            }
            Event::Kill(at) if self.hosts[at].agent.is_some() => {
                self.lose_agent(at, now)?;
                self.kill(at);
            }
            Event::Reboot(at) => {
                self.lose_agent(at, now)?;
                self.reboot(at);
                self.hosts[at].kernel.end_sas(now);
                self.guard(at);
                self.start(at);
            }
            Event::Stop(_) | Event::Kill(_) => {}
            Event::Start(at) => self.start(at),
            Event::Disk(at, full) => self.hosts[at].disk.room = full.then_some(0),
            Event::Set(by) => {
                self.set_clock(by);
                let back = Duration::from_secs(by.min(0).unsigned_abs());
                (0..2).for_each(|at| self.watched(at).back += back);
            }
            Event::Pass(seconds) => self.run(Duration::from_secs(seconds), Some((5 * SECOND, &WAYS))),
        }
        for at in 0..2 {
            let wrong = std::mem::take(&mut self.watched(at).wrong);
            prop_assert!(wrong.is_empty(), "host {at}: {:?} and {} more", wrong[0], wrong.len() - 1);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32 * times(), ..ProptestConfig::default() })]

    /// Whatever happens to hosts, KMS and clocks: no packet is encrypted under a lease that has ended by more than the
    /// bound, none is clear, and all is protected by itself once the key is back.
    #[test]
    fn no_packet_outlives_the_key_and_all_is_back_with_it(
        seed in 0..1000_u64,
        in_ppk in any::<bool>(),
        events in prop::collection::vec(event(), 1..20),
    ) {
        let mut world = if in_ppk { leased_in_ppk(seed) } else { leased(seed) };
        let clear = world.total().clear;
        world.watch();
        for event in events {
            world.take_event(event)?;
        }
        for at in 0..2 {
            world.take_event(Event::Disk(at, false))?;
            world.take_event(Event::Start(at))?;
            world.take_event(Event::Kms(at, Word::Gives))?;
        }
        let back = world.run_until(RESTORE, World::all_protected);
        prop_assert!(back, "not restored: {:?}, {:?}", world.reason(0, 1), world.reason(1, 0));
        world.take_event(Event::Pass(10))?;
        prop_assert_eq!((world.total().clear, world.total().leaked), (clear, 0));
    }
}
