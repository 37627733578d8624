//! What the kernel reports, as our nouns. Keys are skipped unread.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::NLM_F_ACK_TLVS;
use netlink_packet_xfrm::{
    Address, Selector as WireSelector, UserPolicyInfo, UserTemplate, XFRM_MODE_TRANSPORT, XFRM_POLICY_ALLOW,
    XFRM_POLICY_BLOCK, XFRM_POLICY_FWD, XFRM_POLICY_IN, XFRM_POLICY_OUT, XFRM_POLICY_TYPE_MAIN,
    XFRM_USER_MAPPING_LEN, XFRM_USER_POLICY_INFO_LEN, XFRM_USER_SA_INFO_LEN, XFRM_USER_TEMPLATE_LEN,
    XFRMA_ALG_AEAD, XFRMA_ENCAP, XFRMA_IF_ID, XFRMA_LASTUSED, XFRMA_MARK, XFRMA_POLICY_TYPE, XFRMA_TMPL,
};

use nix::errno::Errno;

use super::encode::{self, ESP, FLAG_ESN};
use super::lifetime;
use super::wire::{Attributes, Malformed, NetlinkMessage, u16_at, u32_at, u64_at};
use crate::types::{
    Action, Block, Family, Pair, Policy, PolicyDirection, PolicyId, PolicyReading, Ports, Reqid, SaId,
    SaReading, Selector, Spi, Through, ours,
};

/// Bits of salt at the end of a key (RFC 4106 section 8.1).
const SALT_BITS: u32 = 32;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words.
const ATTRIBUTE_WORDS: u16 = 1;

/// The SA of a report (NEWSA), `None` for a stranger's.
pub(super) fn sa(message: NetlinkMessage<'_>) -> Result<Option<SaReading>, Malformed> {
    let (info, attributes) = message.split(XFRM_USER_SA_INFO_LEN)?;
    sa_of(info, attributes).ok_or(message.malformed())
}

/// Where the fields of `struct xfrm_usersa_info` are. It is read in place: parsed whole, with its nested
/// structures, a dump of 20,000 SAs takes longer to parse than to fetch.
pub(super) mod field {
    pub(in crate::xfrm) const SELECTED_DESTINATION: usize = 0;
    pub(in crate::xfrm) const SELECTED_SOURCE: usize = 16;
    pub(in crate::xfrm) const SELECTED_BITS: usize = 42;
    pub(in crate::xfrm) const DESTINATION: usize = 56;
    pub(in crate::xfrm) const SPI: usize = 72;
    pub(in crate::xfrm) const PROTOCOL: usize = 76;
    pub(in crate::xfrm) const SOURCE: usize = 80;
    pub(in crate::xfrm) const SOFT_BYTES: usize = 96;
    pub(in crate::xfrm) const SOFT_PACKETS: usize = 112;
    pub(in crate::xfrm) const HARD_SECONDS: usize = 136;
    pub(in crate::xfrm) const BYTES: usize = 160;
    pub(in crate::xfrm) const PACKETS: usize = 168;
    pub(in crate::xfrm) const ADDED: usize = 176;
    pub(in crate::xfrm) const OUTSIDE_WINDOW: usize = 192;
    pub(in crate::xfrm) const REPLAYED: usize = 196;
    pub(in crate::xfrm) const INTEGRITY: usize = 200;
    pub(in crate::xfrm) const ACQUIRED_BY: usize = 204;
    pub(in crate::xfrm) const REQID: usize = 208;
    pub(in crate::xfrm) const FAMILY: usize = 212;
    pub(in crate::xfrm) const MODE: usize = 214;
    pub(in crate::xfrm) const FLAGS: usize = 216;
}

/// The SA of an `xfrm_usersa_info` and of the attributes that go with it. Inner `None` for a stranger's,
/// outer `None` for bytes that make no sense. `key_bits` is 0 where the attributes do not tell them:
/// in an EXPIRE, and for a larval SA, which has no cipher.
pub(super) fn sa_of(info: &[u8], attributes: Attributes<'_>) -> Option<Option<SaReading>> {
    let info: &[u8; XFRM_USER_SA_INFO_LEN] = info.first_chunk()?;
    let is_esp = info[field::PROTOCOL] == ESP && info[field::MODE] == XFRM_MODE_TRANSPORT;
    let ours = Reqid::new(u32_at(info, field::REQID)?).filter(|_| is_esp);
    let spi = u32_at(info, field::SPI).map(u32::from_be)?;
    // An ACQUIRE can leave a larval entry without an SPI behind.
    let Some(reqid) = ours.filter(|_| spi != 0) else { return Some(None) };
    let family = Family::from_number(u16_at(info, field::FAMILY)?)?;
    let cipher = attributes.get(XFRMA_ALG_AEAD);
    let bits = cipher.map_or(Some(SALT_BITS), |cipher| u32_at(cipher, 64))?;
    let (bytes, packets) = (u64_at(info, field::BYTES)?, u64_at(info, field::PACKETS)?);
    let source = address_at(family, info, field::SOURCE)?;
    let destination = address_at(family, info, field::DESTINATION)?;
    Some(Some(SaReading {
        source,
        id: SaId { destination, spi: Spi(spi) },
        reqid,
        key_bits: bits.checked_sub(SALT_BITS)?.try_into().ok()?,
        esn: info[field::FLAGS] & FLAG_ESN != 0,
        encapsulated: attributes.get(XFRMA_ENCAP).is_some(),
        bound: selected(family, info)? == [Block::host(destination), Block::host(source)],
        bytes,
        packets,
        last_used: attributes.get(XFRMA_LASTUSED).and_then(|value| u64_at(value, 0)),
        added: u64_at(info, field::ADDED)?,
        hard_seconds: Some(u64_at(info, field::HARD_SECONDS)?).filter(|seconds| *seconds != 0),
        // The kernel does not report the state; this is its own test.
        dying: bytes >= u64_at(info, field::SOFT_BYTES)? || packets >= u64_at(info, field::SOFT_PACKETS)?,
        replay: u32_at(info, field::REPLAYED)?,
        replay_window: u32_at(info, field::OUTSIDE_WINDOW)?,
        integrity: u32_at(info, field::INTEGRITY)?,
    }))
}

/// Whether the SA of an `xfrm_usersa_info` is one that the kernel wishes for: it bears the number of its ACQUIRE.
pub(super) fn is_larval(info: &[u8]) -> Option<bool> {
    u32_at(info, field::ACQUIRED_BY).map(|number| number != 0)
}

/// Where the fields of `struct xfrm_user_acquire` are.
pub(super) mod acquire {
    use netlink_packet_xfrm::XFRM_USER_POLICY_INFO_LEN;

    pub(super) const DESTINATION: usize = 0;
    pub(super) const SOURCE: usize = 24;
    /// The family of the selector, and so of the packet.
    pub(super) const FAMILY: usize = 40 + 40;
    /// The index of the policy.
    pub(in crate::xfrm) const INDEX: usize = 40 + 56 + 156;
    pub(super) const LENGTH: usize = 40 + 56 + XFRM_USER_POLICY_INFO_LEN + 4 * 4;
}

/// Between which addresses a policy of ours has found no SA (ACQUIRE); `None` for a stranger's.
pub(super) fn acquire(message: NetlinkMessage<'_>) -> Result<Option<Pair>, Malformed> {
    let (wish, _) = message.split(acquire::LENGTH)?;
    acquire_of(wish).ok_or(message.malformed())
}

fn acquire_of(wish: &[u8]) -> Option<Option<Pair>> {
    let (mask, mark) = ours::INDEX_MARK;
    if u32_at(wish, acquire::INDEX)? & mask != mark {
        return Some(None);
    }
    let family = Family::from_number(u16_at(wish, acquire::FAMILY)?)?;
    let [local, remote] = [acquire::SOURCE, acquire::DESTINATION].map(|at| address_at(family, wish, at));
    Some(Pair::new(local?, remote?))
}

/// The destinations and sources that an SA's selector takes.
fn selected(family: Family, info: &[u8]) -> Option<[Block; 2]> {
    let block = |at, bits| Some(Block { address: address_at(family, info, at)?, prefix: *info.get(bits)? });
    Some([
        block(field::SELECTED_DESTINATION, field::SELECTED_BITS)?,
        block(field::SELECTED_SOURCE, field::SELECTED_BITS + 1)?,
    ])
}

/// Which inbound SA of ours gets ESP from where it does not expect it, and from where (MAPPING); `None` for a
/// stranger's.
pub(super) fn mapping(message: NetlinkMessage<'_>) -> Result<Option<(SaId, SocketAddr)>, Malformed> {
    let (info, _) = message.split(XFRM_USER_MAPPING_LEN)?;
    mapping_of(info).ok_or(message.malformed())
}

/// `struct xfrm_user_mapping`.
fn mapping_of(info: &[u8]) -> Option<Option<(SaId, SocketAddr)>> {
    const SPI: usize = 16;
    const FAMILY: usize = 20;
    const PROTOCOL: usize = 22;
    const REQID: usize = 24;
    const NEW_SOURCE: usize = 44;
    const NEW_PORT: usize = 62;
    let ours = ours::is_our_sa(u32_at(info, REQID)?) && *info.get(PROTOCOL)? == ESP;
    if !ours {
        return Some(None);
    }
    let family = Family::from_number(u16_at(info, FAMILY)?)?;
    let spi = Spi(u32_at(info, SPI).map(u32::from_be)?);
    let port = u16_at(info, NEW_PORT).map(u16::from_be)?;
    let id = SaId { destination: address_at(family, info, 0)?, spi };
    Some(Some((id, SocketAddr::new(address_at(family, info, NEW_SOURCE)?, port))))
}

pub(super) fn address_at(family: Family, bytes: &[u8], at: usize) -> Option<IpAddr> {
    bytes.get(at..)?.first_chunk().map(|addr| address(family, Address { addr: *addr }))
}

/// Which packets a policy is asked about; `None` for a socket's own.
pub(super) fn direction(info: &UserPolicyInfo) -> Option<PolicyDirection> {
    match info.direction {
        XFRM_POLICY_IN => Some(PolicyDirection::In),
        XFRM_POLICY_OUT => Some(PolicyDirection::Out),
        XFRM_POLICY_FWD => Some(PolicyDirection::Forward),
        _ => None,
    }
}

/// The policy of a report (NEWPOLICY). `None` for what no selector of ours can collide with: sockets'
/// own policies, those of another type or family, and those bound to a mark, an interface or a user.
pub(super) fn policy(message: NetlinkMessage<'_>) -> Result<Option<PolicyReading>, Malformed> {
    let (info, attributes) = message.split(XFRM_USER_POLICY_INFO_LEN)?;
    let info = UserPolicyInfo::parse(info).map_err(|_| message.malformed())?;
    let Some(direction) = direction(&info) else { return Ok(None) };
    let zero = |kind| attributes.get(kind).is_none_or(|value| value.iter().all(|byte| *byte == 0));
    let main = attributes.get(XFRMA_POLICY_TYPE).and_then(|value| value.first());
    if main.is_some_and(|kind| *kind != XFRM_POLICY_TYPE_MAIN)
        || !(zero(XFRMA_MARK) && zero(XFRMA_IF_ID))
        || info.selector.ifindex != 0
        || info.selector.user != 0
    {
        return Ok(None);
    }
    let Some(selector) = selector(&info.selector) else { return Ok(None) };
    let id = PolicyId { direction, selector };
    let action = action(&info, id, attributes.get(XFRMA_TMPL).unwrap_or_default());
    let lives = Some(info.lifetime_cfg.hard_add_expires_seconds).filter(|seconds| *seconds != 0);
    let until = lives.and_then(|seconds| lifetime::end_of(info.lifetime_cur.add_time, seconds));
    Ok(Some(PolicyReading { id, index: info.index, priority: info.priority, action, until }))
}

/// Whether no packet has met the policy of a report since it was written; `false` where that cannot be told.
pub(super) fn is_unused_policy(message: NetlinkMessage<'_>) -> bool {
    let info =
        message.split(XFRM_USER_POLICY_INFO_LEN).ok().and_then(|(info, _)| UserPolicyInfo::parse(info).ok());
    info.is_some_and(|info| info.lifetime_cur.use_time == 0)
}

/// The action of a policy; `None` for one that we would write differently.
fn action(info: &UserPolicyInfo, id: PolicyId, templates: &[u8]) -> Option<Action> {
    match info.action {
        _ if info.flags != 0 || info.share != 0 => None,
        XFRM_POLICY_BLOCK if templates.is_empty() => Some(Action::Block),
        XFRM_POLICY_ALLOW if templates.is_empty() => Some(Action::Allow),
        XFRM_POLICY_ALLOW if templates.len() == XFRM_USER_TEMPLATE_LEN => {
            let template = UserTemplate::parse(templates).ok()?;
            let PolicyId { direction, selector } = id;
            let one = Some(Through::Sa(Spi(template.id.spi))).filter(|_| template.id.spi != 0);
            let through = one.or(Reqid::new(template.reqid).map(Through::Set));
            let sealed = through.map(|through| Action::Seal { through });
            sealed.into_iter().chain([Action::Require, Action::Accept]).find(|action| {
                let (action, priority) = (*action, info.priority);
                let policy = Policy { direction, selector, action, priority, until: None };
                encode::template(&policy) == Ok(Some(template))
            })
        }
        _ => None,
    }
}

pub(super) fn selector(selector: &WireSelector) -> Option<Selector> {
    let family = Family::from_number(selector.family)?;
    Some(Selector {
        source: Block { address: address(family, selector.saddr), prefix: selector.prefixlen_s },
        destination: Block { address: address(family, selector.daddr), prefix: selector.prefixlen_d },
        protocol: selector.proto,
        source_ports: Ports { port: selector.sport, mask: selector.sport_mask },
        destination_ports: Ports { port: selector.dport, mask: selector.dport_mask },
    })
}

fn address(family: Family, address: Address) -> IpAddr {
    match family {
        Family::V4 => address.to_ipv4().into(),
        Family::V6 => address.to_ipv6().into(),
    }
}

/// The kernel's answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ack {
    /// The system error number, 0 for a yes.
    pub(super) errno: i32,
    /// The kernel's own words, possibly none.
    pub(super) words: String,
}

impl Ack {
    /// The system error and the kernel's own words.
    pub(super) fn reason(&self) -> String {
        let error = match self.errno {
            nix::libc::EPERM => "not permitted: this needs CAP_NET_ADMIN",
            errno => Errno::from_raw(errno).desc(),
        };
        if self.words.is_empty() { error.to_owned() } else { format!("{error}: {}", self.words) }
    }
}

/// The verdict of an NLMSG_ERROR.
pub(super) fn verdict(message: NetlinkMessage<'_>) -> Result<Ack, Malformed> {
    let code = u32_at(message.body, 0).ok_or(message.malformed())?;
    // After the code comes the header of the request, alone because of NETLINK_CAP_ACK.
    let attributes = match message.body.get(20..) {
        Some(rest) if message.flags & NLM_F_ACK_TLVS != 0 => Attributes(rest),
        _ => Attributes(&[]),
    };
    let words = attributes.get(ATTRIBUTE_WORDS).unwrap_or_default();
    let words = String::from_utf8_lossy(words).trim_end_matches('\0').to_owned();
    Ok(Ack { errno: (code as i32).checked_neg().unwrap_or(i32::MAX), words })
}
