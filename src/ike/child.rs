//! Child SAs: offering one, accepting one, and what is remembered of one (RFC 7296 sections 1.3 and 2.9).

use std::time::Instant;

use super::crypto::Hidden;
use super::error::Error;
use super::keys::{IkeKeys, Nonces};
use super::outbox::Cx;
use super::pending::HeldChild;
use super::suite::{EspChoice, OwnKe, choose_esp, concluded_esp, esp_offer};
use super::wire::codes::notify;
use super::wire::{Parts, Payload, TrafficSelector};
use super::word;
use crate::model::word::Flags;
use crate::model::{EspProposal, EspSuite, NewChild, Pair, Proposals, Spi, Word};

/// Our half of a child that is being negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    /// Our inbound SA.
    pub(super) in_spi: Spi,
    /// What a probe through it must carry.
    pub(super) token: [u8; 16],
}

impl Offer {
    /// A new one.
    pub(super) fn new(cx: &mut Cx<'_>) -> Self {
        Self { in_spi: cx.esp_spi(), token: cx.random() }
    }

    /// What we say about it while it is being negotiated.
    pub(super) fn word(&self, now: Instant) -> Payload {
        let flags = Flags::default();
        word::to_payload(&Word { spi: self.in_spi, token: self.token, revision: 0, flags }, now)
    }

    /// The payloads of a request for it. `fresh` stands between SA and TS where CREATE_CHILD_SA has a nonce.
    pub(super) fn request(
        &self,
        proposals: &Proposals<EspProposal>,
        pair: Pair,
        fresh: Option<&[u8]>,
    ) -> Vec<Payload> {
        let mut payloads = vec![Payload::Sa(esp_offer(proposals, self.in_spi))];
        payloads.extend(fresh.map(|nonce| Payload::Nonce(nonce.to_vec())));
        payloads.extend(selectors(pair, true));
        payloads.push(transport_mode());
        payloads
    }
}

/// RFC 7296 section 2.9: exactly the two hosts.
pub(super) fn selectors(pair: Pair, initiator: bool) -> [Payload; 2] {
    let (i, r) = if initiator { (pair.local, pair.remote) } else { (pair.remote, pair.local) };
    [Payload::TsI(vec![TrafficSelector::host(i)]), Payload::TsR(vec![TrafficSelector::host(r)])]
}

/// RFC 7296 section 1.3.1.
pub(super) fn transport_mode() -> Payload {
    Payload::notify(notify::USE_TRANSPORT_MODE, Vec::new())
}

/// Accepts a request for a child between the hosts of `pair`.
pub(super) fn accept(
    pair: Pair,
    proposals: &Proposals<EspProposal>,
    request: &Parts<'_>,
    own_ke: OwnKe<'_>,
) -> Result<EspChoice, Error> {
    let choice = choose_esp(proposals, request.sa()?, own_ke)?;
    check_mode_and_selectors(request, pair.remote, pair.local)?;
    Ok(choice)
}

/// Reads the answer to [`Offer::request`].
pub(super) fn conclude(
    pair: Pair,
    proposals: &Proposals<EspProposal>,
    answer: &Parts<'_>,
) -> Result<EspChoice, Error> {
    let choice = concluded_esp(proposals, answer.sa()?)?;
    check_mode_and_selectors(answer, pair.local, pair.remote)?;
    Ok(choice)
}

fn check_mode_and_selectors(
    parts: &Parts<'_>,
    initiator: std::net::IpAddr,
    responder: std::net::IpAddr,
) -> Result<(), Error> {
    if parts.notify(notify::USE_TRANSPORT_MODE).is_none() {
        return Err(Error::PeerIncompatible("the peer does not take transport mode"));
    }
    let covers = |selectors: &[TrafficSelector], address| selectors.iter().any(|ts| ts.contains(address));
    if covers(parts.ts_i()?, initiator) && covers(parts.ts_r()?, responder) {
        Ok(())
    } else {
        Err(Error::Selectors)
    }
}

/// How a child stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChildStage {
    /// The agent knows of it and has not answered yet.
    Announced,
    /// Both SAs are in our kernel.
    Live,
    /// It is being deleted.
    Closing,
}

/// What is remembered of a child.
#[derive(Debug)]
pub(super) struct Child {
    /// Our inbound SA: the name of the child.
    pub(super) in_spi: Spi,
    /// The peer's inbound SA.
    pub(super) out_spi: Spi,
    /// When it was agreed.
    pub(super) since: Instant,
    /// What its SAs are made with.
    pub(super) suite: EspSuite,
    /// How it stands.
    pub(super) stage: ChildStage,
    /// What a probe through our inbound SA must carry.
    pub(super) token: [u8; 16],
    /// What we have done.
    pub(super) flags: Flags,
    /// Counts the changes of `flags`.
    revision: u16,
    /// The revision of the peer's word that was heard last.
    pub(super) heard: Option<u16>,
    /// What of that the peer has been told.
    pub(super) told: Flags,
    /// The child that replaces it.
    pub(super) successor: Option<Spi>,
    /// The child that it replaces.
    pub(super) predecessor: Option<Spi>,
    /// When it is to be rekeyed; `None` once that is on its way.
    pub(super) rekey_at: Option<Instant>,
    /// A peer without words has yet to show that it has our answer.
    pub(super) unconfirmed: bool,
}

impl Child {
    /// Whether it can carry traffic, now or soon.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.stage, ChildStage::Announced | ChildStage::Live)
    }

    /// What we say about it.
    pub(super) fn word(&self) -> Word {
        Word { spi: self.in_spi, token: self.token, revision: self.revision, flags: self.flags }
    }

    /// We have done something.
    pub(super) fn say(&mut self, flags: Flags) {
        if self.flags != flags {
            self.flags = flags;
            self.revision = self.revision.wrapping_add(1);
        }
    }
}

/// A child that both ends agreed on.
pub(super) struct Agreement<'a> {
    /// Between whom.
    pub(super) pair: Pair,
    /// Our half.
    pub(super) offer: Offer,
    /// What was chosen.
    pub(super) choice: EspChoice,
    /// The exchange's nonces.
    pub(super) nonces: &'a Nonces,
    /// The exchange's own Diffie-Hellman secret.
    pub(super) shared: Option<&'a Hidden>,
    /// Whether this end asked for it.
    pub(super) initiator: bool,
    /// Whether the peer says no words.
    pub(super) foreign: bool,
    /// The child that it replaces.
    pub(super) replaces: Option<Spi>,
}

impl Agreement<'_> {
    /// What to remember of the child.
    pub(super) fn child(&self, cx: &mut Cx<'_>) -> Child {
        Child {
            in_spi: self.offer.in_spi,
            out_spi: self.choice.out_spi,
            since: cx.now,
            suite: self.choice.suite,
            stage: ChildStage::Announced,
            token: self.offer.token,
            flags: Flags::default(),
            revision: 0,
            heard: None,
            told: Flags::default(),
            successor: None,
            predecessor: self.replaces,
            rekey_at: Some(cx.rekey_time(self.pair, cx.settings.rekey_after)),
            unconfirmed: false,
        }
    }

    /// The answer to the request for it, for when the kernel has it: SA, Nr and KEr where the exchange has
    /// them, and the rest (RFC 7296 section 1.3).
    pub(super) fn held(&self, nonce: Option<Payload>, ke: Option<Payload>) -> HeldChild {
        let mut payloads = vec![Payload::Sa(vec![self.choice.answer(self.offer.in_spi)])];
        payloads.extend(nonce);
        payloads.extend(ke);
        payloads.extend(selectors(self.pair, false));
        payloads.push(transport_mode());
        HeldChild { in_spi: self.offer.in_spi, payloads, installed: None }
    }

    /// What the kernel needs.
    pub(super) fn new_child(&self, keys: &IkeKeys) -> Box<NewChild> {
        let suite = self.choice.suite;
        let (in_key, out_key) = keys.child(self.shared, self.nonces, suite.key_bits, self.initiator);
        Box::new(NewChild {
            pair: self.pair,
            in_spi: self.offer.in_spi,
            out_spi: self.choice.out_spi,
            suite,
            in_key,
            out_key,
            initiator: self.initiator,
            foreign: self.foreign,
        })
    }
}

/// The word in a message that came in at `now`, about the child whose inbound SA at the peer is `spi`.
pub(super) fn peer_word(parts: &Parts<'_>, spi: Spi, now: Instant) -> Option<Word> {
    parts.notifies().filter_map(|notify| word::from_notify(notify, now)).find(|word| word.spi == spi)
}
