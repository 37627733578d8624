//! A diagnosis as lines: what came of each check, what was seen, and what to do below.

use crate::cli::layout::wrap;
use crate::cli::term::Style;
use crate::observe::doctor::{Check, CheckResult, Diagnosis};

/// With more peers than this, checks of peers that are ok are counted, not shown.
const PEERS_SHOWN: usize = 16;

/// All of it, in lines of `width` columns.
pub(super) fn text(diagnosis: &Diagnosis, width: Option<usize>, style: Style) -> String {
    let checks = diagnosis.checks();
    let mut peers: Vec<_> = checks.iter().filter_map(|check| check.node.as_ref()).collect();
    peers.sort();
    peers.dedup();
    let many = peers.len() > PEERS_SHOWN;
    let is_shown = |check: &&Check| !many || check.node.is_none() || check.result != CheckResult::Ok;
    let shown: Vec<&Check> = checks.iter().filter(is_shown).collect();
    let widest = |of: fn(&Check) -> usize| shown.iter().map(|check| of(check)).max().unwrap_or(0);
    let id = widest(|check| check.id.as_str().len());
    let node = widest(|check| check.node.as_ref().map_or(1, |node| node.as_str().len()));
    let mut text = String::new();
    for check in &shown {
        let name = check.node.as_ref().map_or("-", |node| node.as_str());
        let result = style.check(check.result, &format!("{:<7}", check.result));
        let head = format!("{result}  {:<id$}  {name:<node$}  ", check.id);
        let indent = 7 + 2 + id + 2 + node + 2;
        let room = width.map(|width| width.saturating_sub(indent).max(20));
        let mut lines = check.detail.lines().flat_map(|line| wrap(line, room));
        text += &format!("{head}{}\n", lines.next().unwrap_or_default());
        let fix = check.fix.iter().flat_map(|fix| wrap(&format!("-> {fix}"), room));
        lines.chain(fix).for_each(|line| text += &format!("{:indent$}{line}\n", ""));
    }
    let hidden = checks.len() - shown.len();
    if hidden > 0 {
        text += &format!("… and {hidden} checks of peers that are ok (--json has them)\n");
    }
    text + "\n" + &sum(diagnosis) + "\n"
}

fn sum(diagnosis: &Diagnosis) -> String {
    let results = [CheckResult::Fail, CheckResult::Warn, CheckResult::Unknown, CheckResult::Ok];
    let counts = results.into_iter().map(|result| (diagnosis.count(result), result));
    let counts: Vec<String> =
        counts.filter(|(count, _)| *count > 0).map(|(count, result)| format!("{count} {result}")).collect();
    format!("checks: {}", counts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::doctor::CheckId;

    #[test]
    fn what_to_do_stands_below_what_was_seen() {
        let checks = vec![
            Check::ok(CheckId::Kernel, "7.2"),
            Check::fail(CheckId::Esp, "ESP (IP protocol 50) does not get through")
                .about(&"b".parse().unwrap())
                .mended_by("Open it"),
        ];
        let diagnosis = Diagnosis::new(checks);
        assert_eq!(
            text(&diagnosis, None, Style::PLAIN),
            "ok       kernel  -  7.2\n\
             FAIL     esp     b  ESP (IP protocol 50) does not get through\n\
             \x20                   -> Open it\n\
             \n\
             checks: 1 FAIL, 1 ok\n"
        );
        let narrow = text(&diagnosis, Some(40), Style::PLAIN);
        assert!(narrow.lines().all(|line| line.len() <= 40), "{narrow}");
        assert!(text(&diagnosis, None, Style::COLOURED).contains("\x1b[1;31mFAIL   \x1b[0m"));
    }

    #[test]
    fn of_many_peers_only_what_is_not_ok_is_shown() {
        let name = |number: usize| format!("node{number}").parse().unwrap();
        let mut checks: Vec<Check> =
            (0..20).map(|number| Check::ok(CheckId::Pair, "protected").about(&name(number))).collect();
        checks.push(Check::warn(CheckId::Version, "older").about(&name(7)));
        let text = text(&Diagnosis::new(checks), None, Style::PLAIN);
        assert!(text.contains("older") && text.contains("… and 20 checks"), "{text}");
        assert_eq!(text.lines().count(), 4);
    }
}
