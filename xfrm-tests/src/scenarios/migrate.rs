//! A cluster that runs by files goes over to a roster, host by host and under traffic, and back: no packet is lost, and
//! none is in the clear.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};

use super::keys::key;
use super::members::{await_cluster, is_protected};
use super::{Traffic, await_protected, await_sealed, ensure_only_esp, every_way, seal_all};
use crate::lab::agent::{CONFIG, SECRET, hostseal, hostseal_all, kill_agent, status_until};
use crate::lab::members::token;
use crate::lab::{Capture, Cluster, Family, Host, Lab};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("migrate::hosts_with_a_secret_become_a_cluster_and_go_back", 3, from_a_secret),
    Test::new("migrate::hosts_with_keys_become_a_cluster_and_go_back", 3, from_keys),
    Test::new("migrate::what_goes_wrong_leaves_a_host_as_it_was", 3, what_goes_wrong),
];

const LIMIT: Duration = Duration::from_secs(40);

/// Traffic between all of some hosts, of which all is to be ESP.
struct Watched {
    traffic: Vec<Traffic>,
    captures: Vec<Capture>,
    since: SystemTime,
}

impl Watched {
    /// A thousand packets a second from the first host to the second, and some on each other way.
    fn start(lab: &Lab) -> Result<Self> {
        let ways = every_way(lab.hosts());
        let (busy, others) = ways.split_at(1);
        let traffic = vec![
            Traffic::of(busy, &[Family::V4], 1000)?,
            Traffic::of(others, &[Family::V4], 40)?,
            Traffic::of(&ways, &[Family::V6], 40)?,
        ];
        Ok(Self { traffic, captures: lab.capture_all()?, since: SystemTime::now() })
    }

    fn ensure_whole(self) -> Result<()> {
        let Self { traffic, captures, since } = self;
        traffic.into_iter().try_for_each(Traffic::ensure_complete)?;
        ensure_only_esp(captures, since)
    }
}

/// The rest of the hosts join, the last one first; all are protected in between.
fn join_all(hosts: &[Host]) -> Result<()> {
    let [first, others @ ..] = hosts else { return Ok(()) };
    for host in others.iter().rev() {
        let token = token(first, host.name())?;
        let joined = hostseal(host, &format!("join {token}"))?.expect_code(0)?;
        ensure!(joined.stdout.contains(&format!("{CONFIG}.former")), "{joined:?}");
        hosts.iter().try_for_each(await_protected)?;
    }
    Ok(())
}

/// Waits until the keys of all pairs rest on the keys of the hosts, and on no secret.
fn await_keys_alone(hosts: &[Host]) -> Result<()> {
    for host in hosts {
        status_until(host, "no pair rests on the secret", LIMIT, |status| {
            status.at("/secret_id").is_null() && status.peers().iter().all(|row| row["secret_id"].is_null())
        })?;
        status_until(host, "each has proven itself as it must", LIMIT, |status| {
            status.at("/notes").as_array().is_none_or(Vec::is_empty)
        })?;
    }
    Ok(())
}

fn from_a_secret(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts().to_vec();
    seal_all(&Cluster::of(&hosts).with("esp", "replay_window = 2048"), &hosts)?;
    let watched = Watched::start(lab)?;
    let founded = hostseal(&hosts[0], "init prod --from-file")?.expect_code(0)?;
    ensure!(founded.stdout.contains("b, c"), "{founded:?}");
    hosts.iter().try_for_each(await_protected)?;
    let status = hostseal(&hosts[0], "status --cluster")?;
    ensure!(status.stdout.contains("hostseal token create b"), "{status:?}");
    join_all(&hosts)?;
    await_cluster(&hosts[1], "all is protected", |status| {
        is_protected(status, 3) && status["desired"] == "on"
    })?;
    await_keys_alone(&hosts)?;
    let settings = hostseal(&hosts[2], "settings")?.expect_code(0)?.stdout;
    ensure!(settings.contains("replay_window = 2048"), "{settings}");
    // The secret is of no use any more, and they say so until it is gone.
    let idle = hostseal(&hosts[1], "status --cluster")?.expect_code(0)?.stdout;
    ensure!(idle.contains("the secret is not needed any more"), "{idle}");
    for host in &hosts {
        host.write(CONFIG, "", 0o644)?;
        host.run(&format!("rm {SECRET}"))?;
    }
    for outcome in hostseal_all(&hosts, "reload")? {
        outcome.expect_code(0)?;
    }
    await_cluster(&hosts[2], "all is protected", |status| is_protected(status, 3))?;
    let quiet = hostseal(&hosts[1], "status --cluster")?.expect_code(0)?.stdout;
    ensure!(!quiet.contains("secret"), "{quiet}");
    go_back(&hosts)?;
    watched.ensure_whole()
}

/// Each host runs by the same file again, one after the other; all are protected in between.
fn go_back(hosts: &[Host]) -> Result<()> {
    const FILE: &str = "/root/hostseal.toml";
    let exported = hostseal(&hosts[0], "settings --export")?.expect_code(0)?.stdout;
    let same = hostseal(&hosts[1], "settings --export")?.expect_code(0)?.stdout;
    ensure!(exported == same, "{exported}\n{same}");
    for host in hosts {
        host.write(FILE, &exported, 0o600)?;
        hostseal(host, &format!("leave --to-file {FILE}"))?.expect_code(0)?;
        ensure!(host.read("/var/lib/hostseal/cluster/roster").is_err(), "it is no member any more");
        hosts.iter().try_for_each(await_protected)?;
    }
    let outcome = hostseal(&hosts[0], "status --cluster")?;
    ensure!(outcome.code != 0 && outcome.stderr.contains("belongs to no cluster"), "{outcome:?}");
    for host in hosts {
        // They have one configuration, and agree keys by it.
        status_until(host, "nothing is wrong", LIMIT, |status| {
            status.at("/problems").as_array().is_none_or(Vec::is_empty)
                && status.at("/notes").as_array().is_none_or(Vec::is_empty)
        })?;
        kill_agent(host)?;
        hostseal(host, "enable --timeout 40s")?.expect_code(0)?;
    }
    Ok(())
}

/// Hosts with these files and their own keys, protected.
fn with_keys(lab: &Lab) -> Result<()> {
    let hosts = lab.hosts();
    let mut cluster = Cluster::of(hosts).with("auth", "method = \"public_key\"");
    for host in hosts {
        cluster = cluster.with_node(host, &key(host, "ed25519")?);
    }
    seal_all(&cluster, hosts)
}

fn from_keys(lab: &mut Lab) -> Result<()> {
    with_keys(lab)?;
    let hosts = lab.hosts().to_vec();
    let watched = Watched::start(lab)?;
    hostseal(&hosts[0], "init prod --from-file")?.expect_code(0)?;
    join_all(&hosts)?;
    await_cluster(&hosts[1], "all is protected", |status| is_protected(status, 3))?;
    go_back(&hosts)?;
    watched.ensure_whole()
}

fn what_goes_wrong(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts().to_vec();
    let [a, b, c] = lab.all();
    seal_all(&Cluster::of(&hosts).by("derived"), &hosts)?;
    let refused = hostseal(&a, "init prod --from-file")?;
    ensure!(refused.code == 1 && refused.stderr.contains("keying.method"), "{refused:?}");
    seal_all(&Cluster::of(&hosts).by("ike").with("keying", "accept = [\"ike\", \"derived\"]"), &hosts)?;
    seal_all(&Cluster::of(&hosts).by("ike"), &hosts)?;
    let before = a.read(CONFIG)?;
    let watched = Watched::start(lab)?;
    let refused = hostseal(&a, "init prod")?;
    ensure!(refused.code == 1 && refused.stderr.contains("--from-file"), "{refused:?}");
    hostseal(&a, "init prod --from-file")?.expect_code(0)?;
    let of_b = token(&a, b.name())?;
    for (token, words) in [(of_b, "this host is c in its file"), ("hostseal1_nonsense".to_owned(), "token")] {
        let refused = hostseal(&c, &format!("join {token}"))?;
        ensure!(refused.code != 0 && refused.stderr.contains(words), "{refused:?}");
    }
    // A token that is over is found out by a member, with the agent of the host ended: it goes on as before.
    let over = token(&a, &format!("{} --ttl 1s", c.name()))?;
    std::thread::sleep(Duration::from_secs(4));
    let refused = hostseal(&c, &format!("join {over}"))?.expect_code(1)?;
    ensure!(refused.stderr.contains("expired"), "{refused:?}");
    status_until(&c, "its agent runs", LIMIT, |status| status.at("/agent/answering") == true)?;
    ensure!(
        c.read(CONFIG)? == before && c.read(&format!("{CONFIG}.former")).is_err(),
        "its file is as it was"
    );
    hosts.iter().try_for_each(await_protected)?;
    hosts.iter().try_for_each(await_sealed)?;
    join_all(&hosts)?;
    await_cluster(&b, "all is protected", |status| is_protected(status, 3))?;
    watched.ensure_whole()
}
