//! One run of the lab: enters the place, does a job there and hands over what comes out.

use std::fs;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::picture::Served;
use super::place::Place;

/// What is done inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Runs these tests, one after another.
    Tests {
        /// By their names.
        names: Vec<String>,
        /// How clusters make keys that do not say it themselves, if otherwise than by default.
        method: Option<String>,
    },
    /// Runs a function that writes to the terminal: the demo or a benchmark.
    Show(Show),
    /// Makes this many hosts and runs a command in the first one.
    Shell {
        /// How many hosts there are.
        hosts: usize,
        /// The command; empty for an interactive shell.
        command: Vec<String>,
    },
}

/// A function by its name, and what it needs to know of the terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Show {
    /// Which one.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Whether colour is welcome.
    pub colour: bool,
}

/// What a job says about itself. Each stands on its own line behind [`MARK`]; all other lines are
/// what the job and its commands printed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A test is over. What was printed since the record before belongs to it.
    Test {
        /// Its name.
        name: String,
        /// Why it failed, or nothing.
        failure: Option<String>,
        /// How long it took.
        seconds: f64,
    },
    /// A host has served this, which is kept outside.
    Served(Served),
    /// The job is over.
    End {
        /// The exit status for the caller.
        code: i32,
    },
}

/// What stands before a record: a control character that no sensible output starts a line with.
pub const MARK: char = '\x1e';

/// One line out of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// Something printed, without its line end.
    Text(String),
    /// Something reported.
    Record(Record),
}

/// A job that is under way. Dropping it ends everything in it.
pub struct Session {
    child: Child,
    output: BufReader<ChildStdout>,
    run: TempDir,
    /// The user's terminal is ours to put back; user-mode Linux plays the terminal meanwhile.
    _raw: Option<RawTerminal>,
}

/// The programs that a job finds beside itself.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// hostseal: the program under test.
    pub hostseal: Option<PathBuf>,
    /// Its helper for etcd.
    pub etcd: Option<PathBuf>,
    /// Its helper for AWS.
    pub kms_aws: Option<PathBuf>,
    /// ministack, which is asked in the place of AWS: a directory of Python.
    pub ministack: Option<PathBuf>,
    /// The same of an older revision.
    pub previous: Option<PathBuf>,
    /// The same with the feature `fault-injection`, for jobs that let agents die.
    pub mortal: Option<PathBuf>,
}

/// Where the job's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// There is none.
    Empty,
    /// The user talks to the job.
    Terminal,
}

impl Session {
    /// Starts `job` in `place`. Those whose `turn` differs by one run on different processors.
    ///
    /// # Errors
    /// When it cannot be started at all; everything later shows in the lines.
    pub fn start(place: &Place, job: &Job, programs: &Programs, input: Input, turn: usize) -> Result<Self> {
        let run = tempfile::Builder::new().prefix("hostseal-lab-").tempdir()?;
        fs::write(run.path().join("job.json"), serde_json::to_vec(job)?)?;
        fs::write(run.path().join("init"), include_str!("init.sh"))?;
        let own = std::env::current_exe().context("cannot find the running program")?;
        let mut command = Command::new("setpriv");
        // Whatever happens to us, the kernel ends all of it: setpriv's signal when we die, and the
        // process namespace when its first process does.
        command.args(["--pdeathsig", "KILL", "unshare"]);
        if !geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command
            .args(["--mount", "--propagation=private", "--pid", "--fork", "--kill-child"])
            .args(["sh", "-c", include_str!("enter.sh"), "enter", place.name()])
            .arg(&place.root().path)
            .arg(run.path())
            .arg(own)
            .arg(programs.hostseal.as_deref().unwrap_or(Path::new("")))
            .arg(programs.previous.as_deref().unwrap_or(Path::new("")))
            .arg(programs.mortal.as_deref().unwrap_or(Path::new("")))
            .arg(programs.etcd.as_deref().unwrap_or(Path::new("")))
            .arg(programs.kms_aws.as_deref().unwrap_or(Path::new("")))
            .arg(programs.ministack.as_deref().unwrap_or(Path::new("")))
            .arg(if input == Input::Terminal { "yes" } else { "no" })
            .arg(turn.to_string());
        if input == Input::Empty {
            command.stdin(Stdio::null());
        }
        let raw = match (input, place) {
            (Input::Terminal, Place::Uml(_)) => RawTerminal::enter(),
            _ => None,
        };
        let child = command.stdout(Stdio::piped()).spawn();
        let mut child = child.context("cannot run setpriv and unshare of util-linux")?;
        let output = BufReader::new(child.stdout.take().context("a child without output")?);
        Ok(Self { child, output, run, _raw: raw })
    }

    /// The next line, or `None` when the run is over.
    ///
    /// # Errors
    /// When the stream breaks.
    pub fn next_line(&mut self) -> Result<Option<Line>> {
        let mut bytes = Vec::new();
        if self.output.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches(['\n', '\r']);
        // Before it may stand what a process wrote that was killed before it had ended its line.
        Ok(Some(match text.split_once(MARK).map(|(_, record)| record) {
            Some(record) => Line::Record(serde_json::from_str(record).context("a record is malformed")?),
            None => Line::Text(text.to_owned()),
        }))
    }

    /// Copies what the job prints to our standard output as it comes, has `keep` keep what was served, and returns the exit
    /// status.
    ///
    /// # Errors
    /// When the job ends without one, or something cannot be kept.
    pub fn relay(mut self, keep: impl Fn(&Served) -> Result<()>) -> Result<i32> {
        let mut out = io::stdout();
        loop {
            let chunk = self.output.fill_buf()?;
            let text = chunk.iter().position(|byte| char::from(*byte) == MARK).unwrap_or(chunk.len());
            out.write_all(&chunk[..text])?;
            out.flush()?;
            let (marked, over) = (text < chunk.len(), chunk.is_empty());
            self.output.consume(text);
            if over {
                bail!("the lab ended before its job was done\n{}", self.finish()?);
            }
            match marked.then(|| self.next_line()).transpose()?.flatten() {
                Some(Line::Record(Record::End { code })) => return Ok(code),
                Some(Line::Record(Record::Served(served))) => keep(&served)?,
                _ => {}
            }
        }
    }

    /// Waits until everything has ended and returns the end of what the kernel of the lab wrote.
    ///
    /// # Errors
    /// When the run cannot be waited for.
    pub fn finish(mut self) -> Result<String> {
        self.child.wait()?;
        let text = fs::read(self.run.path().join("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        Ok(lines[lines.len().saturating_sub(25)..].join("\n"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Both fail only if the run has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The user's terminal, passing every key on. It is put back when this goes.
struct RawTerminal {
    settings: String,
}

impl RawTerminal {
    /// `None` when standard input is no terminal.
    fn enter() -> Option<Self> {
        if !io::stdin().is_terminal() {
            return None;
        }
        let saved = Command::new("stty").arg("-g").stdin(Stdio::inherit()).output().ok()?;
        let settings = String::from_utf8(saved.stdout).ok()?.trim().to_owned();
        Command::new("stty").args(["raw", "-echo"]).status().ok()?;
        Some(Self { settings })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing more can be done about a terminal that is gone.
        let _ = Command::new("stty").arg(&self.settings).status();
    }
}
