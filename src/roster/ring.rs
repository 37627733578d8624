//! Who talks to whom, where there are too many for each to talk to all.

use super::octets::EntryId;
use super::view::RosterView;

/// With so many members each talks to each.
const MESH_MAX: usize = 64;

/// The members that speak for themselves, one after the other: all see the same ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring(Vec<EntryId>);

impl Ring {
    /// That of a roster.
    pub fn of(view: &RosterView) -> Self {
        let speaking = view.members.iter().filter(|member| member.keys.is_some());
        let mut ring: Vec<EntryId> = speaking.map(|member| member.line).collect();
        ring.sort_unstable();
        Self(ring)
    }

    /// Those that the member with the first entry `own` talks to: all, or those one, two, four… steps away on either side,
    /// so that what is new takes few steps. Each is a neighbour of its neighbours. None where it is not there itself.
    pub fn neighbours(&self, own: EntryId) -> Vec<EntryId> {
        let (Ok(at), count) = (self.0.binary_search(&own), self.0.len()) else { return Vec::new() };
        let is_far = |steps: &usize| count > MESH_MAX && !steps.is_power_of_two();
        let steps = (1..count).filter(|steps| !is_far(steps));
        let mut near: Vec<usize> = steps.flat_map(|steps| [at + steps, at + count - steps]).collect();
        near.iter_mut().for_each(|near| *near %= count);
        near.sort_unstable();
        near.dedup();
        near.into_iter().map(|near| self.0[near]).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn ring(members: u8) -> Ring {
        Ring((0..members).map(|at| EntryId::new([at; 32])).collect())
    }

    /// Each is a neighbour of its neighbours, has few of them, and is few steps from everybody.
    #[test]
    fn all_members_are_few_steps_from_each_other() {
        for members in [0, 1, 2, 3, 63, 64, 65, 100, 128, 129, 255] {
            let ring = ring(members);
            let all = || (0..members).map(|at| EntryId::new([at; 32]));
            for own in all() {
                let near: BTreeSet<EntryId> = ring.neighbours(own).into_iter().collect();
                assert!(!near.contains(&own));
                assert!(near.iter().all(|other| ring.neighbours(*other).contains(&own)));
                let mesh = members <= 64 && near.len() + 1 == usize::from(members);
                assert!(mesh || near.len() <= 2 * 8, "{} neighbours of {members}", near.len());
            }
            let (mut reached, mut steps) = (all().take(1).collect::<BTreeSet<EntryId>>(), 0);
            while reached.len() < usize::from(members) {
                let next: Vec<EntryId> = reached.iter().flat_map(|own| ring.neighbours(*own)).collect();
                reached.extend(next);
                steps += 1;
            }
            assert!(steps <= 4, "{steps} steps among {members}");
        }
    }

    #[test]
    fn who_is_not_there_has_no_neighbours() {
        assert!(ring(5).neighbours(EntryId::new([9; 32])).is_empty());
    }
}
