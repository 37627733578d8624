use super::*;
use crate::config::Config;
use crate::store::credentials;

/// A configuration whose secret is `contents` in a file of `mode`.
fn with_secret(contents: &[u8], mode: u32) -> (tempfile::TempDir, Config) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, contents).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    let text = format!(
        "cluster = \"demo\"\n[secret]\nfile = {:?}\n[[nodes]]\nname = \"a\"\naddresses = [\"10.99.0.1\"]\n",
        file.to_str().unwrap()
    );
    let config = Config::parse(&text, "f.toml").unwrap();
    (directory, config)
}

#[test]
fn a_secret_is_read() {
    let line = Secret::new([7; 32]).to_line();
    for mode in [0o600, 0o400] {
        let (_directory, config) = with_secret(format!("{}\n", *line).as_bytes(), mode);
        assert_eq!(credentials::load_secret(&config).unwrap().expose(), &[7; 32]);
        assert!(credentials::load_previous_secret(&config).unwrap().is_none());
    }
}

#[test]
fn a_secret_that_others_may_read_is_refused() {
    for mode in [0o640, 0o604, 0o620, 0o601, 0o644] {
        let (_directory, config) = with_secret(Secret::new([7; 32]).to_line().as_bytes(), mode);
        let error = credentials::load_secret(&config).unwrap_err().to_string();
        let file = config.secret.file.display();
        assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
        assert!(error.contains(&format!("chmod 600 {file}")), "{error}");
    }
}

#[test]
fn what_is_no_secret_is_refused_and_not_repeated() {
    let long = Secret::new([7; 32]).to_line().repeat(9);
    for contents in ["hunter2 hunter2", "", &long, &Secret::new([7; 32]).to_line()[..40]] {
        let (_directory, config) = with_secret(contents.as_bytes(), 0o600);
        let error = format!("{0} {0:?}", credentials::load_secret(&config).unwrap_err());
        assert!(error.contains("32 bytes in base64"), "{error}");
        assert!(!error.contains("hunter2") && !error.contains("BwcH"), "{error}");
    }
    let (_directory, config) = with_secret(b"\xff\xfe", 0o600);
    assert!(matches!(credentials::load_secret(&config), Err(PrivateFileError::Contents { .. })));
}

#[test]
fn a_secret_is_a_file() {
    let (directory, mut config) = with_secret(b"", 0o600);
    config.secret.file = directory.path().to_owned();
    assert!(matches!(credentials::load_secret(&config), Err(PrivateFileError::NotAFile(_))));
    config.secret.file = directory.path().join("pipe");
    nix::unistd::mkfifo(&config.secret.file, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(
        matches!(credentials::load_secret(&config), Err(PrivateFileError::NotAFile(_))),
        "and it did not wait for a writer"
    );
    config.secret.file = directory.path().join("none");
    let error = credentials::load_secret(&config).unwrap_err().to_string();
    assert!(error.contains("none: cannot be read") && error.contains("hostseal secret generate"), "{error}");
}
