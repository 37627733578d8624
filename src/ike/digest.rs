//! For tests and fuzzing: everything that is done with bytes that came in, as far as that goes without a
//! session.

use zeroize::Zeroizing;

use super::limits::REASSEMBLED_MAX;
use super::wire::{HEADER, Message, Parts, Payload, parse_chain, write_chain, write_clear};
use crate::identity::PublicKey;
use crate::identity::certificate::Chain;
use crate::ike::auth::signature;
use crate::ike::auth::signature::Hashes;
use crate::ike::crypto::cipher::unpadded;
use crate::ike::crypto::suite::{OwnKe, choose_esp, choose_ike, concluded_esp, concluded_ike};
use crate::ike::handshake::ticket::Ticket;
use crate::ike::session::fragment::{Outcome, Reassembly, Whole};
use crate::ike::session::nat::Content;
use crate::ike::wire::private;
use crate::types::Proposals;

/// The key of RFC 8410 section 10.1.
const KEY: &str = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";

/// Reads `bytes` as datagrams one behind the other, each as long as it says, and what is encrypted in them as
/// if it had been decrypted; and all of it as what could be inside of a message.
///
/// # Panics
/// If what was read and written again reads otherwise, or more is kept than may be.
pub fn digest(bytes: &[u8]) {
    Content::of(bytes, true);
    let mut reassembly = Reassembly::default();
    let mut rest = bytes;
    while rest.len() >= HEADER {
        let said = rest[24..HEADER].try_into().map_or(0, u32::from_be_bytes) as usize;
        let (datagram, behind) = rest.split_at(said.clamp(HEADER, rest.len()));
        rest = behind;
        let Ok(message) = Message::parse(datagram) else { continue };
        look_at(&message.payloads);
        if message.encrypted.is_none() {
            let again = write_clear(message.header, &message.payloads);
            assert_eq!(Message::parse(&again).map(|it| it.header.message_id), Ok(message.header.message_id));
        }
        if let Some(encrypted) = message.encrypted
            && let Ok(text) = unpadded(encrypted.body)
        {
            let text = Zeroizing::new(text.to_vec());
            if let Outcome::Whole(whole) = reassembly.add(message.header.message_id, &encrypted, text) {
                read(&whole);
            }
            assert!(reassembly.octets() <= REASSEMBLED_MAX);
        }
    }
    if let Some((first, text)) = bytes.split_first() {
        read(&Whole { first: *first, text: Zeroizing::new(text.to_vec()) });
    }
    if let Ok(ticket) = Ticket::parse(bytes) {
        assert_eq!(ticket.to_bytes(), bytes);
    }
}

/// What a message has inside.
fn read(whole: &Whole) {
    let Ok(payloads) = whole.payloads() else { return };
    look_at(&payloads);
    let mut again = Vec::new();
    write_chain(&payloads, &mut again);
    // Skipped payloads are not written again, nor are unknown attributes.
    let skipped = |payload: &Payload| match payload {
        Payload::Sa(proposals) => {
            proposals.iter().flat_map(|proposal| &proposal.transforms).any(|it| it.unknown_attribute)
        }
        _ => false,
    };
    if !payloads.iter().any(skipped) {
        let first = payloads.first().map_or(0, Payload::kind);
        assert_eq!(parse_chain(first, &again).as_ref(), Ok(&payloads));
    }
}

/// What sessions ask of payloads.
fn look_at(payloads: &[Payload]) {
    let parts = Parts(payloads);
    let (ike, esp) = (Proposals::default(), Proposals::default());
    if let Ok(offers) = parts.sa() {
        for own_ke in [OwnKe::Never, OwnKe::Brought(parts.ke().map(|ke| ke.group))] {
            let _ = (choose_esp(&esp, offers, own_ke), concluded_esp(&esp, offers, own_ke));
        }
        let _ = (choose_ike(&ike, offers, true), concluded_ike(&ike, offers));
    }
    for told in parts.notifies().filter_map(private::from_child) {
        assert!(private::of_child(told.0, &told.1).is_some());
    }
    let _ = (parts.refusal(), parts.wanted_group(), parts.is_ike_rekey(), Hashes::read(&parts));
    if let (Some((_, data)), Ok(key)) = (parts.auth(), KEY.parse::<PublicKey>()) {
        assert!(!signature::verify(&key, data, b"what nobody has signed"));
    }
    if let Ok(chain) = Chain::from_der(parts.certificates()) {
        let _ = chain.public_key();
    }
}
