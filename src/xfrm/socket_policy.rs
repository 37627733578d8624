//! What is set on single sockets: policies, which come before all others for what the socket sends and receives, and
//! that the kernel takes ESP out of UDP.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::Emitable;
use netlink_packet_xfrm::{
    LifetimeConfig, Selector, UserPolicyInfo, XFRM_POLICY_ALLOW, XFRM_POLICY_IN, XFRM_POLICY_OUT,
    XFRM_USER_POLICY_INFO_LEN,
};
use nix::libc;

use super::{encode, sys};
use crate::types::{Family, Sa};

/// The option that [`decapsulate`] sets (linux/udp.h).
const UDP_ENCAP: libc::c_int = 100;

/// Lets all that `socket` sends and receives pass as it is: IKE has to reach a peer with whom there are no
/// keys yet (docs/kernel.md, fact 20). `family` is the socket's; an IPv6 socket must be IPv6 only.
pub fn bypass(socket: impl AsFd, family: Family) -> io::Result<()> {
    let socket = socket.as_fd();
    set(socket, family, XFRM_POLICY_OUT, &[])?;
    set(socket, family, XFRM_POLICY_IN, &[])
}

/// Sends all that leaves `socket` from now on through the outbound SA `sa`, or fails to send it: never in the
/// clear. What it receives is not touched.
pub fn route_through(socket: impl AsFd, sa: &Sa) -> io::Result<()> {
    let socket = socket.as_fd();
    let family = Family::of(sa.pair.remote);
    set(socket, family, XFRM_POLICY_OUT, &encode::template_bytes(&encode::exactly(sa)))
}

/// Has the kernel take the ESP out of what comes in on the UDP socket `socket`, as long as that is open in any
/// process; the rest is left for whoever reads it (RFC 3948, docs/kernel.md, fact 20).
pub fn decapsulate(socket: impl AsFd) -> io::Result<()> {
    let kind = i32::from(encode::UDP_ENCAP_ESPINUDP).to_ne_bytes();
    sys::set_option(socket.as_fd(), libc::IPPROTO_UDP, UDP_ENCAP, &kind)
}

/// Keeps the kernel from fragmenting packets of `socket`: it refuses those that are too large for the path, as far as
/// this host knows it (EMSGSIZE).
pub fn never_fragment(socket: impl AsFd, family: Family) -> io::Result<()> {
    let (level, name, discover) = match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
    };
    sys::set_option(socket.as_fd(), level, name, &discover.to_ne_bytes())
}

/// Gives `socket` a policy for everything that goes in `direction`, with at most one template.
fn set(socket: BorrowedFd<'_>, family: Family, direction: u8, template: &[u8]) -> io::Result<()> {
    let info = UserPolicyInfo {
        selector: Selector { family: family.number(), ..Selector::default() },
        lifetime_cfg: LifetimeConfig::default(),
        direction,
        action: XFRM_POLICY_ALLOW,
        ..UserPolicyInfo::default()
    };
    let mut value = vec![0; XFRM_USER_POLICY_INFO_LEN];
    info.emit(&mut value);
    value.extend_from_slice(template);
    let (level, name) = match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_XFRM_POLICY),
        Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_XFRM_POLICY),
    };
    sys::set_option(socket, level, name, &value)
}
