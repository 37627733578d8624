use super::course::{ClusterCourse, only_waits};
use super::ready::NotReady;
use super::sheet::Seen;
use super::status::only;
use crate::cli::exit::Exit;
use crate::cli::present::Shown as _;
use crate::cli::render::Extent;
use crate::cli::term::Style;
use crate::observe::cluster::{
    ClockSkew, ClusterStatus, ClusterSummary, ConflictRow, DesiredState, KeyProgress, MemberRow,
    MemberTrouble,
};
use crate::types::{Problem, ProblemCode, Protection, UnixTime, Unready};

const NOW: UnixTime = UnixTime(1_767_225_600);

fn node(name: &str, last: u8, peers: u64) -> MemberRow {
    MemberRow {
        name: name.parse().unwrap(),
        addresses: vec![[10, 0, 0, last].into()],
        admin: name == "a",
        foreign: false,
        answers: true,
        last_heard: Some(NOW),
        version: Some("0.2.0".to_owned()),
        protection: Some(Protection::On),
        local: None,
        rows: Some(peers),
        protected: Some(peers),
        under_way: Some(0),
        waiting: Some(0),
        roster_id: Some("aa31f0e1d2c3b4a5".to_owned()),
        config_id: None,
        secret_id: None,
        keys: Some(KeyProgress::Current),
        wrapped: None,
        clock_skew_s: None,
        unready: None,
        unready_code: None,
        reason_code: None,
        reason: None,
    }
}

fn cluster(nodes: Vec<MemberRow>) -> ClusterStatus {
    let sum = |count: fn(&MemberRow) -> Option<u64>| nodes.iter().filter_map(count).sum();
    let summary = ClusterSummary {
        nodes: nodes.len(),
        answering: nodes.iter().filter(|node| node.answers).count(),
        rows: sum(|node| node.rows),
        protected: sum(|node| node.protected),
    };
    ClusterStatus {
        schema: 1,
        cluster: "prod".to_owned(),
        cluster_id: "6f0c112233445566".to_owned(),
        roster_id: "aa31f0e1d2c3b4a5".to_owned(),
        node: nodes.first().map(|node| node.name.clone()),
        desired: DesiredState::On,
        try_ends_in_s: None,
        settings_try_end_in_s: None,
        consistent: true,
        summary,
        conflicts: Vec::new(),
        problems: Vec::new(),
        nodes,
    }
}

/// Five nodes that are as they should be.
pub(super) fn five() -> ClusterStatus {
    cluster([("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)].map(|(name, last)| node(name, last, 4)).into())
}

/// So many nodes with long names and two addresses each; a third of them has a trouble.
pub(super) fn crowd(count: u16) -> ClusterStatus {
    let node = |at: u16| {
        let mut node = node(&format!("storage-node-{at}.example.net"), 1, u64::from(count) - 1);
        node.addresses =
            vec![[10, 99, 0, 1].into(), [0x2001, 0xdb8, 0xffff, 0xeeee, 0xdddd, 0xcccc, 0xbbbb, at].into()];
        match at % 6 {
            1 => unheard(&mut node),
            3 => {
                (node.protected, node.reason_code) = (Some(7), Some(MemberTrouble::NotProtected));
                node.reason =
                    Some(format!("{at} of its pairs are not protected, such as the one with storage-node-2"));
            }
            _ => {}
        }
        node
    };
    cluster((0..count).map(node).collect())
}

fn unheard(node: &mut MemberRow) {
    *node = MemberRow {
        answers: false,
        last_heard: Some(UnixTime(NOW.0 - 180)),
        version: None,
        protection: None,
        rows: None,
        protected: None,
        under_way: None,
        waiting: None,
        roster_id: None,
        reason_code: Some(MemberTrouble::NoAnswer),
        reason: Some(format!("no answer from {} on UDP 500 for 3m: is it up?", node.addresses[0])),
        ..node.clone()
    };
}

fn text(status: ClusterStatus, extent: Extent) -> String {
    Seen { status, now: NOW }.text(extent, Style::PLAIN)
}

#[test]
fn five_nodes_that_are_well() {
    let text = text(five(), Extent { width: Some(80), ..Extent::default() });
    let expected = "\
cluster prod · protection on · 5 nodes, all answer · 20 rows protected
cluster id 6f0c11223344 · roster id aa31f0e1d2c3 · seen from a

NODE  ADDRESSES  ROLE   PROTECTION  PAIRS  ROSTER  VERSION  HEARD
a     10.0.0.1   admin  on          4/4    same    0.2.0    here
b     10.0.0.2   node   on          4/4    same    0.2.0    now
c     10.0.0.3   node   on          4/4    same    0.2.0    now
d     10.0.0.4   node   on          4/4    same    0.2.0    now
e     10.0.0.5   node   on          4/4    same    0.2.0    now

all 5 nodes are as they should be
";
    assert_eq!(text, expected, "\n{text}");
}

/// A cluster in which much is wrong at once.
fn troubled() -> ClusterStatus {
    let mut nodes = five().nodes;
    let trouble = |node: &mut MemberRow, code, reason: &str| {
        (node.reason_code, node.reason) = (Some(code), Some(reason.to_owned()));
    };
    nodes[1].addresses.push("2001:db8:1:2:3:4:5:2".parse().unwrap());
    nodes[1].protected = Some(2);
    trouble(
        &mut nodes[1],
        MemberTrouble::NotProtected,
        "2 of its pairs are not protected: d and e do not answer",
    );
    nodes[2].protection = Some(Protection::Off);
    nodes[2].local = Some(Protection::Off);
    nodes[2].protected = Some(0);
    trouble(
        &mut nodes[2],
        MemberTrouble::Overridden,
        "its operator has disabled it: `hostseal enable` there",
    );
    unheard(&mut nodes[3]);
    unheard(&mut nodes[4]);
    let mut foreign = node("db", 9, 0);
    unheard(&mut foreign);
    nodes.push(MemberRow { foreign: true, last_heard: None, reason_code: None, reason: None, ..foreign });
    let mut status = cluster(nodes);
    status.consistent = false;
    status.try_ends_in_s = Some(62);
    status.conflicts.push(ConflictRow {
        about: "settings".to_owned(),
        winner: "a".to_owned(),
        loser: "b".to_owned(),
        message: "a and b have set the settings at once, and a's count: `hostseal settings set` settles it"
            .to_owned(),
    });
    let words = "its secret is another one";
    status.problems.push(Problem::critical(ProblemCode::SecretDiffers, Some("b".parse().unwrap()), words));
    status
}

#[test]
fn nodes_that_are_not_well_come_first_and_say_why() {
    let text = text(troubled(), Extent { width: Some(80), ..Extent::default() });
    let expected = "\
cluster prod · protection on · 6 nodes, 3 answer · 6 of 12 rows protected
on trial for 1m 2s more, then back to what was before: `hostseal confirm
--cluster` keeps it
cluster id 6f0c11223344 · roster id aa31f0e1d2c3 · seen from a
problem: a and b have set the settings at once, and a's count: `hostseal
settings set` settles it
problem: b: its secret is another one

NODE  ROLE     PROTECTION  PAIRS  ROSTER  VERSION  HEARD
d     node     -           -      -       -        3m ago
  10.0.0.4
  2 nodes alike: no answer from 10.0.0.4 on UDP 500 for 3m: is it up?
e     node     -           -      -       -        3m ago
  10.0.0.5
c     node     off (own)   0/4    same    0.2.0    now
  10.0.0.3
  its operator has disabled it: `hostseal enable` there
b     node     on          2/4    same    0.2.0    now
  10.0.0.2, 2001:db8:1:2:3:4:5:2
  2 of its pairs are not protected: d and e do not answer
a     admin    on          4/4    same    0.2.0    here
  10.0.0.1
db    foreign  -           -      -       -        -
  10.0.0.9

2 of 6 nodes as they should be, 4 are not
";
    assert_eq!(text, expected, "\n{text}");
}

#[test]
fn settings_on_trial_are_shown_with_what_keeps_them() {
    let status = ClusterStatus { settings_try_end_in_s: Some(41), ..five() };
    let text = text(status, Extent::default());
    let line = "settings on trial for 41s more, then back to those before: `hostseal confirm --cluster` on an admin node keeps \
                them\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn any_cluster_fits_its_terminal_and_breaks_no_address() {
    for (count, columns) in [(5, 80), (200, 80), (200, 200), (60, 48), (60, 41)] {
        let status = crowd(count);
        let text = text(status.clone(), Extent { all: true, width: Some(columns), ..Extent::default() });
        for line in text.lines() {
            assert!(line.chars().count() <= columns, "{columns}: {line:?}\n{text}");
        }
        for node in &status.nodes {
            let shown = node.addresses[1].to_string();
            assert!(text.split_whitespace().any(|word| word == shown), "{columns}: {shown}\n{text}");
        }
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words.matches("on UDP 500").count(), 1, "{text}");
        assert!(count < 60 || words.contains(&format!(" {} nodes alike: 3 of", count / 6)), "{text}");
    }
}

#[test]
fn of_many_nodes_only_those_that_are_not_well_are_shown() {
    let short = text(crowd(51), Extent::default());
    assert!(short.contains("storage-node-1.") && !short.contains("storage-node-2."), "{short}");
    assert!(
        short.ends_with(
            "34 of 51 nodes as they should be, 17 are not (34 of them not shown: --all shows them)\n"
        ),
        "{short}"
    );
    assert!(text(crowd(51), Extent { all: true, ..Extent::default() }).contains("storage-node-2."));
    assert!(text(crowd(50), Extent::default()).contains("storage-node-2."));
}

#[test]
fn a_screen_shows_the_head_and_as_many_nodes_as_have_room() {
    for (count, columns, height) in [(5, 80, 24), (200, 80, 24), (200, 200, 50), (200, 41, 10), (0, 80, 24)] {
        let seen = Seen { status: crowd(count), now: NOW };
        let extent = Extent { width: Some(columns), ..Extent::default() };
        let lines = seen.sheet(extent, Style::PLAIN).screen((extent.width, height), Style::PLAIN);
        let text = lines.join("\n");
        assert!(lines.len() <= height && lines[0].starts_with("cluster prod"), "{columns}x{height}\n{text}");
        assert!(count < 200 || text.contains("out of view"), "{text}");
    }
}

#[test]
fn who_asks_for_a_node_hears_more_of_it() {
    let mut status = troubled();
    status.nodes[1].secret_id = Some("91c2".to_owned());
    status.nodes[1].clock_skew_s = Some(ClockSkew { ms: -1500 });
    let status = only(status, &["b".to_owned()]).unwrap();
    let text = text(status, Extent { details: true, ..Extent::default() });
    for part in
        ["roster id aa31f0e1d2c3b4a5", "secret id 91c2", "its clock is 1.500 s behind", "6 nodes, 3 answer"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("its operator has disabled it"), "{text}");
    let unknown = only(five(), &["b".to_owned(), "zoe".to_owned()]).unwrap_err();
    assert_eq!(unknown.exit, Exit::Usage);
    assert_eq!(unknown.message, "there is no node \"zoe\" in the cluster; it has a, b, c, d, e");
}

#[test]
fn colours_take_no_room() {
    let seen = Seen { status: troubled(), now: NOW };
    let mut plain = seen.text(Extent::default(), Style::COLOURED);
    assert!(plain.contains("\x1b[1;31moff (own)"), "{plain}");
    for code in ["\x1b[32m", "\x1b[33m", "\x1b[1;31m", "\x1b[31m", "\x1b[1m", "\x1b[0m"] {
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, seen.text(Extent::default(), Style::PLAIN));
}

#[test]
fn json_is_what_the_member_said() {
    let status = troubled();
    let json = serde_json::to_string(&Seen { status: status.clone(), now: NOW }).unwrap();
    assert_eq!(serde_json::from_str::<ClusterStatus>(&json).unwrap(), status);
    assert_eq!(Seen { status, now: NOW }.exit(), Exit::Degraded);
    assert_eq!(Seen { status: five(), now: NOW }.exit(), Exit::Done);
}

#[test]
fn nodes_that_keep_a_cluster_from_being_enabled() {
    assert!(NotReady::of(&five(), false).is_empty());
    let mut status = troubled();
    status.nodes[4].reason_code = Some(MemberTrouble::NotJoined);
    status.nodes[2].roster_id = Some("bb".to_owned());
    let not_ready = NotReady::of(&status, false);
    assert_eq!(not_ready.lines(), ["  d: no answer", "  e: not joined yet", "  c: another roster than here"]);
    assert_eq!((not_ready.count(), not_ready.may_pass()), (3, false), "e waits for its operator");
    status.nodes[4].reason_code = None;
    status.nodes[2].version = Some("0.1.9".to_owned());
    let not_ready = NotReady::of(&status, false);
    let old = "  c: hostseal 0.1.9, which is older than 0.2.0 here: update it";
    assert_eq!(not_ready.lines(), ["  d, e: no answer", old]);
    status.nodes[2].version = Some("0.2.0".to_owned());
    assert!(NotReady::of(&status, false).may_pass());
    status.nodes[2].roster_id = Some(status.roster_id.clone());
    status.nodes[2].unready = Some("its kernel has no ESP".to_owned());
    let not_ready = NotReady::of(&status, false);
    assert_eq!(not_ready.lines(), ["  d, e: no answer", "  c: its kernel has no ESP"]);
    assert!(!not_ready.may_pass(), "somebody has to mend it");
    status.nodes[2].unready_code = Some(Unready::NoEsp);
    assert!(!NotReady::of(&status, false).may_pass());
    status.nodes[2].unready_code = Some(Unready::Other);
    assert!(NotReady::of(&status, false).may_pass(), "its kernel may have had no memory");
    // Whose token was used twice is no member, and keeps nobody from anything.
    for at in 2..5 {
        status.nodes[at].reason_code = Some(MemberTrouble::HeldOut);
    }
    assert!(NotReady::of(&status, false).is_empty(), "neither is software of others");
}

#[test]
fn a_trial_asks_for_clocks_that_agree() {
    let mut status = five();
    status.nodes[2].clock_skew_s = Some(ClockSkew { ms: -11_000 });
    assert!(NotReady::of(&status, false).is_empty());
    let lines = NotReady::of(&status, true).lines();
    assert_eq!(lines, ["  c: its clock differs by more than 10 s: a trial ends by the clock"]);
}

#[test]
fn many_nodes_that_are_not_ready_have_a_line_for_each_reason() {
    let lines = NotReady::of(&crowd(200), false).lines();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].ends_with("and 26 more: no answer"), "{}", lines[0]);
}

/// Whether `enable --cluster` goes on to wait where this has become of a node that answered.
fn goes_on(change: impl Fn(&mut MemberRow)) -> bool {
    let mut status = five();
    let course = ClusterCourse::new(DesiredState::On, &status);
    change(&mut status.nodes[1]);
    !course.is_over(&status)
}

#[test]
fn it_is_over_when_nothing_more_can_happen_without_somebody() {
    assert!(!goes_on(|_| {}));
    assert!(goes_on(|node| node.protection = Some(Protection::Off)), "it has not heard of it yet");
    assert!(goes_on(|node| (node.protected, node.under_way) = (Some(2), Some(1))));
    assert!(
        !goes_on(|node| (node.protected, node.under_way) = (Some(2), Some(0))),
        "the rest has failed, or waits"
    );
    assert!(goes_on(|node| (node.protected, node.under_way) = (Some(2), None)), "it does not say");
    assert!(!goes_on(|node| (node.protection, node.local) = (Some(Protection::Off), Some(Protection::Off))));
    assert!(!goes_on(|node| node.protection = Some(Protection::Enabling)));
    assert!(goes_on(unheard), "one that answered at first may answer again");
    assert!(!goes_on(|node| node.reason_code = Some(MemberTrouble::HeldOut)));
}

#[test]
fn nobody_waits_for_a_node_that_was_not_there_from_the_start() {
    let mut status = five();
    unheard(&mut status.nodes[4]);
    for node in &mut status.nodes[..4] {
        (node.protected, node.under_way, node.waiting) = (Some(3), Some(0), Some(1));
        node.reason_code = Some(MemberTrouble::NotProtected);
    }
    let course = ClusterCourse::new(DesiredState::On, &status);
    assert!(course.is_over(&status));
    assert!(only_waits(&status));
    assert_eq!(course.behind(&status).map(|node| node.name.as_str()).collect::<Vec<_>>(), ["e"]);
    // A pair that failed is something else, and so is a node that does not say.
    for waiting in [Some(0), None] {
        let mut failed = status.clone();
        failed.nodes[0].waiting = waiting;
        assert!(!only_waits(&failed));
    }
    status.consistent = false;
    assert!(!only_waits(&status));
    assert!(!only_waits(&five()), "nothing is waited for");
}

#[test]
fn the_way_to_the_clear_ends_when_all_are_there() {
    let mut status = five();
    status.desired = DesiredState::Off;
    let course = ClusterCourse::new(DesiredState::Off, &status);
    assert!(!course.is_over(&status));
    assert_eq!(course.behind(&status).count(), 5);
    for node in &mut status.nodes {
        (node.protection, node.protected) = (Some(Protection::Off), Some(0));
    }
    assert!(course.is_over(&status));
    status.nodes[3].protection = Some(Protection::Disabling);
    assert!(!course.is_over(&status));
    // Its operator wants it protected whatever the cluster is to do.
    status.nodes[3].local = Some(Protection::On);
    assert!(course.is_over(&status));
    status.nodes[3].local = None;
    status.desired = DesiredState::On;
    assert!(course.is_over(&status), "somebody wants something else by now");
}
