//! The command line as its users see it: the real binary, its output and its exit status. Nothing here
//! changes the machine that it runs on; an agent is played by a thread on a socket.

mod cluster;
mod files;
mod kms;
mod orders;
mod place;
mod screen;
mod status;

use std::fs;
use std::path::Path;
use std::process::Command;

use place::{Done, Place};

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    let place = Place::new();
    for line in ["", "explode", "status --explode", "enable --timeout soon", "config new", "config new a"] {
        place.run(line).failed_with(2, &["--help"]);
    }
    for line in ["--help", "--version", "enable --help", "config new --help"] {
        let done = place.run(line);
        assert_eq!((done.exit, done.err.as_str()), (0, ""), "{line}");
    }
    for line in [
        "secret generate",
        "key generate",
        "key show",
        "config new",
        "agent",
        "guard",
        "enable",
        "confirm",
        "disable",
        "status",
        "top",
        "plan",
        "metrics",
        "exporter",
    ] {
        let done = place.run(&format!("{line} --help"));
        assert!(done.out.contains("Example"), "{line} shows no example: {}", done.out);
    }
}

#[test]
fn the_configuration_can_be_named_by_the_environment() {
    let place = Place::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostseal"));
    let done =
        Done::of(command.args(["secret", "id"]).env("HOSTSEAL_CONFIG", place.file()).output().unwrap());
    assert_eq!(done.exit, 0, "{done:?}");
}

#[test]
fn what_is_generated() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let done = place.run(&format!("completions {shell}"));
        assert!(done.exit == 0 && done.out.contains("hostseal"), "{shell}");
    }
    assert_eq!(place.run("nodes").out, "a\nb\n");
    let program = Path::new(env!("CARGO_BIN_EXE_hostseal")).parent().unwrap();
    let completed = |words: &str, at: usize| {
        let script = place.path("hostseal.bash");
        fs::write(&script, place.run("completions bash").out).unwrap();
        let line = format!(
            "PATH={}:$PATH HOSTSEAL_CONFIG={}; export HOSTSEAL_CONFIG; source {}; COMP_WORDS=({words}) COMP_CWORD={at}; \
             _hostseal_nodes hostseal \"${{COMP_WORDS[{at}]}}\" x; echo ${{COMPREPLY[@]}}",
            program.display(),
            place.file().display(),
            script.display()
        );
        String::from_utf8(Command::new("bash").args(["-c", &line]).output().unwrap().stdout).unwrap()
    };
    assert_eq!(completed("hostseal status ''", 2), "a b\n");
    assert_eq!(completed("hostseal status b", 2), "b\n");
    assert_eq!(completed("hostseal top ''", 2), "a b\n");
    assert_eq!(completed("hostseal prove ''", 2), "a b\n");
    assert_ne!(completed("hostseal prove --verify ''", 3), "a b\n", "a file");
    for line in [
        "hostseal move",
        "hostseal remove",
        "hostseal remove --compromised",
        "hostseal admin add",
        "hostseal admin remove",
    ] {
        let at = line.split(' ').count();
        assert_eq!(completed(&format!("{line} ''"), at), "a b\n", "{line}");
    }
    assert_eq!(
        completed("hostseal add ''", 2).trim().split(' ').find(|word| ["a", "b"].contains(word)),
        None
    );
    assert!(completed("hostseal admin ''", 2).contains("remove"));
    assert!(completed("hostseal sta", 1).contains("status"));
    assert!(completed("hostseal status --wa", 2).contains("--watch"));
    assert_eq!(place.run("completions zsh").out.matches(":_hostseal_nodes'").count(), 9);
    assert_eq!(place.run("completions fish").out.matches("(hostseal nodes 2>/dev/null)").count(), 3);
    assert!(place.run("man").out.contains(".TH hostseal 1"));
    let pages = place.path("pages");
    assert_eq!(place.run(&format!("man {}", pages.display())).exit, 0);
    for page in ["hostseal.1", "hostseal-enable.1", "hostseal-config-new.1"] {
        assert!(pages.join(page).exists(), "{page}");
    }
}
