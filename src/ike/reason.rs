//! Why keys are not agreed, sorted by blame, as values: what a message is refused for, and what an attempt failed of.
//!
//! Each cause carries what was seen. None carries bytes of a key or of a secret, and none has words: whoever uses the
//! engine knows better what its operator can do about it.

use std::net::SocketAddr;

use crate::identity::AuthMethod;
use crate::identity::certificate::CertificateError;
use crate::types::{EspProposal, IkeProposal, Method, NodeName, Proposals, Spi, UnixTime};

/// Why a message, or what it asks for, is refused, or why an attempt came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The bytes are not a message.
    BadMessage(BadMessage),
    /// Well formed, and not what the protocol allows here.
    Misbehaved(Misbehaved),
    /// Correct, and nothing that both ends have in common.
    Incompatible(Incompatible),
    /// The peer's ticket is not taken (RFC 5723).
    BadTicket(BadTicket),
    /// The peer did not prove that it is who it must be.
    BadProof(BadProof),
    /// The ends do not agree on a PPK (RFC 8784, RFC 9867).
    BadPpk(BadPpk),
    /// It has proven that, and its proof is worth nothing any more.
    Lapsed(Lapsed),
    /// Correct, and not now: a limit of this end, or what the peer asks about is not there.
    Declined(Declined),
    /// The peer refused.
    Refused(Refusal),
    /// The peer does not answer.
    Unanswered(Unanswered),
    /// Something failed on this host.
    Failed(Failed),
}

/// What is wrong with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadMessage {
    /// The header says another version than 2.
    Version,
    /// The header says another length than the datagram has.
    Length,
    /// A length is beyond what can be counted.
    Overflow,
    /// A part ends before it is whole.
    Truncated,
    /// Octets follow the last part.
    LeftOver,
    /// A payload says that it is shorter than its head.
    ShortPayload,
    /// There are more payloads in a message than any has.
    TooManyPayloads,
    /// Something follows the Encrypted payload.
    AfterEncrypted,
    /// A fragment has number zero, or one beyond their count.
    FragmentNumber,
    /// A proposal says that it is shorter than its head.
    ShortProposal,
    /// A proposal has another number of transforms than it says.
    TransformCount,
    /// A transform says that it is shorter than its head.
    ShortTransform,
    /// A traffic selector says that it is shorter than its head.
    ShortSelector,
    /// A nonce has not 16 to 256 octets.
    NonceLength,
    /// A Delete payload has SPIs of another size than its protocol.
    DeleteSpiSize,
    /// What was decrypted says that it has more padding than octets.
    Padding,
}

/// What the protocol does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misbehaved {
    /// There is no SA payload.
    NoSa,
    /// There is no Nonce payload.
    NoNonce,
    /// There is no KE payload.
    NoPublicValue,
    /// An additional key exchange has no KE payload.
    NoAdditionalPublicValue,
    /// There is no public value of the group that was chosen.
    NoneOfChosenGroup,
    /// It asks for a public value of a group, and has chosen another.
    OtherThanChosenGroup,
    /// The public value is none of its group.
    PublicValue,
    /// The public value of an additional key exchange is not valid.
    AdditionalPublicValue,
    /// It chose what was not offered.
    Choice,
    /// It chose an additional key exchange, and did not say that it can do one.
    AdditionalUnknown,
    /// It goes on with an additional key exchange without having chosen one, or the other way round.
    AdditionalNotChosen,
    /// It answers without an SPI.
    NoSpi,
    /// Its SPI of a new IKE SA is zero or has a wrong length.
    NewSpi,
    /// The exchange has no place on an established IKE SA.
    Exchange,
    /// There is a NAT in between, and it goes on where ESP cannot follow.
    StaysOnPort,
}

/// What the ends have not in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incompatible {
    /// Algorithms.
    Algorithms(Box<Disjoint>),
    /// The group of the public value: this one was chosen.
    Group(u16),
    /// The traffic selectors do not contain the pair's addresses.
    Selectors,
    /// A payload of this type must be understood, and is not known here.
    CriticalPayload(u8),
    /// It makes keys in this way, which is not accepted.
    Method(Method),
    /// It takes no signatures of the kind of this host's key.
    Signature,
    /// It does not take ESP in UDP, which has to be.
    Encapsulation,
    /// It does not take transport mode.
    TransportMode,
    /// An IKE SA that was made without Diffie-Hellman is not rekeyed.
    NotRekeyed,
    /// It knows of no control IKE SAs, or has none.
    NoControl,
}

/// Offers with nothing that can be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disjoint {
    /// What the peer offers.
    pub offered: Offered,
    /// What is taken here.
    pub taken: OurProposals,
}

/// The part of a peer's offer that is told: anybody can offer more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offered {
    /// The first proposals.
    pub proposals: Vec<OfferedProposal>,
    /// How many more there are.
    pub more: usize,
}

/// One of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfferedProposal {
    /// What it is for: the number of a protocol (RFC 7296 section 3.3.1).
    pub protocol: u8,
    /// The first algorithms that it names.
    pub algorithms: Vec<Algorithm>,
}

/// An algorithm, known here or not, by its numbers (RFC 7296 section 3.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Algorithm {
    /// The type of the transform.
    pub kind: u8,
    /// Its identifier.
    pub id: u16,
    /// Bits of its key, where its identifier does not say.
    pub key_bits: Option<u16>,
}

/// The proposals that are taken here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OurProposals {
    /// For an IKE SA.
    Ike(Proposals<IkeProposal>),
    /// For a child.
    Esp(Proposals<EspProposal>),
}

/// Why a ticket is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadTicket {
    /// None is: keys are not made so here.
    NotAccepted,
    /// There is none.
    Missing,
    /// It is no ticket, or one of another version.
    Version,
    /// It names other hosts than the two ends.
    OtherHosts,
    /// No secret that is known here was what it was made for, in this cluster.
    UnknownSecret,
}

/// Why a peer's proof is not taken. The peer is not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadProof {
    /// There is no AUTH payload.
    Missing,
    /// The identity is not the address that we talk to.
    Identity,
    /// It is proven in a way that is not accepted from this peer.
    Method {
        /// The way that it took.
        used: ProofWay,
        /// The ways that it may take.
        accepted: Vec<AuthMethod>,
        /// Who it must be.
        node: NodeName,
    },
    /// AUTH was not made with the keys that the ticket stands for.
    Resumption,
    /// AUTH was not made with a secret of ours.
    Secret,
    /// It must prove itself with a key, and none is known.
    Unlisted(NodeName),
    /// AUTH was not made with the key of the node.
    Key(NodeName),
    /// Its certificate is not taken.
    Certificate(CertificateError),
    /// AUTH was not made with the key of the certificate.
    OtherSigner,
    /// A certificate cannot be judged without the time of day.
    NoTime,
    /// AUTH was not made with a key that is known of the member at this address.
    Member,
    /// It proves itself with the key of no invite that is known.
    Invite,
    /// It is proven, and was not admitted.
    NotAdmitted,
}

/// Why the ends do not agree on a PPK. Whoever shows one knows nothing else of it than what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadPpk {
    /// One is required, and the peer goes on without.
    Missing,
    /// None is required, both ends have said that they have some, and the peer names none.
    NotNamed,
    /// The settings of this end have changed under way.
    Changed,
    /// The peer calls one so that is not known here.
    Unknown(String),
    /// What the peer shows was not made with the PPK that is called so here.
    Differs(String),
    /// AUTH was not made with the PPK that is called so here, or otherwise not as it must.
    Wrong(String, BadProof),
    /// The peer does not take AUTH that was made with the PPK that is called so here.
    Refused(String),
    /// The peer takes none of the PPKs that are called so here.
    NoneTaken(Vec<String>),
}

/// How a peer proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofWay {
    /// In a way that is known here.
    Known(AuthMethod),
    /// By the method of this number (RFC 7296 section 3.8).
    Other(u8),
}

/// Why a proof that was taken is worth nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapsed {
    /// The settings changed, and the peer has shown no other proof in time.
    NotAccepted,
    /// The settings changed, and no keys with a PPK that is taken now came in time.
    Ppk,
    /// Its certificate, or one above it, is over since then.
    Expired(UnixTime),
    /// Its certificate, or one above it, was taken back.
    Revoked,
}

/// Why a request is not met now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declined {
    /// There are as many children as an IKE SA may have.
    ChildrenMost,
    /// It crosses something in progress.
    Crossed,
    /// There is no child with this SPI at the peer.
    NoSuchChild(Spi),
    /// No exchange is under way that it continues.
    NoExchange,
    /// A control IKE SA has no children.
    Childless,
    /// There are as many joiners as are let in at a time.
    JoinersMost,
}

/// The notification by which a peer refused (RFC 7296 section 3.10.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// UNSUPPORTED_CRITICAL_PAYLOAD.
    CriticalPayload,
    /// INVALID_SYNTAX.
    Syntax,
    /// NO_PROPOSAL_CHOSEN.
    Proposals,
    /// INVALID_KE_PAYLOAD.
    PublicValue,
    /// AUTHENTICATION_FAILED.
    Authentication,
    /// NO_ADDITIONAL_SAS.
    ChildrenMost,
    /// TS_UNACCEPTABLE.
    Selectors,
    /// TEMPORARY_FAILURE.
    Temporary,
    /// CHILD_SA_NOT_FOUND.
    NoSuchChild,
    /// STATE_NOT_FOUND (RFC 9370).
    NoExchange,
    /// TICKET_NACK (RFC 5723).
    Ticket,
    /// An error of another number.
    Other(u16),
}

/// What has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// The first message.
    First(SocketAddr),
    /// A later one, though the first was answered.
    Later(Later, SocketAddr),
    /// Anything, on an IKE SA of a peer that was there.
    AnyMore(SocketAddr),
}

/// A message of an initiator after the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Later {
    /// IKE_INTERMEDIATE.
    Intermediate,
    /// IKE_AUTH.
    Auth,
}

/// What failed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// The cryptography library, or its input is not there.
    Cryptography,
    /// The kernel did not take the SAs of a child.
    Installation,
}

/// Why a pair could not be keyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub reason: Reason,
    /// It rests on a message that nobody has proven: anybody can cause it, as often as he likes.
    pub hearsay: bool,
}

/// The kinds of [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCode {
    /// The peer does not answer.
    NoAnswer,
    /// One end does not take the other's proof: secrets, keys, ways of proof or addresses differ.
    AuthFailed,
    /// The ends have no algorithm, mode or traffic selector in common.
    NoProposal,
    /// The peer refused for another reason.
    PeerRefused,
    /// Something failed on this host.
    Internal,
}

impl Reason {
    /// The kind of failure that it is.
    pub fn code(&self) -> FailureCode {
        match self {
            Reason::Unanswered(_) => FailureCode::NoAnswer,
            Reason::BadProof(_)
            | Reason::BadPpk(_)
            | Reason::Lapsed(_)
            | Reason::Refused(Refusal::Authentication | Refusal::Ticket) => FailureCode::AuthFailed,
            Reason::Incompatible(Incompatible::CriticalPayload(_)) => FailureCode::PeerRefused,
            Reason::Incompatible(_)
            | Reason::Refused(Refusal::Proposals | Refusal::PublicValue | Refusal::Selectors) => {
                FailureCode::NoProposal
            }
            Reason::Failed(_) => FailureCode::Internal,
            Reason::BadMessage(_)
            | Reason::Misbehaved(_)
            | Reason::BadTicket(_)
            | Reason::Declined(_)
            | Reason::Refused(_) => FailureCode::PeerRefused,
        }
    }

    /// The failure that it means.
    pub(super) fn failure(self) -> Failure {
        Failure { reason: self, hearsay: false }
    }

    /// The same where it rests on a message that nobody has proven.
    pub(super) fn hearsay(self) -> Failure {
        Failure { reason: self, hearsay: true }
    }
}

impl Failure {
    /// Its kind.
    pub fn code(&self) -> FailureCode {
        self.reason.code()
    }

    /// Whether the peer may take another proof or PPK of ours. Who takes none of our PPKs was shown all of them: another
    /// attempt would show the same.
    pub(super) fn asks_for_other_proof(&self) -> bool {
        let is_final = matches!(self.reason, Reason::BadPpk(BadPpk::NoneTaken(_)));
        self.code() == FailureCode::AuthFailed && !is_final
    }
}

/// A cause is a reason.
macro_rules! reasons {
    ($($cause:ident),*) => {$(
        impl From<$cause> for Reason {
            fn from(cause: $cause) -> Self {
                Reason::$cause(cause)
            }
        }
    )*};
}

reasons!(
    BadMessage,
    Misbehaved,
    Incompatible,
    BadTicket,
    BadProof,
    BadPpk,
    Lapsed,
    Declined,
    Unanswered,
    Failed
);

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        Reason::Refused(refusal)
    }
}

impl From<Disjoint> for Reason {
    fn from(disjoint: Disjoint) -> Self {
        Incompatible::Algorithms(Box::new(disjoint)).into()
    }
}

impl From<CertificateError> for BadProof {
    fn from(error: CertificateError) -> Self {
        BadProof::Certificate(error)
    }
}
