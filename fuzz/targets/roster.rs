//! Entries of a roster, from a member or from anybody: what nobody may say is refused, what commands sign is taken, and
//! two hosts that have told each other all see the same.
//!
//! With `$STEPS` set, each step of the input is printed.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use hostseal::{identity, roster, types};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../src/roster/tests/people.rs"]
mod people;

use people::{NOW, Town, genesis, invite, keys, off, on, set, sign, signer, site, statement};
use roster::{
    Admission, ClusterTrial, DesiredProtection, EntryId, FloatingPlace, Gone, Invite, Join, Listed, Rights,
    Roster, Saying, Statement,
};

/// Those who sign: members, nodes that could become some, tokens, those whose keys follow others, nobody, and the key
/// that outranks all.
const WHO: [&str; 14] = [
    "a", "b", "c", "d", "token of b", "token of c", "t1", "t2", "x", "y", "b2", "c2", "mallory", "recovery",
];
/// How often two hosts tell each other all, at most, until nothing is new.
const ROUNDS: usize = 12;

#[derive(Debug, Arbitrary)]
enum Step {
    /// Octets arrive.
    Raw { there: bool, octets: Vec<u8> },
    /// One that is there arrives with something else in it.
    Garbled { there: bool, which: u8, at: u16, flip: u8 },
    /// Somebody signs anything.
    Signed { there: bool, by: u8, version: (u8, u8), after: u8, basis: u8, what: What },
    /// A command signs it.
    Command { there: bool, by: u8, what: What },
    /// A command takes out a node, or its rights.
    Out { there: bool, by: u8, of: u8, how: u8 },
    /// Some of what the other has arrives.
    Heard { there: bool, lost: u32 },
}

#[derive(Debug, Arbitrary)]
enum What {
    On,
    Off,
    Try { on: bool, before: bool },
    Set(u8),
    Admit(u8),
    Gone { of: u8, kept: u16, compromised: bool },
    Rights { of: u8, admin: bool, kept: u16 },
    Invite { token: u8, admin: bool, line: Option<u8>, named: bool },
    Join { name: u8, last: u8 },
    Keys { next: u8 },
    Listed { line: Option<u8>, name: u8, last: u8 },
    Floating { last: u8, of: u8 },
}

fn who(at: u8) -> &'static str {
    WHO[usize::from(at) % WHO.len()]
}

/// An entry of the town, or one that nobody has.
fn entry(town: &Town, at: u8) -> EntryId {
    let ids: Vec<EntryId> = town.roster.ids().collect();
    ids.get(usize::from(at) % (ids.len() + 1)).copied().unwrap_or(EntryId::new([at; 32]))
}

fn some(town: &Town, mask: u16) -> Vec<EntryId> {
    let chosen = town.roster.ids().enumerate().filter(|(at, _)| mask.rotate_left(*at as u32) & 1 == 1);
    chosen.map(|(_, id)| id).take(40).collect()
}

/// What is said, and the names of those who sign it besides.
fn says(town: &Town, by: &str, what: &What) -> (Saying, Vec<String>) {
    let with_ike = |name: &str| vec![name.to_owned(), format!("{name} ike")];
    let place = |name: u8, last: u8| site(who(name).split(' ').next().unwrap_or("x"), last);
    match *what {
        What::On => (on(), Vec::new()),
        What::Off => (off(), Vec::new()),
        What::Try { on, before } => {
            let trial = Some(ClusterTrial { seconds: 1, before });
            (Saying::Desired(DesiredProtection { on, trial, confirms: None }), Vec::new())
        }
        What::Set(to) => (set(&to.to_string()), Vec::new()),
        What::Admit(of) => (Saying::Admission(Admission { of: entry(town, of) }), Vec::new()),
        What::Gone { of, kept, compromised } => {
            let (of, kept) = (entry(town, of), some(town, kept));
            (Saying::Gone(Gone { of, kept, compromised }), Vec::new())
        }
        What::Rights { of, admin, kept } => {
            let (of, kept) = (entry(town, of), some(town, kept));
            (Saying::Rights(Rights { of, admin, kept }), Vec::new())
        }
        What::Invite { token, admin, line, named } => {
            let token = who(token);
            let line = line.map(|line| entry(town, line));
            let of = invite(token, "x");
            let name = of.name.clone().filter(|_| named);
            (Saying::Invite(Invite { name, admin, line, ..of }), vec![token.to_owned()])
        }
        What::Join { name, last } => {
            let node = who(name);
            (Saying::Join(Join { site: place(name, last), keys: keys(node) }), with_ike(node))
        }
        What::Keys { next } => (Saying::Keys(keys(who(next))), with_ike(who(next))),
        What::Listed { line, name, last } => {
            let line = line.map(|line| entry(town, line));
            let listed = Listed { line, site: place(name, last), foreign: by == "b", ike: None };
            (Saying::Node(listed), Vec::new())
        }
        What::Floating { last, of } => {
            let addresses = vec![[10, 0, 0, last].into()];
            let name = "vip".parse().expect("it is a name");
            (Saying::Floating(FloatingPlace { name, addresses, nodes: vec![entry(town, of)] }), Vec::new())
        }
    }
}

fn signed(town: &Town, statement: Statement, by: &str, others: &[String]) -> Vec<u8> {
    let names: Vec<&str> = std::iter::once(by).chain(others.iter().map(String::as_str)).collect();
    sign(town.roster.cluster(), statement, &names)
}

fn act(step: &Step, here: &mut Town, there: &mut Town) {
    let at_other = match step {
        Step::Raw { there, .. }
        | Step::Garbled { there, .. }
        | Step::Signed { there, .. }
        | Step::Command { there, .. }
        | Step::Out { there, .. }
        | Step::Heard { there, .. } => *there,
    };
    let (town, other) = if at_other { (there, here) } else { (here, there) };
    match step {
        Step::Raw { octets, .. } => {
            let _ = town.take(octets.clone());
            let _ = Roster::found(octets);
        }
        Step::Garbled { which, at, flip, .. } => {
            let Some(from) = town.roster.get(entry(town, *which)) else { return };
            let mut octets = from.octets().to_vec();
            let at = usize::from(*at) % octets.len();
            octets[at] ^= flip;
            assert_eq!(town.take(octets).taken, 0, "what nobody has signed was taken");
        }
        Step::Signed { by, version, after, basis, what, .. } => {
            let by = who(*by);
            let (says, others) = says(town, by, what);
            let basis = (basis % 4 > 0).then(|| entry(town, *basis));
            let after = some(town, u16::from(*after));
            let version = (u64::from(version.0), u64::from(version.1));
            let of = Statement { after, basis, ..statement(by, version, says) };
            let _ = town.take(signed(town, of, by, &others));
        }
        Step::Command { by, what, .. } => {
            let by = who(*by);
            let (says, others) = says(town, by, what);
            // What is signed without a draft, and need not be entitled.
            if matches!(says, Saying::Join(_) | Saying::Gone(_) | Saying::Rights(_)) {
                return;
            }
            if let Ok(of) = town.roster.draft(signer(by), says, NOW) {
                commanded(town, signed(town, of, by, &others));
            }
        }
        Step::Out { by, of, how, .. } => {
            let (by, of) = (who(*by), entry(town, *of));
            let drafts = match how % 4 {
                0 => town.roster.removal(signer(by), of, false, NOW),
                1 => town.roster.removal(signer(by), of, true, NOW),
                how => town.roster.rights(signer(by), of, how == 2, NOW),
            };
            for of in drafts.unwrap_or_default() {
                commanded(town, signed(town, of, by, &[]));
            }
        }
        Step::Heard { lost, .. } => {
            let entries: Vec<Vec<u8>> = other.roster.in_order().map(|entry| entry.octets().to_vec()).collect();
            let came = entries.iter().enumerate().filter(|(at, _)| lost.rotate_left(*at as u32) & 1 == 0);
            town.roster.merge(came.map(|(_, entry)| entry.as_slice()));
        }
    }
}

/// Every host that has the same takes it.
fn commanded(town: &mut Town, entry: Vec<u8>) {
    let merged = town.take(entry);
    assert!(merged.refused.is_empty(), "a command signs what is refused: {merged:?}");
}

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    let mut here = Town::of(&["a", "b", "c"]);
    here.set_admin("a", "b", true);
    let mut there = here.copy();
    for _ in 0..24 {
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        if std::env::var_os("STEPS").is_some() {
            eprintln!("{step:?}");
        }
        act(&step, &mut here, &mut there);
    }
    for _ in 0..ROUNDS {
        here.hear(&there);
        there.hear(&here);
        if here.roster.id() == there.roster.id() {
            break;
        }
    }
    assert_eq!(here.roster.id(), there.roster.id(), "two hosts that have told each other all");
    assert_eq!(here.roster.view(), there.roster.view());
    let entries: Vec<&[u8]> = here.roster.in_order().map(|entry| entry.octets()).collect();
    let mut fresh = Roster::found(&genesis("a")).expect("it founds the cluster");
    fresh.merge(entries);
    assert_eq!(fresh.id(), here.roster.id(), "a host that hears it all at once");
});
