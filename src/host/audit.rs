//! The record of what was done with the key that wraps the secret: which events are to be written, and how far that has
//! come. Writing is an output, and its end an input, so that a disk that is slow or full delays nothing. An event that
//! cannot be written is tried again with the next one, and each minute; those that cannot wait are counted, and the next
//! line says so.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Host;
use super::unwrap::Leased;
use crate::config::KmsRules;
use crate::observe::audit::{AuditPlace, AuditReport, AuditWords};
use crate::store::{AuditBatch, AuditEvent, AuditKind, AuditWritten, ChainHead, SavedError};

/// So many events wait at most.
const MOST: usize = 64;
/// A disk that takes longer than this may never answer.
const SLOW: Duration = Duration::from_secs(30);
/// What could not be written is tried again after that time.
const AGAIN: Duration = Duration::from_secs(60);

/// Events on their way to the disk.
#[derive(Default)]
pub(super) struct AuditTrail {
    waiting: VecDeque<AuditEvent>,
    /// So many of the first that wait, or are being written, are in the log, as they could not be written.
    told: usize,
    /// So many before the first that waits could not.
    missing: u64,
    /// What is being written, and since when.
    writing: Option<(AuditBatch, Instant)>,
    /// Something has come since the last attempt, or that was long enough ago.
    is_due: bool,
    /// When to try again what could not be written.
    again_at: Option<Instant>,
    head: Option<ChainHead>,
    lost: u64,
    trouble: Option<String>,
    /// What the last event is about.
    about: Option<KmsRules>,
}

impl AuditTrail {
    /// Returns the events that are to be in the log now, as the disk has not answered yet and may never do so.
    fn note(&mut self, event: AuditEvent) -> Vec<AuditEvent> {
        self.waiting.push_back(event);
        self.is_due = true;
        let untold = if self.writing.is_some() { self.tell() } else { Vec::new() };
        self.keep_bound();
        untold
    }

    /// The events that are not in the log yet, and are from now on.
    fn tell(&mut self) -> Vec<AuditEvent> {
        let written = self.writing.iter().flat_map(|(batch, _)| &batch.events);
        let untold: Vec<AuditEvent> = written.chain(&self.waiting).skip(self.told).cloned().collect();
        self.told += untold.len();
        untold
    }

    /// How many events are being written.
    fn under_way(&self) -> usize {
        self.writing.as_ref().map_or(0, |(batch, _)| batch.events.len())
    }

    fn keep_bound(&mut self) {
        while self.waiting.len() > MOST {
            self.waiting.pop_front();
            // What is being written does not wait.
            self.told -= usize::from(self.told > self.under_way());
            self.missing += 1;
            self.lost += 1;
        }
    }

    /// The next thing to be written, after that which is being written.
    pub(super) fn begin(&mut self, now: Instant) -> Option<AuditBatch> {
        if self.writing.is_some() || !std::mem::take(&mut self.is_due) {
            return None;
        }
        self.again_at = None;
        let events = self.waiting.drain(..).collect();
        let batch = AuditBatch { events, missing: std::mem::take(&mut self.missing), known: self.head };
        self.writing = Some((batch.clone(), now));
        Some(batch)
    }

    /// It was written, or could not be. The line that was the last one before is still known. Returns the events that could not be written
    /// for the first time.
    fn end(&mut self, now: Instant, outcome: &Result<AuditWritten, SavedError>) -> Vec<AuditEvent> {
        let Some((batch, _)) = self.writing.take() else { return Vec::new() };
        match outcome {
            Ok(written) => {
                (self.head, self.trouble) = (Some(written.head), None);
                self.told = self.told.saturating_sub(batch.events.len());
                Vec::new()
            }
            Err(error) => {
                self.trouble = Some(error.to_string());
                self.again_at = Some(now + AGAIN);
                let untold = batch.events.iter().skip(self.told).cloned().collect();
                self.told = self.told.max(batch.events.len());
                // They stand before those that have come since, and so does what is missing.
                self.missing += batch.missing;
                batch.events.into_iter().rev().for_each(|event| self.waiting.push_front(event));
                self.keep_bound();
                untold
            }
        }
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.is_due |= self.again_at.take_if(|at| *at <= now).is_some();
    }

    /// When [`AuditTrail::handle_timeout`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.again_at
    }

    /// Whether something is being written, or is to be.
    pub(super) fn is_busy(&self) -> bool {
        self.writing.is_some() || self.is_due
    }

    /// How far it has come.
    pub(super) fn report(&self, now: Instant) -> AuditReport {
        let since = self.writing.as_ref().map(|(_, since)| now.saturating_duration_since(*since));
        let hangs = since.is_some_and(|since| since >= SLOW).then(|| "the disk does not answer".to_owned());
        let trouble = hangs.or_else(|| self.trouble.clone());
        let unwritten = trouble.as_ref().map_or(0, |_| (self.under_way() + self.waiting.len()) as u64);
        AuditReport { head: self.head, unwritten, lost: self.lost, trouble }
    }
}

impl Host {
    /// Records what was done with the key that the files name.
    pub(super) fn record(&mut self, event: AuditKind, words: AuditWords) {
        if let Some(rules) = self.leased.as_ref().map(|leased| leased.rules().clone()) {
            self.record_of(&rules, event, words);
        }
    }

    /// Records that this agent begins or ends: of the key in force, of the one that the cluster offers, or of the last one
    /// that something was recorded of, as that may not be written yet.
    pub(super) fn record_life(&mut self, event: AuditKind) {
        let in_force = self.leased.as_ref().map(Leased::rules);
        let to_ask = in_force.or(self.setup.config.key_to_ask());
        if let Some(rules) = to_ask.or(self.audit.about.as_ref()).cloned() {
            self.record_of(&rules, event, AuditWords::default());
        }
    }

    /// How far the record has come where no key is in force: of what the cluster offers, or of a key that was in force.
    pub(super) fn record_beside(&self, now: Instant) -> Option<AuditReport> {
        let is_kept = self.leased.is_none() && self.audit.about.is_some();
        is_kept.then(|| self.audit.report(now))
    }

    /// Records what was done with this key.
    pub(super) fn record_of(&mut self, rules: &KmsRules, event: AuditKind, words: AuditWords) {
        let place = AuditPlace {
            time: self.moment.wall,
            cluster: &self.setup.config.cluster,
            node: &self.setup.node.name,
            rules,
        };
        let untold = self.audit.note(words.of(event, place));
        self.audit.about = Some(rules.clone());
        log_unwritten(&untold);
    }

    /// Lines were written, or could not be. The log has them in any case: who keeps it elsewhere has heads that nobody here
    /// can change.
    pub(super) fn handle_audit_written(&mut self, now: Instant, outcome: &Result<AuditWritten, SavedError>) {
        match outcome {
            Ok(AuditWritten { head, lines }) => {
                lines.iter().for_each(|line| tracing::info!("kms audit: {line}"));
                tracing::info!("kms audit: the head is {head}");
            }
            Err(error) => tracing::error!("an audit line could not be written: {error}"),
        }
        log_unwritten(&self.audit.end(now, outcome));
    }
}

fn log_unwritten(events: &[AuditEvent]) {
    for event in events {
        // Nothing in it can fail to be written.
        let event = serde_json::to_string(event).unwrap_or_default();
        tracing::warn!("kms audit, not in the file: {event}");
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::types::UnixTime;

    fn event(number: u64) -> AuditEvent {
        AuditEvent {
            time: UnixTime(number),
            cluster: "demo".to_owned(),
            node: "a".parse().unwrap(),
            event: AuditKind::Use,
            provider: "exec".to_owned(),
            key: "k".to_owned(),
            answer: None,
            deletion_date: None,
            why: None,
            request_id: None,
            sas_cut: None,
        }
    }

    fn full() -> Result<AuditWritten, SavedError> {
        Err(SavedError::Broken { file: PathBuf::new(), reason: "no space left".to_owned() })
    }

    fn times(batch: &AuditBatch) -> Vec<u64> {
        batch.events.iter().map(|event| event.time.0).collect()
    }

    #[test]
    fn what_comes_during_a_write_is_written_next() {
        let (mut trail, now) = (AuditTrail::default(), Instant::now());
        assert!(trail.begin(now).is_none() && !trail.is_busy());
        trail.note(event(1));
        let first = trail.begin(now).unwrap();
        assert!(times(&first) == [1] && trail.begin(now).is_none(), "one at a time");
        trail.note(event(2));
        assert!(trail.begin(now).is_none());
        let written = first.lines(ChainHead::default(), None);
        trail.end(now, &Ok(written.clone()));
        let next = trail.begin(now).unwrap();
        assert_eq!((times(&next), next.known), (vec![2], Some(written.head)));
        trail.end(now, &Ok(next.lines(written.head, None)));
        assert!(!trail.is_busy());
        assert_eq!(trail.report(now).head.map(|head| head.seq), Some(2));
    }

    /// It is not tried again and again: the next event takes those along that wait, or a minute is over.
    #[test]
    fn what_cannot_be_written_waits_and_what_cannot_wait_is_counted() {
        let (mut trail, now) = (AuditTrail::default(), Instant::now());
        trail.note(event(0));
        let first = trail.begin(now).unwrap().lines(ChainHead::default(), None);
        trail.end(now, &Ok(first.clone()));
        trail.note(event(1));
        trail.begin(now).unwrap();
        assert_eq!(trail.note(event(2)), [event(1), event(2)], "the log has it at once");
        assert_eq!(trail.end(now, &full()), [], "once");
        assert_eq!((trail.report(now).unwritten, trail.report(now).lost), (2, 0));
        let again = trail.begin(now).unwrap();
        assert_eq!(
            (times(&again), again.missing, again.known),
            (vec![1, 2], 0, Some(first.head)),
            "what was written is not forgotten"
        );
        assert_eq!(trail.end(now, &full()), [], "once");
        assert!(trail.begin(now).is_none() && !trail.is_busy());
        trail.handle_timeout(now + AGAIN / 2);
        assert!(trail.begin(now).is_none() && trail.deadline() == Some(now + AGAIN));
        trail.handle_timeout(now + AGAIN);
        assert_eq!(trail.deadline(), None);
        assert_eq!(trail.begin(now).map(|batch| times(&batch)), Some(vec![1, 2]));
        assert_eq!(trail.end(now, &full()), [], "once");
        (3..=MOST as u64 + 5).for_each(|number| drop(trail.note(event(number))));
        let report = trail.report(now);
        assert_eq!((report.unwritten, report.lost, report.trouble.is_some()), (MOST as u64, 5, true));
        let batch = trail.begin(now).unwrap();
        assert_eq!((batch.missing, times(&batch)[0]), (5, 6));
        // What is given up while that is written comes after what was given up before.
        trail.note(event(100));
        trail.end(now, &full());
        let batch = trail.begin(now).unwrap();
        assert_eq!((batch.missing, times(&batch)[0], batch.events.len()), (6, 7, MOST));
        trail.end(now, &Ok(batch.lines(ChainHead::default(), None)));
        let report = trail.report(now);
        assert_eq!((report.unwritten, report.lost, report.trouble), (0, 6, None));
    }

    /// Each event is in the log before it is given up, and `status` says that nothing gets there.
    #[test]
    fn a_disk_that_never_answers_is_told() {
        let (mut trail, now) = (AuditTrail::default(), Instant::now());
        assert_eq!(trail.note(event(0)), []);
        trail.begin(now).unwrap();
        assert_eq!((trail.report(now).unwritten, trail.report(now).trouble), (0, None));
        let report = trail.report(now + SLOW);
        assert_eq!((report.unwritten, report.trouble.as_deref()), (1, Some("the disk does not answer")));
        let told: Vec<AuditEvent> = (1..200).flat_map(|number| trail.note(event(number))).collect();
        assert_eq!(told, (0..200).map(event).collect::<Vec<_>>());
        assert_eq!(trail.report(now + SLOW).lost, 199 - MOST as u64);
        assert_eq!(trail.end(now, &full()), [], "all are told");
        trail.note(event(200));
        trail.begin(now).unwrap();
        assert_eq!(trail.end(now, &full()), [event(200)]);
    }
}
