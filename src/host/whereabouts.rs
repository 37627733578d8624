//! What a host calls itself, and where it says that it is, when it becomes a member of a cluster: what its operator says,
//! or what its system does.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::types::NodeName;
use crate::types::units::listed;

/// How many addresses an error lists.
const LISTED: usize = 16;
/// What hosts are called that nobody has named.
const NAMELESS: [&str; 4] = ["", "(none)", "localhost", "localhost.localdomain"];

/// Why it is not known what a host is to be called, or where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unplaced {
    /// The system has no name that another host could not have.
    Nameless {
        /// What the system is called.
        host: String,
        /// What it could be called.
        suggestion: String,
    },
    /// The name of the system is none for a node.
    BadName(String),
    /// This is no address of this host.
    NotOwn {
        /// What was asked for.
        address: IpAddr,
        /// What there is.
        own: BTreeSet<IpAddr>,
    },
    /// It is not clear by which of these the others reach this host.
    Several(BTreeSet<IpAddr>),
    /// It has none.
    NoAddress,
}

impl std::error::Error for Unplaced {}

impl fmt::Display for Unplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unplaced::Nameless { host, suggestion } => write!(
                f,
                "this host is called {host:?}, as others may be too: say what it is to be called, for example `--node \
                 {suggestion}`"
            ),
            Unplaced::BadName(why) => {
                write!(f, "the name of this host cannot be that of a node: {why}. Say another one: `--node NAME`")
            }
            Unplaced::NotOwn { address, own } if own.is_empty() => {
                write!(f, "{address} is no address of this host, which has none")
            }
            Unplaced::NotOwn { address, own } => {
                write!(f, "{address} is no address of this host, which has {}", listed(own, LISTED))
            }
            Unplaced::Several(addresses) => write!(
                f,
                "this host could be reached by each of {}: say by which the others do, `--address ADDRESS`, once for IPv4 \
                 and once for IPv6",
                listed(addresses, LISTED)
            ),
            Unplaced::NoAddress => f.write_str(
                "this host has no address by which others could reach it: configure its network first, or say which one \
                 it is (`--address ADDRESS`)",
            ),
        }
    }
}

/// What a host is called: as its operator says (`given`), or as its system is.
///
/// # Errors
/// Its system has no name that is its alone.
pub fn name(given: Option<NodeName>, host: &str, addresses: &[IpAddr]) -> Result<NodeName, Unplaced> {
    match given {
        Some(name) => Ok(name),
        None if NAMELESS.contains(&host.to_ascii_lowercase().as_str()) => {
            let first = addresses.first().map(ToString::to_string).unwrap_or_default();
            let suggestion = format!("node-{}", first.replace([':', '.'], "-"));
            Err(Unplaced::Nameless { host: host.to_owned(), suggestion })
        }
        None => host.parse().map_err(Unplaced::BadName),
    }
}

/// Where a host is: where its operator says (`given`), or one address of each family that is a candidate.
///
/// # Errors
/// It has no such address, or several.
pub fn addresses(
    given: &[IpAddr],
    own: &BTreeSet<IpAddr>,
    candidates: &BTreeSet<IpAddr>,
) -> Result<Vec<IpAddr>, Unplaced> {
    if let Some(address) = given.iter().find(|address| !own.contains(address)) {
        return Err(Unplaced::NotOwn { address: *address, own: own.clone() });
    }
    if !given.is_empty() {
        let unique: BTreeSet<IpAddr> = given.iter().copied().collect();
        return Ok(unique.into_iter().collect());
    }
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = candidates.iter().copied().partition(IpAddr::is_ipv4);
    if v4.len() > 1 || v6.len() > 1 {
        let several = [v4, v6].into_iter().filter(|family| family.len() > 1).flatten();
        return Err(Unplaced::Several(several.collect()));
    }
    if candidates.is_empty() { Err(Unplaced::NoAddress) } else { Ok(candidates.iter().copied().collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn list(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_host_has_the_name_that_it_is_given_or_that_of_its_system() {
        let at = list(&["10.0.0.7"]);
        let given = Some("a".parse().unwrap());
        assert_eq!(name(given, "localhost", &at).unwrap().as_str(), "a");
        assert_eq!(name(None, "db-1.example.com", &at).unwrap().as_str(), "db-1.example.com");
        for host in ["localhost", "LOCALHOST", "localhost.localdomain", "(none)", ""] {
            let words = name(None, host, &at).unwrap_err().to_string();
            assert!(words.contains("`--node node-10-0-0-7`"), "{words}");
        }
        let words = name(None, "a b", &at).unwrap_err().to_string();
        assert!(words.contains("\"a b\" is not a name") && words.contains("--node NAME"), "{words}");
    }

    #[test]
    fn one_address_of_each_family_is_taken_and_several_are_listed() {
        let own = set(&["10.0.0.1", "10.0.0.2", "fd00::1"]);
        let both = set(&["10.0.0.1", "fd00::1"]);
        assert_eq!(addresses(&[], &own, &both), Ok(list(&["10.0.0.1", "fd00::1"])));
        assert_eq!(addresses(&[], &own, &set(&["10.0.0.2"])), Ok(list(&["10.0.0.2"])));
        let given = list(&["10.0.0.2", "10.0.0.1", "10.0.0.2"]);
        assert_eq!(addresses(&given, &own, &both), Ok(list(&["10.0.0.1", "10.0.0.2"])));
        let words = addresses(&[], &own, &own).unwrap_err().to_string();
        assert!(words.contains("10.0.0.1, 10.0.0.2: say by which") && words.contains("--address"), "{words}");
        assert!(!words.contains("fd00"), "that one is clear: {words}");
        let words = addresses(&list(&["10.0.0.9"]), &own, &both).unwrap_err().to_string();
        assert!(words.starts_with("10.0.0.9 is no address of this host, which has 10.0.0.1"), "{words}");
        assert_eq!(addresses(&[], &own, &set(&[])), Err(Unplaced::NoAddress));
    }
}
