use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::config::{ConfigError, Problem};
use crate::identity::KeyKind;
use crate::identity::certificate::tests::{Ca, NOW};

/// Public keys of two hosts: RFC 8410 section 10.1, and one on P-256.
const KEYS: [&str; 2] = [
    "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=",
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqg6NyyEcUNLBEOB4W+M+7LNtYBh4XbAAu75ser9j8pA/303RZWe1ui4Fx6pvkQoOf6I9ohOf0Ktrd8sUCpJQVg==",
];

/// A file with these sections in front, and these lines in the entries of nodes a and b.
fn text(head: &str, a: &str, b: &str) -> String {
    format!(
        "cluster = \"demo\"\n{head}[[nodes]]\nname = \"a\"\naddresses = [\"10.99.0.1\", \"fd99::1\"]\n{a}\
         [[nodes]]\nname = \"b\"\naddresses = [\"10.99.0.2\", \"fd99::2\"]\n{b}"
    )
}

fn key(of: usize) -> String {
    format!("public_key = \"{}\"\n", KEYS[of])
}

fn parse(head: &str, a: &str, b: &str) -> Config {
    Config::parse(&text(head, a, b), "f.toml").unwrap()
}

fn problems(head: &str, a: &str, b: &str) -> Vec<String> {
    match Config::parse(&text(head, a, b), "f.toml") {
        Err(ConfigError::Invalid { problems, .. }) => problems.iter().map(Problem::to_string).collect(),
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
    ] {
        let found = problems(head, a, b);
        assert!(found[0].starts_with(expected), "{expected}: {found:#?}");
        assert!(found[0].contains("must be") || found.len() == 1, "{found:#?}");
    }
}

/// A host a with a new key in `mode`, which the file lists or not.
fn host(mode: u32, listed: bool) -> (tempfile::TempDir, Config) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    let pem = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    fs::write(&file, pem.as_bytes()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    let own = match listed {
        true => format!("public_key = \"{}\"\n", PrivateKey::from_pem(&pem).unwrap().public()),
        false => key(0),
    };
    let head = format!(
        "[secret]\nfile = \"/nowhere\"\n[auth]\nmethod = \"public_key\"\nprivate_key = {:?}\n",
        file.to_str().unwrap()
    );
    (directory, parse(&head, &own, &key(1)))
}

#[test]
fn with_keys_alone_no_secret_is_needed() {
    let (_directory, config) = host(0o600, true);
    let credentials = config.load_credentials(&config.nodes[0]).unwrap();
    assert!(matches!(credentials.identity, Identity::PublicKey(_)));
    let (secret, previous) = config.load_secrets().unwrap();
    assert!(secret.is_none() && previous.is_none());
    let expected = credentials.expected("fd99::2".parse().unwrap()).next().unwrap();
    assert_eq!(expected.node.as_str(), "b");
    assert_eq!(expected.public_key.as_ref().unwrap().to_string(), KEYS[1]);
    assert!(
        credentials.expected("10.99.0.3".parse().unwrap()).next().is_none(),
        "nothing is expected of strangers"
    );
}

#[test]
fn a_key_that_others_may_read_or_do_not_know_is_refused() {
    for mode in [0o640, 0o604, 0o644] {
        let (_directory, config) = host(mode, true);
        let error = config.load_credentials(&config.nodes[0]).unwrap_err().to_string();
        assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
    }
    let (directory, config) = host(0o600, false);
    let error = config.load_credentials(&config.nodes[0]).unwrap_err().to_string();
    assert!(error.contains("is not the key of node a") && error.contains(KEYS[0]), "{error}");
    let file = directory.path().join("key");
    fs::write(&file, "-----BEGIN PRIVATE KEY-----\nhunter2\n").unwrap();
    let error = format!("{0} {0:?}", config.load_credentials(&config.nodes[0]).unwrap_err());
    assert!(error.contains("PKCS#8 PEM") && !error.contains("hunter2"), "{error}");
    fs::remove_file(&file).unwrap();
    let error = config.load_credentials(&config.nodes[0]).unwrap_err().to_string();
    assert!(error.contains("cannot be read") && error.contains("hostseal key generate"), "{error}");
}

/// A host a with the files of a certificate for `names`.
fn certified(ca: &Ca, names: &[&str]) -> (tempfile::TempDir, Config) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let pem = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    fs::write(path("key"), pem.as_bytes()).unwrap();
    fs::set_permissions(path("key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path("own"), ca.certify(&pem, names, |_| ())).unwrap();
    fs::write(path("ca"), &ca.pem).unwrap();
    fs::write(path("crl"), ca.revoke(&[8])).unwrap();
    let head = format!(
        "[auth]\nmethod = \"certificate\"\nprivate_key = {:?}\ncertificate = {:?}\nca = {:?}\ncrl = {:?}\n",
        path("key"),
        path("own"),
        path("ca"),
        path("crl")
    );
    (directory, parse(&head, "", ""))
}

#[test]
fn a_certificate_is_read_with_all_that_belongs_to_it() {
    let ca = Ca::new("ours");
    for names in [["a"], ["10.99.0.1"], ["fd99::1"]] {
        let (_directory, config) = certified(&ca, &names);
        let own = &config.nodes[0];
        let credentials = config.load_credentials(own).unwrap();
        assert!(
            matches!(credentials.identity, Identity::Certificate(..))
                && config.load_secrets().unwrap().0.is_none()
        );
        let of_b = "10.99.0.2".parse().unwrap();
        assert!(credentials.authorities_for(of_b).is_some() && credentials.knows_signatures(of_b));
        config.check_certificate(own, &credentials, NOW).unwrap();
        let late = config.check_certificate(own, &credentials, UnixTime(NOW.0 * 2)).unwrap_err().to_string();
        assert!(late.contains("/own: its certificate, or one above it, expired on 2040-01-01"), "{late}");
    }
}

#[test]
fn a_certificate_that_does_not_fit_is_refused() {
    let ca = Ca::new("ours");
    let error = |config: &Config| config.load_credentials(&config.nodes[0]).unwrap_err().to_string();
    let (_directory, config) = certified(&ca, &["b"]);
    assert!(error(&config).contains("/own: its certificate is not for node a"), "{}", error(&config));

    let (directory, config) = certified(&ca, &["a"]);
    let path = |name: &str| directory.path().join(name);
    let (right, other) = (fs::read(path("own")).unwrap(), PrivateKey::generate(KeyKind::Ed25519).unwrap());
    fs::write(path("own"), ca.certify(&other, &["a"], |_| ())).unwrap();
    assert!(error(&config).contains("/own: is for another key than the one in "), "{}", error(&config));
    fs::write(path("own"), &right).unwrap();
    for (file, words) in [
        ("own", "there is no certificate"),
        ("ca", "there is no certificate"),
        ("crl", "there is no revocation list"),
    ] {
        let right = fs::read(path(file)).unwrap();
        fs::write(path(file), "nothing").unwrap();
        assert!(error(&config).contains(&format!("/{file}: {words}")), "{}", error(&config));
        fs::remove_file(path(file)).unwrap();
        assert!(error(&config).contains(&format!("/{file}: cannot be read")), "{}", error(&config));
        fs::write(path(file), right).unwrap();
    }
    fs::write(path("ca"), Ca::new("theirs").pem).unwrap();
    let credentials = config.load_credentials(&config.nodes[0]).unwrap();
    let untrusted = config.check_certificate(&config.nodes[0], &credentials, NOW).unwrap_err().to_string();
    assert!(untrusted.contains("not issued by a CA of auth.ca"), "{untrusted}");
}

#[test]
fn who_has_an_address_that_floats_speaks_for_it() {
    let floating = "[[nodes]]\nname = \"c\"\naddresses = [\"10.99.0.3\"]\nauth = \"secret\"\n\
                    [[floating]]\nname = \"db\"\naddresses = [\"10.99.0.9\"]\nnodes = [\"a\", \"b\"]\n";
    let config = parse("[auth]\nmethod = \"public_key\"\n", &key(0), &format!("{}{floating}", key(1)));
    let credentials = config.load_credentials(&config.nodes[2]).unwrap();
    let expected = |address: &str| {
        let expected = credentials.expected(address.parse().unwrap());
        expected.map(|it| it.node.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(expected("10.99.0.9"), ["a", "b"]);
    assert_eq!(expected("10.99.0.2"), ["b"]);
    assert!(expected("10.99.0.8").is_empty());
    assert!(credentials.knows_signatures("10.99.0.9".parse().unwrap()));
}
