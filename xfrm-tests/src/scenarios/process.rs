//! The agent as a process: one in each network namespace, found whatever became of its files.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ensure_nothing_of_ours, ensure_pings, sealed_pair};
use crate::lab::agent::{CONFIG, Cluster, SECRETS, await_end, hostseal, start_agent, status};
use crate::lab::wait::until;
use crate::lab::{HOSTSEAL, Host, Lab, Process};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("process::forced_off_without_the_run_directory", 2, forced_off_without_the_run_directory),
    Test::new("process::forced_off_while_the_agent_hangs", 2, forced_off_while_the_agent_hangs),
    Test::new("process::forced_off_without_any_file", 2, forced_off_without_any_file),
    Test::new("process::forced_off_out_of_reach", 2, forced_off_out_of_reach),
    Test::new("process::two_agents_in_one_network", 2, two_agents_in_one_network),
    Test::new("process::somebody_else_has_the_name", 2, somebody_else_has_the_name),
    Test::new("process::keeper_without_the_run_directory", 2, keeper_without_the_run_directory),
];

const RUN: &str = "/run/hostseal";

/// The processes of a host that are hostseal's: its agents and what keeps their sockets.
fn ours(host: &Host) -> Result<Vec<String>> {
    let name = |pid: &Pid| std::fs::read_to_string(format!("/proc/{pid}/comm"));
    let names = host.processes()?.iter().filter_map(|pid| name(pid).ok()).collect::<Vec<_>>();
    Ok(names
        .into_iter()
        .map(|name| name.trim().to_owned())
        .filter(|name| name.starts_with("hostseal"))
        .collect())
}

/// Nobody is left to put anything back, and nothing is there.
fn ensure_gone(host: &Host) -> Result<()> {
    ensure!(ours(host)?.is_empty(), "still running on {}: {:?}", host.name(), ours(host)?);
    ensure_nothing_of_ours(host)
}

fn forced_off_without_the_run_directory(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    for host in [&a, &b] {
        host.run(&format!("rm -rf {RUN}"))?;
        let said = hostseal(host, "disable --force")?.expect_code(0)?;
        ensure!(said.stdout.starts_with("removed "), "{}", said.stdout);
        ensure_gone(host)?;
        ensure!(status(host)?.at("/protection") == "off", "{:#}", status(host)?.0);
    }
    ensure_pings(&a, &b, 3)
}

/// One that is stopped answers nobody, and SIGTERM does not reach it.
fn forced_off_while_the_agent_hangs(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    for host in [&a, &b] {
        kill(status(host)?.agent()?, Signal::SIGSTOP)?;
        host.run(&format!("rm -rf {RUN}"))?;
        hostseal(host, "disable --force")?.expect_code(0)?;
        ensure_gone(host)?;
    }
    ensure_pings(&a, &b, 3)
}

/// The file is broken, and nothing was kept of it: the agent is found, and what is remembered is off.
fn forced_off_without_any_file(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    for host in [&a, &b] {
        let whole = host.read(CONFIG)?;
        host.run(&format!("rm -rf {RUN} /var/lib/hostseal/config.last-good.toml"))?;
        host.write(CONFIG, "cluster = [[[ broken", 0o644)?;
        hostseal(host, "disable --force")?.expect_code(0)?;
        ensure_gone(host)?;
        host.write(CONFIG, &whole, 0o644)?;
        ensure!(status(host)?.at("/protection") == "off", "{:#}", status(host)?.0);
    }
    ensure_pings(&a, &b, 3)
}

/// An agent that the command cannot see, as in a container with this network: it is not ended, and the command says so.
fn forced_off_out_of_reach(lab: &mut Lab) -> Result<()> {
    let (a, _) = sealed_pair(lab)?;
    host_line(
        &a,
        &format!("unshare --pid --fork --mount-proc {HOSTSEAL} disable --force"),
        1,
        &["runs in this network namespace", "another process namespace", "put back"],
    )?;
    ensure!(status(&a)?.at("/agent/running") == true, "{:#}", status(&a)?.0);
    hostseal(&a, "disable --force")?.expect_code(0)?;
    ensure_gone(&a)
}

/// Runs a line that must end with `code` and say all of `words` on standard error.
fn host_line(host: &Host, line: &str, code: i32, words: &[&str]) -> Result<()> {
    let output = host.output(line)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{said}");
    ensure!(output.status.code() == Some(code), "{line}: {}: {said}", output.status);
    for word in words {
        ensure!(said.contains(word), "`{word}` is not in: {said}");
    }
    Ok(())
}

/// With directories of its own it would find nothing in its way, and undo the first one's work.
fn two_agents_in_one_network(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let pid = status(&a)?.agent()?;
    let other = format!("run_dir = \"/run/other\"\nstate_dir = \"/var/lib/other\"\n{}", a.read(CONFIG)?);
    a.write("/etc/hostseal/other.toml", &other, 0o644)?;
    for line in ["agent", "enable"] {
        let line = format!("timeout 30 {HOSTSEAL} --config /etc/hostseal/other.toml {line}");
        host_line(&a, &line, 1, &["another agent", "this network namespace", &format!("kill {pid}")])?;
    }
    let said = a.output(&format!("timeout 30 {HOSTSEAL} --config /etc/hostseal/other.toml guard"))?;
    ensure!(String::from_utf8_lossy(&said.stdout).contains("an agent runs"), "{said:?}");
    // The run directory of the first one goes, and with it the file that it holds.
    a.run(&format!("rm -rf {RUN}"))?;
    host_line(&a, &format!("timeout 30 {HOSTSEAL} enable"), 1, &["another agent", &format!("kill {pid}")])?;
    a.run(&format!("kill {pid}"))?;
    await_end(&a, pid)?;
    hostseal(&a, "enable")?.expect_code(0)?;
    ensure_pings(&a, &b, 3)
}

/// A process of an ordinary user that has the name of hostseal's agents, and calls itself like one.
fn squat(host: &Host) -> Result<Process> {
    let script = "use Socket; $0 = 'hostseal agent'; \
        for ('hostseal-agent', 'hostseal-keeper') { \
            socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die; \
            bind($s, pack('S a*', AF_UNIX, \"\\0$_\")) or die $!; listen($s, 1); push @all, $s; \
            for my $n (1 .. 2) { socket(my $c, AF_UNIX, SOCK_STREAM, 0); \
                connect($c, pack('S a*', AF_UNIX, \"\\0$_\")) or die $!; push @all, $c; } } \
        open(my $f, '>', '/tmp/squats'); close $f; sleep 1000;";
    host.run("rm -f /tmp/squats")?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "perl", "-e", script]);
    let process = host.spawn(command.stdout(Stdio::null()))?;
    until("the name is taken", Duration::from_secs(10), || host.run("test -e /tmp/squats"))?;
    Ok(process)
}

/// Anybody can take it before the agent does: that neither keeps the agent from starting nor hides it.
fn somebody_else_has_the_name(lab: &mut Lab) -> Result<()> {
    let mut squatter = squat(&lab.all::<2>()[0])?;
    let (a, b) = sealed_pair(lab)?;
    let log = a.read(&format!("{RUN}/agent.log"))?;
    ensure!(log.contains("hostseal-agent"), "{log}");
    let pid = status(&a)?.agent()?;
    a.run(&format!("rm -rf {RUN}"))?;
    host_line(&a, &format!("timeout 30 {HOSTSEAL} agent"), 1, &["another agent", &format!("kill {pid}")])?;
    hostseal(&a, "disable --force")?.expect_code(0)?;
    ensure!(squatter.is_running(), "a stranger's process was ended");
    squatter.child.kill()?;
    squatter.wait(Duration::from_secs(5))?;
    ensure_gone(&a)?;
    hostseal(&b, "disable --force")?.expect_code(0)?;
    ensure_pings(&a, &b, 3)
}

/// What keeps the sockets for ESP in UDP is found too: neither the next agent nor `disable --force` meets its port.
fn keeper_without_the_run_directory(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let cluster = Cluster::of(lab.hosts()).with("esp", "encapsulation = \"always\"");
    super::seal_all(&cluster, lab.hosts())?;
    ensure!(ours(&a)?.len() == 2, "{:?}", ours(&a)?);
    let traffic = super::Traffic::start(&a, &b, 250)?;
    // The next agent takes the sockets over.
    let pid = status(&a)?.agent()?;
    a.run(&format!("rm -rf {RUN}; kill -9 {pid}"))?;
    await_end(&a, pid)?;
    let agent = start_agent(&a)?;
    super::await_protected(&a)?;
    traffic.ensure_complete()?;
    drop(agent);
    // Without any agent.
    a.run(&format!("rm -rf {RUN}"))?;
    hostseal(&a, "disable --force")?.expect_code(0)?;
    ensure_gone(&a)?;
    cluster.install(&a, SECRETS[0])?;
    hostseal(&b, "disable --force")?.expect_code(0)?;
    Ok(())
}
