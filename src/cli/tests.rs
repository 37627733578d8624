use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::{CommandFactory, Parser};

use super::args::Invocation;
use super::client::{AskError, Client, STATUS_PATIENCE};
use super::exit::{CommandError, Exit};
use super::follow::follow;
use super::present::Shown as _;
use super::progress::View;
use super::render::{self, Extent};
use super::status::only;
use super::term::Style;
use crate::config::{Config, ConfigError, Mode};
use crate::control::{Change, ErrorCode, PlanLine, Preview, Reply, Request, decode_request, encode_reply};
use crate::identity::AuthMethod;
use crate::observe::metrics::tests::figures;
use crate::observe::status::{AgentInfo, Encapsulation, IkeRow, PeerRow, SaRow, SaState, Status, Summary};
use crate::observe::{Figures, Progress};
use crate::types::{
    Direction, Family, Method, Problem, ProblemCode, Protection, ReasonCode, RowState, SaErrors, Spi,
    Traffic, UnixTime,
};

pub(super) fn node_name(name: &str) -> crate::types::NodeName {
    serde_json::from_value(name.into()).unwrap()
}

pub(super) fn row(node: &str, host: u8, state: RowState) -> PeerRow {
    let protected = state == RowState::Protected;
    let traffic = if protected { Traffic { bytes: 1500, packets: 3 } } else { Traffic::default() };
    PeerRow {
        node: node_name(node),
        local: [10, 99, 0, 1].into(),
        listed: None,
        remote: [10, 99, 0, host].into(),
        family: Family::V4,
        state,
        since: Some(UnixTime(1_000_000)),
        reason_code: (state == RowState::Clear).then_some(ReasonCode::EspBlocked),
        reason: (state == RowState::Clear)
            .then(|| "keys are agreed, but ESP does not get through".to_owned()),
        keying: Method::Ike,
        authentication: None,
        ike: None,
        esp: None,
        esp_group: None,
        ppk: None,
        ppk_id: None,
        outside_kms: false,
        cipher: None,
        key_bits: protected.then_some(256),
        encapsulation: Encapsulation::None,
        tx: traffic,
        rx: traffic,
        totals_since: None,
        errors: SaErrors::default(),
        secret_id: None,
        last_heard: None,
        last_heard_esp: None,
        peer: None,
        sas: Vec::new(),
        waiting: false,
        try_ends_in_s: None,
    }
}

pub(super) fn status(protection: Protection, peers: Vec<PeerRow>) -> Status {
    Status {
        schema: 1,
        time: UnixTime(1_000_303),
        cluster: "demo".to_owned(),
        node: Some(node_name("a")),
        protection,
        try_ends_in_s: None,
        mode: Mode::Require,
        config_id: "5f3a".to_owned(),
        secret_id: Some("91c2".to_owned()),
        config_error: None,
        kms: None,
        kms_audit: None,
        agent: AgentInfo {
            running: true,
            answering: true,
            pid: Some(41),
            version: Some("0.1.0".to_owned()),
            uptime_s: Some(12),
            drift: Some(0),
            bounds: None,
        },
        summary: Summary::of(peers.iter().map(|row| row.state)),
        waiting_for: Vec::new(),
        peers,
        kernel: [].into(),
        notes: Vec::new(),
        problems: Vec::new(),
    }
}

/// What stands in for an agent: answers the given replies in turn, and returns what it was asked.
fn agent(socket: &std::path::Path, replies: Vec<String>) -> JoinHandle<Vec<Request>> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let answer = |reply: String| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = Vec::new();
            BufReader::new(&stream).read_until(b'\n', &mut line).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
            decode_request(&line).unwrap()
        };
        replies.into_iter().map(answer).collect()
    })
}

#[test]
fn the_grammar_is_sound() {
    Invocation::command().debug_assert();
}

#[test]
fn the_grammar_knows_the_contract() {
    for line in [
        "secret generate",
        "secret id",
        "config new a=10.0.0.1,fd00::1 b=10.0.0.2",
        "config check --json",
        "--config /x agent",
        "agent -v --config /x",
        "enable --no-wait --timeout 30s --json",
        "enable --strict",
        "enable --try 60s --strict",
        "confirm",
        "confirm --cluster --json",
        "enable --cluster --try 60s --partial --timeout 2m --json",
        "enable --cluster --no-wait",
        "disable --cluster --json",
        "status --cluster --json --watch",
        "status b --cluster --wait 2m --all",
        "top",
        "top b c --once",
        "init prod",
        "init prod --node a --address 10.0.0.1 --address fd00::1 --json",
        "join hostseal1_abc",
        "join - --node c --address 10.0.0.3,fd00::3 --timeout 2m --json",
        "token create",
        "token create c --admin --ttl 10m --within 10.0.0.0/16 --within fd00::/64 --json",
        "add db --address 10.0.0.9 --address fd00::9 --public-key \
         MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE= --json",
        "remove c --compromised --json",
        "leave --json",
        "admin add b --json",
        "admin remove b",
        "settings --json",
        "settings set s.toml",
        "settings set esp.key_bits=128 protection.mode=prefer --json",
        "disable --force",
        "disable --timeout 5m --json",
        "status b c --json --watch --all",
        "plan --exit-code --json",
        "completions bash",
        "man",
    ] {
        let words = std::iter::once("hostseal").chain(line.split(' '));
        assert!(Invocation::try_parse_from(words).is_ok(), "{line}");
    }
    for line in [
        "",
        "enable --timeout soon",
        "config new",
        "config new a",
        "config new a=b",
        "-v -q status",
        "enable --try",
        "enable --try 2d",
        "confirm 5",
    ] {
        let words = std::iter::once("hostseal").chain(line.split(' '));
        assert_eq!(Invocation::try_parse_from(words).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn the_table() {
    let rows = vec![row("b", 2, RowState::Protected), row("c-long", 103, RowState::Clear)];
    let text = status(Protection::On, rows).text(Extent::default(), Style::PLAIN);
    let expected = "\
protection on (require) · cluster demo · node a · agent up 12s (pid 41)
config id 5f3a · secret id 91c2

NODE    LOCAL      REMOTE       STATE      SINCE  CIPHER       TX        RX
c-long  10.99.0.1  10.99.0.103  clear      5m 3s  -            0 B       0 B
        keys are agreed, but ESP does not get through
b       10.99.0.1  10.99.0.2    protected  5m 3s  aes-gcm-256  1.46 KiB  1.46 KiB

1 of 2 pairs protected, 1 clear
";
    assert_eq!(text, expected, "\n{text}");
}

/// Whoever asks for a node by name hears how its keys were made.
#[test]
fn the_table_with_details() {
    let mut row = row("b", 2, RowState::Protected);
    row.ike = Some(IkeRow {
        version: 2,
        proposal: "aes256gcm16-prfsha384-x25519-ke1_mlkem768".to_owned(),
        group: Some("x25519-ke1_mlkem768".to_owned()),
        age_s: 303,
    });
    row.listed = Some([203, 0, 113, 1].into());
    row.authentication = Some(AuthMethod::PublicKey);
    row.esp = Some("aes256gcm16-esn".to_owned());
    row.esp_group = Some("x25519".to_owned());
    row.sas = vec![SaRow {
        direction: Direction::Out,
        spi: Spi(0xc1d2_e3f4),
        state: SaState::Active,
        bytes: 1500,
        packets: 3,
        age_s: 12,
        rekey_in_s: Some(3588),
        expires_in_s: Some(86_388),
    }];
    let told = status(Protection::On, vec![row]);
    let text = told.text(Extent { details: true, ..Extent::default() }, Style::PLAIN);
    let expected = "\
NODE  LOCAL      REMOTE     STATE      SINCE  CIPHER       TX        RX
b     10.99.0.1  10.99.0.2  protected  5m 3s  aes-gcm-256  1.46 KiB  1.46 KiB
      the others call 10.99.0.1 203.0.113.1
      IKEv2 aes256gcm16-prfsha384-x25519-ke1_mlkem768 for 5m 3s
      b has proven itself with its public key
      ESP aes256gcm16-esn, keys from their own exchange (x25519)
      out 0xc1d2e3f4 active, 1.46 KiB in 3 packets, 12s old, new keys in 59m 48s, ends in 23h 59m
";
    assert!(text.contains(expected), "\n{text}");
    let plain = told.text(Extent::default(), Style::PLAIN);
    assert!(!plain.contains("IKEv2") && !plain.contains("0xc1d2e3f4"), "{plain}");
}

#[test]
fn what_others_say_cannot_steer_the_terminal() {
    const EVIL: &str = "a\x1b[2J\u{9b}31m\x07\u{202e}b";
    let mut told = status(Protection::On, vec![row("b", 2, RowState::Clear)]);
    told.peers[0].reason = Some(EVIL.to_owned());
    told.notes.push(EVIL.to_owned());
    told.config_error = Some(EVIL.to_owned());
    told.problems.push(Problem::critical(ProblemCode::Hole, None, EVIL.to_owned()));
    let text = told.text(Extent::default(), Style::PLAIN);
    assert_eq!(text.matches("a[2J31mb").count(), 4, "{text}");
    assert!(!text.contains(|c: char| c != '\n' && c.is_control()), "{text:?}");
}

#[test]
fn a_trial_is_told_of_once() {
    let mut told = status(Protection::On, vec![row("b", 2, RowState::Protected)]);
    told.peers[0].try_ends_in_s = Some(62);
    let text = told.text(Extent::default(), Style::PLAIN);
    assert!(text.contains("b is on trial for 1m 2s more"), "{text}");
    told.try_ends_in_s = Some(62);
    let text = told.text(Extent::default(), Style::PLAIN);
    assert!(text.contains("on trial for 1m 2s more, then back to the clear: `hostseal confirm`"), "{text}");
    assert_eq!(text.matches("on trial").count(), 1, "{text}");
}

#[test]
fn what_the_host_has_to_say() {
    let mut told = status(Protection::Off, vec![row("b", 2, RowState::Off)]);
    told.agent = AgentInfo::default();
    told.secret_id = None;
    told.kernel.insert("XfrmInNoStates".to_owned(), 4);
    told.notes.push("something".to_owned());
    let text = told.text(Extent::default(), Style::PLAIN);
    for part in [
        "protection off · cluster demo · node a · no agent runs\n",
        "secret id none\n",
        "the kernel dropped packets: XfrmInNoStates 4\n",
        "note: something\n",
        "1 pair in the clear, on purpose\n",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    told.agent = AgentInfo { running: true, drift: Some(2), ..AgentInfo::default() };
    told.peers.clear();
    told.summary = Summary::default();
    let text = told.text(Extent::default(), Style::PLAIN);
    assert!(text.contains("another program changed 2 objects"), "{text}");
    assert!(text.ends_with("\nno pairs\n"), "{text}");
}

#[test]
fn of_many_rows_only_those_with_a_problem_are_shown() {
    let rows = |count: u8| {
        let mut rows: Vec<PeerRow> = (2..count + 1).map(|host| row("b", host, RowState::Protected)).collect();
        rows.push(row("c", 200, RowState::Clear));
        rows
    };
    let text = |count, all| {
        let extent = Extent { all, ..Extent::default() };
        status(Protection::On, rows(count)).text(extent, Style::PLAIN)
    };
    assert!(text(50, false).contains("10.99.0.17 "));
    let short = text(51, false);
    assert!(!short.contains("10.99.0.17 ") && short.contains("10.99.0.200 "), "{short}");
    assert!(
        short.ends_with("50 of 51 pairs protected, 1 clear (50 of them not shown: --all shows them)\n"),
        "{short}"
    );
    assert!(text(51, true).contains("10.99.0.17 "));
}

#[test]
fn colours_do_not_move_the_columns() {
    let rows = || vec![row("b", 2, RowState::Protected), row("c", 3, RowState::Clear)];
    let coloured = status(Protection::On, rows()).text(Extent::default(), Style::COLOURED);
    assert!(coloured.contains("\x1b[32mprotected") && coloured.contains("\x1b[1;31mclear"), "{coloured}");
    let mut plain = coloured;
    for code in ["\x1b[32m", "\x1b[33m", "\x1b[1;31m", "\x1b[31m", "\x1b[1m", "\x1b[0m"] {
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, status(Protection::On, rows()).text(Extent::default(), Style::PLAIN));
}

#[test]
fn a_plan_is_a_diff() {
    let line = |change, object: &str| PlanLine { change, object: object.to_owned() };
    let lines = [line(Change::Add, "x"), line(Change::Update, "y"), line(Change::Delete, "z")];
    let plan = |file: &[&str], kernel: &[PlanLine]| {
        let file = file.iter().map(|change| (*change).to_owned()).collect();
        render::plan(&Preview { file, kernel: kernel.to_vec() })
    };
    assert_eq!(plan(&[], &lines), "+ x\n~ y\n- z\n\n1 to add, 1 to update, 1 to delete\n");
    assert_eq!(plan(&[], &[]), "nothing would change\n");
    assert_eq!(
        plan(&["node c goes"], &lines[2..]),
        "node c goes\n\n- z\n\n0 to add, 0 to update, 1 to delete\n"
    );
    let comes = plan(&["node c comes (10.0.0.3)"], &[]);
    assert!(comes.starts_with("node c comes (10.0.0.3)\n\nnothing changes in the kernel now"), "{comes}");
}

/// So many rows, in all states, by IPv6 and with long reasons.
fn crowd(count: u16) -> Status {
    let states = [RowState::Protected, RowState::Clear, RowState::Blocked, RowState::Negotiating];
    let rows = (0..count).map(|at| {
        let mut row = row(&format!("node{at}"), 2, states[usize::from(at) % 4]);
        let host = |last| [0x2001, 0xdb8, 0x1111, 0x2222, 0x3333, 0x4444, 0x5555, last];
        (row.local, row.remote) = (host(1).into(), host(0x1000 + at).into());
        row.reason = row.reason.map(|_| {
            format!(
                "no answer from {} on UDP 500 for {at}s: is it up and enabled, and is that port open?",
                row.remote
            )
        });
        row
    });
    let mut told = status(Protection::On, rows.collect());
    told.problems = (0..count / 2)
        .map(|at| {
            let node = node_name(&format!("node{at}"));
            let words = format!("cannot renew keys; traffic with {node} stops in {at}h");
            Problem::critical(ProblemCode::KeysNotRenewed, Some(node), words)
        })
        .collect();
    told
}

#[test]
fn a_table_fits_its_terminal_and_breaks_no_address() {
    for (count, columns) in [(3, 80), (80, 80), (1000, 80), (1000, 200), (80, 48), (80, 41)] {
        let extent = Extent { all: true, width: Some(columns), ..Extent::default() };
        let told = crowd(count);
        let text = told.text(extent, Style::PLAIN);
        for line in text.lines() {
            assert!(line.chars().count() <= columns, "{columns}: {line:?}\n{text}");
        }
        for row in &told.peers {
            let shown = row.remote.to_string();
            assert!(text.split_whitespace().any(|word| word == shown), "{columns}: {shown}");
        }
    }
}

#[test]
fn what_is_the_same_of_several_is_said_once_and_the_worst_comes_first() {
    let text = crowd(80).text(Extent { all: true, ..Extent::default() }, Style::PLAIN);
    assert_eq!(text.matches("no answer from").count(), 1, "{text}");
    assert!(text.contains("20 rows alike: no answer from 2001:db8:"), "{text}");
    assert_eq!(text.matches("cannot renew keys").count(), 1, "{text}");
    let problem = "problem: 40 times (node0, node1, node10, node11, node12, node13, node14, node15 and 32 more), \
                   such as node0: cannot renew keys";
    assert!(text.contains(problem), "{text}");
    let at = |state: &str| text.find(&format!("  {state} ")).unwrap();
    let order = [at("blocked"), at("clear"), at("negotiating"), at("protected")];
    assert!(order.is_sorted(), "{order:?}\n{text}");
    let mut same = crowd(8);
    same.peers.iter_mut().for_each(|row| row.reason = Some("the same".to_owned()));
    let text = same.text(Extent::default(), Style::PLAIN);
    assert_eq!(text.matches("both: the same").count(), 4, "{text}");
}

#[test]
fn a_screen_keeps_its_head_and_says_what_it_has_no_room_for() {
    for (count, columns, height) in [
        (3, 80, 24),
        (80, 80, 24),
        (1000, 80, 24),
        (80, 200, 50),
        (1000, 200, 50),
        (80, 41, 10),
        (0, 80, 24),
        (3, 30, 3),
    ] {
        let extent = Extent { width: Some(columns), ..Extent::default() };
        let mut told = crowd(count);
        let blocked = told.peers.iter_mut().filter(|row| row.state == RowState::Blocked);
        blocked.for_each(|row| row.reason = Some(format!("no answer from {}", row.remote)));
        let lines = told.sheet(extent, Style::PLAIN).screen((extent.width, height), Style::PLAIN);
        let text = lines.join("\n");
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(lines.len() <= height, "{columns}x{height}\n{text}");
        assert!(lines[0].starts_with("protection on"), "{text}");
        if count >= 80 {
            assert!(text.contains("blocked"), "{columns}x{height}\n{text}");
            assert!(text.contains("rows alike: ") || height < 16, "{columns}x{height}: it says why\n{text}");
            assert!(
                words.contains(" out of view") || columns == 200 && count == 80,
                "{columns}x{height}\n{text}"
            );
        }
    }
    let few = crowd(3).sheet(Extent::default(), Style::PLAIN).screen((None, 24), Style::PLAIN).join("\n");
    assert!(!few.contains("out of view") && few.contains("1 of 3 pairs protected"), "{few}");
}

#[test]
fn exit_status_of_a_status() {
    use RowState::{Blocked, Clear, Negotiating, Off, Protected};
    let exit = |protection, states: &[RowState]| {
        status(protection, states.iter().map(|state| row("b", 2, *state)).collect()).exit()
    };
    assert_eq!(exit(Protection::On, &[Protected, Protected]), Exit::Done);
    assert_eq!(exit(Protection::On, &[]), Exit::Done);
    assert_eq!(exit(Protection::Off, &[Off]), Exit::Done);
    for state in [Blocked, Clear, Negotiating, Off] {
        assert_eq!(exit(Protection::On, &[Protected, state]), Exit::Degraded, "{state}");
    }
    let mut dead = status(Protection::On, vec![row("b", 2, Protected)]);
    dead.agent = AgentInfo::default();
    assert_eq!(dead.exit(), Exit::Degraded);
}

#[test]
fn a_filter_sums_up_what_it_leaves() {
    let all = status(Protection::On, vec![row("b", 2, RowState::Protected), row("c", 3, RowState::Clear)]);
    let left = only(all.clone(), &["b".to_owned()]);
    assert_eq!((left.peers.len(), left.summary.peers, left.exit()), (1, 1, Exit::Done));
    assert_eq!(only(all.clone(), &[]), all);
}

#[test]
fn failures_end_with_the_status_of_their_kind() {
    let denied = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let unreadable = |source| ConfigError::Unreadable { file: "/f".into(), source };
    assert_eq!(CommandError::from(unreadable(denied())).exit, Exit::NotPermitted);
    assert_eq!(CommandError::from(unreadable(std::io::ErrorKind::NotFound.into())).exit, Exit::Usage);
    assert_eq!(CommandError::from(Config::parse("", "f").unwrap_err()).exit, Exit::Usage);
    // What comes out of the agent keeps its kind under its context.
    let from_agent = anyhow::Error::from(Config::parse("", "f").unwrap_err()).context("starting");
    assert_eq!(CommandError::from(from_agent).exit, Exit::Usage);
    let from_agent = anyhow::Error::from(denied()).context("binding UDP 500");
    let failure = CommandError::from(from_agent);
    assert_eq!(failure.exit, Exit::NotPermitted);
    assert!(failure.message.starts_with("binding UDP 500: "), "{}", failure.message);
    assert_eq!(CommandError::from(anyhow::anyhow!("else")).exit, Exit::Failed);
}

#[test]
fn the_client_tells_apart_what_can_go_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let client = Client::new(socket.clone());
    assert!(matches!(client.status(), Err(AskError::NoAgent(_))), "no socket");
    assert!(!client.is_there().unwrap());
    drop(UnixListener::bind(&socket).unwrap());
    assert!(matches!(client.status(), Err(AskError::NoAgent(_))), "a socket that a dead agent left");
    std::fs::remove_file(&socket).unwrap();

    let refused = Reply::Error { code: ErrorCode::Configuration, message: "line 5".to_owned() };
    let answers = vec![
        encode_reply(Reply::Done),
        encode_reply(Reply::Done),
        encode_reply(refused),
        "{\"v\":9}\n".to_owned(),
        "what?\n".to_owned(),
        String::new(),
    ];
    let asked = agent(&socket, answers);
    assert!(client.is_there().unwrap());
    assert!(matches!(client.status(), Err(AskError::Mismatch(_))));
    let failure = CommandError::from(client.order(Request::Enable).unwrap_err());
    assert_eq!((failure.exit, failure.message.as_str()), (Exit::Usage, "line 5"));
    assert!(client.plan().unwrap_err().to_string().contains("version 9"));
    assert!(matches!(client.plan(), Err(AskError::Answer(_))));
    assert!(matches!(client.plan(), Err(AskError::NoAgent(_))), "it ended without an answer");
    use Request::{Enable, Ping, Plan};
    assert_eq!(asked.join().unwrap(), [Ping, Request::Status, Enable, Plan, Plan, Plan]);
}

/// `status` would not have waited for it.
#[test]
fn a_host_whose_agent_takes_too_long_is_not_healthy() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let client = Client::new(socket.clone());
    let listener = UnixListener::bind(&socket).unwrap();
    let slow = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::thread::sleep(STATUS_PATIENCE);
        let figures = Figures { healthy: true, ..figures() };
        stream.write_all(encode_reply(Reply::Figures(Box::new(figures))).as_bytes()).unwrap();
    });
    assert!(!client.figures(None).unwrap().healthy);
    slow.join().unwrap();
}

/// Others may have taken all places at the socket: that is no sign that the agent is away.
#[test]
fn figures_are_asked_for_again_where_the_agent_hangs_up() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let client = Client::new(socket.clone());
    let asked = agent(&socket, vec![String::new(), String::new(), encode_reply(Reply::Done)]);
    assert!(matches!(client.figures(None), Err(AskError::Mismatch(_))));
    asked.join().unwrap();
    assert!(matches!(client.figures(None), Err(AskError::NoAgent(_))), "it has ended");
    std::fs::remove_file(&socket).unwrap();
    let _asked = agent(&socket, vec![String::new(); 100]);
    assert!(matches!(client.figures(None), Err(AskError::HungUp(_))), "it is there");
}

#[test]
fn following_ends_when_done_or_when_time_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let reply = |revision, state| {
        let protection = Protection::On;
        let told = Progress { revision, protection, summary: Summary::of([state]), rows: Vec::new() };
        encode_reply(Reply::Progress(told))
    };
    let last =
        |state| encode_reply(Reply::Status(Box::new(status(Protection::On, vec![row("b", 2, state)]))));
    let done = |progress: &Progress| progress.summary.protected == progress.summary.peers;
    let follow =
        |deadline| follow(&Client::new(socket.clone()), View::Silent, RowState::Protected, deadline, done);

    let asked = agent(
        &socket,
        vec![
            reply(3, RowState::Negotiating),
            reply(5, RowState::Clear),
            reply(9, RowState::Protected),
            last(RowState::Protected),
        ],
    );
    let status = follow(Instant::now() + Duration::from_secs(60)).unwrap();
    assert_eq!(status.summary.protected, 1);
    let asked = asked.join().unwrap();
    let known = asked.iter().map(|request| match request {
        Request::Follow { after, hold_ms: 1.. } => Some(*after),
        _ => None,
    });
    assert_eq!(known.collect::<Vec<_>>(), [Some(0), Some(3), Some(5), None]);
    assert_eq!(asked[3], Request::Status);

    std::fs::remove_file(&socket).unwrap();
    let asked = agent(&socket, vec![reply(3, RowState::Negotiating), last(RowState::Negotiating)]);
    let status = follow(Instant::now()).unwrap();
    assert_eq!(status.summary.protected, 0, "the time was over");
    asked.join().unwrap();

    let gone = follow(Instant::now() + Duration::from_secs(60)).unwrap_err();
    assert!(matches!(gone, AskError::NoAgent(_)), "{gone}");
}
