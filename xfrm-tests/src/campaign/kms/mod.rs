//! The owner of a key takes it from five hosts under traffic, in every way in which AWS can refuse it or be away, and gives
//! it back: how soon nothing is encrypted any more, what is clear, what is left of the secret, and how soon all is back.
//!
//! AWS is ministack, behind a front of ours ([`crate::lab::front`]) that says what ministack cannot: throttled, expired
//! credentials, an unknown key, no answer at all; and what somebody says who is not AWS. The helper has the real SDK.

mod stage;

use std::ops::RangeInclusive;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};

use self::stage::{CHECK_EVERY, MAX_OFFLINE, REKEY_AFTER, Stage, timed};
use crate::lab::agent::{status, status_until};
use crate::lab::front::FrontWord;
use crate::lab::session::Show;
use crate::lab::{Family, Host, Toward, until};
use crate::scenarios::Traffic;

/// Packets a second in each direction of each pair, where it is counted what is lost.
const RATE: u32 = 25;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);
/// How long it may take to look at all hosts, on a kernel that is slow.
const LOOK: Duration = Duration::from_secs(15);
/// What agents may gain by an endpoint that is not AWS, and what a helper may need, in kB.
const GAIN_MOST: u64 = 2_000;
const HELPER_MOST: u64 = 600_000;

/// What is seen of one line of the table. What was not looked at is not there.
#[derive(Default)]
struct Seen {
    /// How long something was encrypted, and how long it must and may be.
    cut: Option<(Duration, RangeInclusive<Duration>)>,
    clear: usize,
    lost: Option<u64>,
    remember: Option<usize>,
    plain: Option<usize>,
    back: Option<Duration>,
    /// What is not as it should be.
    wrong: Vec<String>,
    note: String,
}

/// A way to lose the key.
struct Loss {
    name: &'static str,
    /// Whether all agents are dead meanwhile.
    dead: bool,
    /// Whether it is the lease that ends it.
    by_lease: bool,
    /// What rows say.
    code: &'static str,
    take: fn(&Stage) -> Result<()>,
    give: fn(&Stage) -> Result<()>,
}

/// What a line of the table does.
enum Act {
    Lose(Loss),
    Other(&'static str, fn(&mut Stage) -> Result<Seen>),
}

impl Act {
    fn name(&self) -> &'static str {
        match self {
            Act::Lose(loss) => loss.name,
            Act::Other(name, _) => name,
        }
    }
}

const fn revoked(name: &'static str, code: &'static str, take: fn(&Stage) -> Result<()>) -> Act {
    Act::Lose(Loss { name, dead: false, by_lease: false, code, take, give: Stage::give_all })
}

const fn offline(name: &'static str, take: fn(&Stage) -> Result<()>) -> Act {
    Act::Lose(Loss { name, dead: false, by_lease: true, code: "key_offline", take, give: Stage::give_all })
}

const ALL: &[Act] = &[
    Act::Other("another key", |stage| {
        let key = stage.aws.key()?;
        moved(stage, key)
    }),
    Act::Other("garbage, from who is not AWS", |stage| rogue(stage, FrontWord::Garbage)),
    Act::Other("an endless answer", |stage| rogue(stage, FrontWord::Endless)),
    Act::Other("another secret", |stage| rogue(stage, FrontWord::OtherSecret)),
    revoked("disabled", "key_revoked", |stage| stage.owner("DisableKey")),
    revoked("denied by policy", "key_revoked", |stage| stage.allow(stage.members(), false)),
    Act::Lose(Loss {
        name: "pending deletion",
        dead: false,
        by_lease: false,
        code: "key_pending_deletion",
        take: |stage| stage.owner("ScheduleKeyDeletion"),
        give: |stage| {
            let dated = status(&stage.members()[0])?;
            ensure!(dated.at("/kms/deletion_date").is_string(), "AWS says when: {}", dated.at("/kms"));
            stage.owner("CancelKeyDeletion")?;
            stage.owner("EnableKey")
        },
    }),
    Act::Lose(Loss {
        name: "deletion that was cancelled",
        dead: false,
        by_lease: false,
        code: "key_revoked",
        take: |stage| {
            stage.owner("ScheduleKeyDeletion")?;
            stage.owner("CancelKeyDeletion")
        },
        give: |stage| {
            stage.await_key(&["disabled"])?;
            stage.owner("EnableKey")
        },
    }),
    revoked("not found (front)", "key_revoked", |stage| say(stage, FrontWord::NotFound)),
    Act::Other("denied to one host alone", one_alone),
    Act::Other("reboot while it is disabled", reboot),
    offline("throttled (front)", |stage| say(stage, FrontWord::Throttled)),
    offline("expired credentials (front)", |stage| say(stage, FrontWord::Expired)),
    offline("time-outs (front)", |stage| say(stage, FrontWord::Silent)),
    Act::Lose(Loss {
        name: "AWS is gone",
        dead: false,
        by_lease: true,
        code: "key_offline",
        take: gone,
        give: there_again,
    }),
    Act::Lose(Loss {
        name: "disabled, and all agents are dead",
        dead: true,
        by_lease: true,
        code: "key_revoked",
        take: |stage| stage.owner("DisableKey"),
        give: Stage::give_all,
    }),
    Act::Lose(Loss {
        name: "AWS is gone, and all agents are dead",
        dead: true,
        by_lease: true,
        code: "key_offline",
        take: gone,
        give: there_again,
    }),
];

fn say(stage: &Stage, word: FrontWord) -> Result<()> {
    stage.front.say(word);
    Ok(())
}

/// Nothing of it comes out any more.
fn gone(stage: &Stage) -> Result<()> {
    stage.lab().wire().drop_matching(stage.cloud(), Toward::Wire, "protocol ip flower ip_proto tcp")
}

fn there_again(stage: &Stage) -> Result<()> {
    stage.lab().wire().pass_all(stage.cloud())
}

/// `cargo lab kms [WORD…]`: the lines whose name contains one of the words, or all.
///
/// # Errors
/// When there is no such line, or the hosts do not come up.
pub fn show(show: &Show) -> Result<i32> {
    let words = &show.arguments;
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let lines: Vec<&Act> = ALL.iter().filter(|act| wanted(act.name())).collect();
    ensure!(!lines.is_empty(), "no line is named like {words:?}");
    println!(
        "five hosts, ten pairs under traffic; check_every {}, max_offline {}\n",
        seconds(CHECK_EVERY),
        seconds(MAX_OFFLINE)
    );
    println!(
        "| what happens | cut off after | at most | clear | lost | in memory | in files | back after | |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut stage = Stage::new()?;
    let key = stage.aws.key()?;
    let mut wrong = print("a secret in a file is wrapped", &moved(&mut stage, key)?);
    for act in lines {
        let seen = match act {
            Act::Lose(loss) => lose(&mut stage, loss),
            Act::Other(_, act) => act(&mut stage),
        };
        match seen {
            Ok(seen) => wrong += print(act.name(), &seen),
            Err(error) => {
                wrong += 1;
                println!("| {} | FAILED: {error:#} |", act.name());
                // Nothing is dropped, unless that was this line.
                let _ = there_again(&stage);
                stage.give_all()?;
                stage.start_agents()?;
                stage.await_protected()?;
            }
        }
    }
    println!("\n{wrong} not as promised");
    Ok(i32::from(wrong > 0))
}

/// Prints a line. Returns what is not as promised.
fn print(name: &str, seen: &Seen) -> usize {
    let time = |time: Option<Duration>| time.map(seconds).unwrap_or_default();
    let number = |count: Option<u64>| count.map(|count| count.to_string()).unwrap_or_default();
    let mut wrong = seen.wrong.clone();
    if let Some((cut, bound)) = seen.cut.as_ref().filter(|(cut, bound)| !bound.contains(cut)) {
        let [least, most] = [bound.start(), bound.end()].map(|end| seconds(*end));
        wrong.push(format!("cut off after {}, and not {least} to {most}", seconds(*cut)));
    }
    let none = [
        ("clear packets", Some(seen.clear as u64)),
        ("lost packets", seen.lost),
        ("agents that remember the secret", seen.remember.map(|count| count as u64)),
        ("hosts with the secret in a file", seen.plain.map(|count| count as u64)),
    ];
    wrong.extend(
        none.iter().filter_map(|(what, count)| {
            count.filter(|count| *count > 0).map(|count| format!("{count} {what}"))
        }),
    );
    let verdict = if wrong.is_empty() { "holds".to_owned() } else { format!("NOT: {}", wrong.join("; ")) };
    println!(
        "| {name} | {} | {} | {} | {} | {} | {} | {} | {verdict}{} |",
        time(seen.cut.as_ref().map(|(cut, _)| *cut)),
        time(seen.cut.as_ref().map(|(_, bound)| *bound.end())),
        seen.clear,
        number(seen.lost),
        number(seen.remember.map(|count| count as u64)),
        number(seen.plain.map(|count| count as u64)),
        time(seen.back),
        seen.note
    );
    wrong.len()
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

/// Packets from each of these hosts to each other one.
fn between_all(hosts: &[Host]) -> Result<Traffic> {
    let ways = hosts.iter().flat_map(|from| hosts.iter().map(move |to| (from, to)));
    let ways: Vec<(&Host, &Host)> = ways.filter(|(from, to)| from.number() != to.number()).collect();
    Traffic::of(&ways, &[Family::V4], RATE)
}

/// Takes the key away, looks at what is left, and gives it back.
fn lose(stage: &mut Stage, loss: &Loss) -> Result<Seen> {
    let hosts = stage.members().to_vec();
    let (captures, since) = (stage.captures()?, SystemTime::now());
    if loss.dead {
        stage.kill_agents()?;
    }
    let begun = Instant::now();
    (loss.take)(stage)?;
    stage.await_no_sa(&hosts)?;
    let cut = begun.elapsed();
    if loss.dead {
        let (from, to) = (&hosts[0], &hosts[1]);
        ensure!(!stage.gets_through(from, to)?, "something gets through");
        stage.start_agents()?;
    }
    stage.await_blocked(&hosts, loss.code)?;
    let mut wrong = Vec::new();
    for (at, from) in hosts.iter().enumerate() {
        let to = &hosts[(at + 1) % hosts.len()];
        if stage.gets_through(from, to)? {
            wrong.push(format!("something gets from {} to {}", from.name(), to.name()));
        }
    }
    let (remember, plain) = (Some(stage.remember()?), Some(stage.plain()?));
    let back = timed(|| {
        (loss.give)(stage)?;
        stage.await_protected()
    })?;
    let clear = stage.clear(captures, since)?;
    // Who is away was asked for the last time before this began. Nothing but the lease ends the traffic then.
    let bound = match loss.by_lease {
        true => lease_of(loss)..=MAX_OFFLINE + LOOK,
        false => Duration::ZERO..=CHECK_EVERY + CHECK_EVERY + ANSWER + LOOK,
    };
    let cut = Some((cut, bound));
    Ok(Seen { cut, clear, remember, plain, back: Some(back), wrong, ..Seen::default() })
}

/// How long it takes at least where the lease ends it. Where no agent runs, SAs have what was left of it when they were made.
fn lease_of(loss: &Loss) -> Duration {
    let used = CHECK_EVERY + ANSWER;
    MAX_OFFLINE.saturating_sub(if loss.dead { REKEY_AFTER + used } else { used })
}

/// A live cluster goes by another key.
fn moved(stage: &mut Stage, key: String) -> Result<Seen> {
    let (captures, since) = (stage.captures()?, SystemTime::now());
    let traffic = between_all(stage.members())?;
    stage.wrap(key)?;
    let lost = Some(traffic.lost()?);
    let (clear, plain) = (stage.clear(captures, since)?, Some(stage.plain()?));
    Ok(Seen { clear, lost, plain, ..Seen::default() })
}

/// Somebody answers who is not AWS: the agents go on, and so do their pairs.
fn rogue(stage: &mut Stage, word: FrontWord) -> Result<Seen> {
    let agents = stage.agents()?;
    let before = stage.most_memory("hostseal")?;
    let traffic = between_all(stage.members())?;
    stage.front.say(word);
    let mut helper = 0;
    until("all have heard it", stage::PATIENCE, || {
        helper = stage.most_memory("kms-aws")?.max(helper);
        for host in stage.members() {
            let seen = status(host)?;
            let state = seen.at("/kms/state");
            ensure!(state == "unavailable" || state == "broken", "on {}: {}", host.name(), seen.at("/kms"));
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let gained = stage.most_memory("hostseal")?.saturating_sub(before);
    stage.front.say(FrontWord::HandsOn);
    stage.await_key(&["valid"])?;
    stage.await_protected()?;
    let lost = Some(traffic.lost()?);
    let mut wrong = Vec::new();
    if stage.agents()? != agents {
        wrong.push("an agent is another one".to_owned());
    }
    if gained > GAIN_MOST || helper > HELPER_MOST {
        wrong.push(format!("agents gained {gained} kB, and a helper had {helper} kB"));
    }
    let note = format!("; agents gained {gained} kB, the largest helper had {helper} kB");
    Ok(Seen { clear: 0, lost, wrong, note, ..Seen::default() })
}

/// The first host alone may not use the key.
fn one_alone(stage: &mut Stage) -> Result<Seen> {
    let hosts = stage.members().to_vec();
    let (alone, others) = (&hosts[..1], &hosts[1..]);
    let (captures, since) = (stage.captures()?, SystemTime::now());
    let traffic = between_all(others)?;
    let begun = Instant::now();
    stage.allow(alone, false)?;
    stage.await_no_sa(alone)?;
    let cut = Some((begun.elapsed(), Duration::ZERO..=CHECK_EVERY + CHECK_EVERY + ANSWER + LOOK));
    stage.await_blocked(alone, "key_revoked")?;
    let mut wrong = Vec::new();
    for host in others {
        status_until(host, "its pair with the host that is cut off says so", stage::PATIENCE, |status| {
            let with = |at: &str| status.peers().iter().filter(|row| row["state"] == at).count();
            let row = status.peer(alone[0].v4().into());
            let says = row.is_ok_and(|row| row.at("/reason_code") == "peer_cut_off");
            with("protected") == others.len() - 1 && with("blocked") == 1 && says
        })?;
        if stage.gets_through(host, &alone[0])? {
            wrong.push(format!("something gets from {} to the host that is cut off", host.name()));
        }
    }
    let plain = Some(stage.plain()?);
    let remember = Some(usize::from(crate::scenarios::kms::remembers(status(&alone[0])?.agent()?)?));
    let back = Some(timed(|| {
        stage.give_all()?;
        stage.await_protected()
    })?);
    let lost = Some(traffic.lost()?);
    let clear = stage.clear(captures, since)?;
    Ok(Seen { cut, clear, lost, remember, plain, back, wrong, ..Seen::default() })
}

/// The first host starts anew while the key is disabled.
fn reboot(stage: &mut Stage) -> Result<Seen> {
    stage.owner("DisableKey")?;
    let hosts = stage.members().to_vec();
    stage.await_no_sa(&hosts)?;
    let first = stage.reboot_first()?;
    let (captures, since) = (stage.captures()?, SystemTime::now());
    stage.go_on(&first)?;
    let hosts = stage.members().to_vec();
    stage.await_blocked(&hosts, "key_revoked")?;
    ensure!(!stage.gets_through(&first, &hosts[1])?, "something gets through");
    let (remember, plain) = (Some(stage.remember()?), Some(stage.plain()?));
    let back = Some(timed(|| {
        stage.give_all()?;
        stage.await_protected()
    })?);
    let clear = stage.clear(captures, since)?;
    Ok(Seen { clear, remember, plain, back, ..Seen::default() })
}
