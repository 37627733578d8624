use std::collections::BTreeSet;

use super::*;
use crate::config::Config;
use crate::observe::KeyReport;
use crate::observe::audit::AuditReport;
use crate::observe::cluster::{ClockSkew, MemberRow, MemberTrouble};
use crate::observe::kms::KeyStanding;
use crate::observe::kms::tests::report;
use crate::observe::status::{AgentInfo, Encapsulation, PeerInfo, PeerRow, Status, Summary};
use crate::store::ChainHead;
use crate::types::generation::VERSION;
use crate::types::{
    Family, Method, Pair, Problem, ProblemCode, Protection, ReasonCode, RowState, SaErrors, Traffic, UnixTime,
};

const NOW: UnixTime = UnixTime(1_800_000_000);

fn config(more: &str) -> Config {
    let text = format!(
        "cluster = \"x\"\n[secret]\nfile = \"/s\"\n{more}\n[[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n\
         [[nodes]]\nname = \"b\"\naddresses = [\"10.0.0.2\"]\n"
    );
    Config::parse(&text, "file").unwrap()
}

fn row(state: RowState, code: Option<ReasonCode>) -> PeerRow {
    PeerRow {
        node: "b".parse().unwrap(),
        local: [10, 0, 0, 1].into(),
        listed: None,
        remote: [10, 0, 0, 2].into(),
        family: Family::V4,
        state,
        since: None,
        reason_code: code,
        reason: code.map(|_| "the reason".to_owned()),
        keying: Method::Ike,
        authentication: None,
        ike: None,
        esp: None,
        esp_group: None,
        ppk: None,
        ppk_id: None,
        outside_kms: false,
        cipher: None,
        key_bits: None,
        encapsulation: Encapsulation::None,
        tx: Traffic::default(),
        rx: Traffic::default(),
        totals_since: None,
        errors: SaErrors::default(),
        secret_id: None,
        last_heard: Some(NOW),
        last_heard_esp: Some(NOW),
        peer: None,
        sas: Vec::new(),
        waiting: false,
        try_ends_in_s: None,
    }
}

fn status(config: &Config, row: PeerRow) -> Status {
    let peers = vec![row];
    Status {
        schema: 1,
        time: NOW,
        cluster: "x".to_owned(),
        node: Some("a".parse().unwrap()),
        protection: Protection::On,
        try_ends_in_s: None,
        mode: config.protection.mode,
        config_id: config.config_id(),
        secret_id: Some("91c2".to_owned()),
        config_error: None,
        kms: None,
        kms_audit: None,
        agent: AgentInfo {
            running: true,
            answering: true,
            pid: Some(41),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            ..AgentInfo::default()
        },
        summary: Summary::of_rows(&peers),
        waiting_for: Vec::new(),
        peers,
        kernel: Default::default(),
        notes: Vec::new(),
        problems: Vec::new(),
    }
}

fn finding() -> PairFinding {
    let open = BothWays { out: Some(true), inward: Some(true) };
    let pair = Pair::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).unwrap();
    PairFinding {
        round_trip_us: Some(1300),
        asked: true,
        ahead_s: Some(1),
        ways: PathWays { ike: open, nat: open, esp: open },
        size: Some((1466, true)),
        hears: true,
        knocks: true,
        ..PairFinding::of(pair)
    }
}

/// What came of the checks of that kind.
fn results(checks: &[Check], id: CheckId) -> Vec<CheckResult> {
    checks.iter().filter(|check| check.id == id).map(|check| check.result).collect()
}

fn checked(status: &Status, config: &Config, findings: &[PairFinding]) -> Vec<Check> {
    of_peers(PeerEvidence { config, status, findings, only: None })
}

fn one(row: PeerRow, finding: Option<PairFinding>, id: CheckId) -> CheckResult {
    let config = config("");
    let checks = checked(&status(&config, row), &config, finding.as_slice());
    let found = results(&checks, id);
    assert_eq!(found.len(), 1, "{id}: {checks:#?}");
    found[0]
}

#[test]
fn a_peer_that_answers_everything_is_ok() {
    let config = config("");
    let told = PeerInfo {
        config_id: "5f3a".to_owned(),
        secret_id: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let row = PeerRow { peer: Some(told), ..row(RowState::Protected, None) };
    let checks = checked(&status(&config, row), &config, &[finding()]);
    assert!(checks.iter().all(|check| check.result == CheckResult::Ok), "{checks:#?}");
    for id in
        [CheckId::Pair, CheckId::UdpIke, CheckId::Esp, CheckId::UdpNat, CheckId::RoundTrip, CheckId::PathMtu]
    {
        assert_eq!(results(&checks, id).len(), 1, "{id}");
    }
}

#[test]
fn what_is_closed_fails_with_its_direction() {
    let closed = BothWays { out: Some(true), inward: Some(false) };
    let with = |ways: PathWays| Some(PairFinding { ways, ..finding() });
    let protected = || row(RowState::Protected, None);
    let open = finding().ways;
    assert_eq!(one(protected(), with(PathWays { ike: closed, ..open }), CheckId::UdpIke), CheckResult::Fail);
    assert_eq!(one(protected(), with(PathWays { esp: closed, ..open }), CheckId::Esp), CheckResult::Fail);
    // Nobody needs it.
    assert_eq!(one(protected(), with(PathWays { nat: closed, ..open }), CheckId::UdpNat), CheckResult::Warn);
    let in_udp = || PeerRow { encapsulation: Encapsulation::Udp, ..row(RowState::Protected, None) };
    assert_eq!(one(in_udp(), with(PathWays { nat: closed, ..open }), CheckId::UdpNat), CheckResult::Fail);
    assert_eq!(one(in_udp(), Some(finding()), CheckId::Esp), CheckResult::Warn);
    let config = config("");
    let seen = status(&config, protected());
    let checks = checked(&seen, &config, &[with(PathWays { esp: closed, ..open }).unwrap()]);
    let esp = checks.iter().find(|check| check.id == CheckId::Esp).unwrap();
    assert!(esp.detail.contains("from the other host to this one"), "{esp:?}");
    assert!(esp.fix.as_ref().unwrap().contains("IP protocol 50 from the other host to this one"), "{esp:?}");
}

#[test]
fn a_host_that_nobody_answers_on_is_unknown_unless_it_knocks() {
    let away = || PeerRow { waiting: true, ..row(RowState::Clear, Some(ReasonCode::NoAnswer)) };
    let silent = PairFinding {
        round_trip_us: None,
        asked: false,
        ways: PathWays::default(),
        hears: false,
        knocks: false,
        ..finding()
    };
    assert_eq!(one(away(), Some(silent.clone()), CheckId::Pair), CheckResult::Unknown);
    assert_eq!(one(away(), Some(silent.clone()), CheckId::UdpIke), CheckResult::Unknown);
    assert_eq!(one(away(), None, CheckId::UdpIke), CheckResult::Unknown);
    let knocks = PairFinding { knocks: true, ..silent };
    assert_eq!(one(away(), Some(knocks), CheckId::UdpIke), CheckResult::Fail);
    let config = config("");
    let checks = checked(&status(&config, away()), &config, &[]);
    assert!(
        checks.iter().any(|it| it.fix.as_ref().is_some_and(|fix| fix.contains("hostseal doctor --listen")))
    );
}

#[test]
fn where_somebody_listens_the_path_is_known_and_where_nobody_does_that() {
    let away = || PeerRow { waiting: true, ..row(RowState::Clear, Some(ReasonCode::NoAnswer)) };
    let listens = PairFinding {
        asked: false,
        round_trip_us: None,
        ahead_s: None,
        size: None,
        listens: true,
        ..finding()
    };
    for id in [CheckId::UdpIke, CheckId::Esp, CheckId::UdpNat] {
        assert_eq!(one(away(), Some(listens.clone()), id), CheckResult::Ok, "{id}");
    }
    assert_eq!(one(away(), Some(listens.clone()), CheckId::Pair), CheckResult::Unknown);
    let refused = PairFinding { listens: false, refused: true, ways: PathWays::default(), ..listens };
    assert_eq!(one(away(), Some(refused), CheckId::UdpIke), CheckResult::Unknown);
}

#[test]
fn how_a_pair_stands_is_what_status_says() {
    for (state, code, result) in [
        (RowState::Protected, None, CheckResult::Ok),
        (RowState::Protected, Some(ReasonCode::Silent), CheckResult::Fail),
        (RowState::Negotiating, Some(ReasonCode::InProgress), CheckResult::Warn),
        (RowState::Clear, Some(ReasonCode::AuthFailed), CheckResult::Fail),
        (RowState::Blocked, Some(ReasonCode::EspBlocked), CheckResult::Fail),
        (RowState::Off, None, CheckResult::Ok),
    ] {
        assert_eq!(one(row(state, code), None, CheckId::Pair), result, "{state} {code:?}");
    }
    assert_eq!(
        one(row(RowState::Blocked, Some(ReasonCode::EspBlocked)), None, CheckId::Esp),
        CheckResult::Fail
    );
    assert_eq!(
        one(row(RowState::Clear, Some(ReasonCode::AuthFailed)), None, CheckId::UdpIke),
        CheckResult::Ok
    );
    let refused = row(RowState::Clear, Some(ReasonCode::AuthFailed));
    assert_eq!(one(refused, None, CheckId::SecretDiffers), CheckResult::Fail);
}

#[test]
fn clocks_may_differ_by_a_minute() {
    for (ahead, result) in [
        (60, CheckResult::Ok),
        (-60, CheckResult::Ok),
        (61, CheckResult::Warn),
        (-315_000_000, CheckResult::Warn),
    ] {
        let finding = PairFinding { ahead_s: Some(ahead), ..finding() };
        assert_eq!(one(row(RowState::Protected, None), Some(finding), CheckId::Clock), result, "{ahead}");
    }
}

#[test]
fn another_version_is_warned_of_and_one_that_tells_nothing_is_unknown() {
    let told =
        |version: &str| PeerInfo { config_id: "5".to_owned(), secret_id: None, version: version.to_owned() };
    let older = PeerRow { peer: Some(told("0.0.9")), ..row(RowState::Protected, None) };
    assert_eq!(one(older, None, CheckId::Version), CheckResult::Warn);
    assert_eq!(one(row(RowState::Protected, None), None, CheckId::Version), CheckResult::Unknown);
}

/// What `status` calls a problem has the same words here, and what to do apart.
#[test]
fn problems_of_status_are_checks() {
    let config = config("");
    let node = Some("b".parse().unwrap());
    let mut seen = status(&config, row(RowState::Protected, None));
    seen.problems = vec![
        Problem::critical(ProblemCode::Mtu, node.clone(), "large packets are lost")
            .mended_by("Lower the MTU"),
        Problem::warning(ProblemCode::PathForgets, node, "a firewall forgets"),
        Problem::critical(ProblemCode::Hole, None, "eth0 is a hole"),
    ];
    let checks = checked(&seen, &config, &[finding()]);
    let mtu: Vec<_> = checks.iter().filter(|check| check.id == CheckId::PathMtu).collect();
    assert_eq!(mtu.len(), 1, "once");
    assert_eq!(
        (mtu[0].detail.as_str(), mtu[0].fix.as_deref()),
        ("large packets are lost", Some("Lower the MTU"))
    );
    assert_eq!(results(&checks, CheckId::PathForgets), [CheckResult::Warn]);
    assert_eq!(results(&checks, CheckId::Hole), [], "of this host, not of the peer");
    let problems: BTreeSet<Problem> = seen.problems.iter().cloned().collect();
    let evidence = HostEvidence { problems: Some(&problems), status: Some(&seen), ..HostEvidence::default() };
    let checks = of_host(&evidence);
    assert_eq!(results(&checks, CheckId::Hole), [CheckResult::Fail]);
    assert_eq!(results(&checks, CheckId::OtherIpsec), [CheckResult::Ok]);
}

#[test]
fn what_is_read_of_this_host_is_judged() {
    let room = |free, has_files, used| {
        Some(Ok(DiskRoom { directory: "/var/lib/hostseal".to_owned(), free, has_files, used }))
    };
    let with = |evidence: HostEvidence<'_>, id| results(&of_host(&evidence), id);
    for (free, has_files, used, result) in [
        (1 << 30, true, 4096, CheckResult::Ok),
        (1 << 20, true, 4096, CheckResult::Warn),
        (1 << 20, true, 2 << 20, CheckResult::Fail),
        (1 << 10, true, 0, CheckResult::Fail),
        (1 << 30, false, 0, CheckResult::Fail),
    ] {
        let evidence = HostEvidence { room: room(free, has_files, used), ..HostEvidence::default() };
        assert_eq!(with(evidence, CheckId::Disk), [result], "{free} {used}");
    }
    for (connections, result) in
        [((10, 100), CheckResult::Ok), ((90, 100), CheckResult::Warn), ((100, 100), CheckResult::Fail)]
    {
        let evidence = HostEvidence { connections: Some(connections), ..HostEvidence::default() };
        assert_eq!(with(evidence, CheckId::Conntrack), [result], "{connections:?}");
    }
    let day = |days: u64| NOW.after(std::time::Duration::from_secs(days * 86_400));
    for (until, result) in [(day(30), CheckResult::Ok), (day(3), CheckResult::Warn)] {
        let credentials = Some(CredentialsState::Good("its certificate".to_owned(), Some(until)));
        let evidence = HostEvidence { now: NOW, credentials, ..HostEvidence::default() };
        assert_eq!(with(evidence, CheckId::Certificate), [result]);
    }
    let credentials = Some(CredentialsState::Outdated("it expired".to_owned()));
    assert_eq!(
        with(HostEvidence { credentials, ..HostEvidence::default() }, CheckId::Certificate),
        [CheckResult::Fail]
    );
    for (is_vital, result) in [(true, CheckResult::Fail), (false, CheckResult::Warn)] {
        let ports =
            vec![PortState { port: 500, is_vital, taken: Some("UDP 500 is held by charon".to_owned()) }];
        let evidence = HostEvidence { ports: Some(ports), ..HostEvidence::default() };
        assert_eq!(with(evidence, CheckId::Ports), [result]);
    }
    let file_error = Some("the file: nonsense".to_owned());
    assert_eq!(
        with(HostEvidence { file_error, ..HostEvidence::default() }, CheckId::Config),
        [CheckResult::Fail]
    );
}

#[test]
fn a_dead_agent_fails_where_protection_is_wanted_alone() {
    let config = config("");
    for (protection, result) in [(Protection::On, CheckResult::Fail), (Protection::Off, CheckResult::Ok)] {
        let seen = Status {
            protection,
            agent: AgentInfo::default(),
            ..status(&config, row(RowState::Protected, None))
        };
        let evidence = HostEvidence { status: Some(&seen), ..HostEvidence::default() };
        assert_eq!(results(&of_host(&evidence), CheckId::Agent), [result], "{protection}");
    }
}

/// The KMS is not asked: it is said what is there, and what the agent heard last.
#[test]
fn the_way_to_a_kms_and_the_key_are_looked_at() {
    let config = config("");
    let mut seen = status(&config, row(RowState::Protected, None));
    let way = KmsWay { program: "/p".to_owned(), socket: "/s".to_owned(), wrong: Vec::new() };
    let of = |way: &KmsWay, seen: &Status| {
        let problems: BTreeSet<Problem> = seen.problems.iter().cloned().collect();
        let kms_way = Some(way.clone());
        of_host(&HostEvidence {
            kms_way,
            status: Some(seen),
            problems: Some(&problems),
            ..HostEvidence::default()
        })
    };
    let checks = of(&way, &seen);
    assert_eq!(results(&checks, CheckId::KmsHelper), [CheckResult::Ok]);
    assert_eq!(results(&checks, CheckId::KmsKey), [], "the agent has said nothing of it");
    let wrong =
        vec![("/p: is not there".to_owned(), "Install it".to_owned()), ("/s".to_owned(), "x".to_owned())];
    let checks = of(&KmsWay { wrong, ..way.clone() }, &seen);
    assert_eq!(results(&checks, CheckId::KmsHelper), [CheckResult::Fail; 2]);
    for (standing, cut, short, result) in [
        (KeyStanding::Valid, false, false, CheckResult::Ok),
        (KeyStanding::Unavailable, false, false, CheckResult::Ok),
        (KeyStanding::Unavailable, false, true, CheckResult::Warn),
        (KeyStanding::Unavailable, true, true, CheckResult::Fail),
        (KeyStanding::Denied, false, true, CheckResult::Fail),
    ] {
        let audit = AuditReport { head: Some(ChainHead::default()), ..AuditReport::default() };
        let report = KeyReport { audit: Some(audit), ..report(standing, cut, short) };
        seen.problems = report.problems().collect();
        seen.kms = Some(report);
        let checks = of(&way, &seen);
        assert_eq!(results(&checks, CheckId::KmsKey), [result], "{standing:?}");
        assert_eq!(results(&checks, CheckId::KmsAudit), [CheckResult::Ok]);
    }
    let audit = AuditReport { trouble: Some("full".to_owned()), ..AuditReport::default() };
    let report = KeyReport { audit: Some(audit), ..report(KeyStanding::Valid, false, false) };
    seen.problems = report.problems().collect();
    seen.kms = Some(report);
    assert_eq!(results(&of(&way, &seen), CheckId::KmsAudit), [CheckResult::Warn]);
}

#[test]
fn what_cannot_be_read_is_not_well() {
    let unread = vec![(CheckId::Agent, "EIO".to_owned()), (CheckId::Hole, "EIO".to_owned())];
    let unread = of_host(&HostEvidence { unread, ..HostEvidence::default() });
    let result = |id: CheckId| unread.iter().find(|check| check.id == id).map(|check| check.result);
    assert_eq!(result(CheckId::Agent), Some(CheckResult::Fail));
    assert_eq!(result(CheckId::Hole), Some(CheckResult::Unknown));
}

#[test]
fn who_may_not_look_is_blind() {
    let forbidden = HostEvidence { forbidden: Some("no".to_owned()), ..HostEvidence::default() };
    assert!(Diagnosis::new(of_host(&forbidden)).is_blind());
    assert!(!Diagnosis::new(of_host(&HostEvidence::default())).is_blind());
    assert!(Diagnosis::new(Vec::new()).is_blind());
}

#[test]
fn checks_are_read_back_also_from_a_later_version() {
    let check = Check::fail(CheckId::PathMtu, "lost").mended_by("lower it");
    let text = serde_json::to_string(&check).unwrap();
    assert_eq!(text, r#"{"id":"mtu","node":null,"result":"FAIL","detail":"lost","fix":"lower it"}"#);
    assert_eq!(serde_json::from_str::<Check>(&text).unwrap(), check);
    let later = text.replace("\"mtu\"", "\"weather\"");
    assert_eq!(serde_json::from_str::<Check>(&later).unwrap().id, CheckId::Other);
    for id in CheckId::ALL {
        assert_eq!(serde_json::to_string(id).unwrap(), format!("\"{id}\""));
    }
}

/// Each kind of check is explained, and nothing that is none.
#[test]
fn the_page_lists_each_kind_of_check() {
    let page = include_str!("../../../docs/doctor.md");
    let tables = page.split("## Checks of this host").nth(1).unwrap();
    let rows = tables.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed: BTreeSet<&str> = rows.collect();
    let known: BTreeSet<&str> = CheckId::ALL.iter().map(|id| id.as_str()).collect();
    assert_eq!(listed, known);
}

fn member(reason_code: Option<MemberTrouble>) -> MemberRow {
    MemberRow {
        name: "b".parse().unwrap(),
        addresses: Vec::new(),
        admin: false,
        foreign: false,
        answers: true,
        last_heard: None,
        version: Some("0.1.0".to_owned()),
        protection: None,
        local: None,
        rows: None,
        protected: None,
        under_way: None,
        waiting: None,
        roster_id: None,
        config_id: None,
        secret_id: None,
        keys: None,
        wrapped: None,
        clock_skew_s: Some(ClockSkew { ms: 400 }),
        unready: None,
        unready_code: None,
        reason_code,
        reason: reason_code.map(|_| "the reason".to_owned()),
    }
}

/// What a node says has room in a page, whatever is wrong there, and the worst comes first.
#[test]
fn a_node_says_what_is_wrong_and_how_much_has_no_room() {
    let config = config("");
    let mut seen = status(&config, row(RowState::Blocked, Some(ReasonCode::EspBlocked)));
    let of = |number: usize| {
        Problem::warning(ProblemCode::Hole, None, format!("hole {number} {}", "x".repeat(300)))
    };
    seen.problems = (0..40).map(of).collect();
    let said = MemberChecks::of(&config, config.node_named("a").unwrap(), &seen);
    assert!(said.ok > 0 && said.more > 0 && said.checks.len() < 20);
    assert_eq!(said.checks[0].result, CheckResult::Fail);
    let word = crate::observe::MemberWord::Checks(u64::MAX, said.clone());
    assert!(word.to_bytes().len() < 4000, "{}", word.to_bytes().len());
    assert_eq!(crate::observe::MemberWord::from_bytes(&word.to_bytes()), Some(word));
    let painted = Check::fail(CheckId::Hole, "\u{1b}[2J");
    let obeyed =
        crate::observe::MemberWord::Checks(1, MemberChecks { checks: vec![painted], ..said.clone() });
    assert_eq!(crate::observe::MemberWord::from_bytes(&obeyed.to_bytes()), None);
    let checks = of_member(&member(None), Some(&said), "0.1.0");
    assert!(checks.iter().all(|check| check.node.as_ref().is_some_and(|node| node.as_str() == "b")));
    assert!(checks.iter().any(|check| check.detail.starts_with("with b: ")), "{checks:#?}");
    assert_eq!(results(&checks, CheckId::Answers), [CheckResult::Warn], "there is more that is not ok");
}

/// What a mistake in a file looks like has several lines, and may be long.
#[test]
fn a_node_says_what_has_several_lines_too() {
    let config = config("");
    let mut seen = status(&config, row(RowState::Protected, None));
    seen.config_error = Some(format!("hostseal.toml:3:1: {}\n  3 | wrong\n    ^", "é".repeat(900)));
    let said = MemberChecks::of(&config, config.node_named("a").unwrap(), &seen);
    assert!(said.checks.iter().any(|check| (check.id, check.result) == (CheckId::Config, CheckResult::Fail)));
    let word = crate::observe::MemberWord::Checks(1, said);
    assert_eq!(crate::observe::MemberWord::from_bytes(&word.to_bytes()), Some(word));
}

#[test]
fn a_node_that_does_not_answer_is_unknown() {
    let said = MemberChecks::default();
    for (trouble, said, result) in [
        (None, Some(&said), CheckResult::Ok),
        (None, None, CheckResult::Unknown),
        (Some(MemberTrouble::NoAnswer), None, CheckResult::Unknown),
        (Some(MemberTrouble::NotJoined), None, CheckResult::Unknown),
        (Some(MemberTrouble::RosterDiffers), Some(&said), CheckResult::Fail),
        (Some(MemberTrouble::NotProtected), Some(&said), CheckResult::Fail),
    ] {
        let checks = of_member(&member(trouble), said, "0.1.0");
        assert_eq!(results(&checks, CheckId::Answers), [result], "{trouble:?}");
        assert_eq!(results(&checks, CheckId::Clock), [CheckResult::Ok]);
    }
    for (version, words) in [("0.1.0", "does not know the question"), (VERSION, "did not say in time")] {
        let row = MemberRow { version: Some(version.to_owned()), ..member(None) };
        let checks = of_member(&row, None, VERSION);
        assert!(checks[0].detail.contains(words), "{version}: {}", checks[0].detail);
    }
    let older = of_member(&member(None), Some(&said), "0.2.0");
    assert_eq!(results(&older, CheckId::Version), [CheckResult::Warn]);
    let late = MemberRow { clock_skew_s: Some(ClockSkew { ms: -61_000 }), ..member(None) };
    assert_eq!(results(&of_member(&late, Some(&said), "0.1.0"), CheckId::Clock), [CheckResult::Warn]);
}
