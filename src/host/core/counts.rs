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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Durations, IkeFailures, Outcomes, Rekeys};

    #[test]
    fn no_count_takes_the_place_of_another() {
        let mut handshake_durations = Durations::default();
        handshake_durations.note(std::time::Duration::from_secs(1));
        let rekeys = Rekeys { child: Outcomes { done: 1, failed: 2 }, ike: Outcomes { done: 3, failed: 4 } };
        let handshakes = Outcomes { done: 5, failed: 6 };
        let failures =
            IkeFailures { no_answer: 7, auth_failed: 8, no_proposal: 9, peer_refused: 10, internal: 11 };
        let engine = Counters {
            rekeys,
            handshakes,
            handshake_durations,
            failures,
            unknown_pair: 12,
            half_open: 13,
            cookies: 14,
            malformed: 15,
            unknown_spi: 16,
            not_authentic: 17,
            unexpected: 18,
            fragments_refused: 19,
            first_requests_late: 20,
            half_open_dropped: 21,
            sessions_dropped: 22,
            answers_refused: 23,
            ike_sas_refused: 24,
            children_refused: 25,
            joiners_refused: 26,
            transmits_dropped: 27,
            ..Counters::default()
        };
        let repairs = Repairs { sas: 28, policies: 29 };
        let dropped = DroppedDatagrams {
            malformed: 15,
            unknown_spi: 16,
            not_authentic: 17,
            unexpected: 18,
            fragments: 19,
            first_requests: 20,
            half_open: 21,
            sessions: 22,
            answers: 23,
            ike_sas: 24,
            children: 25,
            joiners: 26,
            transmits: 27,
        };
        let expected = AgentTally {
            rekeys,
            handshakes,
            handshake_durations,
            ike_failures: failures,
            unknown_initiators: 12,
            half_open: 13,
            cookies: 14,
            dropped,
            repairs,
            overruns: 30,
        };
        assert_eq!(CoreCounts { engine, repairs }.tally(30), expected);
    }
}
