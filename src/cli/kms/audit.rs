//! `hostseal kms audit`: whether the audit lines of this host are those that were written; and lines of what root does
//! with the key by other commands.

use std::time::{Duration, SystemTime};

use crate::cli::args::{AuditArgs, Invocation};
use crate::cli::context;
use crate::cli::exit::{CommandError, Exit};
use crate::cli::term::{print, print_json, tell};
use crate::config::{Config, KmsRules};
use crate::observe::audit::{AuditPlace, AuditReport, AuditWords};
use crate::store::{AuditBatch, AuditFiles, AuditKind, AuditVerdict, LineHash, Places, Saved};
use crate::types::units::counted;

/// How long the agent has to say what its last line is: without its word, there is one check less.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(invocation: &Invocation, args: &AuditArgs) -> Result<Exit, CommandError> {
    let AuditArgs { head, from, json, files } = args;
    let checked = match &files[..] {
        [] => {
            let places = Places::of(&invocation.config);
            // What it says now is on the disk already.
            let own = last_line_of_agent(invocation);
            let heads = head.iter().copied().chain(own).collect();
            AuditFiles::of(&places.state_dir).check(*from, heads)
        }
        copies => AuditFiles::check_copies(copies, *from, head.clone()),
    };
    let verdict = checked.map_err(CommandError::from)?;
    if *json {
        print_json(&verdict)?;
    } else {
        print(&sheet(&verdict))?;
    }
    Ok(if verdict.whole { Exit::Done } else { Exit::Degraded })
}

/// The last line that the agent knows of, where one runs.
fn last_line_of_agent(invocation: &Invocation) -> Option<LineHash> {
    let (config, _) = context::config_at_work(invocation).ok()?;
    let status = context::client(&config).status_within(PATIENCE).ok()?;
    Some(status.audit()?.head?.hash)
}

fn sheet(verdict: &AuditVerdict) -> String {
    let AuditVerdict { whole, lines, first, head, flaws, more_flaws } = verdict;
    let count = counted(usize::try_from(*lines).unwrap_or(usize::MAX), "line");
    let mut sheet: String = flaws.iter().map(|flaw| format!("{flaw}\n")).collect();
    if *more_flaws > 0 {
        sheet += &format!("and {more_flaws} more\n");
    }
    let verdict = if *whole { "whole" } else { "NOT whole" };
    sheet += &match (first, head) {
        (Some(first), Some(head)) => format!("{verdict}: {count}, from line {first} to {head}\n"),
        _ => format!("{verdict}: 0 lines\n"),
    };
    sheet
}

/// How far the record of a host has come.
pub(super) fn in_words(audit: Option<&AuditReport>) -> String {
    let Some(AuditReport { head, unwritten, lost, trouble }) = audit else {
        return "the agent keeps none: it is older than this command".to_owned();
    };
    let head = head.map_or_else(|| "no line yet".to_owned(), |head| head.to_string());
    let lost = if *lost > 0 { format!("; {lost} events have no line") } else { String::new() };
    match trouble {
        Some(trouble) => format!("{unwritten} events wait to be written: {trouble}{lost}"),
        None => format!("{head}{lost}"),
    }
}

/// Records what root had the KMS do with a key, and what that said. A host whose secret no key wraps has no record, unless
/// its cluster is about to have one; nor has one that had no agent yet.
pub(in crate::cli) fn note(config: &Config, rules: &KmsRules, event: AuditKind, words: AuditWords) {
    let has_record = config.kms.is_some() || context::is_member(config);
    if !has_record || !config.state_dir.is_dir() {
        return;
    }
    if let Err(error) = record(config, rules, event, words) {
        tell(&format!("this is not on record: {}", error.message));
    }
}

fn record(
    config: &Config,
    rules: &KmsRules,
    event: AuditKind,
    words: AuditWords,
) -> Result<(), CommandError> {
    let remembered = Saved::load(&config.state_path()).ok().and_then(|saved| saved.node);
    let node = &context::whoami(config, remembered.as_ref())?.name;
    let place = AuditPlace { time: SystemTime::now().into(), cluster: &config.cluster, node, rules };
    let batch = AuditBatch { events: vec![words.of(event, place)], ..AuditBatch::default() };
    AuditFiles::of(&config.state_dir).append(&batch)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{AuditFlaw, ChainHead};

    #[test]
    fn a_verdict_names_what_is_wrong_and_where() {
        let head = Some(ChainHead { seq: 9, ..ChainHead::default() });
        let zeros = LineHash::default();
        let whole =
            AuditVerdict { whole: true, lines: 7, first: Some(3), head, flaws: Vec::new(), more_flaws: 0 };
        assert_eq!(sheet(&whole), format!("whole: 7 lines, from line 3 to line 9, {zeros}\n"));
        let flaw = AuditFlaw {
            file: "f".to_owned(),
            line: Some(4),
            told: false,
            what: "line 5 is missing".to_owned(),
        };
        let broken = AuditVerdict { whole: false, flaws: vec![flaw], more_flaws: 2, ..whole };
        let expected = "f:4: line 5 is missing\nand 2 more\nNOT whole: 7 lines";
        assert!(sheet(&broken).starts_with(expected), "{}", sheet(&broken));
        let none =
            AuditVerdict { whole: true, lines: 0, first: None, head: None, flaws: Vec::new(), more_flaws: 0 };
        assert_eq!(sheet(&none), "whole: 0 lines\n");
    }

    #[test]
    fn status_says_how_far_the_record_is() {
        let report = AuditReport { lost: 2, ..AuditReport::default() };
        assert_eq!(in_words(Some(&report)), "no line yet; 2 events have no line");
        let stuck = AuditReport { unwritten: 3, trouble: Some("disk full".to_owned()), ..report };
        assert_eq!(in_words(Some(&stuck)), "3 events wait to be written: disk full; 2 events have no line");
    }
}
