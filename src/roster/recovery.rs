//! The recovery key: it outranks all admins, and is on no host.
//!
//! ```text
//! hostseal-recovery1_ base64url( private key (32), the first four octets of its SHA-256 )
//! ```
//! `hostseal init` prints it once. Its public half stands in the entry that founds the cluster.

use std::fmt;

use zeroize::Zeroizing;

use super::line::{self, NotALine};
use crate::identity::{NotAKey, PrivateKey};

/// What all recovery keys of this version begin with.
const HEAD: &str = "hostseal-recovery1_";

/// The key that outranks all admins.
pub struct RecoveryKey(Zeroizing<[u8; 32]>);

/// Why a line is no recovery key. It never repeats the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotARecoveryKey {
    /// It is something else.
    #[error("not a recovery key: `hostseal init` has printed it, and it begins with {HEAD}")]
    SomethingElse,
    /// Another version has made it.
    #[error("a recovery key of a later version of hostseal: install that version on this host first")]
    Later,
    /// It is not whole.
    #[error("this recovery key was cut off or altered: copy all of it, from {HEAD} to its end")]
    Damaged,
}

impl RecoveryKey {
    /// The one that is made of this Ed25519 seed (RFC 8032 section 5.1.5).
    pub fn new(seed: [u8; 32]) -> Self {
        Self(Zeroizing::new(seed))
    }

    /// The key itself.
    ///
    /// # Errors
    /// The cryptography library refuses it.
    pub fn key(&self) -> Result<PrivateKey, NotAKey> {
        PrivateKey::from_seed(&self.0)
    }

    /// The line to keep offline.
    pub fn to_line(&self) -> Zeroizing<String> {
        line::write(HEAD, &self.0, &[])
    }

    /// Reads a line; white space does not matter.
    ///
    /// # Errors
    /// It is no recovery key, or not whole.
    pub fn from_line(line: &str) -> Result<Self, NotARecoveryKey> {
        match line::read(HEAD, line) {
            Ok((seed, rest)) if rest.is_empty() => Ok(Self(seed)),
            Ok(_) | Err(NotALine::Later) => Err(NotARecoveryKey::Later),
            Err(NotALine::SomethingElse) => Err(NotARecoveryKey::SomethingElse),
            Err(NotALine::Damaged) => Err(NotARecoveryKey::Damaged),
        }
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_does_not_print() {
        let key = RecoveryKey::new([5; 32]);
        let line = key.to_line();
        assert!(line.starts_with(HEAD) && line.len() < 80, "{}", line.len());
        let (one, other) = line.split_at(40);
        let read = RecoveryKey::from_line(&format!(" {one}\n{other}\n")).unwrap();
        assert_eq!(read.key().unwrap().public(), key.key().unwrap().public());
        assert_eq!(format!("{key:?}"), "RecoveryKey(..)");
    }

    #[test]
    fn what_is_wrong_with_it_is_said_without_repeating_it() {
        let line = RecoveryKey::new([5; 32]).to_line();
        for end in HEAD.len()..line.len() {
            assert_eq!(RecoveryKey::from_line(&line[..end]).err(), Some(NotARecoveryKey::Damaged), "{end}");
        }
        let later = line.replacen('1', "2", 1);
        assert_eq!(RecoveryKey::from_line(&later).err(), Some(NotARecoveryKey::Later));
        let token = line.replacen(HEAD, "hostseal1_", 1);
        for wrong in ["", "hostseal", "hostseal-recovery", &token] {
            assert_eq!(RecoveryKey::from_line(wrong).err(), Some(NotARecoveryKey::SomethingElse), "{wrong}");
        }
        assert_eq!(super::super::Token::from_line(&line).err(), Some(super::super::NotAToken::SomethingElse));
    }
}
