//! What being scraped costs a host: one whose keys are replaced all the time, under traffic, is scraped once a second, and
//! then is not.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use super::grid::{give_pairs, protect};
use super::mesh::processor_time;
use super::metrics::scrape;
use super::{goal, numbers};
use crate::lab::exporter::{self, PORT, Scrape};
use crate::lab::session::Show;
use crate::lab::stream::Shape;
use crate::lab::{End, Host, Lab, Stream};

/// How long each part goes on.
const SPELL: Duration = Duration::from_secs(60);
/// How often a scraped host is scraped.
const EVERY: Duration = Duration::from_secs(1);
/// Packets a second in each direction.
const RATE: u32 = 500;
/// When keys are replaced: with a thousand pairs, some in every second.
const KEYING: &str = "rekey_after = \"60s\"";
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
    give_pairs(hosts, pairs, &[KEYING])?;
    protect(hosts)?;
    let _exporter = exporter::start(host, true, &format!("127.0.0.1:{PORT}"))?;
    println!("{pairs} pairs, keys replaced after 60 s, {RATE} packets a second each way, for {time:?} each:");
    for (what, every) in [("scraped once a second", Some(EVERY)), ("not scraped", None)] {
        let spell = spell(hosts, time, every)?;
        let slowest = spell.scrapes.iter().max().copied().unwrap_or_default();
        println!(
            "  {what:<22} {} packets, {} lost; {} rekeys, {} failed, {} s overdue at most; {:.1} s of processor; {} \
             scrapes, {:.0} ms the slowest",
            spell.sent,
            spell.lost,
            spell.rekeys[0],
            spell.rekeys[1],
            spell.overdue,
            spell.cost.as_secs_f64(),
            spell.scrapes.len(),
            slowest.as_secs_f64() * 1e3
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
    let before = sample(host)?;
    let (begun, cost) = (Instant::now(), processor_time(hosts)?);
    let (mut scrapes, mut late) = (Vec::new(), Vec::new());
    while begun.elapsed() < time {
        if every.is_some() {
            let asked = Instant::now();
            let page = sample(host)?;
            scrapes.push(asked.elapsed());
            late.push(overdue(&page)?);
        }
        sleep(every.unwrap_or(EVERY));
    }
    let cost = processor_time(hosts)?.saturating_sub(cost);
    let after = sample(host)?;
    late.push(overdue(&after)?);
    let [there, back] = streams.map(Stream::stop);
    let (there, back) = (there?, back?);
    let rekeys = ["ok", "failed"].map(|result| {
        let name = format!("hostseal_rekeys_total{{kind=\"child\",result=\"{result}\"}}");
        let [before, after] = [&before, &after].map(|page| page.value(&name).unwrap_or_default());
        (after - before) as u64
    });
    let overdue = late.into_iter().max().unwrap_or_default();
    Ok(Spell { sent: there.sent + back.sent, lost: there.lost + back.lost, rekeys, overdue, cost, scrapes })
}

fn sample(host: &Host) -> Result<Scrape> {
    Ok(Scrape { code: 200, text: scrape(host)? })
}

/// By how many seconds the replacement of keys is late that is most overdue.
fn overdue(page: &Scrape) -> Result<u64> {
    let due = page.value("hostseal_earliest_rekey_due_timestamp_seconds").context("no keys are due")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok((now.as_secs_f64() - due).max(0.0) as u64)
}

/// A host by the first of the addresses that its pairs have.
fn first_end(host: &Host) -> Result<End> {
    Ok(End { host: host.clone(), address: format!("10.99.{}.1", 100 + host.number()).parse()? })
}
