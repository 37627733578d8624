//! What the agent and the helper that speaks to a store say to each other: one JSON object a line, on a Unix stream
//! socket that the agent connects to (docs/etcd.md).
//!
//! ```text
//! agent    --- open ------>  helper      once, with the open files of the CA, the certificate and the key
//! agent    <-- listing ----  helper      the store answers: everything that it has follows
//! agent    <-- has --------  helper      an entry, in the order in which the store got them
//! agent    <-- listed -----  helper      that is everything; from here on what is new follows
//! agent    --- put ------->  helper      store this entry, unless the store has one of that name
//! agent    <-- has, gone --  helper      the store has got an entry, or lost one
//! agent    <-- refused ----  helper      the store does not take what was put; it is read all the same
//! agent    <-- away -------  helper      no endpoint answers; the helper goes on trying, and lists again then
//! ```
//! There is no answer to `put`: what the store has comes back with `has`. What was put and did not come back before the
//! next `listed` is to be put again. Neither end believes the other: a line has a bound, whatever cannot be read ends
//! the connection, and entries carry their own signatures.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version of all this. A helper that cannot speak it ends the connection.
pub const VERSION: u32 = 1;
/// The most octets of a line, with its end.
pub const LINE_MAX: usize = 16 << 10;
/// The most octets of what an entry holds.
pub const VALUE_MAX: usize = 4096;
/// How many entries a store tells of at most, and how many octets in all.
pub const LISTED_MAX: usize = 32 << 10;
/// See [`LISTED_MAX`].
pub const LISTED_OCTETS_MAX: usize = 8 << 20;
/// How many characters of the words of a store are told.
pub const WORDS_MAX: usize = 500;
/// The files that come with [`StoreOrder::Open`], in this order: the CA, the certificate with what is between it and a
/// CA, the private key; each as PEM.
pub const FILES: usize = 3;
/// The digits of a name.
const DIGITS: usize = 64;

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum StoreOrder {
    /// The first line: which store this is about.
    Open {
        /// [`VERSION`].
        version: u32,
        /// Where the store is, as `https://HOST:PORT`, each of them as good as the others.
        endpoints: Vec<String>,
        /// What the names of all entries stand behind.
        prefix: String,
    },
    /// Stores an entry, unless there is one of its name.
    Put(StoredEntry),
}

/// What the helper says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub enum StoreNews {
    /// Everything that the store has follows.
    Listing,
    /// It has this.
    Has(StoredEntry),
    /// That was everything.
    Listed {
        /// How many things lie there that are no entries, by their names or their length.
        strange: u64,
    },
    /// It has no entry of this name any more.
    Gone {
        /// Which.
        name: EntryName,
    },
    /// It does not take what was put.
    Refused {
        /// What it says.
        why: String,
    },
    /// No endpoint answers.
    Away {
        /// Each endpoint, and what came of it.
        why: String,
    },
}

/// An entry as the store has it: nobody has looked at its signatures.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEntry {
    /// What it is called there.
    pub name: EntryName,
    /// What it holds.
    #[serde(with = "octets")]
    pub value: Vec<u8>,
}

impl fmt::Debug for StoredEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} octets)", self.name, self.value.len())
    }
}

/// The name of an entry: 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryName(String);

impl EntryName {
    /// The name that is these octets.
    pub fn of(octets: &[u8; DIGITS / 2]) -> Self {
        Self(octets.iter().map(|octet| format!("{octet:02x}")).collect())
    }

    /// The octets that it is.
    pub fn octets(&self) -> [u8; DIGITS / 2] {
        let digit = |at: usize| match self.0.as_bytes().get(at) {
            Some(digit @ b'0'..=b'9') => digit - b'0',
            Some(digit) => digit.wrapping_sub(b'a') + 10,
            None => 0,
        };
        std::array::from_fn(|at| digit(2 * at) << 4 | digit(2 * at + 1))
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<EntryName> for String {
    fn from(name: EntryName) -> Self {
        name.0
    }
}

impl TryFrom<String> for EntryName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match text.len() == DIGITS && text.bytes().all(digit) {
            true => Ok(Self(text)),
            false => Err("the name of an entry is 64 lower-case hexadecimal digits"),
        }
    }
}

/// A message as a line, with its end.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Nothing in a message can fail to be written.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// It is no such message, or one that only a later version knows.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(line)
}

/// Words of somebody else as they may be told: one line of printable text, and not too much of it.
pub fn words(said: &str) -> String {
    let printable = said.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(WORDS_MAX).collect()
}

mod octets {
    use super::*;

    pub(super) fn serialize<S: Serializer>(octets: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(octets))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let octets = STANDARD.decode(String::deserialize(from)?).map_err(serde::de::Error::custom)?;
        match octets.len() <= VALUE_MAX {
            true => Ok(octets),
            false => Err(serde::de::Error::custom("an entry is longer than it may be")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(length: usize) -> StoredEntry {
        StoredEntry { name: "0f".repeat(32).try_into().unwrap(), value: vec![7; length] }
    }

    /// Whoever writes another helper goes by these lines.
    #[test]
    fn what_is_said_looks_like_this() {
        let line = |message: &StoreNews| String::from_utf8(encode(message)).unwrap();
        let name = "0f".repeat(32);
        assert_eq!(line(&StoreNews::Listing), "{\"news\":\"listing\"}\n");
        let has = format!("{{\"news\":\"has\",\"name\":\"{name}\",\"value\":\"Bwc=\"}}\n");
        assert_eq!(line(&StoreNews::Has(entry(2))), has);
        assert_eq!(line(&StoreNews::Listed { strange: 1 }), "{\"news\":\"listed\",\"strange\":1}\n");
        let open =
            StoreOrder::Open { version: 1, endpoints: vec!["https://a:2379".into()], prefix: "/p/".into() };
        let text =
            "{\"order\":\"open\",\"version\":1,\"endpoints\":[\"https://a:2379\"],\"prefix\":\"/p/\"}\n";
        assert_eq!(String::from_utf8(encode(&open)).unwrap(), text);
        for message in [StoreOrder::Put(entry(0)), open] {
            assert_eq!(decode::<StoreOrder>(&encode(&message)).unwrap(), message);
        }
    }

    #[test]
    fn the_longest_entry_has_room_in_a_line_and_a_longer_one_is_refused() {
        let line = encode(&StoreNews::Has(entry(VALUE_MAX)));
        assert!(line.len() <= LINE_MAX);
        assert!(decode::<StoreNews>(&line).is_ok());
        assert!(decode::<StoreNews>(&encode(&StoreNews::Has(entry(VALUE_MAX + 1)))).is_err());
    }

    #[test]
    fn names_are_digits() {
        let octets = std::array::from_fn(|at| (37 * at) as u8);
        assert_eq!(EntryName::of(&octets).octets(), octets);
        assert_eq!(EntryName::try_from(EntryName::of(&octets).to_string()), Ok(EntryName::of(&octets)));
        for wrong in ["", "0", &"0F".repeat(32), &"0f".repeat(33), &"/.".repeat(32)] {
            assert!(EntryName::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_of_others_are_one_line_and_short() {
        assert_eq!(words("one\ntwo\u{1b}[31m"), "one two [31m");
        assert_eq!(words(&"é".repeat(9999)).chars().count(), WORDS_MAX);
    }
}
