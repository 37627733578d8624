//! What a node that joins and the member that lets it in tell each other, in pages.
//!
//! ```text
//! +-------------+--------+------------+
//! ! version (1) !  kind  ! number (4) !  and then
//! +-------------+--------+------------+
//! who joins says
//! 1 ask       the name of its entry (32), the name of the last entry that it has (32), zeroes for none
//! 2 join      its entry
//! a member says
//! 3 entries   those that follow, each: how long it is (2), and the entry; there are more
//! 4 rest      likewise; there are no more
//! 5 admitted  likewise: those by which the node is admitted
//! 6 refused   why (1), and in words (UTF-8)
//! ```
//! Whoever joins asks for the roster page by page: the entry that founds the cluster comes first, then the others in the
//! order of their names. So the member remembers nothing of it, and who begins again goes on where it was. The number
//! makes each page of an end another one than that before it.
//!
//! The name of its entry shows that it is the node that has used its token: nobody can guess that who has not seen
//! its keys.

use super::octets::{ClusterId, EntryId, LENGTH};
use super::page::{self, HEAD, PAGE_MAX, Sent};
use super::roster::Roster;
use super::surplus::ROSTER_MAX;
use super::{HeldOutBecause, NotEntitled, NotRedeemed, NotTaken, entry};

/// The version of the pages.
pub const JOIN_VERSION: u8 = 1;
/// The most octets of words: a member says less, and others are not believed more.
const WORDS_MAX: usize = 400;
/// What an entry of a roster that is heard counts at least: it is kept apart from the others.
const ENTRY_LEAST: usize = 128;

/// What one end tells the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinPage {
    /// What follows this entry? This will be, or is, my own.
    Ask {
        /// The name of the entry of who joins.
        join: EntryId,
        /// The last one that it has.
        after: Option<EntryId>,
    },
    /// This is my own entry.
    Join(Vec<u8>),
    /// These follow.
    Entries {
        /// Those.
        entries: Vec<Vec<u8>>,
        /// There are more.
        more: bool,
    },
    /// You are admitted by these.
    Admitted(Vec<Vec<u8>>),
    /// You are not.
    Refused(JoinRefusal),
}

/// Why a member does not let in who joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRefusal {
    /// The kind of reason.
    pub code: RefusalCode,
    /// The same in words of the member. Whoever answers in its place can say anything: no control characters are in it.
    pub words: String,
}

/// The kinds of [`JoinRefusal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCode {
    /// No admin has made the token, as far as the member has heard.
    TokenUnknown,
    /// Another node has joined by it.
    TokenUsed,
    /// It is over by the clock of the member.
    TokenExpired,
    /// An admin has taken it back.
    TokenTakenBack,
    /// It is for another node.
    TokenOfOther,
    /// Another node has the name.
    NameTaken,
    /// Another node has an address.
    AddressTaken,
    /// Another node has or had a key.
    KeyTaken,
    /// The node was removed.
    Removed,
    /// There is no room for it.
    Full,
    /// The entry is not taken.
    Entry,
    /// The member lets nobody in: it is none any more.
    NoMember,
    /// Who joins says too much.
    TooMuch,
    /// The member speaks another version.
    Version,
    /// The member does not know yet whether what it knows is old: later it may let the node in.
    NotReady,
    /// Something that only a later version knows.
    Other,
}

/// What octets are that are no page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAJoinPage {
    /// Their sender has another version.
    Version(u8),
    /// They are broken.
    Malformed,
}

/// The codes, by their numbers on the wire.
const CODES: [(u8, RefusalCode); 15] = [
    (1, RefusalCode::TokenUnknown),
    (2, RefusalCode::TokenUsed),
    (3, RefusalCode::TokenExpired),
    (4, RefusalCode::TokenTakenBack),
    (5, RefusalCode::TokenOfOther),
    (6, RefusalCode::NameTaken),
    (7, RefusalCode::AddressTaken),
    (8, RefusalCode::KeyTaken),
    (9, RefusalCode::Removed),
    (10, RefusalCode::Full),
    (11, RefusalCode::Entry),
    (12, RefusalCode::NoMember),
    (13, RefusalCode::TooMuch),
    (14, RefusalCode::Version),
    (15, RefusalCode::NotReady),
];

impl JoinPage {
    /// What follows `after` in `roster`, as much as fits into a page.
    pub fn of_roster(roster: &Roster, after: Option<EntryId>) -> Self {
        let mut sent = Sent::default();
        let more = roster.after(after).any(|entry| !sent.add(entry.octets()));
        JoinPage::Entries { entries: sent.entries(), more }
    }

    /// As it is told. What does not fit into a page is left out.
    pub fn octets(&self, number: u32) -> Vec<u8> {
        let mut octets = vec![JOIN_VERSION, self.kind()];
        octets.extend(number.to_be_bytes());
        match self {
            JoinPage::Ask { join, after } => {
                octets.extend(join.octets());
                octets.extend(after.map_or([0; LENGTH], |after| *after.octets()));
            }
            JoinPage::Join(entry) => octets.extend(entry),
            JoinPage::Entries { entries, .. } | JoinPage::Admitted(entries) => {
                page::write_entries(&mut octets, entries);
            }
            JoinPage::Refused(JoinRefusal { code, words }) => {
                octets.push(code.number());
                octets.extend(words.as_bytes());
            }
        }
        octets
    }

    /// Reads what [`JoinPage::octets`] wrote.
    ///
    /// # Errors
    /// It is none.
    pub fn read(octets: &[u8]) -> Result<Self, NotAJoinPage> {
        match octets.first() {
            Some(&JOIN_VERSION) if octets.len() <= PAGE_MAX => {
                Self::read_this(octets).ok_or(NotAJoinPage::Malformed)
            }
            Some(&JOIN_VERSION) | None => Err(NotAJoinPage::Malformed),
            Some(other) => Err(NotAJoinPage::Version(*other)),
        }
    }

    fn read_this(octets: &[u8]) -> Option<Self> {
        let ([_, kind, ..], rest) = octets.split_first_chunk::<HEAD>()?;
        match kind {
            1 => {
                let (join, after) = rest.split_first_chunk::<LENGTH>()?;
                let after: [u8; LENGTH] = after.try_into().ok()?;
                let after = (after != [0; LENGTH]).then(|| EntryId::new(after));
                Some(JoinPage::Ask { join: EntryId::new(*join), after })
            }
            2 => Some(JoinPage::Join(rest.to_vec())),
            3 => Some(JoinPage::Entries { entries: page::entries(rest)?, more: true }),
            4 => Some(JoinPage::Entries { entries: page::entries(rest)?, more: false }),
            5 => page::entries(rest).map(JoinPage::Admitted),
            6 => {
                let (code, words) = rest.split_first()?;
                let words = String::from_utf8_lossy(&words[..words.len().min(WORDS_MAX)]);
                let words = words.chars().filter(|c| !c.is_control()).collect();
                Some(JoinPage::Refused(JoinRefusal { code: RefusalCode::of(*code), words }))
            }
            _ => None,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            JoinPage::Ask { .. } => 1,
            JoinPage::Join(_) => 2,
            JoinPage::Entries { more: true, .. } => 3,
            JoinPage::Entries { more: false, .. } => 4,
            JoinPage::Admitted(_) => 5,
            JoinPage::Refused(_) => 6,
        }
    }
}

impl RefusalCode {
    fn number(self) -> u8 {
        CODES.iter().find(|(_, code)| *code == self).map_or(0, |(number, _)| *number)
    }

    fn of(number: u8) -> Self {
        CODES.iter().find(|(of, _)| *of == number).map_or(RefusalCode::Other, |(_, code)| *code)
    }
}

impl From<&NotRedeemed> for RefusalCode {
    fn from(why: &NotRedeemed) -> Self {
        match why {
            NotRedeemed::Entry(NotTaken::Full | NotTaken::TooMany) => RefusalCode::Full,
            NotRedeemed::Entry(_) => RefusalCode::Entry,
            NotRedeemed::OtherName(_) | NotRedeemed::OtherAddress(_) => RefusalCode::TokenOfOther,
            NotRedeemed::NotEntitled(why) => match why {
                NotEntitled::TokenUnknown => RefusalCode::TokenUnknown,
                NotEntitled::TokenUsed => RefusalCode::TokenUsed,
                NotEntitled::TokenExpired => RefusalCode::TokenExpired,
                NotEntitled::TokenTakenBack => RefusalCode::TokenTakenBack,
                NotEntitled::PlaceTaken(HeldOutBecause::NameTaken) => RefusalCode::NameTaken,
                NotEntitled::PlaceTaken(HeldOutBecause::AddressTaken(_)) => RefusalCode::AddressTaken,
                NotEntitled::PlaceTaken(_) => RefusalCode::KeyTaken,
                NotEntitled::NoMember => RefusalCode::NoMember,
                _ => RefusalCode::Entry,
            },
        }
    }
}

/// A roster that comes page by page from somebody who need not be a member.
#[derive(Debug)]
pub struct HeardRoster {
    cluster: ClusterId,
    founded: Option<Roster>,
    others: Vec<Vec<u8>>,
    /// How many octets those are.
    octets: usize,
    last: Option<EntryId>,
}

/// Why what comes is no roster of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotARoster {
    /// It begins with an entry that founds another cluster, or none.
    OtherCluster,
    /// It is longer than a roster can be.
    TooLong,
    /// An entry is written in a way that this version does not know.
    Unreadable,
}

impl HeardRoster {
    /// Nothing yet of the roster of `cluster`.
    pub fn new(cluster: ClusterId) -> Self {
        Self { cluster, founded: None, others: Vec::new(), octets: 0, last: None }
    }

    /// The last entry that has come.
    pub fn last(&self) -> Option<EntryId> {
        self.last
    }

    /// How many entries have come.
    pub fn count(&self) -> usize {
        self.others.len() + usize::from(self.founded.is_some())
    }

    /// More has come. Says whether anything of it is new.
    ///
    /// # Errors
    /// It cannot be part of the roster.
    pub fn add(&mut self, entries: Vec<Vec<u8>>) -> Result<bool, NotARoster> {
        let mut news = false;
        for entry in entries {
            let first = EntryId::from(self.cluster);
            let Some(founded) = &self.founded else {
                let founded = Roster::found(&entry).ok().filter(|roster| roster.cluster() == self.cluster);
                self.founded = Some(founded.ok_or(NotARoster::OtherCluster)?);
                (self.last, news) = (Some(first), true);
                continue;
            };
            if founded.get(first).is_some_and(|first| first.octets() == entry) {
                continue;
            }
            let id = entry::name_of(self.cluster, &entry).ok_or(NotARoster::Unreadable)?;
            if self.last != Some(first) && self.last.is_some_and(|last| id <= last) {
                continue;
            }
            self.octets += entry.len().max(ENTRY_LEAST);
            if self.octets > ROSTER_MAX {
                return Err(NotARoster::TooLong);
            }
            self.last = Some(id);
            self.others.push(entry);
            news = true;
        }
        Ok(news)
    }

    /// The roster, once all has come; `None` where not even its first entry has.
    pub fn into_roster(self) -> Option<Roster> {
        let mut roster = self.founded?;
        roster.merge(self.others.iter().map(Vec::as_slice));
        Some(roster)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::people::{Town, invite};
    use super::*;

    fn heard(roster: &Roster, cluster: ClusterId) -> Result<HeardRoster, NotARoster> {
        let mut heard = HeardRoster::new(cluster);
        loop {
            let page = JoinPage::of_roster(roster, heard.last()).octets(1);
            assert!(page.len() <= PAGE_MAX);
            let Ok(JoinPage::Entries { entries, more }) = JoinPage::read(&page) else { panic!("no entries") };
            heard.add(entries.clone())?;
            assert_eq!(heard.add(entries), Ok(false), "a page may come twice");
            if !more {
                return Ok(heard);
            }
        }
    }

    #[test]
    fn a_roster_comes_page_by_page_as_it_is() {
        let names: Vec<String> = (0..60).map(|at| format!("n{at}")).collect();
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        names[0] = "a";
        let mut town = Town::of(&names);
        town.invite("a", "t", invite("t", "x"));
        let heard_all = heard(&town.roster, town.roster.cluster()).unwrap();
        assert_eq!(heard_all.count(), town.roster.ids().count());
        let roster = heard_all.into_roster().unwrap();
        assert_eq!((roster.id(), roster.view()), (town.roster.id(), town.roster.view()));
        let other = ClusterId::new([9; 32]);
        assert_eq!(heard(&town.roster, other).err(), Some(NotARoster::OtherCluster));
    }

    #[test]
    fn nobody_makes_it_longer_than_a_roster_can_be() {
        let town = Town::new();
        let mut heard = heard(&town.roster, town.roster.cluster()).unwrap();
        // No signers, and no octet of JSON: it is as short as an entry can be. Those that follow have higher names.
        let mut entries: Vec<(EntryId, Vec<u8>)> = (0..40_000_u32)
            .map(|at| [&[1, 0][..], &at.to_be_bytes()].concat())
            .map(|entry| (entry::name_of(town.roster.cluster(), &entry).unwrap(), entry))
            .collect();
        entries.sort();
        let entries: Vec<Vec<u8>> = entries.into_iter().map(|(_, entry)| entry).collect();
        assert_eq!(heard.add(entries), Err(NotARoster::TooLong));
        assert_eq!(heard.add(vec![vec![2]]), Err(NotARoster::Unreadable));
    }

    #[test]
    fn what_is_said_of_a_refusal_does_not_reach_a_terminal_as_it_is() {
        let words = "no\u{1b}[2J\n".repeat(200);
        let refusal = JoinRefusal { code: RefusalCode::Full, words };
        let read = JoinPage::read(&JoinPage::Refused(refusal).octets(1));
        let Ok(JoinPage::Refused(JoinRefusal { code, words })) = read else { panic!("{read:?}") };
        assert_eq!(code, RefusalCode::Full);
        assert!(words.starts_with("no[2Jno[2J") && words.len() <= WORDS_MAX, "{words}");
        assert!(CODES.iter().all(|(number, code)| RefusalCode::of(*number) == *code));
        assert_eq!(RefusalCode::of(200), RefusalCode::Other);
        assert_eq!(JoinPage::read(&[2, 1, 0]), Err(NotAJoinPage::Version(2)));
    }

    proptest! {
        #[test]
        fn what_comes_is_read_as_it_was_written_or_not_at_all(
            octets in prop::collection::vec(any::<u8>(), 0..300),
            kind in 0..6u8,
        ) {
            let octets = [&[JOIN_VERSION, kind, 0, 0, 0, 9], octets.as_slice()].concat();
            if let Ok(page) = JoinPage::read(&octets) {
                prop_assert_eq!(page.octets(9), octets);
            }
        }

        #[test]
        fn any_octets_are_read_without_a_panic(octets in prop::collection::vec(any::<u8>(), 0..5000)) {
            let _ = JoinPage::read(&octets);
            let _ = HeardRoster::new(ClusterId::new([1; 32])).add(vec![octets]);
        }
    }
}
