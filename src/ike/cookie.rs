//! Stateless cookies (RFC 7296 section 2.6): an initiator that may be forged must first show that it
//! receives what is sent to its address.

use std::net::IpAddr;
use std::time::Instant;

use subtle::ConstantTimeEq;

use super::Entropy;
use super::crypto::Hidden;
use super::limits::COOKIE_SECRET_LIFE;
use crate::model::Prf;

/// The secrets that cookies are made with: the current one and the one before.
pub(super) struct CookieJar {
    current: Hidden,
    previous: Hidden,
    since: Option<Instant>,
}

impl CookieJar {
    /// A jar without a secret yet.
    pub(super) fn new() -> Self {
        Self { current: Hidden::new(Vec::new()), previous: Hidden::new(Vec::new()), since: None }
    }

    /// The cookie for an initiator.
    pub(super) fn bake(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        address: IpAddr,
        spi: u64,
        nonce: &[u8],
    ) -> Vec<u8> {
        let fresh = self.since.is_some_and(|since| now < since + COOKIE_SECRET_LIFE);
        if !fresh {
            let mut secret = vec![0; 32];
            entropy.fill(&mut secret);
            self.previous = std::mem::replace(&mut self.current, Hidden::new(secret));
            self.since = Some(now);
        }
        cookie(&self.current, address, spi, nonce)
    }

    /// Whether `presented` is a cookie of ours for that initiator.
    pub(super) fn accepts(&self, presented: &[u8], address: IpAddr, spi: u64, nonce: &[u8]) -> bool {
        [&self.current, &self.previous]
            .into_iter()
            .filter(|secret| !secret.expose().is_empty())
            .any(|secret| cookie(secret, address, spi, nonce).ct_eq(presented).into())
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
