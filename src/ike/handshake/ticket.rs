//! The ticket that nobody hands out: whoever holds the secret of the cluster can compute what it stands for.
//!
//! ```text
//! +---------------+---------------+
//! !  version (1)  !   suite (1)   !
//! +---------------+---------------+-------------------------------+
//! !     key id: which secret, and of which cluster, 8 octets      !
//! +---------------+-----------------------------------------------+
//! !  type of IDi  !  IDi: the initiator's address, 4 or 16 octets !
//! +---------------+-----------------------------------------------+
//! !  type of IDr  !  IDr: the responder's address, 4 or 16 octets !
//! +---------------+-----------------------------------------------+
//! ```
//! RFC 5723 section 4.3.1 has a ticket used once; this one is used many times: what makes the keys of each use fresh is both nonces alone.

use std::net::IpAddr;

use hkdf::Hkdf;
use sha2::Sha256;

use crate::identity::{Secret, SecretId};
use crate::ike::Settings;
use crate::ike::crypto::Hidden;
use crate::ike::crypto::suite::Suite;
use crate::ike::reason::{BadTicket, Reason};
use crate::ike::wire::{Id, Reader};
use crate::types::{IkeCipher, Pair, Prf};

/// The version of the layout and of what the ticket stands for.
const VERSION: u8 = 1;
/// The number of [`SUITE`] in a ticket.
const SUITE_ID: u8 = 1;
/// Every resumed IKE SA is made with this.
pub const SUITE: Suite = Suite {
    cipher: IkeCipher::AesGcm16(256),
    integrity: None,
    prf: Prf::HmacSha256,
    group: None,
    additional: None,
};
/// SK_d is derived over this, the cluster and the identities. The number stands for the method.
const SK_D_LABEL: &[u8] = b"hostseal derived 1: SK_d";
/// The same of a key id, before the cluster.
const KEY_ID_LABEL: &[u8] = b"hostseal derived 1: key id";

/// Which secret of which cluster. It says nothing of the secret.
pub type KeyId = [u8; 8];

/// What an initiator presents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// What it stands for.
    pub key_id: KeyId,
    /// Who presents it.
    pub initiator: Id,
    /// To whom.
    pub responder: Id,
}

/// What an IKE SA was resumed against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumption {
    /// The ticket.
    pub ticket: Ticket,
    /// The secret that it stands for.
    pub secret: SecretId,
}

impl Ticket {
    /// The ticket for `secret` of `cluster` between the ends of `pair`, as both are listed; the local end presents
    /// it.
    pub fn to_present(secret: &Secret, cluster: &str, pair: Pair) -> Self {
        let key_id = key_id(secret, cluster);
        Self { key_id, initiator: Id::of(pair.local), responder: Id::of(pair.remote) }
    }

    /// As it is on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, SUITE_ID];
        bytes.extend(self.key_id);
        bytes.extend(self.identities());
        bytes
    }

    /// Both identities in order: each has its type in front, which tells its length.
    fn identities(&self) -> Vec<u8> {
        let ids = [&self.initiator, &self.responder].into_iter();
        ids.flat_map(|id| [id.kind].into_iter().chain(id.data.iter().copied())).collect()
    }

    /// Reads what an initiator presents.
    ///
    /// # Errors
    /// It is no ticket, or one of another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadTicket> {
        Self::read(Reader::new(bytes)).map_err(|_| BadTicket::Version)
    }

    fn read(mut reader: Reader<'_>) -> Result<Self, Reason> {
        if (reader.u8()?, reader.u8()?) != (VERSION, SUITE_ID) {
            return Err(BadTicket::Version.into());
        }
        let key_id = reader.array()?;
        let ticket = Self { key_id, initiator: identity(&mut reader)?, responder: identity(&mut reader)? };
        reader.finish()?;
        Ok(ticket)
    }

    /// The secret that the ticket stands for, where the remote end of `pair` may present it here.
    ///
    /// # Errors
    /// It names other hosts than these two, or a secret that is not known here.
    pub fn accept<'s>(&self, settings: &'s Settings, pair: Pair) -> Result<&'s Secret, BadTicket> {
        let listed = settings.inside.listed(pair.local);
        if (&self.initiator, &self.responder) != (&Id::of(pair.remote), &Id::of(listed)) {
            return Err(BadTicket::OtherHosts);
        }
        let known = settings.secrets().find(|secret| key_id(secret, &settings.cluster) == self.key_id);
        known.ok_or(BadTicket::UnknownSecret)
    }

    /// SK_d of the IKE SA that the ticket stands for: HKDF-SHA256 (RFC 5869) of the secret over a label, the
    /// cluster and the two identities in order.
    pub fn sk_d(&self, secret: &Secret, cluster: &str) -> Hidden {
        let mut sk_d = vec![0; SUITE.prf.output()];
        expand(secret, &[SK_D_LABEL, &length(cluster), cluster.as_bytes(), &self.identities()], &mut sk_d);
        Hidden::new(sk_d)
    }
}

fn key_id(secret: &Secret, cluster: &str) -> KeyId {
    let mut id = KeyId::default();
    expand(secret, &[KEY_ID_LABEL, &length(cluster), cluster.as_bytes()], &mut id);
    id
}

/// The length of a text in front of it: what is derived over the two can be read in one way only.
fn length(text: &str) -> [u8; 4] {
    u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes()
}

#[expect(clippy::expect_used, reason = "a key of zeros is worse than an agent that ends")]
fn expand(secret: &Secret, info: &[&[u8]], out: &mut [u8]) {
    // The limit is 255 times the hash (RFC 5869 section 2.3), and no length here comes from outside.
    let filled = Hkdf::<Sha256>::new(None, secret.expose()).expand_multi_info(info, out);
    filled.expect("a few octets are within HKDF's limit");
}

fn identity(reader: &mut Reader<'_>) -> Result<Id, Reason> {
    let kind = reader.u8()?;
    let addresses: [Id; 2] = [Id::of(IpAddr::from([0; 4])), Id::of(IpAddr::from([0; 16]))];
    let known = addresses.iter().find(|address| address.kind == kind);
    let octets = known.map(|address| address.data.len()).ok_or(BadTicket::Version)?;
    Ok(Id { kind, data: reader.take(octets)?.to_vec() })
}
