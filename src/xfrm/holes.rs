//! Holes: interfaces that the kernel's IPsec passes by, as somebody set a sysctl.
//!
//! Linux knows three. `disable_xfrm` of the interface that an IPv4 packet leaves by, `disable_policy` of the
//! one that an IPv4 packet came in by, and, for IPv6, `disable_policy` of the interface that has the address
//! that the packet is for. What is set for `all` holds for each. IPv6 has no `disable_xfrm`.
//!
//! Anybody can send a packet in the name of a peer to any interface. So an interface that IPv4 packets come in by is a
//! hole for all pairs, unless the kernel looks whether their sender can be there (`rp_filter`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::routes::Routes;
use crate::machine::{ip_of, is_set};
use crate::types::{Pair, Problem, ProblemCode};

/// Sysctls of an interface that are holes, and what they mean.
const SYSCTLS: [(&str, &str, &str); 3] = [
    ("ipv4", "disable_xfrm", "IPv4 packets leave in the clear"),
    ("ipv4", "disable_policy", "IPv4 packets are accepted in the clear"),
    ("ipv6", "disable_policy", "IPv6 packets are accepted in the clear"),
];

/// A sysctl that is set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Hole {
    interface: String,
    family: &'static str,
    sysctl: &'static str,
    meaning: &'static str,
}

/// What is not protected on this host whatever its policies say: critical where packets of `pairs` pass, for
/// information elsewhere.
pub fn holes(pairs: &[Pair]) -> Vec<Problem> {
    let root = Path::new("/proc/sys/net");
    let found = holes_in(root);
    if found.is_empty() {
        return Vec::new();
    }
    let used = ["ipv4", "ipv6"].map(|family| {
        let is_ipv4 = family == "ipv4";
        let pairs = pairs.iter().copied().filter(|pair| pair.local.is_ipv4() == is_ipv4);
        // Where that cannot be known, any may be used.
        (family, interfaces_of(pairs, &found).ok())
    });
    let is_up = interfaces_up();
    let takes_from_anybody = |hole: &Hole| {
        let up = is_up.as_ref().is_none_or(|up| up.contains(&hole.interface));
        hole.takes_ipv4()
            && up
            && pairs.iter().any(|pair| pair.local.is_ipv4())
            && !knows_sources(root, &hole.interface)
    };
    let is_used = |hole: &Hole| {
        let of_family = used.iter().find(|(family, _)| *family == hole.family);
        of_family.and_then(|(_, names)| names.as_ref()).is_none_or(|names| names.contains(&hole.interface))
    };
    let is_gap = |hole: &Hole| hole.interface == "all" || is_used(hole) || takes_from_anybody(hole);
    found.iter().map(|hole| hole.problem(is_gap(hole))).collect()
}

impl Hole {
    /// Whether IPv4 packets come in through it.
    fn takes_ipv4(&self) -> bool {
        (self.family, self.sysctl) == ("ipv4", "disable_policy")
    }

    fn problem(&self, used: bool) -> Problem {
        let Hole { interface, family, sysctl, meaning } = self;
        // sysctl takes slashes too, where a name has dots.
        let key = match interface.contains('.') {
            false => format!("net.{family}.conf.{interface}.{sysctl}"),
            true => format!("net/{family}/conf/{interface}/{sysctl}"),
        };
        let what = match interface.as_str() {
            "all" => format!("every interface is a hole: {meaning}"),
            _ if used => format!("interface {interface} is a hole: {meaning}"),
            _ => format!("interface {interface} is a hole, though no pair uses it now: {meaning}"),
        };
        let words = format!("{what}. Close it: `sysctl -w {key}=0`");
        match used {
            true => Problem::critical(ProblemCode::Hole, None, words),
            false => Problem::info(ProblemCode::Hole, None, words),
        }
    }
}

/// The interfaces that are up; `None` where that cannot be known.
fn interfaces_up() -> Option<BTreeSet<String>> {
    let up = getifaddrs().ok()?.filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP));
    Some(up.map(|interface| interface.interface_name).collect())
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

/// The interfaces that have an address of `pairs`, and those of the interfaces in `asked` that lead to a peer.
fn interfaces_of(pairs: impl Iterator<Item = Pair> + Clone, asked: &[Hole]) -> io::Result<BTreeSet<String>> {
    let own: BTreeSet<_> = pairs.clone().map(|pair| pair.local).collect();
    let (mut names, mut links) = (BTreeSet::new(), Vec::new());
    for interface in getifaddrs()? {
        let link = interface.address.as_ref().and_then(|address| address.as_link_addr());
        let link = link.and_then(|link| u32::try_from(link.ifindex()).ok());
        if ip_of(&interface).is_some_and(|ip| own.contains(&ip)) {
            names.insert(interface.interface_name);
        } else if let Some(index) = link {
            links.push((index, interface.interface_name));
        }
    }
    let asked: BTreeSet<&String> = asked.iter().map(|hole| &hole.interface).collect();
    let mut indexes: Vec<(u32, String)> =
        links.into_iter().filter(|(_, name)| asked.contains(name) && !names.contains(name)).collect();
    if !indexes.is_empty() {
        let mut routes = Routes::open()?;
        for pair in pairs {
            let index = routes.interface(pair)?;
            // Once found, an interface needs no further question.
            if let Some(at) = indexes.iter().position(|(own, _)| Some(*own) == index) {
                names.insert(indexes.swap_remove(at).1);
            }
            if indexes.is_empty() {
                break;
            }
        }
    }
    Ok(names)
}

fn holes_in(root: &Path) -> Vec<Hole> {
    let mut found = Vec::new();
    for of_family in SYSCTLS.chunk_by(|(one, ..), (next, ..)| one == next) {
        let Ok(interfaces) = fs::read_dir(root.join(of_family[0].0).join("conf")) else { continue };
        for interface in interfaces.flatten() {
            let name = interface.file_name().to_string_lossy().into_owned();
            for (family, sysctl, meaning) in of_family.iter().copied() {
                // The kernel sets both of IPv4 for loopback; `default` is for interfaces that do not exist yet.
                let is_usual = name == "default" || (name == "lo" && family == "ipv4");
                if !is_usual && is_set(&interface.path().join(sysctl)) {
                    found.push(Hole { interface: name.clone(), family, sysctl, meaning });
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
    fn holes_are_named_and_loopback_is_none_for_ipv4() {
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
        let said: Vec<String> = holes_in(root.path()).iter().map(|hole| hole.problem(true).message).collect();
        assert_eq!(
            said,
            [
                "every interface is a hole: IPv4 packets are accepted in the clear. Close it: \
                 `sysctl -w net.ipv4.conf.all.disable_policy=0`",
                "interface eth0.7 is a hole: IPv6 packets are accepted in the clear. Close it: \
                 `sysctl -w net/ipv6/conf/eth0.7/disable_policy=0`",
                "interface eth1 is a hole: IPv4 packets leave in the clear. Close it: \
                 `sysctl -w net.ipv4.conf.eth1.disable_xfrm=0`",
                "interface lo is a hole: IPv6 packets are accepted in the clear. Close it: \
                 `sysctl -w net.ipv6.conf.lo.disable_policy=0`",
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

    #[test]
    fn one_that_no_pair_uses_is_no_gap() {
        let hole = Hole { interface: "vti0".into(), family: "ipv4", sysctl: "disable_xfrm", meaning: "x" };
        assert!(hole.problem(true).is_critical() && !hole.problem(false).is_critical());
        assert!(hole.problem(false).message.contains("though no pair uses it now"));
    }
}
