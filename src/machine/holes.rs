//! Holes: interfaces that the kernel's IPsec passes by, as somebody set a sysctl.
//!
//! Linux knows three ([`HoleKind`]). What is set for `all` holds for each interface.
//!
//! Anybody can send a packet in the name of a peer to any interface. So an interface that IPv4 packets come in by is a
//! hole for all pairs, unless the kernel looks whether their sender can be there (`rp_filter`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{Network, is_set};
use crate::types::{Hole, HoleKind, Link, Pair};

/// Where the kernel's network has its settings.
const SYSCTLS: &str = "/proc/sys/net";

/// What lets packets past the policies of this host, and whether packets of `pairs` pass there. Where that cannot be
/// known, they may.
pub fn holes(network: &mut Network, pairs: &[Pair]) -> Vec<Hole> {
    let root = Path::new(SYSCTLS);
    let found = holes_in(root);
    if found.is_empty() {
        return found;
    }
    let links = network.links().ok();
    let used = [true, false].map(|is_ipv4| {
        let pairs: Vec<Pair> = pairs.iter().copied().filter(|pair| pair.local.is_ipv4() == is_ipv4).collect();
        links.as_ref().and_then(|links| interfaces_of(network, links, &pairs, &found))
    });
    let [used_v4, used_v6] = used;
    let has_ipv4 = pairs.iter().any(|pair| pair.local.is_ipv4());
    let is_up = |name: &str| {
        let link = links.as_ref().and_then(|links| links.values().find(|link| link.name == name));
        link.is_none_or(|link| link.is_up)
    };
    let takes_from_anybody = |hole: &Hole| {
        let takes_ipv4 = hole.kind == HoleKind::PolicyV4;
        takes_ipv4 && has_ipv4 && is_up(&hole.interface) && !knows_sources(root, &hole.interface)
    };
    let is_used = |hole: &Hole| {
        let used = if hole.kind.is_ipv4() { &used_v4 } else { &used_v6 };
        hole.interface == "all"
            || used.as_ref().is_none_or(|names| names.contains(&hole.interface))
            || takes_from_anybody(hole)
    };
    found.into_iter().map(|hole| Hole { is_used: is_used(&hole), ..hole }).collect()
}

/// Whether the kernel takes IPv4 packets by an interface only from those that routes lead to by it: `rp_filter` is 1, by
/// itself or for `all`, and neither is more (RFC 3704 section 2.2).
fn knows_sources(root: &Path, interface: &str) -> bool {
    let mode = |interface: &str| {
        let text = fs::read_to_string(root.join("ipv4/conf").join(interface).join("rp_filter")).ok();
        text.and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or_default()
    };
    mode("all").max(mode(interface)) == 1
}

/// The interfaces that have an address of `pairs`, and those with a hole in `found` that lead to a peer; `None` where that
/// cannot be known.
fn interfaces_of(
    network: &mut Network,
    links: &BTreeMap<u32, Link>,
    pairs: &[Pair],
    found: &[Hole],
) -> Option<BTreeSet<String>> {
    let own: BTreeSet<_> = pairs.iter().map(|pair| pair.local).collect();
    let with_own = network.addresses().ok()?.into_iter().filter(|it| own.contains(&it.address));
    let mut used: BTreeSet<u32> = with_own.map(|it| it.link).collect();
    let asked: BTreeSet<&String> = found.iter().map(|hole| &hole.interface).collect();
    let asked = links.values().filter(|link| asked.contains(&link.name)).map(|link| link.index);
    let mut open: BTreeSet<u32> = asked.filter(|index| !used.contains(index)).collect();
    for pair in pairs {
        // Once found, an interface needs no further question.
        if open.is_empty() {
            break;
        }
        let link = network.route(pair.remote, Some(pair.local)).and_then(|route| route.link);
        used.extend(link.filter(|link| open.remove(link)));
    }
    used.iter().map(|index| Some(links.get(index)?.name.clone())).collect()
}

/// The sysctls that are set below `root`; nothing is used yet.
fn holes_in(root: &Path) -> Vec<Hole> {
    let mut found = Vec::new();
    for of_family in HoleKind::ALL.chunk_by(|one, next| one.family() == next.family()) {
        let family = of_family.first().map(|kind| kind.family()).unwrap_or_default();
        let Ok(interfaces) = fs::read_dir(root.join(family).join("conf")) else { continue };
        for interface in interfaces.flatten() {
            let name = interface.file_name().to_string_lossy().into_owned();
            for kind in of_family.iter().copied() {
                // The kernel sets both of IPv4 for loopback; `default` is for interfaces that do not exist yet.
                let is_usual = name == "default" || (name == "lo" && kind.is_ipv4());
                if !is_usual && is_set(&interface.path().join(kind.sysctl())) {
                    found.push(Hole { interface: name.clone(), kind, is_used: false });
                }
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(root: &Path, family: &str, interface: &str, sysctl: &str, value: &str) {
        let directory = root.join(family).join("conf").join(interface);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(sysctl), value).unwrap();
    }

    #[test]
    fn holes_are_found_and_loopback_is_none_for_ipv4() {
        let root = tempfile::tempdir().unwrap();
        for (family, interface, sysctl, value) in [
            ("ipv4", "eth0", "disable_xfrm", "0\n"),
            ("ipv4", "eth1", "disable_xfrm", "1\n"),
            ("ipv4", "lo", "disable_xfrm", "1\n"),
            ("ipv4", "default", "disable_policy", "1\n"),
            ("ipv4", "all", "disable_policy", "1\n"),
            ("ipv6", "eth0.7", "disable_policy", "1\n"),
            ("ipv6", "lo", "disable_policy", "1\n"),
        ] {
            set(root.path(), family, interface, sysctl, value);
        }
        let hole = |interface: &str, kind| Hole { interface: interface.to_owned(), kind, is_used: false };
        assert_eq!(
            holes_in(root.path()),
            [
                hole("all", HoleKind::PolicyV4),
                hole("eth0.7", HoleKind::PolicyV6),
                hole("eth1", HoleKind::XfrmV4),
                hole("lo", HoleKind::PolicyV6),
            ]
        );
        assert_eq!(holes_in(&root.path().join("nothing")), []);
    }

    #[test]
    fn sources_are_known_where_the_filter_is_strict() {
        for (all, own, strict) in [
            (None, None, false),
            (None, Some(1), true),
            (Some(1), Some(0), true),
            (Some(2), Some(1), false),
            (Some(0), Some(2), false),
        ] {
            let root = tempfile::tempdir().unwrap();
            for (interface, value) in [("all", all), ("eth1", own)] {
                let value = value.map(|value: u32| value.to_string());
                value.iter().for_each(|value| set(root.path(), "ipv4", interface, "rp_filter", value));
            }
            assert_eq!(knows_sources(root.path(), "eth1"), strict, "{all:?} {own:?}");
        }
    }
}
