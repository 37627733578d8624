use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// Files so short that they are soon full.
const LONGEST: u64 = 3_000;

fn event(number: u64) -> AuditEvent {
    AuditEvent {
        time: UnixTime(1_767_225_600 + number),
        cluster: "demo".to_owned(),
        node: "a".parse().unwrap(),
        event: AuditKind::Use,
        provider: "exec".to_owned(),
        key: "k \"1\"".to_owned(),
        answer: Some("valid".to_owned()),
        deletion_date: None,
        why: None,
        request_id: Some(format!("r-{number}")),
        sas_cut: None,
    }
}

fn files(directory: &TempDir) -> AuditFiles {
    AuditFiles::of(directory.path()).with_longest(LONGEST)
}

fn batch(events: u64, missing: u64, known: Option<ChainHead>) -> AuditBatch {
    AuditBatch { events: (0..events).map(event).collect(), missing, known }
}

/// What becomes of a host.
#[derive(Debug, Clone)]
enum Fate {
    /// It writes so many lines.
    Writes(u64),
    /// It could not, and has given up so many events.
    Loses(u64),
    /// A write fails before anything is on the disk.
    Fails,
    /// A write ends in the middle of a line, and so does the host.
    Dies(usize),
    /// Likewise, and it goes on.
    Stumbles(usize),
    /// A line is whole but for its end.
    LosesEnd,
    /// The agent starts anew.
    Restarts,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => (1..4u64).prop_map(Fate::Writes),
        1 => (1..9u64).prop_map(Fate::Loses),
        1 => Just(Fate::Fails),
        1 => (1..200usize).prop_map(Fate::Dies),
        1 => (1..200usize).prop_map(Fate::Stumbles),
        1 => Just(Fate::LosesEnd),
        1 => Just(Fate::Restarts),
    ]
}

/// A write ends after these octets of a line.
fn tear(path: &Path, part: &str, is_torn: bool) {
    let mut text = fs::read_to_string(path).unwrap_or_default();
    let ends_line = is_torn || text.is_empty() || text.ends_with('\n');
    text.extend([if ends_line { "" } else { "\n" }, part]);
    fs::write(path, text).unwrap();
}

/// What is left in the end: the head, and how much was torn and lost.
fn live(files: &AuditFiles, fates: &[Fate]) -> (ChainHead, usize, usize) {
    let (mut known, mut missing, mut head) = (None, 0, ChainHead::default());
    let (mut torn, mut lost, mut is_torn) = (0, 0, false);
    for fate in fates.iter().chain([&Fate::Writes(1)]) {
        let next = batch(1, 0, None).lines(head, None).lines.remove(0);
        match fate {
            Fate::Writes(count) => {
                let written = files.append(&batch(*count, missing, known)).unwrap();
                (head, known) = (written.head, Some(written.head));
                torn += usize::from(std::mem::take(&mut is_torn));
                lost += usize::from(std::mem::take(&mut missing) > 0);
            }
            Fate::Loses(count) => missing += count,
            Fate::Fails => {
                let _lock = files.lock().unwrap();
                files.append(&batch(1, missing, known)).unwrap_err();
            }
            Fate::Dies(part) | Fate::Stumbles(part) => {
                tear(&files.current(), &next[..*part.min(&(next.len() - 1))], is_torn);
                is_torn = true;
                known = known.filter(|_| matches!(fate, Fate::Stumbles(_)));
            }
            Fate::LosesEnd => {
                let text = fs::read_to_string(files.current()).unwrap_or_default();
                if !is_torn && text.ends_with('\n') {
                    fs::write(files.current(), text.trim_end()).unwrap();
                }
            }
            Fate::Restarts => known = None,
        }
    }
    (head, torn, lost)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// What an honest host has written is whole but for what it says itself.
    #[test]
    fn whatever_becomes_of_a_host_its_lines_follow_each_other(fates in prop::collection::vec(fate(), 0..40)) {
        let directory = tempfile::tempdir().unwrap();
        let files = files(&directory);
        let (head, torn, lost) = live(&files, &fates);
        let verdict = files.check(None, vec![head.hash]).unwrap();
        prop_assert!(verdict.flaws.iter().all(|flaw| flaw.told), "{:?}", verdict.flaws);
        prop_assert_eq!(verdict.head, Some(head));
        if verdict.first == Some(1) {
            prop_assert_eq!(verdict.flaws.len(), torn + lost, "{:?}", verdict.flaws);
        }
        let length: u64 = fs::read_dir(directory.path()).unwrap().map(|it| it.unwrap().metadata().unwrap().len()).sum();
        prop_assert!(length < 9 * LONGEST, "{}", length);
    }

    /// Whoever changes lines is found out, if the head is known.
    #[test]
    fn whatever_is_changed_is_found(
        fates in prop::collection::vec(fate(), 1..12),
        change in 0..5usize,
        (one, other, at) in any::<(prop::sample::Index, prop::sample::Index, prop::sample::Index)>(),
        octet in 1..255u8,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let files = AuditFiles::of(directory.path());
        let (head, ..) = live(&files, &fates);
        let mut lines: Vec<Vec<u8>> =
            fs::read(files.current()).unwrap().trim_ascii_end().split(|it| *it == b'\n').map(<[u8]>::to_vec).collect();
        let before = lines.clone();
        let (one, other) = (one.index(lines.len()), other.index(lines.len()));
        match change {
            0 => {
                let place = at.index(lines[one].len());
                lines[one][place] ^= octet;
            }
            1 => drop(lines.remove(one)),
            2 => lines.insert(other, before[one].clone()),
            3 => lines.swap(one, other),
            _ => lines.insert(one, b"{\"seq\":7}".to_vec()),
        }
        prop_assume!(lines != before);
        let mut text = lines.join(&b'\n');
        text.push(b'\n');
        fs::write(files.current(), text).unwrap();
        let verdict = files.check(None, vec![head.hash]).unwrap();
        prop_assert!(!verdict.whole && verdict.flaws.iter().any(|flaw| !flaw.told), "{:?}", verdict.flaws);
    }
}

#[test]
fn a_line_looks_like_this() {
    let directory = tempfile::tempdir().unwrap();
    let files = files(&directory);
    let cut = AuditEvent {
        event: AuditKind::Cut,
        answer: Some("denied".to_owned()),
        sas_cut: Some(4),
        why: Some("said no".to_owned()),
        ..event(0)
    };
    let written = files.append(&AuditBatch { events: vec![cut], ..AuditBatch::default() }).unwrap();
    let line = "{\"seq\":1,\"time\":\"2026-01-01T00:00:00Z\",\"cluster\":\"demo\",\"node\":\"a\",\"event\":\"cut\",\
                \"provider\":\"exec\",\"key\":\"k \\\"1\\\"\",\"answer\":\"denied\",\"why\":\"said no\",\"request_id\":\"r-0\",\
                \"sas_cut\":4,\"previous\":\"0000000000000000000000000000000000000000000000000000000000000000\"}";
    assert_eq!(written.lines, [line]);
    assert_eq!(fs::read_to_string(files.current()).unwrap(), format!("{line}\n"));
    assert_eq!(fs::metadata(files.current()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(written.head.hash.to_string().parse(), Ok(written.head.hash));
    for wrong in ["", "00", "0x", &"+f".repeat(32), &"é".repeat(32)] {
        assert!(wrong.parse::<LineHash>().is_err(), "{wrong}");
    }
}

/// Somebody has removed lines while the agent runs, or put others in their place: it goes on from what it knows.
#[test]
fn an_agent_knows_its_last_line() {
    for other in ["", "one line"] {
        let directory = tempfile::tempdir().unwrap();
        let files = files(&directory);
        let known = files.append(&batch(3, 0, None)).unwrap().head;
        fs::remove_file(files.current()).unwrap();
        if !other.is_empty() {
            files.append(&batch(3, 5, None)).unwrap();
        }
        let head = files.append(&batch(1, 0, Some(known))).unwrap().head;
        assert_eq!(head.seq, 4);
        let verdict = files.check(None, vec![head.hash, known.hash]).unwrap();
        let words: Vec<String> = verdict.flaws.iter().map(ToString::to_string).collect();
        let expected = match other {
            "" => "lines 1 to 3 are missing",
            _ => "line 3 was altered: line 4 holds another hash of it",
        };
        assert!(words.iter().any(|words| words.contains(expected)), "{words:?}");
        assert!(words.iter().any(|words| words.contains("which was told")), "{words:?}");
    }
}

/// A gap that somebody has looked into need not be told again.
#[test]
fn a_check_can_begin_behind_a_line() {
    let directory = tempfile::tempdir().unwrap();
    let files = files(&directory);
    let first = files.append(&batch(2, 0, None)).unwrap().head;
    let gap = files.append(&batch(1, 3, Some(first))).unwrap().head;
    let head = files.append(&batch(2, 0, Some(gap))).unwrap().head;
    let verdict = files.check(None, vec![first.hash, head.hash]).unwrap();
    assert_eq!((verdict.whole, verdict.lines, verdict.flaws.len()), (false, 5, 1));
    assert!(
        verdict.flaws[0].told
            && verdict.flaws[0]
                .to_string()
                .ends_with("kms-audit.jsonl:3: 3 events before this line could not be written")
    );
    let verdict = files.check(Some(gap.hash), vec![head.hash]).unwrap();
    assert_eq!((verdict.whole, verdict.lines, verdict.first, verdict.head), (true, 2, Some(4), Some(head)));
    let copy = directory.path().join("copy");
    fs::copy(files.current(), &copy).unwrap();
    let unknown = AuditFiles::check_copies(&[copy], Some(LineHash::default()), Vec::new()).unwrap();
    assert!(!unknown.whole && unknown.flaws[0].what.contains("from which on to look"));
}

/// Nothing of ours is at the end of the file: it is not written to.
#[test]
fn a_file_of_somebody_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let files = files(&directory);
    fs::write(files.current(), vec![b'x'; 3 << 20]).unwrap();
    let words = files.append(&batch(1, 0, None)).unwrap_err().to_string();
    assert!(words.contains("move it away"), "{words}");
    assert_eq!(fs::metadata(files.current()).unwrap().len(), 3 << 20);
}

/// Whoever took over an agent can put anything into its directory, and root's commands open it.
#[test]
fn what_is_no_file_of_ours_leads_nowhere_and_keeps_nobody_waiting() {
    let names = ["kms-audit.jsonl", "kms-audit.lock"];
    let kinds = ["link", "dangling", "hard", "pipe", "directory"];
    for (name, kind) in names.iter().flat_map(|name| kinds.map(|kind| (name, kind))) {
        let directory = tempfile::tempdir().unwrap();
        let files = files(&directory);
        let (path, other) = (directory.path().join(name), directory.path().join("other"));
        let text = batch(1, 0, None).lines(ChainHead::default(), None).lines.concat();
        if kind != "dangling" {
            fs::write(&other, &text).unwrap();
        }
        match kind {
            "hard" => fs::hard_link(&other, &path).unwrap(),
            "pipe" => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            "directory" => fs::create_dir(&path).unwrap(),
            _ => symlink(&other, &path).unwrap(),
        }
        let words = files.append(&batch(1, 0, None)).unwrap_err().to_string();
        assert!(words.contains(name), "{name} {kind}: {words}");
        assert_eq!(fs::read_to_string(&other).ok(), (kind != "dangling").then_some(text), "{name} {kind}");
        if *name == names[0] {
            assert!(files.check(None, Vec::new()).is_err(), "{kind}");
        }
    }
}

/// Old files are missing only where all that are kept are there and full.
#[test]
fn lines_that_were_not_rotated_away_are_missed() {
    let directory = tempfile::tempdir().unwrap();
    let files = files(&directory);
    let old = |number: u32| directory.path().join(format!("kms-audit.jsonl.{number}"));
    files.append(&batch(3, 0, None)).unwrap();
    let text = fs::read_to_string(files.current()).unwrap();
    // The rest of a short record passes for the oldest file.
    fs::write(old(4), text.lines().last().unwrap()).unwrap();
    fs::remove_file(files.current()).unwrap();
    let head = files.append(&batch(1, 0, None)).unwrap().head;
    let verdict = files.check(None, vec![head.hash]).unwrap();
    assert!(verdict.flaws[0].to_string().ends_with("lines 1 to 2 are missing"), "{:?}", verdict.flaws);
    // What rotation removes is not missed.
    fs::remove_file(old(4)).unwrap();
    fs::write(files.current(), text).unwrap();
    for _ in 0..80 {
        files.append(&batch(1, 0, None)).unwrap();
    }
    let verdict = files.check(None, Vec::new()).unwrap();
    assert!(verdict.whole && verdict.first > Some(1), "{verdict:?}");
    // The oldest is, where the others take its place.
    fs::rename(old(3), old(4)).unwrap();
    assert!(!files.check(None, Vec::new()).unwrap().whole);
}

/// What waited in memory is gone with an agent that could not write that it ends.
#[test]
fn an_agent_that_ended_without_a_word_is_told() {
    use AuditKind::{Check, Configured, Released, Start, Stop, Use, Wrap};
    let life = |kinds: &[AuditKind]| {
        let directory = tempfile::tempdir().unwrap();
        let files = files(&directory);
        let events = kinds.iter().map(|kind| AuditEvent { event: *kind, ..event(0) }).collect();
        files.append(&AuditBatch { events, ..AuditBatch::default() }).unwrap();
        files.check(None, Vec::new()).unwrap().flaws
    };
    assert!(
        life(&[Start, Use, Check, Stop, Wrap, Start, Released, Start, Configured, Stop, Start]).is_empty()
    );
    for begin in [Start, Configured] {
        let flaws = life(&[begin, Use, Check, Start]);
        let [flaw] = &flaws[..] else { panic!("{flaws:?}") };
        assert!(flaw.told && flaw.to_string().contains(":4: the agent before this one"), "{flaw}");
    }
}

#[test]
fn no_line_at_all_is_not_a_whole_record() {
    let directory = tempfile::tempdir().unwrap();
    let files = files(&directory);
    let verdict = files.check(None, Vec::new()).unwrap();
    assert!(!verdict.whole && verdict.flaws[0].what.starts_with("there is no line"), "{verdict:?}");
    // Nothing has come since the line that somebody names.
    let head = files.append(&batch(2, 0, None)).unwrap().head;
    assert!(files.check(Some(head.hash), Vec::new()).unwrap().whole);
}
