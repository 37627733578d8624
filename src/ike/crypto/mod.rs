//! Secret bytes, prf and prf+. Secrets live in types that cannot be printed or cloned and that are zeroed
//! when dropped.

pub(super) mod agreement;
pub(super) mod cipher;
pub(super) mod kem;
pub(super) mod keys;
mod offered;
pub(super) mod suite;

use hmac::{Hmac, Mac};
use sha2::{Sha256, Sha384, Sha512};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::types::Prf;

/// Bytes that nobody must see.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Hidden(Vec<u8>);

impl Hidden {
    /// Takes over secret bytes.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, for a computation.
    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Prf {
    /// Octets of its output, which is also its preferred key size.
    pub(in crate::ike) fn output(self) -> usize {
        match self {
            Prf::HmacSha256 => 32,
            Prf::HmacSha384 => 48,
            Prf::HmacSha512 => 64,
        }
    }

    /// prf(key, parts[0] | parts[1] | …).
    pub(in crate::ike) fn compute(self, key: &[u8], parts: &[&[u8]]) -> Hidden {
        match self {
            Prf::HmacSha256 => mac::<Hmac<Sha256>>(key, parts),
            Prf::HmacSha384 => mac::<Hmac<Sha384>>(key, parts),
            Prf::HmacSha512 => mac::<Hmac<Sha512>>(key, parts),
        }
    }

    /// The first `length` octets of prf+(key, parts[0] | parts[1] | …) (RFC 7296 section 2.13).
    /// `length` is at most 255 times the output, as everything in IKE is.
    pub(in crate::ike) fn plus(self, key: &[u8], parts: &[&[u8]], length: usize) -> Hidden {
        // With the capacity that it needs the buffer never moves and leaves no copy behind.
        let mut stream = Vec::with_capacity(length + self.output());
        let mut previous = Hidden::new(Vec::new());
        for counter in 1..=u8::MAX {
            if stream.len() >= length {
                break;
            }
            let count = [counter];
            let mut input = vec![previous.expose()];
            input.extend(parts);
            input.push(&count);
            let block = self.compute(key, &input);
            stream.extend_from_slice(block.expose());
            previous = block;
        }
        stream[length..].zeroize();
        stream.truncate(length);
        Hidden::new(stream)
    }
}

#[expect(clippy::expect_used, reason = "a key that everybody knows is worse than an agent that ends")]
fn mac<M: Mac + hmac::KeyInit>(key: &[u8], parts: &[&[u8]]) -> Hidden {
    // HMAC takes a key of any length (RFC 2104 section 3), so nothing that comes in leads to the panic.
    let mut mac = <M as hmac::KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    let mut output = mac.finalize().into_bytes();
    let computed = Hidden::new(output.to_vec());
    output.zeroize();
    computed
}
