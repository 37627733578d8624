//! Policies and SAs of other software, as far as packets of ours can meet them.

use netlink_packet_xfrm::{
    UserPolicyDefault, UserPolicyInfo, UserTemplate, XFRM_MODE_TRANSPORT, XFRM_POLICY_BLOCK,
    XFRM_POLICY_TYPE_MAIN, XFRM_USER_POLICY_DEFAULT_LEN, XFRM_USER_POLICY_INFO_LEN, XFRM_USER_SA_INFO_LEN,
    XFRM_USER_TEMPLATE_LEN, XFRM_USERPOLICY_BLOCK, XFRMA_IF_ID, XFRMA_MARK, XFRMA_POLICY_TYPE, XFRMA_TMPL,
};

use super::decode::{address_at, direction, field, selector};
use super::encode::ESP;
use super::wire::{Malformed, NetlinkMessage, u16_at, u32_at};
use crate::types::stranger::{DefaultBlocks, StrangerPolicy, StrangerSa, Verdict};
use crate::types::{Block, Family, PolicyId, SaId, Selector, Spi, ours};

/// The policy of a report (NEWPOLICY), whoever's it is. `None` for what no packet of ours meets: sockets' own
/// policies, those of another type, those of XFRM interfaces and those with a mark that no packet can have.
pub(super) fn policy(message: NetlinkMessage<'_>) -> Result<Option<StrangerPolicy>, Malformed> {
    let (info, attributes) = message.split(XFRM_USER_POLICY_INFO_LEN)?;
    let info = UserPolicyInfo::parse(info).map_err(|_| message.malformed())?;
    let Some(direction) = direction(&info) else { return Ok(None) };
    let kind = attributes.get(XFRMA_POLICY_TYPE).and_then(|value| value.first());
    let word = |attribute, at| attributes.get(attribute).and_then(|value| u32_at(value, at)).unwrap_or(0);
    let (value, mask) = (word(XFRMA_MARK, 0), word(XFRMA_MARK, 4));
    if kind.is_some_and(|kind| *kind != XFRM_POLICY_TYPE_MAIN)
        || word(XFRMA_IF_ID, 0) != 0
        || value & !mask != 0
    {
        return Ok(None);
    }
    let Some(selector) = selector(&info.selector) else { return Ok(None) };
    // The kernel keeps bits beyond the prefix as they were given, and ignores them.
    let whole = |block: Block| Block::new(block.address, block.prefix).unwrap_or(block);
    let selector =
        Selector { source: whole(selector.source), destination: whole(selector.destination), ..selector };
    let verdict = match info.action {
        XFRM_POLICY_BLOCK => Verdict::Block,
        _ => verdict(attributes.get(XFRMA_TMPL).unwrap_or_default()),
    };
    Ok(Some(StrangerPolicy {
        id: PolicyId { direction, selector },
        index: info.index,
        priority: info.priority,
        verdict,
        mark: (value, mask),
        interface: u32::try_from(info.selector.ifindex).unwrap_or(0),
    }))
}

/// What a policy with these templates does. If all are optional, it lets clear packets pass.
fn verdict(templates: &[u8]) -> Verdict {
    let templates = templates.chunks_exact(XFRM_USER_TEMPLATE_LEN);
    let mut templates = templates.filter_map(|template| UserTemplate::parse(template).ok());
    match templates.find(|template| template.optional == 0) {
        Some(template) => Verdict::Transform { reqid: template.reqid },
        None => Verdict::Allow,
    }
}

/// What becomes of packets that no policy matches (GETDEFAULT).
pub(super) fn default_blocks(message: NetlinkMessage<'_>) -> Result<DefaultBlocks, Malformed> {
    let (said, _) = message.split(XFRM_USER_POLICY_DEFAULT_LEN)?;
    let said = UserPolicyDefault::parse(said).map_err(|_| message.malformed())?;
    let [incoming, forwarded, outgoing] =
        [said.input, said.forward, said.output].map(|said| said == XFRM_USERPOLICY_BLOCK);
    Ok(DefaultBlocks { incoming, forwarded, outgoing })
}

/// The transport-mode ESP SA of a report (NEWSA), `None` for one of ours and for any other.
pub(super) fn sa(message: NetlinkMessage<'_>) -> Result<Option<StrangerSa>, Malformed> {
    let (info, attributes) = message.split(XFRM_USER_SA_INFO_LEN)?;
    let word = |at| u32_at(info, at).ok_or(message.malformed());
    let (reqid, spi) = (word(field::REQID)?, word(field::SPI)?.to_be());
    let bound = attributes.get(XFRMA_IF_ID).is_some_and(|value| value.iter().any(|byte| *byte != 0));
    if ours::is_our_sa(reqid)
        || info[field::PROTOCOL] != ESP
        || info[field::MODE] != XFRM_MODE_TRANSPORT
        || spi == 0
        || bound
    {
        return Ok(None);
    }
    let read = || {
        let family = Family::from_number(u16_at(info, field::FAMILY)?)?;
        let destination = address_at(family, info, field::DESTINATION)?;
        let source = address_at(family, info, field::SOURCE)?;
        Some(StrangerSa { source, id: SaId { destination, spi: Spi(spi) }, reqid })
    };
    Ok(read())
}
