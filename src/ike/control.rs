//! Control IKE SAs: what two members tell each other whether their traffic is protected or not, and what an invited
//! host tells the member that lets it in. They have no children, and never get one (RFC 6023).
//!
//! ```text
//! initiator                                        responder
//!   HDR, SAi1, KEi, Ni, V, hashes, N(purpose) -->
//!                                           <--      HDR, SAr1, KEr, Nr, V, hashes, N(CHILDLESS_IKEV2_SUPPORTED)
//!   HDR, SK{IDi, IDr, AUTH, N(mark)}        -->      Introduced, and admitted by its user
//!                                           <--      HDR, SK{IDr, [CERT,] AUTH, N(mark)}
//!   Introduced, and admitted by its user
//! ```
//! The *purpose* is said in the clear, and AUTH of both ends covers it: what was proven for one purpose is worth
//! nothing for another. Cookies, IKE_INTERMEDIATE, fragments, rekeys, liveness and the end are as of any IKE SA.
//!
//! **Members** prove themselves with their keys alone, never with a secret, whatever their traffic rests on. Each
//! end's *mark* is said in IKE_AUTH: octets of its user, who sees the peer's once the peer is proven, and admits the
//! session or refuses it. Before that it does not count, and nothing is said or heard on it.
//!
//! **Joiners** are known by the key of an invite, which is their identity (ID_KEY_ID) and their proof. They know no
//! member yet: the responder sends its public key (CERT, raw), proves that it has it, and the joiner's user says
//! whether that is a member's. Who answers in a member's place has another key, learns which invite is used and what
//! the joiner's mark says, and gets nothing that any member would take: the proof is worth something on that one IKE
//! SA alone.
//!
//! The initiator's mark is read by whoever answers: nothing secret belongs into it. The responder's is said to a
//! proven initiator alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::path::Bond;
use super::{Failure, Posture, SessionKey};
use crate::identity::{PrivateKey, PublicKey};

/// What an IKE SA is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// The keys of a pair's traffic.
    Data,
    /// What two members tell each other.
    Control,
    /// What a member and somebody with an invite tell each other.
    Join,
}

/// What control IKE SAs are made with.
pub struct ControlSettings {
    /// What this host proves itself with: its own key or, where it joins, the key of its invite.
    pub key: Arc<PrivateKey>,
    /// What the member at an address may prove itself with: any of these keys.
    pub members: BTreeMap<IpAddr, Vec<PublicKey>>,
    /// The keys of the invites that are taken. Who has one may join from any address.
    pub invites: Vec<PublicKey>,
    /// What members are told in IKE_AUTH; up to [`TOLD_MAX`](super::TOLD_MAX) octets.
    pub mark: Arc<[u8]>,
    /// What joiners are told in IKE_AUTH, and what this host tells where it joins; as long.
    pub welcome: Arc<[u8]>,
}

impl ControlSettings {
    /// What is told in IKE_AUTH.
    pub(super) fn mark(&self, purpose: Purpose) -> &[u8] {
        match purpose {
            Purpose::Data => &[],
            Purpose::Control => &self.mark,
            Purpose::Join => &self.welcome,
        }
    }

    /// Whether the member at `remote` may prove itself with `key`.
    pub(super) fn takes_member(&self, remote: IpAddr, key: &PublicKey) -> bool {
        self.members.get(&remote).is_some_and(|keys| keys.contains(key))
    }

    /// Whether the peer of `bond` can prove itself at all.
    pub(super) fn expects(&self, bond: Bond) -> bool {
        bond.purpose == Purpose::Join || self.members.contains_key(&bond.pair.remote)
    }

    /// Whether there is an invite with `key`.
    pub(super) fn takes_invite(&self, key: &PublicKey) -> bool {
        self.invites.contains(key)
    }
}

/// What happened to control IKE SAs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlEvent {
    /// The peer has proven that it has `key`. To be answered soon with [`Engine::admit`](super::Engine::admit) or
    /// [`Engine::refuse`](super::Engine::refuse); the peer waits, and is refused after some seconds.
    Introduced {
        /// The IKE SA.
        session: SessionKey,
        /// A key of a member, or of an invite. Where this host joins, it is whatever key the responder has.
        key: PublicKey,
        /// The peer's mark.
        mark: Vec<u8>,
    },
    /// The peer has what it was told last by [`Engine::tell`](super::Engine::tell), or will have: something else can take
    /// its place now, and is told too.
    Heard,
    /// None stands any more that was admitted: the peer is silent, has begun anew, or has ended it.
    Ended,
    /// The last attempt failed, or probably will. The engine goes on trying.
    Failed {
        /// Why.
        failure: Failure,
        /// No attempt has come to its end: somebody, who need not be the peer, has said something.
        hint: bool,
    },
}

/// How the control IKE SAs of a pair stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlSummary {
    /// What this host does about them.
    pub posture: Posture,
    /// How many were admitted and do not end.
    pub sessions: usize,
    /// What the peer of the newest of these has proven itself with.
    pub key: Option<PublicKey>,
    /// When something of the peer came last that it alone can have said, and had not said before.
    pub heard: Option<Instant>,
    /// Why the last attempt failed, until one succeeds.
    pub last_failure: Option<Failure>,
}
