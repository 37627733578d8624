//! What this host forwards for others, in words.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::config::{Config, Forwarded, Node};
use crate::types::units::listed;
use crate::types::{Forwarding, Problem, ProblemCode};

/// The settings that make a host forward, for IPv4 and IPv6.
const SETTINGS: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
/// So many interfaces are named.
const NAMED: usize = 4;

/// What this host would pass on in the clear between its other interfaces and hosts that it is sealed with. Whether it
/// does, nobody counts; that it could is what can be told.
pub fn problem(config: &Config, node: &Node, system: &Forwarding) -> Option<Problem> {
    if config.protection.forwarded == Forwarded::Block || !(system.ipv4 || system.ipv6) {
        return None;
    }
    let pairs = config.pairs(node);
    let has_pairs = |is_ipv4| pairs.iter().any(|(_, pair)| pair.local.is_ipv4() == is_ipv4);
    let on = SETTINGS.into_iter().zip([(true, system.ipv4), (false, system.ipv6)]);
    let on: Vec<&str> =
        on.filter(|(_, (is_ipv4, on))| *on && has_pairs(*is_ipv4)).map(|(setting, _)| setting).collect();
    let own: BTreeSet<IpAddr> = pairs.iter().map(|(_, pair)| pair.local).collect();
    let others = system.interfaces.iter().filter(|(_, addresses)| own.is_disjoint(addresses));
    let others: BTreeSet<String> = others.map(|(name, _)| name.clone()).collect();
    (!on.is_empty() && !others.is_empty()).then(|| words(&on, &others))
}

fn words(settings: &[&str], interfaces: &BTreeSet<String>) -> Problem {
    let message = format!(
        "this host forwards packets ({}) and has other interfaces ({}): what it routes between them and sealed hosts \
         stays in the clear, and what it masquerades is ESP",
        settings.join(", "),
        listed(interfaces, NAMED)
    );
    Problem::warning(ProblemCode::ForwardedClear, None, message)
        .mended_by("protection.forwarded = \"block\" drops both")
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
