//! What is wrong with this host's system, as it was found last: logged when it comes and when it goes.

use std::collections::BTreeSet;

use crate::types::Problem;

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
            match new.is_critical() {
                true => tracing::error!("{}", new.message),
                false => tracing::info!("{}", new.message),
            }
        }
        for gone in self.there.difference(&found) {
            tracing::info!("no longer so: {}", gone.message);
        }
        self.there = found;
    }
}
