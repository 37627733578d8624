//! What is only asked: `status`, `plan` and `metrics`.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use hostseal::control::{Change, ErrorCode, PlanLine, Preview, Reply, Request};
use hostseal::observe::status::Status;
use hostseal::types::{Protection, RowState};

use super::place::Place;

#[test]
fn without_an_agent() {
    let place = Place::new();
    place.run("plan").failed_with(4, &["no agent runs", "`hostseal enable` starts one"]);
    if !nix::unistd::geteuid().is_root() {
        eprintln!("the rest of without_an_agent needs root: it reads the kernel's tables");
        return;
    }
    let status = place.run("status --json");
    let json = status.json();
    assert_eq!((status.exit, &json["protection"]), (0, &"off".into()), "{status:?}");
    assert_eq!((&json["agent"]["running"], &json["peers"][0]["state"]), (&false.into(), &"off".into()));
}

#[test]
fn metrics_without_an_agent_say_so() {
    let place = Place::new();
    let done = place.run("metrics");
    assert_eq!(done.exit, 0, "{done:?}");
    // A host that nobody has enabled, so no alert is due.
    let is_off = |text: &str| text.contains("\nhostseal_protection_info{mode=\"require\",state=\"off\"} 1\n");
    assert!(done.out.contains("\nhostseal_agent_up 0\n") && is_off(&done.out), "{done:?}");
    let file = place.path("hostseal.prom");
    assert_eq!(place.run(&format!("metrics --out {}", file.display())).exit, 0);
    assert_eq!(fs::read_to_string(file).unwrap(), done.out);
    let nowhere = place.path("none/hostseal.prom");
    place.run(&format!("metrics --out {}", nowhere.display())).failed_with(1, &["none/hostseal.prom"]);
    // One whose state is lost, and that was enabled.
    let mark = format!("{{\"about\":\"\",\"node\":\"{}\"}}", "a");
    fs::write(place.path("hostseal.toml.enabled"), mark).unwrap();
    let enabled = place.run("metrics");
    assert!(enabled.out.contains("{mode=\"require\",state=\"on\"} 1\n"), "{enabled:?}");
    // One that nobody knows anything of.
    fs::write(place.file(), "[[[").unwrap();
    let unknown = place.run("metrics");
    assert_eq!((unknown.exit, unknown.out.lines().last()), (0, Some("hostseal_agent_up 0")), "{unknown:?}");
    let place = Place::new();
    place.append("[metrics]\nlisten = \"here\"\n");
    place.run("exporter").failed_with(2, &["metrics.listen", "127.0.0.1:10931"]);
}

#[test]
fn broken_state_is_named_and_not_guessed_at() {
    let place = Place::new();
    fs::create_dir(place.path("state")).unwrap();
    fs::write(place.path("state/state.json"), "{").unwrap();
    let status = place.run("status");
    assert_eq!(status.exit, 3, "{status:?}");
    for words in ["state.json: does not hold hostseal's state", "disable --force"] {
        assert!(status.out.contains(words), "{status:?}");
    }
}

#[test]
fn status_says_what_the_agent_says() {
    let place = Place::new();
    let protected = place.status(Protection::On, RowState::Protected);
    let agent = place.agent(vec![protected.clone(), protected.clone(), protected]);
    let table = place.run("status");
    assert_eq!((table.exit, table.err.as_str()), (0, ""), "{table:?}");
    assert!(table.out.contains("2 pairs protected"), "{}", table.out);
    assert!(!table.out.contains('\x1b'), "no colours in a pipe: {}", table.out);
    let json = place.run("status --json");
    let Reply::Status(expected) = place.status(Protection::On, RowState::Protected) else { unreachable!() };
    assert_eq!(serde_json::from_str::<Status>(&json.out).unwrap(), *expected);
    assert!(place.run("status b").out.contains("2 pairs protected"));
    place.run("status b zoe").failed_with(2, &["no node \"zoe\"; the file lists a, b"]);
    assert_eq!(agent.join().unwrap(), vec![Request::Status; 3]);
}

#[test]
fn a_degraded_host_is_3() {
    let place = Place::new();
    let clear = place.status(Protection::On, RowState::Clear);
    let agent = place.agent(vec![clear.clone(), clear]);
    for line in ["status", "status --json"] {
        let done = place.run(line);
        assert_eq!((done.exit, done.err.as_str()), (3, ""), "{done:?}");
    }
    agent.join().unwrap();
}

#[test]
fn status_waits_for_protection_and_no_longer_than_it_is_told() {
    let place = Place::new();
    let status = |state| place.status(Protection::On, state);
    let news = |revision, state| place.progress(revision, Protection::On, state);
    let agent = place.agent(vec![
        status(RowState::Negotiating),
        news(7, RowState::Clear),
        status(RowState::Clear),
        news(9, RowState::Protected),
        status(RowState::Protected),
    ]);
    assert_eq!(place.run("status --wait 5m").exit, 0);
    let asked = agent.join().unwrap();
    let after: Vec<Option<u64>> = asked
        .iter()
        .map(|request| if let Request::Follow { after, .. } = request { Some(*after) } else { None })
        .collect();
    assert_eq!(after, [None, Some(0), None, Some(7), None], "it waits for news: {asked:?}");

    let place = Place::new();
    let _agent = place.agent(vec![place.status(Protection::On, RowState::Clear); 60]);
    let done = place.run("status --wait 1s");
    assert_eq!((done.exit, done.err.as_str()), (3, ""));
    place.run("status --wait 1s --watch").failed_with(2, &["cannot be used with"]);
}

#[test]
fn status_notices_that_the_file_has_changed() {
    let place = Place::new();
    let agent = place.agent(vec![place.status(Protection::On, RowState::Protected)]);
    let text = fs::read_to_string(place.file()).unwrap() + "[esp]\nkey_bits = 128\n";
    fs::write(place.file(), text).unwrap();
    let done = place.run("status");
    assert!(done.out.contains("note: the file has changed"), "{}", done.out);
    agent.join().unwrap();
}

#[test]
fn watching_ends_when_nobody_reads() {
    let place = Place::new();
    // A reader that goes after the first line: the next write fails, and that is no failure.
    let protected = place.status(Protection::On, RowState::Protected);
    let _agent = place.agent(vec![protected; 60]);
    let mut child =
        place.command("status --json --watch").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    serde_json::from_str::<Status>(&line).unwrap();
    let ended = child.wait().unwrap();
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((ended.code(), err.as_str()), (Some(0), ""));
}

#[test]
fn top_needs_a_terminal_or_prints_once() {
    let place = Place::new();
    let protected = place.status(Protection::On, RowState::Protected);
    let clear = place.status(Protection::On, RowState::Clear);
    let agent = place.agent(vec![protected.clone(), protected, clear.clone(), clear]);
    place.run("top").failed_with(2, &["standard output is no terminal: `hostseal top --once`"]);
    place.run("top zoe --once").failed_with(2, &["no node \"zoe\"; the file lists a, b"]);
    let frame = place.run("top --once");
    assert_eq!((frame.exit, frame.err.as_str()), (0, ""), "{frame:?}");
    for part in ["2 pairs protected", "tx 0 bit/s  rx 0 bit/s", "TX BIT/S", "198.51.100.2", "2001:db8::2"] {
        assert!(frame.out.contains(part), "{part} is not in {}", frame.out);
    }
    assert!(!frame.out.contains('\x1b'), "no colours in a pipe: {}", frame.out);
    assert_eq!(place.run("top b --once").exit, 3, "the exit status is that of `status`");
    assert_eq!(agent.join().unwrap(), vec![Request::Status; 4]);
}

#[test]
fn a_node_is_named_by_its_pairs_and_this_host_has_none_with_itself() {
    let place = Place::new();
    let agent = place.agent(vec![place.status(Protection::On, RowState::Protected)]);
    place.run("status a").failed_with(2, &["a is this host: `hostseal status` shows all its pairs"]);
    agent.join().unwrap();
}

#[test]
fn a_plan_shows_what_would_change() {
    let place = Place::new();
    let lines = vec![PlanLine { change: Change::Delete, object: "policy x".to_owned() }];
    let something = Reply::Plan(lines);
    let nothing = Reply::Plan(Vec::new());
    let agent = place.agent(vec![something.clone(), something.clone(), something, nothing.clone(), nothing]);
    let plan = place.run("plan");
    assert_eq!((plan.exit, plan.out.lines().next()), (0, Some("- policy x")));
    assert_eq!(place.run("plan --exit-code").exit, 3);
    assert_eq!(place.run("plan --json").json()["changes"][0]["change"], "delete");
    assert_eq!(place.run("plan --exit-code").exit, 0);
    assert_eq!(place.run("plan").out, "nothing would change\n");
    assert_eq!(agent.join().unwrap(), vec![Request::Plan; 5]);
}

#[test]
fn a_plan_with_another_file_speaks_as_the_log_does() {
    let place = Place::new();
    let file = vec!["node c comes (198.51.100.3)".to_owned()];
    let preview = Reply::Preview(Preview { file, kernel: Vec::new() });
    let agent = place.agent(vec![preview.clone(), preview.clone(), preview]);
    fs::write(place.path("new.toml"), "what it says").unwrap();
    let line = format!("plan --with {}", place.path("new.toml").display());
    let plan = place.run(&line);
    assert!(plan.out.starts_with("node c comes (198.51.100.3)\n"), "{plan:?}");
    assert_eq!(place.run(&format!("{line} --exit-code")).exit, 3);
    let json = place.run(&format!("{line} --json")).json();
    assert_eq!(json["file_changes"], serde_json::json!(["node c comes (198.51.100.3)"]));
    assert_eq!(
        agent.join().unwrap(),
        vec![Request::Preview { file: place.path("new.toml"), text: "what it says".to_owned() }; 3]
    );

    // An earlier agent knows no such request.
    let place = Place::new();
    let unknown = Reply::Error { code: ErrorCode::BadRequest, message: "unknown variant".to_owned() };
    let agent = place.agent(vec![unknown, Reply::Plan(Vec::new())]);
    fs::write(place.path("x.toml"), "x").unwrap();
    let line = format!("plan --with {}", place.path("x.toml").display());
    assert_eq!(place.run(&line).out, "nothing would change\n");
    assert!(matches!(agent.join().unwrap()[1], Request::PlanWith { .. }));
}
