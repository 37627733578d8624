//! Signed entries: how they are written, and whether they are what they seem.
//!
//! ```text
//! +-------------+-------------+----------------------------------+----------------+
//! ! version (1) !  signatures ! each: signer (32), signature (64) ! statement, JSON !
//! +-------------+-------------+----------------------------------+----------------+
//! ```
//! What is signed is [`LABEL`], the cluster and the statement, octet by octet as it is stored: it is never written anew.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::not_taken::NotTaken;
use super::octets::{ClusterId, EntryId, LENGTH, Signer};
use super::page::{self, PAGE_MAX};
use super::saying::{Saying, Statement};
use crate::identity::{CryptoFailed, PrivateKey};

/// The most octets of an entry: it fits into a page.
pub const ENTRY_MAX: usize = PAGE_MAX - page::AROUND_AN_ENTRY;

/// What all signatures of entries begin with, so that none can be taken for a signature of something else.
const LABEL: &[u8; 32] = b"hostseal roster entry, version 1";
/// The version of how an entry is written.
const VERSION: u8 = 1;
/// The octets of an Ed25519 signature (RFC 8032 section 5.1.6).
const SIGNATURE: usize = 64;

/// What an entry says, whoever has signed it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    id: EntryId,
    statement: Statement,
}

/// An entry whose signatures are those of whom it names. Whether they may say that is another matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedEntry {
    said: Arc<Said>,
    octets: Arc<[u8]>,
}

/// An entry that was read, and whose signatures were not looked at yet.
#[derive(Debug)]
pub(super) struct UncheckedEntry {
    said: Arc<Said>,
    octets: Arc<[u8]>,
    message: Vec<u8>,
}

impl Said {
    fn new(message: &[u8], statement: Statement) -> Arc<Self> {
        Arc::new(Self { id: id(message), statement })
    }

    /// The name of the entry.
    pub fn id(&self) -> EntryId {
        self.id
    }

    /// What it says.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }
}

impl UncheckedEntry {
    /// Reads what [`SignedEntry::octets`] wrote.
    pub fn read(cluster: ClusterId, octets: &[u8]) -> Result<Self, NotTaken> {
        if octets.len() > ENTRY_MAX {
            return Err(NotTaken::TooLong);
        }
        let (signers, json) = parts(octets).ok_or(NotTaken::Malformed)?;
        let statement = Statement::read(json).ok_or(NotTaken::Malformed)?;
        let named = statement.signers();
        if !statement.is_sound() || !named.iter().eq(signers.iter().map(|(signer, _)| signer)) {
            return Err(NotTaken::Malformed);
        }
        let message = message(cluster_of(cluster, &statement), json);
        Ok(Self { said: Said::new(&message, statement), octets: octets.into(), message })
    }

    /// Its name, if its signatures hold.
    pub fn id(&self) -> EntryId {
        self.said.id
    }

    /// What it says, if its signatures hold.
    pub fn statement(&self) -> &Statement {
        &self.said.statement
    }

    /// Both.
    pub fn said(&self) -> &Arc<Said> {
        &self.said
    }

    /// Whether all signatures hold.
    pub fn is_signed(&self) -> bool {
        let holds = |(signer, signature): &(Signer, &[u8])| signer.has_signed(&self.message, signature);
        parts(&self.octets).is_some_and(|(signers, _)| signers.iter().all(holds))
    }

    /// Checks all signatures.
    pub fn check(self) -> Result<SignedEntry, NotTaken> {
        if self.is_signed() { Ok(self.trust()) } else { Err(NotTaken::NotSigned) }
    }

    /// The entry, where the signatures were checked already.
    pub fn trust(self) -> SignedEntry {
        let Self { said, octets, message: _ } = self;
        SignedEntry { said, octets }
    }
}

impl SignedEntry {
    /// Signs `statement` with the keys of [`Statement::signers`], in their order.
    ///
    /// # Errors
    /// The keys are others, or the cryptography library failed; or the entry is too long.
    pub fn sign(cluster: ClusterId, statement: Statement, keys: &[&PrivateKey]) -> Result<Self, NotSigned> {
        let signers = statement.signers();
        if !signers.iter().copied().map(Some).eq(keys.iter().map(|key| Signer::of(key))) {
            return Err(NotSigned::OtherKeys);
        }
        let json = serde_json::to_vec(&statement).map_err(|_| NotSigned::TooLong)?;
        let message = message(cluster_of(cluster, &statement), &json);
        let mut octets = vec![VERSION, u8::try_from(keys.len()).map_err(|_| NotSigned::OtherKeys)?];
        for (signer, key) in signers.iter().zip(keys) {
            octets.extend(signer.octets());
            octets.extend(key.sign(&message)?);
        }
        octets.extend(json);
        if octets.len() > ENTRY_MAX {
            return Err(NotSigned::TooLong);
        }
        Ok(Self { said: Said::new(&message, statement), octets: octets.into() })
    }

    /// Its name.
    pub fn id(&self) -> EntryId {
        self.said.id
    }

    /// What it says.
    pub fn statement(&self) -> &Statement {
        &self.said.statement
    }

    /// Both.
    pub(super) fn said(&self) -> &Arc<Said> {
        &self.said
    }

    /// Whether it takes out a node or an invite.
    pub(super) fn takes_out(&self) -> bool {
        matches!(self.statement().says, Saying::Gone(_))
    }

    /// As it is stored and carried.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }
}

/// Why an entry cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// Others have to sign it.
    #[error("these are not the keys that have to sign this entry")]
    OtherKeys,
    /// It has no room for what it says.
    #[error("the entry would be longer than {ENTRY_MAX} octets")]
    TooLong,
    /// The cryptography library failed.
    #[error(transparent)]
    Crypto(#[from] CryptoFailed),
}

/// The name that an entry has, if its signatures hold, whatever it says; `None` where it is written in another way.
pub(super) fn name_of(cluster: ClusterId, octets: &[u8]) -> Option<EntryId> {
    let (_, json) = parts(octets)?;
    Some(id(&message(cluster, json)))
}

/// A signer with its signature.
type Signature<'a> = (Signer, &'a [u8]);

/// The signatures and the statement of an entry.
fn parts(octets: &[u8]) -> Option<(Vec<Signature<'_>>, &[u8])> {
    let ([version, count], rest) = octets.split_first_chunk::<2>()?;
    let (signatures, json) = rest.split_at_checked(usize::from(*count) * (LENGTH + SIGNATURE))?;
    let signatures = signatures.chunks_exact(LENGTH + SIGNATURE).map(|pair| {
        let (signer, signature) = pair.split_first_chunk()?;
        Some((Signer::new(*signer), signature))
    });
    (*version == VERSION).then_some((signatures.collect::<Option<_>>()?, json))
}

/// What is named in the signatures: the first entry has no cluster yet.
fn cluster_of(cluster: ClusterId, statement: &Statement) -> ClusterId {
    if matches!(statement.says, Saying::Genesis(_)) { ClusterId::NONE } else { cluster }
}

fn message(cluster: ClusterId, json: &[u8]) -> Vec<u8> {
    [LABEL, cluster.octets(), json].concat()
}

fn id(message: &[u8]) -> EntryId {
    EntryId::new(Sha256::digest(message).into())
}
