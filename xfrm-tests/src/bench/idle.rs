//! What a daemon costs that has nothing to do: memory, and how often it wakes up. hostseal's agent beside
//! strongSwan's charon, with few peers and with many.

use std::fmt;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;

use super::bare::Bare;
use super::vici::Vici;
use super::{goal, numbers};
use crate::lab::agent::{SECRETS, hostseal, status};
use crate::lab::session::Show;
use crate::lab::{Cluster, Connection, Host, Lab, Peer as _, Swan, until};

/// What follows the start (graces, replaced SAs) is over by then.
const REST: Duration = Duration::from_secs(45);
/// How long it is watched.
const WATCH: Duration = Duration::from_secs(60);
/// The time in which all pairs should be protected once the last host was enabled.
const SETTLING: Duration = Duration::from_secs(20);
/// The time in which strongSwan's pairs must be up.
const LIMIT: Duration = Duration::from_secs(180);
/// How many peers live on one host, each an address of it.
const CROWD: usize = 100;
/// The largest number of peers: the third byte of their addresses tells the hosts apart.
const MOST: usize = 150 * CROWD;

/// `cargo lab bench idle [PEERS…]`
///
/// # Errors
/// When the pairs do not come up.
pub fn show(show: &Show) -> Result<i32> {
    for peers in numbers(&show.arguments, &[3, 1_000])? {
        compare(peers)?;
    }
    Ok(0)
}

fn compare(peers: usize) -> Result<()> {
    ensure!(peers <= MOST, "at most {MOST} peers");
    let ours = ours(peers)?;
    println!("{peers} peers, after {} idle seconds, over {} more:", REST.as_secs(), WATCH.as_secs());
    println!("  {:<32} {ours}", "hostseal");
    let theirs = theirs(peers)?;
    println!("  {:<32} {theirs}", "strongSwan");
    let limit = if peers <= 3 { 12 } else { 32 };
    goal(&format!("less than {limit} MB"), ours.resident < limit * 1_000);
    // It reads the counters each five seconds. Each peer is asked, or asks, once a minute.
    let limit = 60 / 5 + 6 + 2 * peers as u64;
    goal(&format!("at most {limit} wake-ups a minute"), ours.wakeups <= limit);
    Ok(())
}

/// What a process costs.
pub(super) struct Footprint {
    /// Resident memory in kB.
    resident: u64,
    /// The same with shared pages shared out among their users, in kB, where the kernel tells.
    proportional: Option<u64>,
    /// The most memory that was ever resident, in kB.
    peak: u64,
    /// How often a thread of it went to sleep within [`WATCH`].
    wakeups: u64,
    /// Processor time within [`WATCH`] in hundredths of a second.
    ticks: u64,
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |kilobytes: u64| kilobytes as f64 * 1.024 / 1e3;
        write!(f, "{:>5.1} MB resident", megabytes(self.resident))?;
        if let Some(proportional) = self.proportional {
            write!(f, " ({:.1} proportional, {:.1} at most)", megabytes(proportional), megabytes(self.peak))?;
        }
        write!(f, ", {} wake-ups a minute, {} ms of processor", self.wakeups, self.ticks * 10)
    }
}

/// Watches a process that has nothing to do.
pub(super) fn watch(process: Pid) -> Result<Footprint> {
    sleep(REST);
    let (before, ticks) = (sleeps(process)?, ticks(process)?);
    let started = Instant::now();
    sleep(WATCH.saturating_sub(started.elapsed()));
    let wakeups = sleeps(process)?.saturating_sub(before);
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    Ok(Footprint {
        resident: field(&status, "VmRSS:").context("no VmRSS")?,
        proportional: field(&rollup, "Pss:"),
        peak: field(&status, "VmHWM:").context("no VmHWM")?,
        wakeups,
        ticks: self::ticks(process)?.saturating_sub(ticks),
    })
}

/// How often the threads of a process went to sleep by themselves: each time something woke them up again.
fn sleeps(process: Pid) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        sum += field(&status, "voluntary_ctxt_switches:").context("no voluntary_ctxt_switches")?;
    }
    Ok(sum)
}

/// Processor time of a process in hundredths of a second: the 14th and 15th field of its `stat`.
pub(crate) fn ticks(process: Pid) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
    fields.split(' ').skip(11).take(2).map(|field| Ok(field.parse::<u64>()?)).sum()
}

/// The number behind a name at the start of a line.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn ours(peers: usize) -> Result<Footprint> {
    let lab = Lab::new(1 + peers.div_ceil(CROWD))?;
    let (first, crowds) = crowds(&lab, peers)?;
    let own = (first, vec![first.v4().to_string()]);
    // The others know nothing of each other: all addresses with all others would be very many pairs.
    for member in &crowds {
        Cluster::new([own.clone(), member.clone()]).install(member.0, SECRETS[0])?;
    }
    Cluster::new([own].into_iter().chain(crowds)).install(first, SECRETS[0])?;
    hostseal(first, "enable --no-wait")?.expect_code(0)?;
    // One after another: all these agents share one processor, and it is their rest that is measured.
    for host in lab.hosts().iter().skip(1) {
        hostseal(host, "enable --timeout 55s")?.expect_code(0)?;
    }
    let started = Instant::now();
    loop {
        // A status of a thousand pairs is work: asked for all the time it would keep the agent from its own.
        sleep(Duration::from_secs(2));
        let status = status(first)?;
        let all = status.all_protected() && status.peers().len() == peers;
        if !all && started.elapsed() < SETTLING {
            continue;
        }
        if !all {
            println!("  after {} s not all are protected: {}", SETTLING.as_secs(), status.at("/summary"));
        }
        return watch(status.agent()?);
    }
}

fn theirs(peers: usize) -> Result<Footprint> {
    let lab = Lab::new(1 + peers.div_ceil(CROWD))?;
    let (first, crowds) = crowds(&lab, peers)?;
    let own = first.v4().to_string();
    let mut daemon = Swan::start(first, &[])?;
    let mut connections = Vec::new();
    let mut others = Vec::new();
    for (host, addresses) in crowds {
        let other = Swan::start(host, &[])?;
        other.load(&addresses.iter().map(|address| connection(address, &own)).collect::<Vec<_>>())?;
        others.push(other);
        connections.extend(addresses.iter().map(|address| connection(&own, address)));
    }
    daemon.load(&connections)?;
    let mut table = Bare::open(first, 4096)?;
    let mut control = Vici::connect(first)?;
    for (number, connection) in connections.iter().enumerate() {
        control.initiate(&connection.name)?;
        // charon refuses more than some that are half open.
        until("strongSwan keeps up", LIMIT, || sas(&mut table, (2 * number).saturating_sub(50)))?;
    }
    control.check()?;
    until("all SAs are there", LIMIT, || sas(&mut table, 2 * peers))?;
    watch(daemon.daemon().pid())
}

fn connection(local: &str, remote: &str) -> Connection {
    let name = format!("from-{local}-to-{remote}").replace('.', "-");
    Connection::of(name, local, remote, SECRETS[0])
}

/// That there are as many SAs as that.
fn sas(table: &mut Bare, wanted: usize) -> Result<()> {
    let count = table.count()? as usize;
    ensure!(count >= wanted, "{count} SAs of {wanted}");
    Ok(())
}

/// A host with its addresses.
type Member<'a> = (&'a Host, Vec<String>);

/// The first host of the lab, and the others with so many addresses that together they are `peers` peers.
fn crowds(lab: &Lab, peers: usize) -> Result<(&Host, Vec<Member<'_>>)> {
    let (first, others) = lab.hosts().split_first().context("a lab without hosts")?;
    let address = |number: usize| format!("10.99.{}.{}", 100 + number / CROWD, 1 + number % CROWD);
    let numbers: Vec<usize> = (0..peers).collect();
    let crowds = others.iter().zip(numbers.chunks(CROWD)).map(|(host, numbers)| -> Result<Member<'_>> {
        let addresses: Vec<String> = numbers.iter().map(|number| address(*number)).collect();
        give_addresses(host, &addresses)?;
        Ok((host, addresses))
    });
    Ok((first, crowds.collect::<Result<_>>()?))
}

/// Gives a host these addresses instead of the one that it has: in no file, that would be the source of packets that
/// choose none, and no pair's.
pub(super) fn give_addresses(host: &Host, addresses: &[String]) -> Result<()> {
    let add = addresses.iter().map(|address| format!("address add {address}/16 dev eth0\n"));
    // First: the others would go with it.
    let lines = format!("address del {}/16 dev eth0\n{}", host.v4(), add.collect::<String>());
    host.write("/run/addresses", &lines, 0o600)?;
    host.run("ip -batch /run/addresses").map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "VmRSS:\t  11264 kB\nnonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t42\n";
        assert_eq!(field(status, "VmRSS:"), Some(11264));
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(42));
        assert_eq!(field(status, "Pss:"), None);
    }

    #[test]
    fn a_process_has_a_footprint() {
        // A separate process: threads of this one come and go with other tests.
        let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat");
        let pid = Pid::from_raw(i32::try_from(cat.id()).expect("a process id"));
        let (mut to, mut from) = (cat.stdin.take().expect("a pipe"), cat.stdout.take().expect("a pipe"));
        let mut echo = || {
            to.write_all(b"x").expect("cat reads");
            from.read_exact(&mut [0]).expect("cat writes");
        };
        echo();
        let before = sleeps(pid).expect("its tasks");
        // It sleeps between two bytes, unless the next one is there before it looks for it.
        let mut sleeps_after_a_byte = || {
            echo();
            sleeps(pid).expect("its tasks") > before
        };
        assert!((0..10_000).any(|_| sleeps_after_a_byte()), "waiting is a sleep");
        ticks(pid).expect("its time");
        drop(to);
        cat.wait().expect("it ends");
    }
}
