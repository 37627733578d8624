//! A cluster whose roster holds a wrapped secret: it moves to that, and to another key, with all of its traffic.

use std::time::SystemTime;

use anyhow::{Context as _, Error, Result, bail, ensure};
use hostseal::identity::{Ppk, Secret};
use serde_json::Value;

use super::kms::{LIMIT, ensure_nothing_clear, remembers_any, runner_of, talk};
use super::members::{await_cluster, is_protected};
use super::{Traffic, await_sealed};
use crate::lab::agent::{CONFIG, hostseal, status, status_until};
use crate::lab::host::Process;
use crate::lab::members::{found, join};
use crate::lab::{Host, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] =
    &[Test::new("kms_members::one_command_moves_a_live_cluster", 4, one_command_moves_a_live_cluster)
        .within(300)];

const HELPER: &str = "/etc/hostseal/our-kms";
/// Who has it may wrap.
const MAY_WRAP: &str = "/etc/hostseal/may-wrap";
/// Who has it may not even unwrap.
const IS_REVOKED: &str = "/etc/hostseal/is-revoked";

/// Writes the name of the key before what it wraps, and moves each letter by thirteen. Any key will do.
const PROGRAM: &str = r#"#!/bin/sh
read -r ask
field() { printf %s "$ask" | sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }
turned() { tr A-Za-z N-ZA-Mn-za-m; }
opened() { field blob | base64 -d | turned | sed -n "s/^$(field key)://p"; }
wrapped() { echo "{\"answer\":\"blob\",\"blob\":\"$(printf '%s:%s' "$1" "$2" | turned | base64 -w0)\"}"; }
[ ! -e /etc/hostseal/is-revoked ] || { echo '{"answer":"denied"}'; exit; }
case $ask in
    *'"op":"decrypt"'*) echo "{\"answer\":\"plaintext\",\"plaintext\":\"$(opened)\"}" ;;
    *'"op":"describe"'*) echo '{"answer":"enabled"}' ;;
    *)
        if ! [ -e /etc/hostseal/may-wrap ]; then
            echo '{"answer":"denied"}'
        elif [ "$(field op)" = encrypt ]; then
            wrapped "$(field key)" "$(field plaintext)"
        else
            wrapped "$(field new_key)" "$(opened)"
        fi ;;
esac
"#;

/// Puts the helper on a host, and in its file.
fn prepare(host: &Host) -> Result<Process> {
    host.write(HELPER, PROGRAM, 0o755)?;
    host.write(CONFIG, &format!("[kms]\nprogram = \"{HELPER}\"\n"), 0o644)?;
    runner_of(host, HELPER, &[])
}

/// Waits until all pairs of a host are protected with a PPK.
fn await_ppks(host: &Host) -> Result<()> {
    status_until(host, "all pairs have the PPK", LIMIT, |status| {
        let peers = status.at("/peers").as_array().cloned().unwrap_or_default();
        status.all_protected() && peers.iter().all(|row| row["ppk"] == "used")
    })
    .map(drop)
}

fn one_command_moves_a_live_cluster(lab: &mut Lab) -> Result<()> {
    let _runners = lab.hosts().iter().map(prepare).collect::<Result<Vec<_>>>()?;
    let (hosts, new) = (&lab.hosts()[..3], &lab.hosts()[3]);
    let [a, b, c, _] = lab.all();
    a.write(MAY_WRAP, "", 0o644)?;
    found(hosts)?;
    hostseal(&a, "enable --cluster --timeout 50s")?.expect_code(0)?;
    hosts.iter().try_for_each(await_sealed)?;
    let traffic = [Traffic::start(&a, &b, 200)?, Traffic::start(&b, &c, 200)?];

    hostseal(&a, "settings set kms.provider=exec kms.key=ours kms.check_every=3s")?.expect_code(0)?;
    hostseal(&b, "secret wrap")?.expect_code(1)?;
    let said = hostseal(&a, "secret wrap --timeout 90s")?.expect_code(0)?;
    println!("{}", said.stderr);
    hosts.iter().try_for_each(await_ppks)?;
    // What is done already is done.
    hostseal(&a, "secret wrap --timeout 90s")?.expect_code(0)?;

    let said = hostseal(&a, "secret rewrap --kms-key theirs --timeout 90s")?.expect_code(0)?;
    println!("{}", said.stderr);
    for host in hosts {
        status_until(host, "it goes by the other key", LIMIT, |status| {
            status.at("/kms/key") == "theirs" && status.at("/kms/state") == "valid" && status.all_protected()
        })?;
    }
    hostseal(&c, "kms check")?.expect_code(0)?;

    join(&a, new)?;
    await_ppks(new)?;
    let status = await_cluster(&c, "all is protected", |status| is_protected(status, 4))?;
    ensure!(status["problems"] == serde_json::json!([]), "{status:#}");
    lab.hosts().iter().try_for_each(await_ppks)?;
    traffic.into_iter().try_for_each(Traffic::ensure_complete)?;
    revoked_and_given_back(lab)?;
    lab.hosts().iter().try_for_each(|host| hostseal(host, "kms audit")?.expect_code(0).map(drop))
}

/// The key is denied to all members: nothing passes any more, and the memory of no agent holds the secret, nor the PPK that
/// was made of it. They still hear their cluster; and once the key is given back, all is as before.
fn revoked_and_given_back(lab: &Lab) -> Result<()> {
    let [a, .., d] = lab.hosts() else { bail!("there are four hosts") };
    let line = secret_in_force(a)?;
    let root = Secret::from_line(&line)?;
    let ppk = Ppk::of_root("any".to_owned(), &root);
    let secrets: [&[u8]; 3] = [line.as_bytes(), root.expose(), ppk.expose()];
    let agents = lab.hosts().iter().map(|host| status(host)?.agent()).collect::<Result<Vec<_>>>()?;
    for agent in &agents {
        for known in &secrets[1..] {
            ensure!(remembers_any(*agent, &[known])?, "an agent knows the secret, and what it makes of it");
        }
    }
    let (sealed, captures) = (SystemTime::now(), lab.capture_all()?);
    let _talk = talk(a, d)?;
    lab.hosts().iter().try_for_each(|host| host.write(IS_REVOKED, "", 0o644))?;
    for host in lab.hosts() {
        status_until(host, "all is blocked", LIMIT, |status| {
            let is_blocked = |row: &Value| row["state"] == "blocked" && row["reason_code"] == "key_revoked";
            !status.peers().is_empty() && status.peers().iter().all(is_blocked)
        })?;
        until("no SA is left", LIMIT, || {
            let states = host.run("ip xfrm state")?;
            ensure!(states.is_empty(), "{states}");
            Ok::<_, Error>(())
        })?;
    }
    for agent in &agents {
        ensure!(!remembers_any(*agent, &secrets)?, "an agent still has the secret, or what it made of it");
    }
    ensure!(!a.succeeds(&format!("ping -n -q -W 1 -c 2 {}", d.v4()))?, "something gets through");
    hostseal(a, "settings set esp.replay_window=2048")?.expect_code(0)?;
    for host in lab.hosts() {
        until("who is cut off hears its cluster", LIMIT, || {
            let settings = hostseal(host, "settings")?.stdout;
            ensure!(settings.contains("replay_window = 2048"), "{settings}");
            Ok::<_, Error>(())
        })?;
    }
    lab.hosts().iter().try_for_each(|host| host.run(&format!("rm {IS_REVOKED}")).map(drop))?;
    lab.hosts().iter().try_for_each(await_ppks)?;
    ensure_nothing_clear(captures, sealed)
}

/// The wrapped secret that the settings have, as whoever can unwrap it has it.
fn secret_in_force(host: &Host) -> Result<String> {
    let settings = hostseal(host, "settings")?.expect_code(0)?.stdout;
    let blob = settings.split("blob = \"").nth(1).and_then(|rest| rest.split('"').next());
    let blob = blob.with_context(|| format!("there is no blob in {settings}"))?;
    let opened = host.run(&format!("printf %s {blob} | base64 -d | tr A-Za-z N-ZA-Mn-za-m"))?;
    let (_, secret) = opened.split_once(':').context("a name stands before it")?;
    Ok(secret.trim().to_owned())
}
