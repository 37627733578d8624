//! Which addresses of this host are in VRFs (ip-vrf(8)): sockets that are bound to none send and receive nothing there.

use std::collections::BTreeMap;
use std::io;

use super::Network;
use crate::types::{Link, Vrfs};

/// An interface may be part of a bridge that is part of a VRF; the kernel stacks no more than so many.
const STACKED_MOST: usize = 8;

impl Network {
    /// The VRFs that addresses of this host are in.
    ///
    /// # Errors
    /// The kernel does not list interfaces or addresses.
    pub fn vrfs(&mut self) -> io::Result<Vrfs> {
        let links = self.links()?;
        if !links.values().any(|link| link.is_vrf) {
            return Ok(Vrfs::new());
        }
        let there = self.addresses()?.into_iter();
        Ok(there.filter_map(|it| Some((it.address, vrf_of(&links, it.link)?.to_owned()))).collect())
    }
}

/// The name of the VRF that an interface is, or is part of.
fn vrf_of(links: &BTreeMap<u32, Link>, index: u32) -> Option<&str> {
    let mut link = links.get(&index)?;
    for _ in 0..STACKED_MOST {
        if link.is_vrf {
            return Some(&link.name);
        }
        link = links.get(&link.part_of?)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LinkCounters;

    fn link(index: u32, part_of: Option<u32>, is_vrf: bool) -> (u32, Link) {
        let link = Link {
            index,
            name: format!("link{index}"),
            mtu: 1500,
            is_up: true,
            is_loopback: false,
            is_vrf,
            part_of,
            received: LinkCounters::default(),
            sent: LinkCounters::default(),
        };
        (index, link)
    }

    #[test]
    fn what_is_part_of_a_part_is_in_the_vrf_too() {
        let links =
            [link(1, None, true), link(2, Some(1), false), link(3, Some(2), false), link(4, None, false)];
        let links = BTreeMap::from(links);
        let found = [1, 2, 3, 4, 5].map(|index| vrf_of(&links, index));
        assert_eq!(found, [Some("link1"), Some("link1"), Some("link1"), None, None]);
    }

    #[test]
    fn a_ring_of_interfaces_ends() {
        let links = BTreeMap::from([link(1, Some(2), false), link(2, Some(1), false)]);
        assert_eq!(vrf_of(&links, 1), None);
    }
}
