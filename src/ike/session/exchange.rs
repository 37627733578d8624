//! Message identifiers, the window of one, retransmission (RFC 7296 sections 2.1 to 2.3).
//!
//! Each end numbers the requests that it makes. A request is sent again, octet for octet, until its answer
//! comes; an answer is kept, and sent again when its request comes again.

use std::time::{Duration, Instant};

use crate::ike::limits::{
    GROWTH_SPARSE, KNOCK_FIRST, RETRANSMIT_FIRST, RETRANSMIT_MAX, TRIES_HANDSHAKE, TRIES_KNOCKING,
    TRIES_SPARSE,
};

/// A message as it goes over the wire: one datagram, or its fragments.
pub type Datagrams = Vec<Vec<u8>>;

/// A message that is sent again until its answer comes or its tries are used up.
#[derive(Debug)]
pub struct Retransmission {
    message: Datagrams,
    tries_left: u32,
    /// So many tries more before the waits grow beyond [`RETRANSMIT_FIRST`].
    knocks_left: u32,
    wait: Duration,
    /// No wait is longer, but for `grace`.
    longest: Duration,
    /// So many times longer is each wait than the one before.
    growth: u32,
    /// What is added to each wait, as this host is late.
    grace: Duration,
    due: Instant,
    /// So often it has been sent.
    copies: u32,
}

impl Retransmission {
    /// `message` has just been sent for the first of `tries` times.
    pub fn new(now: Instant, message: Datagrams, tries: u32) -> Self {
        Self {
            message,
            tries_left: tries.saturating_sub(1),
            knocks_left: 0,
            wait: RETRANSMIT_FIRST,
            longest: RETRANSMIT_MAX,
            growth: 2,
            grace: Duration::ZERO,
            due: now + RETRANSMIT_FIRST,
            copies: 1,
        }
    }

    /// The first message of all. A peer that is being started is found soon: at first the waits are short.
    pub fn knocking(now: Instant, message: Datagrams) -> Self {
        let sent = Self::new(now, message, TRIES_KNOCKING + TRIES_HANDSHAKE);
        Self { knocks_left: TRIES_KNOCKING, wait: KNOCK_FIRST, due: now + KNOCK_FIRST, ..sent }
    }

    /// The first message of all, to a peer that is probably not there.
    pub fn sparse(now: Instant, message: Datagrams) -> Self {
        let sent = Self::new(now, message, TRIES_SPARSE);
        Self { wait: KNOCK_FIRST, growth: GROWTH_SPARSE, due: now + KNOCK_FIRST, ..sent }
    }

    /// The same where this host reads what comes so `late`. It has just become late what it sent, too, and its answer
    /// waits to be read in turn.
    pub fn by(self, late: Duration) -> Self {
        let grace = 2 * late;
        Self { grace, due: self.due + grace, ..self }
    }

    /// Whether it has been sent more than once.
    pub fn is_repeated(&self) -> bool {
        self.copies > 1
    }

    /// The same, with no wait longer than `longest`.
    pub(super) fn each(self, longest: Duration) -> Self {
        Self { longest, ..self }
    }

    /// When to look again.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Begins anew, with `tries` from `now` on.
    pub fn restart(&mut self, now: Instant, tries: u32) {
        (self.tries_left, self.wait, self.due) = (tries, RETRANSMIT_FIRST / 2, now);
    }

    /// Not before `until`.
    pub fn pause(&mut self, until: Instant) {
        self.due = self.due.max(until);
    }

    /// Goes on with at most `tries` more.
    pub fn hurry(&mut self, tries: u32) {
        self.tries_left = self.tries_left.min(tries);
    }

    /// What the time asks for.
    pub fn handle_timeout(&mut self, now: Instant) -> Retry {
        if now < self.due {
            return Retry::Wait;
        }
        if self.tries_left == 0 {
            return Retry::GiveUp;
        }
        self.tries_left -= 1;
        self.copies = self.copies.saturating_add(1);
        let longest = if self.knocks_left > 0 { RETRANSMIT_FIRST } else { self.longest };
        self.knocks_left = self.knocks_left.saturating_sub(1);
        self.wait = (self.wait * self.growth).min(longest);
        self.due = now + self.wait + self.grace;
        Retry::Send(self.message.clone())
    }
}

/// What [`Retransmission::handle_timeout`] asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not yet.
    Wait,
    /// Send this again.
    Send(Datagrams),
    /// The peer does not answer.
    GiveUp,
}

/// The two windows of an IKE SA. `Q` is what we remember of a request that we made, `H` what we remember
/// of a request of the peer until we answer it.
#[derive(Debug)]
pub struct Window<Q, H> {
    next_request: u32,
    outstanding: Option<(Retransmission, Q)>,
    next_expected: u32,
    held: Option<H>,
    answer: Option<Datagrams>,
}

/// What an authentic request is to us.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The next one.
    New,
    /// The one before; this was our answer.
    Repeated(Datagrams),
    /// Out of the window, or being worked on.
    Ignored,
}

impl<Q, H> Window<Q, H> {
    /// After `done` exchanges that we made and `answered` that we answered.
    pub fn new(done: u32, answered: u32) -> Self {
        Self { next_request: done, outstanding: None, next_expected: answered, held: None, answer: None }
    }

    /// Whether a request may be made.
    pub(super) fn is_free(&self) -> bool {
        self.outstanding.is_none()
    }

    /// The number of the next request.
    pub fn next_request(&self) -> u32 {
        self.next_request
    }

    /// The next request has been sent.
    pub fn asked(&mut self, sent: Retransmission, what: Q) {
        self.outstanding = Some((sent, what));
    }

    /// What the outstanding request asks.
    pub(super) fn asking(&self) -> Option<&Q> {
        self.outstanding.as_ref().map(|(_, what)| what)
    }

    /// The same, to change.
    pub(super) fn asking_mut(&mut self) -> Option<&mut Q> {
        self.outstanding.as_mut().map(|(_, what)| what)
    }

    /// Its retransmission.
    pub fn retransmission(&mut self) -> Option<&mut Retransmission> {
        self.outstanding.as_mut().map(|(sent, _)| sent)
    }

    /// How often the outstanding request has been sent; 0 where there is none.
    pub(super) fn copies(&self) -> u32 {
        self.outstanding.as_ref().map_or(0, |(sent, _)| sent.copies)
    }

    /// When the outstanding request is due again.
    pub fn due(&self) -> Option<Instant> {
        self.outstanding.as_ref().map(|(sent, _)| sent.due())
    }

    /// Whether an answer with `message_id` is the one that is waited for.
    pub(super) fn awaits(&self, message_id: u32) -> bool {
        message_id == self.next_request && self.outstanding.is_some()
    }

    /// An authentic answer with `message_id` came: what we had asked, if it is the answer to that.
    pub fn answered(&mut self, message_id: u32) -> Option<Q> {
        if message_id != self.next_request {
            return None;
        }
        let (_, what) = self.outstanding.take()?;
        self.next_request = self.next_request.wrapping_add(1);
        Some(what)
    }

    /// Forgets the outstanding request. The IKE SA makes no further one.
    pub fn abandon(&mut self) -> Option<Q> {
        self.outstanding.take().map(|(_, what)| what)
    }

    /// Sorts an authentic request in.
    pub(super) fn arrival(&self, message_id: u32) -> Arrival {
        if message_id == self.next_expected && self.held.is_none() {
            return Arrival::New;
        }
        match &self.answer {
            Some(answer) if message_id.wrapping_add(1) == self.next_expected => {
                Arrival::Repeated(answer.clone())
            }
            _ => Arrival::Ignored,
        }
    }

    /// The request that was [`Arrival::New`] is to be answered as `held` says.
    pub fn hold(&mut self, held: H) {
        self.held = Some(held);
    }

    /// What is to be answered.
    pub fn held(&self) -> Option<&H> {
        self.held.as_ref()
    }

    /// The same, to change.
    pub(super) fn held_mut(&mut self) -> Option<&mut H> {
        self.held.as_mut()
    }

    /// Takes the request out to answer it now: its number, and what was held.
    pub fn release(&mut self) -> Option<(u32, H)> {
        let held = self.held.take()?;
        let message_id = self.next_expected;
        self.next_expected = self.next_expected.wrapping_add(1);
        Some((message_id, held))
    }

    /// Keeps the answer just sent.
    pub(super) fn keep_answer(&mut self, answer: Datagrams) {
        self.answer = Some(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::limits::{RETRANSMIT_CONTROL, TRIES_CONTROL, TRIES_ESTABLISHED};

    /// After how many milliseconds each copy of a message goes out that nobody answers, and when it is given up.
    fn copies(mut sent: Retransmission, start: Instant) -> (Vec<u128>, u128) {
        let mut copies = vec![0];
        loop {
            let now = sent.due();
            let after = (now - start).as_millis();
            match sent.handle_timeout(now) {
                Retry::Send(_) => copies.push(after),
                Retry::GiveUp => return (copies, after),
                Retry::Wait => panic!("it is due"),
            }
        }
    }

    #[test]
    fn waits_double() {
        let start = Instant::now();
        let sent = Retransmission::new(start, Vec::new(), TRIES_HANDSHAKE);
        assert_eq!(copies(sent, start), (vec![0, 250, 750, 1750, 3750], 7750));
    }

    #[test]
    fn on_control_ike_sas_waits_stay_short_and_are_as_long_in_all() {
        let start = Instant::now();
        let sent = Retransmission::new(start, Vec::new(), TRIES_ESTABLISHED);
        let whole = copies(sent, start).1;
        let sent = Retransmission::new(start, Vec::new(), TRIES_CONTROL).each(RETRANSMIT_CONTROL);
        let (copies, end) = copies(sent, start);
        assert_eq!((&copies[..5], end), (&[0, 250, 750, 1750, 2750][..], whole));
    }

    #[test]
    fn a_host_that_is_late_waits_longer() {
        let start = Instant::now();
        let sent = Retransmission::knocking(start, Vec::new()).by(Duration::from_millis(100));
        assert_eq!(copies(sent, start).0[..4], [0, 260, 580, 1020]);
    }

    #[test]
    fn a_peer_that_is_being_started_is_found_soon() {
        let start = Instant::now();
        let (copies, end) = copies(Retransmission::knocking(start, Vec::new()), start);
        assert_eq!(copies[..8], [0, 60, 180, 420, 670, 920, 1170, 1670]);
        assert_eq!((copies.len() as u32, end), (TRIES_KNOCKING + TRIES_HANDSHAKE, 8670));
    }

    #[test]
    fn a_peer_that_is_probably_gone_gets_three_copies() {
        let start = Instant::now();
        assert_eq!(copies(Retransmission::sparse(start, Vec::new()), start), (vec![0, 60, 660], 4660));
    }
}
