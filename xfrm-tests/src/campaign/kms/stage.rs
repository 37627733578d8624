//! Five hosts whose secret a key at AWS wraps, and all that is measured of them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use nix::unistd::Pid;
use serde_json::json;

use crate::lab::agent::{CONFIG, SECRET, hostseal, kill_agent, start_agent, status, status_until};
use crate::lab::aws::{Aws, HELPER};
use crate::lab::front::{Front, FrontWord};
use crate::lab::{Capture, Cluster, HOSTSEAL, Host, Kind, Lab, Process, until};
use crate::scenarios::kms::{WRAPPED, plain_files, remembers, runner_of};
use crate::scenarios::seal_all;

/// How many hosts there are beside the one that is AWS.
const MEMBERS: usize = 5;
/// Where helpers with the rights of the administrator are run, on the first host.
const ADMIN: &str = "/run/kms-admin.sock";
/// How long anything may take that is not measured, on a kernel that is slow.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);
/// How often the key is used, and how long hosts go on without it.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(10);
pub(super) const MAX_OFFLINE: Duration = Duration::from_secs(100);
/// How old keys get.
pub(super) const REKEY_AFTER: Duration = Duration::from_secs(45);
/// What hosts may do with keys.
const RIGHTS: &[&str] = &["kms:Decrypt", "kms:DescribeKey"];

/// The hosts, the key, and who has it.
pub(super) struct Stage {
    lab: Lab,
    pub(super) aws: Aws,
    pub(super) front: Front,
    key: String,
    users: Vec<[String; 2]>,
    runners: Vec<Process>,
    agents: Vec<Process>,
    talks: Vec<Process>,
}

impl Stage {
    /// Hosts under traffic whose secret lies in a file yet.
    pub(super) fn new() -> Result<Self> {
        let lab = Lab::new(MEMBERS + 1)?;
        let (members, cloud) = (&lab.hosts()[..MEMBERS], &lab.hosts()[MEMBERS]);
        let aws = Aws::start(cloud)?;
        let (key, front) = (aws.key()?, aws.front()?);
        let users = members.iter().map(|host| {
            let user = aws.user(host.name())?;
            aws.allow(host.name(), RIGHTS)?;
            Ok(user)
        });
        let users = users.collect::<Result<Vec<_>>>()?;
        let (runners, agents, talks) = (Vec::new(), Vec::new(), Vec::new());
        let mut stage = Self { lab, aws, front, key, users, runners, agents, talks };
        let hosts = stage.members().to_vec();
        stage.runners = hosts.iter().map(|host| stage.runner(host)).collect::<Result<Vec<_>>>()?;
        seal_all(&stage.cluster(), &hosts)?;
        stage.talk()?;
        Ok(stage)
    }

    /// The hosts whose key it is.
    pub(super) fn members(&self) -> &[Host] {
        &self.lab.hosts()[..MEMBERS]
    }

    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The host that is AWS.
    pub(super) fn cloud(&self) -> &Host {
        &self.lab.hosts()[MEMBERS]
    }

    fn cluster(&self) -> Cluster {
        let rekey_after = format!("rekey_after = \"{}s\"", REKEY_AFTER.as_secs());
        Cluster::of_v4(self.members()).with("keying", &rekey_after)
    }

    /// Runs helpers on a host, with its rights.
    fn runner(&self, host: &Host) -> Result<Process> {
        let user = self.users[usize::from(host.number()) - 1].clone();
        runner_of(host, HELPER, &self.aws.environment_of(host, self.front.address(), user)?)
    }

    /// Has each host talk to each other one.
    fn talk(&mut self) -> Result<()> {
        self.talks.clear();
        let hosts = self.members().to_vec();
        for (at, from) in hosts.iter().enumerate() {
            for to in &hosts[at + 1..] {
                let mut ping = Command::new("ping");
                ping.args(["-n", "-q", "-i", "0.2", &to.v4().to_string()]).stdout(Stdio::null());
                self.talks.push(from.spawn(&mut ping)?);
            }
        }
        Ok(())
    }

    /// Has the owner do something with the key in use.
    pub(super) fn owner(&self, operation: &str) -> Result<()> {
        let mut what = json!({ "KeyId": self.key });
        if operation == "ScheduleKeyDeletion" {
            what["PendingWindowInDays"] = 7.into();
        }
        self.aws.ask(operation, &what).map(drop)
    }

    /// Gives the users of these hosts their rights, or takes away the one to decrypt.
    pub(super) fn allow(&self, hosts: &[Host], gives: bool) -> Result<()> {
        let rights = if gives { RIGHTS } else { &RIGHTS[1..] };
        hosts.iter().try_for_each(|host| self.aws.allow(host.name(), rights))
    }

    /// Whatever was taken away is given back.
    pub(super) fn give_all(&self) -> Result<()> {
        self.front.say(FrontWord::HandsOn);
        self.allow(self.members(), true)?;
        self.owner("EnableKey")
    }

    /// Has the secret wrapped with a key, while packets flow: the first time from its file, and then from what another key
    /// has wrapped, as ministack knows no ReEncrypt.
    pub(super) fn wrap(&mut self, key: String) -> Result<()> {
        let hosts = self.members().to_vec();
        let first = &hosts[0];
        let plain = first.succeeds(&format!("test -e {SECRET}"))?;
        let admin = ["test"; 2].map(str::to_owned);
        let environment = self.aws.environment_of(first, self.front.address(), admin)?;
        let mut runner = Command::new(HOSTSEAL);
        runner.args(["kms-runner", "--listen", ADMIN, "--user", "nobody", "--program", HELPER]);
        let _runner = first.spawn(runner.envs(environment))?;
        until("the administrator's helpers are run", PATIENCE, || first.run(&format!("test -S {ADMIN}")))?;
        let wrap = format!(
            "secret wrap --provider exec --program {HELPER} --kms-key {key} --socket {ADMIN} --out {WRAPPED}-{}",
            key.rsplit('/').next().unwrap_or_default()
        );
        let mut lines = hostseal(first, &wrap)?.expect_code(0)?.stdout;
        first.run(&format!("rm {ADMIN}"))?;
        if !lines.contains("check_every") {
            let (check, offline) = (CHECK_EVERY.as_secs(), MAX_OFFLINE.as_secs());
            lines += &format!("check_every = \"{check}s\"\nmax_offline = \"{offline}s\"\n");
        }
        let file = self.cluster().text().replace(&format!("[secret]\nfile = \"{SECRET}\"\n"), &lines);
        let wrapped = format!("{WRAPPED}-{}", key.rsplit('/').next().unwrap_or_default());
        ensure!(file.contains(&wrapped), "{file}");
        let blob = first.read(&wrapped)?;
        for host in &hosts {
            host.write(&wrapped, &blob, 0o644)?;
            host.write(CONFIG, &file, 0o644)?;
        }
        for host in &hosts {
            status_until(host, "the new key was used", PATIENCE, |status| {
                status.at("/kms/state") == "valid" && status.at("/kms/key") == key.as_str()
            })?;
            if plain {
                host.run(&format!("rm {SECRET}"))?;
            }
        }
        self.key = key;
        self.await_protected()
    }

    /// Waits until all hosts are protected.
    pub(super) fn await_protected(&self) -> Result<()> {
        self.members().iter().try_for_each(|host| {
            status_until(host, "all is protected", PATIENCE, |status| status.all_protected()).map(drop)
        })
    }

    /// Waits until the kernels of these hosts hold no SA.
    pub(super) fn await_no_sa(&self, hosts: &[Host]) -> Result<()> {
        let mut left = hosts.to_vec();
        until("no SA is left", PATIENCE, || {
            let mut states = String::new();
            for host in std::mem::take(&mut left) {
                let state = host.run("ip xfrm state")?;
                if !state.is_empty() {
                    states = format!("on {}: {state}", host.name());
                    left.push(host);
                }
            }
            ensure!(left.is_empty(), "{states}");
            Ok(())
        })
    }

    /// Waits until all rows of these hosts are blocked for this reason.
    pub(super) fn await_blocked(&self, hosts: &[Host], code: &str) -> Result<()> {
        hosts.iter().try_for_each(|host| {
            status_until(host, &format!("all is blocked: {code}"), PATIENCE, |status| {
                let rows = status.peers();
                rows.len() == MEMBERS - 1
                    && rows.iter().all(|row| row["state"] == "blocked" && row["reason_code"] == code)
            })
            .map(drop)
        })
    }

    /// Waits until all hosts say so of their key.
    pub(super) fn await_key(&self, states: &[&str]) -> Result<()> {
        self.members().iter().try_for_each(|host| {
            status_until(host, &format!("the key is {states:?}"), PATIENCE, |status| {
                states.iter().any(|state| status.at("/kms/state") == *state)
            })
            .map(drop)
        })
    }

    /// The agents of all hosts.
    pub(super) fn agents(&self) -> Result<Vec<Pid>> {
        self.members().iter().map(|host| status(host)?.agent()).collect()
    }

    /// On how many hosts the agent has the secret in its memory; whose agent is dead has none.
    pub(super) fn remember(&self) -> Result<usize> {
        let remember = self.members().iter().map(|host| match status(host)?.agent() {
            Ok(agent) => remembers(agent).map(usize::from),
            Err(_) => Ok(0),
        });
        Ok(remember.collect::<Result<Vec<_>>>()?.into_iter().sum())
    }

    /// On how many hosts the secret lies in the clear.
    pub(super) fn plain(&self) -> Result<usize> {
        let plain = self.members().iter().map(|host| Ok(usize::from(!plain_files(host)?.is_empty())));
        Ok(plain.collect::<Result<Vec<_>>>()?.into_iter().sum())
    }

    /// Whether anything gets from one host to another.
    pub(super) fn gets_through(&self, from: &Host, to: &Host) -> Result<bool> {
        from.succeeds(&format!("ping -n -q -W 1 -c 2 {}", to.v4()))
    }

    pub(super) fn captures(&self) -> Result<Vec<Capture>> {
        self.members().iter().map(|host| self.lab.capture(host)).collect()
    }

    /// How many packets between the hosts were clear since then.
    pub(super) fn clear(&self, captures: Vec<Capture>, since: SystemTime) -> Result<usize> {
        let cloud = self.cloud().v4();
        let of_cloud = |packet: &crate::lab::Packet| {
            packet.addresses.is_some_and(|(from, to)| from == cloud || to == cloud)
        };
        let clear = captures.into_iter().map(|capture| {
            let report = capture.stop()?.since(since);
            Ok(report.filter(|packet| packet.kind == Kind::Clear && !of_cloud(packet)).packets.len())
        });
        Ok(clear.collect::<Result<Vec<_>>>()?.into_iter().sum())
    }

    /// Kills all agents.
    pub(super) fn kill_agents(&mut self) -> Result<()> {
        self.members().iter().try_for_each(kill_agent)?;
        self.agents.clear();
        Ok(())
    }

    /// Starts an agent on each host that has none.
    pub(super) fn start_agents(&mut self) -> Result<()> {
        for host in self.members().to_vec() {
            if status(&host)?.agent().is_err() {
                self.agents.push(start_agent(&host)?);
            }
        }
        Ok(())
    }

    /// Cuts the power of the first host, and starts it as far as the network.
    pub(super) fn reboot_first(&mut self) -> Result<Host> {
        self.talks.clear();
        let first = self.members()[0].clone();
        let first = self.lab.reboot(&first)?;
        hostseal(&first, "guard")?.expect_code(0)?;
        Ok(first)
    }

    /// Has the first host do what it does after a boot.
    pub(super) fn go_on(&mut self, first: &Host) -> Result<()> {
        first.network_up()?;
        self.runners[0] = self.runner(first)?;
        self.start_agents()?;
        self.talk()
    }

    /// What the largest process of that name holds in memory, on whichever host, in kB.
    pub(super) fn most_memory(&self, name: &str) -> Result<u64> {
        let sizes = self.cloud().run(&format!("ps -C {name} -o rss= || true"))?;
        Ok(sizes.lines().filter_map(|line| line.trim().parse().ok()).max().unwrap_or(0))
    }
}

/// How long something takes.
pub(super) fn timed(action: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    action()?;
    Ok(begun.elapsed())
}
