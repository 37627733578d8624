//! What keys rest on is taken away, or is over: the keys end soon, and not only at their hard limit.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};

use super::certificates::{Ca, certified};
use super::keys::key;
use super::{await_sealed, enable_all};
use crate::lab::agent::{CONFIG, SECRETS, hostseal, hostseal_all, kill_agent, status, status_until};
use crate::lab::{Cluster, Host, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("proofs::a_key_that_was_removed_while_the_agent_was_away", 2, removed_key),
    Test::new("proofs::a_secret_that_was_dropped_while_the_agent_was_away", 2, dropped_secret),
    Test::new("proofs::a_certificate_that_expires", 2, certificate_expires),
];

/// How long what is waited for may take.
const LIMIT: Duration = Duration::from_secs(40);
/// Keys are renewed so often, and live for a day without an agent.
const REKEY: &str = "rekey_after = \"8s\"";

/// Kills a's agent, lets `take_away` change its files, and starts the next one: what the pair had serves until keys
/// would have been renewed, and then nothing of it is left.
fn restarted(lab: &Lab, take_away: impl FnOnce(&Host) -> Result<()>) -> Result<()> {
    let [a, b] = lab.all();
    lab.hosts().iter().try_for_each(await_sealed)?;
    let (captures, sealed) = (lab.capture_all()?, SystemTime::now());
    kill_agent(&a)?;
    take_away(&a)?;
    hostseal(&a, "enable --no-wait")?.expect_code(0)?;
    await_blocked(&a, &b)?;
    for capture in captures {
        capture.stop()?.since(sealed).ensure_nothing_clear()?;
    }
    Ok(())
}

/// Waits until a host says that the other one has not proven itself, and has no SA with it.
fn await_blocked(host: &Host, other: &Host) -> Result<()> {
    status_until(host, "the pair is blocked", LIMIT, |status| {
        status
            .peer(other.v4().into())
            .is_ok_and(|row| row.at("/state") == "blocked" && row.at("/reason_code") == "auth_failed")
    })?;
    until("its SAs are gone", LIMIT, || {
        let states = host.run("ip xfrm state")?;
        ensure!(states.trim().is_empty(), "{states}");
        Ok::<_, anyhow::Error>(())
    })?;
    ensure!(!host.succeeds(&format!("ping -n -q -W 1 -c 2 {}", other.v4()))?, "nothing gets through");
    Ok(())
}

fn removed_key(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let line = key(&a, "ed25519")?;
    let cluster = |of_b: &str| {
        let cluster = Cluster::of_v4(lab.hosts()).with("auth", "method = \"public_key\"");
        cluster.with("keying", REKEY).with_node(&a, &line).with_node(&b, of_b)
    };
    let known = cluster(&key(&b, "ed25519")?);
    lab.hosts().iter().try_for_each(|host| host.write(CONFIG, &known.text(), 0o644))?;
    for outcome in hostseal_all(lab.hosts(), "enable --timeout 30s")? {
        outcome.expect_code(0)?;
    }
    let other = hostseal(&b, "key generate /etc/hostseal/key.other")?.expect_code(0)?.stdout;
    restarted(lab, |a| a.write(CONFIG, &cluster(&other).text(), 0o644))
}

fn dropped_secret(lab: &mut Lab) -> Result<()> {
    let cluster = Cluster::of_v4(lab.hosts()).with("keying", REKEY);
    enable_all(&cluster, lab.hosts())?;
    restarted(lab, |a| cluster.install(a, SECRETS[1]))
}

/// Keys are not renewed for an hour: it is the certificate of b that ends them, at a and so at b.
fn certificate_expires(lab: &mut Lab) -> Result<()> {
    const LASTS: Duration = Duration::from_secs(30);
    let [a, b] = lab.all();
    let (ca, cluster) = (Ca::new(1)?, certified(lab));
    let ends = SystemTime::now() + LASTS;
    ca.install(&cluster, &a, "ed25519", &[a.v4().to_string()])?;
    ca.install_until(&cluster, &b, "ed25519", &[b.v4().to_string()], ends)?;
    for outcome in hostseal_all(lab.hosts(), "enable --timeout 20s")? {
        outcome.expect_code(0)?;
    }
    lab.hosts().iter().try_for_each(await_sealed)?;
    let (captures, sealed) = (lab.capture_all()?, SystemTime::now());
    ensure!(sealed < ends, "the machine is too slow for a certificate of {LASTS:?}");
    await_blocked(&a, &b)?;
    let ended = SystemTime::now();
    println!("blocked {:?} after its end", ended.duration_since(ends)?);
    await_blocked(&b, &a)?;
    let reason = status(&a)?.peer(b.v4().into())?.at("/reason").to_string();
    ensure!(reason.contains("expired"), "{reason}");
    for capture in captures {
        capture.stop()?.since(sealed).ensure_nothing_clear()?;
    }
    Ok(())
}
