//! The tests that run inside the lab, by subject.

mod the_bench;
mod the_demo;
mod the_lab;
mod the_peer;

use std::time::Duration;

use anyhow::Result;

use crate::lab::Lab;
use crate::lab::inside::TEST_LIMIT;
use crate::scenarios;

/// A test: an ordinary function, and how many hosts it gets.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    /// SUBJECT::WHAT_IS_SHOWN
    pub name: &'static str,
    /// How many hosts there are.
    pub hosts: usize,
    /// After this time it has failed.
    pub limit: Duration,
    /// It needs agents that can be made to die.
    pub mortal: bool,
    /// It asks AWS.
    pub aws: bool,
    /// It fails with an error or a panic.
    pub body: fn(&mut Lab) -> Result<()>,
}

impl Test {
    /// A test with the usual limit.
    pub const fn new(name: &'static str, hosts: usize, body: fn(&mut Lab) -> Result<()>) -> Self {
        Self { name, hosts, limit: TEST_LIMIT, mortal: false, aws: false, body }
    }

    /// With agents that can be made to die.
    #[must_use]
    pub const fn mortal(self) -> Self {
        Self { mortal: true, ..self }
    }

    /// With ministack in the place of AWS.
    #[must_use]
    pub const fn with_aws(self) -> Self {
        Self { aws: true, ..self }
    }

    /// With another limit, in seconds.
    #[must_use]
    pub const fn within(self, seconds: u64) -> Self {
        Self { limit: Duration::from_secs(seconds), ..self }
    }
}

/// All tests, the lab's own first.
pub fn all() -> impl Iterator<Item = &'static Test> {
    [the_lab::ALL, the_peer::ALL, the_bench::ALL, the_demo::ALL].into_iter().flatten().chain(scenarios::all())
}

/// Whether a test makes sense only where keys are negotiated: it is about what IKE negotiates, or about others that
/// know nothing else.
pub fn is_about_ike(test: &Test) -> bool {
    [
        "strongswan",
        "libreswan",
        "interop::",
        "the_peer::",
        "algorithms::",
        "keys::",
        "certificates::",
        "proofs::",
    ]
    .iter()
    .any(|word| test.name.contains(word))
}

/// The test of this name.
pub fn find(name: &str) -> Option<&'static Test> {
    all().find(|test| test.name == name)
}
