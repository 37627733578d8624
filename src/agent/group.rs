//! The group whose users may look at hosts. The package makes it, and where it is missing only root looks.

use std::fs;

/// What it is called.
const NAME: &str = "hostseal";

/// Its number. The file is read here, as a static program has no other name services.
pub(super) fn of_onlookers() -> Option<u32> {
    number(&fs::read_to_string("/etc/group").ok()?)
}

fn number(groups: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut parts = line.split(':');
        (parts.next() == Some(NAME)).then(|| parts.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_name() {
        let groups = "root:x:0:\nhostseal-other:x:7:\nhostseal:x:994:prometheus\n";
        assert_eq!(number(groups), Some(994));
        assert_eq!((number("hostseal:x\n"), number("")), (None, None));
    }
}
