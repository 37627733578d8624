//! A cluster under traffic for as long as you like, with everything that can leak made short: rekeys every
//! few seconds, SAs that expire within minutes, agents that die, end and start, IKE that is cut off.
//!
//! Each minute prints what flowed and what each agent and each kernel holds.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hostseal::types::units::parse_duration;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::measure::{Figures, Measurement, Sealed};
use crate::lab::agent::{start_agent, status};
use crate::lab::host::Process;
use crate::lab::session::Show;
use crate::lab::{Cluster, Family, Host, Lab, Toward, until};
use crate::scenarios::{await_one_pair, await_protected, seal_all};

/// Packets a second in each direction.
const RATE: u32 = 200;
/// How often figures are printed.
const PERIOD: Duration = Duration::from_secs(60);
/// How often something happens.
const PAUSE: Duration = Duration::from_secs(9);
/// How long IKE is cut off, or an agent away.
const AWAY: Duration = Duration::from_secs(4);
/// More SAs than this between three hosts pile up: old and new ones of each pair, and of an agent before.
const SAS_MOST: usize = 16;
/// Memory that an agent may gain between its first and its last minute, in kB.
const GAIN_MOST: u64 = 2_000;

/// `cargo lab soak [TIME]`
///
/// # Errors
/// When the cluster does not come up, or does not come back after something happened.
pub fn show(show: &Show) -> Result<i32> {
    let time = show.arguments.first().map_or("30m", String::as_str);
    let time = parse_duration(time).map_err(anyhow::Error::msg).context("how long to run")?;
    let lab = Lab::new(3)?;
    let cluster = Cluster::of_v4(lab.hosts())
        .with("keying", "rekey_after = \"6s\"")
        .with("keying", "expire_after = \"2m\"");
    seal_all(&cluster, lab.hosts())?;
    let mut soak = Soak { lab, agents: Vec::new(), happened: 0 };
    let mut wrong = Vec::new();
    let mut first = None;
    let end = Instant::now() + time;
    while Instant::now() < end {
        let figures = soak.period()?;
        let held = soak.held()?;
        soak.print(&figures, &held);
        wrong.extend(figures.iter().filter(|it| !it.is_perfect()).map(ToString::to_string));
        ensure!(held.iter().all(|it| it.sas <= SAS_MOST), "SAs pile up");
        let first = first.get_or_insert_with(|| held.clone());
        for (before, now) in first.iter().zip(&held) {
            ensure!(now.memory <= before.memory + GAIN_MOST, "memory grows: {before:?}, now {now:?}");
            ensure!(now.descriptors <= before.descriptors + 2, "descriptors leak: {before:?}, now {now:?}");
        }
    }
    let [a, b, _] = soak.lab.all();
    await_one_pair(&a, &b, Family::V4, PERIOD)?;
    wrong.iter().for_each(|figures| println!("NOT AS PROMISED: {figures}"));
    Ok(i32::from(!wrong.is_empty()))
}

struct Soak {
    lab: Lab,
    agents: Vec<Process>,
    happened: usize,
}

/// What a host holds.
#[derive(Debug, Clone)]
struct Held {
    sas: usize,
    policies: usize,
    /// Resident memory of the agent in kB.
    memory: u64,
    descriptors: usize,
    sockets: usize,
    /// What its kernel dropped since the start, and why, as far as it says so.
    dropped: String,
}

impl Soak {
    /// A minute of traffic with something happening now and then.
    fn period(&mut self) -> Result<[Figures; 2]> {
        let [a, b, _] = self.lab.all();
        let measurement = Measurement::start(&self.lab, [&a, &b], RATE)?;
        let end = Instant::now() + PERIOD;
        while Instant::now() + PAUSE + AWAY < end {
            sleep(PAUSE);
            self.happen()?;
        }
        sleep(end.saturating_duration_since(Instant::now()));
        measurement.stop(Sealed::default())
    }

    /// Kill, end and cut off by turns, each host by turns.
    fn happen(&mut self) -> Result<()> {
        let host = self.lab.hosts()[self.happened / 3 % 3].clone();
        match self.happened % 3 {
            0 => self.restart(&host, Signal::SIGKILL)?,
            1 => self.restart(&host, Signal::SIGTERM)?,
            _ => {
                let ike = "protocol ip flower ip_proto udp dst_port 500";
                self.lab.wire().drop_matching(&host, Toward::Wire, ike)?;
                sleep(AWAY);
                self.lab.wire().pass_all(&host)?;
            }
        }
        self.happened += 1;
        await_protected(&host)
    }

    fn restart(&mut self, host: &Host, signal: Signal) -> Result<()> {
        let agent = status(host)?.agent()?;
        kill(agent, signal)?;
        until("the agent is gone", Duration::from_secs(10), || {
            // One that we started stays as a zombie until it is waited for.
            self.agents.retain_mut(Process::is_running);
            ensure!(!host.processes()?.contains(&agent), "it runs");
            Ok::<_, anyhow::Error>(())
        })?;
        sleep(AWAY);
        self.agents.push(start_agent(host)?);
        Ok(())
    }

    fn held(&self) -> Result<Vec<Held>> {
        self.lab.hosts().iter().map(held).collect()
    }

    fn print(&self, figures: &[Figures; 2], held: &[Held]) {
        let [there, back] = figures;
        println!(
            "{} mishaps; a to b {} sent, {} lost, {} clear; b to a {} sent, {} lost, {} clear",
            self.happened, there.sent, there.lost, there.clear, back.sent, back.lost, back.clear
        );
        for (host, held) in self.lab.hosts().iter().zip(held) {
            println!(
                "  {}: {} SAs, {} policies, {} kB resident, {} descriptors, {} of them sockets; dropped so far: {}",
                host.name(),
                held.sas,
                held.policies,
                held.memory,
                held.descriptors,
                held.sockets,
                held.dropped
            );
        }
    }
}

fn held(host: &Host) -> Result<Held> {
    let agent = status(host)?.agent()?;
    let count = |line: &str| -> Result<usize> { Ok(host.run(line)?.trim().parse()?) };
    let (descriptors, sockets) = descriptors(agent)?;
    Ok(Held {
        sas: count("ip -o xfrm state | wc -l")?,
        policies: count("ip -o xfrm policy | grep -c priority")?,
        memory: resident(agent)?,
        descriptors,
        sockets,
        dropped: dropped(host)?,
    })
}

/// The counters of what IPsec dropped that are not 0, and those of what sockets had no room for: a stream on a machine
/// that is too busy to read it loses packets that no IPsec touched.
fn dropped(host: &Host) -> Result<String> {
    let counters =
        host.run("cat /proc/net/xfrm_stat; nstat -asz UdpRcvbufErrors UdpSndbufErrors | grep '^Udp'")?;
    let counters = counters.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, count) = (words.next()?, words.next()?);
        (count != "0").then(|| format!("{name} {count}"))
    });
    let some: Vec<String> = counters.collect();
    Ok(if some.is_empty() { "nothing".to_owned() } else { some.join(", ") })
}

pub(super) fn resident(process: Pid) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// All of them, and the sockets among them.
fn descriptors(process: Pid) -> Result<(usize, usize)> {
    let mut all = 0;
    let mut sockets = 0;
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        all += 1;
        let target = fs::read_link(entry?.path()).unwrap_or_default();
        sockets += usize::from(target.to_string_lossy().starts_with("socket:"));
    }
    Ok((all, sockets))
}
