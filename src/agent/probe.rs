//! The probe: a datagram to the peer's IKE port that proves an SA, because it finds its way through it.

use crate::model::word::{Passage, Probe};

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

/// Bytes that the kernel counts for one probe: an SA's byte counter leaves out the IP header only.
pub const COUNTED: u64 = LENGTH as u64 + 8;

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
        let bytes = encode(Probe { token: [7; 16], passage: Passage::Unsaid });
        assert_eq!(decode(&[]), None);
        for (at, other) in [(0, 1), (15, b'4')] {
            let mut strange = bytes;
            strange[at] = other;
            assert_eq!(decode(&strange), None);
        }
    }
}
