//! Whether lines are those that were written: each of them in turn, from the oldest that is left.

use std::fmt;

use serde::Serialize;

use super::{AuditKind, AuditLine, ChainHead, LineHash, Torn};

/// So many flaws are told; the rest is counted.
const TOLD: usize = 100;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditFlaw {
    /// The file.
    pub file: String,
    /// The line of it, from 1; `None` where it is about none of them.
    pub line: Option<u64>,
    /// Whether the agent that wrote the lines says so itself.
    pub told: bool,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for AuditFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.what),
            None => write!(f, "{}", self.what),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditVerdict {
    /// Whether nothing is missing and nothing was altered.
    pub whole: bool,
    /// How many lines were looked at.
    pub lines: u64,
    /// The number of the first one.
    pub first: Option<u64>,
    /// The last one.
    pub head: Option<ChainHead>,
    /// What is wrong, the first hundred.
    pub flaws: Vec<AuditFlaw>,
    /// How much more.
    pub more_flaws: u64,
}

/// A check under way.
pub struct AuditCheck {
    /// Lines before the one with this hash do not count, nor does it.
    from: Option<LineHash>,
    /// The chain must begin with its first line.
    whole: bool,
    /// Heads that were told elsewhere, and no line has come yet that is one of them.
    heads: Vec<LineHash>,
    file: String,
    line: u64,
    head: Option<ChainHead>,
    torn: Torn,
    /// An agent writes these lines, and has not said that it ends.
    runs: bool,
    verdict: AuditVerdict,
}

impl AuditCheck {
    /// One of lines that lead to these `heads`, beginning behind the one that is called `from`, if that is said. They are
    /// `whole` where no older ones were ever removed.
    pub fn new(whole: bool, from: Option<LineHash>, heads: Vec<LineHash>) -> Self {
        let verdict =
            AuditVerdict { whole: true, lines: 0, first: None, head: None, flaws: Vec::new(), more_flaws: 0 };
        let (file, whole) = (String::new(), whole && from.is_none());
        Self { from, whole, heads, file, line: 0, head: None, torn: Torn::default(), runs: false, verdict }
    }

    /// The lines of this file come next.
    pub fn begin(&mut self, file: String) {
        (self.file, self.line) = (file, 0);
    }

    /// The next line, without its end.
    pub fn handle_line(&mut self, text: &[u8]) {
        self.line += 1;
        let Some(line) = AuditLine::read(text) else { return self.torn.add(text) };
        let head = ChainHead::at(&line, text);
        let torn = std::mem::take(&mut self.torn).hash();
        self.heads.retain(|wanted| *wanted != head.hash);
        match self.from {
            Some(from) => self.from = Some(from).filter(|from| *from != head.hash),
            None => {
                self.verdict.lines += 1;
                self.verdict.first.get_or_insert(line.seq);
                self.compare(&line, torn);
            }
        }
        match line.event.event {
            AuditKind::Start | AuditKind::Configured => self.runs = true,
            AuditKind::Stop | AuditKind::Released => self.runs = false,
            _ => {}
        }
        // What follows the line from which on it counts is compared with that.
        self.head = Some(head);
    }

    fn compare(&mut self, line: &AuditLine, torn: Option<LineHash>) {
        let seq = line.seq;
        match self.head {
            Some(head) if seq > head.seq.saturating_add(1) => {
                self.find(missing(head.seq.saturating_add(1), seq));
            }
            Some(head) if seq <= head.seq => {
                self.find(format!("this is line {seq}, and it stands behind line {}", head.seq));
            }
            Some(head) if line.previous != head.hash => {
                self.find(format!("line {} was altered: line {seq} holds another hash of it", head.seq));
            }
            None if seq > 1 && self.whole => self.find(missing(1, seq)),
            None if seq <= 1 && line.previous != LineHash::default() => {
                self.find("the first line holds the hash of one before it".to_owned());
            }
            _ => {}
        }
        match (torn, line.torn) {
            (Some(found), Some(told)) if found == told => {
                self.tell("what stands before this line is no line: a write did not end".to_owned());
            }
            (Some(_), _) => {
                self.find("what stands before this line is no line, and not what was there".to_owned());
            }
            // It stood in a file that is gone.
            (None, Some(_)) if self.head.is_none() && !self.whole => {}
            (None, Some(_)) => self.find("the rest of a line stood before this one, and is gone".to_owned()),
            (None, None) => {}
        }
        if self.runs && line.event.event == AuditKind::Start {
            self.tell(
                "the agent before this one ended without a last entry: its last events may be missing"
                    .to_owned(),
            );
        }
        if line.missing > 0 {
            self.tell(format!("{} events before this line could not be written", line.missing));
        }
    }

    /// No line comes any more.
    pub fn end(mut self) -> AuditVerdict {
        if self.torn.hash().is_some() {
            self.tell("the last line is none: a write did not end".to_owned());
        }
        if self.head.is_none() {
            let what =
                "there is no line: no agent has used a key here yet, or somebody has removed all lines";
            self.add(AuditFlaw { file: String::new(), line: None, told: false, what: what.to_owned() });
        }
        let from = self.from.take().map(|from| format!("no line has the hash {from}, from which on to look"));
        let heads = std::mem::take(&mut self.heads).into_iter();
        let heads =
            heads.map(|head| format!("no line has the hash {head}, which was told: lines are missing"));
        for what in from.into_iter().chain(heads) {
            self.add(AuditFlaw { file: String::new(), line: None, told: false, what });
        }
        AuditVerdict { whole: self.verdict.flaws.is_empty(), head: self.head, ..self.verdict }
    }

    fn find(&mut self, what: String) {
        self.add(AuditFlaw { file: self.file.clone(), line: Some(self.line), told: false, what });
    }

    fn tell(&mut self, what: String) {
        self.add(AuditFlaw { file: self.file.clone(), line: Some(self.line), told: true, what });
    }

    fn add(&mut self, flaw: AuditFlaw) {
        match self.verdict.flaws.len() < TOLD {
            true => self.verdict.flaws.push(flaw),
            false => self.verdict.more_flaws += 1,
        }
    }
}

/// Lines from `first` on, before `next`.
fn missing(first: u64, next: u64) -> String {
    match next.saturating_sub(1) {
        last if last <= first => format!("line {first} is missing"),
        last => format!("lines {first} to {last} are missing"),
    }
}
