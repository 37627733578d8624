//! Who is being served at a socket, within bounds: of connections, of the time that each may be silent, and of answers that
//! nobody takes. Where there is no room, whoever has most connections gives one up: the one that has been silent for
//! longest, or, where all of them are to be answered, the newest, since those who have waited are served first. It has no
//! clock and no socket.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The bounds of a socket.
#[derive(Debug, Clone, Copy)]
pub struct SeatLimits {
    /// Connections at a time.
    pub seats: usize,
    /// How long the other end may take for a request, or to take its answer.
    pub patience: Duration,
    /// Octets of answers that were not taken yet. One that is longer waits alone.
    pub octets: usize,
}

/// The name of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeatId(u64);

/// Whose a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SeatOwner {
    /// A user of this host.
    User(u32),
    /// Whoever has that address.
    Address(IpAddr),
}

#[derive(Debug)]
struct Seat<T> {
    guest: T,
    owner: SeatOwner,
    /// Since when it waits for its other end; `None` while it is to be answered.
    quiet: Option<Instant>,
    /// Octets of the answer that its other end has not taken yet.
    holds: usize,
}

/// All connections of a socket; `T` is what ends one.
#[derive(Debug)]
pub struct Seats<T> {
    limits: SeatLimits,
    seats: BTreeMap<SeatId, Seat<T>>,
    next: SeatId,
}

impl<T> Seats<T> {
    /// Nobody is there.
    pub fn new(limits: SeatLimits) -> Self {
        Self { limits, seats: BTreeMap::new(), next: SeatId(0) }
    }

    /// The name of the next connection.
    pub fn reserve(&mut self) -> SeatId {
        self.next.0 += 1;
        self.next
    }

    /// A connection begins. Returns the one that goes for it, which may be itself.
    pub fn sit(&mut self, now: Instant, id: SeatId, owner: SeatOwner, guest: T) -> Option<T> {
        self.seats.insert(id, Seat { guest, owner, quiet: Some(now), holds: 0 });
        if self.seats.len() <= self.limits.seats {
            return None;
        }
        let mut counts = BTreeMap::<SeatOwner, usize>::new();
        self.seats.values().for_each(|seat| *counts.entry(seat.owner).or_default() += 1);
        let first = |(id, seat): &(&SeatId, &Seat<T>)| {
            (Reverse(counts[&seat.owner]), seat.quiet.is_none(), seat.quiet, Reverse(**id))
        };
        let out = self.seats.iter().min_by_key(first).map(|(id, _)| *id);
        out.and_then(|id| self.leave(id))
    }

    /// It waits for its other end from now on.
    pub fn wait(&mut self, now: Instant, id: SeatId) {
        self.seats.get_mut(&id).into_iter().for_each(|seat| (seat.quiet, seat.holds) = (Some(now), 0));
    }

    /// It is to be answered.
    pub fn work(&mut self, id: SeatId) {
        self.seats.get_mut(&id).into_iter().for_each(|seat| seat.quiet = None);
    }

    /// An answer of so many octets waits for its other end. Returns those that go for it.
    pub fn hold(&mut self, now: Instant, id: SeatId, octets: usize) -> Vec<T> {
        let Some(seat) = self.seats.get_mut(&id) else { return Vec::new() };
        (seat.quiet, seat.holds) = (Some(now), octets);
        let mut out = Vec::new();
        while self.seats.values().map(|seat| seat.holds).fold(0, usize::saturating_add) > self.limits.octets {
            let others = self.seats.iter().filter(|(other, seat)| **other != id && seat.holds > 0);
            let Some(slowest) = others.min_by_key(|(id, seat)| (seat.quiet, **id)).map(|(id, _)| *id) else {
                break;
            };
            out.extend(self.leave(slowest));
        }
        out
    }

    /// A connection has ended.
    pub fn leave(&mut self, id: SeatId) -> Option<T> {
        self.seats.remove(&id).map(|seat| seat.guest)
    }

    /// Those that have been silent for too long.
    pub fn overdue(&mut self, now: Instant) -> Vec<T> {
        let patience = self.limits.patience;
        let is_over =
            |_: &SeatId, seat: &mut Seat<T>| seat.quiet.is_some_and(|since| since + patience <= now);
        self.seats.extract_if(.., is_over).map(|(_, seat)| seat.guest).collect()
    }

    /// When [`Seats::overdue`] has somebody next.
    pub fn deadline(&self) -> Option<Instant> {
        self.seats.values().filter_map(|seat| seat.quiet).min().map(|since| since + self.limits.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMITS: SeatLimits = SeatLimits { seats: 3, patience: SECOND, octets: 100 };

    const ONE: SeatOwner = SeatOwner::User(1);
    const OTHER: SeatOwner = SeatOwner::User(2);

    /// Three guests of one user, a millisecond after each other.
    fn full(now: Instant) -> (Seats<u8>, Vec<SeatId>) {
        let mut seats = Seats::new(LIMITS);
        let sit = |guest: u8| {
            let id = seats.reserve();
            assert_eq!(seats.sit(now + Duration::from_millis(guest.into()), id, ONE, guest), None);
            id
        };
        let ids = [0, 1, 2].map(sit).into();
        (seats, ids)
    }

    #[test]
    fn who_has_been_silent_for_longest_makes_room() {
        let now = Instant::now();
        let (mut seats, ids) = full(now);
        seats.work(ids[0]);
        let next = seats.reserve();
        assert_eq!(seats.sit(now + SECOND, next, ONE, 3), Some(1), "the first is to be answered");
        [ids[2], next].into_iter().for_each(|id| seats.work(id));
        let next = seats.reserve();
        assert_eq!(seats.sit(now + SECOND, next, ONE, 4), Some(4), "all are: there is no room");
    }

    #[test]
    fn whoever_takes_most_seats_gives_one_up() {
        let now = Instant::now();
        let (mut seats, ids) = full(now);
        ids.iter().for_each(|id| seats.work(*id));
        let other = seats.reserve();
        assert_eq!(
            seats.sit(now, other, OTHER, 3),
            Some(2),
            "all are to be answered: the newest of the crowd"
        );
        for guest in 4..9 {
            let next = seats.reserve();
            assert_eq!(seats.sit(now + SECOND, next, ONE, guest), Some(guest), "the other one stays");
        }
    }

    #[test]
    fn nobody_is_silent_for_ever() {
        let now = Instant::now();
        let (mut seats, ids) = full(now);
        assert_eq!(seats.deadline(), Some(now + SECOND));
        seats.work(ids[1]);
        assert_eq!(seats.overdue(now + SECOND), [0]);
        seats.wait(now + SECOND, ids[1]);
        assert_eq!(seats.overdue(now + 3 * SECOND), [1, 2]);
        assert_eq!(seats.deadline(), None);
    }

    #[test]
    fn answers_that_nobody_takes_make_room_for_others() {
        let now = Instant::now();
        let (mut seats, ids) = full(now);
        assert!(seats.hold(now, ids[0], 60).is_empty() && seats.hold(now, ids[1], 40).is_empty());
        assert_eq!(seats.hold(now + SECOND, ids[2], 50), [0]);
        seats.wait(now, ids[1]);
        assert!(seats.hold(now, ids[2], 1000).is_empty(), "a long one waits alone");
        assert!(seats.hold(now, SeatId(99), 1000).is_empty(), "it is gone");
    }
}
