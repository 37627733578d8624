//! Every transition of a protected host under load: what is lost, repeated or readable on the way, beside
//! what strongSwan does in the same run. The output is the table of `docs/transitions.md`.

mod foreign;
mod line;
mod ours;
mod reload;
mod theirs;

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use self::line::{Line, count};
use super::measure::Figures;
use crate::lab::host::Process;
use crate::lab::session::Show;
use crate::lab::{Lab, Swan};

/// Packets a second in each direction.
const RATE: u32 = 1000;
/// How long packets flow on after a transition.
const AFTER: Duration = Duration::from_secs(4);
/// How long a host is without its agent or daemon.
const ABSENT: Duration = Duration::from_secs(2);
/// What a kernel is without after a reboot.
const FORGET: &str = "ip xfrm state flush && ip xfrm policy flush";
/// A path of 50 ms.
const FAR: &str = "delay 50ms";
/// When SAs that were replaced must be gone.
const SETTLED: Duration = Duration::from_secs(60);

/// What a transition may cost. Everything else must be zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    Nothing,
    /// One of the hosts is away meanwhile: at most a second longer without packets.
    LossWhileAway,
    /// Somebody else tore down what protects: at most a second without packets, clear ones until the policies
    /// are back.
    Repair,
    /// The peer requires ESP before it can be told that we are ready: a round trip and 5 ms.
    RoundTrip,
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

/// Does it on the first two hosts, under load, and measures.
type Act = fn(&Lab, &mut Scene) -> Result<[Figures; 2]>;

/// What an act leaves with the caller.
#[derive(Default)]
struct Scene {
    /// They run until the SAs have been counted.
    agents: Vec<Process>,
    /// They too.
    swans: Vec<Swan>,
    /// What the promise is measured by, where that is a time: how long a host was away, or the slowest round trip
    /// under the same load.
    yardstick: Option<Duration>,
}

const ALL: &[Transition] = &[
    row("enable", ours::enable).beside(theirs::initiate),
    row("enable, one host 3 s after the other", ours::enable_apart),
    row("enable over 50 ms each way", ours::enable_far).beside(theirs::initiate_far),
    row("enable towards strongSwan on b", foreign::enable_towards).with(Allowed::RoundTrip),
    row("enable, strongSwan on a begins", foreign::enable_by).with(Allowed::RoundTrip),
    row("rekey", ours::rekey).beside(theirs::rekey_child),
    row("rekey, with the IKE SA", ours::rekey_all).beside(theirs::rekey_ike),
    row("kill -9 and start", ours::kill_and_start).beside(theirs::kill_and_start),
    row("SIGTERM and start", ours::stop_and_start).beside(theirs::stop_and_start),
    row("upgrade: another binary, restart", ours::upgrade),
    row("reload: c comes; between those that stay", reload::comes_beside).beside(theirs::comes_beside),
    row("reload: c comes; with it", reload::comes),
    row("reload: c goes; between those that stay", reload::goes_beside).beside(theirs::goes_beside),
    row("reload: c goes; with it", reload::goes).leaving(0),
    row("reload: b gets a second address; by the first", reload::second_address),
    row("reload: b changes over to the second address; by that", reload::changed_address),
    row("reload: b has another address at once; by that", reload::other_address),
    row("reload: keys of 128 bits instead of 256", reload::key_bits),
    row("reload: other replay window and lifetime", reload::window),
    row("reload: the secret is rotated", reload::secret).beside(theirs::secret),
    row("reload: require becomes prefer", reload::to_prefer),
    row("reload: prefer becomes require", reload::to_require),
    row("reload: an exemption comes; what it is for", reload::exempt).leaving(1),
    row("reload: an exemption goes; what it was for", reload::protect_again),
    row("flush of the states by a stranger", ours::flush_states)
        .beside(theirs::flush_states)
        .with(Allowed::Repair),
    row("flush of the policies by a stranger", ours::flush_policies)
        .beside(theirs::flush_policies)
        .with(Allowed::Repair),
    row("flush of both by a stranger", ours::flush_both).beside(theirs::flush_both).with(Allowed::Repair),
    row("reboot of b", ours::reboot).beside(theirs::reboot).with(Allowed::LossWhileAway),
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
/// When there is no such transition.
pub fn show(show: &Show) -> Result<i32> {
    let words = &show.arguments;
    let wanted =
        |row: &&Transition| words.is_empty() || words.iter().any(|word| row.name.contains(word.as_str()));
    let rows: Vec<&Transition> = ALL.iter().filter(wanted).collect();
    ensure!(!rows.is_empty(), "no transition is named like {words:?}");
    println!("{}", line::HEAD);
    let (mut notes, mut broken) = (Vec::new(), Vec::new());
    for row in rows {
        // One that does not come to its end takes nothing away from the others.
        let mut taken = |who: &str, act: Act| {
            let lines = take(act, row.sas);
            lines.map_err(|error| broken.push(format!("{}, {who}: {error:#}", row.name))).ok()
        };
        let ours = taken("hostseal", row.ours);
        let theirs = row.theirs.and_then(|act| taken("strongSwan", act));
        for at in 0..2 {
            let [ours, theirs] = [&ours, &theirs].map(|lines| lines.as_ref().map(|lines| &lines[at]));
            println!("| {} | {}", row.name, line::cells(ours, theirs));
            broken.extend(ours.and_then(|line| line.broken(row)).map(|what| format!("{}, {what}", row.name)));
            let told = [("hostseal", ours), ("strongSwan", theirs)];
            let told = told.into_iter().filter_map(|(who, line)| Some((who, line?.note(row.allowed)?)));
            notes.extend(told.map(|(who, note)| format!("- {}, {who}, {note}", row.name)));
        }
    }
    println!();
    notes.iter().for_each(|line| println!("{line}"));
    broken.iter().for_each(|line| println!("NOT AS PROMISED: {line}"));
    Ok(i32::from(!broken.is_empty()))
}

/// Runs a transition on new hosts: two that talk, and a third that is idle.
fn take(act: Act, sas: usize) -> Result<[Line; 2]> {
    let lab = Lab::new(3)?;
    let mut scene = Scene::default();
    let figures = act(&lab, &mut scene)?;
    let counted = || -> Result<Vec<[usize; 2]>> { figures.iter().map(count).collect() };
    // Both products keep what they replaced for a while.
    let deadline = Instant::now() + SETTLED;
    let mut counts = counted()?;
    while counts.iter().any(|count| *count != [sas; 2]) && Instant::now() < deadline {
        sleep(Duration::from_millis(500));
        counts = counted()?;
    }
    let [there, back] = figures;
    let line = |figures, sas| Line { figures, sas, yardstick: scene.yardstick };
    Ok([line(there, counts[0]), line(back, counts[1])])
}
