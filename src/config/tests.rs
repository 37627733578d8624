use proptest::prelude::*;

use super::*;

/// A whole file; `NODES` alone makes a valid one with `cluster`.
const NODES: &str = r#"
[[nodes]]
name = "a"
addresses = ["10.99.0.1", "fd99::1"]
[[nodes]]
name = "b"
addresses = ["10.99.0.2", "fd99::2"]
"#;

fn parse(head: &str) -> Result<Config, ConfigError> {
    Config::parse(&format!("cluster = \"demo\"\n{head}{NODES}"), "f.toml")
}

/// The problems of a text as `line:column: key: message`.
fn problems(text: &str) -> Vec<String> {
    match Config::parse(text, "f.toml") {
        Err(ConfigError::Invalid { problems, .. }) => problems.iter().map(ConfigProblem::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.cluster, "demo");
    assert_eq!(config.node, None);
    assert_eq!(config.socket_path(), Path::new("/run/hostseal/hostseal.sock"));
    assert_eq!(config.state_path(), Path::new("/var/lib/hostseal/state.json"));
    assert_eq!(config.secret.file, Path::new("/etc/hostseal/secret"));
    assert_eq!(config.secret.previous_file, None);
    let hour = Duration::from_secs(3600);
    assert_eq!(
        config.keying,
        Keying {
            method: Method::Ike,
            accept: vec![Method::Ike],
            port: 500,
            nat_port: 4500,
            rekey_after: hour,
            rekey_bytes: None,
            rekey_packets: None,
            expire_after: hour * 24,
            proposals: Proposals::default(),
        }
    );
    let (proposals, encapsulation) = (Proposals::of_key_bits(256), EncapsulationMode::Auto);
    assert_eq!(config.esp, Esp { proposals, replay_window: 4096, encapsulation });
    assert!(config.protection.allow_peer_disable);
    assert_eq!(config.protection.exempt, []);
    assert_eq!(config.protection.networks, None);
}

#[test]
fn everything_said() {
    let config = parse(
        r#"
node = "b"
run_dir = "/run/h"
state_dir = "/var/h"
[secret]
file = "/etc/s"
previous_file = "/etc/s.old"
[keying]
method = "ike"
port = 5000
nat_port = 5001
rekey_after = "90s"
rekey_bytes = "64GiB"
rekey_packets = 1_000
expire_after = "2h"
[esp]
key_bits = 128
replay_window = 32
encapsulation = "never"
[protection]
mode = "prefer"
exempt = ["tcp/22", "udp/6000-6010", "icmp"]
networks = ["10.99.0.0/16"]
allow_peer_disable = false
"#,
    )
    .unwrap();
    assert_eq!(config.node.as_ref().map(NodeName::as_str), Some("b"));
    assert_eq!(config.secret.previous_file.as_deref(), Some(Path::new("/etc/s.old")));
    assert_eq!((config.keying.port, config.keying.nat_port), (5000, 5001));
    assert_eq!(config.keying.rekey_after, Duration::from_secs(90));
    assert_eq!((config.keying.rekey_bytes, config.keying.rekey_packets), (Some(64 << 30), Some(1000)));
    let (proposals, encapsulation) = (Proposals::of_key_bits(128), EncapsulationMode::Never);
    assert_eq!(config.esp, Esp { proposals, replay_window: 32, encapsulation });
    assert_eq!(config.protection.mode, Mode::Prefer);
    assert_eq!(config.protection.exempt.len(), 3);
    assert_eq!(config.pairs(&config.nodes[1]).len(), 1, "only IPv4 is inside the network");
    assert!(!config.protection.allow_peer_disable);
}

/// Every kind of mistake in one key: what is put in front of the nodes (from line 2 on), the place of the
/// mistake, its key, and a part of the message.
#[rustfmt::skip]
const MISTAKES: &[(&str, usize, usize, &str, &str)] = &[
    ("colour = 1\n", 2, 1, "colour", "unknown key; known here: cluster, node, run_dir"),
    ("[keyring]\n", 2, 2, "keyring", "unknown key"),
    ("[keying]\nports = 500\n", 3, 1, "keying.ports", "unknown key; known here: method, accept, port"),
    ("node = \"c\"\n", 2, 8, "node", "there is no node \"c\""),
    ("node = 5\n", 2, 8, "node", "must be a string, not a number"),
    ("run_dir = \"run\"\n", 2, 11, "run_dir", "not an absolute path"),
    ("run_dir = \"\"\n", 2, 11, "run_dir", "is empty"),
    ("state_dir = true\n", 2, 13, "state_dir", "must be a string"),
    ("secret = \"x\"\n", 2, 10, "secret", "must be a table, not a string"),
    ("[secret]\nfile = \"secret\"\n", 3, 8, "secret.file", "not an absolute path"),
    ("[secret]\nprevious_file = 1\n", 3, 17, "secret.previous_file", "must be a string"),
    ("[keying]\nmethod = \"magic\"\n", 3, 10, "keying.method", "must be \"ike\" or \"derived\", not \"magic\""),
    ("[keying]\naccept = []\n", 3, 10, "keying.accept", "is empty: leave it out for keying.method alone"),
    ("[keying]\naccept = [\"magic\"]\n", 3, 11, "keying.accept[0]", "must be \"ike\" or \"derived\""),
    ("[keying]\naccept = [\"derived\"]\n", 3, 11, "keying.accept", "\"ike\" is missing, and it is how the hosts make keys"),
    ("[auth]\nmethod = \"certificate\"\n[keying]\nmethod = \"derived\"\n", 5, 10, "keying.method", "auth.method must be \"secret\", not \"certificate\""),
    ("[auth]\nmethod = \"certificate\"\n[keying]\naccept = [\"ike\", \"derived\"]\n", 5, 18, "keying.accept[1]", "auth.method must be \"secret\""),
    ("[keying]\nmethod = \"derived\"\n[[nodes]]\nname = \"c\"\naddresses = [\"10.99.0.9\"]\nauth = \"certificate\"\n", 7, 8, "nodes[0].auth", "can be proven with it alone"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"192.0.2.9\"]\ninside = \"10.0.0.9\"\n", 5, 10, "nodes[0].inside", "must be a table, not a string"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"192.0.2.9\"]\ninside = { x = \"10.0.0.9\" }\n", 5, 12, "nodes[0].inside.\"x\"", "is not an IPv4 or IPv6 address"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"192.0.2.9\"]\ninside = { \"192.0.2.9\" = 9 }\n", 5, 26, "nodes[0].inside.\"192.0.2.9\"", "must be a string, not a number"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"192.0.2.9\"]\ninside = { \"192.0.2.8\" = \"10.0.0.9\" }\n", 5, 12, "nodes[0].inside.\"192.0.2.8\"", "192.0.2.8 is not among the addresses of this node"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"192.0.2.9\"]\ninside = { \"192.0.2.9\" = \"192.0.2.9\" }\n", 5, 26, "nodes[0].inside.\"192.0.2.9\"", "is the listed address itself: leave it out"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"192.0.2.9\"]\ninside = { \"192.0.2.9\" = \"fd00::9\" }\n", 5, 26, "nodes[0].inside.\"192.0.2.9\"", "are of different families"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"192.0.2.8\", \"192.0.2.9\"]\ninside = { \"192.0.2.8\" = \"10.0.0.9\", \"192.0.2.9\" = \"10.0.0.9\" }\n", 5, 52, "nodes[0].inside.\"192.0.2.9\"", "is already the inside address of another"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"192.0.2.9\"]\ninside = { \"192.0.2.9\" = \"10.99.0.2\" }\n", 5, 26, "nodes[0].inside.\"192.0.2.9\"", "10.99.0.2 is an address that others send to, in line 12"),
    ("[esp]\nencapsulation = \"never\"\n[[nodes]]\nname = \"c\"\naddresses = [\"192.0.2.9\"]\ninside = { \"192.0.2.9\" = \"10.0.0.9\" }\n", 7, 12, "nodes[0].inside.\"192.0.2.9\"", "ESP gets in UDP alone"),
    ("[keying]\nport = 0\n", 3, 8, "keying.port", "must be 1 to 65535, not 0"),
    ("[keying]\nport = 65536\n", 3, 8, "keying.port", "must be 1 to 65535, not 65536"),
    ("[keying]\nport = -1\n", 3, 8, "keying.port", "not -1"),
    ("[keying]\nport = \"500\"\n", 3, 8, "keying.port", "must be a number, not a string"),
    ("[keying]\nport = 500.0\n", 3, 8, "keying.port", "must be a number, not a fraction"),
    ("[keying]\nnat_port = 500\n", 3, 12, "keying.nat_port", "are both 500"),
    ("[keying]\nport = 4500\n", 3, 8, "keying.port", "are both 4500"),
    ("[esp]\nencapsulation = \"udp\"\n", 3, 17, "esp.encapsulation", "must be \"auto\", \"always\" or \"never\", not \"udp\""),
    ("[keying]\nrekey_after = \"soon\"\n", 3, 15, "keying.rekey_after", "\"soon\" is not a duration"),
    ("[keying]\nrekey_after = 3600\n", 3, 15, "keying.rekey_after", "must be a string, not a number, such as"),
    ("[keying]\nrekey_after = \"0s\"\n", 3, 15, "keying.rekey_after", "no time at all"),
    ("[keying]\nrekey_after = \"25h\"\n", 3, 15, "keying.rekey_after", "must be more than rekey_after (1d 1h)"),
    ("[keying]\nexpire_after = \"1h\"\n", 3, 16, "keying.expire_after", "must be more than rekey_after (1h)"),
    ("[keying]\nrekey_bytes = \"many\"\n", 3, 15, "keying.rekey_bytes", "not a size"),
    ("[keying]\nrekey_bytes = 0\n", 3, 15, "keying.rekey_bytes", "must be at least 1, not 0"),
    ("[keying]\nrekey_packets = \"5\"\n", 3, 17, "keying.rekey_packets", "must be a number"),
    ("[esp]\nkey_bits = 192\n", 3, 12, "esp.key_bits", "must be 128 or 256, not 192"),
    ("[keying]\nproposals = \"aes256gcm16-prfsha384-x25519\"\n", 3, 13, "keying.proposals", "must be a list, not a string"),
    ("[keying]\nproposals = []\n", 3, 13, "keying.proposals", "nothing could be agreed on"),
    ("[keying]\nproposals = [\"aes256gcm16-prfsha384-x25519\", \"3des-sha1-modp1024\"]\n", 3, 46, "keying.proposals[1]", "\"3des\" in \"3des-sha1-modp1024\" is not known here; known: aes256gcm16"),
    ("[keying]\nproposals = [\"aes256-ecp256\"]\n", 3, 14, "keying.proposals[0]", "names no integrity: add one of sha256, sha384"),
    ("[esp]\nproposals = [\"aes256gcm16-modp2048\"]\n", 3, 14, "esp.proposals[0]", "known: aes256gcm16, aes128gcm16, x25519, curve25519, ecp256, ecp384, ke1_mlkem768, esn, noesn"),
    ("[esp]\nproposals = [\"aes256gcm16-ke1_mlkem768\"]\n", 3, 14, "esp.proposals[0]", "names no group"),
    ("[esp]\nproposals = [\"aes256gcm16\"]\nkey_bits = 128\n", 4, 12, "esp.key_bits", "128 is not what proposals says (aes256gcm16-esn-noesn)"),
    ("[esp]\nkey_bits = 256\nproposals = [\"aes256gcm16\", \"aes128gcm16\"]\n", 3, 12, "esp.key_bits", "leave key_bits out"),
    ("[esp]\nreplay_window = 31\n", 3, 17, "esp.replay_window", "must be 32 to 4096, not 31"),
    ("[esp]\nreplay_window = 4097\n", 3, 17, "esp.replay_window", "must be 32 to 4096, not 4097"),
    ("[protection]\nmode = \"strict\"\n", 3, 8, "protection.mode", "must be \"require\" or \"prefer\""),
    ("[protection]\nexempt = \"tcp/22\"\n", 3, 10, "protection.exempt", "must be a list, not a string"),
    ("[protection]\nexempt = [\"tcp/22\", \"ssh\"]\n", 3, 21, "protection.exempt[1]", "not an exemption"),
    ("[protection]\nexempt = [\"tcp/22\",\n  \"tcp/20-25\"]\n", 4, 3, "protection.exempt[1]", "overlaps \"tcp/22\""),
    ("[protection]\nexempt = [{ port = \"tcp/22\" }]\n", 3, 11, "protection.exempt[0]", "served_by is missing"),
    ("[protection]\nexempt = [{ served_by = [\"a\"] }]\n", 3, 11, "protection.exempt[0]", "port is missing"),
    ("[protection]\nexempt = [{ port = \"tcp/22\", served_by = [\"z\"] }]\n", 3, 11, "protection.exempt[0]", "no node \"z\""),
    ("[protection]\nexempt = [{ port = \"tcp/22\", served_by = [] }]\n", 3, 11, "protection.exempt[0]", "served_by is empty"),
    ("[protection]\nexempt = [{ port = \"tcp/22\", served_by = \"a\" }]\n", 3, 11, "protection.exempt[0]", "must be a list"),
    ("[protection]\nexempt = [{ port = \"icmp\", served_by = [\"a\"] }]\n", 3, 11, "protection.exempt[0]", "has no server"),
    ("[protection]\nexempt = [{ port = \"tcp/22\", by = [\"a\"] }]\n", 3, 11, "protection.exempt[0]", "unknown key \"by\""),
    ("[protection]\nexempt = [22]\n", 3, 11, "protection.exempt[0]", "must be a string, not a number"),
    ("[protection]\nnetworks = []\n", 3, 12, "protection.networks", "nothing would be protected"),
    ("[protection]\nnetworks = [\"10.0.0.0\"]\n", 3, 13, "protection.networks[0]", "is not a network"),
    ("[protection]\nnetworks = [\"10.0.0.0/33\"]\n", 3, 13, "protection.networks[0]", "is not a network"),
    ("[protection]\nnetworks = [\"10.0.0.1/8\"]\n", 3, 13, "protection.networks[0]", "\"10.0.0.0/8\" is meant"),
    ("[protection]\nallow_peer_disable = \"no\"\n", 3, 22, "protection.allow_peer_disable", "must be true or false"),
    ("[protection]\nforwarded = \"drop\"\n", 3, 13, "protection.forwarded", "must be \"leave\" or \"block\""),
    ("[protection]\nblocked = [\"10.99.0.1\"]\n", 3, 12, "protection.blocked[0]", "an address of the node a"),
    ("[protection]\nblocked = [\"x\"]\n", 3, 12, "protection.blocked[0]", "is not an IPv4 or IPv6 address"),
    ("[[nodes]]\nname = \"a\"\naddresses = [\"10.99.0.9\"]\n", 7, 8, "nodes[1].name", "another node \"a\", in line 3"),
    ("[[nodes]]\nname = \"x y\"\naddresses = [\"10.99.0.9\"]\n", 3, 8, "nodes[0].name", "is not a name"),
    ("[[nodes]]\nname = \"c\"\n", 2, 1, "nodes[0].addresses", "is missing"),
    ("[[nodes]]\naddresses = [\"10.99.0.9\"]\n", 2, 1, "nodes[0].name", "is missing"),
    ("[[nodes]]\nname = \"c\"\naddresses = []\n", 4, 13, "nodes[0].addresses", "is empty"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"10.99.0.2\"]\n", 11, 14, "nodes[2].addresses[0]", "already an address of a node, in line 4"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"host.example\"]\n", 4, 14, "nodes[0].addresses[0]", "not an IPv4 or IPv6 address"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"0.0.0.0\"]\n", 4, 14, "nodes[0].addresses[0]", "no address at all"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"::\"]\n", 4, 14, "nodes[0].addresses[0]", "no address at all"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"127.0.0.2\"]\n", 4, 14, "nodes[0].addresses[0]", "loopback"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"224.0.0.1\"]\n", 4, 14, "nodes[0].addresses[0]", "multicast"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"ff02::1\"]\n", 4, 14, "nodes[0].addresses[0]", "multicast"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"255.255.255.255\"]\n", 4, 14, "nodes[0].addresses[0]", "broadcast"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"fe80::1\"]\n", 4, 14, "nodes[0].addresses[0]", "link-local"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"::ffff:1.2.3.4\"]\n", 4, 14, "nodes[0].addresses[0]", "write it as one"),
    ("[[nodes]]\nname = \"c\"\naddresses = [\"10.99.0.9\"]\nport = 5\n", 5, 1, "nodes[0].port", "unknown key; known here: name, addresses"),
    ("port = 5 6\n", 2, 8, "", "string values must be quoted"),
    ("x = \"a\n", 2, 7, "", ""),
];

#[test]
fn every_mistake_has_its_place_and_its_key() {
    for (head, line, column, key, message) in MISTAKES {
        let Err(ConfigError::Invalid { problems, .. }) = parse(head) else { panic!("{head} was accepted") };
        let first = &problems[0];
        let place = (first.line, first.column, first.key.as_str());
        assert_eq!(place, (*line, *column, *key), "{head}: {first}");
        assert!(first.message.contains(message), "{head}: {first}");
        if !key.is_empty() {
            assert_eq!(problems.len(), 1, "{head}: {problems:?}");
        }
    }
}

#[test]
fn missing_things_and_several_mistakes_are_shown_at_once() {
    assert_eq!(
        problems(""),
        [
            "1:1: cluster: is missing",
            "1:1: nodes: is missing: every host is a [[nodes]] with name and addresses"
        ]
    );
    let text = "cluster = \"a b\"\nnodes = 5\n[esp]\nkey_bits = 1\nx = 1\n";
    let found = problems(text);
    assert_eq!(found.len(), 5, "{found:#?}");
    let longer = format!("run_dir = \"/{}\"\ncluster = \"c\"\n{NODES}", "x".repeat(93));
    assert!(problems(&longer)[0].contains("1:11: run_dir: is too long for a socket"));
    assert!(Config::parse(&longer.replacen('x', "", 1), "f").is_ok(), "107 bytes are allowed");
}

#[test]
fn proposals_and_the_short_way() {
    let config = parse(
        "[keying]\nproposals = [\"aes128gcm16-prfsha256-ecp256\", \"aes256-sha256-ecp384\"]\n\
         [esp]\nkey_bits = 128\nproposals = [\"aes128gcm16-esn\"]\n",
    )
    .unwrap();
    let ike = "aes128gcm16-prfsha256-ecp256, aes256-sha256-prfsha256-ecp384";
    assert_eq!(config.keying.proposals.to_string(), ike);
    assert_eq!(config.esp.proposals.to_string(), "aes128gcm16-esn");
    let many = |count| format!("[esp]\nproposals = [{}]\n", "\"aes256gcm16\", ".repeat(count));
    assert!(parse(&many(16)).is_ok());
    let error = parse(&many(17)).unwrap_err().to_string();
    assert!(error.contains("3:13: esp.proposals: has 17 of them: 16 at most"), "{error}");
}

#[test]
fn errors_show_the_line() {
    let error = parse("[keying]\n\tport = 0 # höchst\n").unwrap_err().to_string();
    assert_eq!(
        error,
        "f.toml:3:9: keying.port: must be 1 to 65535, not 0\n  |\n3 | \tport = 0 # höchst\n  | \t       ^"
    );
    let error = crate::store::config_file::load(Path::new("/nowhere/f.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/f.toml: cannot be read: No such file"), "{error}");
    assert!(error.contains("hostseal config new"), "{error}");
}

#[test]
fn who_am_i() {
    let config = parse("").unwrap();
    let own = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
    let name = |result: Result<&Node, WhoamiError>| result.map(|node| node.name.to_string());
    assert_eq!(name(config.whoami(&own(&["192.0.2.1", "fd99::2"]), None, None)).as_deref(), Ok("b"));
    assert_eq!(name(config.whoami(&[], Some("a"), None)).as_deref(), Ok("a"));
    let remembered = config.nodes[1].name.clone();
    assert_eq!(name(config.whoami(&[], None, Some(&remembered))).as_deref(), Ok("b"), "no address yet");
    assert_eq!(name(config.whoami(&own(&["10.99.0.1"]), None, Some(&remembered))).as_deref(), Ok("a"));

    let error = config.whoami(&own(&["192.0.2.1"]), None, None).unwrap_err().to_string();
    for part in ["192.0.2.1", "a (10.99.0.1, fd99::1), b (10.99.0.2, fd99::2)", "$HOSTSEAL_NODE"] {
        assert!(error.contains(part), "{error}");
    }
    let error = config.whoami(&own(&["10.99.0.1", "10.99.0.2"]), None, None).unwrap_err().to_string();
    assert!(error.contains("several nodes: a (10.99.0.1, fd99::1), b"), "{error}");
    let error = config.whoami(&[], Some("z"), None).unwrap_err().to_string();
    assert!(error.contains("\"z\"") && error.contains("a, b"), "{error}");

    let config = parse("node = \"b\"\n").unwrap();
    assert_eq!(name(config.whoami(&own(&["10.99.0.1"]), None, None)).as_deref(), Ok("b"), "the file says so");
    assert_eq!(name(config.whoami(&[], Some("a"), None)).as_deref(), Ok("a"), "the environment goes first");
}

#[test]
fn pairs_are_of_one_family() {
    let config = parse("").unwrap();
    let pairs: Vec<String> =
        config.pairs(&config.nodes[0]).iter().map(|(name, pair)| format!("{name} {pair}")).collect();
    assert_eq!(pairs, ["b 10.99.0.1 <-> 10.99.0.2", "b fd99::1 <-> fd99::2"]);
}

const THREE: &str = "cluster = \"demo\"\n[[nodes]]\nname = \"a\"\naddresses = [\"10.99.0.1\", \"fd99::1\"]\n\
                     [[nodes]]\nname = \"b\"\naddresses = [\"10.99.0.2\"]\n\
                     [[nodes]]\nname = \"c\"\naddresses = [\"10.99.0.3\"]\n";
const VIP: &str = "[[floating]]\nname = \"db\"\naddresses = [\"10.99.0.9\"]\nnodes = [\"a\", \"c\"]\n";

#[test]
fn an_address_that_floats_makes_pairs_on_each_host_and_is_at_one() {
    let config = Config::parse(&format!("{THREE}{VIP}"), "f").unwrap();
    let [a, b, c] = [0, 1, 2].map(|at| &config.nodes[at]);
    let pairs = |node, present: &[&str]| {
        let present = present.iter().map(|address| address.parse().unwrap()).collect();
        let pairs = config.pairs(node).into_iter().filter(|(_, pair)| !config.is_away(*pair, &present));
        pairs.map(|(name, pair)| format!("{name} {pair}")).collect::<Vec<_>>()
    };
    assert_eq!(
        pairs(b, &["10.99.0.2"]),
        ["a 10.99.0.2 <-> 10.99.0.1", "c 10.99.0.2 <-> 10.99.0.3", "db 10.99.0.2 <-> 10.99.0.9"]
    );
    assert_eq!(
        pairs(a, &["10.99.0.1"]),
        ["b 10.99.0.1 <-> 10.99.0.2", "c 10.99.0.1 <-> 10.99.0.3", "db 10.99.0.1 <-> 10.99.0.9"]
    );
    assert_eq!(
        pairs(a, &["10.99.0.1", "10.99.0.9"]),
        [
            "b 10.99.0.1 <-> 10.99.0.2",
            "c 10.99.0.1 <-> 10.99.0.3",
            "b 10.99.0.9 <-> 10.99.0.2",
            "c 10.99.0.9 <-> 10.99.0.3"
        ]
    );
    assert_eq!(config.floating_at(b).count(), 0);
    assert_eq!(config.floating_at(c).map(|it| it.to_string()).collect::<Vec<_>>(), ["10.99.0.9"]);
    // It says nothing about who this host is.
    assert!(config.whoami(&["10.99.0.9".parse().unwrap()], None, None).is_err());
}

#[test]
fn all_hosts_must_agree_on_what_floats() {
    let [without, with] = ["", VIP].map(|more| Config::parse(&format!("{THREE}{more}"), "f").unwrap());
    assert_ne!(without.config_id(), with.config_id());
    let turned = VIP.replace("[\"a\", \"c\"]", "[\"c\", \"a\"]");
    assert_eq!(Config::parse(&format!("{THREE}{turned}"), "f").unwrap().config_id(), with.config_id());
    assert_eq!(without.changes(&with), ["floating db comes (10.99.0.9 at a, c)"]);
    assert_eq!(with.changes(&without), ["floating db goes (10.99.0.9 at a, c)"]);
    let other = Config::parse(&format!("{THREE}{}", VIP.replace("\"c\"", "\"b\"")), "f").unwrap();
    assert_eq!(with.changes(&other), ["floating db: 10.99.0.9 at a, b, was 10.99.0.9 at a, c"]);
}

#[test]
fn what_is_wrong_with_what_floats_is_named() {
    for (text, line, key, message) in [
        (VIP.replace("db", "a"), 12, "floating[0].name", "there is another node \"a\", in line 3"),
        (
            VIP.replace("0.9\"", "0.2\""),
            13,
            "floating[0].addresses[0]",
            "is already an address of a node, in line 7",
        ),
        (VIP.replace("\"c\"", "\"d\""), 14, "floating[0].nodes[1]", "there is no node \"d\""),
        (VIP.replace("\"c\"", "\"a\""), 14, "floating[0].nodes[1]", "\"a\" is listed twice"),
        (VIP.replace(", \"c\"", ""), 14, "floating[0].nodes[0]", "one node alone: list the addresses at"),
        (VIP.replace("nodes", "at"), 11, "floating[0].nodes", "is missing"),
        (VIP.replace("[\"10.99.0.9\"]", "[]"), 13, "floating[0].addresses", "is empty"),
    ] {
        let Err(ConfigError::Invalid { problems, .. }) = Config::parse(&format!("{THREE}{text}"), "f") else {
            panic!("{text}");
        };
        let found = problems.iter().find(|problem| problem.key == key);
        let found = found.unwrap_or_else(|| panic!("{key} in {problems:?}"));
        assert_eq!(found.line, line, "{found}");
        assert!(found.message.contains(message), "{found}");
    }
}

/// Its own interfaces have other addresses than the ones that others send to; what all agree on is the listed ones.
#[test]
fn a_host_behind_a_nat_has_other_addresses_itself() {
    const INSIDE: &str = "inside = { \"10.99.0.2\" = \"192.168.1.7\" }\n";
    let text = |more: &str| format!("cluster = \"demo\"\n{NODES}{more}");
    let plain = Config::parse(&text(""), "f").unwrap();
    let config = Config::parse(&text(INSIDE), "f").unwrap();
    let [a, b] = [&config.nodes[0], &config.nodes[1]];
    let own = |address: &str| vec![address.parse().unwrap()];
    assert_eq!(config.whoami(&own("192.168.1.7"), None, None).unwrap().name, b.name);
    let error = config.whoami(&own("10.99.0.2"), None, None).unwrap_err().to_string();
    assert!(error.contains("b (10.99.0.2 for 192.168.1.7 inside, fd99::2)"), "{error}");
    let pairs = |node| config.pairs(node).iter().map(|(_, pair)| pair.to_string()).collect::<Vec<_>>();
    assert_eq!(pairs(b), ["192.168.1.7 <-> 10.99.0.1", "fd99::2 <-> fd99::1"]);
    assert_eq!(pairs(a), ["10.99.0.1 <-> 10.99.0.2", "fd99::1 <-> fd99::2"]);
    assert_eq!(b.own_addresses().map(|it| it.to_string()).collect::<Vec<_>>(), ["192.168.1.7", "fd99::2"]);
    assert_ne!(config.config_id(), plain.config_id());
    assert_eq!(
        plain.changes(&config),
        ["node b: 10.99.0.2 for 192.168.1.7 inside, fd99::2, was 10.99.0.2, fd99::2"]
    );
    let networks = "[protection]\nnetworks = [\"10.99.0.0/16\"]\n";
    let within = Config::parse(&text(&format!("{INSIDE}{networks}")), "f").unwrap();
    assert_eq!(within.pairs(&within.nodes[1]).len(), 1, "networks are of listed addresses");
    // Another site may have the same addresses inside.
    let third = "[[nodes]]\nname = \"c\"\naddresses = [\"192.0.2.3\"]\ninside = { \"192.0.2.3\" = \"192.168.1.7\" }\n";
    let both = Config::parse(&text(&format!("{INSIDE}{third}")), "f").unwrap();
    let error = both.whoami(&own("192.168.1.7"), None, None).unwrap_err().to_string();
    assert!(error.contains("several nodes: b") && error.contains("$HOSTSEAL_NODE"), "{error}");
}

#[test]
fn the_id_follows_what_the_hosts_must_agree_on() {
    let id = parse("").unwrap().config_id();
    assert_eq!(id.len(), 16);
    let local = "node = \"a\"\nrun_dir = \"/r\"\nstate_dir = \"/s\"\n[secret]\nfile = \"/x\"\n";
    assert_eq!(parse(local).unwrap().config_id(), id, "local keys");
    assert_eq!(parse("[keying]\nport = 500 # as ever\n").unwrap().config_id(), id, "a default said aloud");
    let long = "[esp]\nproposals = [\"aes256gcm16\", \"aes256gcm16-x25519-ecp384-ecp256-ke1_mlkem768\", \
                \"aes256gcm16-x25519-ecp384-ecp256\"]\n";
    assert_eq!(parse(long).unwrap().config_id(), id, "the long way to say the short one");
    let swapped = format!(
        "cluster = \"demo\"\n{}",
        NODES.replace("[\"10.99.0.1\", \"fd99::1\"]", "[\"fd99::1\", \"10.99.0.1\"]")
    );
    assert_eq!(Config::parse(&swapped, "f").unwrap().config_id(), id, "another order");

    for different in [
        "[keying]\nport = 501\n",
        "[keying]\nmethod = \"derived\"\n",
        "[keying]\naccept = [\"ike\", \"derived\"]\n",
        "[keying]\nrekey_after = \"2h\"\n",
        "[keying]\nrekey_bytes = 5\n",
        "[keying]\nrekey_packets = 5\n",
        "[keying]\nexpire_after = \"25h\"\n",
        "[keying]\nproposals = [\"aes256gcm16-prfsha384-x25519\"]\n",
        "[esp]\nkey_bits = 128\n",
        "[esp]\nproposals = [\"aes256gcm16-esn\"]\n",
        "[esp]\nreplay_window = 64\n",
        "[protection]\nexempt = [\"icmp\"]\n",
        "[protection]\nnetworks = [\"10.0.0.0/8\"]\n",
        "[protection]\nallow_peer_disable = false\n",
        "[protection]\nforwarded = \"block\"\n",
        "[protection]\nblocked = [\"10.99.0.99\"]\n",
        "[[nodes]]\nname = \"c\"\naddresses = [\"10.99.0.3\"]\n",
    ] {
        assert_ne!(parse(different).unwrap().config_id(), id, "{different}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]
    #[test]
    fn no_text_can_do_harm(text in "[a-z0-9=\\[\\]\"'., #\\n\\\\{}ö\\t-]{0,80}") {
        if let Err(ConfigError::Invalid { problems, .. }) = Config::parse(&text, "f") {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.iter().all(|problem| problem.line >= 1 && problem.column >= 1));
        }
    }

    #[test]
    fn a_mutated_file_is_valid_or_refused_with_a_place(at in 0usize..10_000, put in "[ -~\\n]{0,3}") {
        let text = format!("cluster = \"demo\"\n[keying]\nport = 500\nrekey_after = \"1h\"\n{NODES}");
        let (head, tail) = text.split_at(at % text.len());
        let mutated = format!("{head}{put}{}", tail.get(1..).unwrap_or_default());
        let lines = mutated.matches('\n').count() + 1;
        match Config::parse(&mutated, "f") {
            Ok(config) => prop_assert!(!config.nodes.is_empty() && config.keying.port > 0),
            Err(error @ ConfigError::Invalid { .. }) => {
                let shown = error.to_string();
                let ConfigError::Invalid { problems, .. } = error else { unreachable!() };
                prop_assert!(problems.iter().all(|problem| problem.line <= lines), "{}", shown);
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}

#[test]
fn deep_nesting_is_refused() {
    for text in [format!("x = {}", "[".repeat(100_000)), format!("x{} = 1", ".x".repeat(100_000))] {
        assert!(Config::parse(&text, "f").is_err());
    }
}
