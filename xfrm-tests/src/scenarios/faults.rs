//! A handful of the points of `cargo lab faults`.

use crate::campaign::faults::point;
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("faults::the_agent_dies_on_the_way_to_the_clear", 2, |lab| point(lab, "disable", 0, 2))
        .mortal(),
    Test::new("faults::the_agent_dies_as_it_takes_over", 2, |lab| point(lab, "adopt", 1, 3)).mortal(),
];
