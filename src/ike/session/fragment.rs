//! Messages in several datagrams (RFC 7383): each fragment is encrypted and authenticated by itself, so that
//! only the peer can make us keep anything.

use zeroize::Zeroizing;

use crate::ike::limits::{FRAGMENTS_MAX, REASSEMBLED_MAX};
use crate::ike::reason::Reason;
use crate::ike::wire::{Encrypted, Fragment, Header, Payload, parse_chain, write_encrypted_head};

/// The payloads of one message, decrypted.
pub struct Whole {
    /// The type of the first payload.
    pub first: u8,
    /// The chain of payloads, without padding.
    pub text: Zeroizing<Vec<u8>>,
}

impl Whole {
    /// What AUTH covers of an IKE_INTERMEDIATE message with `header` (RFC 9242 section 3.3.2): as if it had
    /// been sent in one datagram, and without what encryption adds.
    pub fn covered(&self, header: &Header) -> Vec<u8> {
        covered(header, self.first, &self.text)
    }

    /// The payloads.
    pub fn payloads(&self) -> Result<Vec<Payload>, Reason> {
        parse_chain(self.first, &self.text)
    }
}

/// Header, payload header with its length, and what is inside.
pub fn covered(header: &Header, first: u8, text: &[u8]) -> Vec<u8> {
    let mut covered = write_encrypted_head(*header, first, None, text.len());
    covered.extend_from_slice(text);
    covered
}

/// The fragments of one message that have come so far.
#[derive(Default)]
pub struct Reassembly {
    message_id: u32,
    first: u8,
    parts: Vec<Option<Zeroizing<Vec<u8>>>>,
}

/// What has become of a fragment.
pub enum Outcome {
    /// It was the last one.
    Whole(Whole),
    /// Others are missing.
    Incomplete,
    /// It is one too many, or makes the message too large.
    Refused,
}

impl Reassembly {
    /// Takes in what an authentic message with `message_id` had in `encrypted`, which is all of it or a part.
    pub fn add(&mut self, message_id: u32, encrypted: &Encrypted<'_>, text: Zeroizing<Vec<u8>>) -> Outcome {
        let Some(fragment) = encrypted.fragment else {
            return Outcome::Whole(Whole { first: encrypted.first, text });
        };
        if !self.makes_room(message_id, fragment) {
            return Outcome::Refused;
        }
        let held = self.octets();
        let Some(part) = self.parts.get_mut(usize::from(fragment.number) - 1) else {
            return Outcome::Refused;
        };
        if part.is_some() || held + text.len() > REASSEMBLED_MAX {
            return Outcome::Refused;
        }
        *part = Some(text);
        // RFC 7383 section 2.5: the first fragment tells the type of the first payload.
        if fragment.number == 1 {
            self.first = encrypted.first;
        }
        if self.parts.iter().any(Option::is_none) {
            return Outcome::Incomplete;
        }
        let mut whole = Zeroizing::new(Vec::with_capacity(REASSEMBLED_MAX));
        std::mem::take(&mut self.parts).iter().flatten().for_each(|part| whole.extend_from_slice(part));
        Outcome::Whole(Whole { first: self.first, text: whole })
    }

    /// Octets that it holds.
    pub fn octets(&self) -> usize {
        self.parts.iter().flatten().map(|part| part.len()).sum()
    }

    /// RFC 7383 section 2.6: the kept fragments are of one message, cut in one way. A sender that cuts it smaller
    /// begins anew.
    fn makes_room(&mut self, message_id: u32, fragment: Fragment) -> bool {
        let total = usize::from(fragment.total);
        if total > FRAGMENTS_MAX {
            return false;
        }
        if message_id != self.message_id || total > self.parts.len() {
            *self = Self { message_id, first: 0, parts: (0..total).map(|_| None).collect() };
        }
        total == self.parts.len()
    }
}
