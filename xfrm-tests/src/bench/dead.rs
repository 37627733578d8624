//! What an agent costs whose file lists many hosts that are not there: processor time, memory, and what it writes to its
//! log.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::idle::{field, ticks};
use super::{goal, numbers};
use crate::lab::agent::{CONFIG, hostseal, status};
use crate::lab::session::Show;
use crate::lab::{Cluster, Lab};

/// How many minutes it is watched: each after the other.
const MINUTES: usize = 6;
/// Hundredths of a second of processor time that the last of them may take.
const TICKS: u64 = 120;
/// The largest number of hosts: the last two bytes of their addresses tell them apart.
const MOST: usize = 200 * 250;

/// `cargo lab bench dead [HOSTS…]`
///
/// # Errors
/// When the agent does not start, or ends.
pub fn show(show: &Show) -> Result<i32> {
    numbers(&show.arguments, &[1_000, 5_000])?.into_iter().try_for_each(measure)?;
    Ok(0)
}

fn measure(dead: usize) -> Result<()> {
    ensure!(dead <= MOST, "at most {MOST} hosts");
    let lab = Lab::new(1)?;
    let [host] = lab.all();
    let cluster = Cluster::of_v4(lab.hosts());
    cluster.install_all(lab.hosts())?;
    let nodes = (0..dead).map(|at| {
        let address = format!("10.99.{}.{}", 1 + at / 250, 1 + at % 250);
        format!("\n[[nodes]]\nname = \"dead{at}\"\naddresses = [\"{address}\"]\n")
    });
    host.write(CONFIG, &(cluster.text() + &nodes.collect::<String>()), 0o644)?;
    hostseal(&host, "enable --no-wait")?.expect_code(0)?;
    let agent = status(&host)?.agent()?;
    println!("{dead} hosts that are not there:");
    let mut last = 0;
    for minute in 1..=MINUTES {
        let before = ticks(agent)?;
        sleep(Duration::from_secs(60));
        last = ticks(agent)?.saturating_sub(before);
        let memory =
            field(&fs::read_to_string(format!("/proc/{agent}/status"))?, "VmRSS:").context("no VmRSS")?;
        println!(
            "  minute {minute}: {:>5.2} s of processor, {:.1} MB resident, {:.1} kB of log so far",
            last as f64 / 100.0,
            memory as f64 * 1.024 / 1e3,
            host.read("/run/hostseal/agent.log")?.len() as f64 / 1e3
        );
    }
    goal("under 2 % of a processor after five minutes", last < TICKS);
    Ok(())
}
