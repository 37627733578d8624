//! Address translation between the ends (RFC 7296 section 2.23): finding it out, and UDP that carries both IKE
//! and ESP (RFC 3948).
//!
//! Each end says with IKE_SA_INIT, hashed, from where it sends and to where; an end that sees other addresses
//! than those has found a NAT. An end that wants ESP in UDP without one says something that fits no address.
//! ```text
//! a:500   --- IKE_SA_INIT, sources, destination --->  b:500
//! a:500   <-- IKE_SA_INIT, source, destination -----  b:500
//! a:4500  --- marker, IKE_AUTH --------------------->  b:4500   b answers to where it came from
//! a:4500  <-- marker, IKE_AUTH ----------------------  b:4500
//! a:4500  <-> ESP, or one octet that keeps a NAT's memory fresh
//! ```

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::ike::crypto::keys::Spis;
use crate::ike::outbox::Cx;
use crate::ike::path::Path;
use crate::ike::reason::{Incompatible, Reason};
use crate::ike::wire::codes::notify;
use crate::ike::wire::{Parts, Payload};
use crate::types::EncapsulationMode;

/// What stands before IKE where ESP would have its SPI (RFC 3948 section 2.2).
pub const MARKER: [u8; 4] = [0; 4];
/// A datagram that says nothing (RFC 3948 section 2.3).
const KEEPALIVE: [u8; 1] = [0xff];
/// Octets of a hash.
const HASH: usize = 20;

/// What is known of address translation on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Nat {
    /// This end is behind a NAT, or says so: it keeps its mapping alive.
    pub here: bool,
    /// The peer is, or says so: its port may change.
    pub there: bool,
}

impl Nat {
    /// Whether ESP goes in UDP, and IKE on the port of both.
    pub fn is_found(self) -> bool {
        self.here || self.there
    }
}

/// What an end says of its addresses: where it sends from, and where to.
#[derive(Debug, Clone)]
pub struct Claims {
    hashes: [[u8; HASH]; 2],
    /// ESP is to go in UDP whether there is a NAT or not.
    pub(super) forced: bool,
}

impl Claims {
    /// Ours in a message with these indexes on `path`; `None` where ESP in UDP is out of the question. `blocked`:
    /// ESP by itself does not get through.
    pub fn ours(cx: &mut Cx<'_>, path: &Path, spis: Spis, blocked: bool) -> Option<Self> {
        let forced = match cx.settings.encapsulation {
            EncapsulationMode::Never => return None,
            EncapsulationMode::Always => true,
            EncapsulationMode::Auto => blocked,
        };
        let source = if forced { cx.random() } else { hash(spis, path.local) };
        Some(Self { hashes: [source, hash(spis, path.remote)], forced })
    }

    /// The payloads that say them.
    pub fn payloads(&self) -> [Payload; 2] {
        let [source, destination] = self.hashes.map(|hash| hash.to_vec());
        [
            Payload::notify(notify::NAT_DETECTION_SOURCE_IP, source),
            Payload::notify(notify::NAT_DETECTION_DESTINATION_IP, destination),
        ]
    }

    /// What ours and those in the peer's message with these indexes make of `path` together.
    pub fn compare(&self, parts: &Parts<'_>, spis: Spis, path: &Path) -> Result<Nat, Reason> {
        let said = |kind, address| {
            let mut hashes = parts.notifies().filter(|notify| notify.kind == kind).peekable();
            let is_there = hashes.peek().is_some();
            is_there.then(|| hashes.any(|notify| notify.data == hash(spis, address)))
        };
        let source = said(notify::NAT_DETECTION_SOURCE_IP, path.remote);
        let destination = said(notify::NAT_DETECTION_DESTINATION_IP, path.local);
        match source.zip(destination) {
            Some((source, destination)) => Ok(Nat { here: self.forced || !destination, there: !source }),
            None if self.forced => Err(Incompatible::Encapsulation.into()),
            None => Ok(Nat::default()),
        }
    }
}

/// RFC 7296 section 2.23: SHA-1 of the indexes, the address and the port. It hides nothing and proves nothing.
fn hash(Spis { initiator, responder }: Spis, address: SocketAddr) -> [u8; HASH] {
    let mut text = [initiator.to_be_bytes(), responder.to_be_bytes()].concat();
    match address.ip() {
        IpAddr::V4(v4) => text.extend(v4.octets()),
        IpAddr::V6(v6) => text.extend(v6.octets()),
    }
    text.extend(address.port().to_be_bytes());
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &text);
    hash.as_ref().try_into().unwrap_or_default()
}

/// What goes over the wire for the message `bytes`, on the `shared` port of IKE and ESP or on IKE's own.
pub fn wrap(bytes: Vec<u8>, shared: bool) -> Vec<u8> {
    match shared && bytes != KEEPALIVE {
        true => [&MARKER[..], &bytes].concat(),
        false => bytes,
    }
}

/// What a datagram says.
#[derive(Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A message of IKE, or what should be one.
    Ike(&'a [u8]),
    /// Nothing.
    Keepalive,
    /// Neither: what ESP there is, the kernel has taken out.
    Stray,
}

impl<'a> Content<'a> {
    /// Reads a datagram on the `shared` port of IKE and ESP, or on IKE's own.
    pub fn of(bytes: &'a [u8], shared: bool) -> Self {
        match bytes.strip_prefix(&MARKER) {
            _ if !shared => Content::Ike(bytes),
            Some(message) => Content::Ike(message),
            None if bytes == KEEPALIVE => Content::Keepalive,
            None => Content::Stray,
        }
    }
}

/// What keeps a NAT's memory of a path fresh.
pub(super) fn keepalive() -> Vec<u8> {
    KEEPALIVE.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_from_the_rest() {
        let message = b"\x01 message".to_vec();
        assert_eq!(Content::of(&wrap(message.clone(), true), true), Content::Ike(&message));
        assert_eq!(wrap(message.clone(), false), message);
        assert_eq!(Content::of(&message, false), Content::Ike(&message));
        assert_eq!(wrap(keepalive(), true), [0xff]);
        assert_eq!(Content::of(&keepalive(), true), Content::Keepalive);
        assert_eq!(Content::of(&message, true), Content::Stray);
        assert_eq!(Content::of(&[], true), Content::Stray);
        assert_eq!(Content::of(&[0; 4], true), Content::Ike(&[]));
    }

    /// SHA-1 of the octets of RFC 7296 section 2.23, as sha1sum has it.
    #[test]
    fn hashes_are_those_of_the_rfc() {
        let spis = Spis { initiator: 0x0102_0304_0506_0708, responder: 0x090a_0b0c_0d0e_0f10 };
        let hex = |address: &str| {
            let hash = hash(spis, address.parse().unwrap());
            hash.iter().map(|octet| format!("{octet:02x}")).collect::<String>()
        };
        assert_eq!(hex("10.99.0.1:500"), "da9c4048949eb9f463d0cf6f237694143437c389");
        assert_eq!(hex("[fd99::1]:4500"), "c3065ef88c0c16584e12864717353e02a576aaf8");
    }
}
