//! What a scrape costs: of the exporter, against the least that it takes to fetch the counters from the kernel.

use std::cell::RefCell;
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
use crate::lab::agent::status;
use crate::lab::exporter::{self, PORT};
use crate::lab::session::Show;
use crate::lab::{Host, Lab};

/// What the kernel's answer is read into.
const BUFFER: usize = 64 << 10;
/// Longer than the agent and the exporter gather questions, with what a look may cost: nobody waits for the last round.
const PAUSE: Duration = Duration::from_secs(3);
/// How long a scrape may take for a number of pairs, and how much memory the exporter.
const GOAL: (Duration, u64) = (Duration::from_secs(1), 64);

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

/// Scrapes a host with `pairs` pairs, `rounds` times, and prints the times.
///
/// # Errors
/// When the pairs do not come up, or some are not there.
pub fn compare(hosts: &[Host], pairs: usize, rounds: usize) -> Result<()> {
    let host = hosts.first().context("a lab without hosts")?;
    hosts.iter().try_for_each(exporter::make_group)?;
    give_pairs(hosts, pairs, &[])?;
    protect(hosts)?;
    let exporter = exporter::start(host, true, &format!("127.0.0.1:{PORT}"))?;
    let mut bare = Bare::open(host, BUFFER)?;
    let control = RefCell::new(Control::connect(host)?);
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
                let rows = page.lines().filter(|line| line.starts_with("hostseal_pair_info{")).count();
                ensure!(rows == pairs, "{rows} of {pairs} pairs");
                Ok(time)
            }),
            Side::new("GET /metrics of a page that is there", || {
                sleep(PAUSE);
                scrape(host)?;
                let started = Instant::now();
                black_box(scrape(host)?);
                Ok(started.elapsed())
            }),
            Side::new("the agent asked for all", || ask(&mut control.borrow_mut(), true)),
            Side::new("the agent asked for the host alone", || ask(&mut control.borrow_mut(), false)),
            Side::new("bare dump of the kernel's SAs", || {
                let started = Instant::now();
                black_box(bare.dump()?);
                Ok(started.elapsed())
            }),
            Side::new("ip -s xfrm state > /dev/null", || listing(host)),
        ],
    )?;
    println!(
        "{pairs} pairs, a page of {:.1} MB, {rounds} times in turns; median (shortest to longest):",
        octets as f64 / 1e6
    );
    print!("{}", Table(&laps));
    let [page, ready, all, host_alone] = [0, 1, 2, 3].map(|at| laps[at].ratio_to(&laps[4]));
    println!(
        "  in bare dumps: the page {page:.2}, one that is there {ready:.2}, the agent's part {all:.2}, without pairs \
         {host_alone:.2}"
    );
    goal("within 3 times the bare dump", page <= 3.0);
    goal("within a second", laps[0].median() <= GOAL.0);
    for (name, pid) in [("exporter", exporter.pid()), ("agent", status(host)?.agent()?)] {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let [now, most] = ["VmRSS:", "VmHWM:"].map(|name| field(&status, name).unwrap_or_default() / 1024);
        println!("  the {name}: {now} MB resident, {most} MB at most");
        goal(&format!("{} MB at most", GOAL.1), most <= GOAL.1);
    }
    Ok(())
}

/// What the agent takes to tell numbers, of all pairs or of none.
fn ask(control: &mut Control, pairs: bool) -> Result<Duration> {
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
