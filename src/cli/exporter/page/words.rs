//! The words, letters and marks that the parts of the page have in common.

use std::time::Duration;

use maud::{Markup, html};

use super::matrix::MatrixTally;
use crate::observe::member_pairs::PairStanding;
use crate::types::units::human_duration;
use crate::types::{ReasonCode, UnixTime};

/// How pairs can stand, the worst first.
pub(super) const STANDINGS: [PairStanding; 6] = [
    PairStanding::Blocked,
    PairStanding::Clear,
    PairStanding::Off,
    PairStanding::Negotiating,
    PairStanding::Silent,
    PairStanding::Protected,
];

/// When something was found out, and how old that makes it. The script goes on counting.
pub(super) fn age(of: UnixTime, now: UnixTime, limit: u64) -> Markup {
    let seconds = seconds(of, now);
    html! {
        p.age.stale[is_old(of, now, limit)] data-age=[seconds] data-limit=(limit) {
            strong { "Stale: " } "as of " time datetime=(of) { (time_words(of)) } ", "
            @match seconds {
                Some(seconds) => { b { (age_words(seconds)) } " old" },
                None => "in the future: the clock was set back, so the age is not known",
            }
        }
    }
}

/// Whether that is old by now, or may be.
pub(super) fn is_old(of: UnixTime, now: UnixTime, limit: u64) -> bool {
    seconds(of, now).is_none_or(|seconds| seconds > limit)
}

/// How old it is; `None` where the clock was set back since.
fn seconds(of: UnixTime, now: UnixTime) -> Option<u64> {
    (of <= now).then(|| now.since(of).as_secs())
}

/// Whether a pair that is to be protected, or is not, should stand otherwise.
pub(super) fn is_wrong(standing: PairStanding, is_to_be_protected: bool) -> bool {
    match standing {
        PairStanding::Protected => false,
        PairStanding::Off => is_to_be_protected,
        _ => true,
    }
}

pub(super) fn age_words(seconds: u64) -> String {
    human_duration(Duration::from_secs(seconds))
}

/// A point in time, for people.
pub(super) fn time_words(time: UnixTime) -> String {
    time.to_string().replace('T', " ").replace('Z', " UTC")
}

/// How many pairs stand how, which is the legend too.
/// Where both ends are to be heard, `half` of the protected ones are so by the word of one end.
pub(super) fn tally(tally: &MatrixTally, half: Option<usize>) -> Markup {
    let all = STANDINGS.into_iter().map(Some).chain(half.map(|_| None));
    html! {
        ul.tally aria-label="How many pairs stand how" {
            @for standing in all {
                @let count = tally.get(&standing).copied().unwrap_or_default();
                // The nought is said as well: the list explains the letters.
                li.none[count == 0] {
                    span class=(class(standing)) aria-hidden="true" { (letter(standing)) }
                    " " b { (count) } " " (name(standing))
                    @if let (Some(PairStanding::Protected), Some(half @ 1..)) = (standing, half) {
                        ", " b { (half) } " of them by one end's word alone"
                    }
                }
            }
            @if half.is_some() { li.note { (hatched()) " hatched, or with \"?\": the word of an end is missing" } }
        }
    }
}

/// A sentence about the rows that have no room.
pub(super) fn left_out(all: usize, most: usize, command: &str) -> Markup {
    html! {
        @if all > most {
            p { "and " (all - most) " more, which are no worse: see `" (command) "`" }
        }
    }
}

/// The mark of what was not said.
pub(super) fn hatched() -> Markup {
    html! { span.h aria-hidden="true" { "\u{2009}" } }
}

/// The mark of what is not known.
pub(super) fn none() -> Markup {
    html! { span.dim { "–" } }
}

/// What says how a pair stands: a letter and the word.
pub(super) fn mark(standing: Option<PairStanding>) -> Markup {
    html! { span class=(class(standing)) aria-hidden="true" { (letter(standing)) } " " (name(standing)) }
}

pub(super) fn letter(standing: Option<PairStanding>) -> &'static str {
    match standing {
        Some(PairStanding::Protected) => "P",
        Some(PairStanding::Off) => "O",
        Some(PairStanding::Silent) => "S",
        Some(PairStanding::Negotiating) => "N",
        Some(PairStanding::Clear) => "C",
        Some(PairStanding::Blocked) => "B",
        None => "?",
    }
}

/// What the sheet of styles calls it: the letter, or `u`.
pub(super) fn class(standing: Option<PairStanding>) -> &'static str {
    match standing {
        Some(PairStanding::Protected) => "p",
        Some(PairStanding::Off) => "o",
        Some(PairStanding::Silent) => "s",
        Some(PairStanding::Negotiating) => "n",
        Some(PairStanding::Clear) => "c",
        Some(PairStanding::Blocked) => "b",
        None => "u",
    }
}

pub(super) fn name(standing: Option<PairStanding>) -> &'static str {
    match standing {
        Some(PairStanding::Protected) => "protected",
        Some(PairStanding::Off) => "off",
        Some(PairStanding::Silent) => "silent",
        Some(PairStanding::Negotiating) => "negotiating",
        Some(PairStanding::Clear) => "clear",
        Some(PairStanding::Blocked) => "blocked",
        None => "not known",
    }
}

pub(super) fn via(udp: bool) -> &'static str {
    if udp { "ESP in UDP" } else { "ESP" }
}

/// A code as people say it: `no_answer` is "no answer".
pub(super) fn code_words(code: ReasonCode) -> String {
    // Plain data: writing it to memory has nothing to fail at.
    let code = serde_json::to_value(code).unwrap_or_default();
    code.as_str().unwrap_or_default().replace('_', " ")
}
