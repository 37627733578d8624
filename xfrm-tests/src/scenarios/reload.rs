//! Files that change under traffic: everything that stays protected loses nothing and shows nothing.
//!
//! The steps are separate functions, so that the transitions can be measured.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};

use super::{Traffic, await_one_pair, await_protected, await_sealed, ensure_only_esp, seal_all};
use crate::lab::agent::{
    CONFIG, SECRET, SECRETS, Status, hostseal, kill_agent, start_agent, status, status_until,
};
use crate::lab::{Cluster, Family, Host, Kind, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("reload::a_node_comes_and_goes", 3, a_node_comes_and_goes),
    Test::new("reload::other_keys_windows_and_lifetimes", 2, other_keys_windows_and_lifetimes),
    Test::new("reload::a_secret_is_rotated", 3, a_secret_is_rotated).within(300),
    Test::new("reload::exemptions_come_and_go", 2, exemptions_come_and_go),
    Test::new("reload::a_broken_file_changes_nothing", 2, a_broken_file_changes_nothing),
    Test::new("reload::what_needs_a_new_agent_is_refused", 2, what_needs_a_new_agent_is_refused),
];

/// How long an agent may take to hear of a changed file.
const HEARD: Duration = Duration::from_secs(5);
/// How long a transition may take.
const DONE: Duration = Duration::from_secs(20);
/// The secret before, as the configuration names it during a rotation.
const PREVIOUS: &str = "/etc/hostseal/secret.previous";

/// Replaces a host's configuration in place and waits until its agent has taken it.
pub fn give(cluster: &Cluster, host: &Host) -> Result<()> {
    host.write(CONFIG, &cluster.text(), 0o644)?;
    await_in_force(host)
}

/// The same for several hosts, one after the other.
pub fn give_all(cluster: &Cluster, hosts: &[Host]) -> Result<()> {
    hosts.iter().try_for_each(|host| give(cluster, host))
}

/// Waits until the agent of a host works by its file as it is now.
pub fn await_in_force(host: &Host) -> Result<()> {
    let checked = hostseal(host, "config check --json")?.expect_code(0)?.json()?;
    status_until(host, "the file is in force", HEARD, |status| {
        status.at("/config_id") == &checked["config_id"]
            && status.at("/secret_id") == &checked["secret_id"]
            && status.at("/config_error").is_null()
    })
    .map(drop)
}

/// Rotates the secret, host by host: first the new one with the one before beside it, then without.
pub fn rotate_secret(cluster: &Cluster, hosts: &[Host], new: &str) -> Result<()> {
    let both = cluster.clone().with("secret", &format!("previous_file = \"{PREVIOUS}\""));
    for host in hosts {
        host.write(PREVIOUS, &host.read(SECRET)?, 0o600)?;
        give(&both, host)?;
        host.write("/etc/hostseal/secret.new", &format!("{new}\n"), 0o600)?;
        host.run(&format!("mv /etc/hostseal/secret.new {SECRET}"))?;
        await_in_force(host)?;
    }
    for host in hosts {
        status_until(host, "every pair rests on the new secret", DONE, |status| {
            status.all_protected()
                && status.peers().iter().all(|row| row["secret_id"] == *status.at("/secret_id"))
        })?;
    }
    for host in hosts {
        give(cluster, host)?;
        host.run(&format!("rm {PREVIOUS}"))?;
    }
    Ok(())
}

/// The SPIs between two hosts, as one of them has them.
pub(super) fn spis(host: &Host, other: &Host) -> Result<Vec<String>> {
    let states = host.run("ip -o xfrm state")?;
    let other = other.v4().to_string();
    let of_pair = states.lines().filter(|line| line.contains(&format!("{other} ")));
    Ok(of_pair.filter_map(|line| line.split("spi ").nth(1)?.split(' ').next().map(str::to_owned)).collect())
}

fn v4(a: &Host, b: &Host) -> Result<Traffic> {
    Traffic::of(&[(a, b), (b, a)], &[Family::V4], 500)
}

fn a_node_comes_and_goes(lab: &mut Lab) -> Result<()> {
    let [a, b, c] = lab.all();
    let (few, all) = (Cluster::of_v4(&[a.clone(), b.clone()]), Cluster::of_v4(lab.hosts()));
    seal_all(&few, &[a.clone(), b.clone()])?;
    let (before, sealed) = (spis(&a, &b)?, SystemTime::now());
    let capture = lab.capture(&b)?;
    let (inside, outside) = (v4(&a, &b)?, Traffic::of(&[(&a, &c), (&c, &a)], &[Family::V4], 250)?);

    all.install(&c, SECRETS[0])?;
    hostseal(&c, "enable --no-wait")?.expect_code(0)?;
    a.write("/tmp/next.toml", &all.text(), 0o644)?;
    let planned = hostseal(&a, "plan --with /tmp/next.toml")?.expect_code(0)?.stdout;
    ensure!(planned.starts_with("node c comes (10.99.0.3)\n"), "{planned}");
    give_all(&all, &[b.clone(), a.clone()])?;
    for host in [&a, &b] {
        // The watch was first, and whoever asks hears of it once.
        let told = hostseal(host, "reload")?.expect_code(0)?.stdout;
        ensure!(told.starts_with("node c comes (10.99.0.3) (taken "), "{told}");
        ensure!(hostseal(host, "reload")?.stdout == "nothing has changed\n");
    }
    lab.hosts().iter().try_for_each(|host| await_protected(host).and_then(|()| await_sealed(host)))?;

    give_all(&few, &[a.clone(), b.clone()])?;
    for host in [&a, &b] {
        until("nothing is left of the pair", DONE, || {
            let left = spis(host, &c)?;
            ensure!(left.is_empty(), "{left:?}");
            Ok::<_, anyhow::Error>(())
        })?;
    }
    ensure!(spis(&a, &b)? == before, "the pair that stayed kept its SAs");
    inside.ensure_complete()?;
    outside.ensure_complete()?;
    let report = capture.stop()?.since(sealed);
    let ours = [a.v4(), b.v4()].map(std::net::IpAddr::from);
    report
        .filter(|packet| {
            packet.addresses.is_some_and(|(from, to)| ours.contains(&from) && ours.contains(&to))
        })
        .ensure_nothing_clear()
}

fn other_keys_windows_and_lifetimes(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let hosts = [a.clone(), b.clone()];
    seal_all(&Cluster::of_v4(&hosts), &hosts)?;
    let (captures, sealed, traffic) = (lab.capture_all()?, SystemTime::now(), v4(&a, &b)?);
    let changed = Cluster::of_v4(&hosts)
        .with("esp", "key_bits = 128")
        .with("esp", "replay_window = 1024")
        .with("keying", "expire_after = \"2h\"");
    give_all(&changed, &hosts)?;
    for host in &hosts {
        until("all SAs are as the file says", DONE, || {
            let states = host.run("ip -o -s xfrm state")?;
            let fits = |line: &str| line.contains("replay_window 1024") || !line.contains("dir in");
            ensure!(states.lines().all(fits), "{states}");
            let row = status(host)?.peers().first().cloned().context("no row")?;
            let sas = row["sas"].as_array().map(Vec::len);
            ensure!(row["key_bits"] == 128 && sas == Some(2), "{row:#}");
            let expires = row["sas"][0]["expires_in_s"].as_u64().unwrap_or_default();
            ensure!(expires <= 7200, "{row:#}");
            Ok::<_, anyhow::Error>(())
        })?;
    }
    traffic.ensure_complete()?;
    ensure_only_esp(captures, sealed)
}

fn a_secret_is_rotated(lab: &mut Lab) -> Result<()> {
    let [a, b, c] = lab.all();
    let cluster = Cluster::of_v4(lab.hosts());
    seal_all(&cluster, lab.hosts())?;
    let (captures, sealed) = (vec![lab.capture(&b)?], SystemTime::now());
    let traffic = Traffic::of(&[(&a, &b), (&b, &c), (&c, &a)], &[Family::V4], 300)?;
    let before = status(&a)?.at("/secret_id").clone();
    rotate_secret(&cluster, lab.hosts(), SECRETS[1])?;
    for (one, other) in [(&a, &b), (&b, &c), (&a, &c)] {
        await_one_pair(one, other, Family::V4, DONE)?;
    }
    for host in lab.hosts() {
        let status = status(host)?;
        ensure!(status.at("/secret_id") != &before && status.all_protected(), "{:#}", status.0);
        ensure!(status.at("/notes").as_array().is_some_and(Vec::is_empty), "{:#}", status.0);
    }
    traffic.ensure_complete()?;
    ensure_only_esp(captures, sealed)
}

/// Where a service is to stay in the clear: first accepted everywhere, then sent; and back the other way.
fn exemptions_come_and_go(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let hosts = [a.clone(), b.clone()];
    let plain = Cluster::of_v4(&hosts);
    let exempt = |entry: &str| plain.clone().with("protection", &format!("exempt = [\"{entry}\"]"));
    seal_all(&plain, &hosts)?;
    let traffic = v4(&a, &b)?;
    // The streams go to these ports.
    give_all(&exempt("in:udp/7000-7010"), &hosts)?;
    let accepted = lab.capture(&a)?;
    ensure!(a.ping(&b, Family::V4, 3)? == 3);
    accepted.stop()?.ensure_nothing_clear()?;
    give_all(&exempt("udp/7000-7010"), &hosts)?;
    let clear = lab.capture(&a)?;
    until("the streams are in the clear", HEARD, || {
        let seen = clear.so_far()?.count(Kind::Clear);
        ensure!(seen > 100, "{seen} clear packets");
        Ok::<_, anyhow::Error>(())
    })?;
    clear.stop()?;
    give_all(&exempt("in:udp/7000-7010"), &hosts)?;
    give_all(&plain, &hosts)?;
    let after = lab.capture(&a)?;
    ensure!(a.ping(&b, Family::V4, 3)? == 3);
    after.stop()?.ensure_nothing_clear()?;
    traffic.ensure_complete()
}

fn a_broken_file_changes_nothing(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let hosts = [a.clone(), b.clone()];
    let cluster = Cluster::of_v4(&hosts);
    seal_all(&cluster, &hosts)?;
    let (before, captures, sealed, traffic) =
        (spis(&a, &b)?, lab.capture_all()?, SystemTime::now(), v4(&a, &b)?);
    let broken = |status: &Status| {
        status.at("/config_error").as_str().is_some_and(|words| words.contains("hostseal.toml:2:1"))
    };

    // Written in place: the agent hears of it when the writer is done, and says where it is wrong.
    a.write(CONFIG, "cluster = \"lab\"\nnonsense = 1\n", 0o644)?;
    status_until(&a, "the broken file is named", HEARD, broken)?;
    ensure!(hostseal(&a, "status")?.code == 3);
    let refused = hostseal(&a, "reload")?.expect_code(2)?;
    ensure!(refused.stderr.contains("hostseal.toml:2:1"), "{}", refused.stderr);
    let shown = hostseal(&a, "status")?;
    ensure!(shown.stdout.contains("hostseal.toml:2:1"), "{}", shown.stdout);
    hostseal(&a, "config check")?.expect_code(2)?;

    // An agent that starts with it goes on with the last good one, and says so.
    kill_agent(&a)?;
    let _agent = start_agent(&a)?;
    let found = status_until(&a, "protected by the last good file", DONE, |status| status.all_protected())?;
    ensure!(broken(&found), "{:#}", found.0);

    // Half a file is not looked at until its writer has closed it.
    let writing = a.spawn(std::process::Command::new("sh").args(["-c", &format!(
        "exec 3>{CONFIG}; printf 'cluster = \"l' >&3; touch /run/half; while [ -e /run/half ]; do sleep 0.02; done; \
         cat /run/rest >&3"
    )]))?;
    let text = cluster.text();
    a.write("/run/rest", text.strip_prefix("cluster = \"l").context("it begins so")?, 0o644)?;
    until("half of it is written", HEARD, || match a.succeeds("[ -e /run/half ]")? {
        true => Ok(()),
        false => Err(anyhow::anyhow!("not yet")),
    })?;
    a.run("rm /run/half")?;
    until("the rest is written", HEARD, || match a.read(CONFIG)? == text {
        true => Ok(()),
        false => Err(anyhow::anyhow!("not yet")),
    })?;
    await_in_force(&a)?;
    drop(writing);
    ensure!(hostseal(&a, "reload")?.expect_code(0)?.stdout.contains("nothing has changed"));
    kill(status(&a)?.agent()?, Signal::SIGHUP)?;
    status_until(&a, "well again", DONE, Status::all_protected)?;
    hostseal(&a, "status")?.expect_code(0)?;
    ensure!(spis(&a, &b)? != before, "a new agent has agreed new keys");
    traffic.ensure_complete()?;
    ensure_only_esp(captures, sealed)
}

fn what_needs_a_new_agent_is_refused(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let hosts = [a.clone(), b.clone()];
    let cluster = Cluster::of_v4(&hosts);
    seal_all(&cluster, &hosts)?;
    let before = spis(&a, &b)?;
    let other = Cluster::of_v4(&hosts).with("keying", "port = 501");
    a.write(CONFIG, &other.text(), 0o644)?;
    let refused = hostseal(&a, "reload")?.expect_code(2)?;
    ensure!(refused.stderr.contains("keying.port is 501 and was 500"), "{}", refused.stderr);
    hostseal(&a, "status")?.expect_code(3)?;
    ensure!(spis(&a, &b)? == before);
    give(&cluster, &a)?;
    hostseal(&a, "status")?.expect_code(0)?;
    // Without an agent there is nobody to reload.
    kill_agent(&a)?;
    hostseal(&a, "reload")?.expect_code(4)?;
    Ok(())
}
