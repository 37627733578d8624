use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::proofs::tests::{KEYS, key, parse};
use crate::identity::certificate::tests::{Ca, NOW};
use crate::identity::{KeyKind, Proof};

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
    let credentials = load(&config, &config.nodes[0]).unwrap();
    assert!(matches!(*credentials.identity, Identity::PublicKey(_)));
    let (secret, previous) = load_secrets(&config).unwrap();
    assert!(secret.is_none() && previous.is_none());
    let expected = credentials.expected("fd99::2".parse().unwrap()).next().unwrap();
    assert_eq!(expected.node.as_str(), "b");
    assert_eq!(expected.public_keys[0].to_string(), KEYS[1]);
    assert!(
        credentials.expected("10.99.0.3".parse().unwrap()).next().is_none(),
        "nothing is expected of strangers"
    );
}

#[test]
fn a_key_that_others_may_read_or_do_not_know_is_refused() {
    for mode in [0o640, 0o604, 0o644] {
        let (_directory, config) = host(mode, true);
        let error = load(&config, &config.nodes[0]).unwrap_err().to_string();
        assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
    }
    let (directory, config) = host(0o600, false);
    let error = load(&config, &config.nodes[0]).unwrap_err().to_string();
    assert!(error.contains("is not the key of node a") && error.contains(KEYS[0]), "{error}");
    let file = directory.path().join("key");
    fs::write(&file, "-----BEGIN PRIVATE KEY-----\nhunter2\n").unwrap();
    let error = format!("{0} {0:?}", load(&config, &config.nodes[0]).unwrap_err());
    assert!(error.contains("PKCS#8 PEM") && !error.contains("hunter2"), "{error}");
    fs::remove_file(&file).unwrap();
    let error = load(&config, &config.nodes[0]).unwrap_err().to_string();
    assert!(error.contains("cannot be read") && error.contains("hostseal key generate"), "{error}");
}

#[test]
fn a_host_that_changes_over_has_either_of_its_keys() {
    let (_directory, mut config) = host(0o600, true);
    let own = config.nodes[0].public_key.clone();
    config.nodes[0].public_key = KEYS[0].parse().ok();
    assert!(load(&config, &config.nodes[0]).unwrap_err().to_string().contains("is not the key of node a"));
    config.nodes[0].previous_public_key = own;
    assert!(load(&config, &config.nodes[0]).is_ok());
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
        let credentials = load(&config, own).unwrap();
        assert!(
            matches!(*credentials.identity, Identity::Certificate(..))
                && load_secrets(&config).unwrap().0.is_none()
        );
        let of_b = "10.99.0.2".parse().unwrap();
        assert!(credentials.authorities_for(of_b).is_some() && credentials.knows_signatures(of_b));
        check_certificate(&config, own, &credentials, NOW).unwrap();
        let late =
            check_certificate(&config, own, &credentials, UnixTime(NOW.0 * 2)).unwrap_err().to_string();
        assert!(late.contains("/own: its certificate, or one above it, expired on 2040-01-01"), "{late}");
    }
}

#[test]
fn a_certificate_that_does_not_fit_is_refused() {
    let ca = Ca::new("ours");
    let error = |config: &Config| load(config, &config.nodes[0]).unwrap_err().to_string();
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
    let credentials = load(&config, &config.nodes[0]).unwrap();
    let untrusted = check_certificate(&config, &config.nodes[0], &credentials, NOW).unwrap_err().to_string();
    assert!(untrusted.contains("not issued by a CA of auth.ca"), "{untrusted}");
}

#[test]
fn who_has_an_address_that_floats_speaks_for_it() {
    let floating = "[[nodes]]\nname = \"c\"\naddresses = [\"10.99.0.3\"]\nauth = \"secret\"\n\
                    [[floating]]\nname = \"db\"\naddresses = [\"10.99.0.9\"]\nnodes = [\"a\", \"b\"]\n";
    let config = parse("[auth]\nmethod = \"public_key\"\n", &key(0), &format!("{}{floating}", key(1)));
    let credentials = load(&config, &config.nodes[2]).unwrap();
    let expected = |address: &str| {
        let expected = credentials.expected(address.parse().unwrap());
        expected.map(|it| it.node.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(expected("10.99.0.9"), ["a", "b"]);
    assert_eq!(expected("10.99.0.2"), ["b"]);
    assert!(expected("10.99.0.8").is_empty());
    assert!(credentials.knows_signatures("10.99.0.9".parse().unwrap()));
}

#[test]
fn who_expects_the_secret_gets_it_and_takes_nothing_else() {
    let rest = "[[nodes]]\nname = \"c\"\naddresses = [\"10.99.0.3\"]\nauth = \"secret\"\nexpects = \"secret\"\n\
                [[floating]]\nname = \"db\"\naddresses = [\"10.99.0.9\"]\nnodes = [\"b\", \"c\"]\n";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    let pem = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    fs::write(&file, pem.as_bytes()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let line = format!("public_key = \"{}\"\n", PrivateKey::from_pem(&pem).unwrap().public());
    let head = format!("[auth]\nmethod = \"public_key\"\nprivate_key = {file:?}\n");
    let config = parse(&head, &line, &format!("{}{rest}", key(1)));
    assert!(config.uses(AuthMethod::Secret));
    let credentials = load(&config, &config.nodes[0]).unwrap();
    let by_secret = |address: &str, theirs: Option<&Proof>| {
        matches!(credentials.identity_for(address.parse().unwrap(), theirs), Identity::Secret)
    };
    assert!(by_secret("10.99.0.3", None) && !by_secret("10.99.0.2", None));
    assert!(!credentials.knows_signatures("10.99.0.3".parse().unwrap()));
    // Who has the address that floats is answered as he asks.
    let of_b = Proof::Key(config.nodes[1].public_key.clone().unwrap());
    assert!(by_secret("10.99.0.9", None) && !by_secret("10.99.0.9", Some(&of_b)));
    let of_c = load(&config, &config.nodes[2]).unwrap();
    let expected = of_c.expected("10.99.0.1".parse().unwrap()).next().unwrap();
    assert_eq!((&of_c.identity.key().is_none(), &*expected.methods), (&true, &[AuthMethod::Secret][..]));
}

/// PPKs have the rules of secrets, and nobody is told what they are.
#[test]
fn a_ppk_is_read_as_a_secret_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let head = format!(
        "[secret]\nfile = {:?}\n[ppk]\nid = \"one\"\nfile = {:?}\nprevious_id = \"zero\"\nprevious_file = {:?}\n",
        file("secret"),
        file("one"),
        file("zero")
    );
    let config = parse(&head, "", "");
    let load = || load(&config, &config.nodes[0]);
    let give = |name: &str, text: &str, mode| {
        fs::write(file(name), text).unwrap();
        fs::set_permissions(file(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    give("one", &Secret::new([1; 32]).to_line(), 0o600);
    let error = load().unwrap_err().to_string();
    assert!(error.contains("zero: cannot be read") && error.contains("copy the PPK"), "{error}");
    give("zero", &Secret::new([2; 32]).to_line(), 0o640);
    assert!(load().unwrap_err().to_string().contains("mode 0640"));
    give("zero", "hunter2", 0o600);
    let error = format!("{0} {0:?}", load().unwrap_err());
    assert!(error.contains("32 bytes in base64") && !error.contains("hunter2"), "{error}");
    give("zero", &Secret::new([2; 32]).to_line(), 0o600);
    let credentials = load().unwrap();
    give("secret", &Secret::new([3; 32]).to_line(), 0o600);
    for (octet, other) in [(1, "PPK one"), (3, "the secret of the hosts")] {
        give("zero", &Secret::new([octet; 32]).to_line(), 0o600);
        let error = load().unwrap_err().to_string();
        assert!(error.contains(&format!("zero: is the same key as {other}")), "{error}");
    }
    let rule = &credentials.ppks[&"fd99::2".parse().unwrap()];
    assert!(rule.required && rule.keys.iter().map(|ppk| ppk.id()).eq(["one", "zero"]));
    assert!(!credentials.ppks.contains_key(&"10.99.0.1".parse().unwrap()), "none with itself");
    let shown = format!("{credentials:?}");
    assert!(!shown.contains("1, 1, 1") && !shown.contains("AQEB"), "{shown}");
    let without = super::load(&parse("", "", ""), &config.nodes[0]).unwrap();
    let changes = without.changes(&credentials);
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(changes[0].starts_with("with PPK one (key "), "{changes:?}");
}

/// Hosts that unwrap the same secret have the same PPK, which is another key. Before that, one is required that nobody has.
#[test]
fn a_ppk_comes_from_the_wrapped_secret() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    let pem = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    fs::write(&file, pem.as_bytes()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let head = format!(
        "[secret]\nwrapped_file = \"/w\"\n[kms]\nprovider = \"aws\"\nkey = \"k\"\n[ppk]\nid = \"one\"\nwrapped = true\n\
         [auth]\nmethod = \"public_key\"\nprivate_key = {file:?}\n"
    );
    let own = format!("public_key = \"{}\"\n", PrivateKey::from_pem(&pem).unwrap().public());
    let config = parse(&head, &own, &key(1));
    let rule = |unwrapped: Option<&Secret>| {
        let credentials = load_with(&config, &config.nodes[0], unwrapped).unwrap();
        credentials.ppks[&"fd99::2".parse().unwrap()].clone()
    };
    assert!(rule(None).required && rule(None).keys.is_empty());
    let secret = Secret::new([7; 32]);
    let [one, again] = [&secret, &Secret::new([7; 32])].map(|root| rule(Some(root)).wanted().unwrap());
    assert_eq!((one.id(), &one), ("one", &again));
    assert_ne!(one.key(), secret.id());
    assert_ne!(Some(one), rule(Some(&Secret::new([8; 32]))).wanted());
}
