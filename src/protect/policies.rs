//! The policy set: what each stage of a pair, a guard, neighbour discovery and an exemption look like.

use std::net::IpAddr;

use crate::config::Exemptions;
use crate::types::exempt::ClearFlow;
use crate::types::ours::priority;
use crate::types::{Action, Block, Pair, Policy, PolicyDirection, PolicyId, Selector, exempt};

/// Inbound, and the same selector again as FWD: otherwise plaintext to a DNATed port would be served
/// (docs/kernel.md, fact 18e). `action` is [`Action::Accept`] or [`Action::Require`].
pub fn inbound(pair: Pair, action: Action) -> [Policy; 2] {
    [PolicyDirection::In, PolicyDirection::Forward]
        .map(|direction| policy(PolicyId::of(pair, direction), action, priority::PAIR))
}

/// The pair that `policy` is one of [`inbound`] of, if it is.
pub fn inbound_pair(policy: &Policy) -> Option<Pair> {
    let Selector { source, destination, .. } = policy.selector;
    let pair = Pair::new(destination.address, source.address)?;
    let like = inbound(pair, policy.action).map(|own| own.lasting(policy.until));
    like.contains(policy).then_some(pair)
}

/// Outbound. `action` is [`Action::Seal`], or [`Action::Block`] for a sealed pair that has nothing to send
/// through: without its policy, its packets would leave in the clear wherever no guard stands.
pub fn outbound(pair: Pair, action: Action) -> Policy {
    policy(PolicyId::of(pair, PolicyDirection::Out), action, priority::PAIR)
}

/// What identifies the policies of a pair.
pub fn ids(pair: Pair) -> [PolicyId; 3] {
    [PolicyDirection::In, PolicyDirection::Forward, PolicyDirection::Out]
        .map(|direction| PolicyId::of(pair, direction))
}

/// What blocks all that goes between some addresses of this host and a peer.
pub fn block(own: Block, remote: IpAddr) -> [Policy; 2] {
    [PolicyDirection::In, PolicyDirection::Out].map(|direction| {
        policy(PolicyId::between(direction, own, Block::host(remote)), Action::Block, priority::GUARD)
    })
}

/// What blocks all that goes between a peer and any address, while nobody knows which addresses this host has. What
/// this host forwards is blocked with it; multicast and broadcast are not.
pub fn block_all(remote: IpAddr) -> impl Iterator<Item = Policy> {
    let to_many = match remote {
        IpAddr::V4(_) => {
            vec![Block { address: [224, 0, 0, 0].into(), prefix: 4 }, Block::host([255; 4].into())]
        }
        IpAddr::V6(_) => vec![Block { address: [0xff00, 0, 0, 0, 0, 0, 0, 0].into(), prefix: 8 }],
    };
    let to_many = to_many.into_iter().map(move |group| {
        let id = PolicyId::between(PolicyDirection::In, group, Block::host(remote));
        policy(id, Action::Allow, priority::EXEMPT)
    });
    to_many.chain(block(Block::any(remote), remote))
}

/// What blocks all that this host forwards to a peer and from it.
pub fn block_forwarded(remote: IpAddr) -> [Policy; 2] {
    let (any, remote) = (Block::any(remote), Block::host(remote));
    [(any, remote), (remote, any)].map(|(source, destination)| {
        let id = PolicyId::between(PolicyDirection::Forward, destination, source);
        policy(id, Action::Block, priority::GUARD)
    })
}

/// The IPv6 addresses that each interface has for its own link.
pub fn link_local() -> Block {
    Block { address: [0xfe80, 0, 0, 0, 0, 0, 0, 0].into(), prefix: 10 }
}

/// Unicast neighbour discovery stays in the clear, or IKE over IPv6 deadlocks (docs/kernel.md, fact 18b).
pub fn neighbour_discovery() -> impl Iterator<Item = Policy> {
    exempt::neighbour_discovery().into_iter().map(allow)
}

/// What stays in the clear between this host and a peer.
pub fn exempt(remote: IpAddr, exemptions: &Exemptions) -> impl Iterator<Item = Policy> + use<> {
    exemptions.clear_flows(remote).into_iter().map(allow)
}

fn allow(ClearFlow { direction, selector, .. }: ClearFlow) -> Policy {
    policy(PolicyId { direction, selector }, Action::Allow, priority::EXEMPT)
}

fn policy(id: PolicyId, action: Action, priority: u32) -> Policy {
    let PolicyId { direction, selector } = id;
    Policy { direction, selector, action, priority, until: None }
}
