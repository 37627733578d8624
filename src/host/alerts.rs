//! What is wrong with this host's system, as it was found last: logged when it comes and when it goes.

use std::collections::BTreeSet;

use crate::types::{Problem, Severity};

/// Says `$problem` in `$words`, with fields for programs. The level of an event is fixed where it is written.
macro_rules! say {
    ($level:ident, $problem:expr, $words:literal) => {{
        let Problem { code, node, message, .. } = $problem;
        let code = serde_json::to_value(code).ok();
        let reason = code.as_ref().and_then(serde_json::Value::as_str);
        let node = node.as_ref().map(crate::types::NodeName::as_str);
        tracing::$level!(node, reason, $words, message);
    }};
}

/// The problems of one kind of look.
#[derive(Debug, Default)]
pub struct Alerts {
    there: BTreeSet<Problem>,
}

impl Alerts {
    /// Takes what a look has found; says in the log what is new and what is gone.
    pub fn note(&mut self, found: impl IntoIterator<Item = Problem>) {
        let found: BTreeSet<Problem> = found.into_iter().collect();
        for new in found.difference(&self.there) {
            match new.severity {
                Severity::Critical => say!(error, new, "{}"),
                Severity::Warning => say!(warn, new, "{}"),
                Severity::Info => say!(info, new, "{}"),
            }
        }
        for gone in self.there.difference(&found) {
            say!(info, gone, "no longer so: {}");
        }
        self.there = found;
    }
}
