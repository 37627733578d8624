//! The policy set: what each stage of a pair, a guard, neighbour discovery and an exemption look like.

use std::net::IpAddr;

use crate::model::exempt::{self, Exemptions, Opening};
use crate::model::ours::priority;
use crate::model::policy::Block;
use crate::model::{Action, Pair, Policy, PolicyDirection, PolicyId, Selector};

/// Inbound, and the same selector again as FWD: otherwise plaintext to a DNATed port would be served
/// (docs/kernel.md, fact 18e). `action` is [`Action::Accept`] or [`Action::Require`].
pub fn inbound(pair: Pair, action: Action) -> [Policy; 2] {
    let selector = Selector::between(Block::host(pair.remote), Block::host(pair.local));
    [PolicyDirection::In, PolicyDirection::Forward].map(|direction| Policy {
        direction,
        selector,
        action,
        priority: priority::PAIR,
        until: None,
    })
}

/// The pair that `policy` is one of [`inbound`] of, if it is.
pub fn inbound_pair(policy: &Policy) -> Option<Pair> {
    let Selector { source, destination, .. } = policy.selector;
    let pair = Pair::new(destination.address, source.address)?;
    let like = inbound(pair, policy.action).map(|own| own.lasting(policy.until));
    like.contains(policy).then_some(pair)
}

/// Outbound. `action` is [`Action::Seal`], or [`Action::Block`] for a sealed pair that has nothing to send
/// through: without a policy of its own its packets would leave in the clear wherever no guard stands.
pub fn outbound(pair: Pair, action: Action) -> Policy {
    Policy {
        direction: PolicyDirection::Out,
        selector: Selector::between(Block::host(pair.local), Block::host(pair.remote)),
        action,
        priority: priority::PAIR,
        until: None,
    }
}

/// What identifies the policies of a pair.
pub fn ids(pair: Pair) -> [PolicyId; 3] {
    let [inbound, forward] = inbound(pair, Action::Accept);
    [inbound.id(), forward.id(), outbound(pair, Action::Block).id()]
}

/// What blocks all that goes between some addresses of this host and a peer.
pub fn block(own: Block, remote: IpAddr) -> [Policy; 2] {
    let remote = Block::host(remote);
    [(PolicyDirection::In, remote, own), (PolicyDirection::Out, own, remote)]
        .map(|(direction, source, destination)| guarded(direction, source, destination, Action::Block))
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
    let to_many = to_many.into_iter().map(move |group| Policy {
        priority: priority::EXEMPT,
        ..guarded(PolicyDirection::In, Block::host(remote), group, Action::Allow)
    });
    to_many.chain(block(Block::any(remote), remote))
}

/// What blocks all that this host forwards to a peer and from it.
pub fn block_forwarded(remote: IpAddr) -> [Policy; 2] {
    let (any, remote) = (Block::any(remote), Block::host(remote));
    [(any, remote), (remote, any)]
        .map(|(source, destination)| guarded(PolicyDirection::Forward, source, destination, Action::Block))
}

/// The IPv6 addresses that each interface has for its own link.
pub fn link_local() -> Block {
    Block { address: [0xfe80, 0, 0, 0, 0, 0, 0, 0].into(), prefix: 10 }
}

fn guarded(direction: PolicyDirection, source: Block, destination: Block, action: Action) -> Policy {
    let selector = Selector::between(source, destination);
    Policy { direction, selector, action, priority: priority::GUARD, until: None }
}

/// Unicast neighbour discovery stays in the clear, or IKE over IPv6 deadlocks (docs/kernel.md, fact 18b).
pub fn neighbour_discovery() -> impl Iterator<Item = Policy> {
    exempt::neighbour_discovery().into_iter().map(allow)
}

/// What stays in the clear between this host and a peer.
pub fn exempt(remote: IpAddr, exemptions: &Exemptions) -> impl Iterator<Item = Policy> + use<> {
    exemptions.openings(remote).into_iter().map(allow)
}

fn allow(Opening { direction, selector, .. }: Opening) -> Policy {
    Policy { direction, selector, action: Action::Allow, priority: priority::EXEMPT, until: None }
}
