//! The probe: a datagram to the peer's IKE port that proves an SA, because it finds its way through it.

use crate::model::word::Probe;

/// No IKE message starts with a zero initiator SPI (RFC 7296 section 3.1), so a probe is told from one by
/// its first eight bytes.
const PREFIX: [u8; 15] = *b"\0\0\0\0\0\0\0\0hsprobe";
/// What follows in one that says nothing, as those of all agents did at first.
const PLAIN: u8 = b'1';
/// What follows in one that says that one of the other end's has come.
const ANSWER: u8 = b'2';

/// Bytes of a probe, without the UDP header.
pub const LENGTH: usize = 32;

/// Bytes that the kernel counts for one probe: an SA's byte counter leaves out the IP header only.
pub const COUNTED: u64 = LENGTH as u64 + 8;

/// The datagram that carries `probe`.
pub fn encode(probe: Probe) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..15].copy_from_slice(&PREFIX);
    bytes[15] = if probe.seen { ANSWER } else { PLAIN };
    bytes[16..].copy_from_slice(&probe.token);
    bytes
}

/// The probe in a datagram, if it is one.
pub fn decode(bytes: &[u8]) -> Option<Probe> {
    let (kind, token) = bytes.strip_prefix(&PREFIX)?.split_first()?;
    let seen = match *kind {
        PLAIN => false,
        ANSWER => true,
        _ => return None,
    };
    Some(Probe { token: token.try_into().ok()?, seen })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_read_back_and_nothing_else_is_a_probe() {
        for (seen, kind) in [(false, b'1'), (true, b'2')] {
            let probe = Probe { token: *b"0123456789abcdef", seen };
            let bytes = encode(probe);
            assert_eq!(bytes, *[b"\0\0\0\0\0\0\0\0hsprobe", &[kind][..], &probe.token].concat());
            assert_eq!(decode(&bytes), Some(probe));
            assert_eq!(decode(&bytes[..31]), None);
            assert_eq!(decode(&[bytes.as_slice(), b"x"].concat()), None);
        }
        let bytes = encode(Probe { token: [7; 16], seen: false });
        assert_eq!(decode(&[]), None);
        for (at, other) in [(0, 1), (15, b'3')] {
            let mut strange = bytes;
            strange[at] = other;
            assert_eq!(decode(&strange), None);
        }
    }
}
