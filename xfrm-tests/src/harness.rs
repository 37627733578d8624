//! `cargo test` for tests that run inside the lab: each is one trial out here.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{env, fs, thread};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Completion, Trial};

use crate::lab::inside;
use crate::lab::picture::Served;
use crate::lab::place::Place;
use crate::lab::revision::Revision;
use crate::lab::root::say;
use crate::lab::session::{Input, Job, Line, Programs, Record, Session, Show};
use crate::scenarios::compat;
use crate::shows;
use crate::tests::{self, Test};

/// What came of a test: nothing, or why it failed and what it printed.
type Verdict = Result<(), String>;

/// What is still to be run, and the verdicts so far; trials wait here for theirs.
#[derive(Default)]
struct Board {
    waiting: Mutex<Vec<String>>,
    verdicts: Mutex<HashMap<String, Verdict>>,
    news: Condvar,
    lengths: Mutex<Vec<(f64, String)>>,
}

impl Board {
    /// A board for these tests. Those that may take long come first, so that none of them is the last to end.
    fn of(wanted: &[&'static Test]) -> Self {
        let mut wanted = wanted.to_vec();
        wanted.sort_by_key(|test| Reverse(test.limit));
        let waiting = wanted.iter().map(|test| test.name.to_owned()).collect();
        Self { waiting: Mutex::new(waiting), ..Self::default() }
    }

    /// What one of `shards` runs next, long ones and short ones: much at first, since each run begins with a boot, and
    /// less and less, so that all are done at the same time.
    fn take(&self, shards: usize) -> Vec<String> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = 0..;
        waiting.extract_if(.., |_| at.next().is_some_and(|at: usize| at.is_multiple_of(2 * shards))).collect()
    }

    fn note_length(&self, name: &str, seconds: f64) {
        self.lengths.lock().unwrap_or_else(PoisonError::into_inner).push((seconds, name.to_owned()));
    }

    /// A line on those tests that took longest.
    fn slowest(&self) -> String {
        let mut lengths = self.lengths.lock().unwrap_or_else(PoisonError::into_inner).clone();
        lengths.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let all: f64 = lengths.iter().map(|(seconds, _)| seconds).sum();
        let lines = lengths.iter().take(SLOWEST).map(|(seconds, name)| format!("{seconds:4.0} s  {name}"));
        format!("{all:.0} s in all; the slowest:\n{}", lines.collect::<Vec<_>>().join("\n"))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Verdict>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, name: &str, verdict: Verdict) {
        self.lock().entry(name.to_owned()).or_insert(verdict);
        self.news.notify_all();
    }

    fn await_verdict(&self, name: &str) -> Verdict {
        let mut verdicts = self.lock();
        loop {
            if let Some(verdict) = verdicts.get(name) {
                return verdict.clone();
            }
            verdicts = self.news.wait(verdicts).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// How many of the slowest tests are named.
const SLOWEST: usize = 20;

/// Where a trial takes its outcome from.
#[derive(Clone)]
enum Source {
    /// The lab runs.
    Board(Arc<Board>),
    /// The lab cannot run, for this reason.
    Unavailable(String),
}

/// The main function of the test binary.
pub fn main() -> ExitCode {
    inside::run_if_inside();
    let mut arguments = Arguments::from_args();
    // Trials only wait for the lab; one after another they print their lines as verdicts come in.
    arguments.test_threads = Some(1);
    let method = env::var("HOSTSEAL_LAB_METHOD").ok();
    let all = || tests::all().filter(|test| method.is_none() || !tests::is_about_ike(test));
    let wanted: Vec<&'static Test> =
        all().filter(|test| !arguments.is_filtered_out(&Trial::test(test.name, || Ok(())))).collect();
    let idle = arguments.list || wanted.is_empty();
    if idle && !arguments.list && arguments.filter.is_none() && in_ci() {
        eprintln!("CI is set and there is no test of the lab to run");
        return ExitCode::FAILURE;
    }
    let source = match idle {
        true => Ok(Source::Board(Arc::default())),
        false => start(&wanted, method.as_deref(), arguments.nocapture),
    };
    let source = source.unwrap_or_else(|error| {
        let reason = format!("the lab cannot run here: {error:#}");
        eprintln!("{reason}");
        Source::Unavailable(reason)
    });
    let trials = all().map(|test| trial(test, source.clone())).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Source::Board(board) = source
        && wanted.len() > SLOWEST
        && !arguments.list
    {
        println!("{}", board.slowest());
    }
    conclusion.exit_code()
}

/// Whether what cannot run counts as failed.
fn in_ci() -> bool {
    env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false" && value != "0")
}

fn trial(test: &'static Test, source: Source) -> Trial {
    Trial::ignorable_test(test.name, move || match source {
        Source::Board(board) => match board.await_verdict(test.name) {
            Ok(()) => Ok(Completion::Completed),
            Err(reason) => Err(reason.into()),
        },
        Source::Unavailable(reason) if in_ci() => Err(reason.into()),
        Source::Unavailable(reason) => {
            // The whole reason has been printed; here is room for a line.
            Ok(Completion::ignored_with(reason.lines().next().unwrap_or_default()))
        }
    })
}

/// Makes the place ready and starts the tests, in as many labs side by side as is useful.
fn start(wanted: &[&'static Test], method: Option<&str>, print: bool) -> Result<Source> {
    let place = Place::find()?;
    let mut programs = programs(wanted.iter().any(|test| test.mortal), EVERYTHING)?;
    if wanted.iter().any(|test| test.aws) {
        programs.ministack = ministack().inspect_err(|error| say(&format!("{error:#}"))).ok();
    }
    let board = Arc::new(Board::of(wanted));
    let shards = shards()?.min(wanted.len());
    for shard in 0..shards {
        let method = method.map(str::to_owned);
        let (place, programs, board) = (place.clone(), programs.clone(), Arc::clone(&board));
        // Not joined: every trial waits for its verdict, and the sessions end with us.
        thread::spawn(move || {
            while let names = board.take(shards)
                && !names.is_empty()
            {
                run_share(&place, &programs, names, method.as_deref(), &board, (shard, print));
            }
        });
    }
    Ok(Source::Board(board))
}

/// `HOSTSEAL_LAB_SHARDS`, or two for each processor, and four at most: most of its time a test waits for time to
/// pass.
fn shards() -> Result<usize> {
    let Ok(given) = env::var("HOSTSEAL_LAB_SHARDS") else {
        return Ok(thread::available_parallelism().map_or(2, |count| (2 * count.get()).min(4)));
    };
    let count = given.parse().ok().filter(|count| (1..=16).contains(count));
    count.with_context(|| format!("HOSTSEAL_LAB_SHARDS is `{given}`; it can be 1 to 16"))
}

/// Runs tests until each has a verdict. A run that breaks off fails the test that was running, and
/// another one goes on behind it.
fn run_share(
    place: &Place,
    programs: &Programs,
    mut names: Vec<String>,
    method: Option<&str>,
    board: &Board,
    (shard, print): (usize, bool),
) {
    while !names.is_empty() {
        let job = Job::Tests { names: names.clone(), method: method.map(str::to_owned) };
        let ended = run_session(place, programs, &job, &mut names, board, (shard, print));
        if !names.is_empty() {
            let rest = ended.unwrap_or_else(|error| format!("{error:?}"));
            board.post(&names.remove(0), Err(format!("the lab ended during this test\n{rest}")));
        }
    }
}

/// One run. Takes the names off the front as verdicts come in. Returns what was said after the last one.
fn run_session(
    place: &Place,
    programs: &Programs,
    job: &Job,
    names: &mut Vec<String>,
    board: &Board,
    (shard, print): (usize, bool),
) -> Result<String> {
    let mut session = Session::start(place, job, programs, Input::Empty, shard)?;
    let mut output = Vec::new();
    while let Some(line) = session.next_line()? {
        match line {
            Line::Text(text) => {
                if print {
                    println!("{text}");
                }
                output.push(text);
            }
            Line::Record(Record::Test { name, failure, seconds }) => {
                board.note_length(&name, seconds);
                let said = std::mem::take(&mut output).join("\n");
                names.retain(|other| *other != name);
                board.post(&name, failure.map_or(Ok(()), |failure| Err(format!("{failure}\n{said}"))));
            }
            Line::Record(Record::Served(_) | Record::End { .. }) => {}
        }
    }
    output.push(session.finish()?);
    Ok(output.join("\n"))
}

/// The program under test: `$HOSTSEAL_BIN`, or built now, in the profile of this program (`cargo test` has
/// let go of its lock when it runs tests); and, if wanted, one whose agents can be made to die, and to write down
/// their keys.
///
/// # Errors
/// When they do not build.
fn programs(mortal: bool, what: &[&[&str]]) -> Result<Programs> {
    let release = !cfg!(debug_assertions);
    let built = profile_directory()?.join("hostseal");
    let mortal = mortal.then(|| -> Result<PathBuf> {
        if let Some(path) = env::var_os("HOSTSEAL_MORTAL_BIN") {
            return Ok(path.into());
        }
        // No optimised build gives its keys away.
        let export = if release { "" } else { ",hostseal/key-export" };
        let features = format!("hostseal/fault-injection{export}");
        build(release, &["--workspace", "--bin", "hostseal", "--features", &features])?;
        // The other one is built under the same name.
        let copy = built.with_file_name("hostseal-mortal");
        fs::copy(&built, &copy).with_context(|| format!("cargo built no {}", built.display()))?;
        Ok(copy)
    });
    let mortal = mortal.transpose()?;
    if let Some(path) = env::var_os("HOSTSEAL_BIN") {
        let hostseal = PathBuf::from(path);
        let beside = |name| Some(hostseal.with_file_name(name)).filter(|helper| helper.is_file());
        let (etcd, kms_aws) = (beside("hostseal-etcd"), beside("kms-aws"));
        return Ok(Programs { hostseal: Some(hostseal), etcd, kms_aws, mortal, ..Programs::default() });
    }
    what.iter().try_for_each(|what| build(release, what))?;
    let etcd = built.with_file_name("hostseal-etcd");
    for program in [&built, &etcd] {
        ensure!(program.is_file(), "cargo built no {}", program.display());
    }
    // The lab's command line has no use for it, and does without its minutes.
    let kms_aws = Some(built.with_file_name("kms-aws")).filter(|helper| helper.is_file());
    Ok(Programs { hostseal: Some(built), etcd: Some(etcd), kms_aws, mortal, ..Programs::default() })
}

/// Where ministack lies: fetched if it is not here yet.
fn ministack() -> Result<PathBuf> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../helpers/aws/tests/ministack");
    let output = Command::new(script).output().context("cannot run sh")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ministack cannot be fetched (apt-get install python3-pip): {said}");
    Ok(String::from_utf8(output.stdout)?.trim().into())
}

/// Runs this program, optimised, with these arguments. Returns its exit status.
///
/// # Errors
/// When it does not build.
pub fn in_release(arguments: &[String]) -> Result<i32> {
    say("building everything with optimisation, which takes some minutes the first time");
    BESIDE_US.iter().try_for_each(|what| build(true, what))?;
    let own = env::current_exe()?;
    let name = own.file_name().context("a program without a name")?;
    let program = profile_directory()?.with_file_name("release").join(name);
    let status = Command::new(&program).args(arguments).status();
    let status = status.with_context(|| format!("cannot run {}", program.display()))?;
    Ok(status.code().unwrap_or(1))
}

/// Runs the soak of the simulation (`src/host/sim/soak.rs`) for so many virtual hours, optimised.
///
/// # Errors
/// When `time` is no whole number of hours, or cargo does not run.
pub fn soak_in_virtual_time(time: &str, settings: [(&str, u64); 3]) -> Result<i32> {
    let hours = time.strip_suffix('h').and_then(|hours| hours.parse::<u32>().ok());
    let hours = hours.with_context(|| format!("`{time}` is no number of hours, such as 24h"))?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    cargo.args(["test", "--release", "--lib", "host::sim::soak", "--", "--nocapture"]);
    let settings = settings.into_iter().chain([("HOURS", u64::from(hours))]);
    let settings = settings.map(|(name, value)| (format!("HOSTSEAL_SOAK_{name}"), value.to_string()));
    let status = cargo.envs(settings).status().context("cannot run cargo")?;
    Ok(status.code().unwrap_or(1))
}

/// What cargo is asked for by tests.
const EVERYTHING: &[&[&str]] = &[&["--workspace", "--bins"]];
/// What it is asked for by the lab's command line, which is built alone: how crates are built follows from all that is
/// asked for at once, and the program that runs must not be replaced by another one.
const BESIDE_US: &[&[&str]] = &[
    &["--package", "hostseal", "--package", "xfrm-tests", "--bins"],
    &["--package", "hostseal-etcd", "--bins"],
];

/// And where AWS is asked.
const FOR_AWS: &[&[&str]] = &[&["--package", "hostseal-kms-aws", "--bins"]];

/// Builds programs of the workspace into the target directory that this one lies in.
fn build(release: bool, what: &[&str]) -> Result<()> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    cargo.args(["build", "--quiet"]).args(what);
    if release {
        cargo.arg("--release");
    }
    cargo.arg("--target-dir").arg(target_directory()?);
    let status = cargo.status().context("cannot run cargo to build hostseal")?;
    ensure!(status.success(), "hostseal does not build");
    Ok(())
}

/// Cargo's target directory that this program lies in.
fn target_directory() -> Result<PathBuf> {
    Ok(profile_directory()?.parent().context("a profile without a target directory")?.to_owned())
}

/// Where cargo put this program: the directory of its profile.
fn profile_directory() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let directory = own.parent().context("a program without a directory")?;
    let outer = directory.ends_with("deps").then(|| directory.parent()).flatten();
    Ok(outer.unwrap_or(directory).to_owned())
}

/// Runs one job and shows its output as it comes. Returns its exit status.
///
/// # Errors
/// When there can be no lab here, or it breaks down.
pub fn show(job: &Job, input: Input) -> Result<i32> {
    let entry = match job {
        Job::Show(show) => shows::find(&show.name),
        Job::Shell { .. } | Job::Tests { .. } => None,
    };
    let (mortal, aws) = entry.map_or((false, false), |entry| (entry.mortal, entry.aws));
    let asked = [BESIDE_US, if aws { FOR_AWS } else { &[] }].concat();
    let ministack = aws.then(ministack).transpose()?;
    show_with(job, Programs { ministack, ..programs(mortal, &asked)? }, input)
}

/// Runs a mixed cluster, with a roster or with files, of this hostseal and the one of an older revision. Returns the exit
/// status.
///
/// # Errors
/// When there is no such revision, it does not build, or there can be no lab here.
pub fn show_compatibility(revision: Option<&str>, roster: bool, colour: bool) -> Result<i32> {
    let revision = Revision::find(revision)?;
    let previous = Some(revision.build(&target_directory()?)?);
    let arguments = vec![revision.title()?];
    let entry = if roster { compat::CLUSTER } else { compat::ENTRY };
    let job = Job::Show(Show { name: entry.name.to_owned(), arguments, colour });
    // After the older one: both are built under the same name.
    show_with(&job, Programs { previous, ..programs(false, BESIDE_US)? }, Input::Empty)
}

fn show_with(job: &Job, programs: Programs, input: Input) -> Result<i32> {
    let place = Place::find()?;
    let any = usize::try_from(std::process::id())?;
    let directory = target_directory()?.join("pictures");
    let keep = |served: &Served| {
        served.keep(&directory)?.iter().for_each(|file| println!("     {}", file.display()));
        Ok(())
    };
    Session::start(&place, job, &programs, input, any)?.relay(keep)
}
