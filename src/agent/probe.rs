//! The probe: a datagram to the peer's IKE port that proves an SA, because it finds its way through it.

/// No IKE message starts with a zero initiator SPI (RFC 7296 section 3.1), so a probe is told from one by
/// its first eight bytes.
const PREFIX: [u8; 16] = *b"\0\0\0\0\0\0\0\0hsprobe1";

/// Bytes of a probe, without the UDP header.
pub const LENGTH: usize = 32;

/// Bytes that the kernel counts for one probe: an SA's byte counter leaves out the IP header only.
pub const COUNTED: u64 = LENGTH as u64 + 8;

/// The datagram that carries `token`.
pub fn encode(token: &[u8; 16]) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..16].copy_from_slice(&PREFIX);
    bytes[16..].copy_from_slice(token);
    bytes
}

/// The token of a datagram that is a probe.
pub fn decode(bytes: &[u8]) -> Option<[u8; 16]> {
    bytes.strip_prefix(&PREFIX)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_read_back_and_nothing_else_is_a_probe() {
        let token = *b"0123456789abcdef";
        let bytes = encode(&token);
        assert_eq!(decode(&bytes), Some(token));
        assert_eq!(decode(&bytes[..31]), None);
        assert_eq!(decode(&[bytes.as_slice(), b"x"].concat()), None);
        assert_eq!(decode(&[]), None);
        let mut ike = bytes;
        ike[0] = 1;
        assert_eq!(decode(&ike), None);
    }
}
