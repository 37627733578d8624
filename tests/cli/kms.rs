//! What an operator does with a key that wraps the secret. A thread plays whoever runs helpers, and the helper.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hostseal_kms_protocol::{Answer, Given, Question, Refusal};

use super::place::Place;

/// What the KMS does.
#[derive(Default)]
struct Kms {
    /// What it lets nobody do.
    denies: Vec<&'static str>,
    /// What it wraps does not open.
    is_broken: bool,
    asked: Vec<&'static str>,
}

impl Kms {
    /// A blob is what it holds, turned round, and the key.
    fn answer(&mut self, question: Question) -> Answer {
        let (op, key) = match &question {
            Question::Decrypt { key, .. } => ("decrypt", key),
            Question::Encrypt { key, .. } => ("encrypt", key),
            Question::Describe { key } => ("describe", key),
            Question::Reencrypt { key, .. } => ("reencrypt", key),
        };
        self.asked.push(op);
        let seal = |key: &str, octets: &[u8]| {
            let mut text: Vec<u8> = octets.iter().rev().copied().collect();
            text.extend_from_slice(key.as_bytes());
            Ok(Given::Blob(STANDARD.encode(text)))
        };
        let open = |key: &str, blob: &[u8]| {
            let octets = blob.strip_suffix(key.as_bytes()).ok_or(Refusal::Broken)?;
            Ok(octets.iter().rev().copied().collect::<Vec<u8>>())
        };
        let outcome = match &question {
            _ if self.denies.contains(&op) => Err(Refusal::Denied),
            Question::Decrypt { .. } if self.is_broken => Err(Refusal::Broken),
            Question::Decrypt { blob, .. } => open(key, blob).map(|octets| Given::Plaintext(octets.into())),
            Question::Encrypt { plaintext, .. } => seal(key, plaintext),
            Question::Describe { .. } => Ok(Given::Enabled),
            Question::Reencrypt { blob, new_key, .. } => {
                open(key, blob).and_then(|octets| seal(new_key, &octets))
            }
        };
        Answer { outcome, why: None, request_id: Some("r-1".to_owned()) }
    }
}

/// A place with a secret in the clear, and a KMS that can be asked there.
fn place_with_kms() -> (Place, Arc<Mutex<Kms>>) {
    let place = Place::new();
    let kms = kms_at(&place, "kms.sock");
    (place, kms)
}

fn kms_at(place: &Place, socket: &str) -> Arc<Mutex<Kms>> {
    let kms = Arc::new(Mutex::new(Kms::default()));
    let (listener, shared) = (UnixListener::bind(place.path(socket)).unwrap(), kms.clone());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            reader.read_until(b'\n', &mut Vec::new()).unwrap();
            let answer = shared.lock().unwrap().answer(Question::read(&mut reader).unwrap());
            stream.write_all(&answer.to_line()).unwrap();
        }
    });
    kms
}

/// Has the configuration say that the key wraps the secret.
fn go_by_key(place: &Place, key: &str) {
    let text = fs::read_to_string(place.file()).unwrap();
    let (before, rest) = text.split_once("[secret]").unwrap();
    let after = rest.split_once("\n[").map(|(_, after)| format!("[{after}")).unwrap_or_default();
    let [wrapped, socket] = ["secret.wrapped", "kms.sock"].map(|name| place.path(name).display().to_string());
    let section = format!(
        "[secret]\nwrapped_file = {wrapped:?}\n[kms]\nprovider = \"exec\"\nprogram = \"/p\"\nkey = {key:?}\nsocket = {socket:?}\n"
    );
    fs::write(place.file(), format!("{before}{section}{after}")).unwrap();
}

/// Wraps the secret of a place, and has the place go by that.
fn wrapped(place: &Place) -> String {
    let id = place.run("secret id").out.trim().to_owned();
    let [socket, out] = ["kms.sock", "secret.wrapped"].map(|name| place.path(name).display().to_string());
    let line =
        format!("secret wrap --provider exec --program /p --kms-key one --socket {socket} --out {out}");
    let done = place.run(&line);
    assert!(done.exit == 0 && done.err.contains(&id), "{done:?}");
    assert!(done.out.contains(&format!("wrapped_file = {out:?}")), "{done:?}");
    go_by_key(place, "one");
    fs::remove_file(place.path("secret")).unwrap();
    id
}

#[test]
fn a_host_is_checked_for_what_it_may_do() {
    let (place, kms) = place_with_kms();
    let id = wrapped(&place);
    // Whoever may wrap may put another secret in place.
    let done = place.run("kms check");
    assert_eq!(done.exit, 3, "{done:?}");
    assert!(done.out.contains("FAIL  encrypt"), "{done:?}");
    kms.lock().unwrap().denies = vec!["encrypt"];
    let done = place.run("kms check");
    assert_eq!((done.exit, done.out.lines().count()), (0, 3), "{done:?}");
    assert!(done.out.contains(&format!("ok    decrypt: the secret {id} (request r-1)\n")), "{done:?}");
    // Who tries it nevertheless hears who may.
    place.run("secret wrap").failed_with(1, &["was not wrapped", "--socket"]);
    // It need not describe the key.
    kms.lock().unwrap().denies = vec!["encrypt", "describe"];
    let done = place.run("kms check");
    assert!(done.exit == 0 && done.out.contains("note  describe"), "{done:?}");
    kms.lock().unwrap().denies = vec!["encrypt", "decrypt"];
    let done = place.run("kms check");
    assert!(done.exit == 3 && done.out.contains("FAIL  decrypt"), "{done:?}");
}

#[test]
fn what_is_in_force_is_kept_and_not_replaced_by_what_nobody_has_tried() {
    let (place, kms) = place_with_kms();
    wrapped(&place);
    let read = |name: &str| fs::read_to_string(place.path(name)).unwrap();
    let before = read("secret.wrapped");
    // What does not open is not written, whatever somebody says.
    kms.lock().unwrap().is_broken = true;
    for line in ["secret rewrap", "secret rewrap --force", "secret rewrap --kms-key two"] {
        place.run(line).failed_with(1, &["does not open", "Nothing was written"]);
    }
    kms.lock().unwrap().is_broken = false;
    // What this host may not open takes a word more.
    kms.lock().unwrap().denies = vec!["decrypt"];
    place.run("secret rewrap").failed_with(1, &["could not be tried", "--out", "--force"]);
    assert_eq!(read("secret.wrapped"), before);
    let done = place.run("secret rewrap --force");
    assert!(done.exit == 0 && done.err.contains("nobody has tried it"), "{done:?}");
    assert_eq!(read("secret.wrapped.previous"), before);
    kms.lock().unwrap().denies = Vec::new();
    // An administrator's helpers may.
    let admin = kms_at(&place, "admin.sock");
    kms.lock().unwrap().denies = vec!["decrypt", "encrypt", "reencrypt"];
    let done = place.run(&format!("secret rewrap --socket {}", place.path("admin.sock").display()));
    assert_eq!((done.exit, &admin.lock().unwrap().asked[..]), (0, &["reencrypt", "decrypt"][..]), "{done:?}");
    kms.lock().unwrap().denies = Vec::new();
    // The configuration says that another key has wrapped what is there.
    let out = format!("secret rewrap --kms-key two --out {}", place.path("secret.wrapped").display());
    place.run(&out).failed_with(2, &["is in force", "with the key one", "the key two"]);
    assert_eq!(
        place.run("kms check").out.lines().next().map(|line| line.starts_with("ok    decrypt")),
        Some(true)
    );
}

#[test]
fn a_secret_moves_to_another_key() {
    let (place, kms) = place_with_kms();
    let id = wrapped(&place);
    kms.lock().unwrap().asked.clear();
    let done = place.run("secret rewrap --kms-key two");
    assert_eq!(done.exit, 0, "{done:?}");
    // It is wrapped by the KMS alone, and then tried.
    assert_eq!(kms.lock().unwrap().asked, ["reencrypt", "decrypt"]);
    let beside = place.path("secret.wrapped.new");
    assert!(done.out.contains(&format!("wrapped_file = {:?}", beside.display().to_string())), "{done:?}");
    assert!(done.out.contains("key = \"two\""), "{done:?}");
    let socket = place.path("kms.sock").display().to_string();
    assert!(done.out.contains(&format!("socket = {socket:?}")), "the rest of [kms] stays: {done:?}");
    fs::rename(beside, place.path("secret.wrapped")).unwrap();
    let text = fs::read_to_string(place.file()).unwrap();
    fs::write(place.file(), text.replace("key = \"one\"", "key = \"two\"")).unwrap();
    kms.lock().unwrap().denies = vec!["encrypt"];
    let done = place.run("kms check");
    assert!(done.exit == 0 && done.out.contains(&id), "{done:?}");
    // A new secret is in nobody's way either.
    kms.lock().unwrap().denies = Vec::new();
    let before = fs::read(place.path("secret.wrapped")).unwrap();
    fs::write(place.path("fresh"), place.run("secret generate").out).unwrap();
    fs::set_permissions(place.path("fresh"), fs::Permissions::from_mode(0o600)).unwrap();
    let line = format!("secret wrap --from {}", place.path("fresh").display());
    assert_eq!(place.run(&line).exit, 0);
    place
        .run(&format!("{line} --out {}", place.path("secret.wrapped").display()))
        .failed_with(2, &["is in force"]);
    assert_eq!(fs::read(place.path("secret.wrapped")).unwrap(), before);
    assert!(place.path("secret.wrapped.new").exists());
    // Another helper may not know how.
    kms.lock().unwrap().denies = vec!["reencrypt"];
    place.run("secret rewrap").failed_with(1, &["was not wrapped anew", "`hostseal secret wrap`"]);
}
