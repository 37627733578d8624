mod published;

use std::time::Duration;

use super::*;
use crate::config::Mode;
use crate::observe::KeyReport;
use crate::observe::audit::AuditReport;
use crate::observe::cluster::DesiredState;
use crate::observe::cluster_figures::{ClusterFigures, KeyCounts, NodeCounts, RefusedCounts};
use crate::observe::figures::{PairFigures, PolicyCounts, ProblemCount};
use crate::observe::kms::KeyStanding;
use crate::observe::kms::tests::report;
use crate::observe::status::Encapsulation;
use crate::store::ChainHead;
use crate::types::{
    DroppedDatagrams, IkeFailures, Problem, Protection, ReasonCode, Rekeys, Repairs, Traffic,
};

/// Of a host where much is wrong.
pub(crate) fn figures() -> Figures {
    let mut tally = AgentTally {
        rekeys: Rekeys { child: Outcomes { done: 4, failed: 101 }, ike: Outcomes { done: 102, failed: 103 } },
        handshakes: Outcomes { done: 2, failed: 104 },
        ike_failures: IkeFailures {
            no_answer: 105,
            auth_failed: 106,
            no_proposal: 107,
            peer_refused: 108,
            internal: 109,
        },
        unknown_initiators: 110,
        half_open: 111,
        cookies: 3,
        dropped: DroppedDatagrams {
            malformed: 112,
            unknown_spi: 113,
            not_authentic: 114,
            unexpected: 115,
            fragments: 116,
            first_requests: 117,
            half_open: 118,
            sessions: 119,
            answers: 120,
            ike_sas: 121,
            children: 122,
            joiners: 123,
            transmits: 124,
        },
        repairs: Repairs { sas: 125, policies: 126 },
        overruns: 127,
        ..AgentTally::default()
    };
    tally.handshake_durations.note(Duration::from_millis(20));
    tally.handshake_durations.note(Duration::from_millis(600));
    Figures {
        version: "0.1.0".to_owned(),
        cluster: "demo".to_owned(),
        node: Some("a".parse().unwrap()),
        config_id: "5f3a1d0c9be2a771".to_owned(),
        secret_id: None,
        mode: Mode::Require,
        protection: Protection::On,
        healthy: false,
        started: UnixTime(1_767_225_600),
        config_error: false,
        summary: Summary { peers: 1, protected: 1, silent: 1, ..Summary::default() },
        problems: vec![ProblemCount { code: ProblemCode::Mtu, severity: Severity::Critical, count: 2 }],
        earliest_expiry: Some(UnixTime(1_767_312_000)),
        earliest_rekey_due: None,
        volume: Some(Volume {
            tx: Traffic { bytes: 1500, packets: 3 },
            rx: Traffic { bytes: u64::MAX, packets: 4 },
            errors: SaErrors { replay: 1, replay_window: 0, integrity: 2 },
        }),
        sas: 2,
        policies: PolicyCounts { out: 3, inbound: 4, forward: 1 },
        tally,
        kernel: [("XfrmInNoStates".to_owned(), 2), ("XfrmInError".to_owned(), 0)].into(),
        cluster_part: Some(ClusterFigures {
            cluster_id: "6f0c".to_owned(),
            roster_id: "aa31".to_owned(),
            entries: 7,
            desired: DesiredState::On,
            overridden: true,
            nodes: NodeCounts { joined: 4, not_joined: 3, foreign: 2, held_out: 1 },
            unheard: 2,
            differing: 1,
            duplicates: 1,
            conflicts: 1,
            keys: KeyCounts { due: 1, offered: 2, current: 4 },
            pending: 3,
            refused: RefusedCounts { not_signed: 312, put_off: 4, ..RefusedCounts::default() },
        }),
        kms: Some(KeyReport {
            last_use: Some(UnixTime(1_767_225_603)),
            lease_left_s: Some(10_000),
            answers: [(KeyStanding::Valid, 7), (KeyStanding::Unavailable, 2)].into(),
            audit: Some(AuditReport {
                head: Some(ChainHead { seq: 12, ..ChainHead::default() }),
                unwritten: 3,
                lost: 4,
                trouble: Some("full".to_owned()),
            }),
            ..report(KeyStanding::Unavailable, false, true)
        }),
        kms_audit: None,
        pairs: Some(vec![PairFigures {
            node: "b".parse().unwrap(),
            local: "10.99.0.1".parse().unwrap(),
            remote: "10.99.0.2".parse().unwrap(),
            state: RowState::Protected,
            reason: Some(ReasonCode::Silent),
            since: Some(UnixTime(1_767_225_601)),
            encapsulation: Encapsulation::Udp,
            tx: Traffic { bytes: 1500, packets: 3 },
            rx: Traffic::default(),
            errors: SaErrors::default(),
            heard_esp: None,
            heard_ike: Some(UnixTime(1_767_225_602)),
            rekey_due: None,
            expiry: Some(UnixTime(1_767_312_000)),
        }]),
    }
}

/// Without what people read, and the many series of problems that are not there.
fn samples(text: &str) -> String {
    let is_zero = |line: &str| line.starts_with("hostseal_problems{") && line.ends_with(" 0");
    let lines = text.lines().filter(|line| !line.starts_with("# HELP") && !is_zero(line));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_an_agent_says() {
    assert_eq!(samples(&text(&figures())), include_str!("tests/host.txt"));
}

#[test]
fn without_its_agent_a_host_has_what_is_still_true() {
    assert_eq!(samples(&away(Some(&LastKnown::from(&figures())))), include_str!("tests/away.txt"));
    let rebooted = samples(&away(Some(&LastKnown::from(&figures()).rebooted())));
    assert!(rebooted.contains("{mode=\"require\",state=\"on\"}") && !rebooted.contains("hostseal_pairs"));
    let disabled = samples(&away(Some(&LastKnown::from(&figures()).disabled())));
    assert!(disabled.contains("{mode=\"require\",state=\"off\"}") && !disabled.contains("expiry"));
    assert_eq!(samples(&away(None)), "# TYPE hostseal_agent_up gauge\nhostseal_agent_up 0\n");
}

#[test]
fn each_kind_of_problem_is_there_from_the_start() {
    let page = text(&Figures { problems: Vec::new(), ..figures() });
    let zeros = page.lines().filter(|line| line.starts_with("hostseal_problems{") && line.ends_with(" 0"));
    assert_eq!(zeros.count(), ProblemCode::ALL.len() * Severity::ALL.len());
    assert!(page.contains("hostseal_problems{code=\"agent_hung\",severity=\"critical\"} 0\n"));
}

#[test]
fn without_pairs_only_that_is_said() {
    let page = text(&Figures { pairs: None, ..figures() });
    assert!(page.ends_with("\nhostseal_pair_series_enabled 0\n"), "{page}");
    let none = text(&Figures { pairs: Some(Vec::new()), ..figures() });
    assert!(none.ends_with("\nhostseal_pair_series_enabled 1\n"), "{none}");
}

/// What could not be written turns out after the figures were made.
#[test]
fn a_critical_problem_makes_a_host_unhealthy() {
    let mut figures = Figures { healthy: true, problems: Vec::new(), ..figures() };
    figures.add_problems(&[Problem::warning(ProblemCode::Mtu, None, "")]);
    assert!(figures.healthy);
    figures.add_problems(&[Problem::critical(ProblemCode::StateNotSaved, None, "")]);
    assert!(!figures.healthy);
    let counts: Vec<u64> = figures.problems.iter().map(|it| it.count).collect();
    assert_eq!(counts, [1, 1]);
}
