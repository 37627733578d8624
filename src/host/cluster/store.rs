//! The store that members share, where this host's file names one.

use std::time::Instant;

use hostseal_store_protocol::StoredEntry;

use crate::host::Host;
use crate::host::shared_store::{SharedStore, StoreEvent};
use crate::types::Problem;

impl Host {
    /// Another store is asked from now on, or none.
    pub fn begin_store(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            cluster.store = SharedStore::default();
        }
    }

    /// Whether what is heard of the store can be taken.
    pub fn hears_store(&self) -> bool {
        self.core.as_ref().is_some_and(|core| core.membership().is_some())
    }

    /// Something was heard of the store.
    pub fn handle_store(&mut self, now: Instant, event: StoreEvent) {
        let (Some(core), Some(cluster)) = (&mut self.core, &mut self.cluster) else { return };
        let Some(members) = core.membership() else { return };
        cluster.store.handle(now, event, members.roster(), members.own());
    }

    /// The next entry that the store is to have.
    pub fn poll_store(&mut self, now: Instant) -> Option<StoredEntry> {
        let roster = self.core.as_ref()?.membership()?.roster();
        self.cluster.as_mut()?.store.poll_put(now, roster)
    }

    /// Looks at what the store has, and at what it lacks.
    pub(super) fn go_on_with_store(&mut self, now: Instant) {
        let (Some(core), Some(cluster)) = (&mut self.core, &mut self.cluster) else { return };
        let part = cluster.store.poll_look(now);
        if !part.is_empty() {
            let values: Vec<Vec<u8>> = part.iter().map(|entry| entry.value.clone()).collect();
            let carried = core.handle_stored(now, &values);
            if let Some(members) = core.membership() {
                cluster.store.handle_looked(now, part, &carried, members.roster());
            }
        }
        let Some(members) = core.membership_mut() else { return };
        if !members.is_up_to_date() && cluster.store.is_ahead_of(members.roster()) {
            members.handle_store_listed();
        }
        cluster.store.compare(now, members.roster(), members.own());
    }

    /// What is wrong with the store, where there is to be one.
    pub(in crate::host) fn store_problems(&self) -> Vec<Problem> {
        let prefix = self.setup.config.store.as_ref().map(|rules| &rules.prefix);
        let store = self.cluster.as_ref().filter(|_| self.core.is_some()).map(|cluster| &cluster.store);
        let problems = store.zip(prefix).map(|(store, prefix)| store.problems(self.moment.now, prefix));
        problems.unwrap_or_default()
    }
}
