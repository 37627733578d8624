//! The configuration of this host: its file or, where it is a member of a cluster, what its file and the roster come to.
//! What an agent went to work with last is kept in its state directory: an agent that finds a broken file goes on with
//! it. It holds no secret.

use std::fs;
use std::path::{Path, PathBuf};

use super::places::state_dir;
use super::saved::replace;
use super::{ClusterFiles, SavedError};
use crate::config::{Config, ConfigError, lists_nodes};

/// The first line, with the path of the file behind it: the copy of another file is of no use.
const HEAD: &str = "# hostseal's copy of ";

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("config.last-good.toml")
}

fn head(file: &Path) -> String {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    format!("{HEAD}{}", file.display())
}

/// Reads and checks a file. A member of a cluster needs none.
///
/// # Errors
/// The file or the roster cannot be read, or something in them is wrong: then all that is wrong, with its place.
pub fn load(file: &Path) -> Result<Config, ConfigError> {
    let text = read(file);
    let state_dir = state_dir(text.as_deref().unwrap_or_default());
    let member = match ClusterFiles::of(&state_dir).load() {
        // An ordinary user may read the file, and the agent refuses the rest.
        Err(error) if error.is_forbidden() && text.as_deref().is_ok_and(lists_nodes) => None,
        member => member.map_err(|error| ConfigError::Cluster(error.into()))?,
    };
    let name = file.display().to_string();
    match (member, text) {
        (Some(member), text) => member.config(&local(text)?, &name),
        (None, text) => Config::parse(&text?, &name),
    }
}

/// What the file of a member says of its host; nothing where there is none.
///
/// # Errors
/// It cannot be read.
pub fn read_local(file: &Path) -> Result<String, ConfigError> {
    local(read(file))
}

fn local(text: Result<String, ConfigError>) -> Result<String, ConfigError> {
    match text {
        Err(ConfigError::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(String::new())
        }
        text => text,
    }
}

/// Reads a file, whatever it says.
///
/// # Errors
/// The file cannot be read.
pub fn read(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { file: file.to_owned(), source };
    fs::read_to_string(file).map_err(unreadable)
}

/// Where [`set_aside`] keeps what a file says.
pub fn former(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".former");
    PathBuf::from(name)
}

/// Keeps what `file` says beside it, for a host that goes over to another mode. An older copy is replaced.
///
/// # Errors
/// The system refused; `file` is as before in any case.
pub fn set_aside(file: &Path) -> Result<(), SavedError> {
    let copy = former(file);
    let io = |what| move |source| SavedError::Io { file: copy.clone(), what, source };
    let text = fs::read(file).map_err(io("cannot be made"))?;
    write_as(&former(file), &text, file)
}

/// Replaces what `file` says. Whoever could read it still can.
///
/// # Errors
/// The system refused; it is as before then.
pub fn write(file: &Path, text: &str) -> Result<(), SavedError> {
    write_as(file, text.as_bytes(), file)
}

/// Writes `file` with the permissions of `like`, where that is there.
fn write_as(file: &Path, octets: &[u8], like: &Path) -> Result<(), SavedError> {
    let permissions = fs::metadata(like).map(|metadata| metadata.permissions()).ok();
    replace(file, octets)?;
    let io =
        |source| SavedError::Io { file: file.to_owned(), what: "cannot be opened to its readers", source };
    permissions.map_or(Ok(()), |permissions| fs::set_permissions(file, permissions)).map_err(io)
}

/// Reads `file`, or the last good copy of it, and then says what is wrong with it now.
///
/// # Errors
/// It is wrong, and nothing was kept.
pub fn load_or_last_good(file: &Path) -> Result<(Config, Option<ConfigError>), ConfigError> {
    load(file).map(|config| (config, None)).or_else(|error| {
        let text = fs::read_to_string(file).unwrap_or_default();
        match last_good(file, &state_dir(&text)) {
            Some(config) => Ok((config, Some(error))),
            None => Err(error),
        }
    })
}

/// What was kept of `file` in `state_dir`.
pub fn last_good(file: &Path, state_dir: &Path) -> Option<Config> {
    let kept = path(state_dir);
    let text = fs::read_to_string(&kept).ok().filter(|text| text.lines().next() == Some(&*head(file)))?;
    Config::parse(&text, &kept.display().to_string()).ok()
}

/// Keeps the text that `config` was read from as the last good one of `file`.
///
/// # Errors
/// The system refused.
pub fn keep(config: &Config, file: &Path) -> Result<(), SavedError> {
    let kept = format!("{}\n{}", head(file), config.text());
    let path = path(&config.state_dir);
    match fs::read_to_string(&path) {
        Ok(before) if before == kept => Ok(()),
        _ => replace(&path, kept.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "[[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n";

    #[test]
    fn a_broken_file_leads_to_what_was_kept_of_it_and_of_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hostseal.toml");
        let top = format!("cluster = \"x\"\nstate_dir = \"{}\"\n", directory.path().join("state").display());
        fs::write(&file, format!("{top}{NODES}")).unwrap();
        let (good, wrong) = load_or_last_good(&file).unwrap();
        assert!(wrong.is_none());
        keep(&good, &file).unwrap();
        for broken in ["nonsense = 1\n", "cluster = [[[\n", "\"\n= =\n"] {
            fs::write(&file, format!("{top}{broken}")).unwrap();
            let (kept, wrong) = load_or_last_good(&file).unwrap();
            assert_eq!(kept.config_id(), good.config_id());
            assert!(wrong.unwrap().to_string().contains("hostseal.toml:3:"), "{broken}");
        }
        let other = directory.path().join("other.toml");
        fs::write(&other, &top).unwrap();
        assert!(load_or_last_good(&other).is_err());
    }

    #[test]
    fn what_a_file_says_is_kept_beside_it_when_it_is_replaced() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hostseal.toml");
        assert!(set_aside(&file).is_err());
        fs::write(&file, "before").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        for _ in 0..2 {
            set_aside(&file).unwrap();
        }
        write(&file, "after").unwrap();
        for (path, text) in [(former(&file), "before"), (file, "after")] {
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        }
    }
}
