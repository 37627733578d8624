//! Why a pair has no keys, in the operator's words: what was seen, and what to do about it.
//!
//! The key exchange says why as values ([`crate::ike::reason`]) and knows nothing of commands or files. Here alone is
//! both known.

mod offered;
mod pair;
#[cfg(test)]
mod tests;

use crate::identity::AuthMethod;
use crate::identity::certificate::CertificateError;
pub use pair::{in_the_way, in_vrf, of_pair, unsent};

use crate::ike::reason::{
    BadMessage, BadPpk, BadProof, BadTicket, Declined, Disjoint, Failed, FailureCode, Incompatible, Lapsed,
    Later, Misbehaved, OurProposals, ProofWay, Reason, Refusal, Unanswered,
};
use crate::types::{Method, Unready};

/// Why another host could not be protected, and what to do there.
pub fn unready(why: Unready) -> String {
    let lacks = match why {
        Unready::NoEsp => "its kernel has no ESP (module esp4 or esp6)",
        Unready::NoCipher => "its kernel has no rfc4106(gcm(aes)) (module gcm, seqiv or aes)",
        Unready::NotPermitted => "its agent may not change the kernel's IPsec tables",
        Unready::Other => "its kernel refused what the agent tried",
        Unready::File => return "its file is not in force: `hostseal status` there says why".to_owned(),
    };
    format!("it cannot be protected, as {lacks}: `hostseal doctor` there says what to do")
}

/// The two hosts that words are about.
#[derive(Debug, Clone, Copy)]
pub enum Ends<'a> {
    /// It is not known what they are called.
    Unnamed,
    /// What this host and its peer are called.
    Named {
        /// This host.
        own: &'a str,
        /// Its peer.
        peer: &'a str,
    },
}

impl Ends<'_> {
    fn peer(self) -> String {
        match self {
            Ends::Unnamed => "the peer".to_owned(),
            Ends::Named { peer, .. } => peer.to_owned(),
        }
    }

    /// The command that shows how the peer sees it, and where to run it.
    fn status_there(self) -> String {
        match self {
            Ends::Unnamed => "run `hostseal status` there".to_owned(),
            Ends::Named { own, peer } => format!("run `hostseal status {own}` on {peer}"),
        }
    }
}

/// What `reason` means to the operator, where it is not known what the hosts are called.
pub fn words(reason: &Reason) -> String {
    words_between(reason, Ends::Unnamed)
}

/// What `reason` means to the operator of one of these hosts.
pub fn words_between(reason: &Reason, ends: Ends<'_>) -> String {
    match reason {
        Reason::BadMessage(what) => format!("malformed message: {}", malformed(*what)),
        Reason::Misbehaved(how) => format!("the peer broke the protocol: {}", misbehaved(*how)),
        Reason::Incompatible(what) => incompatible(what),
        Reason::BadTicket(why) => format!("the peer's ticket is rejected: {}", bad_ticket(*why)),
        Reason::BadProof(why) => format!("authentication failed: {}", unproven(why)),
        Reason::BadPpk(why) => format!("authentication failed: {}", bad_ppk(why, ends)),
        Reason::Lapsed(why) => lapsed(*why),
        Reason::Declined(what) => declined(*what),
        Reason::Refused(refusal) => refused(*refusal, ends),
        Reason::Unanswered(what) => unanswered(*what),
        Reason::Failed(what) => failed(*what).to_owned(),
    }
}

/// What a log line calls failures of one kind.
pub fn kind(code: FailureCode) -> &'static str {
    match code {
        FailureCode::NoAnswer => "no_answer",
        FailureCode::AuthFailed => "auth_failed",
        FailureCode::NoProposal => "no_proposal",
        FailureCode::PeerRefused => "peer_refused",
        FailureCode::Internal => "internal",
    }
}

fn malformed(what: BadMessage) -> &'static str {
    match what {
        BadMessage::Version => "it is not IKE version 2",
        BadMessage::Length => "its length is not the datagram's",
        BadMessage::Overflow => "a length overflows",
        BadMessage::Truncated => "it ends too early",
        BadMessage::LeftOver => "bytes are left over",
        BadMessage::ShortPayload => "a payload is too short",
        BadMessage::TooManyPayloads => "it has too many payloads",
        BadMessage::AfterEncrypted => "something follows the Encrypted payload",
        BadMessage::FragmentNumber => "a fragment has a number that does not exist",
        BadMessage::ShortProposal => "a proposal is too short",
        BadMessage::TransformCount => "a proposal's count of transforms is wrong",
        BadMessage::ShortTransform => "a transform is too short",
        BadMessage::ShortSelector => "a traffic selector is too short",
        BadMessage::NonceLength => "a nonce has a wrong length",
        BadMessage::DeleteSpiSize => "a Delete payload has a wrong SPI size",
        BadMessage::Padding => "its padding is longer than it is",
    }
}

fn misbehaved(how: Misbehaved) -> &'static str {
    match how {
        Misbehaved::NoSa => "there is no SA payload",
        Misbehaved::NoNonce => "there is no nonce",
        Misbehaved::NoPublicValue => "there is no public value",
        Misbehaved::NoAdditionalPublicValue => "there is no additional public value",
        Misbehaved::NoneOfChosenGroup => "the message has no public value of the chosen group",
        Misbehaved::OtherThanChosenGroup => "its public value is not of the group that it chose",
        Misbehaved::PublicValue => "its public value is not valid",
        Misbehaved::AdditionalPublicValue => "its additional public value is not valid",
        Misbehaved::Choice => "its choice is not one of ours",
        Misbehaved::AdditionalUnknown => "it chose an additional key exchange and knows none",
        Misbehaved::AdditionalNotChosen => "its additional key exchange is not the one that it chose",
        Misbehaved::NoSpi => "it has no SPI",
        Misbehaved::NewSpi => "its SPI of the new IKE SA is not valid",
        Misbehaved::Exchange => "an exchange that does not belong here",
        Misbehaved::StaysOnPort => "there is a NAT, and it stays on the port where ESP cannot follow",
    }
}

fn incompatible(what: &Incompatible) -> String {
    let lacks = match what {
        Incompatible::Algorithms(disjoint) => return algorithms(disjoint),
        Incompatible::Group(group) => return format!("the public value must be of group {group}"),
        Incompatible::Selectors => return "traffic selectors without the pair's addresses".to_owned(),
        Incompatible::CriticalPayload(kind) => return format!("unsupported critical payload of type {kind}"),
        Incompatible::Method(Method::Ike) => "it negotiates keys, and keying.accept has no \"ike\"",
        Incompatible::Method(Method::Derived) => {
            "it derives keys from the secret, and keying.accept has no \"derived\""
        }
        Incompatible::Signature => "the peer takes no signatures of our kind of key",
        Incompatible::Encapsulation => "the peer does not take ESP in UDP",
        Incompatible::TransportMode => "the peer does not take transport mode",
        Incompatible::NotRekeyed => "an IKE SA without Diffie-Hellman is not rekeyed: another resumes",
        Incompatible::NoControl => {
            "the peer has no control IKE SA (it is in no cluster, or of an older version)"
        }
    };
    format!("nothing in common: {lacks}")
}

fn algorithms(Disjoint { offered, taken }: &Disjoint) -> String {
    let (what, ours) = match taken {
        OurProposals::Ike(proposals) => ("IKE", proposals.to_string()),
        OurProposals::Esp(proposals) => ("ESP", proposals.to_string()),
    };
    let offered = offered::words(offered);
    format!("no algorithms in common for {what}: the peer offers {offered}, and this host takes {ours}")
}

fn bad_ticket(why: BadTicket) -> &'static str {
    match why {
        BadTicket::NotAccepted => "keying.accept has no \"derived\"",
        BadTicket::Missing => "there is none",
        BadTicket::Version => "it is none of this version",
        BadTicket::OtherHosts => "it names other hosts",
        BadTicket::UnknownSecret => "it was made for another secret or another cluster",
    }
}

fn unproven(why: &BadProof) -> String {
    let seen = match why {
        BadProof::Missing => "the peer gave no proof of who it is",
        BadProof::Identity => "the peer says that it is another host than the one with this address",
        BadProof::Method { used, accepted, node } => {
            let used = match used {
                ProofWay::Known(method) => method.words().to_owned(),
                ProofWay::Other(number) => format!("AUTH method {number}"),
            };
            let accepted: Vec<_> = accepted.iter().copied().map(AuthMethod::words).collect();
            let accepted = accepted.join(" or ");
            return format!(
                "the peer proves itself with {used}, and only {accepted} is accepted from {node} (auth.accept)"
            );
        }
        BadProof::Resumption => "the peer's proof does not match the messages that came from it",
        BadProof::Secret => "the peer has another secret (compare `hostseal secret id` on both hosts)",
        BadProof::Unlisted(node) => return format!("the file has no public_key of node {node}"),
        BadProof::Key(node) => {
            return format!(
                "the peer's key is not the one configured for node {node} (compare public_key in the file with \
                 `hostseal key show` there)"
            );
        }
        BadProof::Certificate(error) => return error.to_string(),
        BadProof::OtherSigner => "the peer does not have the key of its certificate",
        BadProof::NoTime => "this host does not know the time, and the peer proves itself with a certificate",
        BadProof::Member => {
            "the peer has none of the keys that the cluster knows of the node with this address"
        }
        BadProof::Invite => "the peer has the key of no invite that this cluster knows",
        BadProof::NotAdmitted => "the peer has proven who it is, and is not admitted",
    };
    seen.to_owned()
}

fn bad_ppk(why: &BadPpk, ends: Ends<'_>) -> String {
    let (peer, status_there) = (ends.peer(), ends.status_there());
    match why {
        BadPpk::Missing => {
            "the peer uses no PPK, and one is required here: give it the PPK too (`[ppk]`), or let hosts go \
                            without for now (`ppk.required = false`)"
                .to_owned()
        }
        BadPpk::NotNamed => {
            "the peer names no PPK, though both hosts said that they have one: if this lasts, somebody \
                             on the path may change the first messages"
                .to_owned()
        }
        BadPpk::Changed => {
            "the PPKs of this host changed while keys were agreed, so it tries again".to_owned()
        }
        BadPpk::Unknown(id) => format!(
            "the peer uses PPK \"{id}\", which is not known here: compare `[ppk]` in the files of both hosts"
        ),
        BadPpk::Differs(id) => format!(
            "the peer has another key for PPK \"{id}\": compare what `hostseal config check` shows of it on both hosts"
        ),
        BadPpk::Wrong(id, unproven) => format!(
            "the peer has another key for PPK \"{id}\" (`hostseal config check` shows its fingerprint on both hosts), or {}",
            self::unproven(unproven)
        ),
        BadPpk::Refused(id) => format!(
            "{peer} rejected our authentication with PPK \"{id}\". To see why, {status_there}: it does not know that PPK \
             or has another key for it, or it expects another secret or key, or does not list this address \
             (AUTHENTICATION_FAILED)"
        ),
        BadPpk::NoneTaken(ids) => format!(
            "{peer} rejected all PPKs of this host ({}): it does not know them, or has other keys for them. To see why, \
             {status_there} (AUTHENTICATION_FAILED)",
            ids.iter().map(|id| format!("\"{id}\"")).collect::<Vec<_>>().join(", ")
        ),
    }
}

fn lapsed(why: Lapsed) -> String {
    match why {
        Lapsed::NotAccepted => "the peer's proof is no longer accepted, and it has shown no other".to_owned(),
        Lapsed::Ppk => {
            "the keys have no PPK that is accepted still, and no others came: compare `[ppk]` in the files of both hosts"
                .to_owned()
        }
        Lapsed::Expired(at) => CertificateError::Expired(at).to_string(),
        Lapsed::Revoked => CertificateError::Revoked.to_string(),
    }
}

fn declined(what: Declined) -> String {
    match what {
        Declined::ChildrenMost => "no more child SAs".to_owned(),
        Declined::Crossed => "busy with an exchange that this one crosses".to_owned(),
        Declined::NoSuchChild(spi) => format!("no such child SA: {spi}"),
        Declined::NoExchange => "no exchange is under way that this message continues".to_owned(),
        Declined::Childless => "control IKE SAs have no child SAs".to_owned(),
        Declined::JoinersMost => "too many hosts join at the moment".to_owned(),
    }
}

/// The name of a notification, as other software and captures have it (RFC 7296 section 3.10.1).
fn name(refusal: Refusal) -> String {
    let name = match refusal {
        Refusal::CriticalPayload => "UNSUPPORTED_CRITICAL_PAYLOAD",
        Refusal::Syntax => "INVALID_SYNTAX",
        Refusal::Proposals => "NO_PROPOSAL_CHOSEN",
        Refusal::PublicValue => "INVALID_KE_PAYLOAD",
        Refusal::Authentication => "AUTHENTICATION_FAILED",
        Refusal::ChildrenMost => "NO_ADDITIONAL_SAS",
        Refusal::Selectors => "TS_UNACCEPTABLE",
        Refusal::Temporary => "TEMPORARY_FAILURE",
        Refusal::NoSuchChild => "CHILD_SA_NOT_FOUND",
        Refusal::NoExchange => "STATE_NOT_FOUND",
        Refusal::Ticket => "TICKET_NACK",
        Refusal::Other(number) => return format!("error {number}"),
    };
    name.to_owned()
}

fn refused(refusal: Refusal, ends: Ends<'_>) -> String {
    let (name, peer, status_there) = (name(refusal), ends.peer(), ends.status_there());
    match refusal {
        Refusal::Authentication => format!(
            "{peer} rejected our authentication. To see why, {status_there}: it expects another secret or key, or does \
             not list this address ({name})"
        ),
        Refusal::Proposals => format!(
            "{peer} refused our proposals. Compare what `hostseal config check` prints on both hosts, or {status_there} \
             ({name})"
        ),
        Refusal::Ticket => format!(
            "{peer} rejected keys derived from the secret: it has another secret (compare `hostseal secret \
             id` on both hosts), another cluster or address for this host, or no \"derived\" in keying.accept ({name})"
        ),
        Refusal::Selectors => format!("{peer} has other addresses for this pair ({name})"),
        Refusal::CriticalPayload
        | Refusal::Syntax
        | Refusal::PublicValue
        | Refusal::ChildrenMost
        | Refusal::Temporary
        | Refusal::NoSuchChild
        | Refusal::NoExchange
        | Refusal::Other(_) => format!("{peer} answered {name}"),
    }
}

fn unanswered(what: Unanswered) -> String {
    match what {
        Unanswered::First(remote) => format!(
            "no answer from {} on UDP {}: is it up and enabled, does its file list this host, and is that port open in \
             the firewalls in between?",
            remote.ip(),
            remote.port()
        ),
        Unanswered::Later(what, remote) => {
            let what = match what {
                Later::Intermediate => "IKE_INTERMEDIATE",
                Later::Auth => "IKE_AUTH",
            };
            format!(
                "no answer to {what} from {} on UDP {}, though it answered before: is that port open in the firewalls \
                 in between, for large packets too?",
                remote.ip(),
                remote.port()
            )
        }
        Unanswered::AnyMore(remote) => format!("no answer from {remote} any more"),
    }
}

fn failed(what: Failed) -> &'static str {
    match what {
        Failed::Cryptography => "cryptography failed",
        Failed::Installation => "the kernel did not take the new SAs",
    }
}
