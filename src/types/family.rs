//! Address families.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "ipv4")]
    V4,
    /// IPv6.
    #[serde(rename = "ipv6")]
    V6,
}

impl Family {
    /// The family of `address`.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The families that some of `addresses` are of.
    pub fn all_of(addresses: &[IpAddr]) -> Vec<Self> {
        let is_used = |family: &Self| addresses.iter().any(|address| Self::of(*address) == *family);
        [Self::V4, Self::V6].into_iter().filter(is_used).collect()
    }

    /// Its number in the kernel's structures (`AF_INET`, `AF_INET6`).
    pub fn number(self) -> u16 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// The family of a number, `None` for others.
    pub fn from_number(number: u16) -> Option<Self> {
        [Self::V4, Self::V6].into_iter().find(|family| family.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_linux_and_the_names_those_of_status() {
        for (family, number, name) in [
            (Family::V4, netlink_packet_xfrm::AF_INET, "\"ipv4\""),
            (Family::V6, netlink_packet_xfrm::AF_INET6, "\"ipv6\""),
        ] {
            assert_eq!((family.number(), Family::from_number(number)), (number, Some(family)));
            assert_eq!(serde_json::to_string(&family).unwrap(), name);
        }
        assert_eq!(Family::from_number(1), None);
    }
}
