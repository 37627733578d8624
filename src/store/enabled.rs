//! A mark beside the configuration: this host was enabled for good.
//!
//! The state directory remembers which pairs were sealed. If it is lost (another disk, a careless clean-up), the mark
//! tells a host that was enabled from one that never was: the first stays sealed, the second is not touched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::saved::replace;
use super::{PairRecord, Saved, SavedError};
use crate::config::Config;
use crate::types::{NodeName, Protection};

/// For people who find the file.
const ABOUT: &str = "this host was enabled: if hostseal's state is lost, what its configuration lists is blocked at \
                     boot. `hostseal disable` takes this file away";

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct Mark {
    about: String,
    node: NodeName,
}

fn path(config: &Path) -> PathBuf {
    let mut name = config.as_os_str().to_owned();
    name.push(".enabled");
    PathBuf::from(name)
}

/// Marks the host whose configuration is in `config`, and which is `node`.
///
/// # Errors
/// The system refused: its file system may be read-only.
pub fn mark(config: &Path, node: &NodeName) -> Result<(), SavedError> {
    let mark = Mark { about: ABOUT.to_owned(), node: node.clone() };
    let mut json = serde_json::to_vec(&mark).unwrap_or_default();
    json.push(b'\n');
    match fs::read(path(config)) {
        Ok(before) if before == json => Ok(()),
        _ => replace(&path(config), &json),
    }
}

/// Takes the mark away.
///
/// # Errors
/// It is there, and the system refused.
pub fn unmark(config: &Path) -> io::Result<()> {
    match fs::remove_file(path(config)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the host is marked.
pub fn is_marked(config: &Path) -> bool {
    path(config).exists()
}

/// The state that counts where the state of a host that was enabled is lost: it is protected, and each of its pairs was
/// sealed. `None` where the state is there, or nothing was enabled, or nobody knows which node it is.
pub fn in_place_of_lost_state(file: &Path, config: &Config) -> Option<Saved> {
    if config.state_path().exists() {
        return None;
    }
    let mark: Mark = serde_json::from_slice(&fs::read(path(file)).ok()?).ok()?;
    let node = config.node_named(mark.node.as_str())?;
    let sealed = PairRecord { sealed: true, ..PairRecord::default() };
    let pairs = config.pairs(node).into_iter().map(|(_, pair)| (pair, sealed.clone())).collect();
    Some(Saved { protection: Protection::On, node: Some(mark.node), pairs, ..Saved::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_state_counts_as_sealed_only_where_the_host_is_marked() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hostseal.toml");
        let state = directory.path().join("state");
        let text = format!(
            "cluster = \"x\"\nstate_dir = \"{}\"\n[[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n\
             [[nodes]]\nname = \"b\"\naddresses = [\"10.0.0.2\"]\n",
            state.display()
        );
        let config = Config::parse(&text, "file").unwrap();
        let node = &config.node_named("a").unwrap().name;
        assert_eq!(in_place_of_lost_state(&file, &config), None, "never enabled");
        mark(&file, node).unwrap();
        let found = in_place_of_lost_state(&file, &config).unwrap();
        assert_eq!((found.protection, found.sealed().len()), (Protection::On, 1));
        assert_eq!(found.node.as_ref(), Some(node));
        Saved::default().save(&config.state_path()).unwrap();
        assert_eq!(in_place_of_lost_state(&file, &config), None, "the state knows better");
        fs::remove_dir_all(&state).unwrap();
        unmark(&file).unwrap();
        unmark(&file).unwrap();
        assert!(!is_marked(&file) && in_place_of_lost_state(&file, &config).is_none(), "disabled");
    }
}
