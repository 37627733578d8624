//! Keys for Wireshark: only with the feature `key-export`, which no release has. `$HOSTSEAL_KEY_EXPORT` names a
//! directory that Wireshark takes for its configuration (`WIRESHARK_CONFIG_DIR`); without it nothing is written.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::ike;
use crate::types::{Direction, KeySource, Op, Pair, Sa, SaKey};

/// Writes down the keys of the IKE SAs that are new.
pub(super) fn ike_sas() {
    write("ikev2_decryption_table", &ike::exported_keys());
}

/// Writes down the keys of the SAs that these changes add.
pub(super) fn sas(ops: &[Op], keys: &dyn KeySource) {
    let added = ops.iter().filter_map(|op| if let Op::AddSa(sa) = op { Some(sa) } else { None });
    let lines: Vec<String> = added.filter_map(|sa| Some(line(sa, keys.key(sa.id())?))).collect();
    write("esp_sa", &lines);
}

fn line(sa: &Sa, key: &SaKey) -> String {
    let Pair { local, remote } = sa.pair;
    let (source, destination) = match sa.direction {
        Direction::In => (remote, local),
        Direction::Out => (local, remote),
    };
    let family = if local.is_ipv4() { "IPv4" } else { "IPv6" };
    let key: String = key.expose().iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers = if sa.suite.esn { "64-bit" } else { "32-bit" };
    format!(
        "\"{family}\",\"{source}\",\"{destination}\",\"{}\",\"AES-GCM with 16 octet ICV [RFC4106]\",\"0x{key}\",\
         \"NULL\",\"\",\"{numbers}\",\"0x0\"",
        sa.spi
    )
}

fn write(name: &str, lines: &[String]) {
    let Some(directory) = std::env::var_os("HOSTSEAL_KEY_EXPORT").filter(|_| !lines.is_empty()) else {
        return;
    };
    if let Err(error) = append(&Path::new(&directory).join(name), lines) {
        tracing::warn!("keys are not exported: {error}");
    }
}

fn append(path: &Path, lines: &[String]) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    lines.iter().try_for_each(|line| writeln!(file, "{line}"))
}
