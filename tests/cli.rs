//! The command line as its users see it: the real binary, its output and its exit status. Nothing here
//! changes the machine that it runs on; an agent is played by a thread on a socket.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use hostseal::model::config::Config;
use hostseal::model::control::{
    Change, ErrorCode, PlanLine, Preview, Reply, Request, decode_request, encode_reply,
};
use hostseal::model::status::{Known, PeerRow, Protection, RowState, Status, Summary, without_agent};
use hostseal::model::{KernelState, Progress, RowProgress, Saved, UnixTime};

/// A directory of its own for each test, with what `config new` writes there.
struct Place {
    directory: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug)]
struct Done {
    exit: i32,
    out: String,
    err: String,
}

impl Place {
    /// A configuration for hosts with documentation addresses (RFC 5737), which no machine has; this one
    /// is `a`.
    fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        let made =
            place.run("config new --cluster demo a=198.51.100.1,2001:db8::1 b=198.51.100.2,2001:db8::2");
        assert_eq!(made.exit, 0, "{made:?}");
        let local = format!(
            "node = \"a\"\nrun_dir = {:?}\nstate_dir = {:?}\n",
            place.path("run").to_str().unwrap(),
            place.path("state").to_str().unwrap()
        );
        place.prepend(&local);
        fs::create_dir(place.path("run")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.path("hostseal.toml")
    }

    /// Puts lines in front of the configuration.
    fn prepend(&self, lines: &str) {
        let text = fs::read_to_string(self.file()).unwrap();
        fs::write(self.file(), format!("{lines}{text}")).unwrap();
    }

    /// Puts lines behind the configuration.
    fn append(&self, lines: &str) {
        let text = fs::read_to_string(self.file()).unwrap();
        fs::write(self.file(), format!("{text}{lines}")).unwrap();
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostseal"));
        command.arg("--config").arg(self.file()).args(line.split_whitespace());
        for variable in ["HOSTSEAL_CONFIG", "HOSTSEAL_NODE", "NO_COLOR"] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Done {
        Done::of(self.command(line).output().unwrap())
    }

    /// Plays an agent that gives these answers in turn; returns what it was asked.
    fn agent(&self, replies: Vec<Reply>) -> JoinHandle<Vec<Request>> {
        let listener = UnixListener::bind(self.path("run/hostseal.sock")).unwrap();
        std::thread::spawn(move || {
            let answer = |reply| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = Vec::new();
                BufReader::new(&stream).read_until(b'\n', &mut line).unwrap();
                let request = decode_request(&line).unwrap();
                // As an agent does that has nothing new to tell.
                if let (Request::Follow { after, hold_ms }, Reply::Progress(progress)) = (&request, &reply)
                    && *after == progress.revision
                {
                    std::thread::sleep(Duration::from_millis(*hold_ms));
                }
                stream.write_all(encode_reply(reply).as_bytes()).unwrap();
                request
            };
            replies.into_iter().map(answer).collect()
        })
    }

    /// What an agent of this place says, with all rows in one state.
    fn status(&self, protection: Protection, state: RowState) -> Reply {
        let config = Config::load(&self.file()).unwrap();
        let (kernel, saved) = (KernelState::default(), Saved { protection, ..Saved::default() });
        let present = config.nodes[0].addresses.iter().copied().collect();
        let known = Known {
            config: &config,
            node: &config.nodes[0],
            present: &present,
            kernel: &kernel,
            saved: &saved,
        };
        let mut status = without_agent(known, &[].into(), Some("91c2".to_owned()), UnixTime(1_767_225_600));
        status.agent.running = true;
        status.agent.answering = true;
        for row in &mut status.peers {
            row.state = state;
            row.reason = None;
        }
        status.summary = Summary::of(status.peers.iter().map(|row| row.state));
        Reply::Status(Box::new(status))
    }

    /// What it tells one who follows it.
    fn progress(&self, revision: u64, protection: Protection, state: RowState) -> Reply {
        let Reply::Status(status) = self.status(protection, state) else { unreachable!() };
        let row = |row: PeerRow| RowProgress {
            node: row.node,
            local: row.local,
            remote: row.remote,
            state: row.state,
            reason: row.reason,
            reason_code: row.reason_code,
            waiting: row.waiting,
        };
        let rows = status.peers.into_iter().map(row).collect();
        Reply::Progress(Progress { revision, protection, summary: status.summary, rows })
    }
}

impl Done {
    fn of(output: Output) -> Self {
        Self {
            exit: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts that it ended with `exit`, and that standard error holds all of `parts`.
    fn failed_with(&self, exit: i32, parts: &[&str]) {
        assert_eq!(self.exit, exit, "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in {self:?}");
        }
        assert!(!self.err.contains("panicked"), "{self:?}");
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    let place = Place::new();
    for line in ["", "explode", "status --explode", "enable --timeout soon", "config new", "config new a"] {
        place.run(line).failed_with(2, &["--help"]);
    }
    for line in ["--help", "--version", "enable --help", "config new --help"] {
        let done = place.run(line);
        assert_eq!((done.exit, done.err.as_str()), (0, ""), "{line}");
    }
    for line in [
        "secret generate",
        "key generate",
        "key show",
        "config new",
        "agent",
        "guard",
        "enable",
        "confirm",
        "disable",
        "status",
        "plan",
    ] {
        let done = place.run(&format!("{line} --help"));
        assert!(done.out.contains("Example"), "{line} shows no example: {}", done.out);
    }
}

#[test]
fn a_new_configuration_is_valid_and_private() {
    let place = Place::new();
    let config = Config::load(&place.file()).unwrap();
    assert_eq!((config.cluster.as_str(), config.nodes.len()), ("demo", 2));
    assert_eq!(mode(&place.path("secret")), 0o600);
    let id = place.run("secret id");
    assert_eq!((id.exit, id.out.trim()), (0, config.load_secret().unwrap().id().to_string().as_str()));

    let check = place.run("config check");
    assert_eq!((check.exit, check.err.as_str()), (0, ""), "{check:?}");
    for part in
        ["demo, 2 nodes", "a (198.51.100.1, 2001:db8::1)", "198.51.100.1 <-> 198.51.100.2", id.out.trim()]
            .into_iter()
            .chain(["IKE proposals  aes256gcm16-", "ESP proposals  aes256gcm16-esn-noesn"])
    {
        assert!(check.out.contains(part), "{part:?} is not in {}", check.out);
    }
    let json = place.run("config check --json").json();
    assert_eq!((&json["valid"], &json["node"]), (&true.into(), &"a".into()));
    assert_eq!(json["pairs"].as_array().map(Vec::len), Some(2));
    let esp = [
        "aes256gcm16-esn-noesn",
        "aes256gcm16-x25519-ecp384-ecp256-ke1_mlkem768-esn-noesn",
        "aes256gcm16-x25519-ecp384-ecp256-esn-noesn",
    ];
    assert_eq!(json["proposals"]["esp"], serde_json::json!(esp));
}

#[test]
fn nothing_is_overwritten() {
    let place = Place::new();
    let (config, secret) = (fs::read(place.file()).unwrap(), fs::read(place.path("secret")).unwrap());
    place.run("config new a=198.51.100.1").failed_with(2, &["hostseal.toml exists and is not overwritten"]);
    assert_eq!(fs::read(place.file()).unwrap(), config);
    fs::remove_file(place.file()).unwrap();
    place.run("config new a=198.51.100.1").failed_with(2, &["secret exists and is not overwritten"]);
    assert_eq!(fs::read(place.path("secret")).unwrap(), secret);
    assert!(!place.file().exists(), "nothing was written at all");
}

#[test]
fn a_new_configuration_follows_the_files_rules() {
    let place = Place { directory: tempfile::tempdir().unwrap() };
    place.run("config new a=127.0.0.1").failed_with(2, &["a: 127.0.0.1 is a loopback address"]);
    place
        .run("config new a=198.51.100.1 a=198.51.100.2")
        .failed_with(2, &["a: there is another node \"a\"\n"]);
    place
        .run("config new a=198.51.100.1 b=198.51.100.1")
        .failed_with(2, &["b: 198.51.100.1 is already an address"]);
    place.run("config new --cluster a/b a=198.51.100.1").failed_with(2, &["cluster: \"a/b\" is not a name"]);
    place.run("config new a=host.example").failed_with(2, &["not an IPv4 or IPv6 address"]);
    assert_eq!(fs::read_dir(place.directory.path()).unwrap().count(), 0, "nothing was written");
}

#[test]
fn secrets_are_random_and_readable() {
    let place = Place::new();
    let [one, two] = [place.run("secret generate"), place.run("secret generate")];
    assert_eq!((one.exit, one.out.len()), (0, 45));
    assert_ne!(one.out, two.out);
    fs::write(place.path("other"), &one.out).unwrap();
    fs::set_permissions(place.path("other"), fs::Permissions::from_mode(0o600)).unwrap();
    let id = place.run(&format!("secret id {}", place.path("other").display()));
    assert_eq!((id.exit, id.out.trim().len()), (0, 16));
    assert!(!one.out.contains(id.out.trim()));
}

#[test]
fn a_secret_that_others_may_read_is_refused() {
    let place = Place::new();
    fs::set_permissions(place.path("secret"), fs::Permissions::from_mode(0o644)).unwrap();
    let told = ["secret: others may read or write it (mode 0644)", "`chmod 600 "];
    place.run("secret id").failed_with(2, &told);
    place.run("enable").failed_with(2, &told);
    let check = place.run("config check");
    assert_eq!(check.exit, 2);
    assert!(told.iter().all(|part| check.err.contains(part)), "{check:?}");
    let json = place.run("config check --json");
    assert_eq!((json.exit, &json.json()["valid"]), (2, &false.into()));
}

/// From `key generate` to a file that is checked.
#[test]
fn a_key_is_made_shown_and_checked() {
    for kind in ["ed25519", "ecdsa-p256"] {
        let place = Place::new();
        let text = fs::read_to_string(place.file()).unwrap();
        // The key comes first: until the file lists it, the file is not valid.
        let rules = format!("[auth]\nmethod = \"public_key\"\nprivate_key = {:?}\n", place.path("key"));
        fs::write(place.file(), format!("{text}\n{rules}")).unwrap();
        place
            .run("config check")
            .failed_with(2, &["public_key: is missing: `hostseal key show` on that host"]);
        let made = place.run(&format!("key generate --type {kind}"));
        assert_eq!(made.exit, 0, "{made:?}");
        assert_eq!(mode(&place.path("key")), 0o600);
        assert!(made.out.starts_with("public_key = \"") && made.out.lines().count() == 1, "{made:?}");
        assert_eq!(place.run("key show").out, made.out);
        assert_eq!(place.run(&format!("key show {}", place.path("key").display())).out, made.out);
        let before = fs::read(place.path("key")).unwrap();
        let refused = place.run("key generate");
        refused.failed_with(2, &["key exists and is not overwritten", "`hostseal key generate FILE`"]);
        assert!(!refused.err.contains("--config"), "{refused:?}");
        assert_eq!(fs::read(place.path("key")).unwrap(), before);

        let other = place.run(&format!("key generate {}", place.path("other").display())).out;
        let with_keys = |auth: &str, a: &str, b: &str| {
            let entry = |name: &str, key: &str| format!("name = \"{name}\"\n{key}");
            let text =
                text.replace("name = \"a\"\n", &entry("a", a)).replace("name = \"b\"\n", &entry("b", b));
            let key = place.path("key");
            fs::write(place.file(), format!("{text}\n[auth]\n{auth}private_key = {key:?}\n")).unwrap();
        };
        with_keys("accept = [\"secret\", \"public_key\"]\n", &made.out, &other);
        let check = place.run("config check");
        assert_eq!(check.exit, 0, "{check:?}");
        assert!(
            check.out.contains("each host with the shared secret; its public key is accepted too"),
            "{check:?}"
        );

        with_keys("method = \"public_key\"\n", &made.out, &other);
        fs::remove_file(place.path("secret")).unwrap();
        let check = place.run("config check");
        assert_eq!(check.exit, 0, "no secret is needed any more: {check:?}");
        assert!(check.out.contains("each host with its public key\n"), "{check:?}");
        assert_eq!(place.run("config check --json").json()["secret_id"], serde_json::Value::Null);

        with_keys("method = \"public_key\"\n", &other, &made.out);
        let check = place.run("config check");
        assert_eq!(check.exit, 2, "{check:?}");
        assert!(check.err.contains("key: is not the key of node a"), "{check:?}");
        fs::set_permissions(place.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
        place.run("key show").failed_with(2, &["others may read or write it (mode 0644)"]);
    }
}

#[test]
fn a_broken_secret_is_not_repeated() {
    let place = Place::new();
    fs::write(place.path("secret"), "open sesame\n").unwrap();
    let done = place.run("secret id");
    done.failed_with(2, &["32 bytes in base64"]);
    assert!(!done.err.contains("sesame"), "{done:?}");
}

#[test]
fn a_wrong_file_is_2_everywhere_and_names_the_place() {
    let place = Place::new();
    place.prepend("colour = 1\n");
    let told = format!("{}:1:1: colour: unknown key", place.file().display());
    for line in ["config check", "enable", "disable", "status", "plan", "secret id"] {
        place.run(line).failed_with(2, &[&told, "1 | colour = 1\n  | ^^^^^^"]);
    }
    let json = place.run("config check --json");
    let error = &json.json()["errors"][0];
    assert_eq!((json.exit, &error["line"], &error["key"]), (2, &1.into(), &"colour".into()));
    fs::remove_file(place.file()).unwrap();
    place.run("status").failed_with(2, &["cannot be read", "hostseal config new"]);
}

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
fn a_host_that_is_not_in_the_file_is_2() {
    let place = Place::new();
    let text = fs::read_to_string(place.file()).unwrap().replacen("node = \"a\"\n", "", 1);
    fs::write(place.file(), text).unwrap();
    place.run("enable").failed_with(2, &["this host is not in the file", "a (198.51.100.1, 2001:db8::1), b"]);
    let done = Done::of(place.command("enable").env("HOSTSEAL_NODE", "zoe").output().unwrap());
    done.failed_with(2, &["\"zoe\"", "it lists a, b"]);
    let done = Done::of(place.command("config check").env("HOSTSEAL_NODE", "b").output().unwrap());
    assert!(done.exit == 0 && done.out.contains("b (198.51.100.2, 2001:db8::2)"), "{done:?}");
    assert!(done.out.contains("it does not have 198.51.100.2, 2001:db8::2 now"), "{done:?}");
    if nix::unistd::geteuid().is_root() {
        let done = Done::of(place.command("enable").env("HOSTSEAL_NODE", "b").output().unwrap());
        done.failed_with(2, &["said to be b, and has none of its addresses: 198.51.100.2"]);
    }
}

#[test]
fn the_configuration_can_be_named_by_the_environment() {
    let place = Place::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostseal"));
    let done =
        Done::of(command.args(["secret", "id"]).env("HOSTSEAL_CONFIG", place.file()).output().unwrap());
    assert_eq!(done.exit, 0, "{done:?}");
}

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
    let states = [RowState::Negotiating, RowState::Clear, RowState::Protected];
    let agent = place.agent(states.map(|state| place.status(Protection::On, state)).into());
    assert_eq!(place.run("status --wait 5m").exit, 0);
    assert_eq!(agent.join().unwrap(), vec![Request::Status; 3]);

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

    // An agent of before knows no such request.
    let place = Place::new();
    let unknown = Reply::Error { code: ErrorCode::BadRequest, message: "unknown variant".to_owned() };
    let agent = place.agent(vec![unknown, Reply::Plan(Vec::new())]);
    fs::write(place.path("x.toml"), "x").unwrap();
    let line = format!("plan --with {}", place.path("x.toml").display());
    assert_eq!(place.run(&line).out, "nothing would change\n");
    assert!(matches!(agent.join().unwrap()[1], Request::PlanWith { .. }));
}

#[test]
fn a_node_is_named_by_its_pairs_and_this_host_has_none_with_itself() {
    let place = Place::new();
    let agent = place.agent(vec![place.status(Protection::On, RowState::Protected)]);
    place.run("status a").failed_with(2, &["a is this host: `hostseal status` shows all its pairs"]);
    agent.join().unwrap();
}

#[test]
fn nodes_without_a_common_family_are_named() {
    let place = Place::new();
    place.append(
        "[[nodes]]\nname = \"c\"\naddresses = [\"2001:db8::3\"]\n[[nodes]]\nname = \"d\"\n\
                  addresses = [\"198.51.100.4\"]\n",
    );
    let text = fs::read_to_string(place.file()).unwrap();
    fs::write(place.file(), text.replace("\"198.51.100.1\", ", "")).unwrap();
    let check = place.run("config check");
    assert!(
        check.exit == 0 && check.out.contains("no pair with d: no address of the same family"),
        "{check:?}"
    );
    assert_eq!(place.run("config check --json").json()["unpaired"], serde_json::json!(["d"]));
    fs::write(
        place.file(),
        text.replace("\"2001:db8::", "\"198.51.100.2")
            .replace("[\"198.51.100.1\", \"198.51.100.21\"]", "[\"2001:db8::1\"]"),
    )
    .unwrap();
    place.run("enable").failed_with(2, &["nothing would be protected: no pair with b, c, d"]);
}

#[test]
fn a_first_host_has_nobody_to_copy_to() {
    let place = Place { directory: tempfile::tempdir().unwrap() };
    let made = place.run("config new a=198.51.100.1");
    assert!(made.exit == 0 && !made.out.contains("Copy both") && made.out.contains("[[nodes]]"), "{made:?}");
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

#[test]
fn what_is_generated() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let done = place.run(&format!("completions {shell}"));
        assert!(done.exit == 0 && done.out.contains("hostseal"), "{shell}");
    }
    assert_eq!(place.run("nodes").out, "a\nb\n");
    let program = Path::new(env!("CARGO_BIN_EXE_hostseal")).parent().unwrap();
    let completed = |words: &str, at: usize| {
        let script = place.path("hostseal.bash");
        fs::write(&script, place.run("completions bash").out).unwrap();
        let line = format!(
            "PATH={}:$PATH HOSTSEAL_CONFIG={}; export HOSTSEAL_CONFIG; source {}; COMP_WORDS=({words}) COMP_CWORD={at}; \
             _hostseal_nodes hostseal \"${{COMP_WORDS[{at}]}}\" x; echo ${{COMPREPLY[@]}}",
            program.display(),
            place.file().display(),
            script.display()
        );
        String::from_utf8(Command::new("bash").args(["-c", &line]).output().unwrap().stdout).unwrap()
    };
    assert_eq!(completed("hostseal status ''", 2), "a b\n");
    assert_eq!(completed("hostseal status b", 2), "b\n");
    assert!(completed("hostseal sta", 1).contains("status"));
    assert!(completed("hostseal status --wa", 2).contains("--watch"));
    assert!(place.run("completions zsh").out.contains("Only pairs with these nodes:_hostseal_nodes"));
    assert!(place.run("completions fish").out.contains("(hostseal nodes 2>/dev/null)"));
    assert!(place.run("man").out.contains(".TH hostseal 1"));
    let pages = place.path("pages");
    assert_eq!(place.run(&format!("man {}", pages.display())).exit, 0);
    for page in ["hostseal.1", "hostseal-enable.1", "hostseal-config-new.1"] {
        assert!(pages.join(page).exists(), "{page}");
    }
}
