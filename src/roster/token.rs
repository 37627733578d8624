//! Tokens: what whoever joins is given, on one line.
//!
//! ```text
//! hostseal1_ base64url( private key (32), JSON, the first four octets of their SHA-256 )
//! ```
//! A token says which cluster it is for, where to ask, and what its invite allows; what counts is the invite in the
//! roster. It holds the private half of the invite's key, so whoever has it can join: it does not print.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::line::{self, NotALine};
use super::octets::{ClusterId, Signer};
use super::saying::Seconds;
use crate::identity::{NotAKey, PrivateKey};
use crate::types::{NodeName, UnixTime};

/// What all tokens of this version begin with.
const HEAD: &str = "hostseal1_";

/// What whoever joins is given.
pub struct Token {
    /// What people call the cluster.
    pub cluster: String,
    /// The cluster.
    pub id: ClusterId,
    /// Where members listen for IKE.
    pub seeds: Vec<SocketAddr>,
    /// The name that the node gets; `None` where it says it itself.
    pub name: Option<NodeName>,
    /// The node will be an admin.
    pub admin: bool,
    /// The last second in which a member admits the node.
    pub expires: UnixTime,
    /// The private half of the invite's key, an Ed25519 seed (RFC 8032 section 5.1.5).
    seed: Zeroizing<[u8; 32]>,
}

/// As it stands in a token.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenJson {
    cluster: String,
    id: ClusterId,
    seeds: Vec<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<NodeName>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    admin: bool,
    expires: Seconds,
}

/// Why a line is not a token. It never repeats the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAToken {
    /// It is something else.
    #[error("not a token: `hostseal token create` on an admin node prints one, which begins with {HEAD}")]
    SomethingElse,
    /// Another version has made it.
    #[error("a token of a later version of hostseal: install that version on this host first")]
    Later,
    /// It is not whole.
    #[error("this token was cut off or altered: copy all of it, from {HEAD} to its end")]
    Damaged,
}

impl Token {
    /// A token for the invite whose private key is made of `seed`.
    pub fn new(
        (cluster, id): (String, ClusterId),
        seeds: Vec<SocketAddr>,
        (name, admin): (Option<NodeName>, bool),
        expires: UnixTime,
        seed: [u8; 32],
    ) -> Self {
        Self { cluster, id, seeds, name, admin, expires, seed: Zeroizing::new(seed) }
    }

    /// The key that the invite's entry names, and that the join is signed with.
    ///
    /// # Errors
    /// The cryptography library refuses it.
    pub fn key(&self) -> Result<PrivateKey, NotAKey> {
        PrivateKey::from_seed(&self.seed)
    }

    /// Who signs a join by it.
    ///
    /// # Errors
    /// The cryptography library refuses its key.
    pub fn signer(&self) -> Result<Signer, NotAKey> {
        Signer::of(&self.key()?).ok_or(NotAKey::Private)
    }

    /// The line to give to whoever joins.
    pub fn to_line(&self) -> Zeroizing<String> {
        let json = TokenJson {
            cluster: self.cluster.clone(),
            id: self.id,
            seeds: self.seeds.clone(),
            name: self.name.clone(),
            admin: self.admin,
            expires: self.expires.into(),
        };
        // Plain data with string keys: writing it to memory has nothing to fail at.
        let json = serde_json::to_vec(&json).unwrap_or_default();
        line::write(HEAD, &self.seed, &json)
    }

    /// Reads a line; white space around it and within, as terminals break lines, does not matter.
    ///
    /// # Errors
    /// It is no token, or not whole.
    pub fn from_line(line: &str) -> Result<Self, NotAToken> {
        let (seed, json) = line::read(HEAD, line)?;
        let json: TokenJson = serde_json::from_slice(&json).map_err(|_| NotAToken::Later)?;
        let TokenJson { cluster, id, seeds, name, admin, expires: Seconds(expires) } = json;
        Ok(Self { cluster, id, seeds, name, admin, expires: UnixTime(expires), seed })
    }
}

impl From<NotALine> for NotAToken {
    fn from(why: NotALine) -> Self {
        match why {
            NotALine::SomethingElse => NotAToken::SomethingElse,
            NotALine::Later => NotAToken::Later,
            NotALine::Damaged => NotAToken::Damaged,
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(for {})", self.cluster)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> Token {
        let seeds = vec!["10.0.0.1:500".parse().unwrap(), "[fd00::1]:500".parse().unwrap()];
        let name = Some("b".parse().unwrap());
        Token::new(("prod".to_owned(), ClusterId::new([7; 32])), seeds, (name, true), UnixTime(9), [5; 32])
    }

    #[test]
    fn a_token_is_read_as_it_was_written_also_where_a_terminal_broke_it() {
        let (token, line) = (token(), token().to_line());
        assert!(line.starts_with(HEAD) && line.len() < 500, "{}", line.len());
        let (one, other) = line.split_at(90);
        for line in [line.to_string(), format!("  {one}\n  {other}\n")] {
            let read = Token::from_line(&line).unwrap();
            assert_eq!((&read.cluster, read.id, &read.seeds), (&token.cluster, token.id, &token.seeds));
            assert_eq!((&read.name, read.admin, read.expires), (&token.name, true, UnixTime(9)));
            assert_eq!(read.signer(), token.signer());
        }
        assert_eq!(format!("{token:?}"), "Token(for prod)");
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said_without_repeating_it() {
        let line = token().to_line();
        for end in HEAD.len()..line.len() {
            assert_eq!(Token::from_line(&line[..end]).err(), Some(NotAToken::Damaged), "{end}");
        }
        let later = line.replacen('1', "2", 1);
        assert_eq!(Token::from_line(&later).err(), Some(NotAToken::Later));
        for wrong in ["", "secret", "hostseal", "hostseal join", "hostsealx_", &"A".repeat(5000)] {
            assert_eq!(Token::from_line(wrong).err(), Some(NotAToken::SomethingElse), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn an_altered_token_is_none(at in 0..200usize, to in any::<char>()) {
            let line = token().to_line();
            let altered: String =
                line.chars().enumerate().map(|(here, was)| if here == at { to } else { was }).collect();
            let same = altered.split_ascii_whitespace().collect::<String>() == *line;
            prop_assert_eq!(Token::from_line(&altered).is_ok(), same);
        }
    }
}
