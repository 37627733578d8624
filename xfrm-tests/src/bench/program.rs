//! Writing SAs and policies: `xfrm` against `ip -batch`.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hostseal::types::KernelState;
use hostseal::xfrm::Tables;

use super::pairs::{self, OBJECTS, Pairs};
use super::race::{Side, Table, race};
use super::{goal, numbers};
use crate::lab::session::Show;
use crate::lab::{Host, Lab};

/// Where the file of `ip -batch` lies on the host.
const BATCH: &str = "/run/batch";
/// How long a processor is watched.
const WATCH: Duration = Duration::from_millis(250);
/// How often, at most: on a busy machine it never rests.
const LOOKS: usize = 40;

/// `cargo lab bench program [PAIRS…]`
///
/// # Errors
/// When a side fails, or both do not leave the same behind.
pub fn show(show: &Show) -> Result<i32> {
    let lab = Lab::new(1)?;
    let [host] = lab.all();
    for count in numbers(&show.arguments, &[1_000, 10_000])? {
        compare(&host, count, 5)?;
    }
    Ok(0)
}

/// Adds `count` pairs in both ways, `rounds` times each, and prints the times.
///
/// # Errors
/// When a side fails, or both do not leave the same behind.
pub fn compare(host: &Host, count: usize, rounds: usize) -> Result<()> {
    let mut reader = host.within(Tables::open)??;
    let pairs = Pairs::new(count);
    host.write(BATCH, &pairs.batch(reader.features()), 0o600)?;
    // Once without a clock, so that both sides find the kernel's tables as large as they become.
    ours(host, &pairs)?;
    let expected = take(host, &mut reader, count)?;
    let (mut one, mut other) = (host.within(Tables::open)??, reader);
    let same = |kernel: &mut Tables| -> Result<()> {
        ensure!(take(host, kernel, count)? == expected, "the two sides do not leave the same behind");
        Ok(())
    };
    let laps = race(
        rounds,
        &mut [
            Side::new("hostseal", || {
                let time = ours(host, &pairs)?;
                same(&mut one).map(|()| time)
            }),
            Side::new("ip -batch", || {
                let time = theirs(host)?;
                same(&mut other).map(|()| time)
            }),
        ],
    )?;
    println!(
        "{count} pairs, {} objects, added {rounds} times in turns; median (shortest to longest):",
        count * OBJECTS
    );
    print!("{}", Table(&laps));
    goal("at least 3 times as fast as `ip -batch`", laps[1].ratio_to(&laps[0]) >= 3.0);
    Ok(())
}

/// From opening the socket to the kernel's last answer.
fn ours(host: &Host, pairs: &Pairs) -> Result<Duration> {
    host.within(|| {
        let started = Instant::now();
        pairs::program(&mut Tables::open()?, pairs)?;
        Ok(started.elapsed())
    })?
}

/// From the start of the process to its end.
fn theirs(host: &Host) -> Result<Duration> {
    host.within(|| {
        let started = Instant::now();
        let output = Command::new("ip").args(["-batch", BATCH]).stdin(Stdio::null()).output();
        let time = started.elapsed();
        let output = output.context("cannot run ip")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ip -batch: {}", said.chars().take(1_000).collect::<String>());
        Ok(time)
    })?
}

/// What is in the kernel; it is empty afterwards, and at rest.
fn take(host: &Host, kernel: &mut Tables, count: usize) -> Result<KernelState> {
    let state = pairs::contents(kernel, count)?;
    pairs::flush(host)?;
    rest()?;
    Ok(state)
}

/// Waits until a processor has nothing to do: the kernel frees what a flush removed by and by, and nobody
/// is to pay for what the one before left.
fn rest() -> Result<()> {
    let idle = || -> Result<f64> {
        let uptime = fs::read_to_string("/proc/uptime")?;
        Ok(uptime.split_whitespace().nth(1).context("no idle time in /proc/uptime")?.parse()?)
    };
    for _ in 0..LOOKS {
        let before = idle()?;
        sleep(WATCH);
        if idle()? - before > 0.8 * WATCH.as_secs_f64() {
            break;
        }
    }
    Ok(())
}
