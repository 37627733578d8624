//! One IKE SA: its indexes, its keys, its windows. A session has one, and a few while it is rekeyed.

use std::time::Instant;

use super::cipher::unpadded;
use super::error::Error;
use super::exchange::Window;
use super::keys::{IkeKeys, Spis};
use super::pending::{Asked, Held};
use super::wire::codes::{Exchange, payload};
use super::wire::{Flags, Header, Payload, Sealed, parse_chain, write_chain, write_sealed_head};

/// How an IKE SA stands within its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
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
pub(super) struct IkeSa {
    spis: Spis,
    initiator: bool,
    /// What everything else is derived from.
    pub(super) keys: IkeKeys,
    /// Message identifiers, what is asked and what is to be answered.
    pub(super) window: Window<Asked, Held>,
    /// How it stands.
    pub(super) stage: Stage,
    /// When it is to be rekeyed; `None` once that is on its way.
    pub(super) rekey_at: Option<Instant>,
    /// How many messages were encrypted; those that are sent again are the same bytes.
    sealed: u64,
}

impl IkeSa {
    /// A new one. `initiator`: this end initiated it.
    pub(super) fn new(
        spis: Spis,
        initiator: bool,
        keys: IkeKeys,
        window: Window<Asked, Held>,
        rekey_at: Instant,
    ) -> Self {
        Self { spis, initiator, keys, window, stage: Stage::Live, rekey_at: Some(rekey_at), sealed: 0 }
    }

    /// Whether this end initiated it.
    pub(super) fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// The index that the peer's messages to us carry.
    pub(super) fn ours(&self) -> u64 {
        if self.initiator { self.spis.initiator } else { self.spis.responder }
    }

    /// Whether a message with `header` can be one of the peer's on this IKE SA.
    pub(super) fn owns(&self, header: &Header) -> bool {
        (header.initiator_spi, header.responder_spi) == (self.spis.initiator, self.spis.responder)
            && header.flags.from_initiator != self.initiator
    }

    /// A message whose payloads are encrypted (RFC 7296 section 3.14, RFC 5282 section 3).
    pub(super) fn seal(
        &mut self,
        exchange: Exchange,
        response: bool,
        message_id: u32,
        payloads: &[Payload],
    ) -> Result<Vec<u8>, Error> {
        let header = Header {
            initiator_spi: self.spis.initiator,
            responder_spi: self.spis.responder,
            first: payload::ENCRYPTED,
            exchange,
            flags: Flags { from_initiator: self.initiator, response },
            message_id,
        };
        let mut text = Vec::new();
        write_chain(payloads, &mut text);
        let cipher = &self.keys.seal;
        cipher.pad(&mut text);
        let first = payloads.first().map_or(payload::NONE, Payload::kind);
        let mut message = write_sealed_head(header, first, cipher.sealed_octets(text.len()));
        let body = cipher.seal(self.sealed, &message, text)?;
        self.sealed += 1;
        message.extend(body);
        Ok(message)
    }

    /// The payloads inside; `None` if they are not authentic.
    pub(super) fn open(&self, sealed: &Sealed<'_>) -> Option<Result<Vec<Payload>, Error>> {
        let text = self.keys.open.open(sealed.associated, sealed.body)?;
        Some(unpadded(&text).and_then(|text| parse_chain(sealed.first, text)))
    }
}
