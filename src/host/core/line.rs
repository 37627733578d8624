//! A line of the log about a pair, with fields for programs: `node`, `local`, `remote`, `state` and `reason`.

use super::Core;
use crate::host::scheme::Scheme;
use crate::protect::PairMachine;
use crate::types::{Pair, ReasonCode, RowState};

/// What a line about a pair says of it beside its words.
pub(super) struct Line {
    node: String,
    pair: Pair,
    state: RowState,
    reason: Option<ReasonCode>,
}

/// Says `$words` of the pair of `$line`. The level of an event is fixed where it is written.
macro_rules! say {
    ($level:ident, $line:expr, $words:expr) => {{
        let Line { node, pair, state, reason } = $line;
        let reason = reason.and_then(|code| serde_json::to_value(code).ok());
        let reason = reason.as_ref().and_then(serde_json::Value::as_str);
        let (local, remote) = (pair.local, pair.remote);
        tracing::$level!(%node, %local, %remote, %state, reason, "{pair}: {}", $words);
    }};
}

impl Line {
    /// About the pair of `machine`, as it stands.
    pub(super) fn of(scheme: &Scheme, machine: &PairMachine) -> Self {
        let (pair, state) = (machine.pair(), machine.row_state());
        Self { node: node(scheme, pair), pair, state, reason: machine.reason().map(|reason| reason.code()) }
    }

    /// The name of the other host.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn warn(&self, words: &str) {
        say!(warn, self, words);
    }

    pub(super) fn info(&self, words: &str) {
        say!(info, self, words);
    }

    pub(super) fn debug(&self, words: &str) {
        say!(debug, self, words);
    }
}

impl Core {
    /// A line about a pair.
    pub(super) fn line(&self, pair: Pair) -> Line {
        let off = || Line { node: node(&self.scheme, pair), pair, state: RowState::Off, reason: None };
        self.pairs.get(pair).map_or_else(off, |machine| Line::of(&self.scheme, machine))
    }
}

/// The name of the host at the other end, or its address.
pub(super) fn node(scheme: &Scheme, pair: Pair) -> String {
    scheme.nodes.get(&pair.remote).map_or_else(|| pair.remote.to_string(), ToString::to_string)
}
