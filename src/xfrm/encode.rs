//! Our nouns as the kernel's structures.

use netlink_packet_core::Emitable;
use netlink_packet_xfrm::{
    Address, Id, LifetimeConfig, ReplayEsn, Selector as WireSelector, UserPolicyDefault, UserPolicyId,
    UserPolicyInfo, UserSaId, UserSaInfo, UserTemplate, XFRM_INF, XFRM_MODE_TRANSPORT, XFRM_MSG_DELPOLICY,
    XFRM_MSG_DELSA, XFRM_MSG_GETDEFAULT, XFRM_MSG_GETPOLICY, XFRM_MSG_GETSA, XFRM_MSG_NEWPOLICY,
    XFRM_MSG_NEWSA, XFRM_MSG_UPDPOLICY, XFRM_MSG_UPDSA, XFRM_POLICY_ALLOW, XFRM_POLICY_BLOCK,
    XFRM_POLICY_FWD, XFRM_POLICY_IN, XFRM_POLICY_OUT, XFRM_USER_TEMPLATE_LEN, XFRMA_ALG_AEAD, XFRMA_ENCAP,
    XFRMA_MTIMER_THRESH, XFRMA_REPLAY_ESN_VAL, XFRMA_TMPL,
};
use zeroize::Zeroizing;

use super::batch::{Attribute, Batch};
use super::lifetime;
use super::preflight::Features;
use crate::types::{
    Action, Block, Direction, Family, Limits, Policy, PolicyDirection, PolicyReading, Reqid, Sa, SaId, SaKey,
    Selector, Through, UdpPorts, ours,
};

/// `IPPROTO_ESP`.
pub(super) const ESP: u8 = 50;
/// `XFRM_STATE_ESN` in the flags of an SA.
pub(super) const FLAG_ESN: u8 = 128;
/// `XFRMA_SA_DIR`, since Linux 6.10.
pub(super) const XFRMA_SA_DIR: u16 = 33;
/// The values of `XFRMA_SA_DIR`.
const SA_DIR_IN: u8 = 1;
/// See [`SA_DIR_IN`].
pub(super) const SA_DIR_OUT: u8 = 2;

/// ESP in UDP (RFC 3948), as SAs and sockets are told (linux/udp.h).
pub(super) const UDP_ENCAP_ESPINUDP: u16 = 2;
/// How often at most, in seconds, the kernel reports that ESP comes from another UDP port than its SA says, as long
/// as that is the same one (Linux 5.17; earlier ones report each packet).
const MAPPING_REPORTS: u32 = 1;
/// Bytes of `struct xfrm_encap_tmpl`.
const ENCAP_TEMPLATE: usize = 24;

/// The algorithm's name (RFC 4106).
const CIPHER: &[u8] = b"rfc4106(gcm(aes))";
/// Bits of the integrity check value.
const ICV_BITS: u32 = 128;
/// Bytes of salt at the end of a key (RFC 4106 section 8.1).
const SALT: usize = 4;
/// `struct xfrm_algo_aead` up to the key: name, bits of key, bits of ICV.
const AEAD_HEADER: usize = 64 + 4 + 4;
/// `XFRMA_REPLAY_ESN_MAX`: the widest replay window in packets.
const WIDEST_WINDOW: u32 = 4096;
/// The widest replay window that fits into `xfrm_usersa_info` itself.
const NARROW_WINDOW: u32 = 32;

/// An SA to add. Refuses what the kernel must not even be asked for.
pub(super) fn add_sa(batch: &mut Batch, sa: &Sa, key: &SaKey, features: Features) -> Result<(), String> {
    whole_sa(batch, XFRM_MSG_NEWSA, sa, key, features)
}

/// An SA to replace one that is not there: the kernel makes it, finds nothing to replace, and drops it again.
pub(super) fn try_sa(batch: &mut Batch, sa: &Sa, key: &SaKey, features: Features) -> Result<(), String> {
    whole_sa(batch, XFRM_MSG_UPDSA, sa, key, features)
}

fn whole_sa(batch: &mut Batch, kind: u16, sa: &Sa, key: &SaKey, features: Features) -> Result<(), String> {
    let key = key.expose();
    if key.len() != usize::from(sa.suite.key_bits) / 8 + SALT || ![128, 256].contains(&sa.suite.key_bits) {
        return Err(format!("a key of {} bytes does not fit the cipher", key.len()));
    }
    if sa.replay_window > WIDEST_WINDOW {
        return Err(format!("a replay window of {} packets: at most {WIDEST_WINDOW}", sa.replay_window));
    }
    if Family::of(sa.pair.local) != Family::of(sa.pair.remote) {
        return Err("its addresses are of different families".into());
    }
    let mut aead = Zeroizing::new([0u8; AEAD_HEADER + 32 + SALT]);
    let aead = &mut aead[..AEAD_HEADER + key.len()];
    aead[..CIPHER.len()].copy_from_slice(CIPHER);
    aead[64..68].copy_from_slice(&(8 * key.len() as u32).to_ne_bytes());
    aead[68..72].copy_from_slice(&ICV_BITS.to_ne_bytes());
    aead[AEAD_HEADER..].copy_from_slice(key);

    let (source, destination) = match sa.direction {
        Direction::In => (sa.pair.remote, sa.pair.local),
        Direction::Out => (sa.pair.local, sa.pair.remote),
    };
    let window = window(sa, features);
    let mut info = UserSaInfo {
        // In transport mode nothing else binds what comes out of an SA to its two hosts: the kernel finds an SA
        // by destination and SPI alone (docs/kernel.md, fact 22).
        selector: selector(&Selector::between(Block::host(source), Block::host(destination))),
        id: Id { daddr: Address::from_ip(&destination), spi: sa.spi.0, proto: ESP },
        saddr: Address::from_ip(&source),
        lifetime_cfg: limits(sa.limits),
        reqid: sa.reqid.number(),
        family: Family::of(destination).number(),
        mode: XFRM_MODE_TRANSPORT,
        flags: if sa.suite.esn { FLAG_ESN } else { 0 },
        ..UserSaInfo::default()
    };
    let mut replay = [0u8; 24];
    let mut attributes: Vec<Attribute<'_>> = vec![(XFRMA_ALG_AEAD, aead)];
    if sa.suite.esn || window > NARROW_WINDOW {
        // The kernel allocates the bitmap by its length; its words need not be sent.
        let state = ReplayEsn { bmp_len: window.div_ceil(32), replay_window: window, ..ReplayEsn::default() };
        state.emit(&mut replay);
        attributes.push((XFRMA_REPLAY_ESN_VAL, &replay));
    } else {
        info.replay_window = window as u8;
    }
    let encapsulation = sa.encapsulation.map(|ports| encap_template(ports, sa.direction));
    attributes.extend(encapsulation.as_ref().map(|template| (XFRMA_ENCAP, template.as_slice())));
    let reports = MAPPING_REPORTS.to_ne_bytes();
    if sa.encapsulation.is_some() && sa.direction == Direction::In {
        attributes.push((XFRMA_MTIMER_THRESH, &reports));
    }
    let direction = match sa.direction {
        Direction::In => [SA_DIR_IN],
        Direction::Out => [SA_DIR_OUT],
    };
    if features.sa_dir {
        attributes.push((XFRMA_SA_DIR, &direction));
    }
    batch.push(kind, 0, &info, &attributes);
    Ok(())
}

/// `struct xfrm_encap_tmpl`: the kind, the port of the sender, and the port of the receiver. No kernel looks at the address
/// after them any more.
fn encap_template(ports: UdpPorts, direction: Direction) -> [u8; ENCAP_TEMPLATE] {
    let (source, destination) = match direction {
        Direction::In => (ports.remote, ports.local),
        Direction::Out => (ports.local, ports.remote),
    };
    let mut template = [0; ENCAP_TEMPLATE];
    template[..2].copy_from_slice(&UDP_ENCAP_ESPINUDP.to_ne_bytes());
    template[2..4].copy_from_slice(&source.to_be_bytes());
    template[4..6].copy_from_slice(&destination.to_be_bytes());
    template
}

/// The replay window to ask for. An outbound SA has no use for one: kernels that know the direction of an
/// SA refuse it, older ones refuse ESN without it (docs/kernel.md, fact 10).
fn window(sa: &Sa, features: Features) -> u32 {
    match sa.direction {
        Direction::In => sa.replay_window.max(u32::from(sa.suite.esn)),
        Direction::Out if sa.suite.esn && !features.sa_dir => NARROW_WINDOW,
        Direction::Out => 0,
    }
}

/// No limit is all ones for bytes and packets (docs/kernel.md, fact 9), and 0 for seconds.
fn limits(limits: Limits) -> LifetimeConfig {
    LifetimeConfig {
        soft_byte_limit: limits.soft_bytes.unwrap_or(XFRM_INF),
        hard_byte_limit: limits.hard_bytes.unwrap_or(XFRM_INF),
        soft_packet_limit: limits.soft_packets.unwrap_or(XFRM_INF),
        hard_packet_limit: limits.hard_packets.unwrap_or(XFRM_INF),
        hard_add_expires_seconds: limits.hard_seconds.unwrap_or(0),
        ..LifetimeConfig::default()
    }
}

/// A request to report an SA.
pub(super) fn get_sa(batch: &mut Batch, id: SaId) {
    batch.push(XFRM_MSG_GETSA, 0, &sa_id(id), &[]);
}

/// A request to delete an SA.
pub(super) fn delete_sa(batch: &mut Batch, id: SaId) {
    batch.push(XFRM_MSG_DELSA, 0, &sa_id(id), &[]);
}

/// What identifies an SA of ours in a request.
pub(super) fn sa_id(id: SaId) -> UserSaId {
    UserSaId {
        daddr: Address::from_ip(&id.destination),
        spi: id.spi.0,
        family: Family::of(id.destination).number(),
        proto: ESP,
    }
}

/// A policy to add, refused where one with its identity exists.
pub(super) fn add_policy(batch: &mut Batch, policy: &Policy, index: u32) -> Result<(), String> {
    write_policy(batch, XFRM_MSG_NEWPOLICY, policy, index)
}

/// A policy to put in the place of the one with its identity.
pub(super) fn update_policy(batch: &mut Batch, policy: &Policy, index: u32) -> Result<(), String> {
    write_policy(batch, XFRM_MSG_UPDPOLICY, policy, index)
}

fn write_policy(batch: &mut Batch, kind: u16, policy: &Policy, index: u32) -> Result<(), String> {
    if !ours::is_our_policy(&reading(policy, index)) || index & 7 != u32::from(direction(policy.direction)) {
        return Err(format!("index {index:#x} with priority {} is not one of ours", policy.priority));
    }
    let Selector { source, destination, .. } = policy.selector;
    if Family::of(source.address) != Family::of(destination.address) {
        return Err("its addresses are of different families".into());
    }
    let block = matches!(policy.action, Action::Block);
    let info = UserPolicyInfo {
        selector: selector(&policy.selector),
        lifetime_cfg: LifetimeConfig {
            hard_add_expires_seconds: policy.until.map_or(0, lifetime::seconds_until),
            ..LifetimeConfig::default()
        },
        priority: policy.priority,
        index,
        direction: direction(policy.direction),
        action: if block { XFRM_POLICY_BLOCK } else { XFRM_POLICY_ALLOW },
        ..UserPolicyInfo::default()
    };
    match template(policy)? {
        None => batch.push(kind, 0, &info, &[]),
        Some(template) => batch.push(kind, 0, &info, &[(XFRMA_TMPL, &template_bytes(&template))]),
    }
    Ok(())
}

/// What a reading of the policy would show.
fn reading(policy: &Policy, index: u32) -> PolicyReading {
    let Policy { priority, action, until, .. } = *policy;
    PolicyReading { id: policy.id(), index, priority, action: Some(action), until }
}

/// The template of a policy that asks for ESP.
pub(super) fn template(policy: &Policy) -> Result<Option<UserTemplate>, String> {
    let family = Family::of(policy.selector.source.address);
    let inbound = policy.direction != PolicyDirection::Out;
    match policy.action {
        Action::Allow | Action::Block => Ok(None),
        Action::Seal { through } => {
            let Selector { source, destination, .. } = policy.selector;
            let hosts = [source, destination].iter().all(|block| *block == Block::host(block.address));
            if inbound || !hosts {
                return Err("only outbound traffic from one host to another can be sealed".into());
            }
            // No SPI is 0, and means any.
            let (spi, reqid) = match through {
                Through::Sa(spi) => (spi.0, Reqid::COMMON),
                Through::Set(reqid) => (0, reqid),
            };
            Ok(Some(UserTemplate {
                id: Id { daddr: Address::from_ip(&destination.address), spi, proto: ESP },
                saddr: Address::from_ip(&source.address),
                reqid: reqid.number(),
                ..any_common_sa(family)
            }))
        }
        Action::Require if inbound => Ok(Some(any_common_sa(family))),
        Action::Accept if inbound => Ok(Some(UserTemplate { optional: 1, ..any_common_sa(family) })),
        // Outbound, these would go clear as soon as no SA fits, or pick one that the other end does not have.
        Action::Require | Action::Accept => Err("an outbound policy must name its SA".into()),
    }
}

/// The template that every SA of ours fits which has the common reqid.
fn any_common_sa(family: Family) -> UserTemplate {
    UserTemplate {
        id: Id { proto: ESP, ..Id::default() },
        family: family.number(),
        reqid: Reqid::COMMON.number(),
        mode: XFRM_MODE_TRANSPORT,
        // Any algorithms: which ones it has was decided when the SA was made.
        aalgos: u32::MAX,
        ealgos: u32::MAX,
        calgos: u32::MAX,
        ..UserTemplate::default()
    }
}

/// The template that exactly one outbound SA fits.
pub(super) fn exactly(sa: &Sa) -> UserTemplate {
    UserTemplate {
        id: Id { daddr: Address::from_ip(&sa.pair.remote), spi: sa.spi.0, proto: ESP },
        saddr: Address::from_ip(&sa.pair.local),
        reqid: sa.reqid.number(),
        ..any_common_sa(Family::of(sa.pair.remote))
    }
}

/// A template's bytes.
pub(super) fn template_bytes(template: &UserTemplate) -> [u8; XFRM_USER_TEMPLATE_LEN] {
    let mut bytes = [0; XFRM_USER_TEMPLATE_LEN];
    template.emit(&mut bytes);
    bytes
}

/// A request to report the policy at an index.
pub(super) fn get_policy(batch: &mut Batch, of: PolicyDirection, index: u32) {
    batch.push(XFRM_MSG_GETPOLICY, 0, &policy_at(of, index), &[]);
}

/// A request to report what becomes of packets that no policy matches.
pub(super) fn get_default(batch: &mut Batch) {
    batch.push(XFRM_MSG_GETDEFAULT, 0, &UserPolicyDefault::default(), &[]);
}

/// A request to delete the policy at an index.
pub(super) fn delete_policy(batch: &mut Batch, of: PolicyDirection, index: u32) {
    batch.push(XFRM_MSG_DELPOLICY, 0, &policy_at(of, index), &[]);
}

fn policy_at(of: PolicyDirection, index: u32) -> UserPolicyId {
    UserPolicyId { selector: WireSelector::default(), index, direction: direction(of) }
}

/// The number of a direction.
pub(super) fn direction(direction: PolicyDirection) -> u8 {
    match direction {
        PolicyDirection::In => XFRM_POLICY_IN,
        PolicyDirection::Out => XFRM_POLICY_OUT,
        PolicyDirection::Forward => XFRM_POLICY_FWD,
    }
}

fn selector(selector: &Selector) -> WireSelector {
    WireSelector {
        daddr: Address::from_ip(&selector.destination.address),
        saddr: Address::from_ip(&selector.source.address),
        dport: selector.destination_ports.port,
        dport_mask: selector.destination_ports.mask,
        sport: selector.source_ports.port,
        sport_mask: selector.source_ports.mask,
        family: Family::of(selector.source.address).number(),
        prefixlen_d: selector.destination.prefix,
        prefixlen_s: selector.source.prefix,
        proto: selector.protocol,
        ..WireSelector::default()
    }
}
