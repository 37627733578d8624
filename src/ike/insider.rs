//! For tests and fuzzing: a peer that has the keys and does not keep to the protocol. Messages of the engines
//! of this thread are changed before they are encrypted, so that everything behind the authentication can be shown
//! what no honest peer says.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::engine::Engine;
use super::handshake::ppk::PpkNumbers;
use super::wire::Payload;

/// A message before it is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The number of its exchange.
    pub exchange: u8,
    /// Whether it is an answer.
    pub response: bool,
    /// The type of its first payload.
    pub first: u8,
    /// The chain of its payloads.
    pub text: Vec<u8>,
}

type Tampering = Box<dyn FnMut(&mut Draft)>;

thread_local! {
    static TAMPERING: RefCell<Option<Tampering>> = const { RefCell::new(None) };
    static IS_COVERED: Cell<bool> = const { Cell::new(false) };
    static KNOWN: RefCell<BTreeMap<IpAddr, &'static [PpkNumbers]>> =
        const { RefCell::new(BTreeMap::new()) };
}

/// Engines of this thread do this to each message that they encrypt, from now on.
pub fn tamper(change: impl FnMut(&mut Draft) + 'static) {
    TAMPERING.with_borrow_mut(|slot| *slot = Some(Box::new(change)));
}

/// Until then, AUTH of these engines covers what they have made of IKE_INTERMEDIATE.
#[cfg(test)]
pub(super) fn cover_tampering() {
    IS_COVERED.set(true);
}

/// Engines of this thread are honest again.
pub fn stop_tampering() {
    TAMPERING.with_borrow_mut(|slot| *slot = None);
    IS_COVERED.set(false);
}

/// On this thread, the engines of these hosts alone know nothing of PPKs in IKE_INTERMEDIATE, as earlier agents.
pub fn forget_early_ppks(hosts: impl IntoIterator<Item = IpAddr>) {
    KNOWN.with_borrow_mut(|known| *known = hosts.into_iter().map(|host| (host, &[][..])).collect());
}

/// On this thread, the engine of this host knows the numbers of the draft alone, as Libreswan 5.2.
#[cfg(test)]
pub(super) fn know_draft_of_early_ppks(host: IpAddr) {
    KNOWN.with_borrow_mut(|known| known.insert(host, &[PpkNumbers::Draft]));
}

/// By which numbers the engine of `host` speaks of them.
pub(super) fn known_ppk_numbers(host: IpAddr) -> &'static [PpkNumbers] {
    KNOWN.with_borrow(|known| known.get(&host).copied().unwrap_or(&PpkNumbers::ALL))
}

impl Engine {
    /// Introduces itself as other software from now on.
    pub fn pass_for_foreign(&mut self) {
        self.vendor_id = Payload::VendorId(b"somebody else's software".to_vec());
    }
}

/// What AUTH covers of `draft`.
pub(super) fn covered_of(draft: Draft) -> Draft {
    if IS_COVERED.get() { tampered(draft) } else { draft }
}

/// What becomes of `draft`.
pub(super) fn tampered(mut draft: Draft) -> Draft {
    TAMPERING.with_borrow_mut(|slot| {
        if let Some(change) = slot {
            change(&mut draft);
        }
    });
    draft
}
