//! A report as a table.

use crate::cli::columns::Columns;
use crate::cli::layout::wrap;
use crate::cli::term::Style;
use crate::observe::pair_proof::{PairProof, ProofResult, WayProof};
use crate::observe::proof_report::{ProofReport, UnaskedNode};
use crate::types::RowState;

/// From so many pairs on, those that are proven are counted and not shown.
pub(super) const MANY: usize = 50;

/// A direction is `what was delivered/what was sent encrypted`, and `what was refused/what was sent clear`.
const COLUMNS: Columns<6> = Columns {
    names: ["NODE", "LOCAL", "REMOTE", "RESULT", "TO IT", "FROM IT"],
    painted: 3,
    narrower: &[&[0, 2, 3, 4, 5], &[0, 3, 4, 5], &[0, 2, 3], &[0, 3]],
};

/// Whose report it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// This node has made it now.
    Own,
    /// It comes from a file, and its signature holds.
    Verified,
}

/// A report, to be shown.
pub(super) struct ProofSheet<'r> {
    report: &'r ProofReport,
    whose: Whose,
}

impl<'r> ProofSheet<'r> {
    pub(super) fn of(report: &'r ProofReport, whose: Whose) -> Self {
        Self { report, whose }
    }

    /// All of it, in lines of `width` columns.
    pub(super) fn text(&self, width: Option<usize>, style: Style) -> String {
        let all = &self.report.pairs;
        let quiet = |pair: &&PairProof| all.len() > MANY && pair.result == ProofResult::Proven;
        let mut shown: Vec<&PairProof> = all.iter().filter(|pair| !quiet(pair)).collect();
        shown.sort_by_key(|pair| std::cmp::Reverse(pair.result));
        let cells: Vec<[String; 6]> = shown.iter().map(|pair| cells(pair)).collect();
        let layout = COLUMNS.fitting(&cells, width);
        let mut lines = Vec::new();
        if !shown.is_empty() {
            lines.push(style.bold(&layout.names()));
        }
        for (pair, cells) in shown.iter().zip(&cells) {
            lines.push(layout.line(cells, |cell| style.state(shade(pair.result), cell)));
            lines.extend(pair.reason.iter().flat_map(|reason| layout.below(reason)));
        }
        for UnaskedNode { node, reason } in &self.report.unasked {
            lines.extend(wrap(&format!("{node} was not asked: {reason}"), width));
        }
        lines.push(String::new());
        lines.extend(wrap(&self.sum(all.len() - shown.len()), width));
        lines.join("\n") + "\n"
    }

    fn sum(&self, quiet: usize) -> String {
        let count = |result| self.report.pairs.iter().filter(|pair| pair.result == result).count();
        let names = [
            (ProofResult::Proven, "proven"),
            (ProofResult::Failed, "FAILED"),
            (ProofResult::Inconclusive, "inconclusive"),
            (ProofResult::Unsupported, "unsupported"),
        ];
        let parts = names.map(|(result, name)| (count(result), name));
        let parts: Vec<String> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        let signed = match (self.whose, &self.report.signature) {
            (Whose::Verified, _) => format!("signed by the key of {}", self.report.node),
            (Whose::Own, Some(_)) => "signed by the key of this node".to_owned(),
            (Whose::Own, None) => "not signed, as this node has no key".to_owned(),
        };
        let hidden = if quiet > 0 { format!(" ({quiet} of them not shown)") } else { String::new() };
        format!("{}{hidden}; the report is {signed}", parts.join(", "))
    }
}

fn cells(pair: &PairProof) -> [String; 6] {
    [
        pair.by.as_ref().map_or_else(|| pair.node.to_string(), |by| format!("{by}, {}", pair.node)),
        pair.local.to_string(),
        pair.remote.to_string(),
        name(pair.result).to_owned(),
        pair.out.as_ref().map_or_else(|| "-".to_owned(), way),
        pair.incoming.as_ref().map_or_else(|| "-".to_owned(), way),
    ]
}

fn name(result: ProofResult) -> &'static str {
    match result {
        ProofResult::Proven => "proven",
        ProofResult::Failed => "FAILED",
        ProofResult::Inconclusive => "inconclusive",
        ProofResult::Unsupported => "unsupported",
    }
}

fn way(way: &WayProof) -> String {
    let WayProof { clear, sealed } = way;
    let refused = clear.refused.min(clear.sent);
    format!("{}/{} encrypted, {refused}/{} refused", sealed.delivered, sealed.sent, clear.sent)
}

fn shade(result: ProofResult) -> RowState {
    match result {
        ProofResult::Proven => RowState::Protected,
        ProofResult::Failed => RowState::Clear,
        ProofResult::Inconclusive | ProofResult::Unsupported => RowState::Negotiating,
    }
}
