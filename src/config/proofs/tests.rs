use std::path::Path;

use super::*;
use crate::config::{ConfigError, ConfigProblem};

/// Public keys of two hosts: RFC 8410 section 10.1, and one on P-256.
pub(crate) const KEYS: [&str; 2] = [
    "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=",
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqg6NyyEcUNLBEOB4W+M+7LNtYBh4XbAAu75ser9j8pA/303RZWe1ui4Fx6pvkQoOf6I9ohOf0Ktrd8sUCpJQVg==",
];

/// A file with these sections in front, and these lines in the entries of nodes a and b.
pub(crate) fn text(head: &str, a: &str, b: &str) -> String {
    format!(
        "cluster = \"demo\"\n{head}[[nodes]]\nname = \"a\"\naddresses = [\"10.99.0.1\", \"fd99::1\"]\n{a}\
         [[nodes]]\nname = \"b\"\naddresses = [\"10.99.0.2\", \"fd99::2\"]\n{b}"
    )
}

pub(crate) fn key(of: usize) -> String {
    format!("public_key = \"{}\"\n", KEYS[of])
}

/// The key of another host as the one from before.
fn previous(of: usize) -> String {
    format!("previous_public_key = \"{}\"\n", KEYS[of])
}

pub(crate) fn parse(head: &str, a: &str, b: &str) -> Config {
    Config::parse(&text(head, a, b), "f.toml").unwrap()
}

fn problems(head: &str, a: &str, b: &str) -> Vec<String> {
    match Config::parse(&text(head, a, b), "f.toml") {
        Err(ConfigError::Invalid { problems, .. }) => problems.iter().map(ConfigProblem::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn hosts_prove_themselves_with_the_secret_unless_the_file_says_otherwise() {
    let config = parse("", "", "");
    assert_eq!(config.auth.accept, [AuthMethod::Secret]);
    assert_eq!(config.auth.private_key, Path::new("/etc/hostseal/key"));
    assert!(config.nodes.iter().all(|node| config.method_of(node) == AuthMethod::Secret));
    let said = parse("[auth]\nmethod = \"secret\"\naccept = [\"secret\"]\nprivate_key = \"/k\"\n", "", "");
    assert_eq!(said.config_id(), config.config_id(), "where the key lies is a host's own matter");
}

#[test]
fn the_steps_of_a_migration() {
    let both = "[auth]\naccept = [\"secret\", \"public_key\"]\n";
    let config = parse(both, &key(0), &key(1));
    assert_eq!(config.method_of(&config.nodes[0]), AuthMethod::Secret);
    assert!(config.uses(AuthMethod::Secret) && config.uses(AuthMethod::PublicKey));
    let by_key = "[auth]\nmethod = \"public_key\"\naccept = [\"secret\", \"public_key\"]\n";
    let config = parse(by_key, &key(0), &key(1));
    assert_eq!(config.method_of(&config.nodes[0]), AuthMethod::PublicKey);
    let alone = "[auth]\nmethod = \"public_key\"\n";
    let config = parse(alone, &key(0), &key(1));
    assert_eq!(config.accepted_from(&config.nodes[1]), [AuthMethod::PublicKey]);
    assert!(!config.uses(AuthMethod::Secret));
    let ids: Vec<String> = [
        ("", "", ""),
        ("", &key(0), ""),
        (both, &key(0), ""),
        (by_key, &key(0), &key(1)),
        (alone, &key(0), &key(1)),
        (alone, &key(1), &key(0)),
        (alone, "auth = \"secret\"\n", &key(0)),
    ]
    .map(|(head, a, b)| parse(head, a, b).config_id())
    .to_vec();
    for (at, id) in ids.iter().enumerate() {
        assert!(!ids[..at].contains(id), "all hosts must agree on this: {at}");
    }
}

#[test]
fn a_node_may_have_a_way_of_its_own() {
    let config = parse("[auth]\nmethod = \"public_key\"\n", &key(0), "auth = \"secret\"\n");
    assert_eq!(config.accepted_from(&config.nodes[0]), [AuthMethod::PublicKey]);
    assert_eq!(config.accepted_from(&config.nodes[1]), [AuthMethod::Secret]);
    assert!(config.uses(AuthMethod::Secret));
}

/// Hosts that accept different keys for a moment still have the same file.
#[test]
fn a_node_that_changes_over_has_two_keys() {
    let one = parse("", &key(0), "");
    let both = parse("", &(key(0) + &previous(1)), "");
    assert_eq!(both.nodes[0].previous_public_key.as_ref().unwrap().to_string(), KEYS[1]);
    assert_eq!(both.config_id(), one.config_id());
    assert_eq!(one.changes(&both), [format!("node a: previous_public_key: {}, was none", KEYS[1])]);
}

#[test]
fn mistakes_have_their_places() {
    let alone = "[auth]\nmethod = \"public_key\"\n";
    for (head, a, b, expected) in [
        (
            "[auth]\nmethod = \"password\"\n",
            "",
            "",
            "3:10: auth.method: must be \"secret\" or \"public_key\"",
        ),
        ("[auth]\nmethod = 1\n", "", "", "3:10: auth.method: must be a string"),
        ("[auth]\naccept = []\n", "", "", "3:10: auth.accept: is empty"),
        ("[auth]\naccept = [\"psk\"]\n", "", "", "3:11: auth.accept[0]: must be"),
        ("[auth]\naccept = [\"public_key\"]\n", "", "", "3:11: auth.accept: \"secret\" is missing"),
        (
            "[auth]\nprivate_key = \"key\"\n",
            "",
            "",
            "3:15: auth.private_key: \"key\" is not an absolute path",
        ),
        ("[auth]\nca = \"ca\"\n", "", "", "3:6: auth.ca: \"ca\" is not an absolute path"),
        ("[auth]\ncrl = 1\n", "", "", "3:7: auth.crl: must be a string"),
        ("[auth]\nkey = \"/k\"\n", "", "", "3:1: auth.key: unknown key; known here: method"),
        ("", "public_key = \"abc\"\n", "", "5:14: nodes[0].public_key: not a public key"),
        ("", "auth = \"key\"\n", "", "5:8: nodes[0].auth: must be"),
        ("", "auth = \"public_key\"\n", "", "2:1: nodes[0].public_key: is missing: `hostseal key show`"),
        (alone, &key(0), "", "8:1: nodes[1].public_key: is missing: `hostseal key show`"),
        (alone, &key(0), &key(0), "11:14: nodes[1].public_key: is already the key of a node, in line 7"),
        (
            alone,
            &key(0),
            &(key(1) + &previous(0)),
            "12:23: nodes[1].previous_public_key: is already the key of a node, in line 7",
        ),
        ("", &previous(0), "", "5:23: nodes[0].previous_public_key: is beside `public_key`"),
    ] {
        let found = problems(head, a, b);
        assert!(found[0].starts_with(expected), "{expected}: {found:#?}");
        assert!(found[0].contains("must be") || found.len() == 1, "{found:#?}");
    }
}
