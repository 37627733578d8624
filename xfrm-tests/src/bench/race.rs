//! Several ways to do the same thing, timed in turns.

use std::fmt;
use std::time::Duration;

use anyhow::Result;

/// One of the ways: its name, and what does it once and says how long that took. What it needs before and
/// cleans up afterwards is outside of that time.
pub struct Side<'a> {
    /// What the table calls it.
    pub name: &'a str,
    /// Does it once.
    pub run: Box<dyn FnMut() -> Result<Duration> + 'a>,
}

impl<'a> Side<'a> {
    /// A side.
    pub fn new(name: &'a str, run: impl FnMut() -> Result<Duration> + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// How long one side took, over all rounds, shortest first.
pub struct Lap {
    name: String,
    times: Vec<Duration>,
}

impl Lap {
    /// Times that were taken along the way.
    pub fn new(name: &str, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self { name: name.to_owned(), times }
    }

    /// The time in the middle.
    pub fn median(&self) -> Duration {
        self.times.get(self.times.len() / 2).copied().unwrap_or_default()
    }

    /// How many times as long as `other` it took.
    pub fn ratio_to(&self, other: &Lap) -> f64 {
        self.median().as_secs_f64() / other.median().as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Runs every side once a round, each round beginning with another one.
///
/// # Errors
/// When a side fails.
pub fn race(rounds: usize, sides: &mut [Side<'_>]) -> Result<Vec<Lap>> {
    let mut times = vec![Vec::new(); sides.len()];
    for round in 0..rounds {
        for turn in 0..sides.len() {
            let at = (round + turn) % sides.len();
            times[at].push((sides[at].run)()?);
        }
    }
    Ok(sides.iter().zip(times).map(|(side, times)| Lap::new(side.name, times)).collect())
}

/// The result as a table: the first side is hostseal's, and the others are compared to it.
pub struct Table<'a>(pub &'a [Lap]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        for lap in self.0 {
            let (first, last) = (lap.times.first().copied(), lap.times.last().copied());
            write!(
                f,
                "  {:<46} {:>9.1} ms  ({:.1} to {:.1})",
                lap.name,
                milliseconds(lap.median()),
                milliseconds(first.unwrap_or_default()),
                milliseconds(last.unwrap_or_default())
            )?;
            match self.0.first() {
                Some(ours) if ours.name != lap.name => {
                    writeln!(f, "   {:.2} times hostseal's", lap.ratio_to(ours))?;
                }
                _ => writeln!(f)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn sides_take_turns_and_the_median_counts() {
        let order = RefCell::new(String::new());
        let mut times = [5, 1, 90].into_iter();
        let laps = race(
            3,
            &mut [
                Side::new("a", || {
                    order.borrow_mut().push('a');
                    Ok(Duration::from_millis(times.next().unwrap_or_default()))
                }),
                Side::new("b", || {
                    order.borrow_mut().push('b');
                    Ok(Duration::from_millis(10))
                }),
            ],
        )
        .expect("no side fails");
        assert_eq!(order.into_inner(), "abbaab");
        assert_eq!(laps[0].median(), Duration::from_millis(5));
        assert!((laps[1].ratio_to(&laps[0]) - 2.0).abs() < 1e-9);
        let table = Table(&laps).to_string();
        assert!(
            table.contains("5.0 ms  (1.0 to 90.0)") && table.contains("2.00 times hostseal's"),
            "{table}"
        );
    }
}
