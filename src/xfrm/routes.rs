//! By which interface packets of a pair would leave.
//!
//! `route` asks in a runtime, and which source routing would choose. This has to be known with the source given, at
//! once, and for few pairs: only while there is a hole.

use std::io;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::Family;
use super::wire::{HEADER, Messages, u32_at};
use crate::types::Pair;

const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const REQUEST: u16 = 1;
/// `struct rtmsg`.
const ROUTE: usize = 12;
const DESTINATION: u16 = 1;
const SOURCE: u16 = 2;
const INTERFACE: u16 = 4;
/// The kernel's answer is one route.
const ANSWER: usize = 4 << 10;

/// A socket that asks the kernel for routes. It answers within the system call that asks.
pub(super) struct Routes(Socket);

impl Routes {
    /// Opens it in this thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind_auto()?;
        Ok(Self(socket))
    }

    /// The index of the interface by which this host would send from one address of `pair` to the other;
    /// `None` where it has no route, or not the address.
    pub(super) fn interface(&mut self, pair: Pair) -> io::Result<Option<u32>> {
        self.0.send_to(&question(pair), &SocketAddr::new(0, 0), 0)?;
        let mut answer = [0; ANSWER];
        let (length, _) = self.0.recv_from(&mut answer.as_mut_slice(), 0)?;
        Ok(interface_in(&answer[..length.min(ANSWER)]))
    }
}

fn question(pair: Pair) -> Vec<u8> {
    let mut attributes = Vec::new();
    for (kind, address) in [(DESTINATION, pair.remote), (SOURCE, pair.local)] {
        let octets = octets(address);
        attributes.extend_from_slice(&(4 + octets.len() as u16).to_ne_bytes());
        attributes.extend_from_slice(&kind.to_ne_bytes());
        attributes.extend_from_slice(&octets);
    }
    let bits = octets(pair.remote).len() as u8 * 8;
    let mut message = ((HEADER + ROUTE + attributes.len()) as u32).to_ne_bytes().to_vec();
    message.extend_from_slice(&GET_ROUTE.to_ne_bytes());
    message.extend_from_slice(&REQUEST.to_ne_bytes());
    message.resize(HEADER, 0);
    // Both addresses whole; the rest of the structure asks for nothing special.
    message.extend_from_slice(&[Family::of(pair.remote).number() as u8, bits, bits]);
    message.resize(HEADER + ROUTE, 0);
    message.extend_from_slice(&attributes);
    message
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The interface of the route that an answer holds; `None` for a refusal.
fn interface_in(answer: &[u8]) -> Option<u32> {
    let message = Messages(answer).next()?.ok().filter(|message| message.kind == NEW_ROUTE)?;
    let (_, attributes) = message.split(ROUTE).ok()?;
    u32_at(attributes.get(INTERFACE)?, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_that_of_ip_route_get() {
        let pair = Pair::new([10, 99, 0, 1].into(), [10, 99, 0, 2].into()).unwrap();
        // ip route get 10.99.0.2 from 10.99.0.1, as it goes out on a little-endian machine, without RTM_F_LOOKUP.
        let expected: [u8; 44] = [
            44, 0, 0, 0, 26, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 32, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 1,
            0, 10, 99, 0, 2, 8, 0, 2, 0, 10, 99, 0, 1,
        ];
        assert_eq!(question(pair), expected);
    }

    #[test]
    fn an_answer_names_the_interface_and_a_refusal_none() {
        let mut route = 36u32.to_ne_bytes().to_vec();
        route.extend_from_slice(&NEW_ROUTE.to_ne_bytes());
        route.resize(HEADER + ROUTE, 0);
        for part in [8u16, INTERFACE] {
            route.extend_from_slice(&part.to_ne_bytes());
        }
        route.extend_from_slice(&7u32.to_ne_bytes());
        assert_eq!(interface_in(&route), Some(7));
        for length in 0..route.len() {
            assert_eq!(interface_in(&route[..length]), None);
        }
        route[4..6].copy_from_slice(&2u16.to_ne_bytes());
        assert_eq!(interface_in(&route), None);
    }
}
