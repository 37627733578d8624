//! A cluster whose roster holds a wrapped secret: it moves to that, and to another key, with all of its traffic.

use anyhow::{Result, ensure};

use super::kms::{LIMIT, runner_of};
use super::members::{await_cluster, is_protected};
use super::{Traffic, await_sealed};
use crate::lab::agent::{CONFIG, hostseal, status_until};
use crate::lab::host::Process;
use crate::lab::members::{found, join};
use crate::lab::{Host, Lab};
use crate::tests::Test;

pub(super) const ALL: &[Test] =
    &[Test::new("kms_members::one_command_moves_a_live_cluster", 4, one_command_moves_a_live_cluster)
        .within(300)];

const HELPER: &str = "/etc/hostseal/our-kms";
/// Who has it may wrap.
const MAY_WRAP: &str = "/etc/hostseal/may-wrap";

/// Writes the name of the key before what it wraps. Any key will do.
const PROGRAM: &str = r#"#!/bin/sh
read -r ask
field() { printf %s "$ask" | sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }
opened() { field blob | base64 -d | sed -n "s/^$(field key)://p"; }
wrapped() { echo "{\"answer\":\"blob\",\"blob\":\"$(printf '%s:%s' "$1" "$2" | base64 -w0)\"}"; }
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

    hostseal(&a, "settings set kms.provider=exec kms.key=ours")?.expect_code(0)?;
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
    traffic.into_iter().try_for_each(Traffic::ensure_complete)
}
