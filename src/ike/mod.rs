//! IKEv2 (RFC 7296) as a pure state machine: datagrams, time and entropy come in as arguments, datagrams
//! and events go out as values.
//!
//! ```text
//! initiator                                        responder
//!   HDR, SAi1, KEi, Ni, V, hashes           -->
//!                                           <--      HDR, N(COOKIE)              when many are half open
//!   HDR, N(COOKIE), SAi1, KEi, Ni, V, hashes -->
//!                                           <--      HDR, N(INVALID_KE_PAYLOAD)  another group is better
//!   HDR, [N(COOKIE),] SAi1, KEi', Ni, V, hashes -->
//!                                           <--      HDR, SAr1, KEr, Nr, V, hashes
//!   HDR, SK{KEi(1)}                         -->      IKE_INTERMEDIATE, where the suite has an
//!                                           <--      HDR, SK{KEr(1)}             additional exchange
//!   HDR, SK{IDi, CERTREQ, IDr, CERT…, AUTH, SAi2, TSi,
//!     TSr, N(USE_TRANSPORT_MODE), told}     -->      AUTH verified, ChildAgreed, child_installed
//!                                           <--      HDR, SK{IDr, CERT…, AUTH, SAr2, TSi, TSr,
//!     ChildAgreed, child_installed                     N(USE_TRANSPORT_MODE), told}
//!
//! where keys are derived from the secret instead (RFC 5723), the first exchange is
//!   HDR, [N(COOKIE),] Ni, N(TICKET_OPAQUE), V -->
//!                                           <--      HDR, Nr, V  |  N(TICKET_NACK)  |  N(COOKIE)
//!
//! either end, on an established IKE SA
//!   CREATE_CHILD_SA
//!   HDR, SK{[N(REKEY_SA)], SA, Ni, [KEi,] TSi, …, told}-->
//!                                    <--  HDR, SK{SA, Nr, [KEr,] TSi, …, [N(ADDITIONAL_KEY_EXCHANGE)] | told}
//!   HDR, SK{SA, Ni, KEi}                               -->                       of the IKE SA itself
//!                                                      <--  HDR, SK{SA, Nr, KEr, [N(ADDITIONAL_KEY_EXCHANGE)]}
//!   IKE_FOLLOWUP_KE, where the child or the successor has an additional exchange
//!   HDR, SK{KEi(1), N(ADDITIONAL_KEY_EXCHANGE), [told]}-->
//!                                                      <--  HDR, SK{KEr(1), [told]}
//!   INFORMATIONAL
//!   HDR, SK{[told, …] | [told,] [D] | nothing}         -->                       told: the last word of a session
//!                                                      <--  HDR, SK{[told, …] | [D] | nothing}
//! ```
//! *Told* are octets of whoever uses the engine, of a child or of the host ([`Topic`]): what they say is not known here.
//! They go to hostseal peers alone (`wire/private.rs`); those are known by our Vendor ID. Everybody else is *foreign*,
//! and requires ESP as soon as it has answered: to such a responder IKE_AUTH offers one suite alone, so that the inbound SA is there before. The
//! *hashes* (SIGNATURE_HASH_ALGORITHMS) are said where an end signs or takes signatures, CERTREQ where it takes
//! certificates (a responder says it with IKE_SA_INIT), CERT where it has one.
//!
//! Ends that have PPKs say so in IKE_SA_INIT. Before IKE_AUTH the initiator names all that it takes, with something that
//! shows to whoever has one of them that it is the same, and the responder chooses. From then on all keys have it:
//! ```text
//!   HDR, SAi1, KEi, Ni, …,
//!     N(USE_PPK), N(USE_PPK_INT)            -->
//!                                           <--      HDR, SAr1, KEr, Nr, …, N(USE_PPK_INT)
//!   HDR, SK{[KEi(1)],
//!     N(PPK_IDENTITY_KEY), …}               -->                                                    IKE_INTERMEDIATE
//!                                           <--      HDR, SK{[KEr(1)], [N(PPK_IDENTITY)]}
//! ```
//! With a responder that does not know that, IKE_AUTH names the one that is in the keys; where it is optional, the request
//! has a second proof without it:
//! ```text
//!                                           <--      HDR, SAr1, KEr, Nr, …, N(USE_PPK)
//!   HDR, SK{IDi, …, AUTH, …,
//!     N(PPK_IDENTITY), [N(NO_PPK_AUTH)]}    -->
//!                                           <--      HDR, SK{IDr, …, AUTH, …, [N(PPK_IDENTITY)]}
//! ```
//!
//! Beside the IKE SAs of a pair's traffic there may be *control* IKE SAs, which have no children, and whose ends prove
//! themselves by public keys alone: `control` shows how they begin. All that follows is the same.
//!
//! # The verbs
//! Every state machine here has these, and none reads a clock or draws a random number by itself:
//! `handle_*(now, input)` takes something in; `poll_event()` says what happened, `poll_transmit()` what to
//! send, `poll_timeout()` when to call `handle_timeout`, and why. After each input drain the events first
//! and then the datagrams: answers are put together when they are polled, so they already say what the
//! events led to.
//!
//! # What it is, RFC by RFC
//! ```text
//! RFC 7296  IKEv2: IKE_SA_INIT, IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL; cookies (2.6), one request at a time (2.3),
//!           liveness (2.4), rekeying with its collisions (2.8, 2.25), NAT (2.23), transport mode between two addresses
//! RFC 5282  AES-GCM with 16 octets of ICV; else AES-CBC with HMAC-SHA2 (RFC 4868)
//! RFC 8031  Curve25519; P-256 and P-384 (RFC 5903)
//! RFC 9370  ML-KEM-768 after one of these, in IKE_INTERMEDIATE (RFC 9242) and IKE_FOLLOWUP_KE
//! RFC 7383  fragments
//! RFC 7427  signatures: Ed25519 (RFC 8420), ECDSA with P-256 and P-384; raw keys that both ends know, or X.509
//! RFC 6023  IKE SAs without children: control IKE SAs, between hostseal peers alone
//! RFC 7670  raw public keys in CERT: of whoever lets a joiner in, and nowhere else
//! RFC 5723  resumption, with tickets that both ends compute: none is handed out or asked for
//! RFC 8784  post-quantum preshared keys, required or optional, on the IKE SAs of a pair's traffic: negotiated keys alone
//!           have them, resumed ones and control IKE SAs do not
//! RFC 9867  the same in IKE_INTERMEDIATE, where both ends know it (section 3.1), also by the numbers that Libreswan 5.2 has
//!           from draft-ietf-ipsecme-ikev2-qr-alt-04; not in CREATE_CHILD_SA
//! RFC 3948  IKE and ESP on one UDP port
//! ```
//! Not in it: tunnel mode, AH, IPComp, ports or protocols in traffic selectors, several pairs of selectors in a child;
//! EAP, a fresh PPK in CREATE_CHILD_SA (RFC 9867), configuration payloads, MOBIKE, REDIRECT; RSA, MODP groups, certificates by URL; IKEv1.
//!
//! # The folders
//! ```text
//! wire       bytes to messages and back (section 3); knows no key, clock or session
//! crypto     secrets, key exchanges, ciphers, the key schedule (2.13 to 2.18), what is offered and chosen (2.7)
//! auth       who may say "it is me": AUTH (2.15), and what a session rests on
//! session    with a proven peer: message identifiers (2.1 to 2.3), its exchanges, its children, its end
//! handshake  from the first message to a session, which needs a proof that only `auth` can make
//! engine     all sessions: who begins and when, which of several stays, what others can make it do within bounds
//! ```
//! Each knows those above it. Beside them: `control` is what users know of control IKE SAs, `reason` is what can go
//! wrong, sorted by blame, `limits` every timeout and bound, `path` between which addresses a session talks and what
//! for, `outbox` what a state machine is handed besides its input.

mod auth;
mod control;
mod crypto;
#[cfg(any(test, fuzzing))]
mod digest;
mod engine;
#[cfg(feature = "key-export")]
mod export;
mod handshake;
#[cfg(any(test, fuzzing))]
mod insider;
mod limits;
mod outbox;
mod path;
pub mod reason;
mod session;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use control::{ControlEvent, ControlSettings, ControlSummary, Purpose};
#[cfg(any(test, fuzzing))]
pub use digest::digest;
pub use engine::Engine;
pub use engine::table::SessionKey;
pub use engine::unlisted::UnlistedInitiator;
#[cfg(feature = "key-export")]
pub use export::exported_keys;
#[cfg(any(test, fuzzing))]
pub use insider::{Draft, forget_early_ppks, stop_tampering, tamper};
pub use limits::{DATAGRAM_MAX, JOINERS_MAX, TOLD_MAX};
pub use reason::{Failure, FailureCode};

use crate::identity::{Credentials, Identity, PpkRule, Proof, Secret};
use crate::types::{
    Durations, EncapsulationMode, EspProposal, IkeFailures, IkeProposal, Inside, Method, NewChild,
    NewInbound, Outcomes, Pair, Proposals, Rekeys, Spi,
};
use path::Bond;

/// Where random bytes come from: the operating system in production, a seed in simulation.
pub trait Entropy {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// What the engine is to know.
pub struct Settings {
    /// What this host proves itself with, and what it expects of others.
    pub credentials: Arc<Credentials>,
    /// The secret of the cluster, where any host proves itself with it: signs, and is accepted.
    pub secret: Option<Arc<Secret>>,
    /// The secret before it, while a secret is being rotated: accepted, and signs for a peer that does not
    /// know the new one yet.
    pub previous: Option<Arc<Secret>>,
    /// The name of the cluster, to which keys derived from its secret are bound.
    pub cluster: String,
    /// Which addresses of this host the peers call otherwise: it is known to them by those.
    pub inside: Inside,
    /// How this end makes keys where it initiates.
    pub method: Method,
    /// How the peers may make them; `method` is one of these.
    pub accept: Vec<Method>,
    /// The UDP port of IKE, on both ends.
    pub port: u16,
    /// The UDP port that IKE and ESP share where ESP goes in UDP, on both ends.
    pub nat_port: u16,
    /// When ESP goes in UDP.
    pub encapsulation: EncapsulationMode,
    /// What an IKE SA may be made with: all of it is offered, and the best of it that the peer offers is
    /// taken.
    pub ike_proposals: Proposals<IkeProposal>,
    /// What a child may be made with.
    pub esp_proposals: Proposals<EspProposal>,
    /// When a child is rekeyed, at the latest; an IKE SA after three times as long. Both are jittered
    /// downwards by up to 15 %.
    pub rekey_after: Duration,
    /// Whether the first authentication towards each peer says that this host knows nothing of earlier
    /// sessions (INITIAL_CONTACT): true after a reboot, false where SAs were adopted.
    pub initial_contact: bool,
    /// Initiations are spread uniformly over this time.
    pub jitter: Duration,
    /// Each proven peer is told this of this host, and again when it changes, as by [`Engine::tell`]; empty: nothing
    /// is told.
    pub about: Arc<[u8]>,
    /// Makes what a peer is told of a child while that is being agreed, of random octets that are the child's alone
    /// and that only its two ends get to know ([`Event::ChildAgreed`]).
    pub first: fn(token: [u8; 16], now: Instant) -> Vec<u8>,
    /// What control IKE SAs are made with. `None`: there are none, and nothing is said of them.
    pub control: Option<ControlSettings>,
}

/// Octets to tell, made when they are told: they may say how long ago something was. Those about a child are at
/// least four; up to [`TOLD_MAX`] are taken in.
pub type Octets = Arc<dyn Fn(Instant) -> Vec<u8> + Send + Sync>;

/// What is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// The host, or whatever both ends share.
    Session,
    /// The child with that inbound SA here.
    Child(Spi),
    /// What a host asks of the other. Only who is known to take it is to be told: earlier versions pass over it. A session
    /// that is new tells nothing of it, and it may come once for each session that there is.
    Question,
    /// The answer; the same holds.
    Answer,
    /// Whatever two members say on their control IKE SAs. It may come twice, while there are two of these. What is told
    /// before the peer is admitted is lost, and octets that are the same as those before them are not told again.
    Control,
    /// Whatever a joiner and a member say; the same holds.
    Join,
}

impl Settings {
    /// Whether this end, or the host at `remote`, signs, or may, on IKE SAs of that purpose.
    fn knows_signatures(&self, purpose: Purpose, remote: IpAddr) -> bool {
        purpose != Purpose::Data || self.credentials.knows_signatures(remote)
    }

    /// Whether an attempt can succeed.
    fn seeks(&self, bond: Bond) -> bool {
        let control = || self.control.as_ref().filter(|it| it.expects(bond));
        bond.purpose == Purpose::Data || control().is_some()
    }

    /// What is told of this host.
    fn told(&self) -> Octets {
        let about = self.about.clone();
        Arc::new(move |_| about.to_vec())
    }

    /// Whether keys may be made so.
    fn accepts(&self, method: Method) -> bool {
        self.accept.contains(&method)
    }

    /// The secrets that a peer may prove itself with.
    fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.secret.as_deref().into_iter().chain(self.previous.as_deref())
    }

    /// The secret to answer a peer with that has proven itself so: the same, where it was by one.
    fn answering(&self, theirs: &Proof) -> Option<&Secret> {
        self.secrets().find(|secret| Proof::Secret(secret.id()) == *theirs).or(self.secret.as_deref())
    }

    /// The secret that an attempt of ours signs with: the current one, or the one before as a fallback.
    fn signing(&self, fallback: bool) -> Option<&Secret> {
        self.previous.as_deref().filter(|_| fallback).or(self.secret.as_deref())
    }

    /// Whether there is another secret or PPK to try where a peer does not take the current one.
    fn can_fall_back(&self, remote: IpAddr) -> bool {
        let by_secret = matches!(self.credentials.identity_for(remote, None), Identity::Secret);
        let other_ppk = self.credentials.ppks.get(&remote).is_some_and(|rule| rule.keys.len() > 1);
        other_ppk || self.previous.is_some() && by_secret
    }

    /// The PPKs for IKE SAs of `bond`, where there are any. Control IKE SAs carry no traffic, and have none.
    fn ppks(&self, bond: Bond) -> Option<&PpkRule> {
        self.credentials.ppks.get(&bond.pair.remote).filter(|_| bond.purpose == Purpose::Data)
    }
}

/// What this host does about a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posture {
    /// Keeps it keyed.
    Active,
    /// Answers the peer, and starts nothing.
    Passive,
}

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// From where.
    pub local: SocketAddr,
    /// To where.
    pub remote: SocketAddr,
    /// The UDP payload.
    pub bytes: Vec<u8>,
}

/// What happened.
pub enum Event {
    /// A child is agreed: install its SAs and answer with [`Engine::child_installed`].
    ChildAgreed {
        /// Its SAs.
        child: Box<NewChild>,
        /// This end's random octets: [`Settings::first`] was given them, if this end asked for the child.
        token: [u8; 16],
        /// What the peer told of it in the same message.
        told: Option<Vec<u8>>,
        /// The inbound SPI of the child that it replaces.
        replaces: Option<Spi>,
    },
    /// The inbound SA of a child that a foreign peer may be about to agree to. It must be in the kernel
    /// before the next datagram is sent; if there will be no such child, [`Event::ChildClosed`] follows.
    InboundAhead(Box<NewInbound>),
    /// The peer, which has proven itself, told this by [`Engine::tell`]. What it has told before may come later.
    Told {
        /// Whose peer.
        pair: Pair,
        /// About what.
        topic: Topic,
        /// What it told.
        octets: Vec<u8>,
    },
    /// Something of control IKE SAs.
    Control {
        /// Whose.
        pair: Pair,
        /// What these are for.
        purpose: Purpose,
        /// What.
        event: ControlEvent,
    },
    /// A foreign peer is known to have installed a child.
    ForeignReady {
        /// Whose.
        pair: Pair,
        /// Our name of the child.
        in_spi: Spi,
    },
    /// This end is deleting the IKE SA of a child: nothing more may be sent through it. The peer may, until it has
    /// heard; [`Event::ChildClosed`] follows.
    ChildDoomed {
        /// Between whom.
        pair: Pair,
        /// Our name of the child.
        in_spi: Spi,
    },
    /// A child no longer exists: it was deleted, or its IKE SA is gone.
    ChildClosed {
        /// Whose.
        pair: Pair,
        /// Our name of the child.
        in_spi: Spi,
        /// Whether its keys are worth nothing any more, since the peer deleted it, or is not believed any more.
        /// Otherwise the agent wanted it, or its IKE SA is gone silently and the peer may go on using it.
        void: bool,
    },
    /// The last attempt to key a pair failed, or probably will. The engine goes on trying.
    Failed {
        /// Whose.
        pair: Pair,
        /// Why.
        failure: Failure,
        /// No attempt has come to its end: somebody, who need not be the peer, has said something.
        hint: bool,
    },
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::ChildAgreed { child, replaces, .. } => {
                write!(
                    f,
                    "ChildAgreed({}, {}/{}, replaces {replaces:?})",
                    child.pair, child.in_spi, child.out_spi
                )
            }
            Event::InboundAhead(inbound) => write!(f, "InboundAhead({}, {})", inbound.pair, inbound.spi),
            Event::Told { pair, topic, octets } => {
                write!(f, "Told({pair}, {topic:?}, {} octets)", octets.len())
            }
            Event::Control { pair, purpose, event } => write!(f, "Control({pair}, {purpose:?}, {event:?})"),
            Event::ForeignReady { pair, in_spi } => write!(f, "ForeignReady({pair}, {in_spi})"),
            Event::ChildDoomed { pair, in_spi } => write!(f, "ChildDoomed({pair}, {in_spi})"),
            Event::ChildClosed { pair, in_spi, void } => {
                write!(f, "ChildClosed({pair}, {in_spi}, void: {void})")
            }
            Event::Failed { pair, failure, .. } => write!(f, "Failed({pair}, {failure:?})"),
        }
    }
}

/// How a pair stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairSummary {
    /// What this host does about it.
    pub posture: Posture,
    /// Whether there is an IKE SA with a proven peer.
    pub established: bool,
    /// Whether the proven peer is not hostseal.
    pub foreign: bool,
    /// How many IKE SAs with a proven peer there are.
    pub sessions: usize,
    /// How many children there are.
    pub children: usize,
    /// When its keys end because what they rest on, a proof or a PPK, is no longer accepted.
    pub notice: Option<Instant>,
    /// Why the last attempt at new proofs of both ends failed, while the old IKE SA serves.
    pub unproven: Option<Failure>,
    /// Why the last attempt failed, until one succeeds.
    pub last_failure: Option<Failure>,
}

/// What was done, refused or dropped, and how full the tables are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that are not IKE messages.
    pub malformed: u64,
    /// Datagrams between addresses that are not a pair of ours.
    pub unknown_pair: u64,
    /// Datagrams for an IKE SA that does not exist.
    pub unknown_spi: u64,
    /// Datagrams whose integrity check failed.
    pub not_authentic: u64,
    /// Datagrams that do not fit the state of their IKE SA: replays, strays.
    pub unexpected: u64,
    /// Sessions whose initiator had not proven itself, dropped because there were too many.
    pub half_open_dropped: u64,
    /// Answers to our first messages that were not looked at because there were too many.
    pub answers_refused: u64,
    /// Successors of IKE SAs refused because their session had too many.
    pub ike_sas_refused: u64,
    /// Children refused because their session had too many, or has none.
    pub children_refused: u64,
    /// Joiners refused because there were too many.
    pub joiners_refused: u64,
    /// Unproven messages about a pair that has a proven peer: nobody was told.
    pub hearsay: u64,
    /// Cookies asked for.
    pub cookies: u64,
    /// First requests not answered with a cookie because they had waited for too long.
    pub first_requests_late: u64,
    /// Sessions dropped because a pair had too many.
    pub sessions_dropped: u64,
    /// Datagrams not sent because too many were waiting.
    pub transmits_dropped: u64,
    /// Fragments that fit no message, or make one too large.
    pub fragments_refused: u64,
    /// Replacements of keys.
    pub rekeys: Rekeys,
    /// Handshakes, begun by either end.
    pub handshakes: Outcomes,
    /// How long those took that were done.
    pub handshake_durations: Durations,
    /// Why keys could not be agreed.
    pub failures: IkeFailures,
    /// Requests and answers sent again.
    pub retransmits: u64,
    /// Sessions whose initiator has not proven itself, or was refused a moment ago, now.
    pub half_open: u64,
    /// Joiners that have proven themselves, now.
    pub joiners: u64,
    /// Sessions of all states, now.
    pub sessions: u64,
    /// Their IKE SAs, and attempts of ours, now.
    pub ike_sas: u64,
    /// Octets of messages that have not come as a whole yet, now.
    pub fragment_octets: u64,
}
