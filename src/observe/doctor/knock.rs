//! What `doctor` and `doctor --listen` say to each other in the clear, on a path where no two agents can talk: the first
//! sends a nonce by each way, the second says which of them came. Anybody can send either. So an answer is no longer than
//! what asked for it, and nothing but a line of `doctor` is made of it.
//!
//! ```text
//! question  16 octets that no other message begins with · nonce · zeros up to 96 octets
//! answer    16 octets · nonce · what came: 1 UDP for IKE, 2 UDP for ESP in UDP, 4 ESP
//! ESP       SPI · sequence number · nonce     IP protocol 50, either way
//! ```

/// A datagram of IKE begins with an SPI that is not zero (RFC 7296 section 3.1).
const QUESTION: [u8; 16] = *b"\0\0\0\0\0\0\0\0hsknock?";
const ANSWER: [u8; 16] = *b"\0\0\0\0\0\0\0\0hsknock!";
/// Octets of a question: those of an answer and of a packet of ESP have room in it.
const QUESTION_OCTETS: usize = 96;
/// Octets of what stands in for ESP.
const ESP_OCTETS: usize = 4 + 4 + 16;
/// Any SPI that is not reserved, and none of hostseal's (RFC 4303 section 2.1).
const SPI: u32 = 0x0068_736b;

/// What tells one question from others.
pub type KnockNonce = [u8; 16];

/// By which ways a nonce came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Came {
    /// To the port of IKE.
    pub ike: bool,
    /// To the port of ESP in UDP.
    pub nat: bool,
    /// As ESP.
    pub esp: bool,
}

impl Came {
    /// With what came before.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { ike: self.ike || other.ike, nat: self.nat || other.nat, esp: self.esp || other.esp }
    }

    fn bits(self) -> u8 {
        u8::from(self.ike) | u8::from(self.nat) << 1 | u8::from(self.esp) << 2
    }

    fn of_bits(bits: u8) -> Self {
        Self { ike: bits & 1 != 0, nat: bits & 2 != 0, esp: bits & 4 != 0 }
    }
}

/// The datagram that asks.
pub fn question(nonce: &KnockNonce) -> Vec<u8> {
    let mut octets = [QUESTION, *nonce].concat();
    octets.resize(QUESTION_OCTETS, 0);
    octets
}

/// The nonce of a datagram that asks; a short one gets no answer.
pub fn asked(octets: &[u8]) -> Option<KnockNonce> {
    let nonce = octets.strip_prefix(&QUESTION)?.first_chunk()?;
    (octets.len() >= QUESTION_OCTETS).then_some(*nonce)
}

/// The datagram that answers.
pub fn answer(nonce: &KnockNonce, came: Came) -> Vec<u8> {
    let mut octets = [ANSWER, *nonce].concat();
    octets.push(came.bits());
    octets
}

/// What a datagram says that came of `nonce`, if it answers that.
pub fn answered(octets: &[u8], nonce: &KnockNonce) -> Option<Came> {
    octets.strip_prefix(&ANSWER)?.strip_prefix(nonce)?.first().map(|bits| Came::of_bits(*bits))
}

/// What stands in for ESP.
pub fn esp(nonce: &KnockNonce) -> Vec<u8> {
    [&SPI.to_be_bytes()[..], &1u32.to_be_bytes(), nonce].concat()
}

/// The nonce of what stands in for ESP. The packet may have its IPv4 header still, as raw sockets give it.
pub fn esp_nonce(packet: &[u8], has_header: bool) -> Option<KnockNonce> {
    let header = if has_header { 4 * usize::from(packet.first()? & 0xf) } else { 0 };
    let payload = packet.get(header..)?;
    let rest = payload.strip_prefix(&SPI.to_be_bytes()[..])?;
    (payload.len() == ESP_OCTETS).then(|| rest.get(4..)?.try_into().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_said_is_heard_and_an_answer_is_no_longer_than_its_question() {
        let nonce = [7; 16];
        assert_eq!(asked(&question(&nonce)), Some(nonce));
        assert_eq!(asked(&question(&nonce)[..95]), None);
        for bits in 0..8 {
            let came = Came::of_bits(bits);
            let answer = answer(&nonce, came);
            assert_eq!((answered(&answer, &nonce), answered(&answer, &[8; 16])), (Some(came), None));
            assert!(answer.len() + 20 + esp(&nonce).len() <= question(&nonce).len());
        }
        assert_eq!(esp_nonce(&esp(&nonce), false), Some(nonce));
        let with_header = [&[0x45; 20][..], &esp(&nonce)].concat();
        assert_eq!(esp_nonce(&with_header, true), Some(nonce));
    }

    proptest! {
        #[test]
        fn nothing_that_arrives_can_panic(octets in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = (asked(&octets), answered(&octets, &[0; 16]));
            let _ = (esp_nonce(&octets, true), esp_nonce(&octets, false));
        }
    }
}
