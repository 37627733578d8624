use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::ike::reason::{Algorithm, Offered, OfferedProposal};
use crate::protect::reason::{BlockedWay, DetourTried, PairReason, Unwritten};
use crate::types::{
    Block, EspProposal, IkeProposal, NodeName, OpError, Pair, PolicyDirection, PolicyId, PolicyReading,
    Proposals, ReasonCode, Spi, UnixTime,
};

fn node() -> NodeName {
    "b".parse().unwrap()
}

fn pair() -> Pair {
    Pair::new("10.99.0.1".parse().unwrap(), remote().ip()).unwrap()
}

fn remote() -> SocketAddr {
    "10.99.0.2:500".parse().unwrap()
}

fn offer(protocol: u8, algorithms: &[(u8, u16, Option<u16>)]) -> OfferedProposal {
    let algorithm = |&(kind, id, key_bits)| Algorithm { kind, id, key_bits };
    OfferedProposal { protocol, algorithms: algorithms.iter().map(algorithm).collect() }
}

/// An old peer's offer, and another of which nothing is known.
fn old() -> Offered {
    let aes = [(ENCR, 12, Some(128)), (INTEG, 2, None), (DH, 14, None)];
    Offered { proposals: vec![offer(1, &aes), offer(1, &[(ENCR, 999, Some(64))]), offer(9, &[])], more: 997 }
}

const ENCR: u8 = 1;
const INTEG: u8 = 3;
const DH: u8 = 4;

fn ike(text: &str) -> OurProposals {
    OurProposals::Ike(Proposals::new(vec![text.parse::<IkeProposal>().unwrap()]).unwrap())
}

fn esp(text: &str) -> OurProposals {
    OurProposals::Esp(Proposals::new(vec![text.parse::<EspProposal>().unwrap()]).unwrap())
}

/// Each cause, and what the operator reads of it.
fn all() -> Vec<(Reason, &'static str)> {
    let disjoint = |taken| Reason::from(Disjoint { offered: old(), taken });
    let method =
        |used, accepted: &[AuthMethod]| BadProof::Method { used, accepted: accepted.to_vec(), node: node() };
    let other_name = CertificateError::OtherName { node: node(), addresses: "10.99.0.2".to_owned() };
    let of_certificate = |error| Reason::from(BadProof::Certificate(error));
    vec![
        (BadMessage::Version.into(), "malformed message: it is not IKE version 2"),
        (BadMessage::Length.into(), "malformed message: its length is not the datagram's"),
        (BadMessage::Overflow.into(), "malformed message: a length overflows"),
        (BadMessage::Truncated.into(), "malformed message: it ends too early"),
        (BadMessage::LeftOver.into(), "malformed message: bytes are left over"),
        (BadMessage::ShortPayload.into(), "malformed message: a payload is too short"),
        (BadMessage::TooManyPayloads.into(), "malformed message: it has too many payloads"),
        (BadMessage::AfterEncrypted.into(), "malformed message: something follows the Encrypted payload"),
        (BadMessage::FragmentNumber.into(), "malformed message: a fragment has a number that does not exist"),
        (BadMessage::ShortProposal.into(), "malformed message: a proposal is too short"),
        (BadMessage::TransformCount.into(), "malformed message: a proposal's count of transforms is wrong"),
        (BadMessage::ShortTransform.into(), "malformed message: a transform is too short"),
        (BadMessage::ShortSelector.into(), "malformed message: a traffic selector is too short"),
        (BadMessage::NonceLength.into(), "malformed message: a nonce has a wrong length"),
        (BadMessage::DeleteSpiSize.into(), "malformed message: a Delete payload has a wrong SPI size"),
        (BadMessage::Padding.into(), "malformed message: its padding is longer than it is"),
        (Misbehaved::NoSa.into(), "the peer broke the protocol: there is no SA payload"),
        (Misbehaved::NoNonce.into(), "the peer broke the protocol: there is no nonce"),
        (Misbehaved::NoPublicValue.into(), "the peer broke the protocol: there is no public value"),
        (
            Misbehaved::NoAdditionalPublicValue.into(),
            "the peer broke the protocol: there is no additional public value",
        ),
        (
            Misbehaved::NoneOfChosenGroup.into(),
            "the peer broke the protocol: the message has no public value of the chosen group",
        ),
        (
            Misbehaved::OtherThanChosenGroup.into(),
            "the peer broke the protocol: its public value is not of the group that it chose",
        ),
        (Misbehaved::PublicValue.into(), "the peer broke the protocol: its public value is not valid"),
        (
            Misbehaved::AdditionalPublicValue.into(),
            "the peer broke the protocol: its additional public value is not valid",
        ),
        (Misbehaved::Choice.into(), "the peer broke the protocol: its choice is not one of ours"),
        (
            Misbehaved::AdditionalUnknown.into(),
            "the peer broke the protocol: it chose an additional key exchange and knows none",
        ),
        (
            Misbehaved::AdditionalNotChosen.into(),
            "the peer broke the protocol: its additional key exchange is not the one that it chose",
        ),
        (Misbehaved::NoSpi.into(), "the peer broke the protocol: it has no SPI"),
        (Misbehaved::NewSpi.into(), "the peer broke the protocol: its SPI of the new IKE SA is not valid"),
        (Misbehaved::Exchange.into(), "the peer broke the protocol: an exchange that does not belong here"),
        (
            Misbehaved::StaysOnPort.into(),
            "the peer broke the protocol: there is a NAT, and it stays on the port where ESP cannot follow",
        ),
        (
            disjoint(ike("aes256gcm16-prfsha384-x25519")),
            "no algorithms in common for IKE: the peer offers aes128-sha1-modp2048, 1/999/64, protocol 9, 997 more, and \
             this host takes aes256gcm16-prfsha384-x25519",
        ),
        (
            disjoint(esp("aes256gcm16-esn")),
            "no algorithms in common for ESP: the peer offers aes128-sha1-modp2048, 1/999/64, protocol 9, 997 more, and \
             this host takes aes256gcm16-esn",
        ),
        (
            Disjoint { offered: Offered::default(), taken: esp("aes256gcm16-esn") }.into(),
            "no algorithms in common for ESP: the peer offers nothing, and this host takes aes256gcm16-esn",
        ),
        (Incompatible::Group(31).into(), "the public value must be of group 31"),
        (Incompatible::Selectors.into(), "traffic selectors without the pair's addresses"),
        (Incompatible::CriticalPayload(200).into(), "unsupported critical payload of type 200"),
        (
            Incompatible::Method(Method::Ike).into(),
            "nothing in common: it negotiates keys, and keying.accept has no \"ike\"",
        ),
        (
            Incompatible::Method(Method::Derived).into(),
            "nothing in common: it derives keys from the secret, and keying.accept has no \"derived\"",
        ),
        (
            Incompatible::Signature.into(),
            "nothing in common: the peer takes no signatures of our kind of key",
        ),
        (Incompatible::Encapsulation.into(), "nothing in common: the peer does not take ESP in UDP"),
        (Incompatible::TransportMode.into(), "nothing in common: the peer does not take transport mode"),
        (
            Incompatible::NotRekeyed.into(),
            "nothing in common: an IKE SA without Diffie-Hellman is not rekeyed: another resumes",
        ),
        (
            Incompatible::NoControl.into(),
            "nothing in common: the peer has no control IKE SA (it is in no cluster, or of an older version)",
        ),
        (BadTicket::NotAccepted.into(), "the peer's ticket is rejected: keying.accept has no \"derived\""),
        (BadTicket::Missing.into(), "the peer's ticket is rejected: there is none"),
        (BadTicket::Version.into(), "the peer's ticket is rejected: it is none of this version"),
        (BadTicket::OtherHosts.into(), "the peer's ticket is rejected: it names other hosts"),
        (
            BadTicket::UnknownSecret.into(),
            "the peer's ticket is rejected: it was made for another secret or another cluster",
        ),
        (BadProof::Missing.into(), "authentication failed: the peer gave no proof of who it is"),
        (
            BadProof::Identity.into(),
            "authentication failed: the peer says that it is another host than the one with this address",
        ),
        (
            method(ProofWay::Known(AuthMethod::Secret), &[AuthMethod::PublicKey, AuthMethod::Certificate])
                .into(),
            "authentication failed: the peer proves itself with the shared secret, and only its public key or its \
             certificate is accepted from b (auth.accept)",
        ),
        (
            method(ProofWay::Other(9), &[AuthMethod::Secret]).into(),
            "authentication failed: the peer proves itself with AUTH method 9, and only the shared secret is accepted \
             from b (auth.accept)",
        ),
        (
            BadProof::Resumption.into(),
            "authentication failed: the peer's proof does not match the messages that came from it",
        ),
        (
            BadProof::Secret.into(),
            "authentication failed: the peer has another secret (compare `hostseal secret id` on both hosts)",
        ),
        (BadProof::Unlisted(node()).into(), "authentication failed: the file has no public_key of node b"),
        (
            BadProof::Key(node()).into(),
            "authentication failed: the peer's key is not the one configured for node b (compare public_key in the \
             file with `hostseal key show` there)",
        ),
        (
            of_certificate(other_name),
            "authentication failed: its certificate is not for node b: it has neither that name nor 10.99.0.2 as a \
             subjectAltName",
        ),
        (
            of_certificate(CertificateError::UnknownIssuer),
            "authentication failed: its certificate is not issued by a CA of auth.ca",
        ),
        (
            BadProof::OtherSigner.into(),
            "authentication failed: the peer does not have the key of its certificate",
        ),
        (
            BadProof::NoTime.into(),
            "authentication failed: this host does not know the time, and the peer proves itself with a certificate",
        ),
        (
            BadProof::Member.into(),
            "authentication failed: the peer has none of the keys that the cluster knows of the node with this address",
        ),
        (
            BadProof::Invite.into(),
            "authentication failed: the peer has the key of no invite that this cluster knows",
        ),
        (
            BadProof::NotAdmitted.into(),
            "authentication failed: the peer has proven who it is, and is not admitted",
        ),
        (
            BadPpk::Missing.into(),
            "authentication failed: the peer uses no PPK, and one is required here: give it the PPK too (`[ppk]`), or let \
             hosts go without for now (`ppk.required = false`)",
        ),
        (
            BadPpk::NotNamed.into(),
            "authentication failed: the peer names no PPK, though both hosts said that they have one: if this lasts, somebody \
             on the path may change the first messages",
        ),
        (
            BadPpk::Changed.into(),
            "authentication failed: the PPKs of this host changed while keys were agreed, so it tries again",
        ),
        (
            BadPpk::Unknown("two".to_owned()).into(),
            "authentication failed: the peer uses PPK \"two\", which is not known here: compare `[ppk]` in the files of both \
             hosts",
        ),
        (
            BadPpk::Differs("one".to_owned()).into(),
            "authentication failed: the peer has another key for PPK \"one\": compare what `hostseal config check` shows of it \
             on both hosts",
        ),
        (
            BadPpk::NoneTaken(vec!["one".to_owned(), "two".to_owned()]).into(),
            "authentication failed: the peer rejected all PPKs of this host (\"one\", \"two\"): it does not know them, or has \
             other keys for them. To see why, run `hostseal status` there (AUTHENTICATION_FAILED)",
        ),
        (
            BadPpk::Wrong("one".to_owned(), BadProof::Secret).into(),
            "authentication failed: the peer has another key for PPK \"one\" (`hostseal config check` shows its fingerprint on \
             both hosts), or the peer has another secret (compare `hostseal secret id` on both hosts)",
        ),
        (
            BadPpk::Refused("one".to_owned()).into(),
            "authentication failed: the peer rejected our authentication with PPK \"one\". To see why, run `hostseal status` \
             there: it does not know that PPK or has another key for it, or it expects another secret or key, or does not \
             list this address (AUTHENTICATION_FAILED)",
        ),
        (Lapsed::NotAccepted.into(), "the peer's proof is no longer accepted, and it has shown no other"),
        (
            Lapsed::Ppk.into(),
            "the keys have no PPK that is accepted still, and no others came: compare `[ppk]` in the files of both hosts",
        ),
        (
            Lapsed::Expired(UnixTime(0)).into(),
            "its certificate, or one above it, expired on 1970-01-01T00:00:00Z",
        ),
        (Lapsed::Revoked.into(), "its certificate, or one above it, is revoked"),
        (Declined::ChildrenMost.into(), "no more child SAs"),
        (Declined::Crossed.into(), "busy with an exchange that this one crosses"),
        (Declined::NoSuchChild(Spi(0xc000_0001)).into(), "no such child SA: 0xc0000001"),
        (Declined::NoExchange.into(), "no exchange is under way that this message continues"),
        (Declined::Childless.into(), "control IKE SAs have no child SAs"),
        (Declined::JoinersMost.into(), "too many hosts join at the moment"),
        (Refusal::CriticalPayload.into(), "the peer answered UNSUPPORTED_CRITICAL_PAYLOAD"),
        (Refusal::Syntax.into(), "the peer answered INVALID_SYNTAX"),
        (
            Refusal::Proposals.into(),
            "the peer refused our proposals. Compare what `hostseal config check` prints on both hosts, or run \
             `hostseal status` there (NO_PROPOSAL_CHOSEN)",
        ),
        (Refusal::PublicValue.into(), "the peer answered INVALID_KE_PAYLOAD"),
        (
            Refusal::Authentication.into(),
            "the peer rejected our authentication. To see why, run `hostseal status` there: it expects another secret or \
             key, or does not list this address (AUTHENTICATION_FAILED)",
        ),
        (Refusal::ChildrenMost.into(), "the peer answered NO_ADDITIONAL_SAS"),
        (Refusal::Selectors.into(), "the peer has other addresses for this pair (TS_UNACCEPTABLE)"),
        (Refusal::Temporary.into(), "the peer answered TEMPORARY_FAILURE"),
        (Refusal::NoSuchChild.into(), "the peer answered CHILD_SA_NOT_FOUND"),
        (Refusal::NoExchange.into(), "the peer answered STATE_NOT_FOUND"),
        (
            Refusal::Ticket.into(),
            "the peer rejected keys derived from the secret: it has another secret (compare `hostseal secret id` on \
             both hosts), another cluster or address for this host, or no \"derived\" in keying.accept (TICKET_NACK)",
        ),
        (Refusal::Other(5).into(), "the peer answered error 5"),
        (
            Unanswered::First(remote()).into(),
            "no answer from 10.99.0.2 on UDP 500: is it up and enabled, does its file list this host, and is that port \
             open in the firewalls in between?",
        ),
        (
            Unanswered::Later(Later::Intermediate, remote()).into(),
            "no answer to IKE_INTERMEDIATE from 10.99.0.2 on UDP 500, though it answered before: is that port open in \
             the firewalls in between, for large packets too?",
        ),
        (
            Unanswered::Later(Later::Auth, remote()).into(),
            "no answer to IKE_AUTH from 10.99.0.2 on UDP 500, though it answered before: is that port open in the \
             firewalls in between, for large packets too?",
        ),
        (Unanswered::AnyMore(remote()).into(), "no answer from 10.99.0.2:500 any more"),
        (Failed::Cryptography.into(), "cryptography failed"),
        (Failed::Installation.into(), "the kernel did not take the new SAs"),
    ]
}

#[test]
fn each_cause_has_its_words() {
    for (reason, expected) in all() {
        assert_eq!(words(&reason), expected, "{reason:?}");
    }
}

#[test]
fn no_two_causes_are_told_alike() {
    let mut told: Vec<String> = all().iter().map(|(reason, _)| words(reason)).collect();
    told.extend(all_of_pairs().iter().filter_map(|(reason, _)| of_pair(pair(), reason)));
    told.sort();
    for pair in told.windows(2) {
        assert_ne!(pair[0], pair[1]);
    }
}

/// Each reason of a pair, and what the operator reads of it.
fn all_of_pairs() -> Vec<(PairReason, &'static str)> {
    let refused = || OpError::Refused { op: "add policy".to_owned(), reason: "no memory".to_owned() };
    let blocked = |way, detour| PairReason::EspBlocked { way, detour };
    let [own, other] = [pair().local, pair().remote].map(Block::host);
    let stranger = PolicyReading {
        id: PolicyId::between(PolicyDirection::Out, own, other),
        index: 9,
        priority: 1,
        action: None,
        until: None,
    };
    vec![
        (PairReason::Leaving, "on the way back to the clear"),
        (PairReason::Sealing, "sending ESP, still accepting clear packets"),
        (PairReason::Proving, "agreed keys, proving that ESP gets through"),
        (PairReason::Agreeing, "agreeing keys"),
        (PairReason::Encapsulating, "ESP (IP protocol 50) does not get through: trying it in UDP"),
        (PairReason::NoAddress, "this host does not have 10.99.0.1 now: no interface that is up carries it"),
        (PairReason::PeerDisabled, "10.99.0.2 went back to the clear: its operator disabled it"),
        (
            PairReason::PeerRemoved,
            "10.99.0.2 took the pair back to the clear: its file does not list this host any more. Remove 10.99.0.2 \
             here too, or add this host there",
        ),
        (PairReason::TrialEnded, "10.99.0.2 was enabled on trial, and nobody confirmed it in time"),
        (PairReason::Unwritten(Unwritten::Refused(refused())), "add policy: no memory"),
        (
            PairReason::Unwritten(Unwritten::InTheWay(stranger)),
            "policy out 10.99.0.1/32 -> 10.99.0.2/32 of other IPsec software (index 9) is in the way: remove it there",
        ),
        (
            PairReason::NotInstalled(OpError::Exists { op: "add SA".to_owned() }),
            "add SA: the kernel holds one already",
        ),
        (
            blocked(BlockedWay::Unknown, DetourTried::Nothing),
            "10.99.0.2 agrees on keys, but ESP (IP protocol 50) does not get through: open it in the firewalls in \
             between",
        ),
        (
            blocked(BlockedWay::Both, DetourTried::Port(4500)),
            "10.99.0.2 agrees on keys, but neither ESP (IP protocol 50) nor ESP in UDP (port 4500) gets through in \
             either direction: open one of them in the firewalls in between",
        ),
        (
            blocked(BlockedWay::Out, DetourTried::Nothing),
            "10.99.0.2 agrees on keys, but ESP (IP protocol 50) does not get through from this host to the other: open \
             it in the firewalls in between",
        ),
        (
            blocked(BlockedWay::In, DetourTried::Failed),
            "10.99.0.2 agrees on keys, but ESP (IP protocol 50) does not get through, and an attempt with ESP in UDP \
             failed from the other host to this one: open protocol 50, or the UDP port of `keying.nat_port` (4500), in \
             the firewalls in between",
        ),
    ]
}

#[test]
fn each_reason_of_a_pair_has_its_words() {
    for (reason, expected) in all_of_pairs() {
        assert_eq!(of_pair(pair(), &reason).as_deref(), Some(expected), "{reason:?}");
    }
    assert_eq!(of_pair(pair(), &PairReason::NoKeys(ReasonCode::NoAnswer)), None, "another room knows");
}

#[test]
fn every_reason_of_a_pair_is_in_the_list() {
    let variants = variants(include_str!("../../protect/reason.rs"));
    assert!(variants.len() > 15, "the test reads variants: {}", variants.len());
    let listed: Vec<String> = all_of_pairs().iter().map(|(reason, _)| format!("{reason:?}")).collect();
    for (of, variant) in variants.into_iter().filter(|(_, variant)| *variant != "NoKeys") {
        let is_named = |text: &String| text.split(|c: char| !c.is_alphanumeric()).any(|part| part == variant);
        assert!(listed.iter().any(is_named), "{of}::{variant} is not in the list of this test");
    }
}

/// The variants of each enum in `source`, with the enum in front.
fn variants(source: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    let mut of = None;
    for line in source.lines() {
        let name = |text: &'static str| text.split(|c: char| !c.is_alphanumeric()).next().unwrap();
        if let Some(rest) = line.strip_prefix("pub enum ") {
            of = Some(name(rest));
        } else if line == "}" {
            of = None;
        } else if let (Some(of), Some(rest)) = (of, line.strip_prefix("    "))
            && rest.starts_with(|c: char| c.is_ascii_uppercase())
        {
            found.push((of, name(rest)));
        }
    }
    found.into_iter().filter(|(of, _)| *of != "FailureCode").collect()
}

/// What is added there is explained here, and its words are looked at.
#[test]
fn every_cause_is_in_the_list() {
    let variants = variants(include_str!("../../ike/reason.rs"));
    assert!(variants.len() > 80, "the test reads variants: {}", variants.len());
    let listed: Vec<String> = all().iter().map(|(reason, _)| format!("{reason:?}")).collect();
    for (of, variant) in variants {
        // As Debug has it.
        let named = match of {
            "Reason" => variant.to_owned(),
            "Refusal" => format!("Refused({variant}"),
            "OurProposals" => format!("taken: {variant}"),
            "ProofWay" => format!("used: {variant}"),
            of => format!("{of}({variant}"),
        };
        let says = |text: &String| {
            text.split_once(&named).is_some_and(|(_, rest)| !rest.starts_with(char::is_alphanumeric))
        };
        assert!(listed.iter().any(says), "{of}::{variant} is not in the list of this test");
    }
}

proptest! {
    /// Whatever a peer offers or says, it can be told, and in a line that a screen can hold.
    #[test]
    fn whatever_a_peer_says_is_told(
        proposals in prop::collection::vec(
            (any::<u8>(), prop::collection::vec((0u8..14, any::<u16>(), any::<Option<u16>>()), 0..16)),
            0..3,
        ),
        more: usize,
        number: u16,
        payload: u8,
        port: u16,
    ) {
        let proposals = proposals.iter().map(|(protocol, algorithms)| offer(*protocol, algorithms)).collect();
        let offered = Offered { proposals, more };
        let remote = SocketAddr::new(remote().ip(), port);
        let reasons: [Reason; 6] = [
            Disjoint { offered, taken: esp("aes256gcm16-esn") }.into(),
            Refusal::Other(number).into(),
            Incompatible::Group(number).into(),
            Incompatible::CriticalPayload(payload).into(),
            BadProof::Method { used: ProofWay::Other(payload), accepted: Vec::new(), node: node() }.into(),
            Unanswered::First(remote).into(),
        ];
        for reason in reasons {
            let told = words(&reason);
            prop_assert!(told.len() < 1200 && told.is_ascii() && !told.contains('\n'), "{}", told);
        }
    }
}

#[test]
fn hosts_are_called_by_their_names_where_they_are_known() {
    let told = |reason: Reason| words_between(&reason, Ends::Named { own: "a", peer: "b" });
    let refused = told(Refusal::Authentication.into());
    assert!(
        refused.starts_with("b rejected our authentication. To see why, run `hostseal status a` on b: "),
        "{refused}"
    );
    assert!(told(Refusal::Proposals.into()).contains("or run `hostseal status a` on b (NO_PROPOSAL_CHOSEN)"));
    let ppk = told(BadPpk::Refused("one".to_owned()).into());
    assert!(
        ppk.contains("b rejected our authentication with PPK \"one\". To see why, run `hostseal status a`"),
        "{ppk}"
    );
}
