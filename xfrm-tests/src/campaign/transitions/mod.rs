//! Every transition of a protected host under load: what is lost, repeated or readable on the way, beside
//! what strongSwan does in the same run. The output is the table of `docs/transitions.md`.

mod ours;
mod theirs;

use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::measure::Figures;
use crate::lab::host::Process;
use crate::lab::session::Show;
use crate::lab::{Family, Host, Lab, Swan};

/// Packets a second in each direction.
const RATE: u32 = 1000;
/// The longest that a stranger's flush may stop packets.
const FLUSHED: Duration = Duration::from_secs(1);
/// When SAs that were replaced must be gone.
const SETTLED: Duration = Duration::from_secs(60);

/// What a transition may cost. Everything else must be zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    Nothing,
    /// One of the hosts is away meanwhile.
    LossWhileAway,
    /// Somebody else tore down what protects: at most [`FLUSHED`] without packets, clear ones until the
    /// policies are back.
    Repair,
}

/// One transition.
struct Transition {
    name: &'static str,
    allowed: Allowed,
    /// How many SAs are left in each direction between the two hosts.
    sas: usize,
    ours: Act,
    theirs: Option<Act>,
}

/// Does it on the first two hosts, under load, and measures. What it started and is to live on is left with
/// the caller.
type Act = fn(&Lab, &mut Daemons) -> Result<[Figures; 2]>;

/// What runs until the SAs have been counted.
#[derive(Default)]
struct Daemons {
    agents: Vec<Process>,
    swans: Vec<Swan>,
}

const ALL: &[Transition] = &[
    row("enable", ours::enable).beside(theirs::initiate),
    row("enable, one host 3 s after the other", ours::enable_apart),
    row("enable over 50 ms each way", ours::enable_far).beside(theirs::initiate_far),
    row("rekey", ours::rekey).beside(theirs::rekey_child),
    row("rekey, with the IKE SA", ours::rekey_all).beside(theirs::rekey_ike),
    row("kill -9 and start", ours::kill_and_start).beside(theirs::kill_and_start),
    row("SIGTERM and start", ours::stop_and_start).beside(theirs::stop_and_start),
    row("upgrade: another binary, restart", ours::upgrade),
    row("flush of the states by a stranger", ours::flush_states).with(Allowed::Repair),
    row("flush of the policies by a stranger", ours::flush_policies).with(Allowed::Repair),
    row("flush of both by a stranger", ours::flush_both).with(Allowed::Repair),
    row("reboot of b", ours::reboot).with(Allowed::LossWhileAway),
    row("disable on both", ours::disable).beside(theirs::terminate).leaving(0),
    row("disable on b alone", ours::disable_one).leaving(0),
    row("disable over 50 ms each way", ours::disable_far).leaving(0),
];

const fn row(name: &'static str, ours: Act) -> Transition {
    Transition { name, allowed: Allowed::Nothing, sas: 1, ours, theirs: None }
}

impl Transition {
    const fn beside(self, theirs: Act) -> Self {
        Self { theirs: Some(theirs), ..self }
    }

    const fn with(self, allowed: Allowed) -> Self {
        Self { allowed, ..self }
    }

    const fn leaving(self, sas: usize) -> Self {
        Self { sas, ..self }
    }
}

/// `cargo lab transitions [WORD…]`: those whose name contains one of the words, or all.
///
/// # Errors
/// When a transition does not come to its end.
pub fn show(show: &Show) -> Result<i32> {
    let words = &show.arguments;
    let wanted =
        |row: &&Transition| words.is_empty() || words.iter().any(|word| row.name.contains(word.as_str()));
    let rows: Vec<&Transition> = ALL.iter().filter(wanted).collect();
    ensure!(!rows.is_empty(), "no transition is named like {words:?}");
    println!("{HEAD}");
    let mut broken = Vec::new();
    for row in rows {
        // One that does not come to its end takes nothing away from the others.
        let mut taken = |who: &str, act: Act| {
            let lines = take(act, row.sas);
            lines.map_err(|error| broken.push(format!("{}, {who}: {error:#}", row.name))).ok()
        };
        let (ours, theirs) =
            (taken("hostseal", row.ours), row.theirs.and_then(|act| taken("strongSwan", act)));
        let cells = |lines: &Option<[Line; 2]>, at: usize| {
            lines.as_ref().map_or_else(|| NONE.to_owned(), |lines| lines[at].to_string())
        };
        for (at, way) in ["a to b", "b to a"].into_iter().enumerate() {
            println!("| {} | {way} | {} | {} |", row.name, cells(&ours, at), cells(&theirs, at));
            let what = ours.as_ref().and_then(|lines| lines[at].broken(row));
            broken.extend(what.map(|what| format!("{}, {way}: {what}", row.name)));
        }
    }
    println!();
    broken.iter().for_each(|line| println!("NOT AS PROMISED: {line}"));
    Ok(i32::from(!broken.is_empty()))
}

const HEAD: &str = "| transition | way | sent | lost | duplicated | clear | SAs left | strongSwan: sent | lost | \
duplicated | clear | SAs left |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";
/// What stands where nothing was measured.
const NONE: &str = "| | | |";

/// What became of one direction.
struct Line {
    figures: Figures,
    /// SAs in this direction, at the sender and at the receiver.
    sas: [usize; 2],
}

impl Line {
    /// What is not as promised.
    fn broken(&self, row: &Transition) -> Option<String> {
        let Figures { sent, lost, duplicated, clear, silence } = self.figures;
        let (may_lose, may_leak) = match row.allowed {
            Allowed::Nothing => (lost == 0, false),
            Allowed::LossWhileAway => (true, false),
            Allowed::Repair => (silence <= FLUSHED, true),
        };
        let kept = may_lose && duplicated == 0 && (may_leak || clear == 0) && self.sas == [row.sas; 2];
        (!kept || sent == 0).then(|| format!("{self}, nothing for {} ms", silence.as_millis()))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { sent, lost, duplicated, clear, .. } = self.figures;
        let [here, there] = self.sas;
        write!(f, "{sent} | {lost} | {duplicated} | {clear} | {here}, {there}")
    }
}

/// Runs a transition on new hosts: two that talk, and a third that is idle.
fn take(act: Act, sas: usize) -> Result<[Line; 2]> {
    let lab = Lab::new(3)?;
    let mut daemons = Daemons::default();
    let figures = act(&lab, &mut daemons)?;
    let [a, b, _] = lab.all();
    // Both products keep what they replaced for a while.
    let deadline = Instant::now() + SETTLED;
    let mut counts = [count(&a, &b)?, count(&b, &a)?];
    while counts != [[sas; 2]; 2] && Instant::now() < deadline {
        sleep(Duration::from_millis(500));
        counts = [count(&a, &b)?, count(&b, &a)?];
    }
    let [there, back] = figures;
    Ok([Line { figures: there, sas: counts[0] }, Line { figures: back, sas: counts[1] }])
}

/// The SAs from one host to another, at each of them.
fn count(from: &Host, to: &Host) -> Result<[usize; 2]> {
    let (source, target) = (from.address(Family::V4), to.address(Family::V4));
    let list = format!("ip xfrm state list src {source} dst {target} proto esp");
    let spis = |host: &Host| -> Result<usize> {
        Ok(host.run(&list)?.lines().filter(|line| line.contains("proto esp spi 0x")).count())
    };
    Ok([spis(from)?, spis(to)?])
}
