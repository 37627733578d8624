//! The probe: a datagram to the peer's IKE port that proves an SA, because it finds its way through it.

use crate::observe::exam::ExamToken;
use crate::protect::report::{Passage, Probe};

/// No IKE message starts with a zero initiator SPI (RFC 7296 section 3.1), so a probe is told from one by
/// its first eight bytes.
const PREFIX: [u8; 15] = *b"\0\0\0\0\0\0\0\0hsprobe";
/// What follows in one that says nothing, as those of all agents did at first.
const UNSAID: u8 = b'1';
/// What follows in one that says that one of the other end's has come.
const IN: u8 = b'2';
/// What follows in one that says that one of its sender's has arrived, too.
const BOTH: u8 = b'3';

/// Bytes of a probe, without the UDP header.
pub const LENGTH: usize = 32;

/// What follows in one that tries a port, and goes through no SA.
const TRIES_PORT: u8 = b'D';

/// What follows in one that asks whether a packet of its size gets through.
const ASKS_SIZE: u8 = b'S';
/// What follows in the answer.
const ANSWERS_SIZE: u8 = b's';
/// The size in one that asks only whether the peer gets it.
pub const ECHO: u16 = 0;
/// Bytes of both, without what makes up the size.
const SIZE_LENGTH: usize = 34;

/// Bytes that the kernel counts for a probe of `octets` without the UDP header: an SA's byte counter leaves out the
/// IP header only.
pub fn counted(octets: usize) -> u64 {
    octets as u64 + 8
}

/// What travels through an SA to find out how large a packet gets through, or comes back for an answer. Only who said
/// to answer it (`About::sizes`) is sent any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeProbe {
    /// What the other end wants to find in it.
    pub token: [u8; 16],
    /// Octets of the packet that is asked about.
    pub size: u16,
    /// It got through.
    pub answers: bool,
}

/// The datagram that carries `probe`, of `octets` at least.
pub fn encode_size(probe: SizeProbe, octets: usize) -> Vec<u8> {
    let mut bytes = PREFIX.to_vec();
    bytes.push(if probe.answers { ANSWERS_SIZE } else { ASKS_SIZE });
    bytes.extend(probe.token);
    bytes.extend(probe.size.to_be_bytes());
    bytes.resize(octets.max(SIZE_LENGTH), 0);
    bytes
}

/// The probe of a size in a datagram, if it is one.
pub fn decode_size(bytes: &[u8]) -> Option<SizeProbe> {
    let (kind, rest) = bytes.strip_prefix(&PREFIX)?.split_first()?;
    let (token, rest) = rest.split_first_chunk()?;
    let answers = match *kind {
        ASKS_SIZE => false,
        ANSWERS_SIZE => true,
        _ => return None,
    };
    Some(SizeProbe { token: *token, size: u16::from_be_bytes(*rest.first_chunk()?), answers })
}

/// The datagram that tries a port with `token`. To the kernel its first four octets are the mark of IKE (RFC 3948
/// section 2.2), where it takes ESP out of what comes to that port.
pub fn encode_try(token: &ExamToken) -> Vec<u8> {
    let mut bytes = PREFIX.to_vec();
    bytes.push(TRIES_PORT);
    bytes.extend(token);
    bytes
}

/// The token in a datagram that tries a port, if it is one.
pub fn decode_try(bytes: &[u8]) -> Option<ExamToken> {
    let (kind, token) = bytes.strip_prefix(&PREFIX)?.split_first()?;
    (*kind == TRIES_PORT).then(|| token.try_into().ok())?
}

/// The datagram that carries `probe`.
pub fn encode(probe: Probe) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..15].copy_from_slice(&PREFIX);
    bytes[15] = match probe.passage {
        Passage::Unsaid => UNSAID,
        Passage::In => IN,
        Passage::Both => BOTH,
    };
    bytes[16..].copy_from_slice(&probe.token);
    bytes
}

/// The probe in a datagram, if it is one.
pub fn decode(bytes: &[u8]) -> Option<Probe> {
    let (kind, token) = bytes.strip_prefix(&PREFIX)?.split_first()?;
    let passage = match *kind {
        UNSAID => Passage::Unsaid,
        IN => Passage::In,
        BOTH => Passage::Both,
        _ => return None,
    };
    Some(Probe { token: token.try_into().ok()?, passage })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_read_back_and_nothing_else_is_a_probe() {
        for (passage, kind) in [(Passage::Unsaid, b'1'), (Passage::In, b'2'), (Passage::Both, b'3')] {
            let probe = Probe { token: *b"0123456789abcdef", passage };
            let bytes = encode(probe);
            assert_eq!(bytes, *[b"\0\0\0\0\0\0\0\0hsprobe", &[kind][..], &probe.token].concat());
            assert_eq!(decode(&bytes), Some(probe));
            assert_eq!(decode(&bytes[..31]), None);
            assert_eq!(decode(&[bytes.as_slice(), b"x"].concat()), None);
        }
        for answers in [false, true] {
            let probe = SizeProbe { token: [7; 16], size: 1466, answers };
            let bytes = encode_size(probe, if answers { 0 } else { 1438 });
            assert_eq!(bytes.len(), if answers { SIZE_LENGTH } else { 1438 });
            assert_eq!((decode_size(&bytes), decode(&bytes)), (Some(probe), None));
            assert_eq!(decode_size(&bytes[..33]), None);
        }
        let tries = encode_try(&[7; 16]);
        assert_eq!((decode_try(&tries), decode(&tries), decode_size(&tries)), (Some([7; 16]), None, None));
        assert_eq!(decode_try(&tries[..31]), None);
        let bytes = encode(Probe { token: [7; 16], passage: Passage::Unsaid });
        assert_eq!((decode_size(&bytes), decode_try(&bytes)), (None, None));
        assert_eq!(decode(&[]), None);
        for (at, other) in [(0, 1), (15, b'4')] {
            let mut strange = bytes;
            strange[at] = other;
            assert_eq!(decode(&strange), None);
        }
    }
}
