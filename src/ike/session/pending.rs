//! What a session remembers between the two messages of an exchange, and what it means to do next.

use std::time::Instant;

use super::child::Offer;
use crate::ike::Topic;
use crate::ike::crypto::Hidden;
use crate::ike::crypto::agreement::KeyPair;
use crate::ike::crypto::kem::KemKey;
use crate::ike::crypto::keys::{Nonces, Spis};
use crate::ike::crypto::suite::EspChoice;
use crate::ike::crypto::suite::Suite;
use crate::ike::wire::Payload;
use crate::ike::wire::codes::Exchange;
use crate::types::{Group, Spi};

/// What an outstanding request of ours asks.
pub enum Asked {
    /// CREATE_CHILD_SA for a child.
    Child(AskedChild),
    /// CREATE_CHILD_SA for a successor of the IKE SA.
    RekeyIke(AskedIke),
    /// IKE_FOLLOWUP_KE for either.
    FollowUp(Box<FollowUp>),
    /// INFORMATIONAL that deletes the child whose inbound SA here is this.
    DeleteChild(Spi),
    /// INFORMATIONAL that deletes the IKE SA which carries it.
    DeleteIke,
    /// INFORMATIONAL that tells something, or nothing.
    Inform {
        /// The numbers of the news that the peer knows once it answers.
        says: Vec<(Topic, u64)>,
        /// The children that the peer is known to have installed once it answers.
        confirms: Vec<Spi>,
    },
}

impl Asked {
    /// Whether it makes a child.
    pub(super) fn makes_child(&self) -> bool {
        match self {
            Asked::Child(_) => true,
            Asked::FollowUp(asked) => asked.makes_child(),
            _ => false,
        }
    }

    /// The child that it makes: what that is to replace, and what the peer does meanwhile.
    pub fn child_mut(&mut self) -> Option<(Option<Spi>, &mut Meanwhile)> {
        match self {
            Asked::Child(asked) => Some((asked.rekeys, &mut asked.meanwhile)),
            Asked::FollowUp(asked) => asked.child_mut(),
            _ => None,
        }
    }

    /// Whether it makes a successor of the IKE SA.
    pub(super) fn rekeys_ike(&self) -> bool {
        match self {
            Asked::RekeyIke(_) => true,
            Asked::FollowUp(asked) => !asked.makes_child(),
            _ => false,
        }
    }
}

/// A request for a child.
pub struct AskedChild {
    /// What we offered.
    pub offer: Offer,
    /// Our half of its Diffie-Hellman exchange, if we began one.
    pub key: Option<KeyPair>,
    /// Our nonce.
    pub nonce: Vec<u8>,
    /// The child that it is to replace.
    pub rekeys: Option<Spi>,
    /// The group that the peer asked for, in answer to a request before this one.
    pub wanted: Option<Group>,
    /// What the peer does meanwhile.
    pub meanwhile: Meanwhile,
}

/// What the peer does about a child while we ask for it.
#[derive(Default)]
pub struct Meanwhile {
    /// It asked for the same at the same time.
    pub crossing: Option<Crossing<Spi>>,
    /// Inbound SAs of the peer that it deleted and that we did not know: its answer may have been overtaken.
    pub deleted: Vec<u32>,
}

/// A request for a successor of the IKE SA.
pub struct AskedIke {
    /// Our index of the successor.
    pub ours: u64,
    /// Our half of the Diffie-Hellman exchange.
    pub key: KeyPair,
    /// Our nonce.
    pub nonce: Vec<u8>,
    /// The group that the peer asked for, in answer to a request before this one.
    pub wanted: Option<Group>,
    /// The peer asked for the same at the same time.
    pub crossing: Option<Crossing<u64>>,
}

/// What the first of two key exchanges has left behind, at either end (RFC 9370 section 2.2.4).
pub struct FirstExchange {
    /// Our index of the IKE SA that it was made on.
    pub on: u64,
    /// Its nonces.
    pub nonces: Nonces,
    /// Its secret.
    pub shared: Hidden,
    /// What the responder knows it by.
    pub link: Vec<u8>,
}

/// A successor of an IKE SA whose keys are not known yet.
pub struct HalfIke {
    /// What it will be made with.
    pub suite: Suite,
    /// Its indexes.
    pub spis: Spis,
}

/// A child whose keys are not known yet.
pub struct HalfChild {
    /// Our half.
    pub offer: Offer,
    /// What was chosen.
    pub choice: EspChoice,
    /// The child that it replaces.
    pub replaces: Option<Spi>,
}

/// What the peer has begun, and we wait for it to go on with.
pub struct HalfMade {
    /// Until when it may.
    pub until: Instant,
    /// The first exchange.
    pub first: FirstExchange,
    /// What the additional one is to make.
    pub half: Half,
}

/// What an additional exchange of the peer is to make.
pub enum Half {
    /// A successor of the IKE SA.
    Ike(HalfIke),
    /// A child.
    Child(HalfChild),
}

/// The additional exchange that we are to make, or have asked for.
pub struct FollowUp {
    /// The first exchange.
    pub first: FirstExchange,
    /// Our half of the additional one.
    pub key: KemKey,
    /// What it makes.
    pub makes: Makes,
}

impl FollowUp {
    /// Whether it makes a child.
    pub(super) fn makes_child(&self) -> bool {
        matches!(self.makes, Makes::Child(..))
    }

    /// The child that it makes: what that is to replace, and what the peer does meanwhile.
    pub fn child_mut(&mut self) -> Option<(Option<Spi>, &mut Meanwhile)> {
        match &mut self.makes {
            Makes::Child(half, meanwhile) => Some((half.replaces, meanwhile)),
            Makes::Ike(..) => None,
        }
    }
}

/// What an additional exchange of ours makes, and what the peer does meanwhile.
pub enum Makes {
    /// A successor of the IKE SA; the peer asked for one at the same time.
    Ike(HalfIke, Option<Crossing<u64>>),
    /// A child.
    Child(HalfChild, Meanwhile),
}

/// An exchange of the peer that crosses one of ours (RFC 7296 section 2.8.1).
#[derive(Clone)]
pub struct Crossing<T> {
    /// Our name of the SA that the peer's exchange made.
    pub made: T,
    /// The lower nonce of the peer's exchange.
    pub lowest: Vec<u8>,
}

/// A request of the peer that is to be answered. The answer is put together when it is sent.
pub struct HeldRequest {
    /// The exchange that is answered.
    pub exchange: Exchange,
    /// When the request came.
    pub since: Instant,
    /// What the answer says in any case.
    pub payloads: Vec<Payload>,
    /// The child that the answer waits for.
    pub child: Option<HeldChild>,
    /// The children that the answer tells of, by our inbound SA.
    pub children: Vec<Spi>,
    /// The answer may tell of this host, too.
    pub tells: bool,
}

/// A child that the kernel is installing.
pub struct HeldChild {
    /// Our name of it.
    pub in_spi: Spi,
    /// What the answer says if the kernel took it.
    pub payloads: Vec<Payload>,
    /// What the kernel said.
    pub installed: Option<bool>,
}

impl HeldChild {
    /// One that the kernel has not answered for.
    pub fn new(in_spi: Spi, payloads: Vec<Payload>) -> Self {
        Self { in_spi, payloads, installed: None }
    }
}

impl HeldRequest {
    /// An answer that waits for nothing.
    pub fn new(exchange: Exchange, now: Instant, payloads: Vec<Payload>) -> Self {
        Self { exchange, since: now, payloads, child: None, children: Vec::new(), tells: false }
    }

    /// Whether it waits for the kernel.
    pub fn waits(&self) -> bool {
        self.child.as_ref().is_some_and(|child| child.installed.is_none())
    }
}

/// What a session does when its window is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Makes a child that replaces none.
    NewChild,
    /// Makes a successor of a child.
    RekeyChild(Spi),
    /// Makes a child, or a successor of one, with a public value of the group that the peer asked for.
    ChildOf(Group, Option<Spi>),
    /// Deletes a child.
    DeleteChild(Spi),
    /// Makes a successor of the IKE SA, with a public value of the group that the peer asked for.
    RekeyIke(Option<Group>),
    /// Asks whether the peer is there.
    Liveness,
}
