//! What is read of the way to a KMS.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use crate::config::KmsRules;
use crate::observe::doctor::KmsWay;
use crate::store::owner;

/// Whether the program that speaks to the KMS is there and root's, and whether somebody listens who runs it.
pub(super) fn way(rules: &KmsRules) -> KmsWay {
    let (program, socket) = (&rules.program, &rules.socket);
    let install = "Install the package of the provider (`hostseal-kms-…`), or name another program in [kms]";
    let listen = "`systemctl enable --now hostseal-kms.socket`";
    let mut wrong = Vec::new();
    wrong.extend(found(program, install, |it| it.is_file() && it.permissions().mode() & 0o111 != 0));
    wrong.extend(found(socket, listen, |it| it.file_type().is_socket()));
    // Whoever can change one of them gets the secret.
    let parents = program.ancestors().chain([Some(socket.as_path()), socket.parent()].into_iter().flatten());
    let strange = parents.filter_map(|path| owner::check(path).err());
    wrong.extend(
        strange.map(|error| (error.to_string(), "Nobody but root may be able to change it".to_owned())),
    );
    KmsWay { program: program.display().to_string(), socket: socket.display().to_string(), wrong }
}

/// What is wrong with `path` by itself, and what to do.
fn found(path: &Path, fix: &str, is_right: impl Fn(&fs::Metadata) -> bool) -> Option<(String, String)> {
    let words = match fs::metadata(path) {
        Ok(found) if is_right(&found) => return None,
        Ok(_) => "is there, and is something else than it should be".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "is not there".to_owned(),
        Err(error) => format!("cannot be looked at: {error}"),
    };
    Some((format!("{}: {words}, so no KMS can be asked", path.display()), fix.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use super::*;

    fn rules(program: &Path, socket: &Path) -> KmsRules {
        KmsRules {
            provider: "exec".to_owned(),
            program: program.to_owned(),
            key: "k".to_owned(),
            check_every: Duration::from_secs(300),
            max_offline: Duration::from_secs(3600),
            restore_window: Duration::from_secs(3600),
            socket: socket.to_owned(),
        }
    }

    /// What lies above the directory of a test may be anybody's.
    #[test]
    fn what_is_missing_and_who_could_change_it_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (program, socket) = (directory.path().join("kms-ours"), directory.path().join("kms.sock"));
        let words = || {
            let own = |(words, _): &(String, String)| words.contains(&directory.path().display().to_string());
            let wrong = way(&rules(&program, &socket)).wrong;
            wrong.into_iter().filter(own).map(|(words, fix)| format!("{words}. {fix}")).collect::<Vec<_>>()
        };
        let missing = words();
        assert!(
            missing[0].contains("kms-ours: is not there") && missing[0].contains("Install"),
            "{missing:?}"
        );
        assert!(
            missing[1].contains("kms.sock: is not there") && missing[1].contains("systemctl"),
            "{missing:?}"
        );
        fs::write(&program, "#!/bin/sh\n").unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(words()[0].contains("something else"), "it cannot be run: {:?}", words());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(words(), Vec::<String>::new());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(
            words()[0].contains("others may write it") && words()[0].contains("Nobody but root"),
            "{:?}",
            words()
        );
    }
}
