//! What is counted for the operator. It goes on where a host is disabled and enabled again, until its agent ends.

use std::collections::BTreeMap;

use super::Core;
use crate::ike::Counters;
use crate::store::HostRecord;
use crate::types::{AgentTally, DroppedDatagrams, Op, Repairs, SaId, SaReading, Volume};

/// What was counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct CoreCounts {
    engine: Counters,
    repairs: Repairs,
}

impl CoreCounts {
    /// The same for whoever is told; the kernel had more to tell than fitted so often.
    pub fn tally(&self, overruns: u64) -> AgentTally {
        let Self { engine, repairs } = *self;
        AgentTally {
            rekeys: engine.rekeys,
            handshakes: engine.handshakes,
            handshake_durations: engine.handshake_durations,
            ike_failures: engine.failures,
            unknown_initiators: engine.unknown_pair,
            half_open: engine.half_open,
            cookies: engine.cookies,
            dropped: DroppedDatagrams {
                malformed: engine.malformed,
                unknown_spi: engine.unknown_spi,
                not_authentic: engine.not_authentic,
                unexpected: engine.unexpected,
                fragments: engine.fragments_refused,
                first_requests: engine.first_requests_late,
                half_open: engine.half_open_dropped,
                sessions: engine.sessions_dropped,
                answers: engine.answers_refused,
                ike_sas: engine.ike_sas_refused,
                children: engine.children_refused,
                joiners: engine.joiners_refused,
                transmits: engine.transmits_dropped,
            },
            repairs,
            overruns,
        }
    }
}

impl Core {
    /// Goes on counting from there.
    pub fn count_on(&mut self, counts: CoreCounts) {
        self.engine.count_on(counts.engine);
        self.repairs = counts.repairs;
    }

    /// What it has counted, and what the cores before it had.
    pub fn counts(&self) -> CoreCounts {
        CoreCounts { engine: self.engine.counters(), repairs: self.repairs }
    }

    /// Counts what is to be put right of what was just learnt.
    pub(super) fn note_repairs(&mut self) {
        for op in self.pairs.outstanding(self.known.clone()).ops {
            *match op {
                Op::AddSa(_) | Op::DeleteSa(_) => &mut self.repairs.sas,
                Op::AddPolicy { .. } | Op::UpdatePolicy { .. } | Op::DeletePolicy { .. } => {
                    &mut self.repairs.policies
                }
            } += 1;
        }
    }

    /// All that went through the SAs of this host, of which there are `sas`.
    pub fn volume(&self, sas: &BTreeMap<SaId, SaReading>) -> Volume {
        self.accounts.volume(sas)
    }

    /// What is to be remembered of that beside the records of the pairs.
    pub fn host_record(&self) -> HostRecord {
        self.accounts.host_record(|pair| self.pairs.get(pair).is_some())
    }
}
