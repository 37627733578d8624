//! Messages on their way to the kernel.

use netlink_packet_core::{Emitable, NLM_F_ACK, NLM_F_REQUEST};
use zeroize::{Zeroize, Zeroizing};

use super::wire::HEADER;

/// How many messages go out together: less than half the time of one by one (docs/kernel.md, fact 11).
pub(super) const BATCH: usize = 64;
/// The longest message is a NEWSA: header 16, `xfrm_usersa_info` 224, AEAD 112, ESN 28, direction 8.
const LONGEST: usize = 512;

/// An attribute of a message: type and value.
pub(super) type Attribute<'a> = (u16, &'a [u8]);

/// Messages in a buffer that never grows, so that no copy of a key is left behind, and that is zeroed.
pub(super) struct Batch {
    bytes: Zeroizing<Vec<u8>>,
    /// The netlink port of the sender.
    port: u32,
    /// The sequence number of the first message.
    first: u32,
    /// How many messages there are.
    count: u32,
    /// Where the last message starts.
    last: usize,
}

impl Batch {
    /// An empty batch of messages from `port`; the first will have the sequence number `first`.
    pub(super) fn new(port: u32, first: u32) -> Self {
        let bytes = Zeroizing::new(Vec::with_capacity(BATCH * LONGEST));
        Self { bytes, port, first, count: 0, last: 0 }
    }

    /// Zeroes the messages and starts again, going on with the sequence numbers.
    pub(super) fn clear(&mut self) {
        self.bytes.as_mut_slice().zeroize();
        self.bytes.clear();
        self.first = self.first.wrapping_add(self.count);
        self.count = 0;
        self.last = 0;
    }

    /// Adds a request: its fixed structure and its attributes.
    pub(super) fn push(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &impl Emitable,
        attributes: &[Attribute<'_>],
    ) {
        let body: usize = attributes.iter().map(|(_, value)| (4 + value.len()).next_multiple_of(4)).sum();
        let length = HEADER + fixed.buffer_len() + body;
        debug_assert!(self.bytes.len() + length <= self.bytes.capacity(), "a batch never grows");
        self.last = self.bytes.len();
        self.bytes.extend_from_slice(&(length as u32).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.first.wrapping_add(self.count).to_ne_bytes());
        // The kernel does not check it, and copies it into the notifications.
        self.bytes.extend_from_slice(&self.port.to_ne_bytes());
        let at = self.bytes.len();
        self.bytes.resize(at + fixed.buffer_len(), 0);
        fixed.emit(&mut self.bytes[at..]);
        for (kind, value) in attributes {
            self.bytes.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
            self.bytes.extend_from_slice(&kind.to_ne_bytes());
            self.bytes.extend_from_slice(value);
            let end = self.bytes.len().next_multiple_of(4);
            self.bytes.resize(end, 0);
        }
        self.count += 1;
    }

    /// Asks for an answer to the last message, also when it is a yes. The kernel answers the others only
    /// when it refuses them: with all 64 answered, half the time of a batch went into fetching answers.
    pub(super) fn acknowledge_last(&mut self) {
        if let Some(flags) = self.bytes.get_mut(self.last + 6..self.last + 8) {
            flags.copy_from_slice(&(super::wire::u16_at(flags, 0).unwrap_or(0) | NLM_F_ACK).to_ne_bytes());
        }
    }

    /// Which message of the batch has the sequence number `sequence`.
    pub(super) fn position(&self, sequence: u32) -> Option<usize> {
        let position = sequence.wrapping_sub(self.first);
        (position < self.count).then_some(position as usize)
    }

    /// How many messages there are.
    pub(super) fn len(&self) -> usize {
        self.count as usize
    }

    /// The messages.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The absence of a fixed structure: a request for a dump has none.
pub(super) struct Nothing;

impl Emitable for Nothing {
    fn buffer_len(&self) -> usize {
        0
    }

    fn emit(&self, _buffer: &mut [u8]) {}
}
