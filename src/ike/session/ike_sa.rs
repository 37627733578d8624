//! One IKE SA: its indexes, its keys, its windows. A session has one, and a few while it is rekeyed.

use std::time::Instant;

use zeroize::Zeroizing;

use super::exchange::{Datagrams, Window};
use super::fragment::{Outcome, Reassembly, Whole, covered};
use super::pending::{Asked, HeldRequest};
use crate::ike::Entropy;
use crate::ike::crypto::cipher::unpadded;
use crate::ike::crypto::keys::{IkeKeys, Spis};
#[cfg(any(test, fuzzing))]
use crate::ike::insider::{Draft, covered_of, tampered};
use crate::ike::limits::ANSWERS_MAX;
use crate::ike::outbox::Cx;
use crate::ike::reason::{Failed, Reason};
use crate::ike::wire::codes::{Exchange, payload};
use crate::ike::wire::{
    Encrypted, Fragment, Header, HeaderFlags, Payload, encrypted_head_octets, write_chain,
    write_encrypted_head,
};

/// What was inside of a datagram, or what is wrong with its padding.
pub type Text = Result<Zeroizing<Vec<u8>>, Reason>;

/// How an IKE SA stands within its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// In use, or to be used next.
    Live,
    /// The peer has rekeyed it and will delete it; we do at this time if it has not.
    Replaced(Instant),
    /// We delete it as soon as its window is free.
    Doomed,
    /// The peer has deleted it. Until this time the answer is kept, should it not have arrived.
    Ended(Instant),
}

/// An IKE SA whose keys are known.
pub struct IkeSa {
    spis: Spis,
    initiator: bool,
    /// The most octets of a datagram that goes to a peer which understands fragments (RFC 7383).
    fragments: Option<usize>,
    incoming: [Reassembly; 2],
    /// What everything else is derived from.
    pub keys: IkeKeys,
    /// Message identifiers, our request and the one to be answered.
    pub window: Window<Asked, HeldRequest>,
    /// How it stands.
    pub(super) stage: Stage,
    /// When it is to be rekeyed; `None` once that is on its way.
    pub rekey_at: Option<Instant>,
    /// How many messages were encrypted; those that are sent again are the same bytes.
    encrypted: u16,
}

impl IkeSa {
    /// A new one. `initiator`: this end initiated it.
    pub fn new(
        spis: Spis,
        initiator: bool,
        keys: IkeKeys,
        window: Window<Asked, HeldRequest>,
        fragments: Option<usize>,
        rekey_at: Instant,
    ) -> Self {
        let incoming = Default::default();
        let (stage, rekey_at) = (Stage::Live, Some(rekey_at));
        Self { spis, initiator, fragments, incoming, keys, window, stage, rekey_at, encrypted: 0 }
    }

    /// The same IKE SA with other keys and windows.
    pub fn renewed(&self, keys: IkeKeys, window: Window<Asked, HeldRequest>) -> Self {
        let incoming = Default::default();
        let (spis, initiator, fragments) = (self.spis, self.initiator, self.fragments);
        let (stage, rekey_at) = (self.stage, self.rekey_at);
        Self { spis, initiator, fragments, incoming, keys, window, stage, rekey_at, encrypted: 0 }
    }

    /// There are so many `others` with the same keys at this end, fewer than answers are followed up, and none says much:
    /// so they number their messages apart, and no initialization vector comes twice.
    pub fn stand_apart(&mut self, others: usize) {
        const ROOM: usize = (1 << u16::BITS) / ANSWERS_MAX;
        self.encrypted = u16::try_from(others * ROOM).unwrap_or(u16::MAX);
    }

    /// The indexes of both ends.
    pub fn spis(&self) -> Spis {
        self.spis
    }

    /// The most octets of a datagram that goes to a peer which understands fragments.
    pub fn fragments(&self) -> Option<usize> {
        self.fragments
    }

    /// Whether this end initiated it.
    pub fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// The index that the peer's messages to us carry.
    pub fn ours(&self) -> u64 {
        if self.initiator { self.spis.initiator } else { self.spis.responder }
    }

    /// Whether a message with `header` can be one of the peer's on this IKE SA.
    pub fn owns(&self, header: &Header) -> bool {
        (header.initiator_spi, header.responder_spi) == (self.spis.initiator, self.spis.responder)
            && header.flags.from_initiator != self.initiator
    }

    fn header(&self, exchange: Exchange, response: bool, message_id: u32) -> Header {
        Header {
            initiator_spi: self.spis.initiator,
            responder_spi: self.spis.responder,
            first: payload::ENCRYPTED,
            exchange,
            flags: HeaderFlags { from_initiator: self.initiator, response },
            message_id,
        }
    }

    /// What AUTH covers of the message that [`IkeSa::encrypt`] makes (RFC 9242 section 3.3.2).
    pub fn covered(
        &self,
        exchange: Exchange,
        response: bool,
        message_id: u32,
        payloads: &[Payload],
    ) -> Vec<u8> {
        let mut text = Vec::new();
        write_chain(payloads, &mut text);
        let first = payloads.first().map_or(payload::NONE, Payload::kind);
        #[cfg(any(test, fuzzing))]
        let Draft { first, text, .. } = covered_of(Draft { exchange: exchange.0, response, first, text });
        covered(&self.header(exchange, response, message_id), first, &text)
    }

    /// A message whose payloads are encrypted (RFC 7296 section 3.14, RFC 5282 section 3): one datagram, or
    /// several if one would be too large and the peer puts them together again (RFC 7383).
    pub fn encrypt(
        &mut self,
        entropy: &mut dyn Entropy,
        exchange: Exchange,
        response: bool,
        message_id: u32,
        payloads: &[Payload],
    ) -> Result<Datagrams, Reason> {
        let header = self.header(exchange, response, message_id);
        let mut text = Zeroizing::new(Vec::new());
        write_chain(payloads, &mut text);
        let first = payloads.first().map_or(payload::NONE, Payload::kind);
        #[cfg(any(test, fuzzing))]
        let (first, text) = {
            let draft = Draft { exchange: exchange.0, response, first, text: text.to_vec() };
            let Draft { first, text, .. } = tampered(draft);
            (first, Zeroizing::new(text))
        };
        let room = |fragmented, octets: usize| {
            self.keys.encrypt.room(octets.saturating_sub(encrypted_head_octets(fragmented)))
        };
        let Some(octets) = self.fragments.filter(|octets| text.len() > room(false, *octets)) else {
            return Ok(vec![self.encrypt_part(entropy, header, first, None, &text)?]);
        };
        let parts: Vec<&[u8]> = text.chunks(room(true, octets).max(1)).collect();
        let total = u16::try_from(parts.len()).map_err(|_| Failed::Cryptography)?;
        (1..=total)
            .zip(parts)
            .map(|(number, part)| {
                // RFC 7383 section 2.5: the first fragment tells the type of the first payload.
                let first = if number == 1 { first } else { payload::NONE };
                self.encrypt_part(entropy, header, first, Some(Fragment { number, total }), part)
            })
            .collect()
    }

    fn encrypt_part(
        &mut self,
        entropy: &mut dyn Entropy,
        header: Header,
        first: u8,
        fragment: Option<Fragment>,
        text: &[u8],
    ) -> Result<Vec<u8>, Reason> {
        let cipher = &self.keys.encrypt;
        let mut text = text.to_vec();
        cipher.pad(&mut text);
        let mut datagram = write_encrypted_head(header, first, fragment, cipher.encrypted_octets(text.len()));
        let body = cipher.encrypt(unique(self.encrypted, entropy), &datagram, text)?;
        self.encrypted = self.encrypted.wrapping_add(1);
        datagram.extend(body);
        Ok(datagram)
    }

    /// What is inside, without its padding; `None` if it is not authentic.
    pub fn decrypt(&self, encrypted: &Encrypted<'_>) -> Option<Text> {
        let mut text = self.keys.decrypt.decrypt(encrypted.associated, encrypted.body)?;
        let length = unpadded(&text).map(<[u8]>::len);
        Some(length.map(|length| {
            text.truncate(length);
            text
        }))
    }

    /// Octets of messages that have not come as a whole yet.
    pub fn held_octets(&self) -> usize {
        self.incoming.iter().map(Reassembly::octets).sum()
    }

    /// Puts what was inside of `message` to the other fragments of the message, if it is a fragment. `None`:
    /// others are missing.
    pub fn collect(
        &mut self,
        cx: &mut Cx<'_>,
        header: &Header,
        encrypted: &Encrypted<'_>,
        text: Text,
    ) -> Option<Result<Whole, Reason>> {
        let text = match text {
            Ok(text) => text,
            Err(error) => return Some(Err(error)),
        };
        // Nobody sends fragments to whom does not know them (RFC 7383 section 2.3).
        let outcome = match (encrypted.fragment, self.fragments) {
            (Some(_), None) => Outcome::Refused,
            (Some(_), _) if text.len() > cx.fragment_room => Outcome::Refused,
            _ => self.incoming[usize::from(header.flags.response)].add(header.message_id, encrypted, text),
        };
        match outcome {
            Outcome::Whole(whole) => Some(Ok(whole)),
            Outcome::Incomplete => None,
            Outcome::Refused => {
                cx.out.counters.fragments_refused += 1;
                None
            }
        }
    }
}

/// What an initialization vector is made of. The counter alone would keep it from coming twice (RFC 5282
/// section 3.1), but for a virtual machine that goes on from a snapshot twice: both say something else with the same
/// number. So the rest of it is random.
fn unique(count: u16, entropy: &mut dyn Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    bytes[..2].copy_from_slice(&count.to_be_bytes());
    u64::from_be_bytes(bytes)
}
