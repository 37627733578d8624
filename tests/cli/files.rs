//! Configurations, secrets and keys: how they are made, shown and checked.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use hostseal::store::{config_file, credentials};

use super::place::{Done, Place, mode};

#[test]
fn a_new_configuration_is_valid_and_private() {
    let place = Place::new();
    let config = config_file::load(&place.file()).unwrap();
    assert_eq!((config.cluster.as_str(), config.nodes.len()), ("demo", 2));
    assert_eq!(mode(&place.path("secret")), 0o600);
    let id = place.run("secret id");
    assert_eq!(
        (id.exit, id.out.trim()),
        (0, credentials::load_secret(&config).unwrap().id().to_string().as_str())
    );

    let check = place.run("config check");
    assert_eq!((check.exit, check.err.as_str()), (0, ""), "{check:?}");
    for part in
        ["demo, 2 nodes", "a (198.51.100.1, 2001:db8::1)", "198.51.100.1 <-> 198.51.100.2", id.out.trim()]
            .into_iter()
            .chain(["IKE proposals  aes256gcm16-", "ESP proposals  aes256gcm16-esn-noesn"])
    {
        assert!(check.out.contains(part), "{part:?} is not in {}", check.out);
    }
    let json = place.run("config check --json").json();
    assert_eq!((&json["valid"], &json["node"]), (&true.into(), &"a".into()));
    assert_eq!(json["pairs"].as_array().map(Vec::len), Some(2));
    let esp = [
        "aes256gcm16-esn-noesn",
        "aes256gcm16-x25519-ecp384-ecp256-ke1_mlkem768-esn-noesn",
        "aes256gcm16-x25519-ecp384-ecp256-esn-noesn",
    ];
    assert_eq!(json["proposals"]["esp"], serde_json::json!(esp));
}

#[test]
fn nothing_is_overwritten() {
    let place = Place::new();
    let (config, secret) = (fs::read(place.file()).unwrap(), fs::read(place.path("secret")).unwrap());
    place.run("config new a=198.51.100.1").failed_with(2, &["hostseal.toml exists and is not overwritten"]);
    assert_eq!(fs::read(place.file()).unwrap(), config);
    fs::remove_file(place.file()).unwrap();
    place.run("config new a=198.51.100.1").failed_with(2, &["secret exists and is not overwritten"]);
    assert_eq!(fs::read(place.path("secret")).unwrap(), secret);
    assert!(!place.file().exists(), "nothing was written at all");
}

#[test]
fn a_new_configuration_follows_the_files_rules() {
    let place = Place { directory: tempfile::tempdir().unwrap() };
    place.run("config new a=127.0.0.1").failed_with(2, &["a: 127.0.0.1 is a loopback address"]);
    place
        .run("config new a=198.51.100.1 a=198.51.100.2")
        .failed_with(2, &["a: there is another node \"a\"\n"]);
    place
        .run("config new a=198.51.100.1 b=198.51.100.1")
        .failed_with(2, &["b: 198.51.100.1 is already an address"]);
    place.run("config new --cluster a/b a=198.51.100.1").failed_with(2, &["cluster: \"a/b\" is not a name"]);
    place.run("config new a=host.example").failed_with(2, &["not an IPv4 or IPv6 address"]);
    assert_eq!(fs::read_dir(place.directory.path()).unwrap().count(), 0, "nothing was written");
}

#[test]
fn a_first_host_has_nobody_to_copy_to() {
    let place = Place { directory: tempfile::tempdir().unwrap() };
    let made = place.run("config new a=198.51.100.1");
    assert!(made.exit == 0 && !made.out.contains("Copy both") && made.out.contains("[[nodes]]"), "{made:?}");
}

#[test]
fn secrets_are_random_and_readable() {
    let place = Place::new();
    let [one, two] = [place.run("secret generate"), place.run("secret generate")];
    assert_eq!((one.exit, one.out.len()), (0, 45));
    assert_ne!(one.out, two.out);
    fs::write(place.path("other"), &one.out).unwrap();
    fs::set_permissions(place.path("other"), fs::Permissions::from_mode(0o600)).unwrap();
    let id = place.run(&format!("secret id {}", place.path("other").display()));
    assert_eq!((id.exit, id.out.trim().len()), (0, 16));
    assert!(!one.out.contains(id.out.trim()));
}

#[test]
fn a_secret_that_others_may_read_is_refused() {
    let place = Place::new();
    fs::set_permissions(place.path("secret"), fs::Permissions::from_mode(0o644)).unwrap();
    let told = ["secret: others may read or write it (mode 0644)", "`chmod 600 "];
    place.run("secret id").failed_with(2, &told);
    place.run("enable").failed_with(2, &told);
    let check = place.run("config check");
    assert_eq!(check.exit, 2);
    assert!(told.iter().all(|part| check.err.contains(part)), "{check:?}");
    let json = place.run("config check --json");
    assert_eq!((json.exit, &json.json()["valid"]), (2, &false.into()));
}

#[test]
fn a_broken_secret_is_not_repeated() {
    let place = Place::new();
    fs::write(place.path("secret"), "open sesame\n").unwrap();
    let done = place.run("secret id");
    done.failed_with(2, &["32 bytes in base64"]);
    assert!(!done.err.contains("sesame"), "{done:?}");
}

/// From `key generate` to a file that is checked.
#[test]
fn a_key_is_made_shown_and_checked() {
    for kind in ["ed25519", "ecdsa-p256"] {
        let place = Place::new();
        let text = fs::read_to_string(place.file()).unwrap();
        // The key comes first: until the file lists it, the file is not valid.
        let rules = format!("[auth]\nmethod = \"public_key\"\nprivate_key = {:?}\n", place.path("key"));
        fs::write(place.file(), format!("{text}\n{rules}")).unwrap();
        place
            .run("config check")
            .failed_with(2, &["public_key: is missing: `hostseal key show` on that host"]);
        let made = place.run(&format!("key generate --type {kind}"));
        assert_eq!(made.exit, 0, "{made:?}");
        assert_eq!(mode(&place.path("key")), 0o600);
        assert!(made.out.starts_with("public_key = \"") && made.out.lines().count() == 1, "{made:?}");
        assert_eq!(place.run("key show").out, made.out);
        assert_eq!(place.run(&format!("key show {}", place.path("key").display())).out, made.out);
        let before = fs::read(place.path("key")).unwrap();
        let refused = place.run("key generate");
        refused.failed_with(2, &["key exists and is not overwritten", "`hostseal key generate FILE`"]);
        assert!(!refused.err.contains("--config"), "{refused:?}");
        assert_eq!(fs::read(place.path("key")).unwrap(), before);

        let other = place.run(&format!("key generate {}", place.path("other").display())).out;
        let with_keys = |auth: &str, a: &str, b: &str| {
            let entry = |name: &str, key: &str| format!("name = \"{name}\"\n{key}");
            let text =
                text.replace("name = \"a\"\n", &entry("a", a)).replace("name = \"b\"\n", &entry("b", b));
            let key = place.path("key");
            fs::write(place.file(), format!("{text}\n[auth]\n{auth}private_key = {key:?}\n")).unwrap();
        };
        with_keys("accept = [\"secret\", \"public_key\"]\n", &made.out, &other);
        let check = place.run("config check");
        assert_eq!(check.exit, 0, "{check:?}");
        assert!(
            check.out.contains("each host with the shared secret; its public key is accepted too"),
            "{check:?}"
        );

        with_keys("method = \"public_key\"\n", &made.out, &other);
        fs::remove_file(place.path("secret")).unwrap();
        let check = place.run("config check");
        assert_eq!(check.exit, 0, "no secret is needed any more: {check:?}");
        assert!(check.out.contains("each host with its public key\n"), "{check:?}");
        assert_eq!(place.run("config check --json").json()["secret_id"], serde_json::Value::Null);

        with_keys("method = \"public_key\"\n", &other, &made.out);
        let check = place.run("config check");
        assert_eq!(check.exit, 2, "{check:?}");
        assert!(check.err.contains("key: is not the key of node a"), "{check:?}");
        fs::set_permissions(place.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
        place.run("key show").failed_with(2, &["others may read or write it (mode 0644)"]);
    }
}

#[test]
fn a_wrong_file_is_2_everywhere_and_names_the_place() {
    let place = Place::new();
    place.prepend("colour = 1\n");
    let told = format!("{}:1:1: colour: unknown key", place.file().display());
    for line in ["config check", "enable", "disable", "status", "plan", "secret id"] {
        place.run(line).failed_with(2, &[&told, "1 | colour = 1\n  | ^^^^^^"]);
    }
    let json = place.run("config check --json");
    let error = &json.json()["errors"][0];
    assert_eq!((json.exit, &error["line"], &error["key"]), (2, &1.into(), &"colour".into()));
    fs::remove_file(place.file()).unwrap();
    place.run("status").failed_with(2, &["cannot be read", "hostseal config new"]);
}

#[test]
fn a_host_that_is_not_in_the_file_is_2() {
    let place = Place::new();
    let text = fs::read_to_string(place.file()).unwrap().replacen("node = \"a\"\n", "", 1);
    fs::write(place.file(), text).unwrap();
    place.run("enable").failed_with(2, &["this host is not in the file", "a (198.51.100.1, 2001:db8::1), b"]);
    let done = Done::of(place.command("enable").env("HOSTSEAL_NODE", "zoe").output().unwrap());
    done.failed_with(2, &["\"zoe\"", "it lists a, b"]);
    let done = Done::of(place.command("config check").env("HOSTSEAL_NODE", "b").output().unwrap());
    assert!(done.exit == 0 && done.out.contains("b (198.51.100.2, 2001:db8::2)"), "{done:?}");
    assert!(done.out.contains("it does not have 198.51.100.2, 2001:db8::2 now"), "{done:?}");
    if nix::unistd::geteuid().is_root() {
        let done = Done::of(place.command("enable").env("HOSTSEAL_NODE", "b").output().unwrap());
        done.failed_with(2, &["said to be b, and has none of its addresses: 198.51.100.2"]);
    }
}

#[test]
fn nodes_without_a_common_family_are_named() {
    let place = Place::new();
    place.append(
        "[[nodes]]\nname = \"c\"\naddresses = [\"2001:db8::3\"]\n[[nodes]]\nname = \"d\"\n\
                  addresses = [\"198.51.100.4\"]\n",
    );
    let text = fs::read_to_string(place.file()).unwrap();
    fs::write(place.file(), text.replace("\"198.51.100.1\", ", "")).unwrap();
    let check = place.run("config check");
    assert!(
        check.exit == 0 && check.out.contains("no pair with d: no address of the same family"),
        "{check:?}"
    );
    assert_eq!(place.run("config check --json").json()["unpaired"], serde_json::json!(["d"]));
    fs::write(
        place.file(),
        text.replace("\"2001:db8::", "\"198.51.100.2")
            .replace("[\"198.51.100.1\", \"198.51.100.21\"]", "[\"2001:db8::1\"]"),
    )
    .unwrap();
    place.run("enable").failed_with(2, &["nothing would be protected: no pair with b, c, d"]);
}
