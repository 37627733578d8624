//! Asks the system what this host is called and where it is, for a node that becomes a member of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context as _;

use crate::host::whereabouts;
use crate::machine::{Network, host_name, named_node};
use crate::roster::Site;
use crate::types::{LinkAddress, NodeName};

/// Addresses to which the default routes lead, if any do. They are asked about, and nothing is sent to them.
const FAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111)),
];

/// What its operator says of a host.
pub(super) struct SaidOfHost {
    pub(super) node: Option<NodeName>,
    pub(super) addresses: Vec<IpAddr>,
}

/// The network of this host, as far as it says where that is.
pub(super) struct Whereabouts {
    network: Network,
    addresses: Vec<LinkAddress>,
    own: BTreeSet<IpAddr>,
}

impl Whereabouts {
    /// Asks the kernel.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) fn find() -> anyhow::Result<Self> {
        let mut network = Network::open().context("the kernel does not tell of its network")?;
        let mut ask = || -> io::Result<_> { Ok((network.addresses()?, network.own_addresses()?)) };
        let (addresses, own) = ask().context("this host's addresses cannot be listed")?;
        Ok(Self { network, addresses, own: own.into_keys().collect() })
    }

    /// What this host is, where others reach it by the addresses towards their default routes.
    ///
    /// # Errors
    /// It is not clear.
    pub(super) fn site(&mut self, said: SaidOfHost) -> anyhow::Result<Site> {
        let mut candidates = BTreeSet::new();
        for far in FAR {
            match self.network.route(far, None).and_then(|route| route.source) {
                Some(source) => candidates.extend(self.lasting(source)),
                None => candidates.extend(self.all_of(far.is_ipv4())),
            }
        }
        self.at(said, &candidates)
    }

    /// The same where they reach it by what it sends from, of these `sources`.
    ///
    /// # Errors
    /// It is not clear.
    pub(super) fn site_at(
        &self,
        said: SaidOfHost,
        sources: &BTreeMap<IpAddr, IpAddr>,
    ) -> anyhow::Result<Site> {
        let candidates = sources.values().flat_map(|source| self.lasting(*source)).collect();
        self.at(said, &candidates)
    }

    /// From which address this host sends to each of `remotes`, where there is a way to it.
    pub(super) fn sources(&mut self, remotes: &[IpAddr]) -> BTreeMap<IpAddr, IpAddr> {
        let sources = self.network.sources(remotes);
        sources.into_iter().map(|(remote, source)| (remote, source.address)).collect()
    }

    fn at(&self, said: SaidOfHost, candidates: &BTreeSet<IpAddr>) -> anyhow::Result<Site> {
        let addresses = whereabouts::addresses(&said.addresses, &self.own, candidates)?;
        let named = match named_node() {
            Some(name) => Some(name.parse().map_err(|why| anyhow::anyhow!("HOSTSEAL_NODE: {why}"))?),
            None => None,
        };
        let host = host_name().context("the name of this host cannot be read")?;
        let name = whereabouts::name(said.node.or(named), &host, &addresses)?;
        Ok(Site { name, addresses, inside: BTreeMap::new() })
    }

    /// The address itself, or those that stay where it is one that is replaced after a while.
    fn lasting(&self, source: IpAddr) -> BTreeSet<IpAddr> {
        match self.addresses.iter().find(|it| it.address == source) {
            Some(it) if it.is_temporary => self
                .addresses
                .iter()
                .filter(|other| other.link == it.link && other.address.is_ipv4() == source.is_ipv4())
                .filter(|other| stays(other) && self.own.contains(&other.address))
                .map(|other| other.address)
                .collect(),
            _ => BTreeSet::from([source]).into_iter().filter(|source| self.own.contains(source)).collect(),
        }
    }

    fn all_of(&self, is_v4: bool) -> BTreeSet<IpAddr> {
        let of_family = self.addresses.iter().filter(|it| it.address.is_ipv4() == is_v4 && stays(it));
        of_family.map(|it| it.address).filter(|address| self.own.contains(address)).collect()
    }
}

/// Whether others can rely on it.
fn stays(it: &LinkAddress) -> bool {
    !it.is_temporary && !it.is_deprecated && !it.is_duplicate
}
