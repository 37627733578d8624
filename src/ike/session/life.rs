//! Lives: what an end remembers of a pair begins anew with each of them, and its sessions with it.
//!
//! A life begins when a pair is first kept, when the agent starts, and when an operator enables a host again that is
//! on its way to the clear. From then on this end knows no session of the life before, and draws a number that
//! IKE_AUTH tells the peer. A proven peer with another number has begun anew: what it said before is void, however
//! late it arrives, and its sessions are dropped here as well. Their SAs serve until others have taken over.
//!
//! A new number may come late itself, in a session that was begun before and has since been given up there. Such a
//! session shows by when it met its peer: a life answers, or is answered by, nobody before it begins.
//!
//! ```text
//!  0                   1                   2                   3
//! +---------------------------------------------------------------+
//! !                          life, 8 octets                       !
//! !                                                               !
//! +---------------------------------------------------------------+
//! ```
//! Whatever follows is of a later version and is ignored. Agents that know of no lives say nothing: of those any
//! session may be of any life.

use std::time::Instant;

use crate::ike::Entropy;
use crate::ike::wire::codes::notify;
use crate::ike::wire::{Parts, Payload};

/// The number of a life: random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life([u8; 8]);

impl Life {
    /// A new one.
    pub fn begin(entropy: &mut dyn Entropy) -> Self {
        let mut number = [0; 8];
        entropy.fill(&mut number);
        Self(number)
    }
}

/// What IKE_AUTH is to say of what this end remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// It knows nothing of earlier sessions: INITIAL_CONTACT (RFC 7296 section 2.4).
    pub initial_contact: bool,
    /// Its life.
    pub life: Life,
}

impl Greeting {
    /// The payloads. A peer that looks foreign is told of its life too: somebody on the path may have taken our
    /// introduction, or its own, out of a copy. Who does not know it ignores it (RFC 7296 section 3.10.1).
    pub fn payloads(self) -> impl Iterator<Item = Payload> {
        let contact = self.initial_contact.then(|| Payload::notify(notify::INITIAL_CONTACT, Vec::new()));
        let life = Payload::notify(notify::HOSTSEAL_LIFE, self.life.0.to_vec());
        contact.into_iter().chain([life])
    }
}

/// What a proven peer has said of what it remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeted {
    /// It said INITIAL_CONTACT.
    pub initial_contact: bool,
    /// Its life, where it knows of lives.
    life: Option<Life>,
    /// When its first message of the session came.
    met: Instant,
}

impl Greeted {
    /// By a peer whose IKE_AUTH has these `parts`, and whose first message came when it was `met`.
    pub fn read(parts: &Parts<'_>, met: Instant) -> Self {
        let life = parts.notify(notify::HOSTSEAL_LIFE).and_then(|it| it.data.first_chunk().copied());
        Self { initial_contact: parts.notify(notify::INITIAL_CONTACT).is_some(), life: life.map(Life), met }
    }

    /// Whether this was said in a life of the peer that was over when it said `other`.
    pub fn is_former_to(&self, other: &Self) -> bool {
        let begun_anew = self.life.zip(other.life).is_some_and(|(mine, other)| mine != other);
        begun_anew && self.met < other.met
    }
}
