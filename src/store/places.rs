//! Where the agent of a configuration keeps its files, also when the configuration cannot be read.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::config_file;
use crate::config::{RUN_DIR, STATE_DIR, named_path, state_path, status_socket_path};

/// The directories of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// What goes with a reboot.
    pub run_dir: PathBuf,
    /// What stays.
    pub state_dir: PathBuf,
}

impl Places {
    /// The places that `file` names; if it is broken, the ones of its last good copy; if there is none, the ones that
    /// can be read in it, or the defaults.
    pub fn of(file: &Path) -> Self {
        if let Ok((config, _)) = config_file::load_or_last_good(file) {
            return Self { run_dir: config.run_dir, state_dir: config.state_dir };
        }
        let text = fs::read_to_string(file).unwrap_or_default();
        Self { run_dir: named(&text, "run_dir", RUN_DIR), state_dir: state_dir(&text) }
    }

    /// The socket where others than root may look.
    pub fn status_socket_path(&self) -> PathBuf {
        status_socket_path(&self.run_dir)
    }

    /// What outlives a reboot (see [`Saved`](super::Saved)).
    pub fn state_path(&self) -> PathBuf {
        state_path(&self.state_dir)
    }
}

/// Every address that stands between quotes in `file`, however broken that is; comments do not count.
pub fn addresses_in(file: &Path) -> BTreeSet<IpAddr> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let quoted = lines.flat_map(|line| line.split(['"', '\'']).skip(1).step_by(2));
    quoted.filter_map(|text| text.parse().ok()).collect()
}

/// The state directory that a text names, however broken the rest of it is.
pub(super) fn state_dir(text: &str) -> PathBuf {
    named(text, "state_dir", STATE_DIR)
}

fn named(text: &str, key: &str, default: &str) -> PathBuf {
    named_path(text, &[key]).unwrap_or_else(|| PathBuf::from(default))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_still_names_addresses() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hostseal.toml");
        let text = "cluster = [[[\naddresses = [\"10.0.0.1\", 'fd00::1']  # \"10.0.0.3\"\n";
        fs::write(&file, text).unwrap();
        let shown: Vec<String> = addresses_in(&file).iter().map(IpAddr::to_string).collect();
        assert_eq!(shown, ["10.0.0.1", "fd00::1"]);
        assert!(addresses_in(&directory.path().join("nothing")).is_empty());
    }

    #[test]
    fn a_broken_file_still_says_where() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hostseal.toml");
        let places = |text: &str| {
            fs::write(&file, text).unwrap();
            let Places { run_dir, state_dir } = Places::of(&file);
            [run_dir, state_dir].map(|path| path.display().to_string())
        };
        // An own state directory, or the machine's last good file might be found.
        let state = directory.path().join("state").display().to_string();
        let named = format!("run_dir = \"/run/x\"\nstate_dir = \"{state}\"\n");
        assert_eq!(places(&format!("{named}cluster = [[[\n")), ["/run/x", &state]);
        assert_eq!(places(&format!("state_dir = \"{state}\"\nnonsense = 1\n")), ["/run/hostseal", &state]);
        let whole = format!("{named}cluster = \"x\"\n[[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n");
        assert_eq!(places(&whole), ["/run/x", &state]);
    }
}
