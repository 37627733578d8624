//! A key of somebody else wraps the secret: revoked, it cuts; given back, it restores; and whatever a helper does is
//! bounded.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;

use super::keys::key;
use super::{await_protected, await_sealed};
use crate::lab::agent::{
    CONFIG, SECRET, SECRETS, hostseal, hostseal_all, kill_agent, start_agent, status, status_until,
};
use crate::lab::host::Process;
use crate::lab::{Capture, Cluster, Family, HOSTSEAL, Host, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("kms::a_revoked_key_cuts_and_one_that_is_back_restores", 2, revoked_and_back),
    Test::new("kms::the_kernel_ends_what_a_dead_agent_cannot", 2, dead_agent),
    Test::new("kms::a_helper_that_is_none_takes_nothing_before_its_time", 2, helper_that_is_none),
];

/// For whatever depends on several asks, on a machine that is busy.
pub(super) const LIMIT: Duration = Duration::from_secs(90);
/// The wrapped secret.
pub(crate) const WRAPPED: &str = "/etc/hostseal/secret.wrapped";
/// The helper, and what tells it what to do.
const HELPER: &str = "/etc/hostseal/our-kms";
const ORDER: &str = "/etc/hostseal/our-kms.order";
/// What the first of [`SECRETS`] is.
const PLAIN: &[u8] = b"lab secret number one, 32 bytes.";

/// Wraps by moving each letter by thirteen, and does otherwise as a file says.
const PROGRAM: &str = r#"#!/bin/sh
read -r ask
[ "$(id -u)" != 0 ] || exit 1
turned() { printf %s "$ask" | sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/" | tr A-Za-z N-ZA-Mn-za-m; }
case $(cat /etc/hostseal/our-kms.order) in
    hangs) sleep 600 ;;
    dies) kill -9 $$ ;;
    floods) yes nonsense ;;
    breaks_out)
        may=$(grep ^Seccomp: /proc/self/status | tr -d '\t')
        for what in 'unshare --user true' 'unshare --net true' 'mount -t tmpfs none /mnt'; do
            ! $what 2>/dev/null || may="$may, $what"
        done
        echo "{\"answer\":\"unavailable\",\"why\":\"$may\"}" ;;
    garbage) echo '{"answer":"yes"}' ;;
    denies) echo '{"answer":"denied","why":"said no","request_id":"r-1"}' ;;
    deletes) echo '{"answer":"pending_deletion","date":"2027-01-02"}' ;;
    *)
        case $ask in
            *'"op":"decrypt"'*) echo "{\"answer\":\"plaintext\",\"plaintext\":\"$(turned blob)\",\"request_id\":\"r-2\"}" ;;
            *'"op":"encrypt"'*)
                if [ "$(cat /etc/hostseal/our-kms.order)" = wraps ]; then
                    echo "{\"answer\":\"blob\",\"blob\":\"$(turned plaintext)\"}"
                else
                    echo '{"answer":"denied"}'
                fi ;;
            *) echo '{"answer":"enabled"}' ;;
        esac ;;
esac
"#;

/// Runs helpers on a host.
fn runner(host: &Host) -> Result<Process> {
    runner_of(host, HELPER, &[])
}

/// Runs this helper on a host, with this environment.
pub(crate) fn runner_of(host: &Host, helper: &str, environment: &[(&str, String)]) -> Result<Process> {
    let mut command = Command::new(HOSTSEAL);
    command.args([
        "kms-runner",
        "--listen",
        "/run/hostseal-kms.sock",
        "--user",
        "nobody",
        "--program",
        helper,
    ]);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let process = host.spawn(&mut command)?;
    until("the runner listens", LIMIT, || host.run("test -S /run/hostseal-kms.sock"))?;
    Ok(process)
}

pub(super) fn order(host: &Host, what: &str) -> Result<()> {
    host.write(ORDER, &format!("{what}\n"), 0o644)
}

/// Two hosts that prove themselves with their secret, which is wrapped, sealed. Nothing but the blob lies on their disks.
fn wrapped_pair(hosts: &[Host; 2]) -> Result<[Process; 2]> {
    wrapped_pair_in(hosts, Cluster::of_v4(hosts), "")
}

/// Two hosts that prove themselves with keys, and have the wrapped secret in their PPK.
pub(super) fn wrapped_ppk_pair(hosts: &[Host; 2]) -> Result<[Process; 2]> {
    let mut cluster = Cluster::of_v4(hosts).with("auth", "method = \"public_key\"");
    for host in hosts {
        cluster = cluster.with_node(host, &key(host, "ed25519")?);
    }
    wrapped_pair_in(hosts, cluster, "[ppk]\nid = \"ours-1\"\nwrapped = true\n")
}

/// The same in this cluster, whose file has these sections, too.
fn wrapped_pair_in(hosts: &[Host; 2], cluster: Cluster, sections: &str) -> Result<[Process; 2]> {
    let [a, b] = hosts;
    let cluster = cluster.with("keying", "rekey_after = \"15s\"");
    for host in hosts {
        host.write(HELPER, PROGRAM, 0o755)?;
        order(host, "wraps")?;
    }
    let runners = [runner(a)?, runner(b)?];
    cluster.install(a, SECRETS[0])?;
    let said = hostseal(
        a,
        &format!("secret wrap --provider exec --program {HELPER} --kms-key ours --from {SECRET}"),
    )?;
    let lines = said.expect_code(0)?.stdout;
    let times = "check_every = \"3s\"\nmax_offline = \"30s\"\n";
    let (plain, wrapped) = (format!("[secret]\nfile = \"{SECRET}\"\n"), format!("{lines}{times}{sections}"));
    let file = cluster.text().replace(&plain, &wrapped);
    ensure!(file.contains("wrapped_file"), "{file}");
    let blob = a.read(WRAPPED)?;
    a.run(&format!("rm {SECRET}"))?;
    for host in hosts {
        host.write(CONFIG, &file, 0o644)?;
        host.write(WRAPPED, &blob, 0o644)?;
        order(host, "gives")?;
    }
    for outcome in hostseal_all(hosts, "enable --timeout 30s")? {
        ensure!(matches!(outcome.code, 0 | 6), "{outcome:?}");
    }
    for host in hosts {
        await_protected(host)?;
        await_sealed(host)?;
        let plain = plain_files(host)?;
        ensure!(plain.is_empty(), "on the disk: {plain}");
    }
    Ok(runners)
}

/// The files of a host that have its secret in the clear. All that it writes is below `/run`: what is new in `/etc` and
/// `/var/lib` lies there, too.
pub(crate) fn plain_files(host: &Host) -> Result<String> {
    let wanted = format!("{}|lab secret number", SECRETS[0]);
    host.run(&format!("grep -rlsE -D skip '{wanted}' /run || true"))
}

/// Whether the memory of a process holds the first of [`SECRETS`], as octets or as text.
pub(crate) fn remembers(process: Pid) -> Result<bool> {
    remembers_any(process, &[PLAIN, SECRETS[0].as_bytes()])
}

/// Whether the memory of a process holds one of these.
pub(super) fn remembers_any(process: Pid, secrets: &[&[u8]]) -> Result<bool> {
    let memory = File::open(format!("/proc/{process}/mem"))?;
    for line in BufReader::new(File::open(format!("/proc/{process}/maps"))?).lines() {
        let line = line?;
        let (range, rest) = line.split_once(' ').unwrap_or_default();
        let Some((from, to)) = range.split_once('-').filter(|_| rest.starts_with("rw")) else { continue };
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        let mut bytes = vec![0; (to - from) as usize];
        // What the kernel keeps for itself cannot be read.
        let read = memory.read_at(&mut bytes, from).unwrap_or(0);
        let holds = |part: &&[u8]| bytes[..read].windows(part.len()).any(|window| window == *part);
        if secrets.iter().any(holds) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Has a host talk to another all the time.
pub(super) fn talk(from: &Host, to: &Host) -> Result<Process> {
    let mut ping = Command::new("ping");
    ping.args(["-n", "-q", "-i", "0.05", &to.v4().to_string()]).stdout(Stdio::null());
    from.spawn(&mut ping)
}

pub(super) fn blocked(host: &Host, other: &Host, code: &str) -> Result<()> {
    status_until(host, &format!("the pair is blocked: {code}"), LIMIT, |status| {
        status
            .peer(other.v4().into())
            .is_ok_and(|row| row.at("/state") == "blocked" && row.at("/reason_code") == code)
    })
    .map(drop)
}

pub(super) fn ensure_nothing_clear(captures: Vec<Capture>, since: SystemTime) -> Result<()> {
    captures.into_iter().try_for_each(|capture| capture.stop()?.since(since).ensure_nothing_clear())
}

/// The key is denied to one of two hosts, and given back; then it is about to be deleted, and the host starts anew.
fn revoked_and_back(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let _runners = wrapped_pair(&[a.clone(), b.clone()])?;
    hostseal(&a, "kms check")?.expect_code(0)?;
    hostseal(&a, "kms status")?.expect_code(0)?;
    let agent = status(&a)?.agent()?;
    ensure!(remembers(agent)?, "an agent knows its secret");
    let (sealed, captures) = (SystemTime::now(), lab.capture_all()?);
    let _talk = talk(&a, &b)?;

    order(&a, "denies")?;
    blocked(&a, &b, "key_revoked")?;
    ensure!(a.run("ip xfrm state")?.is_empty(), "SAs are left");
    ensure!(!remembers(agent)?, "the secret is still in the agent's memory");
    ensure!(!a.succeeds(&format!("ping -n -q -W 1 -c 2 {}", b.v4()))?, "something gets through");
    hostseal(&a, "kms check")?.expect_code(3)?;
    let status = hostseal(&a, "kms status --json")?.expect_code(3)?.json()?;
    ensure!(
        status["cut"] == true && status["state"] == "denied" && status["request_id"] == "r-1",
        "{status:#}"
    );
    order(&a, "gives")?;
    status_until(&a, "it is protected again by itself", LIMIT, |status| status.all_protected())?;
    ensure_nothing_clear(captures, sealed)?;

    order(&a, "deletes")?;
    blocked(&a, &b, "key_pending_deletion")?;
    let a = lab.reboot(&a)?;
    hostseal(&a, "guard")?.expect_code(0)?;
    let (guarded, captures) = (SystemTime::now(), lab.capture_all()?);
    a.network_up()?;
    let _runner = runner(&a)?;
    let _agent = start_agent(&a)?;
    blocked(&a, &b, "key_pending_deletion")?;
    ensure!(!a.succeeds(&format!("ping -n -q -W 1 -c 2 {}", b.v4()))?, "something gets through");
    order(&a, "gives")?;
    status_until(&a, "it is protected again by itself", LIMIT, |status| status.all_protected())?;
    ensure_nothing_clear(captures, guarded)?;
    on_record(&a)
}

/// What was done with the key is on record, and whoever takes a part of it away is found out.
fn on_record(host: &Host) -> Result<()> {
    let file = "/var/lib/hostseal/kms-audit.jsonl";
    let lines = [
        "\"event\":\"cut\".*\"answer\":\"denied\".*\"request_id\":\"r-1\",\"sas_cut\":[1-9]",
        "\"event\":\"use\".*\"answer\":\"valid\",\"request_id\":\"r-2\"",
        "\"event\":\"check\".*\"answer\":\"denied\"",
        "\"event\":\"cut\".*\"answer\":\"pending_deletion\"",
        "\"event\":\"restore\"",
    ];
    until("all of it is on record", LIMIT, || {
        lines.iter().try_for_each(|line| host.run(&format!("grep -q '{line}' {file}")).map(drop))
    })?;
    // The system was started anew while the agent ran.
    let record = hostseal(host, "kms audit --json")?.json()?;
    let flaws = record["flaws"].as_array().context("there is no list of flaws")?;
    let is_told = |what: &str| what.contains("ended without a last entry");
    ensure!(flaws.iter().all(|flaw| flaw["what"].as_str().is_some_and(is_told)), "{record:#}");
    ensure!(record["first"] == 1, "{record:#}");
    ensure!(host.run(&format!("stat -c %a {file}"))?.trim() == "600", "others may read it");
    host.run(&format!("sed -i 3d {file}"))?;
    let record = hostseal(host, "kms audit")?.expect_code(3)?;
    ensure!(record.stdout.contains("line 3 is missing"), "{record:?}");
    Ok(())
}

/// No agent is left to cut anything. The hosts prove themselves with keys, and have the secret in their PPK.
fn dead_agent(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let _runners = wrapped_ppk_pair(&[a.clone(), b.clone()])?;
    let seen = status(&a)?;
    ensure!(seen.peer(b.v4().into())?.at("/ppk_id") == "ours-1", "its keys have no PPK");
    let (sealed, captures) = (SystemTime::now(), lab.capture_all()?);
    let _talk = talk(&a, &b)?;
    kill_agent(&a)?;
    until("the kernel has ended all SAs", LIMIT, || {
        let states = a.run("ip xfrm state")?;
        ensure!(states.is_empty(), "{states}");
        Ok::<_, anyhow::Error>(())
    })?;
    ensure!(a.ping(&b, Family::V4, 2)? == 0, "something gets through");
    ensure_nothing_clear(captures, sealed)
}

/// It hangs, floods, dies, looks for a way out, and says what makes no sense: the agent goes on, and says so.
fn helper_that_is_none(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let _runners = wrapped_pair(&[a.clone(), b.clone()])?;
    let agent = status(&a)?.agent()?;
    for what in ["garbage", "dies", "floods", "breaks_out", "hangs"] {
        order(&a, what)?;
        let seen = status_until(&a, &format!("{what}: no answer"), LIMIT, |status| {
            status.at("/kms/state") == "unavailable"
        })?;
        ensure!(seen.at("/kms/cut") == false && seen.agent()? == agent, "{what}: {:#}", seen.at("/kms"));
        // A filter is on it, and it may do none of these.
        ensure!(what != "breaks_out" || seen.at("/kms/why") == "Seccomp:2", "{:#}", seen.at("/kms"));
        order(&a, "gives")?;
        status_until(&a, &format!("{what}: the key is used again"), LIMIT, |status| {
            status.at("/kms/state") == "valid" && status.all_protected()
        })?;
    }
    until("no helper is left", LIMIT, || {
        let left = a.run("pgrep -u nobody -f our-kms || true")?;
        ensure!(left.is_empty(), "{left}");
        Ok::<_, anyhow::Error>(())
    })?;
    // Somebody else could have changed the program.
    a.run(&format!("chmod 777 {HELPER}"))?;
    let refused = hostseal(&a, "kms check")?.expect_code(3)?;
    ensure!(refused.stdout.contains("others than root may write"), "{refused:?}");
    a.run(&format!("chmod 755 {HELPER}"))?;
    // Whoever took over an agent would have other programs of root's run.
    let wrap = "secret wrap --provider exec --program /usr/bin/dash --kms-key ours --from /run/plain --out /run/wrapped";
    a.write("/run/plain", &format!("{}\n", SECRETS[0]), 0o600)?;
    let refused = hostseal(&a, wrap)?;
    ensure!(refused.code == 1 && refused.stderr.contains("/usr/bin/dash is no helper"), "{refused:?}");
    // Away for longer than the lease.
    order(&a, "garbage")?;
    blocked(&a, &b, "key_offline")?;
    order(&a, "gives")?;
    status_until(&a, "it is protected again by itself", LIMIT, |status| status.all_protected()).map(drop)
}
