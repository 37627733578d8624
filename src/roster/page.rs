//! What two members tell each other of their rosters, in pages.
//!
//! ```text
//! +-------------+--------+------------+
//! ! version (1) !  kind  ! number (4) !  and then
//! +-------------+--------+------------+
//! 1 summary  the name of the roster (32)
//! 2 ranges   each: how long its prefix is, in steps of four bits (1), the prefix (4), how many entries (4), their
//!            fingerprint (16)
//! 3 listing  how long its prefix is (1), the prefix (4), the names of all entries there, each (32)
//! 4 wanted   the names of entries, each (32)
//! 5 entries  each: how long it is (2), and the entry
//! 6 aside    octets of whoever uses the carriage
//! ```
//! The number makes each page of an end another one than that before it. Whatever has another version is ignored: its sender is newer, and says what this one understands too.

use sha2::{Digest, Sha256};

use super::octets::{EntryId, LENGTH, RosterId};

/// The most octets of a page: one message of IKE carries it.
pub const PAGE_MAX: usize = 4096;
/// What a page needs for an entry beside that.
pub(super) const AROUND_AN_ENTRY: usize = HEAD + 2;
/// The version of the pages.
const VERSION: u8 = 1;
/// What each page begins with.
pub(super) const HEAD: usize = 6;
/// The most octets of what is said aside.
pub const ASIDE_MAX: usize = PAGE_MAX - HEAD;
/// The octets of a fingerprint.
const FINGERPRINT: usize = 16;
/// The octets of a range.
const RANGE: usize = 9 + FINGERPRINT;
/// How many ranges fit into a page.
pub(super) const RANGES_MAX: usize = (PAGE_MAX - HEAD) / RANGE;
/// How many names fit into a page.
pub(super) const NAMES_MAX: usize = (PAGE_MAX - HEAD - 5) / LENGTH;
/// How long a prefix can be, in steps of four bits.
pub(super) const PREFIX_MAX: u8 = 8;

/// The entries whose names begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    /// The first bits of the names; the others are zero.
    bits: u32,
    /// How many steps of four bits count.
    steps: u8,
}

/// What an end has of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub prefix: Prefix,
    pub count: u32,
    pub fingerprint: [u8; FINGERPRINT],
}

/// What one member tells another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    /// This is what my roster is.
    Summary(RosterId),
    /// This is what my roster is, part by part.
    Ranges(Vec<Range>),
    /// These are all my entries there.
    Listing(Prefix, Vec<EntryId>),
    /// I lack these.
    Wanted(Vec<EntryId>),
    /// You lack these.
    Entries(Vec<Vec<u8>>),
    /// Nothing about rosters.
    Aside(Vec<u8>),
}

impl Prefix {
    /// All entries.
    pub const ALL: Prefix = Prefix { bits: 0, steps: 0 };

    /// The sixteen parts of it; none where it is as long as a prefix can be.
    pub fn parts(self) -> impl Iterator<Item = Prefix> {
        let steps = self.steps + 1;
        let parts = (0..16u32).filter(move |_| steps <= PREFIX_MAX);
        parts.map(move |part| Prefix { bits: self.bits | part << (32 - 4 * u32::from(steps)), steps })
    }

    /// The name before which no entry of it stands.
    pub fn first(self) -> EntryId {
        let mut octets = [0; LENGTH];
        octets[..4].copy_from_slice(&self.bits.to_be_bytes());
        EntryId::new(octets)
    }

    /// The name after which no entry of it stands.
    pub fn last(self) -> EntryId {
        let mut octets = [0xff; LENGTH];
        octets[..4].copy_from_slice(&(self.bits | !self.mask()).to_be_bytes());
        EntryId::new(octets)
    }

    /// Whether the name begins so.
    pub fn has(self, id: EntryId) -> bool {
        self.first() <= id && id <= self.last()
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - 4 * u32::from(self.steps)).unwrap_or(0)
    }

    fn read(octets: &[u8]) -> Option<Self> {
        let ([steps, bits @ ..], []) = octets.split_first_chunk::<5>()? else { return None };
        let prefix = Self { bits: u32::from_be_bytes(*bits), steps: *steps };
        (*steps <= PREFIX_MAX && prefix.bits & !prefix.mask() == 0).then_some(prefix)
    }

    fn octets(self) -> [u8; 5] {
        let [a, b, c, d] = self.bits.to_be_bytes();
        [self.steps, a, b, c, d]
    }
}

impl Range {
    /// That of a prefix of which there are `ids`, in their order.
    pub fn of(prefix: Prefix, ids: impl Iterator<Item = EntryId>) -> Self {
        let (mut hash, mut count) = (Sha256::new(), 0);
        for id in ids {
            hash.update(id.octets());
            count += 1;
        }
        let mut fingerprint = [0; FINGERPRINT];
        fingerprint.copy_from_slice(&hash.finalize()[..FINGERPRINT]);
        Self { prefix, count, fingerprint }
    }
}

impl Page {
    /// As it is told. What does not fit into a page is left out.
    pub fn octets(&self, number: u32) -> Vec<u8> {
        let mut octets = vec![VERSION, self.kind()];
        octets.extend(number.to_be_bytes());
        match self {
            Page::Summary(id) => octets.extend(id.octets()),
            Page::Ranges(ranges) => ranges.iter().take(RANGES_MAX).for_each(|range| {
                octets.extend(range.prefix.octets());
                octets.extend(range.count.to_be_bytes());
                octets.extend(range.fingerprint);
            }),
            Page::Listing(prefix, ids) => {
                octets.extend(prefix.octets());
                ids.iter().take(NAMES_MAX).for_each(|id| octets.extend(id.octets()));
            }
            Page::Wanted(ids) => ids.iter().take(NAMES_MAX).for_each(|id| octets.extend(id.octets())),
            Page::Entries(entries) => write_entries(&mut octets, entries),
            Page::Aside(said) => octets.extend(said.iter().take(ASIDE_MAX)),
        }
        octets
    }

    /// Reads what [`Page::octets`] wrote; `None` where it is nothing that we know.
    pub fn read(octets: &[u8]) -> Option<Self> {
        let ([version, kind, ..], rest) = octets.split_first_chunk::<HEAD>()?;
        if *version != VERSION || octets.len() > PAGE_MAX {
            return None;
        }
        match kind {
            1 => Some(Page::Summary(RosterId::new(rest.try_into().ok()?))),
            2 => all(rest, RANGE, range).map(Page::Ranges),
            3 => {
                let (prefix, names) = rest.split_at_checked(5)?;
                Some(Page::Listing(Prefix::read(prefix)?, all(names, LENGTH, name)?))
            }
            4 => all(rest, LENGTH, name).map(Page::Wanted),
            5 => entries(rest).map(Page::Entries),
            6 => Some(Page::Aside(rest.to_vec())),
            _ => None,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Page::Summary(_) => 1,
            Page::Ranges(_) => 2,
            Page::Listing(..) => 3,
            Page::Wanted(_) => 4,
            Page::Entries(_) => 5,
            Page::Aside(_) => 6,
        }
    }
}

/// The entries of a page.
#[derive(Default)]
pub(super) struct Sent {
    entries: Vec<Vec<u8>>,
    octets: usize,
}

impl Sent {
    /// Adds an entry where there is room for it; says whether there is.
    pub fn add(&mut self, entry: &[u8]) -> bool {
        let octets = self.octets + 2 + entry.len();
        let fits = HEAD + octets <= PAGE_MAX;
        if fits {
            self.octets = octets;
            self.entries.push(entry.to_vec());
        }
        fits
    }

    /// The page, if it says anything.
    pub fn page(self) -> Option<Page> {
        (!self.entries.is_empty()).then_some(Page::Entries(self.entries))
    }

    /// The entries.
    pub fn entries(self) -> Vec<Vec<u8>> {
        self.entries
    }
}

/// What stands in `octets` one after the other, each as long.
fn all<T>(octets: &[u8], length: usize, read: impl Fn(&[u8]) -> Option<T>) -> Option<Vec<T>> {
    let chunks = octets.chunks_exact(length);
    let whole = chunks.remainder().is_empty();
    whole.then(|| chunks.map(read).collect::<Option<Vec<T>>>()).flatten()
}

fn name(octets: &[u8]) -> Option<EntryId> {
    octets.try_into().ok().map(EntryId::new)
}

fn range(octets: &[u8]) -> Option<Range> {
    let (prefix, rest) = octets.split_at_checked(5)?;
    let (count, fingerprint) = rest.split_first_chunk()?;
    Some(Range {
        prefix: Prefix::read(prefix)?,
        count: u32::from_be_bytes(*count),
        fingerprint: fingerprint.try_into().ok()?,
    })
}

/// Writes entries, each with its length before it. What does not fit into a page is left out.
pub(super) fn write_entries(octets: &mut Vec<u8>, entries: &[Vec<u8>]) {
    for entry in entries {
        let Ok(length) = u16::try_from(entry.len()) else { continue };
        if octets.len() + 2 + entry.len() <= PAGE_MAX {
            octets.extend(length.to_be_bytes());
            octets.extend(entry);
        }
    }
}

/// Reads what [`write_entries`] wrote.
pub(super) fn entries(mut octets: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut entries = Vec::new();
    while !octets.is_empty() {
        let (length, rest) = octets.split_first_chunk()?;
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        entries.push(entry.to_vec());
        octets = rest;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_prefix_is_made_of_its_parts() {
        let mut prefix = Prefix::ALL;
        assert_eq!((prefix.first(), prefix.last()), (EntryId::new([0; 32]), EntryId::new([0xff; 32])));
        for steps in 1..=PREFIX_MAX {
            let parts: Vec<Prefix> = prefix.parts().collect();
            assert_eq!((parts.len(), parts[0].first()), (16, prefix.first()));
            assert_eq!(parts[15].last(), prefix.last());
            assert!(parts.is_sorted() && parts.windows(2).all(|two| two[0].last() < two[1].first()));
            prefix = parts[usize::from(steps) * 7 % 16];
            assert_eq!(Prefix::read(&prefix.octets()), Some(prefix));
        }
        assert_eq!(prefix.parts().count(), 0);
    }

    proptest! {
        #[test]
        fn what_comes_is_read_as_it_was_written_or_not_at_all(octets in prop::collection::vec(any::<u8>(), 0..600), kind in 0..7u8) {
            let octets = [&[VERSION, kind, 0, 0, 0, 9], octets.as_slice()].concat();
            if let Some(page) = Page::read(&octets) {
                prop_assert_eq!(page.octets(9), octets);
            }
        }

        #[test]
        fn entries_are_paged_without_a_loss(
            lengths in prop::collection::vec(1..=PAGE_MAX - AROUND_AN_ENTRY, 0..40),
        ) {
            let mut all: std::collections::VecDeque<Vec<u8>> =
                lengths.iter().map(|length| vec![7; *length]).collect();
            let whole = all.clone();
            let mut told = Vec::new();
            while !all.is_empty() {
                let mut sent = Sent::default();
                while all.front().is_some_and(|entry| sent.add(entry)) {
                    all.pop_front();
                }
                let octets = sent.page().map(|page| page.octets(1)).unwrap_or_default();
                prop_assert!(octets.len() <= PAGE_MAX);
                let Some(Page::Entries(entries)) = Page::read(&octets) else { panic!("no entries") };
                told.extend(entries);
            }
            prop_assert_eq!(told, Vec::from(whole));
        }
    }
}
