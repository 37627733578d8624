//! One end of a proof, and a peer that says what it should not.

use std::net::SocketAddr;
use std::time::Instant;

use proptest::prelude::*;

use super::word::{Gauges, ProofPorts, ProofWord, RoundReport, SaGauge, Says};
use super::{
    ANSWER_PATIENCE, IDLE_PATIENCE, NonceArrival, NonceSet, PROOF_PATIENCE, ProofAsker, ProofOutcome, Prover,
    ProvingGround, QUIET, Sight, WAIT_PATIENCE,
};
use crate::host::ledger::Asker;
use crate::ike::Entropy;
use crate::observe::pair_proof::{PairProof, ProofCode, ProofFigures, ProofResult};
use crate::roster::EntryId;
use crate::types::{Direction, NodeName, Nonce, NonceKind, Pair, ROUNDS_MOST, Spi};

/// A host to which everything comes that it is told to have come, and which refuses as much as it should.
#[derive(Default)]
struct Bench {
    came: Vec<NonceArrival>,
    gauges: Gauges,
    sent: NonceSet,
    is_open: bool,
}

impl ProvingGround for Bench {
    fn node(&self, pair: Pair) -> NodeName {
        pair.remote.to_string().parse().unwrap_or_default()
    }

    fn open(&mut self, _: Pair) -> Result<ProofPorts, String> {
        assert!(!std::mem::replace(&mut self.is_open, true), "one at a time");
        Ok(PORTS)
    }

    fn close(&mut self) {
        self.is_open = false;
    }

    fn send(&mut self, _: SocketAddr, nonces: &NonceSet) -> (NonceSet, Option<String>) {
        self.sent = nonces.clone();
        let out = self.gauges.sas.iter_mut().find(|sa| sa.direction == Direction::Out);
        out.into_iter().for_each(|sa| sa.packets += nonces.sealed.len() as u64);
        (nonces.clone(), None)
    }

    fn look(&mut self, _: Pair) -> Result<Sight, String> {
        Ok(Sight { came: std::mem::take(&mut self.came), gauges: self.gauges.clone() })
    }
}

const PORTS: ProofPorts = ProofPorts { ordinary: 40_000, past: 40_001 };
const THEIRS: ProofPorts = ProofPorts { ordinary: 1, past: 2 };

/// Counts up.
struct Counting(u64);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 += 1;
            *byte = (self.0 % 251) as u8;
        }
    }
}

fn gauges(refused: u64, inbound: u64, outbound: u64) -> Gauges {
    let sa = |spi, direction, packets| SaGauge { spi: Spi(spi), direction, packets };
    Gauges { refused, sas: vec![sa(1, Direction::In, inbound), sa(2, Direction::Out, outbound)] }
}

fn nonces(first: u64, count: u64) -> Vec<Nonce> {
    (first..first + count).map(|number| Nonce(number.to_be_bytes())).collect()
}

/// A host that proves its pair with a peer, of which the test says the words.
struct Scene {
    now: Instant,
    bench: Bench,
    prover: Prover,
    pair: Pair,
}

impl Scene {
    fn begin() -> Self {
        let pair = Pair::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).unwrap();
        let bench = Bench { gauges: gauges(0, 0, 0), ..Bench::default() };
        let mut scene = Self { now: Instant::now(), bench, prover: Prover::default(), pair };
        assert!(scene.prover.prove(scene.now, ProofAsker::Here(Asker(1)), pair));
        scene.prover.go_on(scene.now, &mut scene.bench, &mut Counting(0));
        scene
    }

    /// What the host says now: the number of the proof, the step, and the words.
    fn said(&mut self) -> Option<(u64, u32, Says)> {
        self.prover.poll_word().map(|(_, word)| (word.proof, word.step, word.says))
    }

    /// The peer answers the last word with this.
    fn answer(&mut self, (proof, step): (u64, u32), says: Says) {
        let octets = ProofWord::new(proof, step, says).to_octets();
        self.prover.handle_word(self.now, &mut self.bench, &mut Counting(9), self.pair, &octets);
    }

    /// Time passes until the host says something more, or is done.
    fn wait(&mut self) -> Option<(u64, u32, Says)> {
        loop {
            if let Some(said) = self.said() {
                return Some(said);
            }
            self.now = self.prover.poll_timeout()?;
            self.prover.handle_timeout(self.now, &mut self.bench, &mut Counting(99));
        }
    }

    /// What an honest peer reports after so many rounds.
    fn report(&self, rounds: u32) -> RoundReport {
        let sent = &self.bench.sent;
        let all = sent.sealed.len() as u64 * u64::from(rounds);
        RoundReport {
            clear: nonces(1 << 40, 16),
            sealed: nonces(1 << 41, 20),
            unsent: None,
            seen: sent.sealed.clone(),
            gauges: gauges(100 + sent.clear.len() as u64, 50 + all, 60 + 20 * u64::from(rounds)),
        }
    }

    /// What it answers to that after so many rounds.
    fn honest(&self, says: &Says, rounds: u32) -> Says {
        let report = self.report(rounds);
        match says {
            Says::Begin { .. } => Says::Ready { ports: THEIRS, gauges: gauges(100, 50, 60) },
            Says::Sent { .. } => Says::Report(report),
            Says::Over { .. } => Says::Closed { seen: report.seen, gauges: report.gauges },
            other => panic!("{other:?}"),
        }
    }

    /// All that an honest peer has sent in so many rounds comes to this host.
    fn receive(&mut self, rounds: u32) {
        let sealed = self.report(rounds).sealed.into_iter();
        let sealed = sealed.map(|nonce| (THEIRS.ordinary, NonceKind::Sealed, nonce));
        // A local user of the other host sends, too, and says what it likes.
        let strange = [(7, NonceKind::Clear, Nonce([3; 8])), (THEIRS.past, NonceKind::Sealed, Nonce([4; 8]))];
        let arrival = |(port, kind, nonce)| NonceArrival { port, kind, nonce };
        self.bench.came = strange.into_iter().chain(sealed).map(arrival).collect();
        let own = self.bench.gauges.of(Spi(2), Direction::Out).unwrap();
        self.bench.gauges = gauges(16, 20 * u64::from(rounds), own);
    }

    /// Goes through a proof with a peer that answers what the host says as `answer` says, after so many rounds; it is
    /// silent where that is nothing.
    fn outcome_of(mut answer: impl FnMut(&Self, &Says, u32) -> Option<Says>) -> ProofOutcome {
        let (mut scene, mut rounds) = (Self::begin(), 0);
        while let Some((proof, step, says)) = scene.wait() {
            if matches!(says, Says::Sent { .. }) {
                rounds += 1;
                scene.receive(rounds);
            }
            if let Some(answer) = answer(&scene, &says, rounds) {
                scene.answer((proof, step), answer);
            }
        }
        assert!(!scene.bench.is_open && scene.prover.is_idle());
        scene.prover.poll_outcome().unwrap()
    }

    /// Goes through a proof with an honest peer whose reports `change` changes, in each round and in the end (round 0).
    fn outcome(change: impl Fn(u32, &mut RoundReport)) -> ProofOutcome {
        Self::outcome_of(|scene, says, rounds| {
            let mut report = scene.report(rounds);
            Some(match says {
                Says::Sent { .. } => {
                    change(rounds, &mut report);
                    Says::Report(report)
                }
                Says::Over { .. } => {
                    change(0, &mut report);
                    Says::Closed { seen: report.seen, gauges: report.gauges }
                }
                other => scene.honest(other, rounds),
            })
        })
    }

    /// The same; what was measured.
    fn figures(change: impl Fn(u32, &mut RoundReport)) -> ProofFigures {
        Self::outcome(change).found.unwrap()
    }
}

/// What a report says of an outcome.
fn proof_of(outcome: &ProofOutcome) -> PairProof {
    match &outcome.found {
        Ok(figures) => PairProof::of(NodeName::default(), outcome.pair, figures),
        Err(doubt) => PairProof::without_figures(NodeName::default(), outcome.pair, doubt.clone()),
    }
}

#[test]
fn an_honest_peer_has_one_round() {
    let outcome = Scene::outcome(|_, _| {});
    assert_eq!(proof_of(&outcome).result, ProofResult::Proven);
    let figures = outcome.found.unwrap();
    assert_eq!((figures.broken_off, figures.contradiction, figures.rounds), (None, None, 1));
    assert_eq!((figures.incoming.clear.sent, figures.incoming.sealed.delivered), (16, 20));
    assert_eq!(figures.out.sealed.inbound, figures.out.sealed.sent);
    assert_eq!(outcome.ports, Some([40_000, 1]));
}

#[test]
fn what_is_missing_is_sent_again() {
    let figures = Scene::figures(|round, report| {
        if (1..3).contains(&round) {
            report.seen.truncate(3);
        }
    });
    assert_eq!(figures.rounds, ROUNDS_MOST);
    assert_eq!(figures.out.sealed.packets, 3 * figures.out.sealed.sent);
}

#[test]
fn what_cannot_be_is_named() {
    type Lie = fn(u32, &mut RoundReport);
    let lies: [(Lie, &str); 7] = [
        (|_, report| report.seen.push(Nonce([255; 8])), "nobody sent"),
        (|round, report| report.gauges.refused -= u64::from(round == 0), "fell"),
        (|round, report| report.gauges.sas[0].packets -= u64::from(round == 0), "fell"),
        (|_, report| report.sealed.truncate(15), "fewer"),
        (|_, report| report.sealed = vec![report.sealed[0]; 20], "twice"),
        (|_, report| report.sealed[0] = report.clear[0], "twice"),
        (|_, report| report.gauges.sas[0].packets += 100, "of which"),
    ];
    for (lie, words) in lies {
        let figures = Scene::figures(lie);
        assert!(figures.contradiction.as_ref().is_some_and(|it| it.contains(words)), "{words}: {figures:?}");
    }
    let forgets = Scene::figures(|round, report| report.seen.truncate(if round == 0 { 3 } else { 99 }));
    assert_eq!(forgets.contradiction.unwrap(), "packets that had come to it have not");
}

/// Whatever was told last, one answer leads on. Any other is a doubt with a name, and so is silence.
#[test]
fn each_word_has_its_answer() {
    let sent = |scene: &Scene| Says::Sent { sealed: scene.bench.sent.sealed.len() as u16 };
    let over = || Says::Over { clear: Vec::new() };
    let begin = Says::Begin { ports: PORTS };
    type Answer<'a> = &'a dyn Fn(&Scene) -> Says;
    let answers: [Answer<'_>; 5] = [
        &|scene| scene.honest(&begin, 1),
        &|_| Says::Busy {},
        &|_| Says::Cannot { why: "no socket".to_owned() },
        &|scene| scene.honest(&sent(scene), 1),
        &|scene| scene.honest(&over(), 1),
    ];
    for (told, expected) in
        [("begin", &["ready", "busy", "cannot"][..]), ("sent", &["report"]), ("over", &["closed"])]
    {
        for answer in answers {
            let mut given = None;
            let outcome = Scene::outcome_of(|scene, says, rounds| {
                if says.name() != told {
                    return Some(scene.honest(says, rounds));
                }
                given.get_or_insert(answer(scene).name());
                Some(answer(scene))
            });
            let (given, proof) = (given.unwrap(), proof_of(&outcome));
            match (told, given) {
                (_, "busy") if told == "begin" => assert_eq!(proof.reason_code, Some(ProofCode::Busy)),
                (_, "cannot") if told == "begin" => {
                    assert_eq!(proof.reason_code, Some(ProofCode::CannotBegin));
                }
                _ if expected.contains(&given) => assert_eq!(proof.result, ProofResult::Proven),
                _ => {
                    let found = (proof.result, proof.reason_code);
                    let contradiction = (ProofResult::Failed, Some(ProofCode::Contradiction));
                    assert_eq!(found, contradiction, "{told} {given}");
                    assert!(proof.reason.unwrap().contains(given));
                }
            }
        }
        let outcome = Scene::outcome_of(|scene, says, rounds| {
            (says.name() != told).then(|| scene.honest(says, rounds))
        });
        assert_eq!(proof_of(&outcome).reason_code, Some(ProofCode::NoAnswer));
    }
}

/// A peer that hears how many clear packets there were cannot say then that it has refused them.
#[test]
fn what_was_refused_counts_as_it_was_reported_before_it_was_known() {
    let outcome = Scene::outcome(|round, report| {
        if round > 0 {
            report.gauges.refused = 100;
        }
    });
    let proof = proof_of(&outcome);
    assert_eq!((proof.rounds, proof.reason_code), (ROUNDS_MOST, Some(ProofCode::NotRefused)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever a peer answers in whatever order, a pair is proven by what was measured alone.
    #[test]
    fn nothing_is_proven_that_was_not_measured(
        moves in prop::collection::vec(prop_oneof![6 => Just(0), 1 => 1..9u8], 0..9)
    ) {
        let (mut moves, mut told) = (moves.into_iter(), Vec::new());
        let outcome = Scene::outcome_of(|scene, says, rounds| {
            let report = scene.report(rounds.max(1));
            let RoundReport { seen, gauges, .. } = report.clone();
            let answer = match moves.next().unwrap_or(0) {
                0 => scene.honest(says, rounds),
                1 => Says::Ready { ports: THEIRS, gauges },
                2 => Says::Busy {},
                3 => Says::Cannot { why: String::new() },
                4 => Says::Report(report),
                5 => Says::Report(RoundReport::default()),
                6 => Says::Closed { seen, gauges },
                7 => Says::Closed { seen: Vec::new(), gauges: Gauges::default() },
                _ => return None,
            };
            told.push((says.name(), answer.name()));
            Some(answer)
        });
        let proof = proof_of(&outcome);
        prop_assert!(proof.is_possible());
        if proof.result == ProofResult::Proven {
            prop_assert!(told.contains(&("begin", "ready")) && told.contains(&("sent", "report")));
            prop_assert_eq!(told.last(), Some(&("over", "closed")));
            prop_assert!(proof.adds_up());
            let (out, incoming) = (proof.out.unwrap(), proof.incoming.unwrap());
            for way in [out, incoming] {
                prop_assert!(way.sealed.delivered == way.sealed.sent && way.sealed.sent >= 16);
                prop_assert!(way.clear.refused >= way.clear.sent && way.clear.sent >= 16);
            }
            prop_assert_eq!(incoming.sealed.sent, 20);
        } else {
            prop_assert!(proof.reason_code.is_some() && proof.reason.is_some());
        }
    }
}

/// Words of others, of other proofs and of other steps change nothing.
#[test]
fn only_the_answer_that_is_waited_for_counts() {
    let mut scene = Scene::begin();
    let (proof, step, _) = scene.said().unwrap();
    let ready = || Says::Ready { ports: THEIRS, gauges: Gauges::default() };
    scene.answer((proof + 1, step), ready());
    scene.answer((proof, step + 1), ready());
    scene.pair = Pair::new([10, 0, 0, 1].into(), [10, 0, 0, 3].into()).unwrap();
    scene.answer((proof, step), ready());
    assert_eq!(scene.said(), None);
    assert!(scene.bench.is_open);
}

/// An asker that never has enough gets as much as any other, and then nothing until its time is over.
#[test]
fn an_asker_that_goes_on_and_on_has_its_rounds_and_no_more() {
    let mut scene = Scene::begin();
    scene.prover = Prover::default();
    scene.bench.is_open = false;
    let began = scene.now;
    scene.answer((7, 1), Says::Begin { ports: THEIRS });
    assert!(matches!(scene.said(), Some((7, 1, Says::Ready { ports: PORTS, .. }))));
    let mut reports = 0;
    for step in 2..100 {
        scene.answer((7, step), Says::Sent { sealed: 64 });
        while scene.bench.is_open && scene.now < began + PROOF_PATIENCE {
            let Some(due) = scene.prover.poll_timeout().filter(|due| *due < began + IDLE_PATIENCE) else {
                break;
            };
            scene.now = due;
            scene.prover.handle_timeout(scene.now, &mut scene.bench, &mut Counting(5));
        }
        reports += usize::from(matches!(scene.said(), Some((7, _, Says::Report(_)))));
    }
    assert_eq!(reports, ROUNDS_MOST as usize);
    while let Some(due) = scene.prover.poll_timeout() {
        scene.now = due;
        scene.prover.handle_timeout(scene.now, &mut scene.bench, &mut Counting(5));
    }
    assert!(!scene.bench.is_open && scene.now <= began + PROOF_PATIENCE);
    // It rests then.
    scene.answer((8, 1), Says::Begin { ports: THEIRS });
    assert!(matches!(scene.said(), Some((8, 1, Says::Busy {}))));
}

/// The peer could not send some of it at first: it is not held against its SA that this did not count them.
#[test]
fn what_a_peer_could_not_send_was_not_sent() {
    let figures = Scene::figures(|round, report| {
        report.gauges.sas[1].packets -= 4;
        if round == 1 {
            report.unsent = Some("no buffer space".to_owned());
            report.sealed.truncate(16);
            report.seen.truncate(3);
        }
    });
    assert_eq!((figures.rounds, figures.contradiction), (2, None));
    assert_eq!((figures.incoming.sealed.packets, figures.incoming.sealed.outbound), (36, 36));
}

/// Its old SAs end during the proof, after they have counted some of it: that is no lie, and what is missing is known to.
#[test]
fn sas_that_end_meanwhile_are_known_to() {
    let figures = Scene::figures(|round, report| {
        if round != 1 {
            report
                .gauges
                .sas
                .iter_mut()
                .for_each(|sa| *sa = SaGauge { spi: Spi(sa.spi.0 + 8), packets: 3, ..*sa });
        }
        report.seen.truncate(if round == 1 { 3 } else { usize::MAX });
    });
    assert_eq!((figures.contradiction, figures.rekeyed), (None, [true; 2]));
    assert_eq!(figures.out.sealed.inbound, figures.out.sealed.sent + 3);
}

/// Whoever watches the wire here for the next proof has seen what this host sent for one that its asker did not end.
#[test]
fn what_was_sent_for_an_asker_that_went_away_is_remembered() {
    let mut scene = Scene::begin();
    scene.prover = Prover::default();
    scene.bench.is_open = false;
    scene.answer((7, 1), Says::Begin { ports: THEIRS });
    scene.answer((7, 2), Says::Sent { sealed: 0 });
    while scene.bench.is_open {
        scene.now = scene.prover.poll_timeout().unwrap();
        scene.prover.handle_timeout(scene.now, &mut scene.bench, &mut Counting(5));
    }
    let sent = scene.bench.sent.clear.clone();
    assert!(!sent.is_empty());
    while scene.prover.poll_word().is_some() {}
    assert!(scene.prover.prove(scene.now, ProofAsker::Here(Asker(1)), scene.pair));
    scene.prover.go_on(scene.now, &mut scene.bench, &mut Counting(0));
    while scene.wait().is_some() {}
    let outcome = scene.prover.poll_outcome().unwrap();
    assert!(sent.iter().all(|nonce| outcome.clear.contains(nonce)));
}

/// Members may have pairs proven: one at a time for each, after those of commands. Each rests after its own, and the
/// others need not wait for that.
#[test]
fn what_members_ask_for_is_paced_and_comes_last() {
    let line = |number: u8| ProofAsker::Member { line: EntryId::new([number; 32]), number: 1 };
    let here = |number| ProofAsker::Here(Asker(number));
    let mut scene = Scene::begin();
    let (pair, now) = (scene.pair, scene.now);
    assert!(scene.prover.prove(now, line(1), pair));
    assert!(!scene.prover.prove(now, line(1), pair), "it has one that waits");
    assert!(scene.prover.prove(now, line(2), pair));
    assert!(scene.prover.prove(now, here(2), pair));
    let mut ended = Vec::new();
    while scene.wait().is_some() {
        let outcomes = std::iter::from_fn(|| scene.prover.poll_outcome());
        for outcome in outcomes.collect::<Vec<_>>() {
            ended.push((outcome.asker, scene.now));
            if outcome.asker == line(1) && ended.len() < 4 {
                // It asks again, at once.
                assert!(scene.prover.prove(scene.now, line(1), pair));
            }
        }
    }
    ended.extend(scene.prover.poll_outcome().map(|outcome| (outcome.asker, scene.now)));
    assert!(scene.prover.is_idle());
    let askers: Vec<ProofAsker> = ended.iter().map(|(asker, _)| *asker).collect();
    assert_eq!(askers, [here(1), here(2), line(1), line(2), line(1)]);
    // Nobody has answered, which takes as long as it may. The second member begins when the first one is done.
    let took = |at: usize| ended[at].1 - ended[at - 1].1;
    assert!(took(3) < ANSWER_PATIENCE + QUIET * 2, "{:?}", took(3));
}

/// One member that has a peer proven which never answers: another one waits for one such proof at most.
#[test]
fn a_member_that_asks_all_the_time_keeps_no_other_waiting() {
    let line = |number: u8| ProofAsker::Member { line: EntryId::new([number; 32]), number: 1 };
    let mut scene = Scene::begin();
    let (bad, good, pair) = (line(1), line(2), scene.pair);
    let (mut asked, mut waited) = (None, Vec::new());
    while waited.len() < 10 {
        scene.prover.prove(scene.now, bad, pair);
        if asked.is_none() && scene.prover.prove(scene.now, good, pair) {
            asked = Some(scene.now);
        }
        scene.prover.go_on(scene.now, &mut scene.bench, &mut Counting(3));
        let _ = scene.said();
        while let Some(outcome) = scene.prover.poll_outcome() {
            if outcome.asker == good {
                waited.extend(asked.take().map(|asked| scene.now - asked));
            }
        }
        assert_eq!(scene.prover.poll_late(), None);
        scene.now = scene.prover.poll_timeout().unwrap();
        scene.prover.handle_timeout(scene.now, &mut scene.bench, &mut Counting(99));
    }
    // One of the other member, and its own, which its peer does not answer either; the first time a command's, too.
    assert!(waited.iter().all(|it| *it <= 3 * (ANSWER_PATIENCE + QUIET)), "{waited:?}");
    assert!(waited[1..].iter().all(|it| *it <= 2 * (ANSWER_PATIENCE + QUIET)), "{waited:?}");
}

/// While commands have all turns, a member is told so, and does not wait for ever.
#[test]
fn a_member_that_waits_for_too_long_is_told() {
    let line = EntryId::new([1; 32]);
    let mut scene = Scene::begin();
    assert!(scene.prover.prove(scene.now, ProofAsker::Member { line, number: 7 }, scene.pair));
    let began = scene.now;
    let late = loop {
        scene.prover.prove(scene.now, ProofAsker::Here(Asker(1)), scene.pair);
        let _ = scene.said();
        if let Some(late) = scene.prover.poll_late() {
            break late;
        }
        scene.now = scene.prover.poll_timeout().unwrap();
        scene.prover.handle_timeout(scene.now, &mut scene.bench, &mut Counting(99));
    };
    assert_eq!((late, scene.now - began), ((line, 7), WAIT_PATIENCE));
}

/// What this host sends past all policies for members is paced as what it sends for peers is.
#[test]
fn clear_packets_that_members_cause_are_paced() {
    let line = |number: u8| ProofAsker::Member { line: EntryId::new([number; 32]), number: 1 };
    let mut scene = Scene { prover: Prover::default(), ..Scene::begin() };
    scene.bench.is_open = false;
    let (began, mut sent) = (scene.now, 0);
    for number in 0..20 {
        assert!(scene.prover.prove(scene.now, line(number), scene.pair));
    }
    scene.prover.go_on(scene.now, &mut scene.bench, &mut Counting(0));
    let mut rounds = 0;
    while let Some((proof, step, says)) = scene.wait() {
        match says {
            Says::Begin { .. } => rounds = 0,
            Says::Sent { .. } => {
                sent += scene.bench.sent.clear.len() as u32;
                rounds += 1;
                scene.receive(rounds);
            }
            _ => {}
        }
        // It saw nothing, so all is sent again.
        let answer = match scene.honest(&says, rounds) {
            Says::Report(report) => Says::Report(RoundReport { seen: Vec::new(), ..report }),
            Says::Closed { gauges, .. } => Says::Closed { seen: Vec::new(), gauges },
            other => other,
        };
        scene.answer((proof, step), answer);
    }
    let took = scene.now - began;
    println!("{sent} in {took:?}");
    assert!(sent >= 20 * 3 * 16 && took.as_millis() >= u128::from(sent - 3 * 64) * 2, "{sent} in {took:?}");
}
