//! Helpers that are gone, hang, flood and make no sense.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net;
use std::thread::{self, JoinHandle as Thread};

use tempfile::TempDir;
use tokio::task::LocalSet;

use super::*;
use crate::xfrm::receive_descriptors;

const FILES: FileSource = FileSource { reach: None };
const CLUSTER: [u8; 32] = [0xab; 32];

/// A place with the files of TLS, and rules that name them.
fn place() -> (TempDir, StoreRules) {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    for name in ["ca", "certificate", "key"] {
        fs::write(file(name), name).unwrap();
        fs::set_permissions(file(name), Permissions::from_mode(0o600)).unwrap();
    }
    let rules = StoreRules {
        endpoints: vec!["https://a:2379".to_owned()],
        ca: file("ca"),
        certificate: file("certificate"),
        key: file("key"),
        prefix: "/hostseal/".to_owned(),
        socket: file("socket"),
    };
    (directory, rules)
}

/// Runs what an agent does with a helper by these rules.
fn with_helper<T>(rules: &StoreRules, does: impl AsyncFnOnce(&mut StoreHelper) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let mut helper = StoreHelper::new();
        assert!(helper.aim_at(Some(rules), Some(ClusterId::new(CLUSTER)), &FILES));
        does(&mut helper).await
    })
}

/// Listens, and does this with each connection in turn.
fn helper(rules: &StoreRules, each: Vec<Box<dyn FnOnce(net::UnixStream) + Send>>) -> Thread<()> {
    let listener = net::UnixListener::bind(&rules.socket).unwrap();
    fs::set_permissions(&rules.socket, Permissions::from_mode(0o600)).unwrap();
    thread::spawn(move || each.into_iter().for_each(|each| each(listener.accept().unwrap().0)))
}

/// Why the helper is lost first, whatever was heard before.
async fn lost(helper: &mut StoreHelper) -> String {
    loop {
        for event in helper.heard().await {
            if let StoreEvent::Lost(why) = event {
                return why;
            }
        }
    }
}

#[test]
fn it_gets_the_open_files_and_what_it_says_is_heard() {
    let (_directory, rules) = place();
    let name = hostseal_store_protocol::EntryName::of(&[7; 32]);
    let entry = StoredEntry { name, value: b"value".to_vec() };
    let said = entry.clone();
    let thread = helper(
        &rules,
        vec![Box::new(move |stream: net::UnixStream| {
            let mut buffer = vec![0; LINE_MAX];
            let (length, files) = receive_descriptors(stream.as_fd(), &mut buffer).unwrap();
            let StoreOrder::Open { version, endpoints, prefix } = decode(&buffer[..length]).unwrap() else {
                panic!("it does not begin so")
            };
            assert_eq!((version, endpoints), (VERSION, vec!["https://a:2379".to_owned()]));
            assert_eq!(prefix, format!("/hostseal/{}/", "ab".repeat(32)));
            let texts = files.into_iter().map(|file| io::read_to_string(File::from(file)).unwrap());
            assert_eq!(texts.collect::<Vec<_>>(), ["ca", "certificate", "key"]);
            (&stream).write_all(&encode(&StoreNews::Listing)).unwrap();
            let mut line = String::new();
            io::BufReader::new(&stream).read_line(&mut line).unwrap();
            assert_eq!(decode::<StoreOrder>(line.as_bytes()).unwrap(), StoreOrder::Put(said));
        })],
    );
    with_helper(&rules, async |helper| {
        assert_eq!(helper.heard().await, [StoreEvent::News(StoreNews::Listing)]);
        assert!(helper.has_room());
        helper.put(entry);
        assert_eq!(lost(helper).await, "the helper for etcd has ended");
        // The same again changes nothing; another file of the same name does.
        assert!(!helper.aim_at(Some(&rules), Some(ClusterId::new(CLUSTER)), &FILES));
        fs::remove_file(&rules.certificate).unwrap();
        fs::write(&rules.certificate, "renewed").unwrap();
        assert!(helper.aim_at(Some(&rules), Some(ClusterId::new(CLUSTER)), &FILES));
        assert!(helper.aim_at(None, Some(ClusterId::new(CLUSTER)), &FILES) && !helper.has_room());
    });
    thread.join().unwrap();
}

#[test]
fn what_cannot_be_is_named_with_what_to_do() {
    let (directory, rules) = place();
    let lost_with = |rules: &StoreRules| with_helper(rules, lost);
    let why = lost_with(&rules);
    assert!(why.contains("/socket (install hostseal-etcd, and run `systemctl enable --now"), "{why}");
    let _listener = net::UnixListener::bind(&rules.socket).unwrap();
    fs::set_permissions(&rules.socket, Permissions::from_mode(0o600)).unwrap();
    let why = lost_with(&StoreRules { ca: directory.path().join("other"), ..rules.clone() });
    assert!(why.contains("/other cannot be opened"), "{why}");
    let why = lost_with(&StoreRules { ca: directory.path().to_owned(), ..rules.clone() });
    assert!(why.ends_with("is no regular file"), "{why}");
    fs::set_permissions(&rules.key, Permissions::from_mode(0o640)).unwrap();
    assert!(lost_with(&rules).contains("/key: others may read or write it: `chmod 600 "));
    fs::set_permissions(&rules.key, Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&rules.socket, Permissions::from_mode(0o666)).unwrap();
    let why = lost_with(&rules);
    assert!(why.contains("others may write it (mode 0666)"), "{why}");
}

#[test]
fn one_that_makes_no_sense_or_floods_is_left_and_tried_again() {
    let (_directory, rules) = place();
    let says = |line: Vec<u8>, times: u64| -> Box<dyn FnOnce(net::UnixStream) + Send> {
        Box::new(move |mut stream| {
            // It is hung up on in the middle.
            let _ = (0..times).try_for_each(|_| stream.write_all(&line));
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        })
    };
    let flood = encode(&StoreNews::Listing);
    let refuses = encode(&StoreNews::Away { why: "ca: there is none".to_owned() });
    let thread = helper(
        &rules,
        vec![
            says(refuses, 1),
            says(b"garbage\n".to_vec(), 1),
            says(vec![b' '; LINE_MAX], 9),
            says(flood, 99 * LINES),
        ],
    );
    with_helper(&rules, async |helper| {
        assert_eq!(lost(helper).await, "the helper for etcd has ended: ca: there is none");
        assert!(lost(helper).await.starts_with("the helper for etcd says what cannot be read"));
        assert!(lost(helper).await.starts_with("the helper for etcd says what cannot be read"));
        assert_eq!(lost(helper).await, "the helper for etcd says more than a roster can be");
    });
    thread.join().unwrap();
}

/// One that hears nothing keeps nobody: what it should hear waits, and not much of it.
#[test]
fn one_that_hangs_is_told_no_more_than_there_is_room_for() {
    let (_directory, rules) = place();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let thread = helper(
        &rules,
        vec![Box::new(move |mut stream: net::UnixStream| {
            stream.write_all(&encode(&StoreNews::Listing)).unwrap();
            let _ = wait.recv();
        })],
    );
    with_helper(&rules, async |helper| {
        helper.heard().await;
        let mut told = 0_u32;
        loop {
            while helper.has_room() {
                let name = hostseal_store_protocol::EntryName::of(&[7; 32]);
                helper.put(StoredEntry { name, value: vec![7; 4096] });
                told += 1;
            }
            tokio::task::yield_now().await;
            if !helper.has_room() {
                break;
            }
        }
        assert!(told < 1000, "{told}");
        drop(done);
        assert_eq!(lost(helper).await, "the helper for etcd has ended");
    });
    thread.join().unwrap();
}
