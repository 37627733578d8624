//! Holes: interfaces that the kernel's IPsec passes by, as somebody set a sysctl.

/// A sysctl of an interface that is set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hole {
    /// The interface, or `all`.
    pub interface: String,
    /// Which sysctl.
    pub kind: HoleKind,
    /// Packets of this host's pairs may pass there.
    pub is_used: bool,
}

/// The sysctls that Linux has for it. IPv6 has no `disable_xfrm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HoleKind {
    /// `disable_policy` of IPv4: of the interface that a packet came in by.
    PolicyV4,
    /// `disable_xfrm` of IPv4: of the interface that a packet leaves by.
    XfrmV4,
    /// `disable_policy` of IPv6: of the interface that has the address that a packet is for.
    PolicyV6,
}

impl HoleKind {
    /// Each of them.
    pub const ALL: [HoleKind; 3] = [Self::PolicyV4, Self::XfrmV4, Self::PolicyV6];

    /// Whether it concerns IPv4.
    pub fn is_ipv4(self) -> bool {
        self != Self::PolicyV6
    }

    /// The family of its sysctl: `ipv4` or `ipv6`.
    pub fn family(self) -> &'static str {
        if self.is_ipv4() { "ipv4" } else { "ipv6" }
    }

    /// What the sysctl is called.
    pub fn sysctl(self) -> &'static str {
        match self {
            Self::PolicyV4 | Self::PolicyV6 => "disable_policy",
            Self::XfrmV4 => "disable_xfrm",
        }
    }
}
