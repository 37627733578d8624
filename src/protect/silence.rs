//! Whether a peer still shows signs of life, and when to ask it for one.
//!
//! Missing answers prove nothing, as some traffic goes one way, nor does missing traffic. So the peer is asked. Only what nobody else can have made counts as an answer: a packet that an inbound SA took,
//! or a message inside IKE.
//! ```text
//! packets leave, nothing comes    --- 10 s --->  ask  --- 20 s --->  silent
//! nothing moves at all            --- 60 s --->  ask  --- 30 s --->  silent    90 s at the end that does not initiate
//! ```

use std::time::{Duration, Instant};

/// How often the counters are read.
pub const LISTEN_EVERY: Duration = Duration::from_secs(5);
/// How long nothing comes back for what was sent, until the peer is asked.
const ASK_AFTER_SENT: Duration = Duration::from_secs(10);
/// How long nothing is heard on a pair without traffic until the end that initiates by rule asks.
const ASK_WHEN_IDLE: Duration = Duration::from_secs(60);
/// By how much of its length that wait is jittered, downwards.
const IDLE_JITTER: f64 = 0.2;
/// How long the other end waits, compared with the first.
const SECOND_WAITS: f64 = 1.5;
/// How many pairs a host asks in a second, at most: with more of them each waits for longer.
const ASKED_A_SECOND: u32 = 100;
/// How long a peer owes a sign of life until it counts as silent, and how often it is asked meanwhile.
const SILENT_AFTER: Duration = Duration::from_secs(30);
/// When nobody has listened for that long, this host was away: what the peer owed meanwhile is not held against it.
const ABSENCE: Duration = Duration::from_secs(20);

/// How long a pair may be idle before its peer is asked. `leads`: this end initiates by rule. `pairs`: how many pairs
/// this host has. `share`, from 0 to 1, spreads them.
pub fn idle_patience(leads: bool, pairs: usize, share: f64) -> Duration {
    let stretched = Duration::from_secs(pairs as u64) / ASKED_A_SECOND;
    let wait = ASK_WHEN_IDLE.max(stretched).mul_f64(1.0 - IDLE_JITTER * share.clamp(0.0, 1.0));
    if leads { wait } else { wait.mul_f64(SECOND_WAITS) }
}

/// What was heard of a peer.
#[derive(Debug, Clone, Copy)]
pub struct Silence {
    esp: Option<Instant>,
    ike: Option<Instant>,
    /// From when on the peer may be idle.
    quiet: Instant,
    /// When the first packet left that nothing has come back for.
    sent: Option<Instant>,
    /// Since when the peer owes a sign of life: our first packet or question after what was heard last.
    owes: Option<Instant>,
    /// When it was asked last, while it owes an answer.
    asked: Option<Instant>,
    /// When it was listened to last.
    listened: Instant,
}

impl Silence {
    /// Nothing was heard yet, and nothing is expected before `now`.
    pub fn new(now: Instant) -> Self {
        Self { esp: None, ike: None, quiet: now, sent: None, owes: None, asked: None, listened: now }
    }

    /// An inbound SA took a packet at `at`.
    pub fn note_esp(&mut self, at: Instant) {
        self.esp = self.esp.max(Some(at));
        self.note(at);
    }

    /// An authentic message of IKE came at `at`.
    pub fn note_ike(&mut self, at: Instant) {
        self.ike = self.ike.max(Some(at));
        self.note(at);
    }

    fn note(&mut self, at: Instant) {
        if self.owes.is_none_or(|since| since <= at) {
            (self.sent, self.owes, self.asked) = (None, None, None);
        }
        self.quiet = self.quiet.max(at);
    }

    /// Packets of traffic have left.
    pub fn note_sent(&mut self, now: Instant) {
        self.sent.get_or_insert(now);
        self.owes.get_or_insert(now);
    }

    /// The peer cannot be heard through this pair now: nothing is expected of it.
    pub fn rest(&mut self, now: Instant) {
        (self.sent, self.owes, self.asked) = (None, None, None);
        (self.quiet, self.listened) = (now, now);
    }

    /// Whether the peer is to be asked for a sign of life now. It may be idle for `patience`.
    pub fn ask(&mut self, now: Instant, patience: Duration) -> bool {
        if now.saturating_duration_since(std::mem::replace(&mut self.listened, now)) > ABSENCE {
            self.owes = self.owes.map(|_| now);
        }
        let over = |since: Instant, wait| now.saturating_duration_since(since) >= wait;
        let ask = match self.asked {
            Some(asked) => over(asked, SILENT_AFTER),
            None => self.sent.is_some_and(|sent| over(sent, ASK_AFTER_SENT)) || over(self.quiet, patience),
        };
        if ask {
            self.asked = Some(now);
            self.owes.get_or_insert(now);
        }
        ask
    }

    /// Whether the peer does not answer, and nothing was heard for long.
    pub fn is_silent(&self, now: Instant) -> bool {
        let owes = self.owes.filter(|_| self.asked.is_some());
        owes.is_some_and(|since| now.saturating_duration_since(since) >= SILENT_AFTER)
    }

    /// Whether packets have left that nothing has come back for.
    pub fn has_sent(&self) -> bool {
        self.sent.is_some()
    }

    /// When an authentic message of IKE came last.
    pub fn last_heard_ike(&self) -> Option<Instant> {
        self.ike
    }

    /// When an inbound SA took a packet last.
    pub fn last_heard_esp(&self) -> Option<Instant> {
        self.esp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(60);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Listens every five seconds, from 5 up to `until`, and tells what happened at each. Returns when it asked, and
    /// when the peer counted as silent first.
    fn listen(
        until: u64,
        patience: Duration,
        mut tell: impl FnMut(&mut Silence, u64, Instant),
    ) -> [Vec<u64>; 2] {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        let mut seen = [Vec::new(), Vec::new()];
        for at in (5..=until).step_by(5) {
            let now = start + seconds(at);
            tell(&mut silence, at, now);
            if silence.ask(now, patience) {
                seen[0].push(at);
            }
            if silence.is_silent(now) {
                seen[1].push(at);
            }
        }
        seen
    }

    #[test]
    fn a_peer_that_is_sent_to_and_gone_is_asked_after_ten_seconds_and_silent_after_thirty() {
        let [asked, silent] = listen(60, FIRST, |silence, _, now| silence.note_sent(now));
        assert_eq!(asked, [15, 45], "10 s after the first packets were seen to have left, and each 30 s");
        assert_eq!(silent[0], 35);
    }

    #[test]
    fn a_peer_that_answers_questions_is_never_silent() {
        let [asked, silent] = listen(300, FIRST, |silence, at, now| {
            if at % 20 == 0 {
                silence.note_ike(now);
            }
            silence.note_sent(now);
        });
        assert_eq!(asked[..3], [15, 30, 50], "traffic goes one way");
        assert_eq!(silent, [0u64; 0]);
    }

    #[test]
    fn an_idle_peer_is_asked_after_a_minute_and_silent_half_a_minute_later() {
        let [asked, silent] = listen(130, FIRST, |_, _, _| {});
        assert_eq!((asked[0], silent[0]), (60, 90));
        let other = idle_patience(false, 2, 0.0);
        let [asked, silent] = listen(130, other, |_, _, _| {});
        assert_eq!((asked[0], silent[0]), (90, 120));
    }

    #[test]
    fn anything_authentic_ends_the_silence() {
        for esp in [true, false] {
            let [_, silent] = listen(60, FIRST, |silence, at, now| match at {
                50 if esp => silence.note_esp(now),
                50 => silence.note_ike(now),
                _ => silence.note_sent(now),
            });
            assert_eq!(silent, [35, 40, 45], "silent until something was heard");
        }
    }

    /// What came before the packet that nothing came back for is no answer to it.
    #[test]
    fn what_is_older_than_the_question_is_no_answer() {
        let now = Instant::now() + seconds(100);
        let mut silence = Silence::new(now);
        silence.note_sent(now);
        silence.note_ike(now - seconds(1));
        assert!(silence.ask(now + seconds(10), FIRST));
        assert!(silence.is_silent(now + seconds(30)));
        assert_eq!(silence.last_heard_ike(), Some(now - seconds(1)));
        assert_eq!(silence.last_heard_esp(), None);
    }

    #[test]
    fn a_host_that_was_away_itself_holds_nothing_against_its_peer() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        silence.note_sent(start);
        assert!(silence.ask(start + seconds(10), FIRST));
        let _ = silence.ask(start + seconds(300), FIRST);
        assert!(!silence.is_silent(start + seconds(300)), "the answer may wait in the socket");
        assert!(silence.is_silent(start + seconds(330)));
    }

    #[test]
    fn many_pairs_are_asked_less_often_and_spread() {
        assert_eq!(idle_patience(true, 2, 0.0), FIRST);
        assert_eq!(idle_patience(true, 2, 1.0), seconds(48));
        assert_eq!(idle_patience(false, 2, 0.0), seconds(90));
        assert_eq!(idle_patience(true, 30_000, 0.0), seconds(300), "100 a second");
        assert!(idle_patience(true, 2, 0.0) < idle_patience(false, 2, 1.0), "one of them asks first");
    }
}
