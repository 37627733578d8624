//! What members have in common, and what each has alone.

use proptest::prelude::*;

use super::*;
use crate::config::PpkSource;
use crate::identity::{KeyKind, PrivateKey};
use crate::types::Inside;

fn shared(settings: &str) -> SharedConfig {
    let node = |at: u8| Node {
        name: format!("n{at}").parse().unwrap(),
        addresses: vec![[10, 0, 0, at].into()],
        inside: Inside::default(),
        public_key: Some(PrivateKey::from_seed(&[at; 32]).unwrap().public().clone()),
        previous_public_key: None,
        auth: None,
        expects_secret: false,
    };
    SharedConfig {
        cluster: "prod".to_owned(),
        settings: settings.to_owned(),
        nodes: [1, 2].map(node).into(),
        floating: Vec::new(),
        blocked: vec![[10, 0, 0, 9].into()],
        withheld: Vec::new(),
    }
}

const TWO_NODES: &str = "cluster = \"demo\"\n[[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n\
    [[nodes]]\nname = \"b\"\naddresses = [\"10.0.0.2\"]\n";

fn of_node(local: &str, shared: &SharedConfig) -> Result<Config, String> {
    let config = shared.of_node(local, "file", &"n1".parse().unwrap(), Path::new("cluster/ike.key"));
    config.map_err(|error| error.to_string())
}

#[test]
fn what_the_host_says_and_what_the_cluster_says_come_together() {
    let settings = "[keying]\nrekey_after = \"2h\"\n[protection]\nmode = \"prefer\"\n";
    let config = of_node("run_dir = \"/r\"\nstate_dir = \"/s \\\"q\\\"\"\n", &shared(settings)).unwrap();
    assert_eq!((&*config.cluster, config.node.as_ref().unwrap().as_str()), ("prod", "n1"));
    assert_eq!(config.auth.private_key, Path::new("/s \"q\"/cluster/ike.key"));
    assert_eq!(
        (config.auth.method, &config.auth.accept),
        (AuthMethod::PublicKey, &vec![AuthMethod::PublicKey])
    );
    assert_eq!(
        (config.keying.rekey_after.as_secs(), config.protection.mode),
        (7200, super::super::Mode::Prefer)
    );
    assert_eq!(
        config.blocked_pairs(&config.nodes[0]),
        [crate::types::Pair::new([10, 0, 0, 1].into(), [10, 0, 0, 9].into()).unwrap()]
    );
    assert!(!config.protection.allow_peer_disable, "a node does not open pairs of others");
    assert_eq!(config.nodes, shared("").nodes);
    let open = of_node("", &shared("[protection]\nallow_peer_disable = true\n")).unwrap();
    assert!(open.protection.allow_peer_disable && open.state_dir == Path::new(STATE_DIR));
}

#[test]
fn a_host_that_has_not_joined_is_proven_by_the_secret_as_long_as_the_member_has_it() {
    let mut shared = shared("");
    shared.nodes[1] = Node {
        public_key: None,
        auth: Some(AuthMethod::Secret),
        expects_secret: true,
        ..shared.nodes[1].clone()
    };
    let with = of_node("[secret]\nfile = \"/k\"\n", &shared).unwrap();
    assert_eq!((with.nodes.clone(), with.secret.file.as_path()), (shared.nodes.clone(), Path::new("/k")));
    assert!(with.uses(AuthMethod::Secret) && with.protection.withheld.is_empty());
    let without = of_node("", &shared).unwrap();
    assert_eq!(without.nodes, &shared.nodes[..1]);
    assert!(!without.uses(AuthMethod::Secret));
    assert_eq!(without.protection.withheld, shared.nodes[1].addresses, "what was sealed stays so");
    assert!(shared.check_settings("[esp]\nkey_bits = 128\n", "").is_ok());
}

#[test]
fn a_host_says_itself_who_unwraps_its_secret() {
    let kms = "[secret]\nwrapped_file = \"/w\"\n[kms]\nprovider = \"aws\"\nkey = \"k\"\n";
    let local = format!("{kms}[ppk]\nid = \"one\"\nwrapped = true\n");
    let config = of_node(&local, &shared("")).unwrap();
    let (keys, _) = config.ppks_between(&config.nodes[0], &config.nodes[1]).unwrap();
    assert_eq!((&keys[0].source, config.kms.is_some()), (&PpkSource::Wrapped, true));
    for part in [own_part(&config), as_file(&config), local_part(&local, None)] {
        assert!(part.contains("wrapped_file") && part.contains("[kms]") && part.contains("wrapped = true"));
    }
    let error = of_node(kms, &shared("")).unwrap_err().to_string();
    assert!(error.contains("need it as a PPK"), "members prove themselves with their keys: {error}");
    let slow = shared("").check_settings("[keying]\nrekey_after = \"3h\"\n", &local).unwrap_err().to_string();
    assert!(slow.contains("2 times keying.rekey_after (3h)"), "{slow}");
    let mended = shared("[keying]\nrekey_after = \"3h\"\n");
    let local = format!("state_dir = \"/s\"\n{local}");
    assert!(mended.check_settings("[keying]\nrekey_after = \"1h\"\n", &local).is_ok());
}

const ID: &str = "0000000000000000000000000000000000000000000000000000000000000001";

fn wrapped(table: &str, provider: &str, key: &str) -> String {
    format!(
        "[secret.{table}]\nprovider = \"{provider}\"\nkey = \"{key}\"\nsecret_id = \"{ID}\"\nblob = \"AAAA\"\n"
    )
}

fn in_force(provider: &str) -> String {
    let wrapped = wrapped("wrapped", provider, "k");
    format!("[kms]\nprovider = \"aws\"\nkey = \"k2\"\ncheck_every = \"1m\"\n[ppk]\nid = \"one\"\n{wrapped}")
}

#[test]
fn what_the_cluster_has_wrapped_is_unwrapped_by_who_the_host_says() {
    let config = of_node("[kms]\nprogram = \"/p\"\nsocket = \"/s\"\n", &shared(&in_force("exec"))).unwrap();
    let kms = config.kms.clone().unwrap();
    // The key that is to wrap the next one has nothing to do with this one.
    assert_eq!((&*kms.provider, &*kms.key, kms.check_every.as_secs()), ("exec", "k", 60));
    assert_eq!((kms.program.to_str(), kms.socket.to_str()), (Some("/p"), Some("/s")));
    let (keys, required) = config.ppks_between(&config.nodes[0], &config.nodes[1]).unwrap();
    assert_eq!((&keys[0].source, &*keys[0].id, required), (&PpkSource::Wrapped, "one", true));
    assert!(config.secret.wrapped.is_some() && config.files_for_proofs().len() == 1);
    // What is kept of it says the same, and the host says what it has said.
    let again = Config::parse(config.text(), "last").unwrap();
    assert_eq!(
        (again.kms, again.secret, again.ppk),
        (config.kms.clone(), config.secret.clone(), config.ppk.clone())
    );
    let own: Table = own_part(&config).parse().unwrap();
    assert_eq!(own.to_string(), "[kms]\nprogram = \"/p\"\nsocket = \"/s\"\n");
    assert!(of_node(&own.to_string(), &shared(&in_force("exec"))).is_ok());
    assert!(shared("").check_settings(&in_force("exec"), &own_part(&config)).is_ok());
    let file = as_file(&config);
    let file_says = |what: &str| assert!(file.contains(what), "{what}: {file}");
    ["program = \"/p\"", "blob = ", "[ppk]", "[kms]"].into_iter().for_each(file_says);
    let file = Config::parse(&file, "file").unwrap();
    assert_eq!((file.kms, file.secret.wrapped), (config.kms, config.secret.wrapped));
}

#[test]
fn a_host_that_says_nothing_has_the_helper_where_helpers_are() {
    let program = |provider: &str| of_node("", &shared(&in_force(provider))).unwrap().kms.unwrap().program;
    assert_eq!(program("exec"), Path::new("/usr/local/libexec/hostseal/kms-exec"));
    assert_eq!(program("aws"), Path::new("/usr/libexec/hostseal/kms-aws"));
    // A program stands for the provider "exec" alone.
    let other = of_node("[kms]\nprogram = \"/p\"\n", &shared(&in_force("vault"))).unwrap();
    assert_eq!(other.kms.unwrap().program, Path::new("/usr/libexec/hostseal/kms-vault"));
}

#[test]
fn what_is_offered_is_tried_and_nothing_rests_on_it() {
    let next = wrapped("next", "exec", "k3");
    let config = of_node("[kms]\nprogram = \"/p\"\n", &shared(&next)).unwrap();
    let offered = config.offered.clone().unwrap();
    assert_eq!((&*offered.rules.key, offered.rules.program.to_str()), ("k3", Some("/p")));
    assert!(config.kms.is_none() && !config.has_ppks() && config.secret.wrapped.is_none());
    assert_eq!(config.config_id(), of_node("", &shared("")).unwrap().config_id());
    assert_eq!(own_part(&config).parse::<Table>().unwrap().to_string(), "[kms]\nprogram = \"/p\"\n");
    assert!(!as_file(&config).contains("next"));
    let both = of_node("", &shared(&format!("{}{next}", in_force("aws")))).unwrap();
    assert_eq!((both.kms.unwrap().key.as_str(), both.offered.unwrap().wrapped.key.as_str()), ("k", "k3"));
    // A host that says all of it itself goes on with that.
    let local = "[secret]\nwrapped_file = \"/w\"\n[kms]\nprovider = \"vault\"\nkey = \"own\"\n[ppk]\nid = \"p\"\nwrapped = true\n";
    let config = of_node(local, &shared(&next)).unwrap();
    assert_eq!((config.kms.as_ref().unwrap().key.as_str(), config.offered.is_some()), ("own", true));
    assert!(own_part(&config).contains("wrapped_file") && !own_part(&config).contains("next"));
}

#[test]
fn what_the_host_and_the_cluster_say_both_is_named() {
    let local = "[kms]\nprogram = \"/p\"\nkey = \"k\"\n[ppk]\nid = \"one\"\n[secret]\nfile = \"/k\"\n";
    let refused = |local: &str| of_node(local, &shared(&in_force("exec"))).unwrap_err();
    let error = refused(local);
    assert!(error.contains("file:3:1: kms.key: the secret of the cluster \"prod\" is wrapped"), "{error}");
    assert!(refused("[ppk]\nid = \"one\"\nfile = \"/k\"\n").contains("ppk.id: "));
    assert!(refused("[secret]\nfile = \"/k\"\n").contains("secret.file: "));
    let nodes = "[[ppk.nodes]]\nname = \"n2\"\nid = \"two\"\nfile = \"/two\"\n";
    let config = of_node(nodes, &shared(&in_force("exec"))).unwrap();
    assert!(own_part(&config).contains("[[ppk.nodes]]") && !own_part(&config).contains("\"one\""));
    let inline = wrapped("wrapped", "exec", "k");
    assert!(of_node(&inline, &shared("")).unwrap_err().contains("name a file here"));
    let by_file = format!("{TWO_NODES}{}", wrapped("next", "exec", "k"));
    assert!(Config::parse(&by_file, "file").unwrap_err().to_string().contains("clusters with a roster"));
    let by_file = format!("{TWO_NODES}[helper]\nprogram = \"/p\"\n");
    assert!(Config::parse(&by_file, "file").unwrap_err().to_string().contains("have joined a cluster"));
}

#[test]
fn a_roster_has_nobody_run_a_program_and_a_key_is_good_before_it_wraps() {
    let check = |settings: &str| shared("").check_settings(settings, "").map_err(|error| error.to_string());
    assert!(check("[kms]\nkey = \"k\"\n").is_ok() && check("[kms]\nprovider = \"vault\"\n").is_ok());
    assert!(of_node("", &shared("[kms]\nkey = \"k\"\n")).unwrap().kms.is_none(), "nothing is wrapped yet");
    for (wrong, words) in [
        ("[kms]\nprogram = \"/p\"\n", "kms.program: is no setting of a cluster"),
        ("[kms]\nsocket = \"/p\"\n", "kms.socket: is no setting of a cluster"),
        ("[secret]\nfile = \"/p\"\n", "secret.file: is no setting of a cluster"),
        ("[ppk]\nfile = \"/p\"\n", "ppk.file: is no setting of a cluster"),
        ("[kms]\nkey = \"a b\"\n", "kms.key"),
        ("[kms]\nkey = \"k\"\ncheck_every = \"x\"\n", "kms.check_every"),
        ("[kms]\nmax_offline = \"1h\"\n", "2 times keying.rekey_after"),
        ("[secret]\nwrapped = 7\n", "secret.wrapped: must be a table"),
        ("secret = 7\n", "must be a table"),
    ] {
        let error = check(wrong).unwrap_err();
        assert!(error.contains(words), "{wrong}: {error}");
    }
    let without_id = in_force("aws").replace("id = \"one\"\n", "");
    assert!(check(&without_id).unwrap_err().contains("ppk.id: is missing"));
    let no_blob = in_force("aws").replace("blob = \"AAAA\"\n", "blob = \"A:\"\n");
    assert!(check(&no_blob).unwrap_err().contains("must be base64"));
    let long = in_force("aws").replace("key = \"k\"", &format!("key = \"{}\"", "k".repeat(513)));
    assert!(check(&long).unwrap_err().contains("512 characters at most"), "two of them fit into an entry");
    let long = in_force("aws").replace("blob = \"AAAA\"", &format!("blob = \"{}\"", "A".repeat(1025)));
    assert!(check(&long).unwrap_err().contains("must be base64, 1024"));
}

#[test]
fn a_host_says_itself_which_ppks_it_has() {
    let local = "[ppk]\nid = \"one\"\nfile = \"/k\"\n[[ppk.nodes]]\nname = \"n2\"\nrequired = false\n\
        [[ppk.nodes]]\nname = \"gone\"\nid = \"of-gone\"\nfile = \"/g\"\n";
    let config = of_node(local, &shared("")).unwrap();
    let (keys, required) = config.ppks_between(&config.nodes[0], &config.nodes[1]).unwrap();
    assert_eq!((keys[0].id.as_str(), keys.len(), required), ("one", 1, false));
    let files: Vec<String> =
        config.files_for_proofs().iter().map(|file| file.display().to_string()).collect();
    assert!(files.contains(&"/k".to_owned()) && !files.contains(&"/g".to_owned()), "{files:?}");
    assert!(own_part(&config).contains("[ppk]") && as_file(&config).contains("[ppk]"));
    let of_gone =
        of_node("[[ppk.nodes]]\nname = \"gone\"\nid = \"g\"\nfile = \"/g\"\n", &shared("")).unwrap();
    assert!(!of_gone.has_ppks(), "who is taken out leaves a file that is good");
    // An end of what is optional stays in the file when the last node for which it was is gone.
    let end = "[ppk]\nid = \"one\"\nfile = \"/k\"\noptional_until = \"2027-01-31\"\n\
        [[ppk.nodes]]\nname = \"gone\"\nrequired = false\n";
    assert_eq!(of_node(end, &shared("")).unwrap().ppks_optional_until(), None);
    let here = end.replace("gone", "n2");
    assert!(of_node(&here, &shared("")).unwrap().ppks_optional_until().is_some());
    let refused = shared("").check_settings("[ppk]\nfile = \"/k\"\n", "").unwrap_err().to_string();
    assert!(refused.contains("is no setting of a cluster"), "{refused}");
}

#[test]
fn a_host_says_itself_where_the_roster_is_kept_too() {
    let local = "[cluster]\nstore = \"etcd\"\nendpoints = [\"https://10.0.0.7:2379\", \"https://[fd00::7]:2379\"]\n\
        key = \"/k\"\n";
    let store = of_node(local, &shared("")).unwrap().store.unwrap();
    assert_eq!(store.endpoints, ["https://10.0.0.7:2379", "https://[fd00::7]:2379"]);
    assert_eq!((&*store.prefix, store.key.to_str()), ("/hostseal/", Some("/k")));
    // What is kept of it says the same.
    let again = Config::parse(of_node(local, &shared("")).unwrap().text(), "last").unwrap();
    assert_eq!(again.store, Some(store.clone()));
    let own = own_part(&of_node(local, &shared("")).unwrap());
    assert_eq!(of_node(&own, &shared("")).unwrap().store, Some(store));
    assert!(shared("").check_settings("[esp]\nkey_bits = 128\n", &own).is_ok());
    assert_eq!(of_node("", &shared("")).unwrap().store, None);

    let wrong =
        "\n[cluster]\nstore = \"zookeeper\"\nendpoints = [\"http://a:1\"]\nprefix = \"x\"\nuser = \"x\"\n";
    let error = of_node(wrong, &shared("")).unwrap_err();
    for (place, what) in [
        ("3:9", "cluster.store"),
        ("4:14", "cluster.endpoints[0]"),
        ("5:10", "cluster.prefix"),
        ("6:1", "cluster.user"),
    ] {
        assert!(error.contains(&format!("file:{place}: {what}: ")), "{what}: {error}");
    }
    let error = of_node("[cluster]\nstore = \"etcd\"\n", &shared("")).unwrap_err();
    assert!(error.contains("cluster.endpoints: is missing"), "{error}");
    assert!(of_node("cluster = \"prod\"\n", &shared("")).unwrap_err().contains("member of the cluster"));
    // Neither the settings of a cluster nor the file of a host without one say it.
    assert!(
        shared("").check_settings(local, "").unwrap_err().to_string().contains("no setting of a cluster")
    );
    let by_file = format!("{}\n[store]\nstore = \"etcd\"\nendpoints = [\"https://a:1\"]\n", TWO_NODES);
    assert!(Config::parse(&by_file, "file").unwrap_err().to_string().contains("have joined a cluster"));
}

#[test]
fn what_only_names_nodes_that_are_gone_is_left_out() {
    let settings = "[protection]\nblocked = [\"10.0.0.2\", \"10.0.0.8\"]\n\
        exempt = [\"tcp/22\", { port = \"tcp/80\", served_by = [\"n2\", \"x\"] }, { port = \"tcp/81\", served_by = [\"x\"] }]\n";
    let mut shared = shared(settings);
    shared.withheld = vec![[10, 0, 0, 7].into()];
    let config = of_node("[secret]\nfile = \"/x\"\n", &shared).unwrap();
    assert_eq!(config.protection.exempt.len(), 2);
    assert_eq!(config.protection.blocked, [[10, 0, 0, 8].into(), IpAddr::from([10, 0, 0, 9])]);
    assert_eq!(config.protection.withheld, shared.withheld);
    assert!(shared.check_settings(settings, "").unwrap_err().to_string().contains("there is no node \"x\""));
}

#[test]
fn a_file_that_says_what_the_cluster_says_is_refused_with_its_lines() {
    let error =
        of_node("run_dir = \"/r\"\n[[nodes]]\nname = \"x\"\n[keying]\nport = 1\n", &shared("")).unwrap_err();
    assert!(error.contains("file:2:3: nodes: ") && error.contains("file:4:2: keying: "), "{error}");
    assert!(error.contains("member of the cluster \"prod\"") && !error.contains("run_dir:"), "{error}");
    assert!(of_node("run_dir = [", &shared("")).unwrap_err().contains("file:1:"));
    assert!(of_node("run_dir = 7", &shared("")).unwrap_err().contains("run_dir"));
}

#[test]
fn a_file_is_what_stays_and_what_the_cluster_says() {
    let file = "cluster = \"x\"\nrun_dir = \"/r\"\n[secret]\nprevious_file = \"/p\"\n[esp]\nkey_bits = 128\n\
        [[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n";
    assert_eq!(settings_part(file), "[esp]\nkey_bits = 128\n");
    assert_eq!(local_part(file, None), "run_dir = \"/r\"\n");
    let secret = Config::parse(file, "file").unwrap().secret;
    let with = local_part(file, Some(&secret));
    assert!(
        with.contains("file = \"/etc/hostseal/secret\"") && with.contains("previous_file = \"/p\""),
        "{with}"
    );
    assert!(of_node(&with, &shared(&settings_part(file))).is_ok());
}

#[test]
fn what_a_member_goes_by_is_a_file_for_all() {
    let mut shared = shared("[esp]\nkey_bits = 128\n");
    shared.nodes.push(Node {
        name: "n3".parse().unwrap(),
        addresses: vec![[10, 0, 0, 3].into()],
        public_key: None,
        auth: Some(AuthMethod::Secret),
        expects_secret: true,
        ..shared.nodes[0].clone()
    });
    shared.withheld = vec![[10, 0, 0, 8].into()];
    let of = |node: &str, shared: &SharedConfig| {
        let local = "run_dir = \"/r\"\n[secret]\nfile = \"/k\"\n";
        shared.of_node(local, "file", &node.parse().unwrap(), Path::new("cluster/ike.key")).unwrap()
    };
    let text = as_file(&of("n1", &shared));
    assert_eq!(text, as_file(&of("n2", &shared)), "on all hosts");
    let (member, file) = (of("n1", &shared), Config::parse(&text, "file").unwrap());
    assert_eq!((&file.nodes, &file.esp, &file.keying), (&member.nodes, &member.esp, &member.keying));
    assert_eq!(file.protection.blocked, member.protection.blocked);
    assert!(!file.protection.allow_peer_disable && file.protection.withheld.is_empty());
    assert_eq!((file.node.as_ref(), &*file.run_dir), (None, Path::new("/run/hostseal")));
    assert_eq!(file.auth.private_key, Path::new(super::super::PRIVATE_KEY));
    shared.nodes.pop();
    let text = as_file(&of("n1", &shared));
    assert!(!text.contains("secret") && !text.contains("floating"), "{text}");
}

#[test]
fn a_file_that_lists_nodes_is_told_from_one_that_does_not() {
    for yes in ["[[nodes]]\nname = \"a\"\n", "nodes = []\n", "broken = [[[\n[[nodes]]\n"] {
        assert!(lists_nodes(yes), "{yes}");
    }
    for no in ["", "state_dir = \"/x\"\n# [[nodes]]\n", "[metrics]\n", "broken = [[[\n"] {
        assert!(!lists_nodes(no), "{no}");
    }
}

#[test]
fn settings_that_no_host_could_go_by_are_refused() {
    let check = |settings: &str| shared("").check_settings(settings, "").map_err(|error| error.to_string());
    assert!(check("[esp]\nkey_bits = 128\n").is_ok() && check("").is_ok());
    assert!(check("cluster = \"x\"\n").unwrap_err().contains("no setting of a cluster"));
    assert!(check("[esp]\nkey_bits = 127\n").unwrap_err().contains("127"));
    assert!(check("[keying]\nmethod = \"derived\"\n").unwrap_err().contains("secret"));
    assert!(check("[keying]\nport = 501\n").unwrap_err().contains("cannot be changed"));
    assert!(check("[esp\n").unwrap_err().contains("the settings:1:"));
    // What is left over of a secret that was wrapped says nothing.
    assert!(check("[kms]\nprovider = \"aws\"\nkey = \"k\"\n[ppk]\nrequired = false\n").is_ok());
}

proptest! {
    #[test]
    fn whatever_the_directories_are_called_they_come_back(name in "[^\\x00-\\x1f\\x7f]{1,40}") {
        let local = toml::to_string(&Table::from_iter([("state_dir".to_owned(), text(format!("/{name}")))])).unwrap();
        let config = of_node(&local, &shared("")).unwrap();
        prop_assert_eq!(config.state_dir.to_str(), Some(&*format!("/{name}")));
    }
}

#[test]
fn keys_of_other_kinds_are_written_as_they_are_read() {
    let mut shared = shared("");
    let pem = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    shared.nodes[1].public_key = Some(PrivateKey::from_pem(&pem).unwrap().public().clone());
    assert_eq!(of_node("", &shared).unwrap().nodes, shared.nodes);
}
