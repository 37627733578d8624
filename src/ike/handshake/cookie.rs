//! Stateless cookies (RFC 7296 section 2.6): an initiator that may be forged must first show that it
//! receives what is sent to its address.

use std::net::IpAddr;
use std::time::Instant;

use subtle::ConstantTimeEq;

use crate::ike::Entropy;
use crate::ike::crypto::Hidden;
use crate::ike::limits::COOKIE_SECRET_LIFE;
use crate::types::Prf;

/// The secrets that cookies are made with: the current one and the one before.
#[derive(Default)]
pub struct CookieJar {
    current: Option<CookieSecret>,
    previous: Option<CookieSecret>,
}

/// A secret, and since when cookies are made with it.
struct CookieSecret(Hidden, Instant);

impl CookieSecret {
    /// Whether new cookies may be made with it.
    fn is_fresh(&self, now: Instant) -> bool {
        now < self.1 + COOKIE_SECRET_LIFE
    }

    /// Whether cookies made with it are still taken.
    fn is_good(&self, now: Instant) -> bool {
        now < self.1 + 2 * COOKIE_SECRET_LIFE
    }
}

impl CookieJar {
    /// The cookie for an initiator.
    pub fn bake(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        address: IpAddr,
        spi: u64,
        nonce: &[u8],
    ) -> Vec<u8> {
        if !self.current.as_ref().is_some_and(|secret| secret.is_fresh(now)) {
            let mut secret = vec![0; 32];
            entropy.fill(&mut secret);
            self.previous = self.current.replace(CookieSecret(Hidden::new(secret), now));
        }
        self.current.as_ref().map(|secret| cookie(&secret.0, address, spi, nonce)).unwrap_or_default()
    }

    /// Whether `presented` is a cookie of ours for that initiator, and not too old. One that is kept for later is
    /// worth nothing then.
    pub fn accepts(&self, now: Instant, presented: &[u8], address: IpAddr, spi: u64, nonce: &[u8]) -> bool {
        [&self.current, &self.previous]
            .into_iter()
            .flatten()
            .filter(|secret| secret.is_good(now))
            .any(|secret| cookie(&secret.0, address, spi, nonce).ct_eq(presented).into())
    }
}

/// RFC 7296 section 2.6: Hash(Ni | IPi | SPIi | secret), here as a keyed hash.
fn cookie(secret: &Hidden, address: IpAddr, spi: u64, nonce: &[u8]) -> Vec<u8> {
    let address = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    Prf::HmacSha256.compute(secret.expose(), &[nonce, &address, &spi.to_be_bytes()]).expose().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(u8);

    impl Entropy for Counting {
        fn fill(&mut self, bytes: &mut [u8]) {
            self.0 += 1;
            bytes.fill(self.0);
        }
    }

    #[test]
    fn a_cookie_is_worth_nothing_after_its_time_whether_or_not_others_were_made() {
        let address = IpAddr::from([10, 0, 0, 1]);
        let (mut entropy, begun) = (Counting(0), Instant::now());
        for others in [false, true] {
            let mut jar = CookieJar::default();
            let kept = jar.bake(begun, &mut entropy, address, 7, b"nonce");
            assert!(!jar.accepts(begun, &kept, address, 8, b"nonce"));
            let late = begun + 2 * COOKIE_SECRET_LIFE;
            for now in [begun, begun + COOKIE_SECRET_LIFE, late - COOKIE_SECRET_LIFE / 60] {
                assert!(jar.accepts(now, &kept, address, 7, b"nonce"));
                if others {
                    jar.bake(now, &mut entropy, address, 9, b"other");
                }
            }
            assert!(!jar.accepts(late, &kept, address, 7, b"nonce"), "others: {others}");
            assert!(!jar.accepts(late + 100 * COOKIE_SECRET_LIFE, &kept, address, 7, b"nonce"));
        }
    }
}
