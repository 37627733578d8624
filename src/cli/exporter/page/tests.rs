use std::net::IpAddr;

use proptest::prelude::*;

use super::sheet::document;
use super::*;
use crate::cli::tests::{node_name, row, status as status_with};
use crate::observe::cluster::DesiredState;
use crate::observe::member_pairs::{NODES_MAX, NodePairs, NodeVoice, PairWord};
use crate::types::{Problem, ProblemCode, Protection, ReasonCode, RowState, UnixTime};

/// When everything here was found out.
const THEN: UnixTime = UnixTime(1_000_303);

pub(super) fn word(node: &str, state: RowState) -> PairWord {
    PairWord {
        node: node_name(node),
        state: Some(state),
        reason: (state == RowState::Blocked).then_some(ReasonCode::AuthFailed),
        for_s: Some(90),
        udp: false,
        tx: 2048,
        rx: 4096,
        heard_s: Some(2),
    }
}

/// A cluster of these nodes, each with what it says.
pub(super) fn cluster(nodes: &[(&str, Option<Vec<PairWord>>)]) -> ClusterPairs {
    let nodes = nodes.iter().map(|(name, said)| NodePairs {
        node: node_name(name),
        addresses: vec![IpAddr::from([10, 99, 0, 1])],
        voice: NodeVoice::Member,
        said: said.clone(),
        is_partial: false,
    });
    let nodes: Vec<NodePairs> = nodes.collect();
    ClusterPairs {
        time: THEN,
        cluster: "demo".to_owned(),
        desired: DesiredState::On,
        total: nodes.len(),
        nodes,
    }
}

/// That of a host with one pair of each kind, the worst first.
pub(super) fn status() -> Status {
    let states = [RowState::Protected, RowState::Clear, RowState::Blocked];
    let rows = states.into_iter().zip(2..).map(|(state, at)| row(&format!("n{at}"), at, state));
    let mut rows: Vec<_> = rows.collect();
    rows.reverse();
    status_with(Protection::On, rows)
}

/// A full mesh of so many nodes where all is protected.
fn mesh(nodes: usize) -> ClusterPairs {
    let name = |at: usize| format!("n{at:02}");
    let said = |own: usize| {
        let others = (0..nodes).filter(|other| *other != own);
        others.map(|other| word(&name(other), RowState::Protected)).collect()
    };
    let names: Vec<String> = (0..nodes).map(name).collect();
    let all: Vec<(&str, Option<Vec<PairWord>>)> =
        names.iter().enumerate().map(|(at, name)| (name.as_str(), Some(said(at)))).collect();
    cluster(&all)
}

fn view(pairs: Option<ClusterPairs>) -> PageView {
    PageView { status: Some(status()), pairs, trouble: Vec::new() }
}

/// How often `part` is in `text`.
fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn a_cluster_is_a_square_of_letters_with_names_at_both_sides() {
    let mut pairs = mesh(4);
    let said = |at: usize, other: usize, state, pairs: &mut ClusterPairs| {
        let words = pairs.nodes[at].said.as_mut().unwrap();
        let word = words.iter_mut().find(|it| it.node.as_str() == format!("n{other:02}")).unwrap();
        *word = self::word(&format!("n{other:02}"), state);
    };
    // One end says it, the other does not know yet.
    said(0, 1, RowState::Blocked, &mut pairs);
    said(2, 0, RowState::Clear, &mut pairs);
    pairs.nodes[3].said = None;
    let html = document(&view(Some(pairs)), THEN);
    let grid = html.split("<table class=\"grid\">").nth(1).unwrap().split("</table>").next().unwrap();
    assert_eq!((count(grid, "scope=\"col\""), count(grid, "scope=\"row\"")), (4, 4));
    assert_eq!(count(grid, "<td class=\"x\"></td>"), 4);
    for (cell, times) in [(">B</td>", 2), (">C</td>", 2), (">P</td>", 2), (">P?</td>", 6)] {
        assert_eq!(count(grid, cell), times, "{cell}: {grid}");
    }
    // What n03 says of its pairs is not known: its three pairs on both sides, and its two headings, are hatched.
    assert_eq!((count(grid, "class=\"p h\""), count(grid, "class=\"h\"")), (6, 2), "{grid}");
    assert!(
        grid.contains("title=\"n00 – n01: blocked. n00: blocked for 1m 30s, auth failed, sent 2.00 KiB"),
        "{grid}"
    );
    assert!(html.contains("Not reached") && html.contains("<b>n03</b>"));
    let worst = html.split("Pairs that are not as they should be</caption>").nth(1).unwrap();
    let place = |part: &str| worst.find(part).unwrap_or_else(|| panic!("{part} is missing: {worst}"));
    let rows = [
        "<b>n00</b>: blocked for 1m 30s",
        "<b>n01</b>: protected",
        "<b>n00</b>: protected",
        "<b>n02</b>: clear",
    ];
    assert!(rows.map(place).is_sorted(), "the worst is first: {worst}");
    assert!(
        html.contains("<title>1 blocked, 1 clear, 1 node not heard - Cluster demo - hostseal</title>"),
        "{html}"
    );
    // Its host's rows are there, too.
    assert!(html.contains("As seen from a</h2>") && html.contains("10.99.0.1 → <wbr>10.99.0.3"));
}

/// Without a script, too: the style shows what the cell says that has the focus.
#[test]
fn each_pair_is_read_by_keyboard_and_the_square_can_be_skipped() {
    let html = document(&view(Some(mesh(4))), THEN);
    let (before, square) = html.split_once("<table class=\"grid\">").unwrap();
    let (square, after) = square.split_once("</table>").unwrap();
    let stops: Vec<&str> = square.split("<td ").filter(|cell| cell.contains("tabindex=\"0\"")).collect();
    assert_eq!(stops.len(), 6, "{square}");
    for (cell, pair) in stops.iter().zip(["n00 – n01", "n00 – n02", "n00 – n03", "n01 – n02"]) {
        assert!(cell.contains(&format!("title=\"{pair}: protected")), "{cell}");
    }
    assert!(STYLE.contains(".grid td:focus::after {\n  content: attr(title);"));
    assert!(before.contains("<a class=\"skip\" href=\"#beside\">") && after.contains("id=\"beside\""));
}

#[test]
fn a_host_of_no_cluster_shows_its_rows() {
    let mut status = status();
    status.problems = vec![Problem::critical(ProblemCode::Mtu, None, "large packets do not get through")];
    let html = document(&PageView { status: Some(status), ..PageView::default() }, THEN);
    assert!(!html.contains("class=\"grid\"") && html.contains("<h1>Host a</h1>"));
    let at = |part: &str| html.find(part).unwrap_or_else(|| panic!("{part} is missing"));
    let rows = ["As seen from a</h2>", ">n4</th>", ">n3</th>", ">n2</th>"].map(at);
    assert!(rows.is_sorted(), "as they come");
    let place = at("keys are agreed, but ESP does not get through");
    assert!(at(">n3</th>") < place && place < at(">n2</th>"), "why n3 is clear stands in its row");
    assert!(html.contains("<b>critical: </b>large packets do not get through"));
    assert!(html.contains("1.46 KiB"), "what was sent");
    assert!(html.contains("<title>1 blocked, 1 clear - Host a - hostseal</title>"));
}

#[test]
fn every_table_says_how_old_it_is_and_old_ones_that_they_are() {
    let stale = |seconds: u64| {
        let html = document(&view(Some(mesh(2))), UnixTime(THEN.0 + seconds));
        assert_eq!(count(&html, "class=\"age"), 2);
        assert_eq!(count(&html, &format!("data-age=\"{seconds}\"")), 2);
        count(&html, "class=\"age stale\"")
    };
    assert_eq!([0, 10, 11, 20, 21, 3600].map(stale), [0, 0, 1, 1, 2, 2]);
}

/// Whoever looks at other tabs sees the title alone.
#[test]
fn the_title_says_what_is_not_known_and_who_is_off_against_the_clusters_will() {
    let title = |pairs: ClusterPairs, now: UnixTime| {
        let html = document(&view(Some(pairs)), now);
        html.split("<title>").nth(1).unwrap().split(" - hostseal<").next().unwrap().to_owned()
    };
    assert_eq!(title(mesh(3), THEN), "Cluster demo");
    assert_eq!(title(mesh(3), UnixTime(THEN.0 + 21)), "stale - Cluster demo");
    let mut unreached = mesh(3);
    unreached.nodes[1..].iter_mut().for_each(|node| node.said = None);
    assert_eq!(title(unreached, THEN), "1 not known, 2 nodes not heard - Cluster demo");
    let mut off = mesh(2);
    off.nodes[0].said = Some(vec![word("n01", RowState::Off)]);
    assert_eq!(title(off.clone(), THEN), "1 off - Cluster demo");
    off.desired = DesiredState::Off;
    assert_eq!(title(off, THEN), "Cluster demo");
}

/// A node that answers nothing is one thing, and one whose answer has lost a part is another.
#[test]
fn who_is_not_heard_is_named_with_the_reason() {
    let mut pairs = mesh(4);
    (pairs.nodes[1].said, pairs.nodes[1].voice) = (None, NodeVoice::Mute);
    pairs.nodes[2].said.iter_mut().for_each(|said| said.truncate(1));
    pairs.nodes[2].is_partial = true;
    let html = document(&view(Some(pairs)), THEN);
    let after = |words: &str| html.split(words).nth(1).unwrap_or_else(|| panic!("{words} is missing"));
    assert!(after("(an older version, a busy host, or one that has just gone): ").starts_with("<b>n01</b>"));
    assert!(after("Heard in part, as the rest of the answer was lost or late: ").starts_with("<b>n02</b>"));
    assert!(!html.contains("Not reached"));
    assert!(html.contains("<b>5</b> protected, <b>3</b> of them by one end's word alone"), "{html}");
    assert!(html.contains("<title>1 not known, 2 nodes not heard - "), "{html}");
}

/// The clock was set back: that is no proof that what was heard is fresh.
#[test]
fn what_was_found_out_later_than_now_is_stale() {
    let html = document(&view(Some(mesh(2))), UnixTime(THEN.0 - 3600));
    assert_eq!((count(&html, "class=\"age stale\""), count(&html, "data-age=")), (2, 0));
    assert!(html.contains("the age is not known") && html.contains("<title>stale - Cluster demo"));
}

/// What is replaced again and again must not be read out again and again.
#[test]
fn trouble_is_told_outside_of_what_is_replaced() {
    let html = document(&PageView { trouble: vec!["no agent runs".to_owned()], ..view(None) }, THEN);
    let (before, main) = html.split_once("<main data-hostseal>").unwrap();
    assert!(
        before.contains("role=\"alert\"")
            && before.contains("no agent runs")
            && !main.contains("role=\"alert\"")
    );
}

#[test]
fn while_nothing_is_known_the_page_says_why() {
    let trouble = vec!["no agent runs (<socket> does not answer)".to_owned()];
    let html = document(&PageView { trouble: trouble.clone(), ..PageView::default() }, THEN);
    assert!(html.contains("Not known now: </b>no agent runs (&lt;socket&gt; does not answer)"), "{html}");
    let html = document(&PageView { trouble, ..view(None) }, UnixTime(THEN.0 + 60));
    assert!(html.contains("Not known now") && html.contains("age stale") && html.contains(">n4</th>"));
    assert!(html.contains("<title>stale, not known now, 1 blocked, 1 clear - "), "{html}");
}

/// However much there is to show, the page stays small enough to be asked for every five seconds.
#[test]
fn the_page_is_bounded() {
    let html = document(&view(Some(mesh(NODES_MAX))), THEN);
    assert!(html.len() < 1024 * 1024, "{} octets with short names", html.len());
    let long = |name: &crate::types::NodeName| node_name(&format!("{:x<64}", name.as_str()));
    let mut pairs = mesh(NODES_MAX);
    for node in &mut pairs.nodes {
        node.node = long(&node.node);
        for word in node.said.iter_mut().flatten() {
            (word.node, word.state) = (long(&word.node), Some(RowState::Blocked));
        }
    }
    let html = document(&view(Some(pairs)), THEN);
    assert!(html.len() < 4 * 1024 * 1024, "{} octets with all pairs blocked", html.len());
    assert!(html.contains("and 1816 more, which are no worse"));
    let rows = (0..2000).map(|_| row("n", 2, RowState::Protected)).collect();
    let many = PageView { status: Some(status_with(Protection::On, rows)), ..PageView::default() };
    let html = document(&many, THEN);
    assert!(html.len() < 1024 * 1024 && html.contains("and 1500 more"), "{}", html.len());
    // A problem with each of many hosts, and many problems that are not alike.
    let mut status = status();
    let node = |at: usize| Some(node_name(&format!("n{at}")));
    let same = (0..2000).map(|at| Problem::warning(ProblemCode::Other, node(at), format!("{at} of n{at}")));
    let words = (0..2000).map(|at| {
        let letters: String = at.to_string().bytes().map(|digit| char::from(digit + 48)).collect();
        Problem::critical(ProblemCode::Other, None, letters)
    });
    status.problems = same.collect();
    let html = document(&PageView { status: Some(status.clone()), ..PageView::default() }, THEN);
    assert_eq!(count(&html, "<li class=\"warning\">"), 1);
    assert!(html.contains("2000 times (n0, n1"), "{html}");
    status.problems.extend(words);
    let html = document(&PageView { status: Some(status), ..PageView::default() }, THEN);
    assert_eq!((count(&html, "<li class=\"critical\">"), count(&html, "<li class=\"warning\">")), (50, 0));
    assert!(html.contains("and 1951 more, which are no worse"));
    // More nodes than all pairs are shown of.
    let large = ClusterPairs { total: 65, nodes: Vec::new(), ..mesh(0) };
    let html = document(&view(Some(large)), THEN);
    assert!(html.contains("65 nodes") && html.contains("up to 64 nodes") && !html.contains("class=\"grid\""));
}

#[test]
fn the_policy_allows_what_the_page_brings_and_nothing_else() {
    let headers = headers();
    let policy = headers["content-security-policy"].to_str().unwrap();
    for part in [
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "connect-src 'self'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe") && count(policy, "'sha256-") == 2, "{policy}");
    assert_eq!(
        (&headers["x-content-type-options"], &headers["referrer-policy"]),
        (&HeaderValue::from_static("nosniff"), &HeaderValue::from_static("no-referrer"))
    );
    // The hashes are of what stands between the tags.
    let html = document(&view(Some(mesh(3))), THEN);
    for (tag, source) in [("script", "script-src"), ("style", "style-src")] {
        let (_, rest) = html.split_once(&format!("<{tag}>")).unwrap();
        let (asset, _) = rest.split_once(&format!("</{tag}>")).unwrap();
        let hash = STANDARD.encode(Sha256::digest(asset));
        assert!(policy.contains(&format!("{source} 'sha256-{hash}'")), "{policy}");
    }
    // Neither would what is written into tags be run, nor is anything fetched from elsewhere. A link within the page fetches
    // nothing.
    let html = html.replace(" href=\"#", "");
    for forbidden in ["style=\"", " on", "javascript:", "src=", "href="] {
        let outside: String = html.split(SCRIPT).collect::<Vec<_>>().join("").split(STYLE).collect();
        let tags = outside.split('<').skip(1).filter_map(|tag| tag.split('>').next());
        let tags: Vec<&str> = tags.filter(|tag| tag.contains(forbidden)).collect();
        assert!(tags.is_empty(), "{forbidden}: {tags:?}");
    }
}

/// The tags of a page, and what their attributes are called: what must not depend on what others say.
fn skeleton(html: &str) -> Vec<String> {
    let tags = html.split('<').skip(1).map(|tag| tag.split('>').next().unwrap_or_default());
    tags.map(|tag| tag.split('"').step_by(2).collect()).collect()
}

/// A page on which others have said `text` wherever they can.
fn said(text: &str) -> String {
    let name = |prefix: &str| node_name(&format!("{prefix}{text}"));
    let mut pairs = mesh(3);
    pairs.cluster = text.to_owned();
    for node in &mut pairs.nodes {
        node.node = name(node.node.as_str());
        for word in node.said.iter_mut().flatten() {
            (word.node, word.state) = (name(word.node.as_str()), Some(RowState::Blocked));
        }
    }
    let mut status = status();
    status.cluster = text.to_owned();
    status.node = Some(name(""));
    status.config_error = Some(text.to_owned());
    status.problems = vec![Problem::warning(ProblemCode::Other, Some(name("")), text.to_owned())];
    for row in &mut status.peers {
        (row.node, row.reason) = (name(""), Some(text.to_owned()));
    }
    document(&PageView { status: Some(status), pairs: Some(pairs), trouble: vec![text.to_owned()] }, THEN)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever others say, it is text: the page has the same tags, with the same attributes.
    #[test]
    fn nothing_that_others_say_becomes_more_than_text(text in "\\PC*|[<>\"'&/a-z =\u{202e}\u{0}\n-]*") {
        let html = said(&text);
        prop_assert_eq!(skeleton(&html), skeleton(&said("plain")));
        prop_assert!(!html.chars().any(|c| c != '\n' && crate::cli::term::is_steering(c)));
    }
}

#[test]
fn what_would_be_run_elsewhere_is_shown_as_it_was_said() {
    let html = said("\"><script>alert(1)</script><img src=x onerror=alert(1)>&amp;\u{202e}");
    assert_eq!(count(&html, "<script"), 1, "the page's");
    assert!(!html.contains("<img") && !html.contains('\u{202e}'));
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && html.contains("&amp;amp;"));
}
