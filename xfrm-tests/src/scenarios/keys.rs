//! Hosts that prove themselves with their own keys, to each other and to stock strongSwan.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};

use super::reload::{give, spis};
use super::{Traffic, await_one_pair, await_protected, await_sealed, ensure_only_esp, ensure_pings};
use crate::lab::agent::{CONFIG, SECRET, SECRETS, hostseal, hostseal_all, status_until};
use crate::lab::{Cluster, Connection, Family, Host, Lab, Peer as _, Proof, Swan, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("keys::three_hosts_without_a_secret", 3, three_hosts_without_a_secret),
    Test::new("keys::a_member_cannot_pass_for_another", 3, a_member_cannot_pass_for_another),
    Test::new("keys::a_key_is_replaced_and_withdrawn", 2, a_key_is_replaced_and_withdrawn),
    Test::new("keys::strongswan_answers_with_ed25519", 2, |lab| strongswan(lab, "ed25519", false)),
    Test::new("keys::strongswan_initiates_with_ed25519", 2, |lab| strongswan(lab, "ed25519", true)),
    Test::new("keys::strongswan_answers_with_ecdsa", 2, |lab| strongswan(lab, "ecdsa-p256", false)),
    Test::new("keys::strongswan_initiates_with_ecdsa", 2, |lab| strongswan(lab, "ecdsa-p256", true)),
];

/// How long what is waited for may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Where a host's own key lies by itself.
pub(crate) const KEY: &str = "/etc/hostseal/key";

/// Makes a key on a host and returns the line by which others know it.
pub(crate) fn key(host: &Host, kind: &str) -> Result<String> {
    Ok(hostseal(host, &format!("key generate --type {kind}"))?.expect_code(0)?.stdout)
}

/// The base64 in such a line.
pub(crate) fn base64(line: &str) -> Result<&str> {
    line.split('"').nth(1).with_context(|| format!("no key in {line}"))
}

fn three_hosts_without_a_secret(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts().to_vec();
    let mut cluster = Cluster::of(&hosts).with("auth", "method = \"public_key\"");
    for host in &hosts {
        cluster = cluster.with_node(host, &key(host, "ed25519")?);
    }
    for host in &hosts {
        host.write(CONFIG, &cluster.text(), 0o644)?;
        ensure!(host.read(SECRET).is_err(), "there is no secret");
    }
    for outcome in hostseal_all(&hosts, "enable --timeout 30s")? {
        outcome.expect_code(0)?;
    }
    hosts.iter().try_for_each(await_protected)?;
    let protected = SystemTime::now();
    let captures = lab.capture_all()?;
    ensure_pings(&hosts[0], &hosts[1], 3)?;
    ensure_pings(&hosts[2], &hosts[0], 3)?;
    ensure_pings(&hosts[1], &hosts[2], 3)?;
    ensure_only_esp(captures, protected)
}

/// b gets hold of c's whole identity but its key: its own key does not open c's door.
fn a_member_cannot_pass_for_another(lab: &mut Lab) -> Result<()> {
    let [a, b, c] = lab.all();
    let lines = [key(&a, "ed25519")?, key(&b, "ed25519")?, key(&c, "ed25519")?];
    let cluster = |of_c: &str| {
        let cluster = Cluster::of_v4(lab.hosts()).with("auth", "method = \"public_key\"");
        cluster.with_node(&a, &lines[0]).with_node(&b, &lines[1]).with_node(&c, of_c)
    };
    for host in [&a, &b] {
        host.write(CONFIG, &cluster(&lines[2]).text(), 0o644)?;
    }
    // The host at c's address has another key than the one that the others know.
    c.run(&format!("rm {KEY}"))?;
    let other = key(&c, "ed25519")?;
    c.write(CONFIG, &cluster(&other).text(), 0o644)?;
    let traffic = Traffic::of(&[(&a, &b), (&b, &a), (&a, &c), (&c, &a)], &[Family::V4], 100)?;
    for outcome in hostseal_all(lab.hosts(), "enable --timeout 3s")? {
        outcome.expect_code(3)?;
    }
    for host in [&a, &b] {
        status_until(host, "the row of c says why", Duration::from_secs(10), |status| {
            status.peer(c.v4().into()).is_ok_and(|row| {
                let reason = row.at("/reason").as_str().unwrap_or_default().to_owned();
                row.at("/reason_code") == "auth_failed"
                    && (reason.contains("the peer's key is not the one configured for node c")
                        || reason.contains("rejected our authentication"))
            })
        })?;
    }
    status_until(&a, "a and b are protected", Duration::from_secs(10), |status| {
        status.peer(b.v4().into()).is_ok_and(|row| row.at("/state") == "protected")
    })?;
    until("the cause is logged", LIMIT, || {
        let log = a.read("/run/hostseal/agent.log")? + &b.read("/run/hostseal/agent.log")?;
        ensure!(log.contains("the peer's key is not the one configured for node c"), "{log}");
        ensure!(!log.contains("PRIVATE"), "and no more than that");
        Ok::<_, anyhow::Error>(())
    })?;
    traffic.ensure_complete()
}

/// b gets another key, of another kind, under traffic. Then a is told to believe yet another one: what b has
/// proven serves until its time is over, and the pair is blocked and never in the clear.
fn a_key_is_replaced_and_withdrawn(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let line = key(&a, "ed25519")?;
    let cluster = |of_b: &str| {
        let cluster = Cluster::of_v4(lab.hosts()).with("auth", "method = \"public_key\"");
        cluster.with_node(&a, &line).with_node(&b, of_b)
    };
    let old = cluster(&key(&b, "ed25519")?);
    lab.hosts().iter().try_for_each(|host| host.write(CONFIG, &old.text(), 0o644))?;
    for outcome in hostseal_all(lab.hosts(), "enable --timeout 30s")? {
        outcome.expect_code(0)?;
    }
    lab.hosts().iter().try_for_each(await_sealed)?;
    let (before, sealed, captures) = (spis(&a, &b)?, SystemTime::now(), lab.capture_all()?);

    let traffic = Traffic::of(&[(&a, &b), (&b, &a)], &[Family::V4], 500)?;
    let replaced = hostseal(&b, "key generate --type ecdsa-p256 /etc/hostseal/key.new")?.expect_code(0)?;
    let replaced = cluster(&replaced.stdout);
    give(&replaced, &a)?;
    b.run(&format!("mv /etc/hostseal/key.new {KEY}"))?;
    give(&replaced, &b)?;
    until("the keys rest on the new one", LIMIT, || {
        let now = spis(&a, &b)?;
        ensure!(!now.is_empty() && now.iter().all(|spi| !before.contains(spi)), "{now:?}, were {before:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    traffic.ensure_complete()?;

    let other = hostseal(&b, "key generate /etc/hostseal/key.other")?.expect_code(0)?;
    give(&cluster(&other.stdout).with("keying", "rekey_after = \"4s\""), &a)?;
    let wrong = "is not the one configured for node b";
    status_until(&a, "the notes say how long it has", LIMIT, |status| {
        let notes = status.at("/notes").to_string();
        status.all_protected() && notes.contains("that the files no longer accept") && notes.contains(wrong)
    })?;
    for (host, other) in [(&a, &b), (&b, &a)] {
        status_until(host, "the pair is blocked", LIMIT, |status| {
            status
                .peer(other.v4().into())
                .is_ok_and(|row| row.at("/state") == "blocked" && row.at("/reason_code") == "auth_failed")
        })?;
    }
    ensure!(!a.succeeds(&format!("ping -n -q -W 1 -c 2 {}", b.v4()))?, "nothing gets through");
    for capture in captures {
        capture.stop()?.since(sealed).ensure_nothing_clear()?;
    }
    give(&replaced, &a)?;
    status_until(&a, "it is believed again", LIMIT, |status| status.all_protected()).map(drop)
}

/// hostseal on a and strongSwan on b, each with a key that `hostseal key generate` made.
fn strongswan(lab: &mut Lab, kind: &str, starts: bool) -> Result<()> {
    let [a, b] = lab.all();
    let lines = [key(&a, kind)?, key(&b, kind)?];
    let cluster = Cluster::of_v4(lab.hosts()).with("auth", "method = \"public_key\"");
    let cluster = cluster.with_node(&a, &lines[0]).with_node(&b, &lines[1]);
    a.write(CONFIG, &cluster.text(), 0o644)?;
    hostseal(&a, "enable --no-wait")?.expect_code(0)?;

    let swan = Swan::start(&b, &[])?;
    let [other, own] = [base64(&lines[0])?.to_owned(), base64(&lines[1])?.to_owned()];
    let proof = Proof::Keys { private: b.read(KEY)?, own, other };
    swan.load(&[Connection::between(&b, &a, Family::V4, SECRETS[0]).proof(proof).starts(starts)])?;
    finish(lab, &a, &b, &swan)
}

/// Waits until the pair is protected, and shows that it is.
pub(super) fn finish(lab: &Lab, a: &Host, b: &Host, swan: &Swan) -> Result<()> {
    status_until(a, "the pair is protected", Duration::from_secs(20), |status| status.all_protected())
        .with_context(|| swan.log())?;
    let protected = SystemTime::now();
    let captures = lab.capture_all()?;
    for (from, to) in [(a, b), (b, a)] {
        let answered = from.ping(to, Family::V4, 5)?;
        ensure!(answered == 5, "{answered} of 5 from {}", from.name());
    }
    ensure_only_esp(captures, protected)?;
    await_one_pair(a, b, Family::V4, Duration::from_secs(20))
}
