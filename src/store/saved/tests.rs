use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use hostseal_kms_protocol::{KmsRefusal, Refusal};

use super::*;
use crate::config::Config;

fn example() -> Saved {
    let pair = Pair::new("fd99::1".parse().unwrap(), "fd99::2".parse().unwrap()).unwrap();
    let record = PairRecord {
        sealed: true,
        since: Some(UnixTime(1_767_225_600)),
        tx: Traffic { bytes: u64::MAX, packets: 2 },
        rx: Traffic { bytes: 3, packets: 4 },
        errors: SaErrors { replay: 7, replay_window: 8, integrity: 9 },
        before: Volume { tx: Traffic { bytes: 1, packets: 1 }, ..Volume::default() },
        totals_since: Some(UnixTime(0)),
        probes_tx: [(Spi(0xc000_0001), Traffic { bytes: 5, packets: 6 })].into(),
        probes_rx: BTreeMap::new(),
        proven: Some(Proven {
            ppk: None,
            proof: "secret 0011223344556677".to_owned(),
            until: None,
            notice: Some(UnixTime(1_767_225_600)),
        }),
    };
    let nodes = "cluster = \"c\"\n[[nodes]]\nname = \"a\"\naddresses = [\"fd99::1\"]\n";
    let node = Config::parse(nodes, "f").unwrap().nodes.remove(0).name;
    Saved {
        protection: Protection::On,
        leaving: false,
        trial: None,
        node: Some(node),
        followed: Some(EntryId::new([7; 32])),
        pairs: [(pair, record)].into(),
        volume: HostRecord {
            told: Volume { tx: Traffic { bytes: 10, packets: 11 }, ..Volume::default() },
            closed: true,
            ..HostRecord::default()
        },
        lease: Some(SavedLease::new(
            &boot(7),
            "k".to_owned(),
            Some(KmsRefusal::because(Refusal::Denied, "no")),
        )),
        ppks_required_since: Some(UnixTime(1_767_225_600)),
    }
}

fn boot(seconds: u64) -> Boot {
    Boot { id: "this".to_owned(), uptime: Duration::from_secs(seconds) }
}

fn on_trial() -> Saved {
    Saved { trial: Some(Trial::begin(&boot(100), Duration::from_secs(60))), ..example() }
}

#[test]
fn a_trial_that_is_over_is_off_and_seals_nothing() {
    let mut saved = on_trial();
    assert!(!saved.end_trial(&boot(159)));
    assert_eq!(saved, on_trial());
    assert!(saved.end_trial(&boot(160)));
    assert_eq!((saved.protection, &saved.trial), (Protection::Off, &None));
    assert!(saved.sealed().is_empty());
    assert!(!saved.end_trial(&boot(160)), "once");
    assert!(!example().end_trial(&boot(160)), "what was confirmed stays");
}

/// An earlier program knows neither the version nor the trial, and would keep what should go.
#[test]
fn a_file_with_a_trial_has_a_version_of_its_own() {
    let schema = |saved: &Saved| {
        let file: serde_json::Value = serde_json::from_slice(&saved.to_json()).unwrap();
        file["schema"].clone()
    };
    assert_eq!((schema(&example()), schema(&on_trial())), (1.into(), 2.into()));
}

#[test]
fn what_is_saved_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/for/it/state.json");
    assert_eq!(Saved::load(&path).unwrap(), Saved::default(), "nothing saved yet");
    for saved in [example(), on_trial(), Saved::default()] {
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
        &good.replacen("\"schema\":1", "\"schema\":3", 1),
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
