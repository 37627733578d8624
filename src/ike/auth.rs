//! AUTH: each end proves who it is (RFC 7296 section 2.15), with the secret of the cluster or with a
//! signature of its own (RFC 7427).

use std::net::IpAddr;

use subtle::ConstantTimeEq;

use super::Settings;
use super::crypto::{Hidden, Prf};
use super::error::Error;
use super::peer::Peer;
use super::signature;
use super::wire::codes::auth;
use super::wire::{Id, Parts, Payload};
use crate::model::auth::{AuthMethod, Expected, Identity, Proof};
use crate::model::secret::SecretId;
use crate::model::{NodeName, Secret};

/// RFC 7296 section 2.15: 17 ASCII characters without a terminator.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// What one end signs.
pub(super) struct Signed<'a> {
    /// The negotiated function.
    pub(super) prf: Prf,
    /// The signer's IKE_SA_INIT message, as it was on the wire.
    pub(super) message: &'a [u8],
    /// The nonce of the other end.
    pub(super) nonce: &'a [u8],
    /// The signer's SK_p.
    pub(super) key: &'a Hidden,
    /// The signer's identity.
    pub(super) id: &'a Id,
}

/// The peer has proven who it is, in a way that is accepted from it. Only [`Signed::verify`] makes one, and
/// an established session is made only from one.
#[derive(Debug)]
pub(super) struct Verified(Proof);

impl Verified {
    /// What it has proven itself with.
    pub(super) fn proof(&self) -> &Proof {
        &self.0
    }
}

/// What the proofs of both ends of a session were made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Basis {
    /// Ours.
    pub(super) ours: Proof,
    /// The peer's.
    pub(super) theirs: Proof,
}

impl Basis {
    /// Whether the proofs would be made so today: ours by what `settings` say, that of the host at `remote`
    /// by what they expect.
    pub(super) fn is_current(&self, settings: &Settings, remote: IpAddr) -> bool {
        let secret = settings.secret.as_ref().map(|secret| Proof::Secret(secret.id()));
        let ours = match &settings.credentials.identity {
            Identity::Secret => secret.as_ref() == Some(&self.ours),
            Identity::PublicKey(key) => matches!(&self.ours, Proof::Key(ours) if ours == key.public()),
        };
        let theirs = match &self.theirs {
            Proof::Secret(_) => secret.as_ref() == Some(&self.theirs),
            Proof::Key(_) => true,
        };
        ours && theirs && self.is_taken(settings, remote)
    }

    /// Whether the proof of the host at `remote` would be taken today.
    pub(super) fn is_taken(&self, settings: &Settings, remote: IpAddr) -> bool {
        settings.credentials.expected(remote).is_some_and(|expected| match &self.theirs {
            Proof::Secret(id) => {
                expected.methods.contains(&AuthMethod::Secret)
                    && settings.secrets().any(|secret| secret.id() == *id)
            }
            Proof::Key(key) => {
                expected.methods.contains(&AuthMethod::PublicKey) && expected.public_key.as_ref() == Some(key)
            }
        })
    }

    /// The secret that it rests on; the one that is not `current`, should there be two.
    pub(super) fn secret(&self, current: Option<SecretId>) -> Option<SecretId> {
        let secrets = [&self.ours, &self.theirs].into_iter().filter_map(|proof| match proof {
            Proof::Secret(id) => Some(*id),
            Proof::Key(_) => None,
        });
        secrets.max_by_key(|id| Some(*id) != current)
    }
}

/// Why a peer's proof is not taken. The peer hears none of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unproven {
    /// There is no AUTH payload.
    #[error("the peer gave no proof of who it is")]
    Missing,
    /// The identity is not the address that we talk to.
    #[error("the peer says that it is somebody else than the host with this address")]
    Identity,
    /// It is proven in a way that is not accepted from this peer.
    #[error("the peer proves itself with {used}, and only {} is accepted from {node} (auth.accept)", accepted.join(" or "))]
    Method {
        /// The way that it took.
        used: String,
        /// The ways that it may take.
        accepted: Vec<&'static str>,
        /// Who it must be.
        node: NodeName,
    },
    /// AUTH was not made with a secret of ours.
    #[error("the peer has another secret (compare `hostseal secret id` on both hosts)")]
    Secret,
    /// It must prove itself with a key, and none is known.
    #[error("the file has no public_key of node {0}")]
    Unlisted(NodeName),
    /// AUTH was not made with the key of the node.
    #[error(
        "the peer's key is not the one configured for node {0} (compare public_key in the file with `hostseal key show` there)"
    )]
    Key(NodeName),
}

impl From<Unproven> for Error {
    fn from(unproven: Unproven) -> Self {
        Error::Unauthenticated(unproven)
    }
}

impl Signed<'_> {
    /// The octets that AUTH is about.
    fn octets(&self) -> Vec<u8> {
        let id = self.prf.compute(self.key.expose(), &[&self.id.body()]);
        [self.message, self.nonce, id.expose()].concat()
    }

    /// AUTH of this end by a shared key.
    fn keyed(&self, secret: &Secret) -> Vec<u8> {
        let padded = self.prf.compute(secret.expose(), &[KEY_PAD]);
        self.prf.compute(padded.expose(), &[&self.octets()]).expose().to_vec()
    }

    /// The payloads by which this end proves itself to `peer`,
    /// and what the proof was made with. `secret` is the one to use where this end proves itself with one.
    pub(super) fn prove(
        &self,
        identity: &Identity,
        secret: Option<&Secret>,
        peer: &Peer,
    ) -> Result<(Vec<Payload>, Proof), Error> {
        let (method, data, proof) = match identity {
            Identity::Secret => {
                let secret = secret.ok_or(Error::Internal)?;
                (auth::SHARED_KEY, self.keyed(secret), Proof::Secret(secret.id()))
            }
            Identity::PublicKey(key) => {
                let data = signature::sign(key, &peer.hashes, &self.octets())?;
                (auth::DIGITAL_SIGNATURE, data, Proof::Key(key.public().clone()))
            }
        };
        Ok((vec![Payload::Auth { method, data }], proof))
    }

    /// Checks that the signer is the host at `remote`: its identity is that address, and its AUTH was made as
    /// is expected from that host.
    pub(super) fn verify(
        &self,
        settings: &Settings,
        remote: IpAddr,
        parts: &Parts<'_>,
    ) -> Result<Verified, Unproven> {
        let named = *self.id == Id::of(remote);
        let expected = settings.credentials.expected(remote).filter(|_| named).ok_or(Unproven::Identity)?;
        let (method, data) = parts.auth().ok_or(Unproven::Missing)?;
        let used = match method {
            auth::SHARED_KEY => Some(AuthMethod::Secret),
            auth::DIGITAL_SIGNATURE => Some(AuthMethod::PublicKey),
            _ => None,
        };
        // No downgrade: what the file does not accept from this node is not even looked at.
        let accepted = used.filter(|used| expected.methods.contains(used));
        let proven = match accepted {
            None => Err(refused(method, used, expected)),
            Some(AuthMethod::Secret) => self.verify_secret(settings, data),
            Some(AuthMethod::PublicKey) => self.verify_key(expected, data),
        };
        proven.map(Verified)
    }

    /// Against each of our secrets, each in constant time.
    fn verify_secret(&self, settings: &Settings, data: &[u8]) -> Result<Proof, Unproven> {
        let known = settings
            .secrets()
            .filter(|secret| bool::from(self.keyed(secret).ct_eq(data)))
            .map(|secret| Proof::Secret(secret.id()))
            .reduce(|first, _| first);
        known.ok_or(Unproven::Secret)
    }

    fn verify_key(&self, expected: &Expected, data: &[u8]) -> Result<Proof, Unproven> {
        let node = || expected.node.clone();
        let key = expected.public_key.as_ref().ok_or_else(|| Unproven::Unlisted(node()))?;
        match signature::verify(key, data, &self.octets()) {
            true => Ok(Proof::Key(key.clone())),
            false => Err(Unproven::Key(node())),
        }
    }
}

fn refused(method: u8, used: Option<AuthMethod>, expected: &Expected) -> Unproven {
    let used = used.map_or_else(|| format!("AUTH method {method}"), |used| used.words().to_owned());
    let accepted = expected.methods.iter().map(|method| method.words()).collect();
    Unproven::Method { used, accepted, node: expected.node.clone() }
}
