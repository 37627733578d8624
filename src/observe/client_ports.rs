//! Exempt connections whose client's end is not exempt: an exemption covers the client's ports from 32768 up.

use crate::config::{Config, Mode, Node};
use crate::types::exempt::FIRST_FAR_PORT;
use crate::types::{Exemption, Problem, ProblemCode};

/// A warning where connections of this host begin at ports from `first` up, which are not all exempt.
pub fn problem(config: &Config, node: &Node, first: u16) -> Option<Problem> {
    if first >= FIRST_FAR_PORT || config.protection.mode != Mode::Require {
        return None;
    }
    // Where this host alone serves, it is no client.
    let only_here = |exemption: &Exemption| {
        exemption.served_by.as_ref().is_some_and(|names| names.iter().all(|name| *name == node.name))
    };
    let exempt = config.protection.exempt.iter();
    let exempt = exempt.filter(|exemption| exemption.ports.is_some() && !only_here(exemption));
    let exempt: Vec<String> = exempt.map(ToString::to_string).collect();
    if exempt.is_empty() {
        return None;
    }
    let message = format!(
        "connections of this host begin at port {first} and up (net.ipv4.ip_local_port_range): exempt ones ({}) from \
         ports below {FIRST_FAR_PORT} are dropped",
        exempt.join(", ")
    );
    let fix = format!("Set net.ipv4.ip_local_port_range to \"{FIRST_FAR_PORT} 60999\"");
    Some(Problem::warning(ProblemCode::ClientPorts, None, message).mended_by(fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(protection: &str, first: u16) -> Option<String> {
        let text = format!(
            "cluster = \"x\"\n[secret]\nfile = \"/s\"\n[protection]\n{protection}\n\
             [[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n\
             [[nodes]]\nname = \"b\"\naddresses = [\"10.0.0.2\"]\n"
        );
        let config = Config::parse(&text, "file").unwrap();
        problem(&config, config.node_named("a").unwrap(), first).map(|problem| problem.message)
    }

    #[test]
    fn a_range_that_begins_too_low_is_named_where_it_matters() {
        let words = told("exempt = [\"tcp/22\", \"icmp\"]", 1024).unwrap();
        assert!(words.contains("begin at port 1024 and up"), "{words}");
        assert!(words.contains("exempt ones (tcp/22) from ports below 32768 are dropped"), "{words}");
        assert_eq!(told("exempt = [\"tcp/22\"]", 32768), None);
        assert_eq!(told("exempt = [\"icmp\"]", 1024), None, "it has no ports");
        assert_eq!(told("", 1024), None);
        assert_eq!(told("mode = \"prefer\"\nexempt = [\"tcp/22\"]", 1024), None, "nothing is dropped");
        let served = |by: &str| format!("exempt = [{{ port = \"tcp/22\", served_by = [{by}] }}]");
        assert_eq!(told(&served("\"a\""), 1024), None, "this host is no client");
        assert!(told(&served("\"a\", \"b\""), 1024).is_some());
    }
}
