//! Whether this host forwards packets of others, and between which interfaces.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::config::Forwarded;
use super::host::{ip_of, is_set};
use super::units::listed;
use super::{Config, Node, Problem, ProblemCode};

/// The settings that make a host forward, for IPv4 and IPv6.
const SETTINGS: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
/// So many interfaces are named.
const NAMED: usize = 4;

/// What this host would pass on in the clear between its other interfaces and hosts that it is sealed with. Whether it
/// does, nobody counts; that it could is what can be told.
pub fn problem(config: &Config, node: &Node) -> Option<Problem> {
    if config.protection.forwarded == Forwarded::Block {
        return None;
    }
    let pairs = config.pairs(node);
    let on = |(setting, is_ipv4): &(&str, bool)| {
        pairs.iter().any(|(_, pair)| pair.local.is_ipv4() == *is_ipv4) && is_on(setting)
    };
    let on: Vec<&str> =
        SETTINGS.into_iter().zip([true, false]).filter(on).map(|(setting, _)| setting).collect();
    let own: BTreeSet<IpAddr> = pairs.iter().map(|(_, pair)| pair.local).collect();
    let others = other_interfaces(&own).unwrap_or_default();
    (!on.is_empty() && !others.is_empty()).then(|| words(&on, &others))
}

fn words(settings: &[&str], interfaces: &BTreeSet<String>) -> Problem {
    let message = format!(
        "this host forwards packets ({}) and has other interfaces ({}): what it routes between them and sealed hosts \
         stays in the clear, and what it masquerades is ESP. protection.forwarded = \"block\" drops both",
        settings.join(", "),
        listed(interfaces, NAMED)
    );
    Problem::warning(ProblemCode::ForwardedClear, None, message)
}

/// Whether a setting of this network namespace is on.
fn is_on(setting: &str) -> bool {
    is_set(&Path::new("/proc/sys").join(setting.replace('.', "/")))
}

/// Interfaces that are up and have none of `own`: without loopback, and without those that are part of another one, such
/// as a bridge's.
fn other_interfaces(own: &BTreeSet<IpAddr>) -> io::Result<BTreeSet<String>> {
    let mut up = BTreeSet::new();
    let mut carriers = BTreeSet::new();
    for interface in getifaddrs()? {
        if ip_of(&interface).is_some_and(|address| own.contains(&address)) {
            carriers.insert(interface.interface_name.clone());
        }
        let flags = interface.flags;
        if flags.contains(InterfaceFlags::IFF_UP) && !flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            up.insert(interface.interface_name);
        }
    }
    let is_part = |name: &String| Path::new("/sys/class/net").join(name).join("master").exists();
    Ok(up.into_iter().filter(|name| !carriers.contains(name) && !is_part(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_some_interfaces_and_counts_the_rest() {
        let interfaces: BTreeSet<String> = (0..6).map(|number| format!("veth{number}")).collect();
        let message = words(&SETTINGS[..1], &interfaces).message;
        assert!(message.contains("(veth0, veth1, veth2, veth3 and 2 more)"), "{message}");
        let message = words(&SETTINGS[..1], &BTreeSet::from(["docker0".to_owned()])).message;
        assert!(message.contains("(docker0)"), "{message}");
    }
}
