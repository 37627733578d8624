//! What the agent is asked and ordered about the cluster.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use hostseal::control::{
    AddOrder, ClusterReply, ClusterRequest, ErrorCode, MoveOrder, Reply, Request, SecretLine, SettingsOrder,
    TokenOrder,
};
use hostseal::identity::{KeyKind, PrivateKey};
use hostseal::observe::cluster::{ClusterStatus, ClusterSummary, DesiredState, MemberRow, MemberTrouble};
use hostseal::roster::{
    ClusterId, Genesis, Keys, Roster, Saying, SignedEntry, Signer, Site, Statement, Version,
};
use hostseal::store::ClusterFiles;
use hostseal::types::{NodeName, Protection, UnixTime};

use super::place::{Done, Place};

fn name(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn done(notes: &[&str]) -> Reply {
    Reply::Cluster(ClusterReply::Done { notes: notes.iter().map(|note| (*note).to_owned()).collect() })
}

fn refused(code: ErrorCode, message: &str) -> Reply {
    Reply::Error { code, message: message.to_owned() }
}

/// How two nodes stand that are to be `desired`, and are.
fn two(desired: DesiredState) -> ClusterStatus {
    let on = desired == DesiredState::On;
    let node = |name: &str, last: u8| MemberRow {
        name: name.parse().unwrap(),
        addresses: vec![[198, 51, 100, last].into()],
        admin: name == "a",
        foreign: false,
        answers: true,
        last_heard: Some(UnixTime(1_767_225_600)),
        version: Some("0.2.0".to_owned()),
        protection: Some(if on { Protection::On } else { Protection::Off }),
        local: None,
        rows: Some(1),
        protected: Some(u64::from(on)),
        under_way: Some(0),
        waiting: Some(0),
        roster_id: Some("aa31".to_owned()),
        config_id: None,
        secret_id: None,
        keys: None,
        wrapped: None,
        clock_skew_s: None,
        unready: None,
        unready_code: None,
        reason_code: None,
        reason: None,
    };
    let protected = if on { 2 } else { 0 };
    ClusterStatus {
        schema: 1,
        cluster: "prod".to_owned(),
        cluster_id: "6f0c".to_owned(),
        roster_id: "aa31".to_owned(),
        node: Some(name("a")),
        desired,
        try_ends_in_s: None,
        settings_try_end_in_s: None,
        consistent: true,
        summary: ClusterSummary { nodes: 2, answering: 2, rows: 2, protected },
        conflicts: Vec::new(),
        problems: Vec::new(),
        nodes: vec![node("a", 1), node("b", 2)],
    }
}

fn status(status: &ClusterStatus) -> Reply {
    Reply::Cluster(ClusterReply::Status(Box::new(status.clone())))
}

/// The same where b does not answer.
fn without_b(desired: DesiredState) -> ClusterStatus {
    let mut status = two(desired);
    status.summary.answering = 1;
    status.nodes[1] = MemberRow {
        answers: false,
        version: None,
        protection: None,
        rows: None,
        protected: None,
        roster_id: None,
        reason_code: Some(MemberTrouble::NoAnswer),
        reason: Some("no answer".to_owned()),
        ..status.nodes[1].clone()
    };
    status
}

fn asked(requests: &[Request]) -> Vec<ClusterRequest> {
    let cluster = |request: &Request| match request {
        Request::Cluster(request) => request.clone(),
        other => panic!("{other:?}"),
    };
    requests.iter().map(cluster).collect()
}

/// The first node of a cluster. It needs no nodes in its file.
fn member() -> Place {
    let place = Place::new();
    let places = [("run_dir", "run"), ("state_dir", "state")];
    let lines = places.map(|(key, name)| format!("{key} = {:?}\n", place.path(name).to_str().unwrap()));
    fs::write(place.file(), lines.concat()).unwrap();
    let files = ClusterFiles::of(&place.path("state"));
    let keys = files.make_keys(|| PrivateKey::generate(KeyKind::Ed25519)).unwrap();
    let recovery = PrivateKey::from_seed(&[3; 32]).unwrap();
    let all = [&keys.signing, &keys.ike, &recovery];
    let [signing, ike, recovery] = all.map(|key| Signer::of(key).unwrap());
    let site =
        Site { name: name("a"), addresses: vec![[198, 51, 100, 1].into()], inside: Default::default() };
    let keys = Keys { signing, ike };
    let says = Saying::Genesis(Genesis { cluster: "prod".to_owned(), site, keys, recovery });
    let statement =
        Statement { by: signing, version: Version::default(), after: Vec::new(), basis: None, says };
    let entry = SignedEntry::sign(ClusterId::new([0; 32]), statement, &all).unwrap();
    files.save_roster(&Roster::found(entry.octets()).unwrap()).unwrap();
    place
}

/// Every order, with what it asks for.
fn orders() -> Vec<(&'static str, ClusterRequest, &'static str)> {
    let key = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
    let add = || {
        ClusterRequest::Add(AddOrder {
            node: name("db"),
            addresses: vec!["198.51.100.9".parse().unwrap(), "2001:db8::9".parse().unwrap()],
            public_key: key.to_owned(),
        })
    };
    let remove = |compromised| ClusterRequest::Remove { node: name("c"), address: None, compromised };
    let admin = |admin| ClusterRequest::Admin { node: name("b"), admin };
    vec![
        (
            "add db --address 198.51.100.9 --address 2001:db8::9 --public-key \
             MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=",
            add(),
            "added db (198.51.100.9, 2001:db8::9), which proves itself with its public key\n",
        ),
        (
            "add db --address 198.51.100.9,2001:db8::9 --public-key \
             MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=",
            add(),
            "added db (198.51.100.9, 2001:db8::9), which proves itself with its public key\n",
        ),
        (
            "move c --address 198.51.100.3 --address 198.51.100.4",
            ClusterRequest::Move(MoveOrder {
                node: name("c"),
                addresses: vec!["198.51.100.3".parse().unwrap(), "198.51.100.4".parse().unwrap()],
            }),
            "c is at 198.51.100.3, 198.51.100.4 from now on: the nodes go by that as they hear of it\n",
        ),
        ("remove c", remove(false), "removed c: the other nodes drop it as they hear of it\n"),
        (
            "remove c --compromised",
            remove(true),
            "removed c: the other nodes drop it and block its addresses as they hear of it\n",
        ),
        ("leave", ClusterRequest::Leave, "this node has left its cluster\n"),
        ("admin add b", admin(true), "b is an admin\n"),
        ("admin remove b", admin(false), "b is no admin any more\n"),
        ("confirm --cluster", ClusterRequest::Confirm, "confirmed: what was on trial stays\n"),
    ]
}

#[test]
fn orders_say_what_was_done_and_what_follows() {
    for (line, request, said) in orders() {
        let place = Place::new();
        let agent = place.agent(vec![done(&["d was not reached"]); 3]);
        let told = place.run(line);
        assert_eq!(
            (told.exit, told.out.as_str()),
            (0, format!("{said}d was not reached\n").as_str()),
            "{told:?}"
        );
        assert_eq!(
            place.run(&format!("{line} --json")).json(),
            serde_json::json!({"notes": ["d was not reached"]})
        );
        assert_eq!(place.run(&format!("{line} --alone")).exit, 0);
        let alone = ClusterRequest::Alone(Box::new(request.clone()));
        assert_eq!(asked(&agent.join().unwrap()), [request.clone(), request, alone]);
    }
}

#[test]
fn orders_that_are_not_carried_out_say_why() {
    let lines = orders().into_iter().map(|(line, ..)| line);
    for line in lines.chain(["token create", "settings", "settings set esp.key_bits=128", "status --cluster"])
    {
        let place = Place::new();
        place
            .run(line)
            .failed_with(4, &["no agent runs", "this host belongs to no cluster", "hostseal init NAME"]);
        let admins = "this needs an admin node: `hostseal` on a";
        let replies = vec![
            refused(ErrorCode::Cluster, admins),
            refused(ErrorCode::BadRequest, "not a message of the control protocol: unknown variant"),
            Reply::Done,
            Reply::Cluster(ClusterReply::Status(Box::new(two(DesiredState::On)))),
        ];
        let is_status = line == "status --cluster";
        let agent = place.agent(replies.into_iter().take(if is_status { 3 } else { 4 }).collect());
        place.run(line).failed_with(1, &[admins]);
        place.run(line).failed_with(1, &["the agent is older than this command", "restart"]);
        place.run(line).failed_with(1, &["another answer than the one to an order about the cluster"]);
        if !is_status {
            place.run(line).failed_with(1, &["another answer"]);
        }
        agent.join().unwrap();
    }
}

#[test]
fn a_host_without_a_cluster_hears_how_to_get_one() {
    let place = member();
    fs::remove_dir_all(place.path("state")).unwrap();
    for line in ["status --cluster", "enable --cluster", "token create", "leave", "settings"] {
        place.run(line).failed_with(1, &["this host belongs to no cluster", "hostseal init NAME"]);
    }
    // A roster that is broken is something else.
    let place = member();
    fs::write(place.path("state/cluster/roster"), "something").unwrap();
    place.run("leave").failed_with(1, &["state/cluster/roster: this is no roster"]);
}

#[test]
fn a_member_whose_agent_is_gone_hears_how_to_start_one() {
    let place = member();
    place.run("leave").failed_with(4, &["no agent runs", "systemctl start hostseal"]);
    // A plain `disable` is about this host alone.
    let disabled = place.run("disable");
    assert!(disabled.err.starts_with("this is about this host alone: where the cluster is"), "{disabled:?}");
    let quiet = place.run("disable --quiet");
    assert!(!quiet.err.contains("about this host alone"), "{quiet:?}");
    let other = Place::new();
    assert!(!other.run("disable").err.contains("about this host alone"));
}

#[test]
fn a_token_is_all_that_is_on_standard_output() {
    let place = Place::new();
    let token = || {
        Reply::Cluster(ClusterReply::Token {
            token: SecretLine("hostseal1_abc".to_owned()),
            expires: UnixTime(4_000_000_000),
        })
    };
    let agent = place.agent(vec![token(), token(), token()]);
    let made = place.run("token create");
    assert_eq!((made.exit, made.out.as_str()), (0, "hostseal join hostseal1_abc\n"), "{made:?}");
    assert!(made.err.contains("run this on one node: once, and until 2096-10-02T07:06:40Z"), "{made:?}");
    assert!(!made.err.contains("hostseal1_abc"), "{made:?}");
    let quiet = place.run("token create -q c --admin --ttl 10m --within 10.0.0.0/16,fd00::/64");
    assert_eq!((quiet.out.as_str(), quiet.err.as_str()), ("hostseal join hostseal1_abc\n", ""));
    let json = place.run("token create c --json").json();
    assert_eq!(
        json,
        serde_json::json!({
            "token": "hostseal1_abc", "command": "hostseal join hostseal1_abc", "expires": "2096-10-02T07:06:40Z"
        })
    );
    let order = |node: Option<&str>, admin, ttl_s, within: &[&str]| {
        ClusterRequest::CreateToken(TokenOrder {
            node: node.map(name),
            admin,
            ttl_s,
            within: within.iter().map(|block| (*block).to_owned()).collect(),
        })
    };
    assert_eq!(
        asked(&agent.join().unwrap()),
        [
            order(None, false, 3600, &[]),
            order(Some("c"), true, 600, &["10.0.0.0/16", "fd00::/64"]),
            order(Some("c"), false, 3600, &[]),
        ]
    );
}

#[test]
fn settings_are_shown_and_changed_one_by_one() {
    let place = Place::new();
    let settings = |text: &str| {
        Reply::Cluster(ClusterReply::Settings {
            toml: text.to_owned(),
            on_trial: false,
            entry: "e".to_owned(),
        })
    };
    let text = "[esp]\nkey_bits = 256\n\n[protection]\nmode = \"require\"\n";
    let agent = place.agent(vec![
        settings(text),
        settings(text),
        settings(""),
        settings(text),
        done(&["2 nodes were not reached"]),
        settings(text),
        settings(text),
        refused(ErrorCode::Cluster, "esp.key_bits: 7 is not one of 128, 256"),
    ]);
    assert_eq!(place.run("settings").out, text);
    assert_eq!(
        place.run("settings --json").json(),
        serde_json::json!({"esp": {"key_bits": 256}, "protection": {"mode": "require"}})
    );
    assert_eq!(place.run("settings").out, "# every setting has its default\n");
    let set = place.run("settings set esp.key_bits=128 protection.mode= keying.rekey_after=30m");
    assert_eq!(
        (set.exit, set.out.as_str()),
        (
            0,
            "the cluster has new settings: each node takes them as it hears of them\n2 nodes were not reached\n"
        )
    );
    let same = place.run("settings set esp.key_bits=256");
    assert_eq!((same.exit, same.out.as_str()), (0, "nothing changes: the settings are that already\n"));
    place.run("settings set esp.key_bits=7").failed_with(1, &["7 is not one of"]);
    let asked = asked(&agent.join().unwrap());
    let wanted = "[esp]\nkey_bits = 128\n\n[keying]\nrekey_after = \"30m\"\n";
    let order = SettingsOrder { after: Some("e".to_owned()), ..SettingsOrder::of(wanted) };
    assert_eq!(asked[4], ClusterRequest::SetSettings(order));
    assert!(asked[5..7].iter().all(|request| *request == ClusterRequest::Settings), "{asked:?}");
}

/// One setting more would make all those on trial last.
#[test]
fn what_is_on_trial_does_not_come_to_last_by_the_way() {
    let place = Place::new();
    let told = || {
        let toml = "[esp]\nkey_bits = 128\n".to_owned();
        Reply::Cluster(ClusterReply::Settings { toml, on_trial: true, entry: "e".to_owned() })
    };
    let agent = place.agent(vec![told(), told()]);
    place.run("settings set keying.rekey_after=30m").failed_with(1, &["settings are on trial", "confirm"]);
    let shown = place.run("settings");
    assert!(shown.exit == 0 && shown.err.contains("on trial") && shown.out.contains("key_bits"), "{shown:?}");
    assert_eq!(asked(&agent.join().unwrap()), [ClusterRequest::Settings, ClusterRequest::Settings]);
}

#[test]
fn settings_of_a_file_replace_all() {
    let place = Place::new();
    let told = |toml: &str| {
        let (toml, entry) = (toml.to_owned(), "e".to_owned());
        Reply::Cluster(ClusterReply::Settings { toml, on_trial: false, entry })
    };
    let wrapped = "[secret.wrapped]\nkey = \"k\"\n";
    let agent = place.agent(vec![told(""), done(&[]), told(wrapped), told(wrapped), done(&[])]);
    let text = "# for the audit\n[esp]\nkey_bits = 128\n";
    fs::write(place.path("s.toml"), text).unwrap();
    let file = place.path("s.toml").display().to_string();
    assert_eq!(place.run(&format!("settings set {file}")).exit, 0);
    // A file that was kept from before does not end the use of a wrapped secret.
    place
        .run(&format!("settings set {file}"))
        .failed_with(2, &["something else of the wrapped secret", "secret.wrapped=", "--other-secret"]);
    assert_eq!(place.run(&format!("settings set {file} --other-secret")).exit, 0);
    let order = SettingsOrder { after: Some("e".to_owned()), ..SettingsOrder::of(text) };
    let other = SettingsOrder { other_secret: true, ..order.clone() };
    let [order, other] = [order, other].map(ClusterRequest::SetSettings);
    let (settings, again) = (ClusterRequest::Settings, ClusterRequest::Settings);
    assert_eq!(asked(&agent.join().unwrap()), [settings.clone(), order, settings, again, other]);
    fs::write(place.path("s.toml"), "# no settings\nAbCdEf==\n").unwrap();
    let wrong = place.run(&format!("settings set {file}"));
    wrong.failed_with(2, &["s.toml:2: "]);
    assert!(!wrong.err.contains("AbCdEf"), "it may be a secret: {wrong:?}");
    place.run("settings set /nowhere.toml").failed_with(2, &["/nowhere.toml"]);
    for wrong in ["key_bits=128", "esp.key.bits=1", "esp.key_bits=1 s.toml"] {
        assert_eq!(place.run(&format!("settings set {wrong}")).exit, 2, "{wrong}");
    }
}

#[test]
fn the_status_of_a_cluster() {
    let place = Place::new();
    let (well, ill) = (two(DesiredState::On), without_b(DesiredState::On));
    let agent = place.agent(vec![
        status(&well),
        status(&ill),
        status(&ill),
        status(&well),
        status(&well),
        status(&ill),
    ]);
    let table = place.run("status --cluster");
    assert_eq!((table.exit, table.err.as_str()), (0, ""), "{table:?}");
    assert!(
        table.out.starts_with("cluster prod · protection on · 2 nodes, all answer · 2 rows protected\n"),
        "{table:?}"
    );
    let table = place.run("status --cluster");
    assert!(table.exit == 3 && table.out.contains("no answer\n") && !table.out.contains('\x1b'), "{table:?}");
    let json = place.run("status --cluster --json");
    assert_eq!((json.exit, serde_json::from_str::<ClusterStatus>(&json.out).unwrap()), (3, ill));
    let named = place.run("status a --cluster");
    assert!(named.exit == 0 && !named.out.contains("\nb "), "{named:?}");
    place
        .run("status zoe --cluster")
        .failed_with(2, &["there is no node \"zoe\" in the cluster; it has a, b"]);
    let named = place.run("status a --cluster --json");
    assert_eq!(named.exit, 0, "the node that was asked for is well: {named:?}");
    assert_eq!(asked(&agent.join().unwrap()), vec![ClusterRequest::Status; 6]);
}

#[test]
fn a_status_that_waits_for_the_cluster() {
    let place = Place::new();
    let agent = place.agent(vec![status(&without_b(DesiredState::On)), status(&two(DesiredState::On))]);
    assert_eq!(place.run("status --cluster --wait 5m").exit, 0);
    agent.join().unwrap();
}

#[test]
fn a_cluster_is_enabled_and_followed() {
    let place = Place::new();
    let mut under_way = two(DesiredState::On);
    for node in &mut under_way.nodes {
        (node.protected, node.under_way) = (Some(0), Some(1));
    }
    let agent = place.agent(vec![
        status(&two(DesiredState::Unset)),
        done(&["a note"]),
        status(&under_way),
        status(&two(DesiredState::On)),
    ]);
    let enabled = place.run("enable --cluster --try 60s");
    assert_eq!(enabled.exit, 0, "{enabled:?}");
    assert!(enabled.out.contains("2 rows protected"), "{enabled:?}");
    assert!(enabled.err.contains("a note\n") && enabled.err.contains("2 nodes (a, b): on\n"), "{enabled:?}");
    use ClusterRequest::{Enable, Status};
    assert_eq!(asked(&agent.join().unwrap()), [Status, Enable { try_s: Some(60) }, Status, Status]);

    let place = Place::new();
    let agent = place.agent(vec![status(&two(DesiredState::Off)), done(&[])]);
    let ordered = place.run("enable --cluster --no-wait --alone");
    assert!(ordered.exit == 0 && ordered.out.starts_with("ordered"), "{ordered:?}");
    let alone = ClusterRequest::Alone(Box::new(Enable { try_s: None }));
    assert_eq!(asked(&agent.join().unwrap()), [Status, alone]);
}

#[test]
fn a_cluster_in_which_a_node_is_not_ready_stays_as_it_is() {
    let place = Place::new();
    let mut old = two(DesiredState::Off);
    old.nodes[1].version = Some("0.1.0".to_owned());
    let agent = place.agent(vec![status(&old), status(&old)]);
    place.run("enable --cluster").failed_with(
        3,
        &["nothing has been changed: 1 of 2 nodes", "  b: hostseal 0.1.0, which is older", "--partial"],
    );
    let json = place.run("enable --cluster --json");
    assert_eq!((json.exit, &json.json()["nodes"][1]["version"]), (3, &"0.1.0".into()), "{json:?}");
    assert_eq!(asked(&agent.join().unwrap()), vec![ClusterRequest::Status; 2]);

    // One that does not answer may only need a moment; here it has none.
    let place = Place::new();
    let _agent = place.agent(vec![status(&without_b(DesiredState::Off)); 60]);
    place
        .run("enable --cluster --timeout 1s")
        .failed_with(3, &["nothing has been changed", "  b: no answer"]);
}

#[test]
fn a_node_that_needs_a_moment_gets_one() {
    let place = Place::new();
    let mut late = two(DesiredState::Off);
    late.nodes[1].roster_id = Some("bb".to_owned());
    let on = two(DesiredState::On);
    let agent = place.agent(vec![
        status(&late),
        status(&without_b(DesiredState::Off)),
        status(&two(DesiredState::Off)),
        done(&[]),
        status(&on),
    ]);
    assert_eq!(place.run("enable --cluster").exit, 0);
    agent.join().unwrap();
}

#[test]
fn a_cluster_is_enabled_without_those_who_are_not_there() {
    let place = Place::new();
    let mut on = without_b(DesiredState::On);
    (on.nodes[0].protected, on.nodes[0].waiting) = (Some(0), Some(1));
    on.nodes[0].reason_code = Some(MemberTrouble::NotProtected);
    let agent = place.agent(vec![status(&without_b(DesiredState::Off)), done(&[]), status(&on)]);
    let enabled = place.run("enable --cluster --partial");
    assert_eq!(enabled.exit, 6, "{enabled:?}");
    assert!(enabled.err.contains("these follow when they come") && enabled.err.contains("  b: no answer\n"));
    use ClusterRequest::{Enable, Status};
    assert_eq!(asked(&agent.join().unwrap()), [Status, Enable { try_s: None }, Status]);
}

#[test]
fn a_cluster_is_disabled_and_followed() {
    let place = Place::new();
    let mut under_way = two(DesiredState::On);
    under_way.desired = DesiredState::Off;
    let agent = place.agent(vec![
        done(&[]),
        status(&under_way),
        status(&two(DesiredState::Off)),
        refused(ErrorCode::Cluster, "a is the admin node"),
        done(&[]),
        status(&without_b(DesiredState::Off)),
        status(&without_b(DesiredState::Off)),
    ]);
    let disabled = place.run("disable --cluster");
    assert!(disabled.exit == 0 && disabled.out.contains("protection off"), "{disabled:?}");
    place.run("disable --cluster").failed_with(1, &["a is the admin node"]);
    let left = place.run("disable --cluster");
    assert!(left.exit == 3 && left.err.contains("not in the clear yet: b. They follow"), "{left:?}");
    use ClusterRequest::{Disable, Status};
    let asked = asked(&agent.join().unwrap());
    assert_eq!(asked, [Disable, Status, Status, Disable, Disable, Status, Status]);
}

#[test]
fn a_token_that_is_none_is_not_repeated() {
    let place = member();
    fs::remove_dir_all(place.path("state")).unwrap();
    for (line, given) in
        [("join hostseal1_ABC", ""), ("join -", "hostseal1_ABC\n"), ("join -", "hostseal join hostseal1_ABC")]
    {
        let mut child = place
            .command(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
        let done = Done::of(child.wait_with_output().unwrap());
        done.failed_with(2, &["this token was cut off or altered"]);
        assert!(!done.err.contains("ABC"), "{done:?}");
    }
    place.run("join -").failed_with(2, &["not a token"]);
    assert!(!place.path("state").exists(), "nothing was made");
}

#[test]
fn nothing_is_founded_beside_a_list_of_nodes_or_another_cluster() {
    let place = Place::new();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("nothing_is_founded_beside_a_list_of_nodes_or_another_cluster needs root");
        return;
    }
    place.run("init prod --node a --address 198.51.100.1").failed_with(1, &["hostseal.toml lists [[nodes]]"]);
    assert!(!place.path("state/cluster").exists(), "nothing was made");
    let place = member();
    let again = place.run("init prod --node a --address 198.51.100.1");
    again.failed_with(1, &["this host is in the cluster prod already", "hostseal leave"]);
}

#[test]
fn wrong_usage_of_the_commands_about_a_cluster() {
    let place = Place::new();
    for line in [
        "init",
        "init a/b",
        "init prod --address here",
        "init prod --node ''",
        "join",
        "join token --address 127.0.0.1",
        "join token --timeout 0s",
        "token",
        "token create ''",
        "token create a/b",
        "token create --ttl soon",
        "add db",
        "add db --address here",
        "add db --address 127.0.0.1",
        "add db --address 10.0.0.1 --public-key abc",
        "token create --within 10.0.0.1",
        "token create --within 10.0.0.1/8",
        "enable --alone",
        "disable --alone",
        "confirm --alone",
        "move",
        "move c",
        "move c --address 127.0.0.1",
        "remove",
        "remove a b",
        "leave now",
        "admin",
        "admin add",
        "admin b",
        "settings set",
        "settings --json set a.b=1",
        "enable --cluster --strict",
        "enable --partial",
        "disable --cluster --force",
        "confirm --json",
    ] {
        assert_eq!(place.run(line).exit, 2, "{line}");
    }
    for line in [
        "init",
        "join",
        "token create",
        "add",
        "move",
        "remove",
        "leave",
        "admin add",
        "admin remove",
        "settings",
        "settings set",
    ] {
        let done = place.run(&format!("{line} --help"));
        assert!(done.out.contains("Example"), "{line} shows no example: {}", done.out);
    }
}
