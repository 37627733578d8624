//! All pairs of a cluster, as a square of letters and what is to be said of it in words.

use std::cmp::Reverse;

use maud::{Markup, html};

use super::matrix::{PairCell, PairMatrix};
use super::words::{
    age, age_words, class, code_words, hatched, is_wrong, left_out, letter, mark, name, tally, via,
};
use crate::observe::cluster::DesiredState;
use crate::observe::member_pairs::{ClusterPairs, NODES_MAX, NodePairs, NodeVoice, PairStanding, PairWord};
use crate::types::UnixTime;
use crate::types::units::{counted, human_bytes, listed};

/// So many pairs that are not as they should be are shown in words at most: of more, the worst.
const WORST_MAX: usize = 200;
/// With more nodes than that, the cells are small.
const MANY: usize = 32;
/// So many seconds after the nodes were asked their words are old. They are asked every ten seconds at most.
pub(super) const OLD: u64 = 20;

/// How all pairs stand.
pub(super) fn board(pairs: &ClusterPairs, matrix: &PairMatrix<'_>, now: UnixTime) -> Markup {
    let desired = match pairs.desired {
        DesiredState::On => "It is to be protected.",
        DesiredState::Off => "It is to be in the clear.",
        DesiredState::Unset => "Nobody has said yet whether it is to be protected.",
    };
    html! {
        section aria-labelledby="pairs" {
            h2 #pairs { "All pairs" }
            p { (counted(pairs.total, "node")) ", " (counted(pairs.total * pairs.total.saturating_sub(1) / 2, "pair")) ". " (desired) }
            @if pairs.nodes.is_empty() {
                p { "All pairs are shown of up to " (NODES_MAX) " nodes. `hostseal status --cluster` shows how the nodes stand." }
            } @else {
                (age(pairs.time, now, OLD))
                (tally(&matrix.tally(), Some(matrix.half_protected())))
                p {
                    "Each cell is the pair of two nodes, and stands as the worse of what its two ends say. "
                    "What the other end says of a pair with a floating address is not in the square: `hostseal status` there shows it."
                }
                a.skip href="#beside" { "Skip the square" }
                div.board {
                    (grid(matrix))
                    div.beside #beside {
                        p #detail aria-hidden="true" { "Point at a cell, or go there with the Tab key, to read what both ends say." }
                        (unreached(matrix))
                        (worst(pairs, matrix))
                    }
                }
            }
        }
    }
}

fn grid(matrix: &PairMatrix<'_>) -> Markup {
    let heading = |node: &NodePairs| (node.said.is_none() || node.is_partial).then_some("h");
    let look = |pair: &PairCell<'_>| {
        format!("{}{}", class(pair.standing()), if pair.is_whole() { "" } else { " h" })
    };
    let names = matrix.short_names();
    html! {
        div.wide role="region" aria-labelledby="pairs" tabindex="0" {
            table.grid.many[names.len() > MANY] {
                caption.unseen { "The pairs of all nodes with all others" }
                thead {
                    tr {
                        td {}
                        @for (node, name) in matrix.nodes().zip(&names) {
                            th scope="col" class=[heading(node)] title=(node.node) { span { (name) } }
                        }
                    }
                }
                tbody {
                    @for (at, (node, name)) in matrix.nodes().zip(&names).enumerate() {
                        tr {
                            th scope="row" class=[heading(node)] title=(addresses(node)) { span { (name) } }
                            @for (column, cell) in matrix.row(at).enumerate() {
                                @match cell {
                                    Some(pair) => {
                                        // By keyboard each pair is read once, above the diagonal.
                                        td class=(look(&pair)) title=(in_short(&pair)) tabindex=[(at < column).then_some(0)] {
                                            (letter(pair.standing()))
                                            @if !pair.is_whole() && pair.standing().is_some() { "?" }
                                        }
                                    }
                                    None => td.x {},
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn addresses(node: &NodePairs) -> String {
    format!("{}: {}", node.node, listed(&node.addresses, 4))
}

/// The nodes that say nothing, or not all, and why.
fn unreached(matrix: &PairMatrix<'_>) -> Markup {
    let groups = [
        (NodeVoice::Member, "Not reached (is the agent running there, and does UDP 500 get through?)"),
        (
            NodeVoice::Mute,
            "Reached lately, but without an answer (an older version, a busy host, or one that has just gone)",
        ),
        (NodeVoice::NotJoined, "Not joined yet"),
        (NodeVoice::Foreign, "Other software, which says nothing of itself"),
    ];
    html! {
        @for (voice, words) in groups {
            @let nodes: Vec<&NodePairs> = matrix.silent().filter(|node| node.voice == voice).collect();
            @if !nodes.is_empty() {
                p.unreached { (hatched()) " " (words) ": "
                    b { (listed(nodes.iter().map(|node| &node.node), NODES_MAX)) } }
            }
        }
        @let partial: Vec<&NodePairs> = matrix.partial().collect();
        @if !partial.is_empty() {
            p.unreached { (hatched()) " Heard in part, as the rest of the answer was lost or late: "
                b { (listed(partial.iter().map(|node| &node.node), NODES_MAX)) } }
        }
    }
}

/// The pairs that are not as they should be, with what both ends say.
fn worst(pairs: &ClusterPairs, matrix: &PairMatrix<'_>) -> Markup {
    let is_on = pairs.desired == DesiredState::On;
    let is_bad = |pair: &PairCell<'_>| pair.standing().is_some_and(|standing| is_wrong(standing, is_on));
    let mut bad: Vec<PairCell<'_>> = matrix.pairs().filter(is_bad).collect();
    bad.sort_by_key(|pair| Reverse(pair.standing()));
    html! {
        @if bad.is_empty() {
            p { "All pairs whose state is known are as they should be." }
        } @else {
            div.wide role="region" aria-label="Pairs that are not protected" tabindex="0" {
                table.list {
                    caption { "Pairs that are not as they should be" }
                    thead {
                        tr {
                            th scope="col" { "State" }
                            th scope="col" { "What one end says" }
                            th scope="col" { "What the other says" }
                        }
                    }
                    tbody {
                        @for pair in bad.iter().take(WORST_MAX) {
                            tr {
                                th.state scope="row" { (mark(pair.standing())) }
                                @for (end, word) in pair.ends.iter().zip(pair.words) {
                                    td { b { (end) } ": " (said(word)) }
                                }
                            }
                        }
                    }
                }
            }
            (left_out(bad.len(), WORST_MAX, "hostseal status --cluster"))
        }
    }
}

/// A pair in a line.
fn in_short(pair: &PairCell<'_>) -> String {
    let [one, other] = pair.ends;
    let all_is_well = pair.is_whole()
        && pair.words.iter().flatten().all(|word| word.standing() == Some(PairStanding::Protected));
    match pair.words {
        [Some(word), Some(back)] if all_is_well => {
            let time = word.for_s.min(back.for_s).map(|time| format!(" for {}", age_words(time)));
            format!(
                "{one} – {other}: protected{}, {}; {one} sent {}, {other} sent {}",
                time.unwrap_or_default(),
                via(word.udp),
                human_bytes(word.tx),
                human_bytes(back.tx)
            )
        }
        [word, back] => {
            let standing = name(pair.standing());
            format!("{one} – {other}: {standing}. {one}: {}. {other}: {}", said(word), said(back))
        }
    }
}

/// What an end says.
fn said(word: Option<&PairWord>) -> String {
    let Some(word) = word else { return "not known".to_owned() };
    let time = word.for_s.map(|time| format!(" for {}", age_words(time)));
    let reason = word.reason.map(|reason| format!(", {}", code_words(reason)));
    let traffic = (word.tx > 0 || word.rx > 0)
        .then(|| format!(", sent {}, received {}", human_bytes(word.tx), human_bytes(word.rx)));
    let heard = word.heard_s.map(|heard| format!(", heard the other {} ago", age_words(heard)));
    let parts = [time, reason, traffic, heard].into_iter().flatten();
    format!("{}{}", name(word.standing()), parts.collect::<String>())
}
