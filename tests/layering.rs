//! The layers of `lib.rs`, enforced: who may import whom, who may read a clock, and where `unsafe` is.

use std::fs;
use std::path::{Path, PathBuf};

/// Layer, and the layers that it may import.
const LAYERS: [(&str, &[&str]); 13] = [
    ("types", &[]),
    ("identity", &["types"]),
    ("config", &["types", "identity"]),
    ("store", &["types", "identity", "config"]),
    ("observe", &["types", "identity", "config", "store"]),
    ("control", &["types", "observe"]),
    ("ike", &["types", "identity"]),
    ("protect", &["types", "config"]),
    ("host", &["types", "identity", "config", "store", "observe", "ike", "protect"]),
    ("machine", &["types", "config"]),
    ("xfrm", &["types", "machine"]),
    (
        "agent",
        &[
            "types", "identity", "config", "store", "observe", "control", "ike", "protect", "host",
            "machine", "xfrm",
        ],
    ),
    ("cli", &["types", "identity", "config", "store", "observe", "control", "machine", "xfrm"]),
];

/// Layers that decide: time and entropy are arguments there (invariant 6).
const DECIDERS: [&str; 8] = ["types", "identity", "config", "observe", "control", "ike", "protect", "host"];
const IMPURE: [&str; 9] = [
    "Instant::now",
    "SystemTime::now",
    "rand::rng",
    "SysRng",
    "tokio",
    "UdpSocket",
    "std::fs",
    "std::env::var",
    "std::process",
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
    let mut modules = Vec::new();
    for rest in code.split("crate::").skip(1) {
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => modules.push(std::mem::take(&mut name)),
                    c if depth == 0 && !c.is_whitespace() => name.push(c),
                    _ => {}
                }
            }
            modules.push(name);
        } else {
            modules.push(rest.to_owned());
        }
    }
    let first =
        |path: &String| path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned();
    modules.iter().map(first).filter(|module| !module.is_empty()).collect()
}

#[test]
fn imports_go_one_way() {
    let mut seen = 0;
    for (layer, allowed) in LAYERS {
        for (path, code) in production(layer) {
            for module in imports(&code) {
                seen += 1;
                let known = LAYERS.iter().any(|(layer, _)| *layer == module);
                assert!(
                    !known || module == layer || allowed.contains(&module.as_str()),
                    "{}: {layer} must not import {module}",
                    path.display()
                );
            }
        }
    }
    assert!(seen > 50, "the test reads imports: {seen}");
}

#[test]
fn deciders_know_neither_time_nor_chance() {
    for layer in DECIDERS {
        for (path, code) in production(layer) {
            for word in IMPURE {
                assert!(!code.contains(word), "{}: {layer} must not use {word}", path.display());
            }
        }
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
    let files = [root().join("src"), root().join("xfrm-tests/src")];
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
