//! The document. All that others say comes in as text and is escaped here by `maud`; what steers how text is shown, such as
//! marks that turn its direction round, is taken out of the whole of it at the end.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::board::{self, board};
use super::matrix::{MatrixTally, PairMatrix};
use super::words::{STANDINGS, age, is_old, is_wrong, left_out, mark, name, none, tally, time_words, via};
use super::{PageView, SCRIPT, STYLE};
use crate::cli::render::{alike, headline};
use crate::cli::term::is_steering;
use crate::observe::cluster::DesiredState;
use crate::observe::member_pairs::{NodePairs, NodeVoice, PairStanding};
use crate::observe::status::{Encapsulation, PeerRow, Status, Summary};
use crate::types::units::{counted, human_bytes, human_duration};
use crate::types::{Protection, Severity, UnixTime};

/// So many rows of this host are shown at most.
pub(super) const ROWS_MAX: usize = 500;
/// And so many problems, those that are alike as one.
const PROBLEMS_MAX: usize = 50;
/// So many seconds after it was found out something is old.
const OLD: u64 = 10;

/// The page at a moment.
pub(super) fn document(view: &PageView, now: UnixTime) -> String {
    let sheet = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title(view, now)) }
                style { (PreEscaped(STYLE)) }
                noscript { meta http-equiv="refresh" content="10"; }
            }
            body {
                p #lost role="status" hidden { "The exporter does not answer: everything below is old." }
                div #trouble role="alert" {
                    @for trouble in &view.trouble { p.trouble { b { "Not known now: " } (trouble) } }
                }
                (main(view, now))
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    sheet.into_string().chars().filter(|c| *c == '\n' || !is_steering(*c)).collect()
}

fn main(view: &PageView, now: UnixTime) -> Markup {
    let matrix = view.pairs.as_ref().map(|pairs| (pairs, PairMatrix::new(pairs)));
    html! {
        main data-hostseal {
            header {
                h1 { (heading(view)) }
                @if let Some(status) = &view.status {
                    @let (protection, rest) = headline(status);
                    p { b { (protection) } (rest) }
                }
            }
            @if let Some((pairs, matrix)) = &matrix { (board(pairs, matrix, now)) }
            @if let Some(status) = &view.status { (host(status, matrix.is_none(), now)) }
            footer {
                "Times are UTC. The letter in a cell says the same as its colour. "
                noscript { "This page asks again every ten seconds." }
            }
        }
    }
}

fn heading(view: &PageView) -> String {
    match (&view.pairs, &view.status) {
        (Some(pairs), _) => format!("Cluster {}", pairs.cluster),
        (None, Some(status)) => {
            status.node.as_ref().map_or("This host".to_owned(), |node| format!("Host {node}"))
        }
        (None, None) => "hostseal".to_owned(),
    }
}

/// It is read in a row of tabs: the worst comes first. What is not known, or not any more, is worse than what is.
fn title(view: &PageView, now: UnixTime) -> String {
    let trouble = view.trouble.first().map(|_| "not known now".to_owned());
    let (tally, is_on, is_stale, mute) = match (&view.pairs, &view.status) {
        (Some(pairs), _) if !pairs.nodes.is_empty() => {
            let matrix = PairMatrix::new(pairs);
            let is_mute = |node: &&NodePairs| matches!(node.voice, NodeVoice::Member | NodeVoice::Mute);
            let mute = matrix.silent().filter(is_mute).chain(matrix.partial()).count();
            let is_stale = is_old(pairs.time, now, board::OLD);
            (matrix.tally(), pairs.desired == DesiredState::On, is_stale, mute)
        }
        (_, Some(status)) => {
            let is_on = status.protection != Protection::Off;
            (tally_of(status), is_on, is_old(status.time, now, OLD), 0)
        }
        (_, None) => return "not known - hostseal".to_owned(),
    };
    let is_wrong = |standing: &PairStanding| is_wrong(*standing, is_on);
    let all = STANDINGS.into_iter().filter(is_wrong).map(Some).chain([None]);
    let bad =
        all.filter_map(|standing| tally.get(&standing).map(|count| format!("{count} {}", name(standing))));
    let mute = (mute > 0).then(|| format!("{} not heard", counted(mute, "node")));
    let stale = is_stale.then(|| "stale".to_owned());
    let bad: Vec<String> = stale.into_iter().chain(trouble).chain(bad).chain(mute).collect();
    let bad = if bad.is_empty() { String::new() } else { format!("{} - ", bad.join(", ")) };
    format!("{bad}{} - hostseal", heading(view))
}

/// The rows of this host, as they come; `alone` where it belongs to no cluster, or there is nothing to be said of that.
fn host(status: &Status, alone: bool, now: UnixTime) -> Markup {
    let node = status.node.as_ref().map_or("this host", |node| node.as_str());
    html! {
        section aria-labelledby="own" {
            h2 #own { "As seen from " (node) }
            (age(status.time, now, OLD))
            @if alone { (tally(&tally_of(status), None)) }
            (problems(status))
            @if status.peers.is_empty() {
                p { "There are no pairs." }
            } @else {
                div.wide role="region" aria-labelledby="own" tabindex="0" {
                    table.list {
                        caption { "The pairs of " (node) ", and what has flowed since they were first counted" }
                        thead {
                            tr {
                                @for column in ["State", "Node", "Addresses", "For", "Via", "Sent", "Received", "Heard", "Why"] {
                                    th scope="col" { (column) }
                                }
                            }
                        }
                        tbody { @for row in status.peers.iter().take(ROWS_MAX) { (own_row(row, status.time)) } }
                    }
                }
                (left_out(usize::try_from(status.summary.peers).unwrap_or(usize::MAX), ROWS_MAX, "hostseal status --all"))
            }
        }
    }
}

fn own_row(row: &PeerRow, now: UnixTime) -> Markup {
    html! {
        tr {
            td.state { (mark(Some(standing(row)))) }
            th scope="row" { (row.node) }
            td.address { (row.local) " → " wbr; (row.remote) }
            td.number {
                @match row.since {
                    Some(since) => time datetime=(since) title=(time_words(since)) { (human_duration(now.since(since))) },
                    None => (none()),
                }
            }
            td { @if row.key_bits.is_some() { (via(row.encapsulation == Encapsulation::Udp)) } @else { (none()) } }
            td.number { (human_bytes(row.tx.bytes)) }
            td.number { (human_bytes(row.rx.bytes)) }
            td.number {
                @match row.last_heard {
                    Some(heard) => time datetime=(heard) title=(time_words(heard)) { (human_duration(now.since(heard))) " ago" },
                    None => (none()),
                }
            }
            td.why { @if let Some(reason) = &row.reason { (reason) } }
        }
    }
}

fn problems(status: &Status) -> Markup {
    let error = status.config_error.as_ref();
    let mut problems = alike(&status.problems);
    problems.sort_by_key(|alike| alike.first.severity);
    html! {
        @if !status.problems.is_empty() || error.is_some() {
            ul.problems aria-label="Problems" {
                @if let Some(error) = error {
                    li.critical { b { "the files are not in force: " } (error) }
                }
                @for alike in problems.iter().take(PROBLEMS_MAX) {
                    @let severity = severity(alike.first.severity);
                    li class=(severity) { b { (severity) ": " } (alike.about) (alike.first.message) }
                }
            }
            (left_out(problems.len(), PROBLEMS_MAX, "hostseal status"))
        }
    }
}

/// Silent rows are counted as protected, too.
fn tally_of(status: &Status) -> MatrixTally {
    let Summary { protected, negotiating, clear, blocked, off, silent, .. } = status.summary;
    let counts = [
        (PairStanding::Protected, protected.saturating_sub(silent)),
        (PairStanding::Silent, silent),
        (PairStanding::Off, off),
        (PairStanding::Negotiating, negotiating),
        (PairStanding::Clear, clear),
        (PairStanding::Blocked, blocked),
    ];
    let some = counts.into_iter().filter(|(_, count)| *count > 0);
    some.map(|(standing, count)| (Some(standing), usize::try_from(count).unwrap_or(usize::MAX))).collect()
}

/// How the pair of a row stands.
pub(super) fn standing(row: &PeerRow) -> PairStanding {
    PairStanding::of(row.state, row.reason_code)
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}
