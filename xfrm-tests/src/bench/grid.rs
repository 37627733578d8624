//! Many pairs between two hosts, each of which has many addresses: how long it takes until all are protected, and until
//! all have new keys once an agent has died. Both are to grow as the pairs do.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::idle::give_addresses;
use super::mesh::{messages, processor_time};
use super::{goal, numbers};
use crate::lab::agent::{SECRETS, hostseal, hostseal_all, kill_agent, status};
use crate::lab::session::Show;
use crate::lab::{Cluster, Host, Lab, until};

/// The time in which all must be protected, or have new keys: this, and so much for each pair.
const LIMIT: (Duration, Duration) = (Duration::from_secs(120), Duration::from_millis(150));
/// The largest number of addresses of a host: the last byte tells them apart.
const MOST: usize = 250;
/// So many times as long as with the fewest a pair may take with the most.
const GROWTH: f64 = 1.5;

/// `cargo lab bench pairs [PAIRS…]`
///
/// # Errors
/// When the pairs do not come up.
pub fn show(show: &Show) -> Result<i32> {
    let mut sizes = numbers(&show.arguments, &[1_024, 5_041])?;
    sizes.sort_unstable();
    let each = sizes.into_iter().map(measure).collect::<Result<Vec<_>>>()?;
    if let [first, .., last] = each.as_slice() {
        goal(&format!("a pair takes at most {GROWTH} times as long"), last <= &first.mul_f64(GROWTH));
    }
    Ok(0)
}

/// Brings up `pairs` pairs, has one agent die, and prints the times. Returns how long a pair took.
fn measure(pairs: usize) -> Result<Duration> {
    let lab = Lab::new(2)?;
    let hosts = lab.hosts();
    give_pairs(hosts, pairs, &[])?;
    println!("{pairs} pairs, {} addresses a host:", pairs.isqrt());
    let protected = timed(hosts, "all protected", pairs, || protect(hosts, pairs))?;
    let [first, _] = lab.all();
    kill_agent(&first)?;
    timed(hosts, "new keys after one agent was killed", pairs, || {
        hostseal(&first, "enable --no-wait")?.expect_code(0)?;
        let mut pause = Duration::from_millis(100);
        until("all have new keys", limit(pairs)?, || {
            // A status of thousands of pairs is work: asked for all the time it would keep the agent from its own.
            sleep(pause);
            let asked = Instant::now();
            let status = status(&first)?;
            pause = 9 * asked.elapsed();
            let old =
                status.peers().iter().filter(|row| row.pointer("/ike").is_none_or(Value::is_null)).count();
            ensure!(old == 0, "{old} pairs have the keys of the agent that died");
            Ok::<_, anyhow::Error>(())
        })
    })?;
    Ok(protected / u32::try_from(pairs)?)
}

/// Gives two hosts so many addresses that they have `pairs` pairs, and the file for it, with these lines, each behind the
/// name of its section.
pub(super) fn give_pairs(hosts: &[Host], pairs: usize, lines: &[(&str, &str)]) -> Result<()> {
    let side = pairs.isqrt();
    ensure!(side * side == pairs && (1..=MOST).contains(&side), "{pairs} is not the square of 1 to {MOST}");
    let members = hosts.iter().map(|host| Ok((host, crowd(host, side)?))).collect::<Result<Vec<_>>>()?;
    let cluster =
        lines.iter().fold(Cluster::new(members), |cluster, (section, line)| cluster.with(section, line));
    hosts.iter().try_for_each(|host| cluster.install(host, SECRETS[0]))
}

/// Enables both, and waits until all their `pairs` pairs are protected.
pub(super) fn protect(hosts: &[Host], pairs: usize) -> Result<()> {
    await_code_0(hosts, "enable --no-wait")?;
    until("all are protected", limit(pairs)?, || await_code_0(hosts, "status --wait 50s"))
}

fn limit(pairs: usize) -> Result<Duration> {
    let (least, each) = LIMIT;
    Ok(least + each * u32::try_from(pairs)?)
}

fn await_code_0(hosts: &[Host], arguments: &str) -> Result<()> {
    hostseal_all(hosts, arguments)?.into_iter().try_for_each(|outcome| outcome.expect_code(0).map(drop))
}

/// Does something, and prints how long that took and what it cost both hosts together.
fn timed(hosts: &[Host], what: &str, pairs: usize, run: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let (started, cost, sent) = (Instant::now(), processor_time(hosts)?, messages(hosts)?);
    run()?;
    let (took, cost) = (started.elapsed(), processor_time(hosts)?.saturating_sub(cost));
    let of_pair = |time: Duration| time.as_secs_f64() * 1e3 / pairs as f64;
    println!(
        "  {what:<36} {:>6.1} s, {:.2} ms a pair; {:.2} ms of processor and {:.1} datagrams a pair",
        took.as_secs_f64(),
        of_pair(took),
        of_pair(cost),
        (messages(hosts)? - sent) as f64 / pairs as f64
    );
    Ok(took)
}

/// Gives a host so many addresses instead of the one that it has.
fn crowd(host: &Host, count: usize) -> Result<Vec<String>> {
    let addresses: Vec<_> = (1..=count).map(|last| format!("10.99.{}.{last}", 100 + host.number())).collect();
    give_addresses(host, &addresses)?;
    Ok(addresses)
}
