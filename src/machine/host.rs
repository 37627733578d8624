//! This host: what its system says about it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::gethostname;
use sha2::{Digest as _, Sha256};

use crate::types::Boot;

/// The start of the system, as it is now.
///
/// # Errors
/// `/proc` does not tell its name.
pub fn boot() -> io::Result<Boot> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    Ok(Boot { id, uptime: uptime() })
}

/// What tells this machine, and this start of it, from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineIds {
    /// The machine.
    pub machine: [u8; 16],
    /// This start of it.
    pub boot: [u8; 16],
}

/// What tells this machine from others within `context`. It says nothing elsewhere, and does not show the machine's own
/// id, which is confidential (machine-id(5)). A machine without one is another one after each start.
///
/// # Errors
/// `/proc` does not tell the name of this start.
pub fn ids(context: &[u8]) -> io::Result<MachineIds> {
    let boot = boot()?.id;
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let machine = Some(machine.trim().to_owned()).filter(|id| !id.is_empty()).unwrap_or_else(|| boot.clone());
    Ok(MachineIds { machine: digest(&machine, context), boot: digest(&boot, context) })
}

fn digest(id: &str, context: &[u8]) -> [u8; 16] {
    let mut digest = [0; 16];
    let hash = Sha256::new().chain_update(context).chain_update(id).finalize();
    digest.copy_from_slice(&hash[..16]);
    digest
}

/// The time since the system was started, its sleep included.
pub fn uptime() -> Duration {
    // This clock is always there (clock_gettime(2), since Linux 2.6.39).
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// The node that the environment says this host is.
pub fn named_node() -> Option<String> {
    std::env::var("HOSTSEAL_NODE").ok().filter(|name| !name.is_empty())
}

/// What the system is called (hostname(7)). It is asked itself: `/proc` does not tell those who see processes alone.
///
/// # Errors
/// It has a name that is no text.
pub fn host_name() -> io::Result<String> {
    gethostname()?.into_string().map_err(|_| io::Error::other("the name of the system is no text"))
}

/// Whether the sysctl in `file` is on: there, and not 0.
pub fn is_set(file: &Path) -> bool {
    // One call reads it: reading to the end would ask for the size before, and read once more after it.
    let mut text = [0; 16];
    let read = File::open(file).and_then(|mut file| file.read(&mut text));
    read.is_ok_and(|length| !matches!(text[..length].trim_ascii(), b"0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_of_the_system_has_one_name_and_gets_older() {
        let (one, two) = (boot().unwrap(), boot().unwrap());
        assert!(one.id == two.id && one.uptime <= two.uptime && !one.id.is_empty());
        assert!(!one.uptime.is_zero());
    }

    #[test]
    fn the_system_is_called_what_its_kernel_says() {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(host_name().unwrap(), kernel.trim());
    }
}
