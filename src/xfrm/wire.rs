//! Netlink as it arrives: datagrams of messages, messages of attributes. No input can make this panic.

use std::io;

/// The length of a message's header.
pub(super) const HEADER: usize = 16;
/// The kernel's answer to a request: an error, or, with the number 0, a yes.
pub(super) const ERROR: u16 = netlink_packet_core::NLMSG_ERROR;
/// The end of a dump.
pub(super) const DONE: u16 = netlink_packet_core::NLMSG_DONE;

/// Bytes that do not follow the kernel's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel sent a malformed message of type {kind:#x}")]
pub(super) struct Malformed {
    /// The type of the message, 0 where even that is not known.
    pub(super) kind: u16,
}

impl From<Malformed> for io::Error {
    fn from(malformed: Malformed) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, malformed)
    }
}

/// One message.
#[derive(Clone, Copy)]
pub(super) struct NetlinkMessage<'a> {
    /// What it is.
    pub(super) kind: u16,
    /// `NLM_F_*`.
    pub(super) flags: u16,
    /// The number of the request that caused it, 0 for none.
    pub(super) sequence: u32,
    /// The netlink port whose request caused it, 0 for none.
    pub(super) port: u32,
    /// What follows the header.
    pub(super) body: &'a [u8],
}

impl<'a> NetlinkMessage<'a> {
    /// The error that says that this message makes no sense.
    pub(super) fn malformed(&self) -> Malformed {
        Malformed { kind: self.kind }
    }

    /// The fixed structure of `length` bytes that the message starts with, and the attributes after it.
    pub(super) fn split(&self, length: usize) -> Result<(&'a [u8], Attributes<'a>), Malformed> {
        let (fixed, rest) = self.body.split_at_checked(length).ok_or(self.malformed())?;
        Ok((fixed, Attributes(rest)))
    }
}

/// The messages of one datagram. It ends after the first message that is malformed.
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<NetlinkMessage<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let message = take_message(&mut self.0);
        if message.is_none() {
            self.0 = &[];
        }
        Some(message.ok_or(Malformed { kind: 0 }))
    }
}

fn take_message<'a>(bytes: &mut &'a [u8]) -> Option<NetlinkMessage<'a>> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let message = bytes.get(..length)?;
    let found = NetlinkMessage {
        kind: u16_at(message, 4)?,
        flags: u16_at(message, 6)?,
        sequence: u32_at(message, 8)?,
        port: u32_at(message, 12)?,
        body: message.get(HEADER..)?,
    };
    *bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some(found)
}

/// The attributes of a message: their types and values. It ends at the first that is malformed.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of type `kind`.
    pub(super) fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(found, _)| *found == kind).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & netlink_packet_core::NLA_TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// The number in the 2 bytes at `at`, in this machine's order.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

/// The number in the 4 bytes at `at`, in this machine's order.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

/// The number in the 8 bytes at `at`, in this machine's order.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_ne_bytes)
}
