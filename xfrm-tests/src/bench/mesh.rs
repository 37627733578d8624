//! A full mesh from nothing. Like for like: agents that run with protection off, and daemons that run with
//! every connection loaded, on all hosts; then one request a host, or one a pair, on their control sockets.
//! And as operators do it: `hostseal enable` on all hosts at once, which starts the agents too, and a
//! `swanctl` for each pair.

use std::fs;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hostseal::control::{Reply, Request};

use super::bare::Bare;
use super::control::Control;
use super::race::{Lap, Side, Table, race};
use super::vici::Vici;
use super::{goal, numbers};
use crate::lab::agent::{SECRETS, hostseal_all, start_agent, status};
use crate::lab::session::Show;
use crate::lab::{Cluster, Connection, Family, Host, Lab, Peer as _, Swan, until};

/// The time in which a mesh must be up.
const LIMIT: Duration = Duration::from_secs(60);
/// How often the sides take their turns that are compared like for like: single rounds vary by half.
const ROUNDS: usize = 11;
/// And those that start a process for each host or pair, which takes far longer.
const ROUNDS_OF_PROCESSES: usize = 3;
/// How often SAs are counted: a system call a host.
const PERIOD: Duration = Duration::from_millis(5);
/// strongSwan's log is kept short, as it would be in production.
const QUIET: &str = "filelog {\n lab {\n default = 0\n flush_line = no\n }\n }";

/// `cargo lab bench mesh [HOSTS…]`
///
/// # Errors
/// When a mesh does not come up.
pub fn show(show: &Show) -> Result<i32> {
    for hosts in numbers(&show.arguments, &[16])? {
        compare(hosts)?;
    }
    Ok(0)
}

/// Brings a mesh of `count` hosts up in both ways, some times each, and prints the times.
///
/// # Errors
/// When a mesh does not come up.
fn compare(count: usize) -> Result<()> {
    let lab = || Lab::new(count);
    // Not counted, so that no side pays for what is read from disk for the first time.
    by_control(lab()?.hosts())?;
    strongswan(lab()?.hosts(), by_vici)?;
    let (mut running, mut commands, mut theirs) = (Runs::default(), Runs::default(), Runs::default());
    let like_for_like = race(
        ROUNDS,
        &mut [
            Side::new("hostseal, agents running: all protected", || {
                running.note(by_control(lab()?.hosts())?)
            }),
            Side::new("strongSwan by vici: all SAs", || theirs.note(strongswan(lab()?.hosts(), by_vici)?)),
        ],
    )?;
    let processes = race(
        ROUNDS_OF_PROCESSES,
        &mut [
            Side::new("hostseal enable, from nothing: all protected", || {
                commands.note(by_command(lab()?.hosts())?)
            }),
            Side::new("strongSwan by swanctl: all SAs", || {
                strongswan(lab()?.hosts(), by_swanctl).map(|run| run.done)
            }),
        ],
    )?;
    let laps: Vec<Lap> = like_for_like.into_iter().chain(processes).collect();
    let sas = [
        Lap::new("hostseal, agents running: all SAs", running.keyed),
        Lap::new("strongSwan by vici: all SAs", theirs.keyed),
        Lap::new("hostseal enable, from nothing: all SAs", commands.keyed),
    ];
    let pairs = count * (count - 1) / 2;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{count} hosts, {pairs} pairs by IPv4, {ROUNDS} times in turns, with processes {ROUNDS_OF_PROCESSES} times; median (shortest to longest):"
    );
    print!("{}", Table(&laps));
    println!("until the kernels have all SAs:");
    print!("{}", Table(&sas));
    println!("processor time of all agents or daemons for it:");
    print!(
        "{}",
        Table(&[
            Lap::new("hostseal, agents running", running.processor),
            Lap::new("strongSwan by vici", theirs.processor)
        ])
    );
    println!("datagrams received: hostseal {:?}, strongSwan {:?}", running.messages, theirs.messages);
    print!("load: {load}");
    // strongSwan's best case is the one without processes.
    let ratio = |side: usize, other: usize| laps[other].ratio_to(&laps[side]);
    let keyed = sas[1].ratio_to(&sas[0]);
    goal("all SAs in at most a third of strongSwan's time by vici, agents running", keyed >= 3.0);
    goal("protected in at most a third of strongSwan's time by vici, agents running", ratio(0, 1) >= 3.0);
    goal("protected in at most half of strongSwan's time by vici, from nothing", ratio(2, 1) >= 2.0);
    goal("protected in at most half of strongSwan's time by swanctl, from nothing", ratio(2, 3) >= 2.0);
    Ok(())
}

/// One mesh.
struct Run {
    /// Until every host said that all of its pairs are protected, or for strongSwan had all SAs.
    done: Duration,
    /// Until the kernel of every host had all SAs.
    keyed: Duration,
    /// Processor time of all processes of the hosts meanwhile.
    processor: Duration,
    /// UDP datagrams that the hosts received meanwhile.
    messages: u64,
}

/// What was measured beside the time that is raced for.
#[derive(Default)]
struct Runs {
    keyed: Vec<Duration>,
    processor: Vec<Duration>,
    messages: Vec<u64>,
}

impl Runs {
    fn note(&mut self, run: Run) -> Result<Duration> {
        self.keyed.push(run.keyed);
        self.processor.push(run.processor);
        self.messages.push(run.messages);
        Ok(run.done)
    }
}

/// A cluster that agrees on what strongSwan is configured with: classical against classical.
fn classical(hosts: &[Host]) -> Cluster {
    Cluster::of_v4(hosts).with("keying", "proposals = [\"aes256gcm16-prfsha384-x25519\"]")
}

/// Agents run, with protection off; an order to each on its control socket.
fn by_control(hosts: &[Host]) -> Result<Run> {
    classical(hosts).install_all(hosts)?;
    let _agents = hosts.iter().map(start_agent).collect::<Result<Vec<_>>>()?;
    let connect = |host| until("the agent listens", LIMIT, || Control::connect(host));
    let mut controls = hosts.iter().map(connect).collect::<Result<Vec<_>>>()?;
    for control in &mut controls {
        control.ask(Request::Ping)?;
        ensure!(control.answer()? == Reply::Done, "a ping is answered otherwise");
    }
    let mut tables = open_tables(hosts)?;
    let (before, earlier) = (processor_time(hosts)?, messages(hosts)?);
    let started = Instant::now();
    controls.iter_mut().try_for_each(|control| control.ask(Request::Enable))?;
    let keyed = await_sas(&mut tables, started)?;
    for control in &mut controls {
        ensure!(control.answer()? == Reply::Done, "an order is answered otherwise");
        control.follow(0)?;
    }
    controls.iter_mut().try_for_each(Control::await_protected)?;
    let done = started.elapsed();
    let (processor, messages) = (processor_time(hosts)? - before, messages(hosts)? - earlier);
    Ok(Run { done, keyed, processor, messages })
}

/// From the start of the commands to the end of the last, which is when all rows of its host are
/// protected; and to the moment in which the kernel of every host has all SAs.
fn by_command(hosts: &[Host]) -> Result<Run> {
    classical(hosts).install_all(hosts)?;
    let mut tables = open_tables(hosts)?;
    let started = Instant::now();
    let (outcomes, keyed) = thread::scope(|scope| {
        let watcher = scope.spawn(|| await_sas(&mut tables, started));
        let outcomes = hostseal_all(hosts, &format!("enable --timeout {}s", LIMIT.as_secs()));
        let done = started.elapsed();
        let keyed = watcher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (outcomes.map(|outcomes| (outcomes, done)), keyed)
    });
    let (outcomes, done) = outcomes?;
    for outcome in outcomes {
        outcome.expect_code(0)?;
    }
    let processor = processor_time(hosts)?;
    for host in hosts {
        let status = status(host)?;
        let protected = status.number("/summary/protected");
        ensure!(protected == hosts.len() as u64 - 1, "{}: {protected} rows: {:#}", host.name(), status.0);
    }
    Ok(Run { done, keyed: keyed?, processor, messages: messages(hosts)? })
}

/// Processor time of all processes of the hosts: it varies less with what else the machine does than the
/// time that passes.
pub(super) fn processor_time(hosts: &[Host]) -> Result<Duration> {
    let mut nanoseconds = 0;
    for host in hosts {
        for process in host.processes()? {
            for task in fs::read_dir(format!("/proc/{process}/task"))? {
                let text = fs::read_to_string(task?.path().join("schedstat"))?;
                let time = text.split(' ').next().context("an empty schedstat")?;
                nanoseconds += time.parse::<u64>()?;
            }
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// UDP datagrams that the hosts have received.
pub(super) fn messages(hosts: &[Host]) -> Result<u64> {
    let mut sum = 0;
    for host in hosts {
        let text = host.within(|| fs::read_to_string("/proc/thread-self/net/snmp"))??;
        let values = text.lines().filter(|line| line.starts_with("Udp:")).nth(1);
        let received = values.and_then(|line| line.split(' ').nth(1)).context("no counters of UDP")?;
        sum += received.parse::<u64>()?;
    }
    Ok(sum)
}

fn open_tables(hosts: &[Host]) -> Result<Vec<Bare>> {
    hosts.iter().map(|host| Bare::open(host, 4096)).collect()
}

/// Waits until the kernel of every host has two SAs for each of the others. An inbound one may count from
/// the moment in which its SPI is reserved; an outbound one works when it is there.
fn await_sas(tables: &mut [Bare], started: Instant) -> Result<Duration> {
    let wanted = u32::try_from(2 * (tables.len() - 1))?;
    for (host, table) in tables.iter_mut().enumerate() {
        loop {
            let count = table.count()?;
            if count >= wanted {
                break;
            }
            ensure!(started.elapsed() < LIMIT, "host {} has {count} of {wanted} SAs", host + 1);
            sleep(PERIOD);
        }
    }
    Ok(started.elapsed())
}

/// Daemons run and connections are loaded; from the first request to the moment in which the kernel of every
/// host has all SAs.
fn strongswan(hosts: &[Host], initiate: fn(&[Host]) -> Result<Duration>) -> Result<Run> {
    let swans = hosts.iter().map(|host| Swan::start(host, &[QUIET])).collect::<Result<Vec<_>>>()?;
    for swan in &swans {
        let others = hosts.iter().filter(|other| other.number() != swan.host().number());
        let connections: Vec<_> =
            others.map(|other| Connection::between(swan.host(), other, Family::V4, SECRETS[0])).collect();
        swan.load(&connections)?;
    }
    let (before, earlier) = (processor_time(hosts)?, messages(hosts)?);
    let done = initiate(hosts)?;
    let processor = processor_time(hosts)?.saturating_sub(before);
    let messages = messages(hosts)? - earlier;
    for swan in &swans {
        let listed = swan.list()?;
        let good = listed.iter().filter(|sa| sa.state == "ESTABLISHED" && sa.children == ["INSTALLED"]);
        let good = good.count();
        ensure!(good == hosts.len() - 1, "{}: {listed:?}", swan.host().name());
    }
    Ok(Run { done, keyed: done, processor, messages })
}

/// The children that a host initiates: towards those with a larger address.
fn children<'a>(host: &'a Host, hosts: &'a [Host]) -> impl Iterator<Item = String> + 'a {
    let others = hosts.iter().filter(|other| other.number() > host.number());
    others.map(|other| format!("{}-v4", other.name()))
}

/// As an operator does: a command for each pair, all at the same time.
fn by_swanctl(hosts: &[Host]) -> Result<Duration> {
    let mut tables = open_tables(hosts)?;
    let started = Instant::now();
    thread::scope(|scope| {
        for host in hosts {
            let commands = children(host, hosts)
                .map(|child| format!("swanctl --initiate --child {child} --timeout 20 >/dev/null & "));
            let line = commands.chain(["wait".to_owned()]).collect::<String>();
            scope.spawn(move || host.run(&line));
        }
        await_sas(&mut tables, started)
    })
}

/// Without a process for each: the same requests on the control sockets.
fn by_vici(hosts: &[Host]) -> Result<Duration> {
    let mut controls = hosts.iter().map(Vici::connect).collect::<Result<Vec<_>>>()?;
    let mut tables = open_tables(hosts)?;
    let started = Instant::now();
    for (control, host) in controls.iter_mut().zip(hosts) {
        children(host, hosts).try_for_each(|child| control.initiate(&child))?;
    }
    let time = await_sas(&mut tables, started)?;
    controls.iter_mut().try_for_each(Vici::check)?;
    Ok(time)
}
