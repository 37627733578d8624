//! What being scraped costs a host: one whose keys are replaced all the time, under traffic, is scraped once a second, and
//! then is not.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

use super::grid::{give_pairs, protect};
use super::mesh::processor_time;
use super::metrics::scrape;
use super::{goal, numbers};
use crate::lab::exporter::{self, PORT, Scrape};
use crate::lab::session::Show;
use crate::lab::stream::Shape;
use crate::lab::{End, Host, Lab, Stream, until};

/// How long each part goes on.
const SPELL: Duration = Duration::from_secs(60);
/// How often a scraped host is scraped.
const EVERY: Duration = Duration::from_secs(1);
/// Packets a second in each direction.
const RATE: u32 = 500;
/// When keys are replaced: with a thousand pairs, some in every second.
const KEYING: (&str, &str) = ("keying", "rekey_after = \"60s\"");
/// So late keys may be replaced on a busy machine.
const LATE: u64 = 10;

/// What became of a host in one part.
struct Spell {
    sent: u64,
    lost: u64,
    /// Keys that were replaced, and that could not be.
    rekeys: [u64; 2],
    /// By how many seconds the replacement is late that is most overdue.
    overdue: u64,
    /// Processor time of both hosts.
    cost: Duration,
    scrapes: Vec<Duration>,
    /// Scrapes that the agent did not answer in time.
    unanswered: usize,
}

/// `cargo lab bench scrapes [PAIRS…]`
///
/// # Errors
/// When the pairs do not come up.
pub fn show(show: &Show) -> Result<i32> {
    for pairs in numbers(&show.arguments, &[1_024])? {
        let lab = Lab::new(2)?;
        compare(lab.hosts(), pairs, SPELL)?;
    }
    Ok(0)
}

/// Has `pairs` pairs with traffic scraped for a `time`, and left alone for another, and prints what became of them.
///
/// # Errors
/// When the pairs do not come up, or a stream breaks off.
pub fn compare(hosts: &[Host], pairs: usize, time: Duration) -> Result<()> {
    let host = hosts.first().context("a lab without hosts")?;
    hosts.iter().try_for_each(exporter::make_group)?;
    give_pairs(hosts, pairs, &[KEYING, ("metrics", "pairs = true")])?;
    protect(hosts, pairs)?;
    let _exporter = exporter::start(host, true, &format!("127.0.0.1:{PORT}"))?;
    println!("{pairs} pairs, keys replaced after 60 s, {RATE} packets a second each way, for {time:?} each:");
    for (what, every) in [("scraped once a second", Some(EVERY)), ("not scraped", None)] {
        let spell = spell(hosts, time, every)?;
        let slowest = spell.scrapes.iter().max().copied().unwrap_or_default();
        println!(
            "  {what:<22} {} packets, {} lost; {} rekeys, {} failed, {} s overdue at most; {:.1} s of processor; {} \
             scrapes, {:.0} ms the slowest, {} unanswered",
            spell.sent,
            spell.lost,
            spell.rekeys[0],
            spell.rekeys[1],
            spell.overdue,
            spell.cost.as_secs_f64(),
            spell.scrapes.len(),
            slowest.as_secs_f64() * 1e3,
            spell.unanswered
        );
        goal("no packet is lost", spell.lost == 0);
        goal("no rekey is missed", spell.rekeys[1] == 0 && spell.overdue <= LATE);
    }
    Ok(())
}

/// A time of traffic.
fn spell(hosts: &[Host], time: Duration, every: Option<Duration>) -> Result<Spell> {
    let host = hosts.first().context("a lab without hosts")?;
    let ends = hosts.iter().map(first_end).collect::<Result<Vec<_>>>()?;
    let [a, b] = ends.as_slice() else { anyhow::bail!("it takes two hosts") };
    // The first packets would be lost while the neighbour is being looked for.
    a.host.run(&format!("ping -n -q -c 1 -W 1 -I {} {}", a.address, b.address))?;
    let shape = Shape { rate: RATE, ..Shape::default() };
    let streams = [Stream::between([a, b], shape)?, Stream::between([b, a], shape)?];
    let before = answered(host)?;
    let (begun, cost) = (Instant::now(), processor_time(hosts)?);
    let (mut scrapes, mut late, mut unanswered) = (Vec::new(), Vec::new(), 0);
    while begun.elapsed() < time {
        if every.is_some() {
            let asked = Instant::now();
            let page = sample(host)?;
            scrapes.push(asked.elapsed());
            match overdue(&page)? {
                Some(seconds) => late.push(seconds),
                None => unanswered += 1,
            }
        }
        sleep(every.unwrap_or(EVERY));
    }
    let cost = processor_time(hosts)?.saturating_sub(cost);
    let after = answered(host)?;
    late.extend(overdue(&after)?);
    let [there, back] = streams.map(Stream::stop);
    let (there, back) = (there?, back?);
    let rekeys = ["ok", "failed"].map(|result| {
        let name = format!("hostseal_rekeys_total{{kind=\"child\",result=\"{result}\"}}");
        let [before, after] = [&before, &after].map(|page| page.value(&name).unwrap_or_default());
        (after - before) as u64
    });
    let overdue = late.into_iter().max().unwrap_or_default();
    Ok(Spell {
        sent: there.sent + back.sent,
        lost: there.lost + back.lost,
        rekeys,
        overdue,
        cost,
        scrapes,
        unanswered,
    })
}

/// The page once the agent answers in time.
fn answered(host: &Host) -> Result<Scrape> {
    until("the agent answers in time", SPELL, || {
        let page = sample(host)?;
        ensure!(page.value("hostseal_agent_up") == Some(1.0), "it did not");
        Ok::<_, anyhow::Error>(page)
    })
}

fn sample(host: &Host) -> Result<Scrape> {
    Ok(Scrape { code: 200, text: scrape(host)? })
}

/// By how many seconds the replacement of keys is late that is most overdue; `None` where the agent did not answer.
fn overdue(page: &Scrape) -> Result<Option<u64>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let due = page.value("hostseal_earliest_rekey_due_timestamp_seconds");
    Ok(due.map(|due| (now - due).max(0.0) as u64))
}

/// A host by the first of the addresses that its pairs have.
fn first_end(host: &Host) -> Result<End> {
    Ok(End { host: host.clone(), address: format!("10.99.{}.1", 100 + host.number()).parse()? })
}
