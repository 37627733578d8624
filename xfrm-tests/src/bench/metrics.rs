//! What a scrape costs: of the exporter, against the least that it takes to fetch the counters from the kernel.

use std::fs;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hostseal::control::{Reply, Request};

use super::bare::Bare;
use super::control::Control;
use super::counters::listing;
use super::grid::{give_pairs, protect};
use super::idle::field;
use super::race::{Side, Table, race};
use super::{goal, numbers};
use crate::lab::agent::{CONFIG, hostseal, status};
use crate::lab::exporter::{self, PORT};
use crate::lab::session::Show;
use crate::lab::{Host, Lab};

/// What the kernel's answer is read into.
const BUFFER: usize = 64 << 10;
/// Longer than the agent and the exporter gather questions, with what a look may cost: nobody waits for the last round.
/// Each side begins with it, as a scrape finds caches that others have used meanwhile.
const PAUSE: Duration = Duration::from_secs(3);
/// How long a scrape may take with any number of pairs.
const GOAL: Duration = Duration::from_secs(1);
/// How much memory the exporter may have, in MB.
const MEMORY: u64 = 64;

/// `cargo lab bench metrics [PAIRS…]`
///
/// # Errors
/// When the pairs do not come up.
pub fn show(show: &Show) -> Result<i32> {
    for pairs in numbers(&show.arguments, &[1_024, 10_000])? {
        let lab = Lab::new(2)?;
        compare(lab.hosts(), pairs, 9)?;
    }
    Ok(0)
}

/// Scrapes a host with `pairs` pairs, `rounds` times without and `rounds` times with series of its pairs, and prints the
/// times.
///
/// # Errors
/// When the pairs do not come up, or some are not there.
pub fn compare(hosts: &[Host], pairs: usize, rounds: usize) -> Result<()> {
    let host = hosts.first().context("a lab without hosts")?;
    hosts.iter().try_for_each(exporter::make_group)?;
    give_pairs(hosts, pairs, &[("metrics", "pairs = false")])?;
    protect(hosts, pairs)?;
    let exporter = exporter::start(host, true, &format!("127.0.0.1:{PORT}"))?;
    look(host, Series { pairs, of_pairs: false }, rounds)?;
    // It is on as soon as the file says so, and off only after a restart.
    for host in hosts {
        host.run(&format!("sed -i 's/^pairs = false/pairs = true/' {CONFIG}"))?;
        hostseal(host, "reload")?.expect_code(0)?;
    }
    look(host, Series { pairs, of_pairs: true }, rounds)?;
    for (name, pid) in [("exporter", exporter.pid()), ("agent", status(host)?.agent()?)] {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let [now, most] = ["VmRSS:", "VmHWM:"].map(|name| field(&status, name).unwrap_or_default() / 1024);
        println!("  the {name}: {now} MB resident, {most} MB at most");
        if name == "exporter" {
            goal(&format!("{MEMORY} MB at most"), most <= MEMORY);
        }
    }
    Ok(())
}

/// What a page has.
#[derive(Clone, Copy)]
struct Series {
    pairs: usize,
    /// The series of each pair too. By default they are there for up to 100 pairs.
    of_pairs: bool,
}

/// Scrapes the host, and prints how long that took.
fn look(host: &Host, series: Series, rounds: usize) -> Result<()> {
    let mut bare = Bare::open(host, BUFFER)?;
    let mut octets = 0;
    let laps = race(
        rounds,
        &mut [
            Side::new("GET /metrics", || {
                sleep(PAUSE);
                let started = Instant::now();
                let page = scrape(host)?;
                let time = started.elapsed();
                octets = page.len();
                series.ensure_in(&page)?;
                Ok(time)
            }),
            Side::new("GET /metrics of a page that is there", || {
                sleep(PAUSE);
                scrape(host)?;
                let started = Instant::now();
                black_box(scrape(host)?);
                Ok(started.elapsed())
            }),
            Side::new("the agent's part", || {
                sleep(PAUSE);
                ask(host, series.of_pairs)
            }),
            Side::new("bare dump of the kernel's SAs", || {
                sleep(PAUSE);
                let started = Instant::now();
                black_box(bare.dump()?);
                Ok(started.elapsed())
            }),
            Side::new("ip -s xfrm state > /dev/null", || {
                sleep(PAUSE);
                listing(host)
            }),
        ],
    )?;
    println!(
        "{} pairs, {}, a page of {:.0} kB, {rounds} times in turns; median (shortest to longest):",
        series.pairs,
        if series.of_pairs { "with series of each" } else { "the host's series alone, as by default" },
        octets as f64 / 1e3
    );
    print!("{}", Table(&laps));
    let [page, ready, agent] = [0, 1, 2].map(|at| laps[at].ratio_to(&laps[3]));
    println!(
        "  in bare dumps: the page {page:.2}, one that is there {ready:.2}, the agent's part {agent:.2}"
    );
    goal("within 3 times the bare dump", page <= 3.0);
    goal("within a second", laps[0].median() <= GOAL);
    Ok(())
}

impl Series {
    fn ensure_in(self, page: &str) -> Result<()> {
        let rows = page.lines().filter(|line| line.starts_with("hostseal_pair_info{")).count();
        let expected = if self.of_pairs { self.pairs } else { 0 };
        ensure!(rows == expected, "{rows} rows of pairs instead of {expected}");
        ensure!(page.contains(&format!("hostseal_pairs{{state=\"protected\"}} {}\n", self.pairs)));
        Ok(())
    }
}

/// What the agent takes to tell numbers, of all pairs or of none. It closes a connection that is silent between rounds.
fn ask(host: &Host, pairs: bool) -> Result<Duration> {
    let mut control = Control::connect(host)?;
    let started = Instant::now();
    control.ask(Request::MetricsTable { pairs: Some(pairs) })?;
    let answer = control.answer()?;
    let time = started.elapsed();
    let Reply::Table(table) = answer else { bail!("that is no table") };
    ensure!(table.into_figures()?.healthy, "it is not healthy");
    Ok(time)
}

/// A scrape without a process for it.
pub(super) fn scrape(host: &Host) -> Result<String> {
    host.within(|| -> Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        ensure!(page.starts_with("HTTP/1.1 200 "), "{}", page.lines().next().unwrap_or_default());
        Ok(page)
    })?
}
