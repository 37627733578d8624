//! The helper with three real etcds: TLS, leaders that die, stores that are away, slow, compacted and restored.

mod agent;
mod etcd;

use std::fs;
use std::io::{Read as _, Write as _};

use agent::{Agent, Helper, PREFIX, name, send};
use etcd::{Etcds, MEMBERS};
use hostseal_store_protocol::{LINE_MAX, StoreNews, StoreOrder, VALUE_MAX, VERSION, encode};

/// A number that no other moment has.
fn chance() -> usize {
    let mut octets = [0; 4];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut octets).unwrap();
    u32::from_ne_bytes(octets) as usize
}

#[test]
fn what_one_puts_all_have_once_and_in_its_first_form() {
    let etcds = Etcds::start();
    let helpers = [Helper::start(), Helper::start()];
    let [mut one, mut other] = helpers.each_ref().map(|helper| Agent::new(helper, &etcds));
    // More than a page has, the last as long as it may be.
    (0..300).for_each(|number| one.put(number, format!("value {number}").as_bytes()));
    one.put(300, &[7; VALUE_MAX]);
    one.await_stored(0..301);
    other.await_stored(0..301);
    assert_eq!(one.has, other.has);
    // What is there stays as it is.
    other.put(5, b"another");
    other.put(301, b"new");
    one.await_stored(0..302);
    assert_eq!(one.has[&name(5)], b"value 5");
    assert_eq!(one.told, 302, "nothing was told twice");
    // An agent that begins later has it at once, in the order in which it was stored.
    let third = Helper::start();
    let mut third_agent = Agent::open(&third, &etcds, etcds.endpoints(), "client", "ca");
    let mut order = Vec::new();
    loop {
        match third_agent.next() {
            StoreNews::Has(entry) => order.push(entry.name),
            StoreNews::Listed { strange } => break assert_eq!(strange, 0),
            _ => {}
        }
    }
    assert_eq!(third_agent.has, one.has);
    assert_eq!(order.last(), Some(&name(301)));

    // Of what others have put there, nothing is told but that it is there.
    etcds.ctl(&["put", &format!("{PREFIX}config"), "x"]);
    etcds.ctl(&["put", &format!("{PREFIX}{}", name(999)), &"x".repeat(VALUE_MAX + 1)]);
    etcds.ctl(&["put", "/hostseal/tesu", "x"]);
    drop(third_agent);
    let mut again = Agent::open(&third, &etcds, etcds.endpoints(), "client", "ca");
    assert_eq!(again.await_listed(), 2);
    assert_eq!(again.has, one.has);
    // What is removed is said to be gone, and can be put again.
    etcds.ctl(&["del", "--prefix", PREFIX]);
    while !again.has.is_empty() {
        again.next();
    }
    again.put(1, b"again");
    again.await_stored(1..2);
}

#[test]
fn whoever_does_not_prove_itself_is_named() {
    let etcds = Etcds::start();
    let helper = Helper::start();
    let endpoints = etcds.endpoints();
    let away = |client, ca| Agent::open(&helper, &etcds, endpoints.clone(), client, ca).await_away();
    let why = away("client", "other-ca");
    assert!(why.contains(&etcds.endpoint(0)) && why.contains("UnknownIssuer"), "{why}");
    let why = away("other", "ca");
    assert!(
        why.contains("does it take the certificate of this host?")
            || why.contains("and take the certificate"),
        "{why}"
    );
    let nobody = vec!["https://127.0.0.1:9".to_owned()];
    let why = Agent::open(&helper, &etcds, nobody, "client", "ca").await_away();
    assert_eq!(why, "https://127.0.0.1:9: Connection refused (os error 111)");
    let why = Agent::open(&helper, &etcds, vec!["http://x:1".to_owned()], "client", "ca").await_away();
    assert_eq!(why, "http://x:1: an endpoint is https://HOST:PORT");
    // Files in another order.
    fs::copy(etcds.file("client.key"), etcds.file("swapped.pem")).unwrap();
    fs::copy(etcds.file("client.pem"), etcds.file("swapped.key")).unwrap();
    let why = Agent::open(&helper, &etcds, endpoints.clone(), "swapped", "ca").await_away();
    assert_eq!(why, "certificate: there is no certificate in it (PEM)");
    Agent::new(&helper, &etcds);
}

/// A role of etcd may be bound to the name in a certificate: the helper can do with rights to its prefix alone.
#[test]
fn rights_to_the_prefix_are_enough_and_what_is_refused_is_told() {
    let etcds = Etcds::start();
    for words in [
        "user add root:x",
        "user grant-role root root",
        "role add hostseal",
        "role grant-permission hostseal --prefix=true readwrite /hostseal/",
        "user add client --no-password",
        "user grant-role client hostseal",
        "auth enable",
    ] {
        etcds.ctl(&words.split(' ').collect::<Vec<_>>());
    }
    let helper = Helper::start();
    let mut agent = Agent::new(&helper, &etcds);
    agent.put(1, b"one");
    agent.await_stored(1..2);
    for words in [
        "--user=root:x role revoke-permission hostseal --prefix=true /hostseal/",
        "--user=root:x role grant-permission hostseal --prefix=true read /hostseal/",
    ] {
        etcds.ctl(&words.split(' ').collect::<Vec<_>>());
    }
    agent.put(2, b"two");
    let StoreNews::Refused { why } = agent.next() else { panic!("it was stored") };
    assert!(why.contains("permission denied"), "{why}");
}

#[test]
fn nothing_is_lost_while_leaders_die() {
    let mut etcds = Etcds::start();
    let helpers = [Helper::start(), Helper::start(), Helper::start()];
    let mut agents = helpers.each_ref().map(|helper| Agent::new(helper, &etcds));
    const ROUNDS: usize = 8;
    const EACH: usize = 40;
    for round in 0..ROUNDS {
        let leader = etcds.leader();
        for number in round * EACH..(round + 1) * EACH {
            agents[number % 3].put(number, format!("{number}").as_bytes());
            if number % EACH == chance() % EACH || number % EACH == EACH - 1 {
                etcds.kill(leader);
            }
        }
        // Each sees what the others have put, or puts it: then all of it is there.
        // All at once: what one of them has put and is lost, that one puts again.
        std::thread::scope(|scope| {
            for agent in &mut agents {
                scope.spawn(|| agent.await_stored(0..(round + 1) * EACH));
            }
        });
        etcds.run(leader);
    }
    let last = Helper::start();
    let last = Agent::new(&last, &etcds);
    assert_eq!(last.has.len(), ROUNDS * EACH);
    assert!(agents.iter().all(|agent| agent.has == last.has));
}

#[test]
fn a_store_that_is_away_slow_compacted_or_restored_comes_to_the_same() {
    let mut etcds = Etcds::start();
    let helper = Helper::start();
    let mut agent = Agent::new(&helper, &etcds);
    (0..10).for_each(|number| agent.put(number, b"before"));
    agent.await_stored(0..10);
    etcds.save();

    // Compacted: whoever follows goes on, and whoever comes later has all.
    (10..20).for_each(|number| agent.put(number, b"later"));
    agent.await_stored(0..20);
    let revision = etcds.ctl(&["get", "x", "--write-out=json"]);
    let revision: serde_json::Value = serde_json::from_str(&revision).unwrap();
    etcds.ctl(&["compact", &revision["header"]["revision"].to_string()]);
    agent.put(20, b"compacted");
    agent.await_stored(0..21);

    // Without a quorum nothing can be stored: that is said, and put again once there is one.
    let leader = etcds.leader();
    for at in (0..MEMBERS).filter(|at| *at != leader) {
        etcds.kill(at);
    }
    agent.put(21, b"without a quorum");
    let why = agent.await_away();
    assert!(etcds.endpoints().iter().all(|endpoint| why.contains(endpoint)), "{why}");
    for at in (0..MEMBERS).filter(|at| *at != leader) {
        etcds.run(at);
    }
    agent.await_stored(0..22);

    // One that does not answer at all is left for another.
    let beside = Helper::start();
    let mut slow = Agent::new(&beside, &etcds);
    etcds.signal(0, "-STOP");
    slow.put(22, b"slow");
    slow.await_stored(0..23);
    etcds.signal(0, "-CONT");
    agent.await_stored(0..23);

    // Restored from before most of it: it has what it had, and gets the rest again.
    etcds.restore();
    loop {
        if let StoreNews::Listed { .. } = agent.next()
            && agent.has.len() == 10
        {
            break;
        }
    }
    (10..23).for_each(|number| agent.put(number, b"again"));
    agent.await_stored(0..23);
    assert_eq!((&*agent.has[&name(3)], &*agent.has[&name(13)]), (&b"before"[..], &b"again"[..]));
}

#[test]
fn whoever_makes_no_sense_is_let_go_of() {
    let helper = Helper::start();
    let open =
        StoreOrder::Open { version: VERSION, endpoints: vec!["https://[::1]:1".into()], prefix: "/".into() };
    let newer = StoreOrder::Open { version: VERSION + 1, endpoints: Vec::new(), prefix: String::new() };
    let long = vec![b'x'; 2 * LINE_MAX];
    for line in [&b"\n"[..], b"{}\n", &encode(&open), &encode(&newer), &long, b"half"] {
        let mut stream = helper.connect();
        // It may let go of us before it has read all.
        let _ = stream.write_all(line);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut said = Vec::new();
        assert!(!stream.read_to_end(&mut said).is_ok_and(|length| length > 0));
    }
    let stream = helper.connect();
    let file = fs::File::open("/dev/null").unwrap();
    send(&stream, &encode(&open), &[&file, &file, &file].map(std::os::fd::AsRawFd::as_raw_fd));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut &stream, &mut said).unwrap();
    assert_eq!(said, "{\"news\":\"away\",\"why\":\"ca: there is no certificate in it (PEM)\"}\n");
}

#[test]
fn it_has_no_power() {
    let helper = Helper::start();
    // It has given up everything before it reads.
    let mut stream = helper.connect();
    stream.write_all(b"\n").unwrap();
    let mut said = Vec::new();
    assert_eq!(stream.read_to_end(&mut said).unwrap(), 0);
    let status = fs::read_to_string(format!("/proc/{}/status", helper.pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert!(field("Uid").split_whitespace().all(|uid| uid != "0"));
    if nix::unistd::geteuid().is_root() {
        assert_eq!((field("CapBnd"), field("Groups")), ("0000000000000000".to_owned(), String::new()));
    }
}
