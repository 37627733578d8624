//! Two tables by the same key, walked together: with thousands of entries, to look each of them up in the other takes
//! several times as long.

use std::collections::BTreeMap;

/// Each of `ours`, which come in the order of their keys, beside what `theirs` has of the same key.
pub fn beside<'a, K: Ord + 'a, A, B>(
    ours: impl IntoIterator<Item = (&'a K, A)>,
    theirs: &'a BTreeMap<K, B>,
) -> impl Iterator<Item = (&'a K, A, Option<&'a B>)> {
    let mut theirs = theirs.iter().peekable();
    ours.into_iter().map(move |(key, own)| {
        while theirs.next_if(|(other, _)| *other < key).is_some() {}
        let other = theirs.next_if(|(other, _)| *other == key);
        (key, own, other.map(|(_, other)| other))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_first_comes_once_with_what_the_second_has() {
        let theirs = BTreeMap::from([(0, 'a'), (2, 'b'), (3, 'c'), (7, 'd'), (9, 'e')]);
        let walk = |ours: &[i32]| -> Vec<(i32, Option<char>)> {
            let ours: BTreeMap<i32, ()> = ours.iter().map(|key| (*key, ())).collect();
            beside(&ours, &theirs).map(|(key, (), other)| (*key, other.copied())).collect()
        };
        assert_eq!(walk(&[1, 2, 3, 8]), [(1, None), (2, Some('b')), (3, Some('c')), (8, None)]);
        assert_eq!(walk(&[9, 10]), [(9, Some('e')), (10, None)]);
        assert!(walk(&[]).is_empty());
    }
}
