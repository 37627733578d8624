//! Somebody who shares no code with us reads along: tshark, with the keys that an agent built with the feature
//! `key-export` writes down.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use crate::campaign::faults::MORTAL;
use crate::lab::agent::hostseal;
use crate::lab::{Cluster, Family, HOSTSEAL, Host, Lab, until};
use crate::tests::Test;

/// No optimised build gives its keys away.
pub(super) const ALL: &[Test] = if cfg!(debug_assertions) { &[TEST] } else { &[] };

const TEST: Test = Test::new("wireshark::reads_ike_and_esp", 2, reads_ike_and_esp).mortal();

/// Where keys and packets are on the host.
const DIRECTORY: &str = "/run/wireshark";
/// tshark takes one set of keys for an IKE SA, and IKE_INTERMEDIATE makes another.
const IKE: &str = "proposals = [\"aes256gcm16-prfsha384-x25519\"]";
/// What tshark knows of ESN differs from version to version.
const ESP: &str = "proposals = [\"aes256gcm16-noesn\"]";

/// What tshark says of the packets that `filter` lets through, a line each.
fn read(host: &Host, filter: &str, fields: &[&str]) -> Result<Vec<String>> {
    let fields: String = fields.iter().map(|field| format!(" -e {field}")).collect();
    let decode = "-o esp.enable_encryption_decode:TRUE -o esp.enable_authentication_check:TRUE";
    let environment = format!("HOME={DIRECTORY} WIRESHARK_CONFIG_DIR={DIRECTORY}");
    let line = format!(
        "{environment} tshark -r {DIRECTORY}/pcap {decode} -Y '{filter}' -T fields {fields} 2>/dev/null"
    );
    Ok(host.run(&line)?.lines().map(str::to_owned).collect())
}

fn reads_ike_and_esp(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    a.run(&format!("mkdir -m 700 {DIRECTORY} && mount --bind {MORTAL} {HOSTSEAL}"))?;
    let mut command = Command::new("tcpdump");
    command.args(["-i", "eth0", "--immediate-mode", "-U", "-n", "-Z", "root", "-s", "0", "-w"]);
    let mut tcpdump = a.spawn(command.arg(format!("{DIRECTORY}/pcap")))?;
    until("tcpdump listens", Duration::from_secs(5), || {
        ensure!(a.succeeds(&format!("test -s {DIRECTORY}/pcap"))?);
        Ok::<_, anyhow::Error>(())
    })?;
    let cluster = Cluster::of_v4(lab.hosts()).with("keying", IKE).with("esp", ESP);
    cluster.install_all(lab.hosts())?;
    hostseal(&b, "enable --no-wait")?.expect_code(0)?;
    a.run(&format!("HOSTSEAL_KEY_EXPORT={DIRECTORY} {HOSTSEAL} enable"))?;
    ensure!(a.ping(&b, Family::V4, 3)? == 3);
    tcpdump.signal(Signal::SIGINT)?;
    tcpdump.wait(Duration::from_secs(10))?;

    // IKE_AUTH of both: who they are and that they mean each other's addresses.
    let auth = read(&a, "isakmp.exchangetype == 35", &["isakmp.id.data.ipv4_addr", "isakmp.ts.start_ipv4"])?;
    let named = |line: &String| [a.v4(), b.v4()].iter().all(|address| line.contains(&address.to_string()));
    ensure!(auth.len() == 2 && auth.iter().all(named), "{auth:?}");
    // INFORMATIONAL: reports, which are notifications of ours.
    let reports =
        read(&a, "isakmp.exchangetype == 37 && isakmp.notify.msgtype == 65185", &["isakmp.messageid"])?;
    ensure!(!reports.is_empty(), "no report in INFORMATIONAL");
    let echoes = read(&a, "esp && icmp.type == 8", &["icmp.seq"])?;
    let answers = read(&a, "esp && icmp.type == 0", &["icmp.seq"])?;
    ensure!(echoes == ["1", "2", "3"] && answers == echoes, "{echoes:?} {answers:?}");
    // And without the keys nothing of it.
    a.run(&format!("rm {DIRECTORY}/esp_sa {DIRECTORY}/ikev2_decryption_table"))?;
    ensure!(read(&a, "icmp || isakmp.id.data.ipv4_addr", &["frame.number"])?.is_empty());
    Ok(())
}
