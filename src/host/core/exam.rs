//! What of the path to a peer is open, for `doctor`: asked of the peer inside IKE, tried on each UDP port and by an echo
//! through the SA (`observe::exam` shows the course of it).
//!
//! Nothing is decided by what comes of it. What a peer can have this host do is bounded: a question of its is answered
//! once a second, by few datagrams to the address that it has proven.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Core;
use crate::host::probe::{self, ECHO, SizeProbe};
use crate::ike::{Topic, Transmit};
use crate::observe::About;
use crate::observe::doctor::{BothWays, PairFinding, PathWays};
use crate::observe::exam::{ExamAnswer, ExamQuestion, ExamToken, ExamWord};
use crate::types::{Pair, UnixTime};

/// So many pairs are asked about at a time.
pub const EXAMS_MOST: usize = 64;
/// So often each way is tried: loss is no wall.
const TRIES: u8 = 5;
/// The time between two tries.
const PAUSE: Duration = Duration::from_millis(300);
/// How long the peer has to answer at all.
const ANSWER_PATIENCE: Duration = Duration::from_secs(6);
/// How long what was tried last has to come, and the peer to say so.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// How long it takes at most to find out what packets get through.
const SIZE_PATIENCE: Duration = Duration::from_secs(14);
/// Datagrams for a peer that asks begin no more often than this.
const ANSWERED_EVERY: Duration = Duration::from_secs(1);
/// What comes of an unproven sender counts only if it comes so long after something proven.
const KNOCK_AFTER: Duration = Duration::from_secs(2);
/// And only for so long: a peer that is there tries again sooner.
const KNOCKED_LATELY: Duration = Duration::from_secs(60);

/// What goes on, and what is to be sent.
#[derive(Default)]
pub(super) struct Exams {
    /// What this host asks.
    asked: BTreeMap<Pair, AskedPair>,
    /// What it was asked, until that is over.
    answered: BTreeMap<Pair, AnsweredPair>,
    /// Datagrams that try ports.
    outbox: VecDeque<Transmit>,
    /// When a datagram came last in the name of a peer that proves nothing.
    knocks: BTreeMap<Pair, Instant>,
}

/// Tries that are left.
#[derive(Debug, Clone, Copy)]
struct Tries {
    left: u8,
    next: Instant,
}

impl Tries {
    fn new(now: Instant) -> Self {
        Self { left: TRIES, next: now }
    }

    /// Whether it is time for the next one.
    fn take(&mut self, now: Instant) -> bool {
        let due = self.left > 0 && self.next <= now;
        if due {
            (self.left, self.next) = (self.left - 1, now + PAUSE);
        }
        due
    }

    /// When there is something to do: the next try, or nothing comes any more.
    fn deadline(&self) -> Instant {
        if self.left > 0 { self.next } else { self.next + LAST_PATIENCE }
    }

    fn are_over(&self, now: Instant) -> bool {
        self.left == 0 && self.deadline() <= now
    }
}

/// A pair that this host asks about.
struct AskedPair {
    question: ExamQuestion,
    /// The peer can be asked: it knows such questions.
    can: bool,
    began: Instant,
    round_trip: Option<Duration>,
    ahead_s: Option<i64>,
    answer: Option<ExamAnswer>,
    /// From the answer on.
    tries: Option<Tries>,
    /// Which ports are tried: none where IKE has moved to the port of ESP in UDP.
    plain: bool,
    /// What came back to each port.
    came: [bool; 2],
    /// An echo of the peer, and an answer to one of ours, came through an SA.
    echo: bool,
    echo_answered: bool,
    /// There is an SA to send an echo through.
    has_sa: bool,
    measures: bool,
    over: bool,
}

/// A pair that its peer asks about.
struct AnsweredPair {
    answer: ExamAnswer,
    question: ExamQuestion,
    /// When the first datagrams go out.
    began: Instant,
    tries: Tries,
}

impl Exams {
    /// The next datagram to send.
    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.outbox.pop_front()
    }

    /// When there is something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let asked = self.asked.values().filter(|it| !it.over).map(AskedPair::deadline);
        asked.chain(self.answered.values().map(|it| it.tries.deadline())).min()
    }

    /// What is said to the peer of a pair.
    fn word(&self, pair: Pair) -> ExamWord {
        ExamWord {
            question: self.asked.get(&pair).filter(|it| !it.over).map(|it| it.question),
            answer: self.answered.get(&pair).map(|it| it.answer),
        }
    }
}

impl AskedPair {
    fn deadline(&self) -> Instant {
        match &self.tries {
            None => self.began + ANSWER_PATIENCE,
            // A search wakes by itself.
            Some(_) if self.measures && self.is_settled() => self.began + SIZE_PATIENCE,
            Some(tries) if self.measures && tries.left == 0 => {
                (self.began + SIZE_PATIENCE).max(tries.deadline())
            }
            Some(tries) => tries.deadline(),
        }
    }

    /// Whether all is known that is tried.
    fn is_settled(&self) -> bool {
        let Some(answer) = &self.answer else { return false };
        let plain = !self.plain || (answer.came == [true; 2] && self.came == [true; 2]);
        plain && (!self.has_sa || self.echo_answered)
    }

    fn ways(&self) -> PathWays {
        let Some(answer) = self.answer else { return PathWays::default() };
        let plain = |at: usize| match self.plain {
            true => BothWays { out: Some(answer.came[at]), inward: Some(self.came[at]) },
            false => BothWays::default(),
        };
        let esp = match (self.has_sa, self.echo_answered) {
            (false, _) => BothWays::default(),
            (true, true) => BothWays { out: Some(true), inward: Some(true) },
            (true, false) => BothWays {
                out: Some(answer.esp),
                // Where the echo came there, its answer did not come back.
                inward: Some(self.echo),
            },
        };
        PathWays { ike: plain(0), nat: plain(1), esp }
    }
}

impl Core {
    /// Begins to ask the peers of these pairs; `draw` fills in octets of chance.
    pub fn examine(&mut self, now: Instant, pairs: Vec<Pair>, mut draw: impl FnMut(&mut [u8])) {
        self.exams.asked.clear();
        self.exams.knocks.retain(|pair, _| self.pairs.get(*pair).is_some());
        for pair in pairs.into_iter().take(EXAMS_MOST) {
            let mut token = || {
                let mut token = ExamToken::default();
                draw(&mut token);
                token
            };
            let (out, back) = ([token(), token()], [token(), token()]);
            let number = u64::from_be_bytes(token().first_chunk().copied().unwrap_or_default());
            let can = self.about(pair).is_some_and(|about| about.exams);
            let machine = self.pairs.get(pair);
            let asked = AskedPair {
                question: ExamQuestion { number, out, back },
                can,
                began: now,
                round_trip: None,
                ahead_s: None,
                answer: None,
                tries: None,
                plain: machine.is_some_and(|machine| machine.is_in_udp() != Some(true)),
                came: [false; 2],
                echo: false,
                echo_answered: false,
                has_sa: machine.is_some_and(|machine| machine.way_to_peer().is_some()),
                measures: false,
                over: !can,
            };
            self.exams.asked.insert(pair, asked);
            if can {
                self.tell_exam(now, pair);
            }
        }
    }

    /// What was found out, once all of it was.
    pub fn poll_examined(&mut self, now: Instant) -> Option<Vec<PairFinding>> {
        if self.exams.asked.values().any(|it| !it.over) {
            return None;
        }
        let asked = std::mem::take(&mut self.exams.asked);
        Some(asked.iter().map(|(pair, asked)| self.finding(now, *pair, asked)).collect())
    }

    fn finding(&self, now: Instant, pair: Pair, asked: &AskedPair) -> PairFinding {
        let proven =
            self.silence(pair).and_then(|silence| silence.last_heard_ike().max(silence.last_heard_esp()));
        let failing = self.pairs.get(pair).and_then(|machine| machine.failing_since());
        let since = proven.max(failing).map(|at| at + KNOCK_AFTER);
        let knocked = self.exams.knocks.get(&pair).copied();
        PairFinding {
            asked: asked.can,
            round_trip_us: asked.round_trip.map(|it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX)),
            ahead_s: asked.ahead_s,
            ways: asked.ways(),
            size: self.measured_since(asked.began, pair),
            hears: self.engine.heard(pair).is_some_and(|at| at >= asked.began),
            knocks: knocked.is_some_and(|at| {
                at <= now && now < at + KNOCKED_LATELY && since.is_none_or(|since| at > since)
            }),
            ..PairFinding::of(pair)
        }
    }

    /// The peer has asked, or answered.
    pub(super) fn handle_exam_word(&mut self, now: Instant, pair: Pair, word: ExamWord) {
        if let Some(answer) = word.answer {
            self.handle_exam_answer(now, pair, answer);
        }
        let Some(question) = word.question else { return };
        let before = self.exams.answered.get(&pair);
        let is_news = before.is_none_or(|before| before.question.number != question.number);
        let Some(time) = self.wall(now).filter(|_| is_news) else { return };
        // However often it asks, datagrams go out so seldom; what is said inside IKE is an answer to what it says.
        let began = before.map_or(now, |before| match before.began {
            first if first > now => first,
            first => now.max(first + ANSWERED_EVERY),
        });
        let answer = ExamAnswer { number: question.number, time, came: [false; 2], esp: false };
        self.exams.answered.insert(pair, AnsweredPair { answer, question, began, tries: Tries::new(began) });
        self.tell_exam(now, pair);
        self.go_on_examining(now);
    }

    fn handle_exam_answer(&mut self, now: Instant, pair: Pair, answer: ExamAnswer) {
        let wall = self.wall(now);
        let Some(asked) = self.exams.asked.get_mut(&pair) else { return };
        if asked.over || asked.question.number != answer.number {
            return;
        }
        if asked.answer.replace(answer).is_none() {
            asked.round_trip = Some(now.saturating_duration_since(asked.began));
            asked.ahead_s = wall.map(|wall| ahead(answer.time, wall));
            asked.tries = Some(Tries::new(now));
            let measures = self.measure_now(now, pair);
            self.exams.asked.get_mut(&pair).into_iter().for_each(|asked| asked.measures = measures);
        }
        self.go_on_examining(now);
    }

    /// Does what is due.
    pub(super) fn go_on_examining(&mut self, now: Instant) {
        let pairs: Vec<Pair> = self.exams.asked.keys().chain(self.exams.answered.keys()).copied().collect();
        for pair in pairs {
            self.go_on_asking(now, pair);
            self.go_on_answering(now, pair);
        }
    }

    pub(super) fn go_on_asking(&mut self, now: Instant, pair: Pair) {
        let is_measuring = self.is_measuring(pair);
        let Some(asked) = self.exams.asked.get_mut(&pair).filter(|asked| !asked.over) else { return };
        let late = now >= asked.began + SIZE_PATIENCE;
        let measured = !asked.measures || !is_measuring || late;
        let tried = asked.tries.is_some_and(|tries| tries.are_over(now)) || asked.is_settled();
        let unanswered = asked.answer.is_none() && now >= asked.began + ANSWER_PATIENCE;
        if unanswered || (tried && measured) {
            asked.over = true;
            return;
        }
        let (plain, out, settled) = (asked.plain, asked.question.out, asked.is_settled());
        let due = asked.tries.as_mut().is_some_and(|tries| !settled && tries.take(now));
        if due {
            self.try_ways(pair, plain.then_some(out));
        }
    }

    fn go_on_answering(&mut self, now: Instant, pair: Pair) {
        let Some(answered) = self.exams.answered.get_mut(&pair) else { return };
        if answered.tries.are_over(now) {
            self.exams.answered.remove(&pair);
            return;
        }
        let back = answered.question.back;
        if answered.tries.take(now) {
            self.try_ways(pair, Some(back));
        }
    }

    /// Sends these tokens to the ports of the peer, and an echo through the SA.
    fn try_ways(&mut self, pair: Pair, tokens: Option<[ExamToken; 2]>) {
        let ports = [self.scheme.port, self.scheme.nat_port];
        for (token, port) in tokens.iter().flatten().zip(ports) {
            let (local, remote) = (SocketAddr::new(pair.local, port), SocketAddr::new(pair.remote, port));
            self.exams.outbox.push_back(Transmit { local, remote, bytes: probe::encode_try(token) });
        }
        if let Some((sa, token)) = self.pairs.get(pair).and_then(|machine| machine.way_to_peer()) {
            self.queue_size(sa, pair, SizeProbe { token, size: ECHO, answers: false }, 0);
        }
    }

    /// A datagram came that tries a port. It counts if it has one of the tokens that only the peer knows.
    pub(super) fn handle_try(&mut self, now: Instant, (local, remote): (IpAddr, IpAddr), token: &ExamToken) {
        let Some(pair) = Pair::new(local, remote) else { return };
        let at = |tokens: &[ExamToken; 2]| tokens.iter().position(|it| it == token);
        if let Some(asked) = self.exams.asked.get_mut(&pair)
            && let Some(at) = at(&asked.question.back)
        {
            asked.came[at] = true;
            self.go_on_asking(now, pair);
        } else if let Some(answered) = self.exams.answered.get_mut(&pair)
            && let Some(at) = at(&answered.question.out)
            && !std::mem::replace(&mut answered.answer.came[at], true)
        {
            self.tell_exam(now, pair);
        }
    }

    /// An echo of the peer, or the answer to one of ours, came through an SA.
    pub(super) fn note_echo(&mut self, now: Instant, pair: Pair, answers: bool) {
        if let Some(asked) = self.exams.asked.get_mut(&pair) {
            asked.echo |= !answers;
            asked.echo_answered |= answers;
            self.go_on_asking(now, pair);
        }
        if let Some(answered) = self.exams.answered.get_mut(&pair).filter(|_| !answers)
            && !std::mem::replace(&mut answered.answer.esp, true)
        {
            self.tell_exam(now, pair);
        }
    }

    /// A datagram came that may be of the key exchange, which begins with an SPI (RFC 7296 section 3.1), and is not
    /// proven yet.
    pub(super) fn note_knock(&mut self, now: Instant, (local, remote): (IpAddr, IpAddr), bytes: &[u8]) {
        let is_ike = bytes.first_chunk::<8>().is_some_and(|spi| *spi != [0; 8]);
        let pair = Pair::new(local, remote).filter(|pair| is_ike && self.pairs.get(*pair).is_some());
        self.exams.knocks.extend(pair.map(|pair| (pair, now)));
    }

    fn tell_exam(&mut self, now: Instant, pair: Pair) {
        let Some(about) = About::from_bytes(self.engine.about()) else { return };
        let octets = About { exam: Some(self.exams.word(pair)), ..about }.to_bytes();
        self.engine.tell(now, pair, Topic::Session, Arc::new(move |_| octets.clone()));
    }
}

/// By how many seconds one clock is ahead of the other.
fn ahead(theirs: UnixTime, ours: UnixTime) -> i64 {
    let seconds = |time: UnixTime| i64::try_from(time.0).unwrap_or(i64::MAX);
    seconds(theirs).saturating_sub(seconds(ours))
}
