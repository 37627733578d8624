//! A cluster that runs by files goes over to a roster, host by host and under traffic, and back: no packet is lost, and
//! none is in the clear.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};

use super::keys::key;
use super::members::{await_cluster, is_protected};
use super::{Traffic, await_protected, await_sealed, ensure_only_esp, seal_all};
use crate::lab::agent::{CONFIG, SECRET, hostseal, hostseal_all, status_until};
use crate::lab::members::token;
use crate::lab::{Capture, Cluster, Host, Lab};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("migrate::hosts_with_a_secret_become_a_cluster", 4, from_a_secret),
    Test::new("migrate::hosts_with_keys_become_a_cluster", 3, from_keys),
    Test::new("migrate::what_goes_wrong_leaves_a_host_as_it_was", 3, what_goes_wrong),
];

const LIMIT: Duration = Duration::from_secs(40);

/// Traffic between all of some hosts, of which all is to be ESP.
struct Watched {
    traffic: Traffic,
    captures: Vec<Capture>,
    since: SystemTime,
}

impl Watched {
    fn start(lab: &Lab) -> Result<Self> {
        let hosts = lab.hosts();
        let ways: Vec<(&Host, &Host)> =
            hosts.iter().zip(hosts.iter().cycle().skip(1)).flat_map(|(a, b)| [(a, b), (b, a)]).collect();
        let traffic = Traffic::of(&ways, &crate::lab::FAMILIES, 1000 / hosts.len() as u32)?;
        Ok(Self { traffic, captures: lab.capture_all()?, since: SystemTime::now() })
    }

    fn ensure_whole(self) -> Result<()> {
        self.traffic.ensure_complete()?;
        ensure_only_esp(self.captures, self.since)
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
    ensure!(founded.stdout.contains("b, c, d"), "{founded:?}");
    hosts.iter().try_for_each(await_protected)?;
    let status = hostseal(&hosts[0], "status --cluster")?;
    ensure!(status.stdout.contains("hostseal token create b"), "{status:?}");
    join_all(&hosts)?;
    await_cluster(&hosts[1], "all is protected", |status| {
        is_protected(status, 4) && status["desired"] == "on"
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
    await_cluster(&hosts[3], "all is protected", |status| is_protected(status, 4))?;
    let quiet = hostseal(&hosts[1], "status --cluster")?.expect_code(0)?.stdout;
    ensure!(!quiet.contains("secret"), "{quiet}");
    watched.ensure_whole()
}

/// Hosts with these files and keys of their own, protected.
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
