//! The demo, so that what a newcomer sees first cannot rot.

use anyhow::{Result, ensure};

use super::Test;
use crate::demo;
use crate::lab::Lab;

pub(super) const ALL: &[Test] = &[Test::new("demo::proves_what_it_says", demo::HOSTS, proves_what_it_says)];

fn proves_what_it_says(lab: &mut Lab) -> Result<()> {
    let status = demo::perform(lab, false)?;
    ensure!(status == 0, "the demo ended with {status}");
    Ok(())
}
