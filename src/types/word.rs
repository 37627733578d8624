//! What an agent tells its peer about its own end of a child: the one notify that is hostseal's own.

use std::time::Instant;

use super::Spi;

/// The state of the sender's end of one child. The newest word says everything, so one that was lost costs
/// nothing; the revision tells which is the newest, as requests and answers may overtake each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// The index of the sender's inbound SA: the outbound SA of whoever receives the word.
    pub spi: Spi,
    /// What the sender wants to find in a probe that comes through that SA. It is random and travels only
    /// inside IKE's encryption and inside ESP, so whoever returns it has used the SA.
    pub token: [u8; 16],
    /// Counts the changes of `flags`, and wraps around.
    pub revision: u16,
    /// What the sender has done.
    pub flags: Flags,
}

impl Word {
    /// Whether it may be listened to after a word of revision `heard`.
    pub fn is_news(&self, heard: Option<u16>) -> bool {
        heard.is_none_or(|heard| self.revision.wrapping_sub(heard) < 1 << 15)
    }
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
    /// A probe of the other end has come: [`Flags::seen`] ahead of the word.
    In,
    /// That, and one of its own has reached the other end.
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
    /// is not known. What passed from then until the word was said is no part of anything's way.
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
    /// It takes from a probe that one of its own has come. Agents of before do not know such probes.
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
