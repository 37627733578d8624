use std::time::Instant;

use proptest::prelude::*;

use super::*;

const CHECK: u64 = 300;
const LENGTH: u64 = 4 * 3600;
const WINDOW: u64 = 24 * 3600;

fn rules() -> KmsRules {
    KmsRules {
        provider: "exec".to_owned(),
        program: "/p".into(),
        key: "k".to_owned(),
        check_every: Duration::from_secs(CHECK),
        max_offline: Duration::from_secs(LENGTH),
        restore_window: Duration::from_secs(WINDOW),
        socket: "/s".into(),
    }
}

/// So many seconds after a start that is the same for all clocks.
fn at(seconds: u64) -> Moment {
    let start = Instant::now();
    Moment { now: start, wall: UnixTime(1_000_000 + seconds), uptime: Duration::from_secs(1000 + seconds) }
}

fn refused(refusal: Refusal) -> KmsRefusal {
    KmsRefusal { refusal, why: None, request_id: None }
}

fn valid() -> KeyState {
    KeyState::Valid(KmsGift { given: (), why: None, request_id: None })
}

fn told(answer: Result<(), Refusal>) -> Result<KmsGift<()>, KmsRefusal> {
    answer.map(|given| KmsGift { given, why: None, request_id: None }).map_err(refused)
}

/// A lease that was asked for once, with this answer.
fn answered(answer: Result<(), Refusal>) -> Lease {
    let mut lease = Lease::new(&rules(), at(0));
    let id = lease.poll_ask(at(0)).unwrap();
    lease.handle_answer(at(1), id, told(answer), 0);
    lease
}

fn ask(lease: &mut Lease, seconds: u64, answer: Result<(), Refusal>) -> Option<LeaseChange> {
    let id = lease.poll_ask(at(seconds)).expect("it is due");
    lease.handle_answer(at(seconds), id, told(answer), 0)
}

fn left(lease: &Lease, seconds: u64) -> Option<u64> {
    lease.left(at(seconds)).map(|left| left.as_secs())
}

#[test]
fn each_use_renews_it_from_when_it_was_asked_for() {
    let mut lease = Lease::new(&rules(), at(0));
    assert!(lease.awaits_first_answer());
    let id = lease.poll_ask(at(0)).unwrap();
    assert_eq!(lease.poll_ask(at(1)), None, "one at a time");
    assert_eq!(lease.handle_answer(at(5), id, told(Ok(())), 0), Some(LeaseChange::Renewed { short: true }));
    assert_eq!((left(&lease, 5), lease.state()), (Some(LENGTH - 5), &valid()));
    assert_eq!(lease.poll_ask(at(304)), None);
    assert_eq!(ask(&mut lease, 305, Ok(())), Some(LeaseChange::Renewed { short: false }));
    assert_eq!(left(&lease, 305), Some(LENGTH));
}

/// Keys that are agreed in the course of it are renewed as ever.
#[test]
fn one_that_is_asked_for_as_seldom_as_may_be_is_never_short() {
    let rules = KmsRules { check_every: Duration::from_secs(LENGTH / 4), ..rules() };
    let mut lease = Lease::new(&rules, at(0));
    let mut now = 0;
    for ask in 0..20 {
        let id = lease.poll_ask(at(now)).expect("it is due");
        let short = lease.handle_answer(at(now + 10), id, told(Ok(())), 0);
        assert_eq!(short, Some(LeaseChange::Renewed { short: ask == 0 }), "{ask}");
        now += 10 + LENGTH / 4;
    }
}

#[test]
fn chance_makes_a_pause_a_quarter_shorter_at_most_and_never_longer() {
    let pause = Duration::from_secs(CHECK);
    for chance in 0..=255 {
        let pause = shortened(pause, chance);
        assert!(
            pause <= Duration::from_secs(CHECK) && pause >= Duration::from_secs(CHECK * 3 / 4),
            "{pause:?}"
        );
    }
}

#[test]
fn a_kms_that_is_away_takes_the_lease_at_its_end_and_no_sooner() {
    for refusal in [Refusal::Unavailable, Refusal::Broken] {
        let mut lease = answered(Ok(()));
        let mut now = 301;
        while now < LENGTH {
            assert_eq!(ask(&mut lease, now, Err(refusal.clone())), None);
            assert_eq!(lease.is_short(at(now)), now > LENGTH / 4, "{now}");
            now += if now < 301 + 3600 { 60 } else { 300 };
        }
        assert_eq!(lease.handle_timeout(at(LENGTH - 1), 0), None);
        assert_eq!(lease.handle_timeout(at(LENGTH), 0), Some(LeaseChange::Ended));
        assert_eq!(lease.handle_timeout(at(LENGTH), 0), None, "once");
    }
}

#[test]
fn a_kms_that_says_no_takes_it_in_a_minute_unless_it_says_yes_meanwhile() {
    for refusal in [Refusal::Denied, Refusal::Disabled, Refusal::PendingDeletion(None), Refusal::NotFound] {
        let mut lease = answered(Ok(()));
        assert_eq!(ask(&mut lease, 301, Err(refusal.clone())), None);
        assert_eq!(left(&lease, 301), Some(60));
        // Whatever else is said: what is away does not contradict.
        lease.hurry(at(310).uptime);
        assert_eq!(ask(&mut lease, 310, Err(Refusal::Unavailable)), None);
        assert_eq!(
            (left(&lease, 310), lease.state()),
            (Some(51), &KeyState::Refused(refused(refusal.clone())))
        );
        assert_eq!(lease.handle_timeout(at(361), 0), Some(LeaseChange::Ended));
        assert_eq!(lease.left(at(361)), None);

        let mut lease = answered(Ok(()));
        ask(&mut lease, 301, Err(refusal));
        lease.hurry(at(360).uptime);
        assert_eq!(ask(&mut lease, 360, Ok(())), Some(LeaseChange::Renewed { short: true }));
        assert_eq!(lease.handle_timeout(at(361), 0), None);
    }
}

#[test]
fn it_is_given_back_by_a_yes_and_nothing_else_and_asked_for_until_the_window_is_over() {
    let mut lease = answered(Err(Refusal::Disabled));
    assert_eq!(lease.handle_timeout(at(61), 0), Some(LeaseChange::Ended));
    let (mut now, mut asks) = (61, 0);
    while let Some(due) = lease.deadline() {
        now = due.as_secs() - 1000;
        if lease.poll_ask(at(now)).is_some_and(|id| {
            let refusal = if asks % 2 == 0 { Refusal::Unavailable } else { Refusal::NotFound };
            lease.handle_answer(at(now), id, told(Err(refusal)), 0).is_some()
        }) {
            panic!("there is nothing to end");
        }
        lease.handle_timeout(at(now), 0);
        asks += 1;
    }
    assert!((WINDOW..WINDOW + 400).contains(&now), "{now}");
    assert!((60..60 + WINDOW / 300 + 2).contains(&asks), "{asks}");
    // Somebody has changed something.
    lease.hurry(at(now + 1).uptime);
    assert_eq!(ask(&mut lease, now + 1, Ok(())), Some(LeaseChange::Renewed { short: true }));
    assert_eq!(left(&lease, now + 1), Some(LENGTH));
}

/// Somebody wants an answer to what was asked then, and not before.
#[test]
fn an_ask_before_somebody_wanted_one_is_followed_by_another() {
    let mut lease = answered(Err(Refusal::Disabled));
    lease.handle_timeout(at(61), 0);
    let before = lease.poll_ask(at(WINDOW + 60)).expect("the window is open");
    lease.hurry(at(WINDOW + 65).uptime);
    assert_eq!(lease.handle_answer(at(WINDOW + 70), before, told(Err(Refusal::Disabled)), 0), None);
    let in_vain = lease.poll_ask(at(WINDOW + 70)).expect("somebody wants it");
    lease.hurry(at(WINDOW + 75).uptime);
    lease.handle_timeout(at(WINDOW + 90), 0);
    assert_eq!(lease.handle_answer(at(WINDOW + 90), in_vain, told(Ok(())), 0), None, "too late");
    assert!(ask(&mut lease, WINDOW + 90, Ok(())).is_some());
}

/// However often somebody wants one: only another secret makes what was asked before worthless.
#[test]
fn a_yes_to_what_is_in_force_renews_it_whoever_wants_a_later_one() {
    let mut lease = answered(Ok(()));
    let before = lease.poll_ask(at(301)).expect("it is due");
    lease.hurry(at(302).uptime);
    assert_eq!((lease.poll_ask(at(302)), lease.deadline()), (None, Some(at(321).uptime)), "one at a time");
    let renewed = Some(LeaseChange::Renewed { short: false });
    assert_eq!(lease.handle_answer(at(303), before, told(Ok(())), 0), renewed);
    assert_eq!((left(&lease, 303), lease.deadline()), (Some(LENGTH - 2), Some(at(303 + CHECK).uptime)));

    let other = lease.poll_ask(at(603)).expect("it is due");
    lease.ask_anew(at(610).uptime);
    assert_eq!(lease.handle_answer(at(604), other, told(Ok(())), 0), None);
    assert_eq!((left(&lease, 604), lease.poll_ask(at(609))), (Some(LENGTH - 303), None));
    assert_eq!(ask(&mut lease, 610, Ok(())), renewed);
}

#[test]
fn an_answer_that_never_comes_is_none_and_one_that_is_late_counts_for_nothing() {
    let mut lease = answered(Ok(()));
    let first = lease.poll_ask(at(301)).unwrap();
    assert_eq!(lease.handle_timeout(at(320), 0), None);
    assert_eq!(lease.state(), &valid());
    assert_eq!(lease.handle_timeout(at(321), 0), None);
    let KeyState::Refused(refused) = lease.state() else { panic!("it was not refused") };
    assert_eq!(refused.refusal, Refusal::Unavailable);
    assert!(refused.why.as_ref().is_some_and(|why| why.contains("no answer came within 20s")));
    let second = lease.poll_ask(at(381)).unwrap();
    assert_eq!(lease.handle_answer(at(382), first, told(Ok(())), 0), None);
    assert_eq!(left(&lease, 382), Some(LENGTH - 382));
    assert!(lease.handle_answer(at(383), second, told(Ok(())), 0).is_some());
}

/// A single time-out is no reason to be cut, nor to wait at each start of the system.
#[test]
fn where_an_answer_cannot_wait_a_kms_that_is_away_is_asked_soon_again() {
    let mut begun = answered(Err(Refusal::Unavailable));
    assert_eq!(begun.poll_ask(at(7)), None);
    assert!(ask(&mut begun, 8, Err(Refusal::Unavailable)).is_none());
    assert!(ask(&mut begun, 301, Err(Refusal::Unavailable)).is_none(), "for five minutes");
    assert_eq!(begun.poll_ask(at(360)), None, "and no longer");
    let mut denied = answered(Err(Refusal::Denied));
    assert_eq!(denied.poll_ask(at(59)), None, "that was an answer");

    let mut lease = answered(Ok(()));
    ask(&mut lease, 301, Err(Refusal::Denied));
    lease.hurry(at(353).uptime);
    assert!(ask(&mut lease, 353, Err(Refusal::Unavailable)).is_none());
    assert!(matches!(ask(&mut lease, 360, Ok(())), Some(LeaseChange::Renewed { .. })));
}

/// A clock that was set, or a machine that goes on from a copy of itself.
/// Whoever says it, and however often.
#[test]
fn a_peer_that_was_cut_off_makes_one_ask_a_minute_and_nothing_else() {
    let hint = |lease: &mut Lease, seconds, chance| lease.handle_hint(at(seconds).uptime, chance);
    for (chance, due) in [(0, 10), (255, 30)] {
        let mut lease = answered(Ok(()));
        let before = left(&lease, 10);
        hint(&mut lease, 10, chance);
        assert_eq!((left(&lease, 10), lease.state()), (before, &valid()), "it is not obeyed");
        assert_eq!((lease.poll_ask(at(9)), lease.deadline()), (None, Some(at(due).uptime)));
        assert_eq!(ask(&mut lease, due, Ok(())), Some(LeaseChange::Renewed { short: false }));
        assert_eq!(lease.deadline(), Some(at(due + CHECK).uptime), "as ever");
    }
    // A member gone bad says it all the time.
    let mut lease = answered(Ok(()));
    let mut asks = Vec::new();
    for now in 2..300 {
        hint(&mut lease, now, (now % 256) as u8);
        if let Some(id) = lease.poll_ask(at(now)) {
            asks.push(now);
            // While an answer is awaited, nothing is due but that.
            hint(&mut lease, now, 0);
            assert!(lease.deadline() > Some(at(now).uptime));
            lease.handle_answer(at(now), id, told(Ok(())), 0);
        }
    }
    assert!(asks.len() == 5 && asks.windows(2).all(|two| two[1] - two[0] >= 60), "{asks:?}");
    // What comes in the minute waits, and is not lost; an ask that is made in any case will do.
    let mut lease = answered(Ok(()));
    hint(&mut lease, 10, 0);
    ask(&mut lease, 10, Ok(()));
    hint(&mut lease, 11, 0);
    assert_eq!(lease.poll_ask(at(69)), None);
    lease.hurry(at(40).uptime);
    ask(&mut lease, 40, Ok(()));
    assert_eq!(lease.poll_ask(at(70)), None);
    // Who was told no knows more than a peer.
    ask(&mut lease, 340, Err(Refusal::Denied));
    let deadline = lease.deadline();
    hint(&mut lease, 341, 0);
    assert_eq!(lease.deadline(), deadline);
    lease.handle_timeout(at(400), 0);
    let deadline = lease.deadline();
    hint(&mut lease, 400, 0);
    assert_eq!(lease.deadline(), deadline);
}

#[test]
fn clocks_that_part_have_it_asked_for_at_once_and_what_was_asked_before_proves_nothing() {
    for ahead in [61, 3600] {
        let stepped = |seconds: u64| Moment { wall: UnixTime(at(seconds).wall.0 + ahead), ..at(seconds) };
        let mut lease = answered(Ok(()));
        let before = lease.poll_ask(at(301)).unwrap();
        assert_eq!(lease.handle_timeout(stepped(302), 0), None);
        assert_eq!(lease.left(stepped(302)), Some(Duration::from_secs(60)));
        assert_eq!(lease.handle_answer(stepped(303), before, told(Ok(())), 0), None);
        let after = lease.poll_ask(stepped(303)).expect("at once");
        let mut other = answered(Ok(()));
        other.handle_timeout(stepped(302), 0);
        assert!(lease.handle_answer(stepped(304), after, told(Ok(())), 0).is_some());
        assert_eq!(lease.handle_timeout(stepped(400), 0), None);
        assert_eq!(other.handle_timeout(stepped(362), 0), Some(LeaseChange::Ended), "no answer in a minute");
    }
    let drifts = |seconds: u64| Moment { wall: UnixTime(at(seconds).wall.0 - 59), ..at(seconds) };
    let mut lease = answered(Ok(()));
    lease.handle_timeout(drifts(2), 0);
    assert_eq!(lease.left(drifts(2)), Some(Duration::from_secs(LENGTH - 2)));
}

#[test]
fn other_rules_give_nothing_that_was_not_there() {
    let mut lease = answered(Err(Refusal::Denied));
    assert_eq!(left(&lease.followed_by(&rules(), at(2), true), 2), Some(59));
    lease.handle_timeout(at(61), 0);
    let mut next = lease.followed_by(&rules(), at(70), false);
    assert_eq!((left(&next, 70), next.poll_ask(at(70))), (None, None));
    next.hurry(at(70).uptime);
    assert_eq!(ask(&mut next, 70, Ok(())), Some(LeaseChange::Renewed { short: true }));
}

/// So many hosts ask in the busiest second of those that begin then.
fn busiest(asks: impl Iterator<Item = u64>) -> usize {
    let mut seconds = std::collections::BTreeMap::<u64, usize>::new();
    asks.for_each(|second| *seconds.entry(second).or_default() += 1);
    seconds.into_values().max().unwrap_or(0)
}

/// A roster that changes is heard by all in one second, and a KMS that is back is there for all at once.
#[test]
fn the_hosts_of_a_cluster_do_not_all_ask_at_once() {
    let next = |lease: &Lease| lease.deadline().expect("it asks").as_millis().div_ceil(1000) as u64 - 1000;
    let heard = (0..=255).map(|chance| {
        let mut lease = answered(Ok(()));
        lease.hurry(at(10).uptime + spread(256, chance));
        next(&lease)
    });
    assert!(busiest(heard) <= 14);
    // In a small cluster they do: nobody waits for nothing.
    assert_eq!(spread(64, 255), Duration::ZERO);

    // It is away for some hours, and was last given to all in one second, as all were started then.
    for away in [LENGTH + 600, LENGTH + 6 * 3600] {
        let back = (0..=255_u8).map(|host| {
            let (mut lease, mut dice) = (answered(Ok(())), host);
            loop {
                let now = next(&lease);
                if now >= away {
                    return now;
                }
                dice = dice.wrapping_mul(141).wrapping_add(host.wrapping_mul(2).wrapping_add(53));
                lease.handle_timeout(at(now), dice);
                if let Some(id) = lease.poll_ask(at(now)) {
                    lease.handle_answer(at(now), id, told(Err(Refusal::Unavailable)), dice);
                }
            }
        });
        assert!(busiest(back) <= 32, "after {away} s");
    }
}

/// An agent that follows another has no more of the lease, and knows what was said against the key.
#[test]
fn another_agent_goes_on_with_it() {
    let resumed = |before: &Lease, seconds, boot: &str| {
        Lease::resumed(&rules(), at(seconds), boot, &before.saved("one", "k"))
    };
    let mut before = answered(Ok(()));
    assert_eq!(left(&resumed(&before, 1000, "one"), 1000), Some(LENGTH - 1000));
    assert_eq!(left(&resumed(&before, 1000, "two"), 1000), Some(LENGTH), "nothing rests on it any more");
    assert_eq!(resumed(&before, 1000, "one").handle_timeout(at(LENGTH), 0), Some(LeaseChange::Ended));

    ask(&mut before, 301, Err(Refusal::Denied));
    for (boot, ends) in [("one", 361), ("two", 410)] {
        let mut next = resumed(&before, 350, boot);
        assert!(next.awaits_first_answer() && next.denial().is_some());
        assert_eq!(ask(&mut next, 350, Err(Refusal::Unavailable)), None);
        assert_eq!((left(&next, 350), next.denial().is_some()), (Some(ends - 350), true));
        let mut given = resumed(&before, 350, boot);
        assert_eq!(ask(&mut given, 350, Ok(())), Some(LeaseChange::Renewed { short: true }));
        assert_eq!((left(&given, 350), given.denial()), (Some(LENGTH), None));
        assert_eq!(next.handle_timeout(at(ends), 0), Some(LeaseChange::Ended));
    }

    // It is cut off at once where the one before was, and the time in which it asks goes on.
    before.handle_timeout(at(361), 0);
    let mut next = resumed(&before, 5000, "one");
    assert_eq!(next.handle_timeout(at(5000), 0), Some(LeaseChange::Ended));
    assert!(!next.is_given_up(at(360 + WINDOW)) && next.is_given_up(at(361 + WINDOW)));
    // That was said of another key.
    let other = KmsRules { key: "other".to_owned(), ..rules() };
    let next = Lease::resumed(&other, at(350), "one", &before.saved("one", "k"));
    assert_eq!((next.denial(), left(&next, 350)), (None, Some(11)));
}

/// What a KMS says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kms {
    Gives,
    Denies,
    Away,
    Hangs,
}

#[derive(Debug, Clone)]
enum Step {
    Kms(Kms),
    Pass(u64),
    /// The agent dies; whether it has written what the next one is to know.
    Die(bool),
    Start,
    Reboot,
    /// The time of day is set.
    Set(i64),
    /// A peer says that it was cut off.
    Hint,
}

fn step() -> impl Strategy<Value = Step> {
    let kms = prop_oneof![3 => Just(Kms::Gives), 3 => Just(Kms::Denies), 2 => Just(Kms::Away), 1 => Just(Kms::Hangs)];
    prop_oneof![
        4 => kms.prop_map(Step::Kms),
        6 => prop_oneof![1..120_u64, 100..2_000_u64, 1_000..30_000_u64].prop_map(Step::Pass),
        1 => prop::bool::weighted(0.8).prop_map(Step::Die),
        2 => Just(Step::Start),
        1 => Just(Step::Reboot),
        1 => prop_oneof![-50..50_i64, -20_000..20_000_i64].prop_map(Step::Set),
        2 => Just(Step::Hint),
    ]
}

/// A host, as far as its lease is concerned: an agent that may be dead, and a kernel that goes on with the SAs that it was
/// given, to the end that they were given, by the time of day.
struct Life {
    now: u64,
    booted: u64,
    set: i64,
    kms: Kms,
    /// Since when the KMS says that, and since when an agent hears it.
    since: u64,
    lease: Option<Lease>,
    /// The answer that is under way.
    answer: Option<(u64, AskId, Result<(), Refusal>)>,
    holds: bool,
    /// When an agent was told last that the key is denied, unless it was given one since.
    denied: Option<u64>,
    /// What an agent has left of the lease.
    saved: Option<SavedLease>,
    /// When the kernel ends the last SA, by the time of day.
    sas: Option<i64>,
    /// When an ask began that was answered by a yes.
    used: Option<u64>,
    /// How far the time of day was set back since the last SA.
    back: u64,
    chance: u8,
    delay: u64,
}

impl Life {
    fn wall(&self) -> i64 {
        1_000_000 + self.now as i64 + self.set
    }

    fn moment(&self) -> Moment {
        let uptime = Duration::from_secs(self.now - self.booted);
        Moment { now: Instant::now(), wall: UnixTime(self.wall() as u64), uptime }
    }

    fn take(&mut self, change: Option<LeaseChange>) {
        match change {
            Some(LeaseChange::Renewed { .. }) => self.holds = true,
            Some(LeaseChange::Ended) => (self.holds, self.sas) = (false, None),
            None => {}
        }
        let moment = self.moment();
        if let Some(left) = self.lease.as_ref().and_then(|lease| lease.left(moment)).filter(|_| self.holds) {
            // SAs are made all the time, each with the end of the lease.
            (self.sas, self.back) = (Some(self.wall() + left.as_secs() as i64), 0);
        }
    }

    /// Lets the agent do what is due.
    fn turn(&mut self) {
        self.chance = self.chance.wrapping_mul(5).wrapping_add(77);
        let (moment, chance) = (self.moment(), self.chance);
        let Some(lease) = &mut self.lease else { return };
        let change = lease.handle_timeout(moment, chance);
        let asked = lease.poll_ask(moment);
        self.take(change);
        if let Some((_, id, answer)) = self.answer.take_if(|(at, ..)| *at <= self.now) {
            let (began, denies) = (self.now - self.delay, answer == Err(Refusal::Denied));
            self.used = if answer.is_ok() { Some(began) } else { self.used };
            let change =
                self.lease.as_mut().and_then(|lease| lease.handle_answer(moment, id, told(answer), chance));
            match change {
                Some(LeaseChange::Renewed { .. }) => self.denied = None,
                _ if denies => self.denied = Some(self.now),
                _ => {}
            }
            self.take(change);
        }
        if let Some(id) = asked {
            self.answer = match self.kms {
                Kms::Gives => Some((self.now + self.delay, id, Ok(()))),
                Kms::Denies => Some((self.now + self.delay, id, Err(Refusal::Denied))),
                Kms::Away => Some((self.now + self.delay, id, Err(Refusal::Unavailable))),
                Kms::Hangs => None,
            };
        }
    }

    fn pass(&mut self, seconds: u64) -> Result<(), TestCaseError> {
        let end = self.now + seconds;
        loop {
            self.turn();
            self.check()?;
            let due = self.lease.as_ref().and_then(Lease::deadline).map(|due| self.booted + due.as_secs());
            let answer = self.answer.as_ref().map(|(at, ..)| *at);
            let next = [due, answer].into_iter().flatten().min().unwrap_or(end).max(self.now + 1);
            if next > end {
                self.now = end;
                self.turn();
                return self.check();
            }
            self.now = next;
        }
    }

    fn encrypts(&self) -> bool {
        (self.lease.is_some() && self.holds) || self.sas.is_some_and(|end| end > self.wall())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let heard = self.now - self.since;
        if self.encrypts() {
            let used = self.used.expect("a key was used");
            prop_assert!(self.now <= used + LENGTH + self.back + 1, "used {used}, now {}", self.now);
            let denied = self.kms == Kms::Denies && self.lease.is_some();
            prop_assert!(!denied || heard <= CHECK + 60 + 20 + self.delay, "denied for {heard} s");
            // Whatever else was answered meanwhile, and whoever has begun anew.
            let over = self.denied.is_some_and(|at| at + 60 < self.now);
            prop_assert!(self.lease.is_none() || !over, "denied at {:?}, now {}", self.denied, self.now);
        }
        let ended = self.lease.as_ref().and_then(|lease| lease.ended);
        let open = ended.is_none_or(|ended| self.moment().uptime < ended + Duration::from_secs(WINDOW));
        if self.kms == Kms::Gives && self.lease.is_some() && open && heard > 300 + 20 + 2 * self.delay {
            prop_assert!(self.holds, "given for {heard} s, and not taken");
        }
        Ok(())
    }

    fn start(&mut self) {
        let moment = self.moment();
        let lease = match &self.saved {
            Some(saved) => Lease::resumed(&rules(), moment, &self.booted.to_string(), saved),
            None => Lease::new(&rules(), moment),
        };
        (self.lease, self.holds, self.answer) = (Some(lease), false, None);
        self.since = self.now;
    }

    /// In the end the key is given, and an agent runs: it takes it by itself, or when it is told to look, where nobody asked
    /// any more.
    fn give_back(&mut self) -> Result<(), TestCaseError> {
        if self.kms != Kms::Gives {
            (self.kms, self.since) = (Kms::Gives, self.now);
        }
        if self.lease.is_none() {
            self.start();
        }
        let moment = self.moment();
        self.lease
            .iter_mut()
            .filter(|lease| lease.is_given_up(moment))
            .for_each(|lease| lease.hurry(moment.uptime));
        self.pass(300 + 20 + 2 * self.delay + 2)?;
        prop_assert!(self.holds, "it is not restored");
        Ok(())
    }

    fn die(&mut self, written: bool) {
        let boot = self.booted.to_string();
        let left = self.lease.take().map(|lease| lease.saved(&boot, "k"));
        self.saved = left.filter(|_| written || self.saved.is_none()).or(self.saved.take());
        // What was said to an agent that could not write it is not known to the next one.
        let is_known = self.saved.as_ref().is_some_and(|saved| saved.denial("k").is_some());
        self.denied = self.denied.filter(|_| is_known);
        (self.holds, self.answer) = (false, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Whatever happens to host, KMS and clocks: nothing is encrypted under a lease that is over for longer than the
    /// bound, and nothing stays cut whose key is given.
    #[test]
    fn a_thousand_histories(
        steps in prop::collection::vec(step(), 1..40),
        chance in any::<u8>(),
        delay in 0..10_u64,
    ) {
        let (kms, lease, answer, denied, saved) = (Kms::Gives, None, None, None, None);
        let mut life = Life {
            now: 100, booted: 0, set: 0, kms, since: 100, lease, answer, holds: false, denied, saved, sas: None, used: None,
            back: 0, chance, delay,
        };
        life.start();
        for step in steps {
            match step {
                Step::Kms(kms) if kms == life.kms => {}
                Step::Kms(kms) => (life.kms, life.since) = (kms, life.now),
                Step::Pass(seconds) => life.pass(seconds)?,
                Step::Die(written) => life.die(written),
                Step::Start if life.lease.is_some() => {}
                Step::Start => life.start(),
                Step::Reboot => {
                    life.die(true);
                    (life.sas, life.booted) = (None, life.now);
                    life.start();
                }
                Step::Hint => {
                    let (up, chance) = (life.moment().uptime, life.chance);
                    life.lease.iter_mut().for_each(|lease| lease.handle_hint(up, chance));
                }
                Step::Set(by) => {
                    life.set += by;
                    life.back += by.min(0).unsigned_abs();
                }
            }
        }
        life.give_back()?;
    }
}
