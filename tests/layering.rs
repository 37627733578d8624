//! The house of `lib.rs`, enforced: which room may know which, what each may touch, and where `unsafe` is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use Touch::{Chance, Clock, Files, Log, Memory, System};

/// A room of `src`.
struct Room {
    name: &'static str,
    /// The rooms that it may import; each of them stands above it.
    knows: &'static [&'static str],
    /// What it may touch of the world.
    touches: &'static [Touch],
}

/// What a room could touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Touch {
    /// Clocks. Elsewhere the time is an argument.
    Clock,
    /// Entropy, also the one that a library draws by itself. Elsewhere it is an argument.
    Chance,
    /// Files and the environment.
    Files,
    /// Sockets, system calls, threads and runtimes.
    System,
    /// The log and the terminal.
    Log,
    /// What outlives a call without being handed from one to the next.
    Memory,
}

const ALL: &[Touch] = &[Clock, Chance, Files, System, Log, Memory];

impl Touch {
    /// What code says that touches it.
    fn words(self) -> &'static [&'static str] {
        match self {
            Clock => &["::now", ".elapsed()", "::elapsed", "Instant as", "SystemTime as"],
            Chance => &[
                "rand::",
                "rand as",
                "SysRng",
                "OsRng",
                "getrandom",
                "RandomState",
                "SystemRandom",
                // These draw by themselves, in aws-lc-rs, rcgen and the ciphers of RustCrypto.
                "EphemeralPrivateKey",
                "PrivateKey::generate",
                "Ed25519KeyPair::generate",
                "EcdsaKeyPair::generate",
                "Generate",
                "generate_key",
                "generate_nonce",
                "RandomizedNonceKey",
                "generate_pkcs8",
                "DecapsulationKey::generate",
                "EncapsulationKey::new",
                "rcgen",
            ],
            Files => &[
                "fs::",
                "fs as",
                "std::fs",
                "File::",
                "OpenOptions",
                "DirBuilder",
                "tempfile",
                "env::",
                "env as",
                "path::absolute",
                ".exists()",
                "::exists",
                "try_exists",
                "is_file",
                "is_dir",
                "metadata",
                "read_dir",
                "read_link",
                "canonicalize",
                // What `store` does with its values.
                "Saved::load",
                ".save(",
                ".try_room(",
            ],
            System => &[
                "nix::",
                "libc::",
                "tokio",
                "netlink",
                "rtnetlink",
                "getifaddrs",
                "UdpSocket",
                "TcpStream",
                "TcpListener",
                "UnixStream",
                "UnixListener",
                "UnixDatagram",
                "ToSocketAddrs",
                "to_socket_addrs",
                "std::os::",
                "std::process",
                "std::thread",
                "thread::",
            ],
            Log => &[
                "tracing::",
                "log::",
                "print!",
                "println!",
                "eprint!",
                "eprintln!",
                "dbg!",
                "stdin()",
                "stdout()",
                "stderr()",
            ],
            Memory => &["thread_local!", "static ", "OnceLock", "LazyLock", "OnceCell", "Mutex", "Atomic"],
        }
    }
}

/// What a room that touches no files may know of `store`: its values.
const STORED: [&str; 17] = [
    "AuditBatch",
    "AuditEvent",
    "AuditKind",
    "AuditWritten",
    "ChainHead",
    "ClusterFilesError",
    "ClusterState",
    "HostRecord",
    "NodeKeys",
    "PairRecord",
    "Saved",
    "SavedError",
    "SavedLease",
    "config_with",
    "member_config",
    "settings_in_force",
    "shared",
];

/// What the room that tells may know of those that decide: why they fail, as values.
const TOLD: [&str; 1] = ["reason"];

/// The rooms, from the ground up.
const ROOMS: [Room; 14] = [
    Room { name: "types", knows: &[], touches: &[] },
    Room { name: "identity", knows: &["types"], touches: &[] },
    Room { name: "ike", knows: &["types", "identity"], touches: &[] },
    Room { name: "config", knows: &["types", "identity"], touches: &[] },
    Room { name: "protect", knows: &["types", "config"], touches: &[] },
    Room { name: "roster", knows: &["types", "identity"], touches: &[] },
    Room { name: "store", knows: &["types", "identity", "config", "roster"], touches: &[Files, System] },
    Room {
        name: "observe",
        knows: &["types", "identity", "ike", "config", "protect", "store"],
        touches: &[],
    },
    Room { name: "control", knows: &["types", "observe"], touches: &[] },
    Room {
        name: "host",
        knows: &["types", "identity", "config", "store", "observe", "control", "ike", "protect", "roster"],
        touches: &[Log],
    },
    Room { name: "machine", knows: &["types"], touches: &[Files, System] },
    Room { name: "xfrm", knows: &["types"], touches: &[Clock, Chance, Files, System, Memory] },
    Room {
        name: "agent",
        knows: &[
            "types", "identity", "config", "roster", "store", "observe", "control", "ike", "protect", "host",
            "machine", "xfrm",
        ],
        touches: ALL,
    },
    Room {
        name: "cli",
        knows: &["types", "identity", "config", "store", "observe", "control", "machine", "xfrm"],
        touches: ALL,
    },
];

/// Where a room touches what it must not, and why it does.
const EXCEPT: [(&str, Touch, &str); 5] = [
    (
        "src/identity/key.rs",
        Chance,
        "aws-lc-rs signs and makes keys with its own entropy, whatever it is given",
    ),
    ("src/ike/crypto/kem.rs", Chance, "so it does with key encapsulation"),
    ("src/observe/metrics.rs", System, "a series is called after netlink"),
    ("src/ike/export.rs", Memory, "only with the feature `key-export`, which no optimised build has"),
    ("src/ike/insider.rs", Memory, "only in tests and under fuzzing"),
];

/// The files that may use tables in an order of chance, as they look things up in them, or sort what they find.
const HASHED: [&str; 7] = [
    "src/identity/auth.rs",
    "src/ike/engine/budget.rs",
    "src/ike/engine.rs",
    "src/ike/outbox.rs",
    "src/ike/engine/table.rs",
    "src/ike/engine/vain.rs",
    "src/store/credentials.rs",
];

/// What of `xfrm` writes: the command line only reads.
const WRITES: [&str; 4] = ["xfrm::sweep", ".apply(", "xfrm::bypass", "xfrm::decapsulate"];

/// The files with system calls that have no safe wrapper.
const UNSAFE: [&str; 1] = ["src/xfrm/sys.rs"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(sources(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
    found
}

/// Files of a layer, without its tests: those may know more.
fn production(layer: &str) -> Vec<(PathBuf, String)> {
    let is_test = |path: &Path| {
        let path = path.strip_prefix(root()).unwrap();
        path.components()
            .any(|part| ["tests", "tests.rs", "sim"].contains(&part.as_os_str().to_str().unwrap()))
    };
    let files = sources(&root().join("src").join(layer)).into_iter().filter(|path| !is_test(path));
    files
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            (path, lines.collect::<Vec<_>>().join("\n"))
        })
        .collect()
}

/// The modules behind each `crate::` in `code`, also in `use crate::{a, b::c}`.
fn imports(code: &str) -> Vec<String> {
    behind("crate::", code)
}

/// The names behind each `path` in `code`, also in `use path::{a, b::c}`.
fn behind(path: &str, code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in code.split(path).skip(1) {
        if let Some(list) = rest.strip_prefix('{') {
            let (mut depth, mut name) = (0, String::new());
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => names.push(std::mem::take(&mut name)),
                    c if depth == 0 && !c.is_whitespace() => name.push(c),
                    _ => {}
                }
            }
            names.push(name);
        } else {
            names.push(rest.to_owned());
        }
    }
    let first =
        |path: &String| path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned();
    names.iter().map(first).filter(|name| !name.is_empty()).collect()
}

/// The name of a file as the lists above have it.
fn name_of(path: &Path) -> &str {
    path.strip_prefix(root()).unwrap().to_str().unwrap()
}

#[test]
fn imports_go_one_way() {
    let mut seen = 0;
    let names: Vec<&str> = ROOMS.iter().map(|room| room.name).collect();
    for (at, Room { name, knows, .. }) in ROOMS.iter().enumerate() {
        assert!(knows.iter().all(|known| names[..at].contains(known)), "{name} knows a room below it");
        for (path, code) in production(name) {
            assert!(!climbs_out(&path, &code), "{}: name other rooms by crate::", name_of(&path));
            for module in imports(&code) {
                seen += 1;
                let is_room = names.contains(&module.as_str()) && module != *name;
                assert!(
                    !is_room || knows.contains(&module.as_str()),
                    "{}: {name} must not import {module}",
                    name_of(&path)
                );
            }
        }
    }
    assert!(seen > 50, "the test reads imports: {seen}");
}

/// Whether `super::` leads out of the room, where nobody would see to which.
fn climbs_out(path: &Path, code: &str) -> bool {
    let name = name_of(path).trim_end_matches(".rs").trim_end_matches("/mod");
    code.contains(&"super::".repeat(name.split('/').count() - 1))
}

/// The folders of `ike`, each of which knows those before it.
const IKE: [&str; 6] = ["wire", "crypto", "auth", "session", "handshake", "engine"];

#[test]
fn the_folders_of_ike_stand_on_each_other() {
    let mut seen = 0;
    for (path, code) in production("ike") {
        let own = name_of(&path).trim_start_matches("src/ike/").trim_end_matches(".rs");
        let own = IKE.iter().position(|folder| own.split('/').next() == Some(folder));
        // What stands beside the folders is for all of them.
        let Some(own) = own else { continue };
        for (at, folder) in
            IKE.iter().enumerate().filter(|(_, folder)| code.contains(&format!("ike::{folder}")))
        {
            seen += 1;
            assert!(at <= own, "{}: {} must not import {folder}", name_of(&path), IKE[own]);
        }
    }
    assert!(seen > 50, "the test reads imports: {seen}");
}

/// What the key exchange says is a value: words for the operator are the business of `observe::explain`.
#[test]
fn ike_has_no_words_for_the_operator() {
    /// Commands of ours, keys of our file, and what only they could be about.
    const OURS: [&str; 8] =
        ["hostseal", "status", "config check", "secret id", "public_key", "keying.", "auth.", "`"];
    let mut seen = 0;
    for (path, code) in production("ike") {
        for text in texts(&code) {
            seen += 1;
            let word = OURS.iter().find(|word| text.contains(**word));
            assert!(word.is_none(), "{}: ike must not say {word:?}: {text}", name_of(&path));
        }
    }
    assert!(seen > 20, "the test reads texts: {seen}");
    for (path, code) in production("observe") {
        for decider in ["ike", "protect"] {
            let known = behind(&format!("crate::{decider}::"), &code);
            let other = known.into_iter().find(|it| !TOLD.contains(&it.as_str()));
            let other = other.or_else(|| code.contains(&format!("crate::{decider};")).then(String::new));
            assert!(other.is_none(), "{}: observe must not know {decider}::{other:?}", name_of(&path));
        }
    }
}

/// The string literals in `code`, without their escapes, but those of bytes: these go to a key or to the wire.
fn texts(code: &str) -> Vec<String> {
    let plain = code.replace(r"\\", "").replace(r#"\""#, "'").replace(r#"'"'"#, "");
    let parts: Vec<&str> = plain.split('"').collect();
    let literals = parts.chunks_exact(2).filter(|part| !part[0].ends_with('b'));
    literals.map(|part| part[1].to_owned()).collect()
}

#[test]
fn texts_are_seen() {
    let code = r#"say("one \" and", 'x', '"', "\\"); fn f<'a>(it: &'a str) { b"bytes"; "two" }"#;
    assert_eq!(texts(code), ["one ' and", "", "two"]);
}

/// What the stages of hostseal are about, and IKE is not: `ike` carries it as octets.
const NOT_IKE: [&str; 8] =
    ["probe", "Probe", "trial", "Trial", "Report", "plaintext", "passage", "protect::"];

#[test]
fn ike_does_not_know_what_its_users_tell_each_other() {
    let files = production("ike");
    assert!(files.len() > 50, "the test reads files: {}", files.len());
    for (path, code) in files {
        let known = NOT_IKE.iter().find(|word| code.contains(**word));
        assert!(known.is_none(), "{}: {known:?} is nothing of IKE's", name_of(&path));
    }
}

#[test]
fn every_directory_is_a_room_on_both_maps() {
    let entries = fs::read_dir(root().join("src")).unwrap().map(|entry| entry.unwrap());
    let directories = entries.filter(|entry| entry.path().is_dir());
    let directories: BTreeSet<String> =
        directories.map(|entry| entry.file_name().into_string().unwrap()).collect();
    let rooms: BTreeSet<String> = ROOMS.iter().map(|room| room.name.to_owned()).collect();
    assert_eq!(directories, rooms);
    let [library, page] =
        ["src/lib.rs", "docs/contributing.md"].map(|file| fs::read_to_string(root().join(file)).unwrap());
    for room in rooms {
        assert!(library.contains(&format!("\n//! {room} ")), "src/lib.rs does not draw {room}");
        assert!(page.contains(&format!("\n  {room}/ ")), "docs/contributing.md does not draw {room}");
    }
}

/// What `code` touches: the words for it that are no part of a longer one.
fn touched(code: &str) -> Vec<(Touch, &'static str)> {
    let in_word = |c: char| c.is_alphanumeric() || c == '_' || c == '\'';
    let says = |word: &str| {
        let starts = |at: usize| !word.starts_with(in_word) || !code[..at].ends_with(in_word);
        code.match_indices(word).any(|(at, _)| starts(at))
    };
    ALL.iter()
        .flat_map(|touch| touch.words().iter().map(|word| (*touch, *word)))
        .filter(|(_, word)| says(word))
        .collect()
}

/// Time, entropy and all else of the world are arguments where nothing is touched: invariant 6.
#[test]
fn each_room_touches_what_it_may() {
    let mut used = BTreeSet::new();
    for Room { name, touches, .. } in &ROOMS {
        for (path, code) in production(name) {
            for (touch, word) in touched(&code).into_iter().filter(|(touch, _)| !touches.contains(touch)) {
                let except = EXCEPT.iter().position(|(file, of, _)| *file == name_of(&path) && *of == touch);
                assert!(except.is_some(), "{}: {name} must not touch {touch:?}: {word}", name_of(&path));
                used.extend(except);
            }
            let known = behind("crate::store::", &code);
            let stored = known.into_iter().find(|it| !STORED.contains(&it.as_str()));
            let whole = ["crate::store;", "crate::store as"].iter().any(|word| code.contains(word));
            let stored = stored.or_else(|| whole.then(String::new));
            assert!(
                stored.is_none() || touches.contains(&Files),
                "{}: {name} must not know store::{}",
                name_of(&path),
                stored.unwrap_or_default()
            );
            let hashed = ["HashMap", "HashSet"].iter().any(|word| code.contains(word));
            let is_listed = HASHED.contains(&name_of(&path)) || touches.contains(&Chance);
            assert!(!hashed || is_listed, "{}: a table in an order of chance", name_of(&path));
        }
    }
    assert_eq!(used.len(), EXCEPT.len(), "an exception that nobody needs");
}

#[test]
fn what_is_touched_is_seen() {
    for (code, touch) in [
        ("let now = std::time::Instant::now();", Some(Clock)),
        ("let now = at.map_or_else(Instant::now, Some);", Some(Clock)),
        ("use std::time::Instant as Time;", Some(Clock)),
        ("let now = rustls_pki_types::UnixTime::now();", Some(Clock)),
        ("use std::time::Instant; fn at(now: Instant) {}", None),
        ("let nonce: [u8; 32] = rand::random();", Some(Chance)),
        ("pair.sign(&SystemRandom::new(), message)", Some(Chance)),
        ("let key = Ed25519KeyPair::generate()?;", Some(Chance)),
        ("let operand = entropy;", None),
        ("let text = fs::read_to_string(path)?;", Some(Files)),
        ("use std::{fs, io};", None),
        ("let there = path.exists();", Some(Files)),
        ("let there = path.map(Path::try_exists);", Some(Files)),
        ("use std::{fs as files, io};", Some(Files)),
        ("let saved = Saved::load(&path)?;", Some(Files)),
        ("for interface in getifaddrs()? {", Some(System)),
        ("let socket = UdpSocket::bind(address)?;", Some(System)),
        ("use nix::unistd::geteuid;", Some(System)),
        ("tracing::info!(\"it is up\");", Some(Log)),
        ("println!(\"it is up\");", Some(Log)),
        ("static COUNT: AtomicU64 = AtomicU64::new(0);", Some(Memory)),
        ("fn name() -> &'static str {", None),
    ] {
        let seen = touched(code).into_iter().map(|(touch, _)| touch).next();
        assert_eq!(seen, touch, "{code}");
    }
}

#[test]
fn the_command_line_writes_nothing_to_the_kernel() {
    for (path, code) in production("cli") {
        for word in WRITES {
            assert!(!code.contains(word), "{}: cli must not use {word}", path.display());
        }
    }
}

/// The loop has no branch on what is wanted of a host or what its files say: that is the decider's, which simulations
/// run.
#[test]
fn the_loop_decides_nothing() {
    let loops = production("agent").into_iter().find(|(path, _)| name_of(path) == "src/agent/service.rs");
    let (_, code) = loops.expect("the loop is there");
    // What it tells people is no code.
    let code: String = code.split('"').step_by(2).collect();
    for word in ["rotection", "rial", "seal", "secrets.", "RowState", "Saved", "config."] {
        let places = [".run_dir", ".socket_path()", ".status_socket_path()", ".state_path()"];
        let rest =
            places.iter().fold(code.clone(), |code, place| code.replace(&format!("config{place}"), ""));
        assert!(!rest.contains(word), "src/agent/service.rs must not know of {word}");
    }
    let branches = code.lines().filter(|line| line.contains("if ") || line.contains("match "));
    for branch in branches {
        assert!(!branch.contains("setup") && !branch.contains("config"), "a branch on files: {branch}");
    }
}

#[test]
fn unsafe_is_where_it_is_allowed() {
    for path in sources(&root().join("src")) {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let uses = text.lines().any(|line| {
            let code = line.split("//").next().unwrap();
            code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl")
        });
        assert!(!uses || UNSAFE.contains(&name.as_str()), "{name}: unsafe code");
    }
}

#[test]
fn the_test_itself_sees_lists() {
    let code = "use crate::{ike::{Engine, Event}, types, xfrm::Kernel};\nuse crate::protect::plan;";
    assert_eq!(imports(code), ["ike", "types", "xfrm", "protect"]);
}

/// Each test that the table of attackers names is there: a promise without one is none.
#[test]
fn what_the_table_of_attackers_names_is_tested() {
    let text = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let table =
        text.split("## Who can do what").nth(1).and_then(|rest| rest.split("\nNot covered").next()).unwrap();
    let files = [
        "src",
        "xfrm-tests/src",
        "helpers/aws/src",
        "helpers/aws/tests",
        "helpers/etcd/tests",
        "helpers/vault/tests",
    ]
    .map(|place| root().join(place));
    let code: Vec<String> =
        files.iter().flat_map(|place| sources(place)).map(|path| fs::read_to_string(path).unwrap()).collect();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let cells = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    let names: Vec<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(names.len() > 30, "the test reads names: {names:?}");
    for name in names {
        let function = format!("fn {}(", name.rsplit("::").next().unwrap());
        let entry = format!("\"{name}\"");
        assert!(
            code.iter()
                .any(|file| file.contains(&entry) || (!name.contains("::") && file.contains(&function))),
            "no test is called {name}"
        );
    }
}

/// Each invariant names the modules with its tests, and these are there.
#[test]
fn what_the_invariants_name_is_there() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let list = text.split("# Invariants").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let invariants: Vec<&str> = list.split(". **").skip(1).collect();
    assert_eq!(invariants.len(), 13, "the test reads invariants");
    for invariant in invariants {
        let names: Vec<&str> = invariant.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test is named: {invariant}");
        for name in names.iter().filter(|name| name.contains("::")) {
            let module = root().join("src").join(name.replace("::", "/"));
            let is_type = name.rsplit("::").next().unwrap().starts_with(char::is_uppercase);
            assert!(is_type || module.is_dir() || module.with_extension("rs").exists(), "no module {name}");
        }
    }
}

/// The walk through the house names files, and functions in them: both are there.
#[test]
fn the_three_trips_lead_somewhere() {
    let page = fs::read_to_string(root().join("docs/contributing.md")).unwrap();
    let walk = page.split("\n## Three trips\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let (mut file, mut code, mut functions) = ("", String::new(), 0);
    for name in walk.split('`').skip(1).step_by(2) {
        if name.ends_with(".rs") {
            let path = root().join("src").join(name);
            (file, code) = (name, fs::read_to_string(path).unwrap_or_else(|_| panic!("no file {name}")));
        } else if let Some(function) = name.strip_suffix("()") {
            functions += 1;
            let starts = [format!("fn {function}("), format!("fn {function}<")];
            assert!(starts.iter().any(|start| code.contains(start)), "{file} has no {name}");
        }
    }
    assert!(functions > 30, "the test reads the walk: {functions}");
}

/// The numbers behind `fact` and `facts` in `text`, such as "fact 8a" and "facts 8c and 12".
fn cited_facts(text: &str) -> Vec<String> {
    let mut cited = Vec::new();
    for rest in text.split("docs/kernel.md, fact").skip(1) {
        // What stands behind the parenthesis is about something else.
        let rest = rest.split(')').next().unwrap_or_default();
        let words = rest.trim_start_matches('s').split_whitespace().filter(|word| *word != "and");
        let number = |word: &str| word.trim_matches([',', '.', ';', ':', '`']).to_owned();
        let is_number = |word: &String| word.starts_with(|first: char| first.is_ascii_digit());
        cited.extend(words.map(number).take_while(is_number));
    }
    cited
}

#[test]
fn every_cited_fact_of_the_kernel_is_on_its_page() {
    assert_eq!(cited_facts("(docs/kernel.md, facts 8c and 12), and 0 for none"), ["8c", "12"]);
    let page = fs::read_to_string(root().join("docs/kernel.md")).unwrap();
    let has = |number: &str| page.lines().any(|line| line.trim_start().starts_with(&format!("{number}. ")));
    let mut count = 0;
    for path in sources(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap().replace("\n//! ", " ").replace("\n    /// ", " ");
        for number in cited_facts(&text) {
            assert!(has(&number), "{}: docs/kernel.md has no fact {number}", path.display());
            count += 1;
        }
    }
    assert!(count >= 20, "{count} citations were found");
}

/// The types that `code` declares. Associated types are left out: their traits name them.
fn declared(code: &str) -> Vec<&str> {
    let name = |line: &str| {
        let item = line.trim_start();
        let item = match item.strip_prefix("pub(") {
            Some(rest) => rest.split_once(") ")?.1,
            None => item.strip_prefix("pub ").unwrap_or(item),
        };
        let (kind, rest) = item.strip_prefix("unsafe ").unwrap_or(item).split_once(' ')?;
        let is_type = match kind {
            "struct" | "enum" | "union" | "trait" => true,
            "type" => !line.starts_with(' '),
            _ => false,
        };
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        is_type.then_some((line.find(rest)?, end))
    };
    let of = |line| name(line).map(|(at, length): (usize, usize)| &line[at..at + length]);
    code.lines().filter_map(of).collect()
}

/// One name, one meaning: no reader has to ask which of two types is meant.
#[test]
fn no_two_types_share_a_name() {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Room { name, .. } in &ROOMS {
        for (path, code) in production(name) {
            for declared in declared(&code) {
                places.entry(declared.to_owned()).or_default().insert(name_of(&path).to_owned());
            }
        }
    }
    assert!(places.len() > 300, "the test reads types: {}", places.len());
    let twice: Vec<_> = places.iter().filter(|(_, places)| places.len() > 1).collect();
    assert!(twice.is_empty(), "one name for several types: {twice:#?}");
}

#[test]
fn declared_types_are_seen() {
    let code = "pub struct A;\npub(super) enum B<T> {\n    trait C {\n        type Out;\ntype D = u8;\nlet type_e = 1;\n\
                pub(in crate::ike) struct F(u8);\nunsafe trait G {}\nstructure();\n    enum H { A }";
    assert_eq!(declared(code), ["A", "B", "C", "D", "F", "G", "H"]);
}

/// Roundabout phrases: a plain sentence says the same and is shorter.
const ROUNDABOUT: [&str; 9] = [
    "of its own",
    "of their own",
    "of his own",
    "of our own",
    "of your own",
    "such as it is",
    "such as they are",
    "agents of before",
    "without a word",
];

/// The roundabout phrases in `text`, also across its lines.
fn roundabout(text: &str) -> Vec<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let hits = ROUNDABOUT.iter().flat_map(|phrase| text.match_indices(phrase));
    hits.map(|(at, _)| text[at..].chars().take(60).collect()).collect()
}

/// The comments in `code`, without their signs.
fn comments(code: &str) -> String {
    let comment =
        |line: &str| Some(line.trim_start().strip_prefix("//")?.trim_start_matches(['/', '!']).to_owned());
    code.lines().filter_map(comment).collect::<Vec<_>>().join("\n")
}

/// All files below `directory`, but for what was built, fuzzers' seeds and what is hidden.
fn kept(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let is_left_out = |name: &str| name.starts_with('.') || name.starts_with("target") || name == "seeds";
    let entries = entries.filter(|entry| !is_left_out(&entry.file_name().to_string_lossy()));
    let files = entries.map(|entry| entry.path());
    files.flat_map(|path| if path.is_dir() { kept(&path) } else { vec![path] }).collect()
}

/// What somebody reads of a file: of code the comments, and what the programs say.
fn what_is_read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    if path.extension().is_none_or(|extension| extension != "rs") {
        return Some(text);
    }
    let said: Vec<String> = texts(&text).iter().map(|text| text.replace("\\\n", " ")).collect();
    Some(format!("{}\n{}", comments(&text), said.join("\n")))
}

#[test]
fn what_people_read_is_plain() {
    // This file has to name them.
    let files: Vec<_> = kept(&root()).into_iter().filter(|path| *path != root().join(file!())).collect();
    assert!(files.len() > 500, "the test reads files: {}", files.len());
    let texts = files.iter().filter_map(|path| Some((path, what_is_read(path)?)));
    let mut found = Vec::new();
    for (path, text) in texts {
        found.extend(roundabout(&text).into_iter().map(|phrase| format!("{}: {phrase}", name_of(path))));
    }
    assert!(found.is_empty(), "say it plainly: {found:#?}");
}

#[test]
fn roundabout_phrases_are_seen() {
    let code = "/// It has a key of\n    /// its own, such as it\n//! is.\nlet text = \"of its own\";";
    assert_eq!(roundabout(&comments(code)).len(), 2);
    assert!(roundabout("its own key").is_empty());
}
