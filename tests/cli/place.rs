//! Where a command is run, the agent that it finds there, and what it did.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use hostseal::control::{Reply, Request, decode_request, encode_reply};
use hostseal::observe::status::{self, Agent, Evidence, PeerRow, Summary};
use hostseal::observe::{Progress, RowProgress, Snapshot};
use hostseal::store::Saved;
use hostseal::store::config_file;
use hostseal::types::{KernelState, Protection, RowState, UnixTime};

/// A directory for each test, with what `config new` writes there.
pub(super) struct Place {
    pub(super) directory: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) exit: i32,
    pub(super) out: String,
    pub(super) err: String,
}

impl Place {
    /// A configuration for hosts with documentation addresses (RFC 5737), which no machine has; this one
    /// is `a`.
    pub(super) fn new() -> Self {
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

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn file(&self) -> PathBuf {
        self.path("hostseal.toml")
    }

    /// Puts lines in front of the configuration.
    pub(super) fn prepend(&self, lines: &str) {
        let text = fs::read_to_string(self.file()).unwrap();
        fs::write(self.file(), format!("{lines}{text}")).unwrap();
    }

    /// Puts lines behind the configuration.
    pub(super) fn append(&self, lines: &str) {
        let text = fs::read_to_string(self.file()).unwrap();
        fs::write(self.file(), format!("{text}{lines}")).unwrap();
    }

    pub(super) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostseal"));
        command.arg("--config").arg(self.file()).args(line.split_whitespace());
        for variable in ["HOSTSEAL_CONFIG", "HOSTSEAL_NODE", "NO_COLOR"] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null());
        command
    }

    pub(super) fn run(&self, line: &str) -> Done {
        Done::of(self.command(line).output().unwrap())
    }

    /// Plays an agent that gives these answers in turn; returns what it was asked.
    pub(super) fn agent(&self, replies: Vec<Reply>) -> JoinHandle<Vec<Request>> {
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
    pub(super) fn status(&self, protection: Protection, state: RowState) -> Reply {
        let config = config_file::load(&self.file()).unwrap();
        let (kernel, saved) = (KernelState::default(), Saved { protection, ..Saved::default() });
        let present = config.nodes[0].addresses.iter().copied().collect();
        let evidence = Evidence {
            now: UnixTime(1_767_225_600),
            config: &config,
            config_id: &config.config_id(),
            node: &config.nodes[0],
            secret_id: Some("91c2"),
            present: &present,
            kernel: kernel.sight(),
            statistics: &[].into(),
            saved: &saved,
            totals: &saved.pairs,
            agent: Agent::Answers { pid: 41, snapshot: &Snapshot { protection, ..Snapshot::default() } },
        };
        let mut status = status::status(evidence, None);
        for row in &mut status.peers {
            row.state = state;
            (row.reason_code, row.reason) = (None, None);
        }
        status.summary = Summary::of(status.peers.iter().map(|row| row.state));
        Reply::Status(Box::new(status))
    }

    /// What it tells one who follows it.
    pub(super) fn progress(&self, revision: u64, protection: Protection, state: RowState) -> Reply {
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
    pub(super) fn of(output: Output) -> Self {
        Self {
            exit: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts that it ended with `exit`, and that standard error holds all of `parts`.
    pub(super) fn failed_with(&self, exit: i32, parts: &[&str]) {
        assert_eq!(self.exit, exit, "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in {self:?}");
        }
        assert!(!self.err.contains("panicked"), "{self:?}");
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The permissions of a file.
pub(super) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
