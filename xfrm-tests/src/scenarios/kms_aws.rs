//! The real helper for AWS, on hosts under traffic: the owner of the key disables it, deletes it, thinks better of it.

use std::time::SystemTime;

use anyhow::{Result, ensure};
use serde_json::json;

use super::kms::{LIMIT, WRAPPED, blocked, remembers, runner_of, talk};
use super::{await_protected, await_sealed};
use crate::lab::agent::{CONFIG, SECRET, SECRETS, hostseal, hostseal_all, status, status_until};
use crate::lab::aws::{Aws, HELPER};
use crate::lab::{Capture, Cluster, Family, Host, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] =
    &[Test::new("kms_aws::the_owner_of_a_key_cuts_all_hosts_and_has_them_back", 4, owner)
        .within(300)
        .with_aws()];

/// All hosts but the last, which is AWS.
fn members(lab: &Lab) -> (&[Host], &Host) {
    let (cloud, members) = lab.hosts().split_last().expect("there are four");
    (members, cloud)
}

/// Has the hosts wrap their secret with `key`, and enables them.
fn seal(hosts: &[Host], key: &str) -> Result<()> {
    let cluster = Cluster::of_v4(hosts).with("keying", "rekey_after = \"60s\"");
    let first = &hosts[0];
    cluster.install(first, SECRETS[0])?;
    let wrap = format!("secret wrap --provider exec --program {HELPER} --kms-key {key}");
    let lines = hostseal(first, &wrap)?.expect_code(0)?.stdout;
    let times = "check_every = \"5s\"\nmax_offline = \"3m\"\n";
    let plain = format!("[secret]\nfile = \"{SECRET}\"\n");
    let file = cluster.text().replace(&plain, &format!("{lines}{times}"));
    let blob = first.read(WRAPPED)?;
    first.run(&format!("rm {SECRET}"))?;
    for host in hosts {
        host.write(CONFIG, &file, 0o644)?;
        host.write(WRAPPED, &blob, 0o644)?;
    }
    for outcome in hostseal_all(hosts, "enable --timeout 60s")? {
        ensure!(matches!(outcome.code, 0 | 6), "{outcome:?}");
    }
    hosts.iter().try_for_each(await_protected)?;
    hosts.iter().try_for_each(await_sealed)
}

fn all_blocked(hosts: &[Host], code: &str) -> Result<()> {
    for host in hosts {
        for other in hosts.iter().filter(|other| other.name() != host.name()) {
            blocked(host, other, code)?;
        }
        until(&format!("no SA is left on {}", host.name()), LIMIT, || {
            let states = host.run("ip xfrm state")?;
            ensure!(states.is_empty(), "{states}");
            Ok::<_, anyhow::Error>(())
        })?;
        ensure!(!remembers(status(host)?.agent()?)?, "the secret is still in the memory of {}", host.name());
    }
    let gets_through = hosts[0].succeeds(&format!("ping -n -q -W 1 -c 2 {}", hosts[1].v4()))?;
    ensure!(!gets_through, "something gets through");
    Ok(())
}

fn all_back(hosts: &[Host]) -> Result<()> {
    let back = |host| status_until(host, "it is protected by itself", LIMIT, |status| status.all_protected());
    hosts.iter().try_for_each(|host| back(host).map(drop))
}

fn kms_says(host: &Host, state: &str) -> Result<()> {
    status_until(host, &format!("the key is {state}"), LIMIT, |status| status.at("/kms/state") == state)
        .map(drop)
}

fn owner(lab: &mut Lab) -> Result<()> {
    let (hosts, cloud) = members(lab);
    let mut aws = Aws::start(cloud)?;
    let key = aws.key()?;
    let this_key = json!({ "KeyId": key });
    let run = |host: &Host| runner_of(host, HELPER, &aws.environment(host)?);
    let _runners = hosts.iter().map(run).collect::<Result<Vec<_>>>()?;
    seal(hosts, &key)?;
    ensure!(remembers(status(&hosts[0])?.agent()?)?, "an agent knows its secret");
    let sealed = SystemTime::now();
    let captures = hosts.iter().map(|host| lab.capture(host)).collect::<Result<Vec<Capture>>>()?;
    let _talk = [talk(&hosts[0], &hosts[1])?, talk(&hosts[1], &hosts[2])?, talk(&hosts[2], &hosts[0])?];

    aws.ask("DisableKey", &this_key)?;
    all_blocked(hosts, "key_revoked")?;
    aws.ask("EnableKey", &this_key)?;
    all_back(hosts)?;

    aws.ask("ScheduleKeyDeletion", &json!({ "KeyId": key, "PendingWindowInDays": 7 }))?;
    all_blocked(hosts, "key_pending_deletion")?;
    ensure!(status(&hosts[0])?.at("/kms/deletion_date").is_string(), "AWS says when");
    aws.ask("CancelKeyDeletion", &this_key)?;
    // AWS leaves it disabled.
    kms_says(&hosts[0], "disabled")?;
    aws.ask("EnableKey", &this_key)?;
    all_back(hosts)?;

    aws.stop();
    kms_says(&hosts[0], "unavailable")?;
    ensure!(status(&hosts[0])?.at("/kms/cut") == false && hosts[0].ping(&hosts[1], Family::V4, 2)? > 0);
    for capture in captures {
        let to_aws = |at: &std::net::IpAddr| *at == cloud.v4();
        let report = capture.stop()?.since(sealed);
        report
            .filter(|packet| packet.addresses.is_none_or(|(from, to)| !to_aws(&from) && !to_aws(&to)))
            .ensure_nothing_clear()?;
    }
    Ok(())
}
