//! Questions of `hostseal doctor`: one at a time. Who asks while another one waits gets the same answer, if it is about
//! the same node, and is refused otherwise.

use std::time::Instant;

use super::Host;
use super::core::EXAMS_MOST;
use super::ledger::Asker;
use crate::control::{DoctorReply, DoctorRequest, ErrorCode, Reply};
use crate::protect::PairMachine;
use crate::types::{Pair, RowState};

/// Those who ask at a time.
const ASKERS_MOST: usize = 8;

/// A question that is being asked.
pub(super) struct Examination {
    about: DoctorRequest,
    askers: Vec<Asker>,
}

impl Host {
    /// Begins to find out what of the paths is open.
    pub(super) fn examine(&mut self, now: Instant, asker: Asker, about: DoctorRequest) {
        if let Some(going) = &mut self.examination {
            if going.about == about && going.askers.len() < ASKERS_MOST {
                return going.askers.push(asker);
            }
            let message = "another `hostseal doctor` is at work: try again in some seconds".to_owned();
            return self.answer(now, asker, Reply::Error { code: ErrorCode::Failed, message });
        }
        let pairs = self.examined_pairs(&about);
        let mut chance = (self.chance)();
        match &mut self.core {
            Some(core) if !pairs.is_empty() => {
                core.examine(now, pairs, |octets| chance.fill(octets));
                self.examination = Some(Examination { about, askers: vec![asker] });
            }
            _ => self.answer(now, asker, Reply::Doctor(DoctorReply::default())),
        }
    }

    /// The pairs that are asked about, those that are not protected first.
    fn examined_pairs(&self, about: &DoctorRequest) -> Vec<Pair> {
        let state = |pair: &Pair| {
            let machine = self.core.as_ref().and_then(|core| core.pairs().get(pair));
            machine.map_or(RowState::Off, PairMachine::row_state)
        };
        let named = self.setup.config.pairs(&self.setup.node).into_iter();
        let named = named.filter(|(node, _)| about.node.as_ref().is_none_or(|only| only == node));
        let mut pairs: Vec<Pair> = named.map(|(_, pair)| pair).collect();
        pairs.retain(|pair| state(pair) != RowState::Off);
        pairs.sort_by_key(|pair| (state(pair) == RowState::Protected, *pair));
        pairs.truncate(EXAMS_MOST);
        pairs
    }

    /// Answers who asked, once all is found out.
    pub(super) fn answer_examination(&mut self, now: Instant) {
        if self.examination.is_none() {
            return;
        }
        let findings = match &mut self.core {
            Some(core) => core.poll_examined(now),
            // The host has gone back to the clear meanwhile.
            None => Some(Vec::new()),
        };
        let Some(findings) = findings else { return };
        let askers = self.examination.take().map(|it| it.askers).unwrap_or_default();
        for asker in askers {
            self.answer(now, asker, Reply::Doctor(DoctorReply { findings: findings.clone() }));
        }
    }
}
