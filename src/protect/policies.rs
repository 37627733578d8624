//! The policy set: what each stage of a pair, a guard, neighbour discovery and an exemption look like.

use std::net::{IpAddr, Ipv6Addr};

use crate::model::exempt::{Protocol, port_masks};
use crate::model::ours::priority;
use crate::model::policy::{Block, Ports};
use crate::model::{Action, Exemption, Pair, Policy, PolicyDirection, Selector};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u16 = 135;
const NEIGHBOUR_ADVERTISEMENT: u16 = 136;

/// Far ports of an exempted connection: 32768 and up. Without the mask a source port of 22 would open
/// every port (kernel.md, fact 18c).
const FAR_PORTS: Ports = Ports { port: 0x8000, mask: 0x8000 };

/// Inbound, and the same selector again as FWD: otherwise plaintext to a DNATed port would be served
/// (kernel.md, fact 18e). `action` is [`Action::Accept`] or [`Action::Require`].
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

/// What blocks everything else between this host and a peer whose pairs are all sealed. It is wider than
/// a pair, because selector and direction identify a policy whatever its priority, and needs no own
/// address, so it can be there before the network is. No FWD: routed traffic is not ours to block.
pub fn guard(remote: IpAddr) -> [Policy; 2] {
    both_ways(remote, 0, Ports::ANY, Ports::ANY, Action::Block, priority::GUARD)
}

/// Unicast neighbour discovery stays in the clear, or IKE over IPv6 deadlocks (kernel.md, fact 18b).
pub fn neighbour_discovery() -> impl Iterator<Item = Policy> {
    let any = Block::any(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    [NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT].into_iter().flat_map(move |kind| {
        let selector =
            Selector { protocol: ICMPV6, source_ports: Ports::one(kind), ..Selector::between(any, any) };
        [PolicyDirection::In, PolicyDirection::Out].map(|direction| Policy {
            direction,
            selector,
            action: Action::Allow,
            priority: priority::EXEMPT,
            until: None,
        })
    })
}

/// What one exemption lets pass between this host and a peer: this host as server and as client, in and,
/// unless it is for what comes in alone, out.
pub fn exemption(remote: IpAddr, exemption: &Exemption) -> Vec<Policy> {
    let mut policies = both_exempt(remote, exemption);
    policies.retain(|policy| !exemption.incoming || policy.direction == PolicyDirection::In);
    policies
}

fn both_exempt(remote: IpAddr, exemption: &Exemption) -> Vec<Policy> {
    let allow = |protocol, near, far| both_ways(remote, protocol, near, far, Action::Allow, priority::EXEMPT);
    let Some(ports) = &exemption.ports else {
        let protocol = if remote.is_ipv4() { ICMP } else { ICMPV6 };
        return allow(protocol, Ports::ANY, Ports::ANY).into();
    };
    let protocol = if exemption.protocol == Protocol::Tcp { TCP } else { UDP };
    let as_server_and_as_client =
        |server| [allow(protocol, server, FAR_PORTS), allow(protocol, FAR_PORTS, server)].concat();
    port_masks(ports.clone()).into_iter().flat_map(as_server_and_as_client).collect()
}

/// The same for both directions between this host, on ports `near`, and a peer, on ports `far`.
fn both_ways(
    remote: IpAddr,
    protocol: u8,
    near: Ports,
    far: Ports,
    action: Action,
    priority: u32,
) -> [Policy; 2] {
    let (here, there) = (Block::any(remote), Block::host(remote));
    let inbound =
        Selector { source: there, destination: here, protocol, source_ports: far, destination_ports: near };
    let outbound =
        Selector { source: here, destination: there, protocol, source_ports: near, destination_ports: far };
    [
        Policy { direction: PolicyDirection::In, selector: inbound, action, priority, until: None },
        Policy { direction: PolicyDirection::Out, selector: outbound, action, priority, until: None },
    ]
}
