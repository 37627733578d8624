//! Reading the counters of all SAs: `xfrm` against `ip -s xfrm state`, and against fetching the bytes alone.

use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hostseal::xfrm::Tables;

use super::bare::Bare;
use super::pairs::{self, Pairs};
use super::race::{Side, Table, race};
use super::{goal, numbers};
use crate::lab::session::Show;
use crate::lab::{Host, Lab};

/// Enough for any part of a dump: the kernel makes none that is larger.
const SMALL: usize = 32 << 10;
/// What hostseal reads into.
const OURS: usize = 64 << 10;

/// `cargo lab bench counters [SAS…]`
///
/// # Errors
/// When a side fails.
pub fn show(show: &Show) -> Result<i32> {
    let lab = Lab::new(1)?;
    let [host] = lab.all();
    for count in numbers(&show.arguments, &[20_000])? {
        compare(&host, count, 15)?;
    }
    Ok(0)
}

/// Reads `count` SAs in all ways, `rounds` times each, and prints the times.
///
/// # Errors
/// When a side fails, or does not see all of them.
pub fn compare(host: &Host, count: usize, rounds: usize) -> Result<()> {
    let mut kernel = host.within(Tables::open)??;
    pairs::program(&mut kernel, &Pairs::new(count / 2))?;
    let (mut small, mut large) = (Bare::open(host, SMALL)?, Bare::open(host, OURS)?);
    ensure!(small.count()? as usize == count / 2 * 2, "the kernel counts {} SAs", small.count()?);
    let bytes = small.dump()?;
    let laps = race(
        rounds,
        &mut [
            Side::new("hostseal", || {
                let started = Instant::now();
                let sas = kernel.read_sas()?;
                let time = started.elapsed();
                ensure!(black_box(sas).len() == count / 2 * 2, "hostseal does not see all SAs");
                Ok(time)
            }),
            Side::new("bare recv, 32 KiB at a time", || dump(&mut small, bytes)),
            Side::new("bare recv, 64 KiB at a time", || dump(&mut large, bytes)),
            Side::new("ip -s xfrm state > /dev/null", || listing(host)),
        ],
    )?;
    println!(
        "{count} SAs, {:.1} MB, read {rounds} times in turns; median (shortest to longest):",
        bytes as f64 / 1e6
    );
    print!("{}", Table(&laps));
    let bare = laps[1].median().min(laps[2].median()).as_secs_f64();
    let ratio = laps[0].median().as_secs_f64() / bare;
    goal(&format!("within twice the bare recv ({ratio:.2} times)"), ratio <= 2.0);
    pairs::flush(host)
}

fn dump(bare: &mut Bare, bytes: usize) -> Result<Duration> {
    let started = Instant::now();
    let fetched = bare.dump()?;
    let time = started.elapsed();
    ensure!(fetched == bytes, "{fetched} bytes came instead of {bytes}");
    Ok(time)
}

/// How long iproute2 takes to list all SAs with their counters.
pub(super) fn listing(host: &Host) -> Result<Duration> {
    host.within(|| {
        let mut command = Command::new("ip");
        command.args(["-s", "xfrm", "state"]).stdin(Stdio::null()).stdout(Stdio::null());
        let started = Instant::now();
        let status = command.status()?;
        let time = started.elapsed();
        ensure!(status.success(), "ip -s xfrm state ended with {status}");
        Ok(time)
    })?
}
