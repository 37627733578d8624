//! What an agent tells its peer about its own end of a child, in octets that the key exchange carries and does not
//! read.
//!
//! ```text
//!  0                   1                   2                   3
//! +---------------+---------------+-------------------------------+
//! !  version (1)  !     flags     !           revision            !
//! +---------------+---------------+-------------------------------+
//! !                        token, 16 octets                       !
//! +---------------------------------------------------------------+
//! !        milliseconds until the sender's trial ends, or 0       !
//! +-------------------------------+-------------------------------+
//! !             round             !            passed             !
//! +-------------------------------+-------------------------------+
//! !     microseconds since the first probe came to the sender      !
//! +---------------------------------------------------------------+
//! ```
//! Where the last fields are missing, the sender does not measure, or knows of no rounds, or of no trials either.
//! Whatever follows is of a later version and is ignored.

use std::time::{Duration, Instant};

/// The version of the octets.
const VERSION: u8 = 1;
/// How many this version has.
const LENGTH: usize = 32;

/// The state of the sender's end of one child. The newest report says everything, so one that was lost costs
/// nothing; the revision tells which is the newest, as requests and answers may overtake each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// What the sender wants to find in a probe that comes through its inbound SA. It is random and travels only
    /// inside IKE's encryption and inside ESP, so whoever returns it has used the SA.
    pub token: [u8; 16],
    /// Counts the changes of `flags`, and wraps around.
    pub revision: u16,
    /// What the sender has done.
    pub flags: Flags,
}

impl Report {
    /// The first one about a child, which is said while it is being agreed.
    pub fn first(token: [u8; 16]) -> Self {
        Self { token, revision: 0, flags: Flags::of_new_child() }
    }

    /// As it is said `now`: times are relative.
    pub fn to_octets(&self, now: Instant) -> Vec<u8> {
        let mut octets = Vec::with_capacity(LENGTH);
        octets.extend([VERSION, self.flags.bits()]);
        octets.extend(self.revision.to_be_bytes());
        octets.extend(self.token);
        octets.extend(self.flags.trial.map_or(0, |end| milliseconds(end, now)).to_be_bytes());
        if let Some(Rounds { round, passed, came }) = self.flags.rounds {
            octets.extend([round, passed].map(u16::to_be_bytes).concat());
            octets.extend(came.map_or(0, |came| microseconds(came, now)).to_be_bytes());
        }
        octets
    }

    /// The report in `octets`, which came in at `now`, if it is one of a version that we know.
    pub fn from_octets(octets: &[u8], now: Instant) -> Option<Self> {
        let ([version, flags, revision @ ..], rest) = octets.split_first_chunk::<4>()?;
        let (token, rest) = rest.split_first_chunk::<16>()?;
        let left = rest.first_chunk().map_or(0, |left| u32::from_be_bytes(*left));
        let trial = (left != 0).then(|| now + Duration::from_millis(left.into()));
        let rounds =
            rest.get(4..).and_then(<[u8]>::split_first_chunk::<4>).map(|([a, b, c, d], rest)| Rounds {
                round: u16::from_be_bytes([*a, *b]),
                passed: u16::from_be_bytes([*c, *d]),
                came: rest.first_chunk().and_then(|passed| {
                    now.checked_sub(Duration::from_micros(u32::from_be_bytes(*passed).into()))
                }),
            });
        (*version == VERSION).then_some(Self {
            token: *token,
            revision: u16::from_be_bytes(*revision),
            flags: Flags { trial, rounds, ..Flags::from_bits(*flags) },
        })
    }

    /// Whether it may be listened to after a report of revision `heard`.
    pub fn is_news(&self, heard: Option<u16>) -> bool {
        heard.is_none_or(|heard| self.revision.wrapping_sub(heard) < 1 << 15)
    }
}

/// What is left until `end`: at least 1, as 0 says that there is no end.
fn milliseconds(end: Instant, now: Instant) -> u32 {
    let left = end.saturating_duration_since(now).as_millis();
    u32::try_from(left).unwrap_or(u32::MAX).max(1)
}

/// What has passed since `came`.
fn microseconds(came: Instant, now: Instant) -> u32 {
    u32::try_from(now.saturating_duration_since(came).as_micros()).unwrap_or(u32::MAX)
}

/// What travels through an outbound SA to show that it gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// What the other end wants to find in it.
    pub token: [u8; 16],
    /// How far its sender knows ESP to get through.
    pub passage: Passage,
}

/// How far the end that sends a probe knows ESP to get through. Only who [`Flags::heeds`] it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Nothing is said of it.
    Unsaid,
    /// A probe of the other end has come: [`Flags::seen`] ahead of the report.
    In,
    /// A probe has come each way.
    Both,
}

/// How far an end has come with proving a child (`protect::proof`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rounds {
    /// The round that it is in.
    pub round: u16,
    /// The newest round in which a probe has come through its inbound SA, where [`Flags::seen`] says that
    /// one has.
    pub passed: u16,
    /// When the first probe of all came to the sender's host, by the clock of whoever holds this; `None` where that
    /// is not known. The time from then until the report was sent is spent on no path.
    pub came: Option<Instant>,
}

/// What an end has done for one child, and whether that is meant to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// Its inbound and outbound SA are in its kernel.
    pub installed: bool,
    /// A probe has come through its inbound SA: the way from the other end to it works.
    pub seen: bool,
    /// Its outbound policy sends through the child.
    pub sending: bool,
    /// Its inbound policy accepts clear packets of this pair: it is on its way to the clear.
    pub open: bool,
    /// It is proven that its probes do not get through.
    pub unheard: bool,
    /// It takes from a probe that its own has come. Earlier agents do not know such probes.
    pub heeds: bool,
    /// When its host goes back to the clear, unless its operator confirms before; `None` for a host that is
    /// not on trial.
    pub trial: Option<Instant>,
    /// Its rounds; `None` from an agent that knows of none.
    pub rounds: Option<Rounds>,
}

impl Flags {
    /// What this version has done for a child that is new.
    pub fn of_new_child() -> Self {
        Self { heeds: true, ..Self::default() }
    }

    /// One bit each, from the lowest: installed, seen, sending, open, unheard, heeds.
    pub fn bits(self) -> u8 {
        [self.installed, self.seen, self.sending, self.open, self.unheard, self.heeds]
            .into_iter()
            .enumerate()
            .fold(0, |bits, (at, flag)| bits | (u8::from(flag) << at))
    }

    /// The flags of `bits`, without rounds; bits that this version does not know are ignored.
    pub fn from_bits(bits: u8) -> Self {
        let flag = |at: u8| bits & (1 << at) != 0;
        Self {
            installed: flag(0),
            seen: flag(1),
            sending: flag(2),
            open: flag(3),
            unheard: flag(4),
            heeds: flag(5),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever a peer tells is read or is no report, and a report is read as it was said.
        #[test]
        fn reports_are_read_as_they_were_said(octets in prop::collection::vec(any::<u8>(), 0..64)) {
            let now = Instant::now();
            let version = [&[VERSION][..], &octets].concat();
            prop_assert!(octets.first() == Some(&VERSION) || Report::from_octets(&octets, now).is_none());
            if let Some(report) = Report::from_octets(&version, now) {
                // Where nothing says when the first probe came, it came now.
                let said = report.to_octets(now);
                let again = Report::from_octets(&said, now).map(|again| again.to_octets(now));
                prop_assert_eq!(again, Some(said));
            } else {
                prop_assert!(version.len() < 20);
            }
        }
    }

    /// A trial that is over says so, as no time left is no trial.
    #[test]
    fn the_end_of_a_trial_is_still_a_trial() {
        let now = Instant::now();
        let flags = Flags { trial: Some(now), ..Flags::default() };
        let said = Report { flags, ..Report::first([5; 16]) }.to_octets(now);
        let heard = Report::from_octets(&said, now).unwrap();
        assert_eq!(heard.flags.trial, Some(now + Duration::from_millis(1)));
    }

    /// Times pass while a report waits to be sent.
    #[test]
    fn times_are_as_they_are_when_it_is_said() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let rounds = Some(Rounds { came: Some(now), ..Rounds::default() });
        let flags = Flags { trial: Some(now + 60 * second), rounds, ..Flags::default() };
        let report = Report { flags, ..Report::first([5; 16]) };
        let later = now + 5 * second;
        assert_eq!(Report::from_octets(&report.to_octets(later), later), Some(report));
    }
}
