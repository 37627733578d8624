//! The inner side of a run: reads the job and does it.

use std::fs;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::Lab;
use super::agent;
use super::picture::Served;
use super::session::{Job, MARK, Record, Show};
use crate::{shows, tests};

/// Where the outer side puts the job.
const JOB: &str = "/mnt/job.json";

/// Does the job if this process was started inside a lab, and ends. Returns at once anywhere else.
pub fn run_if_inside() {
    if std::env::var_os("LAB_PLACE").is_none() {
        return;
    }
    let code = match read_job().and_then(run) {
        Ok(code) => code,
        Err(error) => {
            println!("{error:?}");
            1
        }
    };
    report(&Record::End { code });
    std::process::exit(code);
}

fn read_job() -> Result<Job> {
    let text = fs::read(JOB).with_context(|| format!("cannot read {JOB}"))?;
    serde_json::from_slice(&text).context("the job is malformed")
}

fn run(job: Job) -> Result<i32> {
    match job {
        Job::Tests { names, method } => {
            method.into_iter().for_each(agent::make_keys_by);
            names.iter().for_each(|name| run_test(name));
            Ok(0)
        }
        Job::Show(show) => run_show(&show),
        Job::Shell { hosts, command } => run_shell(hosts, &command),
    }
}

/// Writes a record for the outer side.
fn report(record: &Record) {
    let line = serde_json::to_string(record).unwrap_or_else(|error| format!("\"{error}\""));
    println!("{MARK}{line}");
    // If the outer side is gone nobody misses it.
    let _ = io::stdout().flush();
}

/// Has the outer side keep what a host served, and say where.
pub fn show_page(served: &Served) {
    report(&Record::Served(served.clone()));
}

/// Runs one test and reports it. A test that hangs ends the whole run: the outer side starts another one
/// for the tests that are left.
fn run_test(name: &str) {
    let started = Instant::now();
    let report = |failure: Option<String>| {
        report(&Record::Test { name: name.to_owned(), failure, seconds: started.elapsed().as_secs_f64() });
    };
    let Some(test) = tests::find(name) else {
        return report(Some("there is no test of this name".to_owned()));
    };
    let (sender, result) = mpsc::channel();
    let body = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| (test.body)(&mut Lab::new(test.hosts)?)));
        // The receiver is gone only after the limit.
        let _ = sender.send(outcome.unwrap_or_else(|_| bail!("it panicked, see the output")));
    });
    if let Err(error) = body {
        return report(Some(format!("no thread for the test: {error}")));
    }
    match result.recv_timeout(test.limit) {
        Ok(outcome) => report(outcome.err().map(|error| format!("{error:?}"))),
        Err(RecvTimeoutError::Disconnected) => report(Some("the test ended without a result".to_owned())),
        Err(RecvTimeoutError::Timeout) => {
            report(Some(format!("the test was not over after {:?}", test.limit)));
            std::process::exit(1);
        }
    }
}

fn run_show(show: &Show) -> Result<i32> {
    let Some(found) = shows::find(&show.name) else { bail!("there is no `{}`", show.name) };
    (found.body)(show)
}

/// Makes hosts and gives the terminal to a command in the first one.
fn run_shell(hosts: usize, command: &[String]) -> Result<i32> {
    let lab = Lab::new(hosts)?;
    let Some(first) = lab.hosts().first() else { bail!("a shell needs a host") };
    for host in lab.hosts() {
        // So that `ip netns exec b …` reaches the others.
        first.run(&format!(
            "mkdir -p /run/netns && touch /run/netns/{0} && mount --bind {1} /run/netns/{0}",
            host.name(),
            host.net_path()
        ))?;
    }
    let status = first.within(|| match command {
        [] => Command::new("bash").env("PS1", "lab a \\w # ").args(["--norc", "-i"]).status(),
        [program, arguments @ ..] => Command::new(program).args(arguments).status(),
    })??;
    Ok(status.code().unwrap_or(1))
}

/// The time that a test may take, unless its entry says otherwise.
pub const TEST_LIMIT: Duration = Duration::from_secs(120);
