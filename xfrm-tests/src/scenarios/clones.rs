//! A disk that was copied: two machines with the keys, the addresses and the name of one member.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::members::await_cluster;
use crate::lab::agent::{hostseal, start_agent};
use crate::lab::members::found;
use crate::lab::net::Wire;
use crate::lab::{Host, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] =
    &[Test::new("clones::a_copied_disk_takes_nobodys_place_and_is_named", 3, a_copied_disk).within(240)];

/// How long a copy may take to be found out, on a busy machine.
const LONG: Duration = Duration::from_secs(90);

fn a_copied_disk(lab: &mut Lab) -> Result<()> {
    let [a, b, copy] = lab.all();
    [&b, &copy].iter().try_for_each(|host| host.write("/etc/machine-id", &"4f".repeat(16), 0o444))?;
    found(&[a.clone(), b.clone()])?;
    await_cluster(&a, "b answers", |status| status["summary"]["answering"] == 2)?;
    become_copy(lab, &copy, &b)?;
    let _agent = start_agent(&copy)?;
    until("a names the node", LONG, || {
        let status = hostseal(&a, "status --cluster --json")?.expect_code(3)?.json()?;
        ensure!(status["nodes"][1]["reason_code"] == "duplicate_node", "{status:#}");
        Ok::<_, anyhow::Error>(())
    })?;
    let named = hostseal(&a, "status --cluster")?.expect_code(3)?.stdout;
    ensure!(named.contains("two machines use its keys"), "{named}");
    // The first one goes on, and hears what is new.
    await_cluster(&a, "b answers", |status| status["nodes"][1]["answers"] == true)?;
    hostseal(&a, "settings set esp.replay_window=128")?.expect_code(0)?;
    let knows = |host: &Host| -> Result<bool> {
        Ok(hostseal(host, "settings")?.expect_code(0)?.stdout.contains("replay_window = 128"))
    };
    until("b hears of the settings", LONG, || {
        ensure!(knows(&b)?, "not yet");
        Ok::<_, anyhow::Error>(())
    })?;
    ensure!(!knows(&copy)?, "nobody talks to the copy");
    Ok(())
}

/// `host` is a copy of `of` from now on, on a network that brings to both what is for one; its system was started at
/// another time.
fn become_copy(lab: &Lab, host: &Host, of: &Host) -> Result<()> {
    for place in lab.hosts() {
        let port = Wire::port(place);
        lab.wire().host().run(&format!("ip link set {port} type bridge_slave learning off"))?;
    }
    lab.wire().host().run("ip link set br0 type bridge fdb_flush")?;
    let disk = format!("/tmp/copy-of-{}.tar", of.name());
    of.run(&format!("tar -C /var/lib/hostseal -cf {disk} cluster"))?;
    host.run(&format!(
        "mkdir -p -m 700 /var/lib/hostseal && tar -C /var/lib/hostseal -xf {disk} && rm {disk}"
    ))?;
    let boot = host.read("/proc/sys/kernel/random/uuid")?;
    host.write("/run/boot_id", &boot, 0o444)?;
    host.run("mount --bind /run/boot_id /proc/sys/kernel/random/boot_id")?;
    let mac = of.mac().map(|octet| format!("{octet:02x}")).join(":");
    host.run(&format!(
        "ip link set eth0 down && ip address flush dev eth0 && ip link set eth0 address {mac} && \
         ip address add {}/16 dev eth0 && ip address add {}/64 dev eth0 nodad && ip link set eth0 up",
        of.v4(),
        of.v6()
    ))?;
    Ok(())
}
