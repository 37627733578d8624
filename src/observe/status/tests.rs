use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::observe::snapshot::{Heard, KeySnapshot, PairSnapshot};
use crate::observe::{Figures, Snapshot};
use crate::store::{PairRecord, Saved};
use crate::types::stranger::{StrangerPolicy, Verdict};
use crate::types::{
    Action, Block, KernelState, PolicyDirection, PolicyId, PolicyReading, ProblemCode, Reqid, SaId,
    SaReading, Selector, Through, ours,
};

const NOW: UnixTime = UnixTime(1_767_225_600);

fn config() -> Config {
    let text = r#"
cluster = "demo"
[[nodes]]
name = "a"
addresses = ["10.99.0.1"]
[[nodes]]
name = "b"
addresses = ["10.99.0.2"]
"#;
    Config::parse(text, "f").unwrap()
}

fn pair() -> Pair {
    Pair::new("10.99.0.1".parse().unwrap(), "10.99.0.2".parse().unwrap()).unwrap()
}

fn sa(direction: Direction, spi: u32, added: u64, packets: u64) -> SaReading {
    let source = match direction {
        Direction::Out => pair().local,
        Direction::In => pair().remote,
    };
    SaReading {
        source,
        id: SaId::of(pair(), direction, Spi(spi)),
        reqid: Reqid::COMMON,
        key_bits: 256,
        esn: true,
        encapsulated: false,
        bound: true,
        bytes: packets * 500,
        packets,
        last_used: None,
        added,
        hard_seconds: Some(86_400),
        dying: false,
        replay: 0,
        replay_window: 0,
        integrity: 0,
    }
}

fn policy(direction: PolicyDirection, action: Action) -> PolicyReading {
    PolicyReading {
        id: PolicyId::of(pair(), direction),
        index: ours::policy_index(direction, 7),
        priority: ours::priority::PAIR,
        action: Some(action),
        until: None,
    }
}

/// A kernel that protects the pair: OUT through SPI 0xc1000001, IN required.
fn protecting() -> KernelState {
    let sas = [
        sa(Direction::Out, 0xc100_0001, NOW.0 - 12, 3),
        sa(Direction::In, 0xc200_0001, NOW.0 - 12, 5),
        sa(Direction::Out, 0xc100_0000, NOW.0 - 90, 10),
        sa(Direction::In, 0xc200_0000, NOW.0 - 90, 20),
    ];
    let policies = [
        policy(PolicyDirection::Out, Action::Seal { through: Through::Sa(Spi(0xc100_0001)) }),
        policy(PolicyDirection::In, Action::Require),
    ];
    KernelState {
        sas: sas.into_iter().map(|sa| (sa.id, sa)).collect(),
        policies: policies.into_iter().map(|policy| (policy.id, policy)).collect(),
        ..KernelState::default()
    }
}

fn saved(protection: Protection, sealed: bool) -> Saved {
    let record = PairRecord { sealed, since: Some(UnixTime(NOW.0 - 100)), ..PairRecord::default() };
    Saved { protection, pairs: [(pair(), record)].into(), ..Saved::default() }
}

/// No agent runs.
const GONE: Agent<'static> = Agent::Gone { remedy: "`hostseal enable` starts one", boot: None };

fn status(kernel: &KernelState, saved: &Saved) -> Status {
    status_of(kernel, saved, GONE)
}

/// What an agent says that knows this.
fn told(kernel: &KernelState, saved: &Saved, snapshot: &Snapshot<'_>) -> Status {
    status_of(kernel, saved, Agent::Answers { pid: 41, snapshot })
}

fn status_of(kernel: &KernelState, saved: &Saved, agent: Agent<'_>) -> Status {
    with_evidence(kernel, saved, agent, |evidence| super::status(*evidence, None))
}

fn with_evidence<T>(
    kernel: &KernelState,
    saved: &Saved,
    agent: Agent<'_>,
    tell: impl FnOnce(&Evidence<'_>) -> T,
) -> T {
    let (config, statistics) =
        (config(), [("XfrmInNoStates".to_owned(), 2), ("XfrmInError".to_owned(), 0)].into());
    let present = config.nodes[0].addresses.iter().copied().collect();
    tell(&Evidence {
        now: NOW,
        config: &config,
        config_id: &config.config_id(),
        node: &config.nodes[0],
        secret_id: Some("91c2"),
        present: &present,
        kernel: kernel.sight(),
        statistics: &statistics,
        saved,
        totals: &saved.pairs,
        agent,
    })
}

fn row(kernel: &KernelState, saved: &Saved) -> PeerRow {
    status(kernel, saved).peers.remove(0)
}

#[test]
fn the_json_is_the_contracts() {
    let mut saved = saved(Protection::On, true);
    saved.pairs.get_mut(&pair()).unwrap().totals_since = Some(NOW);
    let mut kernel = protecting();
    kernel.sas.retain(|id, _| [Spi(0xc100_0001), Spi(0xc200_0001)].contains(&id.spi));
    let json = serde_json::to_value(status(&kernel, &saved)).unwrap();
    let mut expected = serde_json::json!({
        "schema": 1, "time": "2026-01-01T00:00:00Z", "cluster": "demo", "node": "a",
        "protection": "on", "try_ends_in_s": null, "mode": "require", "config_id": config().config_id(), "secret_id": "91c2",
        "agent": { "running": false, "answering": false, "pid": null, "version": null, "uptime_s": null, "drift": null, "bounds": null },
        "summary": { "peers": 1, "protected": 1, "negotiating": 0, "clear": 0, "blocked": 0, "off": 0,
                     "silent": 0 },
        "peers": [ {
            "node": "b", "local": "10.99.0.1", "remote": "10.99.0.2", "family": "ipv4",
            "state": "protected", "since": "2025-12-31T23:58:20Z", "reason_code": null, "reason": null,
            "keying": "ike", "cipher": "rfc4106(gcm(aes))", "key_bits": 256, "encapsulation": "none",
            "tx": { "bytes": 1500, "packets": 3 }, "rx": { "bytes": 2500, "packets": 5 },
            "totals_since": "2026-01-01T00:00:00Z",
            "errors": { "replay": 0, "replay_window": 0, "integrity": 0 }, "secret_id": null,
            "sas": [ { "direction": "out", "spi": "0xc1000001", "state": "active", "bytes": 1500, "packets": 3,
                       "age_s": 12, "rekey_in_s": null, "expires_in_s": 86388 } ],
            "try_ends_in_s": null } ],
        "kernel": { "XfrmInNoStates": 2 }, "problems": [],
        "notes": ["no agent runs to make new keys; the kernel goes on with its keys for 23h 59m: `hostseal enable` \
                   starts one"] });
    // More fields than the macro can take.
    let inbound = serde_json::json!(
        { "direction": "in", "spi": "0xc2000001", "state": "active", "bytes": 2500, "packets": 5,
          "age_s": 12, "rekey_in_s": null, "expires_in_s": 86388 });
    expected["peers"][0]["sas"].as_array_mut().unwrap().push(inbound);
    expected["config_error"] = serde_json::Value::Null;
    for absent in ["authentication", "ppk", "ppk_id", "last_heard", "last_heard_esp", "peer"] {
        expected["peers"][0][absent] = serde_json::Value::Null;
    }
    expected["peers"][0]["listed"] = serde_json::Value::Null;
    expected["peers"][0]["ike"] = serde_json::Value::Null;
    expected["peers"][0]["esp"] = "aes256gcm16-esn".into();
    expected["peers"][0]["esp_group"] = serde_json::Value::Null;
    expected["peers"][0]["outside_kms"] = false.into();
    expected["peers"][0]["waiting"] = false.into();
    expected["waiting_for"] = serde_json::json!([]);
    assert_eq!(json, expected);
    let back: Status = serde_json::from_value(json).unwrap();
    assert_eq!(back, status(&kernel, &saved));
}

#[test]
fn states_without_an_agent() {
    let (on, off) = (saved(Protection::On, true), saved(Protection::Off, false));
    let empty = KernelState::default();
    assert_eq!(row(&protecting(), &on).state, RowState::Protected);
    assert_eq!(row(&empty, &off).state, RowState::Off);
    // It was sealed, but nothing in the kernel keeps it so.
    assert_eq!(row(&empty, &on).state, RowState::Clear);
    assert_eq!(row(&empty, &saved(Protection::On, false)).state, RowState::Clear);
    assert_eq!(row(&empty, &Saved { protection: Protection::On, ..Saved::default() }).state, RowState::Clear);
    for state in [row(&empty, &on), row(&empty, &saved(Protection::On, false))] {
        assert_eq!(state.reason_code, Some(ReasonCode::NoAgent));
        assert!(state.reason.is_some_and(|reason| reason.contains("hostseal enable")));
    }
}

#[test]
fn protected_needs_both_policies_and_the_very_sa() {
    let on = saved(Protection::On, true);
    let mut kernel = protecting();
    kernel.sas.retain(|id, _| id.spi != Spi(0xc100_0001));
    assert_eq!(row(&kernel, &on).state, RowState::Blocked, "another outbound SA does not help");

    let without = |direction| {
        let mut kernel = protecting();
        kernel.policies.retain(|id, _| id.direction != direction);
        kernel
    };
    assert_eq!(row(&without(PolicyDirection::Out), &on).state, RowState::Clear, "plaintext leaves");
    assert_eq!(row(&without(PolicyDirection::In), &on).state, RowState::Clear, "plaintext would be let in");

    let mut kernel = protecting();
    let accept = policy(PolicyDirection::In, Action::Accept);
    kernel.policies.insert(accept.id, accept);
    assert_eq!(row(&kernel, &on).state, RowState::Clear);

    let mut kernel = protecting();
    for policy in kernel.policies.values_mut() {
        policy.index = 8;
    }
    assert_eq!(row(&kernel, &on).state, RowState::Clear, "a stranger's policies prove nothing");
}

#[test]
fn blocked_is_what_a_policy_blocks_or_lacks_an_sa_of_either_direction() {
    for seen_as_sealed in [true, false] {
        let saved = saved(Protection::On, seen_as_sealed);
        for direction in [Direction::Out, Direction::In] {
            let mut kernel = protecting();
            kernel.sas.retain(|_, sa| sa.direction(pair()) != direction);
            assert_eq!(row(&kernel, &saved).state, RowState::Blocked, "no SA {direction:?}");
        }
        // What keeps all between two hosts away that is not a pair's keeps the pair's away too.
        let [own, other] = [pair().local, pair().remote];
        let mut kernel = KernelState::default();
        for (direction, source, destination) in [
            (PolicyDirection::Out, Block::any(own), Block::host(other)),
            (PolicyDirection::In, Block::host(other), Block::any(own)),
        ] {
            assert_eq!(row(&kernel, &saved).state, RowState::Clear, "one direction is open");
            let selector = Selector::between(source, destination);
            let mut block = policy(direction, Action::Block);
            block.id.selector = selector;
            kernel.policies.insert(block.id, block);
        }
        assert_eq!(row(&kernel, &saved).state, RowState::Blocked);
    }
}

#[test]
fn what_other_software_lets_pass_in_front_of_ours_is_clear() {
    let on = saved(Protection::On, true);
    let selector = Selector::between(Block::any(pair().local), Block::any(pair().local));
    let in_front = |verdict, direction| {
        let id = PolicyId { direction, selector };
        let policy = StrangerPolicy { id, index: 9, priority: 1, verdict, mark: (0, 0), interface: 0 };
        let mut kernel = protecting();
        kernel.strangers.policies.push(policy);
        status(&kernel, &on)
    };
    for direction in [PolicyDirection::Out, PolicyDirection::In] {
        let clear = in_front(Verdict::Allow, direction);
        assert_eq!(clear.peers[0].state, RowState::Clear);
        assert_eq!(clear.problems.iter().filter(|problem| problem.is_critical()).count(), 1);
        assert_eq!(in_front(Verdict::Block, direction).peers[0].state, RowState::Blocked);
        let theirs = in_front(Verdict::Transform { reqid: 7 }, direction);
        assert_eq!(theirs.peers[0].state, RowState::Clear, "nobody here knows what their SAs do");
    }
}

#[test]
fn totals_are_past_and_live_without_probes() {
    let mut saved = saved(Protection::On, true);
    let record = saved.pairs.get_mut(&pair()).unwrap();
    record.tx = Traffic { bytes: 1000, packets: 100 };
    record.rx = Traffic { bytes: 2000, packets: 200 };
    record.probes_tx.insert(Spi(0xc100_0001), Traffic { bytes: 500, packets: 1 });
    record.probes_rx.insert(Spi(0xc200_0000), Traffic { bytes: 1000, packets: 2 });
    let row = row(&protecting(), &saved);
    assert_eq!(row.tx, Traffic { bytes: 1000 + 13 * 500 - 500, packets: 100 + 13 - 1 });
    assert_eq!(row.rx, Traffic { bytes: 2000 + 25 * 500 - 1000, packets: 200 + 25 - 2 });
}

#[test]
fn sas_are_listed_outbound_first_and_the_replaced_ones_retire() {
    let mut kernel = protecting();
    let inbound = SaId::of(pair(), Direction::In, Spi(0xc200_0000));
    kernel.sas.get_mut(&inbound).unwrap().integrity = 4;
    // Of another host: none of this pair's business.
    let mut other = sa(Direction::In, 0xc300_0000, NOW.0, 1);
    other.source = "10.99.0.77".parse().unwrap();
    kernel.sas.insert(other.id, other);
    let row = row(&kernel, &saved(Protection::On, true));
    let listed: Vec<_> = row.sas.iter().map(|sa| (sa.direction, sa.spi.0, sa.state)).collect();
    assert_eq!(
        listed,
        [
            (Direction::Out, 0xc100_0001, SaState::Active),
            (Direction::Out, 0xc100_0000, SaState::Retiring),
            (Direction::In, 0xc200_0001, SaState::Active),
            (Direction::In, 0xc200_0000, SaState::Retiring),
        ]
    );
    assert_eq!(row.errors, SaErrors { integrity: 4, ..SaErrors::default() });
}

#[test]
fn healthy_is_what_the_operator_wants() {
    let mut status = status(&protecting(), &saved(Protection::On, true));
    assert!(!status.is_healthy(), "the agent is dead");
    status.agent.running = true;
    assert!(!status.is_healthy(), "the agent hangs");
    status.agent.answering = true;
    assert!(status.is_healthy());
    status.peers[0].reason_code = Some(ReasonCode::Silent);
    status.summary = Summary::of_rows(&status.peers);
    assert_eq!((status.summary.protected, status.summary.silent), (1, 1));
    assert!(!status.is_healthy(), "the peer is silent");
    status.peers[0].reason_code = None;
    status.summary = Summary::of_rows(&status.peers);
    status.protection = Protection::Disabling;
    assert!(!status.is_healthy());
    status.protection = Protection::Enabling;
    assert!(status.is_healthy());
    status.peers[0].state = RowState::Clear;
    status.summary = Summary::of(status.peers.iter().map(|row| row.state));
    assert!(!status.is_healthy());
    status.protection = Protection::Off;
    assert!(status.is_healthy());
}

#[test]
fn an_old_agent_may_know_fewer_fields() {
    let mut json = serde_json::to_value(status(&protecting(), &saved(Protection::On, true))).unwrap();
    json.as_object_mut().unwrap().remove("notes");
    json["agent"].as_object_mut().unwrap().remove("drift");
    json["agent"].as_object_mut().unwrap().remove("answering");
    json["from the future"] = 5.into();
    let status: Status = serde_json::from_value(json).unwrap();
    assert_eq!((status.notes.len(), status.agent.drift), (0, None));
    assert!(status.agent.answering, "this is its answer");
}

/// What serde calls the variants of an enum: it lists them when it meets another word.
fn variants<T: serde::de::DeserializeOwned + std::fmt::Debug>() -> Vec<String> {
    let error = serde_json::from_str::<T>("\"another\"").unwrap_err().to_string();
    let (_, expected) = error.split_once("expected one of").unwrap();
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_documents_explain_every_state_and_reason() {
    let documented = include_str!("../../../docs/status.md");
    let words = [variants::<RowState>(), variants::<ReasonCode>()].concat();
    assert!(words.contains(&"protected".to_owned()) && words.contains(&"no_agent".to_owned()), "{words:?}");
    for word in words {
        assert!(documented.contains(&format!("\n| `{word}` | ")), "{word}");
    }
}

#[test]
fn a_critical_problem_makes_a_host_unwell_and_others_do_not() {
    let mut status = status(&protecting(), &saved(Protection::On, true));
    (status.agent.running, status.agent.answering) = (true, true);
    status.summary = Summary { peers: 1, protected: 1, ..Summary::default() };
    status.protection = Protection::On;
    status.problems = vec![Problem::warning(ProblemCode::ConfigDiffers, None, "another file")];
    assert!(status.is_healthy());
    status.problems.push(Problem::critical(ProblemCode::Hole, None, "disable_xfrm"));
    assert!(!status.is_healthy());
    status.protection = Protection::Off;
    assert!(!status.is_healthy(), "off as well");
}

#[test]
fn without_an_agent_the_kernel_says_when_a_peer_was_heard() {
    let mut kernel = protecting();
    let used =
        [(Direction::In, 0xc200_0001, 9), (Direction::In, 0xc200_0000, 60), (Direction::Out, 0xc100_0001, 1)];
    for (direction, spi, ago) in used {
        let sa = kernel.sas.get_mut(&SaId::of(pair(), direction, Spi(spi))).unwrap();
        sa.last_used = Some(NOW.0 - ago);
    }
    let row = row(&kernel, &saved(Protection::On, true));
    let heard = Some(UnixTime(NOW.0 - 9));
    assert_eq!((row.last_heard, row.last_heard_esp), (heard, heard), "what we sent is no sign of life");
}

#[test]
fn a_problem_of_a_later_version_can_be_read() {
    let json = r#"{"severity":"info","code":"unheard_of","node":"b","message":"m"}"#;
    let problem: Problem = serde_json::from_str(json).unwrap();
    assert_eq!(problem.code, ProblemCode::Other);
    let hole = serde_json::to_value(Problem::critical(ProblemCode::OtherIpsec, None, "m")).unwrap();
    assert_eq!((&hole["code"], &hole["severity"]), (&"other_ipsec".into(), &"critical".into()));
}

/// An agent may be newer than whoever reads what it says, such as an exporter that runs on.
#[test]
fn a_reason_of_a_later_version_costs_no_row() {
    let mut json = serde_json::to_value(row(&protecting(), &saved(Protection::On, true))).unwrap();
    json["reason_code"] = "unheard_of".into();
    let heard: PeerRow = serde_json::from_value(json).unwrap();
    assert_eq!(heard.reason_code, None);
}

const STATES: [RowState; 5] =
    [RowState::Off, RowState::Negotiating, RowState::Protected, RowState::Clear, RowState::Blocked];

/// What an agent knows whose only pair stands so.
fn knowing(state: RowState, reason: Option<ReasonCode>) -> Snapshot<'static> {
    let known = PairSnapshot { state, reason: reason.map(|code| (code, "words".to_owned())), ..blank() };
    Snapshot {
        protection: Protection::On,
        states: [(pair(), state)].into(),
        pairs: [(pair(), known)].into(),
        ..Snapshot::default()
    }
}

/// What an agent knows of a pair of which it knows nothing.
fn blank() -> PairSnapshot<'static> {
    PairSnapshot {
        state: RowState::Off,
        reason: None,
        failing_since: None,
        unrenewed: None,
        waiting: false,
        trial_left: None,
        keys: KeySnapshot::default(),
        rekeys: Vec::new(),
        peer: None,
        heard: None,
        notice: None,
        narrow: None,
        reminded_after: None,
    }
}

/// A kernel that lets the pair stand so.
fn holding(state: RowState) -> KernelState {
    let mut kernel = protecting();
    match state {
        RowState::Protected => {}
        RowState::Blocked => kernel.sas.clear(),
        _ => kernel = KernelState::default(),
    }
    kernel
}

#[test]
fn an_agent_that_hangs_leaves_the_word_to_the_kernel() {
    let agent = Agent::Hangs { pid: Some(41), patience: Duration::from_secs(1), boot: None };
    for state in [RowState::Protected, RowState::Clear, RowState::Blocked] {
        let status = status_of(&holding(state), &saved(Protection::On, true), agent);
        let row = &status.peers[0];
        assert_eq!((row.state, row.reason_code.is_none()), (state, state == RowState::Protected));
        assert!(row.reason.as_ref().is_none_or(|it| it == "the agent (pid 41) does not answer"), "{row:?}");
        assert_eq!((status.agent.running, status.agent.answering), (true, false));
        assert_eq!((status.agent.pid, status.notes.len()), (Some(41), 0));
        assert!(status.problems.iter().any(|it| it.code == ProblemCode::AgentHung && it.is_critical()));
        assert!(!status.is_healthy());
    }
}

#[test]
fn an_agent_that_answers_says_why_in_each_state() {
    let on = saved(Protection::On, true);
    for (state, code) in [
        (RowState::Off, None),
        (RowState::Protected, None),
        (RowState::Negotiating, Some(ReasonCode::InProgress)),
        (RowState::Clear, Some(ReasonCode::PeerDisabled)),
        (RowState::Blocked, Some(ReasonCode::EspBlocked)),
    ] {
        let status = told(&holding(state), &on, &knowing(state, code));
        let row = &status.peers[0];
        assert_eq!((row.state, row.reason_code), (state, code));
        assert_eq!(row.reason.as_deref(), code.map(|_| "words"));
        assert_eq!((status.agent.running, status.agent.answering, status.agent.pid), (true, true, Some(41)));
        assert!(status.problems.is_empty() && status.notes.is_empty());
        let enabling = state == RowState::Negotiating;
        assert_eq!(status.protection, if enabling { Protection::Enabling } else { Protection::On });
    }
}

/// The agent waits for its secret: it keeps no pairs, and the kernel goes on by itself.
#[test]
fn an_agent_without_pairs_leaves_the_word_to_the_kernel_and_says_why() {
    let on = saved(Protection::On, true);
    let waiting = Snapshot { protection: Protection::On, trouble: Some("no secret"), ..Snapshot::default() };
    for state in [RowState::Protected, RowState::Clear, RowState::Blocked] {
        let status = told(&holding(state), &on, &waiting);
        let row = &status.peers[0];
        assert_eq!(row.state, state);
        let why = (state != RowState::Protected).then_some((ReasonCode::Internal, "no secret"));
        assert_eq!(row.reason_code.zip(row.reason.as_deref()), why);
        assert_eq!(status.config_error.as_deref(), Some("no secret"));
        assert!(!status.is_healthy());
    }
    // One that is off is off, whatever is still in the kernel.
    assert_eq!(told(&protecting(), &on, &Snapshot::default()).peers[0].state, RowState::Off);
}

#[test]
fn what_the_agent_knows_is_in_its_row() {
    let incoming = SaId::of(pair(), Direction::In, Spi(0xc200_0001));
    let outgoing = SaId::of(pair(), Direction::Out, Spi(0xc100_0001));
    let heard = Heard { esp: None, ike: Some(UnixTime(NOW.0 - 45)), silent: true };
    let known = PairSnapshot {
        state: RowState::Protected,
        rekeys: vec![(incoming, Duration::from_secs(3588)), (outgoing, Duration::from_secs(3588))],
        heard: Some(heard),
        trial_left: Some(Duration::from_millis(59_500)),
        ..blank()
    };
    let snapshot = Snapshot {
        protection: Protection::On,
        uptime: Duration::from_secs(12),
        trial_left: Some(Duration::from_millis(59_500)),
        unread: 2,
        pairs: [(pair(), known)].into(),
        ..Snapshot::default()
    };
    let status = told(&protecting(), &saved(Protection::On, true), &snapshot);
    let row = &status.peers[0];
    let rekeys: Vec<_> = row.sas.iter().map(|sa| sa.rekey_in_s).collect();
    assert_eq!(rekeys, [Some(3588), None, Some(3588), None], "the others are on their way out");
    assert_eq!((row.last_heard, row.last_heard_esp), (heard.ike, None));
    assert_eq!((row.state, row.reason_code), (RowState::Protected, Some(ReasonCode::Silent)));
    assert!(row.reason.as_ref().is_some_and(|words| words.contains("nothing was heard for 45s")), "{row:?}");
    assert_eq!((status.try_ends_in_s, row.try_ends_in_s), (Some(60), Some(60)));
    assert_eq!((status.summary.silent, status.agent.uptime_s), (1, Some(12)));
    assert!(status.notes[0].starts_with("another program removed 2 SAs"), "{:?}", status.notes);
}

#[test]
fn where_nobody_answers_the_row_says_since_when() {
    let mut snapshot = knowing(RowState::Blocked, Some(ReasonCode::NoAnswer));
    let known = snapshot.pairs.get_mut(&pair()).unwrap();
    (known.failing_since, known.waiting) = (Some(NOW), true);
    let status = told(&holding(RowState::Blocked), &saved(Protection::On, true), &snapshot);
    assert_eq!(status.peers[0].reason.as_deref(), Some("words No answer since 2026-01-01T00:00:00Z."));
    assert_eq!(status.waiting_for, [status.peers[0].node.clone()]);
}

/// Any policies of ours, or none, and any of the SAs that [`protecting`] has.
fn any_kernel() -> impl Strategy<Value = KernelState> {
    let actions = [
        None,
        Some(Action::Seal { through: Through::Sa(Spi(0xc100_0001)) }),
        Some(Action::Seal { through: Through::Sa(Spi(0xc100_0009)) }),
        Some(Action::Require),
        Some(Action::Accept),
        Some(Action::Allow),
        Some(Action::Block),
    ];
    let action = move || prop::sample::select(actions.to_vec());
    (action(), action(), prop::collection::vec(any::<bool>(), 4)).prop_map(|(out, inbound, there)| {
        let mut kernel = protecting();
        let mut there = there.into_iter();
        kernel.sas.retain(|_, _| there.next().unwrap());
        let policies = [(PolicyDirection::Out, out), (PolicyDirection::In, inbound)];
        let policies = policies.into_iter().filter_map(|(direction, it)| Some(policy(direction, it?)));
        kernel.policies = policies.map(|policy| (policy.id, policy)).collect();
        kernel
    })
}

/// Whether clear packets can pass, by what a row says.
fn is_open(state: RowState) -> bool {
    matches!(state, RowState::Off | RowState::Negotiating | RowState::Clear)
}

proptest! {
    /// Invariant 12. Whatever an agent believes, a row is no better than what the kernel does, and it is as the kernel
    /// says where no agent knows.
    #[test]
    fn no_row_is_better_than_the_kernel(
        kernel in any_kernel(),
        state in prop::sample::select(STATES.to_vec()),
        code in prop::sample::select(vec![
            None, Some(ReasonCode::InProgress), Some(ReasonCode::NoAnswer), Some(ReasonCode::KernelError),
        ]),
        silent in any::<bool>(),
    ) {
        let on = saved(Protection::On, true);
        let seen = row(&kernel, &on).state;
        let hung = Agent::Hangs { pid: None, patience: Duration::from_secs(1), boot: None };
        prop_assert_eq!(status_of(&kernel, &on, hung).peers[0].state, seen);
        let mut snapshot = knowing(state, code);
        let heard = Heard { esp: None, ike: None, silent };
        snapshot.pairs.values_mut().for_each(|known| known.heard = Some(heard));
        let status = told(&kernel, &on, &snapshot);
        let row = &status.peers[0];
        match row.state {
            RowState::Protected => prop_assert_eq!(seen, RowState::Protected),
            RowState::Blocked => prop_assert!(!is_open(seen)),
            RowState::Off | RowState::Negotiating | RowState::Clear => {}
        }
        // Nothing is said twice: the summary counts what the rows say, and a silent row is a protected one.
        prop_assert_eq!(status.summary, Summary::of_rows(&status.peers));
        prop_assert!(!row.is_silent() || (row.state == RowState::Protected && silent));
        prop_assert_eq!(row.reason_code.is_some(), row.reason.is_some());
        // Numbers say what words say.
        let told = |evidence: &Evidence<'_>| Figures::of(evidence, None, None, Some(true));
        let figures = with_evidence(&kernel, &on, Agent::Answers { pid: 41, snapshot: &snapshot }, told);
        prop_assert_eq!((figures.healthy, figures.summary), (status.is_healthy(), status.summary));
        let pairs = figures.pairs.unwrap_or_default();
        prop_assert_eq!((pairs[0].state, pairs[0].reason), (row.state, row.reason_code));
        prop_assert_eq!((pairs[0].tx, pairs[0].rx, pairs[0].errors), (row.tx, row.rx, row.errors));
        // What it does not know better, the agent leaves as the kernel and the files have it.
        let bare = Agent::Answers { pid: 41, snapshot: &Snapshot { protection: Protection::On, ..Snapshot::default() } };
        prop_assert_eq!(status_of(&kernel, &on, bare).peers[0].state, seen);
    }
    /// Whatever the operator wants, whatever is wrong, and however the pairs stand: `healthy` is 1 where `status` ends with 0.
    #[test]
    fn a_host_is_healthy_in_numbers_where_it_is_in_words(
        kernel in prop_oneof![any_kernel(), Just(protecting())],
        state in prop::sample::select(STATES.to_vec()),
        silent in any::<bool>(),
        protection in prop::sample::select(vec![
            Protection::Off, Protection::Enabling, Protection::On, Protection::Disabling,
        ]),
        trouble in any::<bool>(),
        critical in prop::option::of(any::<bool>()),
    ) {
        let saved = saved(protection, true);
        let mut snapshot =
            Snapshot { protection, trouble: trouble.then_some("line 5"), ..knowing(state, None) };
        let heard = Heard { esp: None, ike: None, silent };
        snapshot.pairs.values_mut().for_each(|known| known.heard = Some(heard));
        let problem = critical.map(|critical| match critical {
            true => Problem::critical(ProblemCode::Mtu, None, "it is cut"),
            false => Problem::warning(ProblemCode::Mtu, None, "it may be cut"),
        });
        let agent = Agent::Answers { pid: 41, snapshot: &snapshot };
        let (status, figures) = with_evidence(&kernel, &saved, agent, |evidence| {
            (super::status(*evidence, problem.clone()), Figures::of(evidence, problem, None, None))
        });
        prop_assert_eq!(figures.healthy, status.is_healthy());
        prop_assert_eq!(figures.config_error, status.config_error.is_some());
        // And not the same for all.
        if (protection, trouble, critical, silent) == (Protection::On, false, None, false)
            && state == RowState::Protected
            && kernel == protecting()
        {
            prop_assert!(figures.healthy);
        }
        prop_assert!(critical != Some(true) || !figures.healthy);
    }
}
