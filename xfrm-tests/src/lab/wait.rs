//! Waiting for a condition with a deadline.

use std::fmt::Display;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const PERIOD: Duration = Duration::from_millis(20);

/// Looks again and again until `probe` returns `Ok`. What it returns as `Err` is the value that was seen
/// instead, in words.
///
/// # Errors
/// After `limit`: what was awaited, and what was seen last.
pub fn until<T, E: Display>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, E>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(seen) if Instant::now() >= deadline => {
                bail!("after {limit:?} still not: {what}; last seen: {seen:#}")
            }
            Err(_) => sleep(PERIOD),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_stands_in_the_error() {
        let mut looks = 0;
        let failed = until("three", Duration::from_millis(50), || {
            looks += 1;
            Err::<(), _>(format!("look {looks}"))
        });
        let text = failed.expect_err("it never happens").to_string();
        assert!(text.contains("three") && text.contains(&format!("look {looks}")), "{text}");
    }

    #[test]
    fn a_condition_that_holds_ends_the_wait() {
        let mut looks = 0;
        let seen = until("the third look", Duration::from_secs(5), || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err("too early") }
        });
        assert_eq!(seen.expect("the third look comes"), 3);
    }
}
