//! The agent as a process: one in each network namespace, found whatever became of its files.

use std::io;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ensure_nothing_of_ours, ensure_pings, sealed_pair};
use crate::bench::idle::ticks;
use crate::campaign::faults::MORTAL;
use crate::lab::agent::{
    CONFIG, Cluster, SECRETS, Status, await_end, hostseal, start_agent, status, status_until,
};
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
    Test::new("process::silent_connections", 2, silent_connections),
    Test::new("process::few_descriptors", 2, few_descriptors),
    Test::new("process::powers_are_given_up", 2, powers_are_given_up),
    Test::new("process::a_whole_life_of_known_system_calls", 2, a_whole_life_of_known_system_calls).mortal(),
    Test::new("process::ordinary_users_are_refused", 2, ordinary_users_are_refused),
    Test::new("process::files_that_others_may_write", 2, files_that_others_may_write),
];

const RUN: &str = "/run/hostseal";
/// Says when the state was written.
const WRITTEN: &str = "stat -c '%i %y' /var/lib/hostseal/state.json";

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

/// With its own directories it would find nothing in its way, and undo the first one's work.
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

/// Connections that say nothing take the place of nobody who asks.
fn silent_connections(lab: &mut Lab) -> Result<()> {
    let (a, _) = sealed_pair(lab)?;
    let socket = format!("{RUN}/hostseal.sock");
    let silent =
        a.within(|| (0..200).map(|_| UnixStream::connect(&socket)).collect::<io::Result<Vec<_>>>())??;
    for _ in 0..3 {
        hostseal(&a, "status")?.expect_code(0)?;
    }
    hostseal(&a, "disable")?.expect_code(0)?;
    drop(silent);
    ensure_nothing_of_ours(&a)
}

/// What the system lets an agent have is too little, or is taken away later.
fn few_descriptors(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    Cluster::of(lab.hosts()).install_all(lab.hosts())?;
    let words = ["descriptor limit 32 is too small for 2 addresses", "LimitNOFILE"];
    host_line(&a, &format!("ulimit -n 32; timeout 30 {HOSTSEAL} enable"), 1, &words)?;
    ensure!(ours(&a)?.is_empty(), "{:?}", ours(&a)?);
    // A soft limit is raised.
    let soft = format!("ulimit -S -n 32; exec {HOSTSEAL} enable");
    let soft = a.spawn(Command::new("sh").args(["-c", &soft]).stdout(Stdio::null()).stderr(Stdio::null()))?;
    hostseal(&b, "enable")?.expect_code(0)?;
    drop(soft);
    for host in [&a, &b] {
        super::await_protected(host)?;
    }
    // So few that none is left, and more is asked for all the time: what matters is done all the same, and the log is
    // not filled.
    let pid = status(&a)?.agent()?;
    let open = a.run(&format!("ls /proc/{pid}/fd | wc -l"))?;
    let lines = || Ok::<_, anyhow::Error>(a.read(&format!("{RUN}/agent.log"))?.lines().count());
    let before = lines()?;
    a.run(&format!("prlimit --pid {pid} --nofile={}", open.trim()))?;
    let silent = a.within(|| {
        (0..40).map(|_| UnixStream::connect(format!("{RUN}/hostseal.sock"))).collect::<io::Result<Vec<_>>>()
    })??;
    let written = a.run(WRITTEN)?;
    a.run("ip xfrm state flush")?;
    status_until(
        &b,
        "new keys without a descriptor to spare",
        Duration::from_secs(60),
        Status::all_protected,
    )?;
    until("the state is written without a descriptor to spare", Duration::from_secs(60), || {
        ensure!(a.run(WRITTEN)? != written, "not since {written}");
        Ok::<_, anyhow::Error>(())
    })?;
    let (begun, before_pings) = (Instant::now(), ticks(pid)?);
    a.run(&format!("ping -n -q -c 30 -i 0.1 {}", b.v4()))?;
    // An agent that never rests takes all of the time.
    let (worked, all) = (ticks(pid)? - before_pings, begun.elapsed().as_millis() / 10);
    ensure!(u128::from(worked) < all / 4, "{worked} of {all} hundredths of a second at work");
    println!("{worked} of {all} hundredths of a second at work without a descriptor to spare");
    drop(silent);
    // It says what it lacks, and goes on once it has it.
    until("an answer", Duration::from_secs(30), || {
        let said = hostseal(&a, "status")?;
        ensure!(said.code == 0 || said.stderr.contains("Too many open files"), "{said:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    a.run(&format!("prlimit --pid {pid} --nofile=1024"))?;
    hostseal(&a, "status")?.expect_code(0)?;
    ensure!(lines()? - before < 20, "{}", a.read(&format!("{RUN}/agent.log"))?);
    ensure_pings(&a, &b, 3)
}

/// What `/proc` says of a process that has given up what it does not need.
fn ensure_confined(pid: Pid, powers: &str) -> Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    for set in ["CapBnd:", "CapEff:", "CapPrm:"] {
        ensure!(field(set) == Some(powers), "{set} {status}");
    }
    for set in ["CapInh:", "CapAmb:"] {
        ensure!(field(set) == Some("0000000000000000"), "{set} {status}");
    }
    ensure!(field("NoNewPrivs:") == Some("1") && field("Seccomp:") == Some("2"), "{status}");
    Ok(())
}

/// Wherever it was started: CAP_NET_ADMIN and CAP_NET_BIND_SERVICE are left to an agent, and nothing to what keeps
/// its sockets.
fn powers_are_given_up(lab: &mut Lab) -> Result<()> {
    let cluster = Cluster::of(lab.hosts()).with("esp", "encapsulation = \"always\"");
    super::seal_all(&cluster, lab.hosts())?;
    for host in lab.hosts() {
        let agent = status(host)?.agent()?;
        ensure_confined(agent, "0000000000001400")?;
        let keepers = host.processes()?.into_iter().filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.trim() == "hostseal-keeper")
        });
        let keepers: Vec<Pid> = keepers.collect();
        ensure!(keepers.len() == 1, "{keepers:?}");
        ensure_confined(keepers[0], "0000000000000000")?;
        let log = host.read(&format!("{RUN}/agent.log"))?;
        ensure!(log.matches("Landlock").count() <= 1, "{log}");
    }
    Ok(())
}

/// In this build, a system call that is not in the list ends the agent.
fn a_whole_life_of_known_system_calls(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    for host in [&a, &b] {
        host.run(&format!("mount --bind {MORTAL} {HOSTSEAL}"))?;
    }
    let cluster =
        |line: &str| Cluster::of(lab.hosts()).with("keying", "rekey_after = \"2s\"").with("esp", line);
    super::seal_all(&cluster(""), lab.hosts())?;
    let agents = [status(&a)?.agent()?, status(&b)?.agent()?];
    let capture = lab.capture(&a)?;
    until("new keys", Duration::from_secs(30), || {
        let spis = super::spis_sent(&capture.so_far()?, b.v4().into());
        a.ping(&b, crate::lab::Family::V4, 1)?;
        ensure!(spis.len() > 1, "{spis:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    hostseal(&a, "plan")?.expect_code(0)?;
    a.write("/tmp/other.toml", &a.read(CONFIG)?, 0o644)?;
    hostseal(&a, "plan --with /tmp/other.toml")?.expect_code(0)?;
    for host in [&a, &b] {
        cluster("encapsulation = \"always\"").install(host, SECRETS[0])?;
        hostseal(host, "reload")?.expect_code(0)?;
        host.run("ip address add 10.99.9.9/32 dev eth0 && ip address del 10.99.9.9/32 dev eth0")?;
        host.run("ip xfrm state flush")?;
    }
    until("protected in UDP", Duration::from_secs(30), || {
        let status = status(&a)?;
        let row = status.peer(b.v4().into())?;
        ensure!(status.all_protected() && row.at("/encapsulation") == "udp", "{:#}", row.0);
        Ok::<_, anyhow::Error>(())
    })?;
    ensure!(agents == [status(&a)?.agent()?, status(&b)?.agent()?], "an agent died");
    for host in [&a, &b] {
        hostseal(host, "disable")?.expect_code(0)?;
        until("the agent ends", Duration::from_secs(10), || ensure_gone(host))?;
    }
    Ok(())
}

/// Whoever can write what root's agent believes would be root.
fn files_that_others_may_write(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    a.run(&format!("chmod g+w {CONFIG} && touch {CONFIG}"))?;
    host_line(&a, &format!("{HOSTSEAL} reload"), 2, &[CONFIG, "others may write it", "chmod go-w"])?;
    let seen = status(&a)?;
    ensure!(seen.all_protected() && seen.at("/config_error").is_string(), "{:#}", seen.0);
    a.run(&format!("chmod g-w {CONFIG}"))?;
    hostseal(&a, "reload")?.expect_code(0)?;
    hostseal(&a, "disable --force")?.expect_code(0)?;
    for (spoil, mend, what) in [
        ("chown 1000 {}", "chown root {}", "/var/lib/hostseal"),
        ("chmod 1777 {}", "chmod 755 {}", RUN),
        ("chmod o+w {}", "chmod o-w {}", CONFIG),
    ] {
        a.run(&spoil.replace("{}", what))?;
        host_line(&a, &format!("timeout 20 {HOSTSEAL} agent"), 2, &[what])?;
        a.run(&mend.replace("{}", what))?;
    }
    hostseal(&b, "disable --force")?.expect_code(0).map(drop)
}

/// Neither by the control socket nor by the names that belong to the network namespace.
fn ordinary_users_are_refused(lab: &mut Lab) -> Result<()> {
    let cluster = Cluster::of(lab.hosts()).with("esp", "encapsulation = \"always\"");
    super::seal_all(&cluster, lab.hosts())?;
    let [a, b] = lab.all();
    let user = "setpriv --reuid 1000 --regid 1000 --clear-groups";
    host_line(&a, &format!("{user} {HOSTSEAL} disable"), 5, &["run as root"])?;
    // Whoever connects is let go of: reading ends. An order to the process that keeps sockets is not obeyed.
    let script = "use Socket; $SIG{PIPE} = 'IGNORE'; for ('hostseal-agent', 'hostseal-keeper') { \
        socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die; \
        connect($s, pack('S a*', AF_UNIX, \"\\0$_\")) or die $!; syswrite($s, 'E'); \
        sysread($s, my $answer, 10); die 'an answer' if $answer; }";
    a.output_of(Command::new("timeout").args(["30"]).args(user.split(' ')).args(["perl", "-e", script]))
        .and_then(|output| {
            ensure!(output.status.success(), "{output:?}");
            Ok(())
        })?;
    ensure!(ours(&a)?.len() == 2 && status(&a)?.all_protected(), "{:?}", ours(&a)?);
    ensure_pings(&a, &b, 3)
}
