//! Which nodes an order is about.

use std::collections::BTreeMap;

use super::*;

fn removed(line: u8, addresses: &[[u8; 4]], compromised: bool) -> Removed {
    let addresses = addresses.iter().map(|address| IpAddr::from(*address)).collect();
    let site = Site { name: "db".parse().unwrap(), addresses, inside: BTreeMap::new() };
    Removed { line: EntryId::new([line; 32]), site, compromised }
}

/// Another machine may have had the name, and its address may be somebody else's by now.
#[test]
fn of_several_that_were_removed_the_operator_says_which_one() {
    let name: NodeName = "db".parse().unwrap();
    let (five, six) = ([10, 0, 0, 5], [10, 0, 0, 6]);
    let (old, new) = (removed(1, &[five], false), removed(2, &[six], false));
    let lines = |gone: &[&Removed], address: Option<[u8; 4]>| {
        let lines = not_yet_compromised(gone, &name, address.map(IpAddr::from));
        lines.map(|lines| lines.iter().map(|line| line.octets()[0]).collect::<Vec<u8>>())
    };
    let refused = lines(&[&old, &new], None).unwrap_err().to_string();
    assert_eq!(refused, "db stands for several: say which one with --address (10.0.0.5, 10.0.0.6)");
    assert_eq!(lines(&[&new], Some(six)).unwrap(), [2]);
    // One machine that has joined anew.
    let again = removed(3, &[six], false);
    assert_eq!(lines(&[&new, &again], None).unwrap(), [2, 3]);
    // What is said already says nothing of the others.
    let stolen = removed(4, &[five], true);
    assert_eq!(lines(&[&stolen, &new], None).unwrap(), [2]);
    let refused = lines(&[&stolen], None).unwrap_err().to_string();
    assert_eq!(refused, "db is removed as compromised already");
}
