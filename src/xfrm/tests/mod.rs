//! Bytes against what `ip` sends and the kernel answers, and against bytes that nobody would send.

mod answers;
mod decoding;
mod encoding;
mod golden;
mod hostile;
mod monitor;

use std::net::IpAddr;

use super::wire::{Messages, NetlinkMessage};
use crate::types::{
    Action, Block, Direction, EspSuite, Limits, Pair, Policy, PolicyDirection, Reqid, Sa, SaId, SaKey,
    SaReading, Selector, Spi, Through, ours,
};

/// The bytes of a golden constant.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The only message of a datagram.
fn only(datagram: &[u8]) -> NetlinkMessage<'_> {
    let mut messages = Messages(datagram);
    let message = messages.next().expect("a message").expect("well-formed");
    assert!(messages.next().is_none(), "more than one message");
    message
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

const SPI: Spi = Spi(0xc1d2_e3f4);

/// The key that the golden bytes carry, and that no other bytes contain by chance.
fn key(bits: u16) -> SaKey {
    let salt = [0xa0, 0xa1, 0xa2, 0xa3];
    SaKey::new((0..bits / 8).map(|byte| byte as u8).chain(salt).collect())
}

/// An inbound SA from `remote` to `local`.
fn sa(remote: &str, local: &str, key_bits: u16, esn: bool, replay_window: u32) -> Sa {
    Sa {
        pair: Pair { local: address(local), remote: address(remote) },
        direction: Direction::In,
        spi: SPI,
        reqid: Reqid::COMMON,
        suite: EspSuite { key_bits, esn },
        encapsulation: None,
        replay_window,
        limits: Limits::default(),
    }
}

/// A policy for all between two hosts.
fn policy(direction: PolicyDirection, source: &str, destination: &str, action: Action) -> Policy {
    let [source, destination] = [source, destination].map(|host| Block::host(address(host)));
    let selector = Selector::between(source, destination);
    Policy { direction, selector, action, priority: ours::priority::PAIR, until: None }
}

/// The policies of the golden bytes, as we mean them.
fn seal() -> Policy {
    policy(PolicyDirection::Out, "10.99.0.1", "10.99.0.2", Action::Seal { through: Through::Sa(SPI) })
}

/// The same through all SAs of a generation.
fn seal_set() -> Policy {
    let through = Through::Set(Reqid::new(0x6873_0002).expect("one of ours"));
    Policy { action: Action::Seal { through }, ..seal() }
}

fn accept() -> Policy {
    policy(PolicyDirection::In, "fd99::2", "fd99::1", Action::Accept)
}

fn require() -> Policy {
    policy(PolicyDirection::Forward, "10.99.0.2", "10.99.0.1", Action::Require)
}

fn block() -> Policy {
    let mut block = policy(PolicyDirection::Out, "10.99.0.1", "10.99.0.2", Action::Block);
    block.selector.source = Block::any(block.selector.source.address);
    block.priority = ours::priority::GUARD;
    block
}

fn neighbour_discovery() -> Policy {
    let mut pass = policy(PolicyDirection::In, "::", "::", Action::Allow);
    let any = Block::any(address("::"));
    pass.selector =
        Selector { protocol: 58, source_ports: crate::types::Ports::one(135), ..Selector::between(any, any) };
    pass.priority = ours::priority::EXEMPT;
    pass
}

/// The inbound SA of the golden bytes, unused.
fn inbound_reading(added: u64) -> SaReading {
    SaReading {
        source: address("fd99::1"),
        id: SaId { destination: address("fd99::2"), spi: SPI },
        reqid: Reqid::COMMON,
        key_bits: 256,
        esn: true,
        encapsulated: false,
        bound: false,
        bytes: 0,
        packets: 0,
        last_used: None,
        added,
        hard_seconds: None,
        dying: false,
        replay: 0,
        replay_window: 0,
        integrity: 0,
    }
}
