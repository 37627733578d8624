//! `status` never says better than it is: of peers that are gone, of an agent that hangs, of files that differ.

use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};

use super::{seal_all, sealed_pair};
use crate::lab::agent::{
    CONFIG, SECRET, SECRETS, Status, hostseal, hostseal_all, kill_agent, status, status_until,
};
use crate::lab::stream::Shape;
use crate::lab::{Cluster, Family, HOSTSEAL, Host, Lab, Stream, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("sight::a_peer_without_a_cable_is_silent_under_traffic", 2, |lab| cable_out(lab, true)),
    Test::new("sight::a_peer_without_a_cable_is_silent_when_idle", 2, |lab| cable_out(lab, false))
        .within(300),
    Test::new("sight::a_link_that_is_down_is_silence_for_the_peer", 2, link_down),
    Test::new("sight::an_agent_that_hangs_is_named_and_the_kernel_read", 2, agent_hangs),
    Test::new("sight::peers_tell_what_they_are_and_differences_are_named", 2, files_differ),
    Test::new("sight::the_journal_has_the_fields_of_a_pair", 2, journal_has_fields),
    Test::new("sight::without_an_agent_the_kernel_says_what_was_heard", 2, heard_without_an_agent),
];

/// Whether the row of `remote` is protected and silent, and the status says so everywhere.
fn is_silent(status: &Status, remote: IpAddr) -> bool {
    status.number("/summary/silent") > 0
        && status.peer(remote).is_ok_and(|row| {
            row.at("/state") == "protected"
                && row.at("/reason_code") == "silent"
                && row.at("/reason").is_string()
        })
}

/// The cable of b is out: a names it within the time that is promised, and takes it back when it is in.
fn cable_out(lab: &mut Lab, traffic: bool) -> Result<()> {
    let hosts = lab.hosts();
    seal_all(&Cluster::of_v4(hosts), hosts)?;
    let (a, b) = (hosts[0].clone(), hosts[1].clone());
    let remote = IpAddr::from(b.v4());
    ensure!(a.ping(&b, Family::V4, 1)? == 1);
    let row = status(&a)?.peer(remote)?;
    ensure!(row.at("/last_heard").is_string() && row.at("/last_heard_esp").is_string(), "{:#}", row.0);
    hostseal(&a, "status")?.expect_code(0)?;
    lab.wire().plug(&b, false)?;
    let stream = traffic.then(|| Stream::start(&a, &b, Shape::default())).transpose()?;
    // 40 and 130 s are promised; a machine that has no time for us is given some.
    let limit = Duration::from_secs(if traffic { 60 } else { 180 });
    let seen = status_until(&a, "b is silent", limit, |status| is_silent(status, remote))?;
    println!("{:#}", seen.peer(remote)?.0);
    ensure!(seen.number("/summary/protected") == 1, "it is counted in protected, too");
    let shown = hostseal(&a, "status")?.expect_code(3)?;
    println!("{}", shown.stdout);
    ensure!(shown.stdout.contains("1 of them silent"), "{}", shown.stdout);
    ensure!(
        a.run("cat /var/log/hostseal.log /run/hostseal/*.log 2>/dev/null; true")?.matches("silent").count()
            <= 1
    );
    lab.wire().plug(&b, true)?;
    let heard = |status: &Status| status.all_protected() && status.number("/summary/silent") == 0;
    status_until(&a, "b is heard again", Duration::from_secs(70), heard)?;
    drop(stream);
    Ok(())
}

/// A host that has its address on a link that is down says so; its peer says that it is silent.
fn link_down(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let stream = Stream::start(&b, &a, Shape::default())?;
    a.run("ip link set eth0 down")?;
    let no_address = |status: &Status| {
        let row = status.peer(IpAddr::from(b.v4()));
        row.is_ok_and(|row| row.at("/state") == "blocked" && row.at("/reason_code") == "no_address")
    };
    status_until(&a, "the missing address is named", Duration::from_secs(10), no_address)?;
    let remote = IpAddr::from(a.v4());
    status_until(&b, "a is silent", Duration::from_secs(60), |status| is_silent(status, remote))?;
    drop(stream);
    Ok(())
}

/// A stopped process: `status` says so within a second or so, reads the kernel and ends with 3.
fn agent_hangs(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let agent = status(&a)?.agent()?;
    kill(agent, Signal::SIGSTOP)?;
    // The wait is not put off by one that does not answer.
    a.run("timeout 8 hostseal status --wait 1s > /run/waited; test $? = 3")?;
    // More than what waits to be accepted has room for, in the end.
    for _ in 0..5 {
        let outcome = hostseal(&a, "status --json")?.expect_code(3)?;
        let status = Status(outcome.json()?);
        ensure!(
            status.at("/agent/running") == true && status.at("/agent/answering") == false,
            "{:#}",
            status.0
        );
        ensure!(status.number("/agent/pid") == u64::try_from(agent.as_raw())?);
        ensure!(status.all_protected(), "the kernel goes on: {:#}", status.0);
        ensure!(
            status.at("/problems/0/code") == "agent_hung" && status.at("/problems/0/severity") == "critical"
        );
        ensure!(status.peer(IpAddr::from(b.v4()))?.number("/sas/0/expires_in_s") > 0);
    }
    let shown = hostseal(&a, "status")?.expect_code(3)?;
    println!("{}", shown.stdout);
    ensure!(
        shown.stdout.contains("does not answer") && !shown.stdout.contains("no agent runs"),
        "{}",
        shown.stdout
    );
    kill(agent, Signal::SIGCONT)?;
    until("the agent answers again", Duration::from_secs(10), || hostseal(&a, "status")?.expect_code(0))?;
    Ok(())
}

fn has_problem(status: &Status, code: &str, severity: &str) -> bool {
    let problems = status.at("/problems").as_array().map(Vec::as_slice).unwrap_or_default();
    problems.iter().any(|problem| problem["code"] == code && problem["severity"] == severity)
}

fn reload(host: &Host, cluster: &Cluster) -> Result<()> {
    host.write(CONFIG, &cluster.text(), 0o644)?;
    hostseal(host, "reload")?.expect_code(0).map(drop)
}

fn files_differ(lab: &mut Lab) -> Result<()> {
    const SOON: Duration = Duration::from_secs(20);
    let hosts = lab.hosts();
    let cluster = Cluster::of(hosts);
    seal_all(&cluster, hosts)?;
    let (a, b) = (&hosts[0], &hosts[1]);
    let remote = IpAddr::from(b.v4());
    let own = status(b)?;
    let told = |status: &Status| {
        status.peer(remote).is_ok_and(|row| {
            row.at("/peer/config_id") == own.at("/config_id")
                && row.at("/peer/secret_id") == own.at("/secret_id")
        })
    };
    let version = status_until(a, "b has told what it is", SOON, told)?.peer(remote)?;
    ensure!(version.at("/peer/version").is_string());
    ensure!(!has_problem(&status(a)?, "config_differs", "warning"));
    reload(b, &cluster.clone().with("keying", "rekey_after = \"50m\""))?;
    status_until(a, "another file is warned of", SOON, |it| has_problem(it, "config_differs", "warning"))?;
    hostseal(a, "status")?.expect_code(0)?;
    // What a sends in the clear then, b drops.
    reload(a, &cluster.clone().with("protection", "exempt = [\"tcp/5999\"]"))?;
    for host in [a, b] {
        let seen =
            status_until(host, "the cut is named", SOON, |it| has_problem(it, "config_differs", "critical"))?;
        println!("{:#}", seen.at("/problems"));
        println!("{}", hostseal(host, "status")?.expect_code(3)?.stdout);
    }
    reload(a, &cluster)?;
    reload(b, &cluster)?;
    for host in [a, b] {
        let fine = |it: &Status| it.at("/problems").as_array().is_some_and(Vec::is_empty);
        status_until(host, "nothing differs any more", SOON, fine)?;
    }
    // A rotation that has begun, and one that forgets the other host.
    b.write(SECRET, &format!("{}\n", SECRETS[1]), 0o600)?;
    b.write("/etc/hostseal/secret.previous", &format!("{}\n", SECRETS[0]), 0o600)?;
    reload(b, &cluster.clone().with("secret", "previous_file = \"/etc/hostseal/secret.previous\""))?;
    status_until(a, "another secret is warned of", SOON, |it| has_problem(it, "secret_differs", "warning"))?;
    reload(b, &cluster)?;
    for host in [a, b] {
        status_until(host, "a lost secret is named", SOON, |it| {
            has_problem(it, "secret_differs", "critical")
        })?;
    }
    Ok(())
}

/// `last_heard` without an agent is the kernel's, where it says it (since Linux 6.2).
fn heard_without_an_agent(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    ensure!(a.ping(&b, Family::V4, 1)? == 1);
    kill_agent(&a)?;
    let row = status(&a)?.peer(IpAddr::from(b.v4()))?;
    println!("{:#}", row.0);
    ensure!(row.at("/last_heard").is_string(), "{:#}", row.0);
    ensure!(row.at("/last_heard") == row.at("/last_heard_esp"));
    ensure!(row.at("/peer").is_null());
    Ok(())
}

/// Under systemd the log goes to the journal: what a line is about stands in fields that one can search for.
fn journal_has_fields(lab: &mut Lab) -> Result<()> {
    const STDERR: &str = "/run/stderr";
    const SOON: Duration = Duration::from_secs(10);
    let [a, b] = lab.all();
    Cluster::of_v4(lab.hosts()).install_all(lab.hosts())?;
    a.run("mount -t cgroup2 none /sys/fs/cgroup && mkdir -p /run/systemd/journal /run/log/journal")?;
    a.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o444)?;
    let _journal = a.spawn(Command::new("/lib/systemd/systemd-journald").stderr(Stdio::null()))?;
    until("the journal listens", SOON, || a.run("test -S /run/systemd/journal/socket"))?;
    let agent = format!(
        "exec 2>{STDERR}; JOURNAL_STREAM=$(stat -c %d:%i {STDERR}); export JOURNAL_STREAM; exec {HOSTSEAL} agent"
    );
    let _agent = a.spawn(Command::new("sh").args(["-c", &agent]))?;
    until("the agent listens", SOON, || status(&a)?.agent().map(drop))?;
    for outcome in hostseal_all(&[a.clone(), b.clone()], "enable")? {
        outcome.expect_code(0)?;
    }
    let remote = b.v4();
    let search = format!(
        "journalctl --sync && journalctl -D /run/log/journal -o cat -t hostseal HOSTSEAL_NODE=b \
         HOSTSEAL_STATE=protected HOSTSEAL_REMOTE={remote} HOSTSEAL_LOCAL={}",
        a.v4()
    );
    until("the journal has a line of the pair", SOON, || {
        let found = a.run(&search)?;
        ensure!(found.contains("protected") && found.contains(&remote.to_string()), "{found}");
        Ok::<_, anyhow::Error>(())
    })?;
    let beside = a.read(STDERR)?;
    ensure!(beside.is_empty(), "not in the journal: {beside}");
    Ok(())
}
