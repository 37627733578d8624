//! IPsec of other software on this host: what the kernel holds of it.

use std::fmt;
use std::net::IpAddr;

use super::{PolicyId, SaId};

/// The reqid, and mark, of all that Docker Swarm writes for its encrypted overlay networks.
pub const SWARM: u32 = 13_681_891;

/// What a policy of other software does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Passes, or may pass, as it is.
    Allow,
    /// Dropped.
    Block,
    /// Goes through, or must have come through, SAs of that software with this reqid (0 for any).
    Transform {
        /// What ties policy and SAs together.
        reqid: u32,
    },
}

/// A policy of other software that packets of ours can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrangerPolicy {
    /// Which packets it matches.
    pub id: PolicyId,
    /// Its index.
    pub index: u32,
    /// Among policies that match, the smallest number decides.
    pub priority: u32,
    /// What happens to a packet.
    pub verdict: Verdict,
    /// Only packets with this mark under this mask; 0 and 0 for all.
    pub mark: (u32, u32),
    /// Only packets through the interface with this index; 0 for all.
    pub interface: u32,
}

/// A transport-mode SA of other software.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrangerSa {
    /// The address that the packets come from.
    pub source: IpAddr,
    /// What identifies it.
    pub id: SaId,
    /// What ties it to policies.
    pub reqid: u32,
}

/// Which packets a kernel drops that no policy matches: what `ip xfrm policy setdefault` says for all software.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DefaultBlocks {
    /// Those to this host.
    pub incoming: bool,
    /// Those that it forwards.
    pub forwarded: bool,
    /// Those that leave it.
    pub outgoing: bool,
}

/// All that a kernel holds of other software's IPsec, as far as packets of ours can meet it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strangers {
    /// Policies.
    pub policies: Vec<StrangerPolicy>,
    /// SAs.
    pub sas: Vec<StrangerSa>,
}

impl StrangerPolicy {
    /// What ties it to SAs; 0 for none.
    pub fn reqid(&self) -> u32 {
        match self.verdict {
            Verdict::Transform { reqid } => reqid,
            Verdict::Allow | Verdict::Block => 0,
        }
    }
}

impl fmt::Display for StrangerPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} (priority {}", self.id, software(self.reqid()), self.priority)?;
        if self.mark != (0, 0) {
            write!(f, ", mark {:#x}/{:#x}", self.mark.0, self.mark.1)?;
        }
        if self.interface != 0 {
            write!(f, ", interface {}", self.interface)?;
        }
        write!(f, ", index {})", self.index)
    }
}

/// The software that an object with this reqid belongs to, as far as that can be told.
pub fn software(reqid: u32) -> &'static str {
    if reqid == SWARM { "Docker Swarm's encrypted overlay network" } else { "other IPsec software" }
}
