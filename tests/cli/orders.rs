//! What the agent is ordered: `enable`, `confirm` and `disable`.

use hostseal::control::{ErrorCode, Reply, Request};
use hostseal::observe::status::Status;
use hostseal::store::Saved;
use hostseal::types::{Protection, RowState};

use super::place::Place;

#[test]
fn confirming_says_what_there_was_to_confirm() {
    let place = Place::new();
    place.run("confirm").failed_with(4, &["no agent runs", "`hostseal enable` starts one"]);
    let on_trial = |seconds| match place.status(Protection::On, RowState::Protected) {
        Reply::Status(status) => Reply::Status(Box::new(Status { try_ends_in_s: seconds, ..*status })),
        other => other,
    };
    let over = Reply::Error { code: ErrorCode::Failed, message: "protection is off".to_owned() };
    let replies = vec![on_trial(Some(42)), on_trial(Some(42)), Reply::Done, on_trial(None), Reply::Done];
    let agent = place.agent(replies.into_iter().chain([on_trial(None), over]).collect());
    let table = place.run("status");
    assert!(
        table.out.contains("on trial for 42s more") && table.out.contains("hostseal confirm"),
        "{table:?}"
    );
    let done = place.run("confirm");
    assert_eq!((done.exit, done.out.as_str()), (0, "confirmed: protection stays\n"), "{done:?}");
    let done = place.run("confirm");
    assert!(done.exit == 0 && done.out.starts_with("nothing to confirm"), "{done:?}");
    place.run("confirm").failed_with(1, &["protection is off"]);
    let asked = [Request::Status, Request::Status, Request::Confirm];
    assert_eq!(agent.join().unwrap()[..3], asked);
}

#[test]
fn strict_and_prefer_contradict_each_other() {
    let place = Place::new();
    place.prepend("protection.mode = \"prefer\"\n");
    place.run("enable --strict").failed_with(2, &["--strict", "protection.mode = \"prefer\""]);
}

#[test]
fn disable_waits_until_everything_is_clear() {
    let place = Place::new();
    let agent = place.agent(vec![
        Reply::Done,
        Reply::Done,
        place.progress(1, Protection::Disabling, RowState::Protected),
        place.progress(2, Protection::Off, RowState::Off),
        place.status(Protection::Off, RowState::Off),
    ]);
    let done = place.run("disable");
    assert_eq!(done.exit, 0, "{done:?}");
    assert!(done.out.contains("2 pairs in the clear, on purpose"), "{}", done.out);
    assert!(
        done.err.contains("b 198.51.100.2 protected\n") && done.err.contains("b 198.51.100.2 off\n"),
        "{}",
        done.err
    );
    let asked = agent.join().unwrap();
    assert_eq!(asked[..2], [Request::Ping, Request::Disable]);
    assert!(matches!(asked[2..4], [Request::Follow { after: 0, .. }, Request::Follow { after: 1, .. }]));
    assert_eq!(asked[4..], [Request::Status]);
}

#[test]
fn disable_is_done_when_the_agent_ended_after_it() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("disable_is_done_when_the_agent_ended_after_it needs root: it reads the kernel's tables");
        return;
    }
    let place = Place::new();
    let disabling = place.progress(1, Protection::Disabling, RowState::Protected);
    let agent = place.agent(vec![Reply::Done, Reply::Done, disabling]);
    let done = place.run("disable");
    assert_eq!(done.exit, 0, "{done:?}");
    assert!(done.out.starts_with("protection off"), "{}", done.out);
    agent.join().unwrap();
    assert_eq!(place.run("disable").exit, 0, "and it was off already");
}

#[test]
fn disable_needs_an_agent_where_protection_is_on() {
    let place = Place::new();
    Saved { protection: Protection::On, ..Saved::default() }.save(&place.path("state/state.json")).unwrap();
    place.run("disable").failed_with(4, &["no agent runs", "`hostseal disable --force`"]);
    let agent = place.agent(vec![Reply::Done, Reply::Done]);
    place.run("disable").failed_with(4, &["no agent runs"]);
    agent.join().unwrap();
}

#[test]
fn a_disable_that_takes_longer_is_3() {
    let place = Place::new();
    let disabling = place.progress(1, Protection::Disabling, RowState::Protected);
    let last = place.status(Protection::Disabling, RowState::Protected);
    let replies = vec![Reply::Done, Reply::Done, disabling.clone(), disabling.clone(), disabling, last];
    let agent = place.agent(replies);
    let done = place.run("disable --timeout 1s --quiet");
    assert_eq!(done.exit, 3, "{done:?}");
    assert!(done.out.starts_with("protection disabling"), "{}", done.out);
    assert!(done.err.starts_with("hostseal: not everything is in the clear yet"), "{}", done.err);
    agent.join().unwrap();
}
