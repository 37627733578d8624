use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::model::Config;

fn example() -> Saved {
    let pair = Pair::new("fd99::1".parse().unwrap(), "fd99::2".parse().unwrap()).unwrap();
    let record = PairRecord {
        sealed: true,
        since: Some(UnixTime(1_767_225_600)),
        tx: Traffic { bytes: u64::MAX, packets: 2 },
        rx: Traffic { bytes: 3, packets: 4 },
        totals_since: Some(UnixTime(0)),
        probes_tx: [(Spi(0xc000_0001), Traffic { bytes: 5, packets: 6 })].into(),
        probes_rx: BTreeMap::new(),
    };
    let nodes = "cluster = \"c\"\n[[nodes]]\nname = \"a\"\naddresses = [\"fd99::1\"]\n";
    let node = Config::parse(nodes, "f").unwrap().nodes.remove(0).name;
    Saved { protection: Protection::On, node: Some(node), pairs: [(pair, record)].into() }
}

#[test]
fn what_is_saved_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/for/it/state.json");
    assert_eq!(Saved::load(&path).unwrap(), Saved::default(), "nothing saved yet");
    for saved in [example(), Saved::default()] {
        saved.save(&path).unwrap();
        assert_eq!(Saved::load(&path).unwrap(), saved);
    }
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let left: Vec<_> =
        fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["state.json"]);
}

#[test]
fn what_a_crash_left_is_in_nobodys_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    example().save(&path).unwrap();
    let half = directory.path().join("state.json.new");
    fs::write(&half, "{\"sch").unwrap();
    fs::set_permissions(&half, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(Saved::load(&path).unwrap(), example());
    example().save(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_failed_save_leaves_the_old_contents() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    example().save(&path).unwrap();
    // A directory in the place of the new file cannot be removed as a file.
    fs::create_dir(directory.path().join("state.json.new")).unwrap();
    let error = Saved::default().save(&path).unwrap_err().to_string();
    assert!(error.starts_with(&path.display().to_string()), "{error}");
    assert_eq!(Saved::load(&path).unwrap(), example());
}

#[test]
fn a_broken_file_is_named_and_not_guessed_at() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    let good = String::from_utf8(example().to_json()).unwrap();
    for broken in [
        "",
        "{}",
        "\u{0}",
        &good[..good.len() / 2],
        &good.replacen("\"schema\":1", "\"schema\":2", 1),
        &good.replacen("\"on\"", "\"perhaps\"", 1),
        &good.replacen("fd99::2", "10.0.0.1", 1),
    ] {
        fs::write(&path, broken).unwrap();
        let error = Saved::load(&path).unwrap_err();
        assert!(matches!(error, SavedError::Broken { .. }), "{broken}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert!(error.to_string().contains("disable --force"), "{error}");
    }
}
