//! A line that shows how something went.

/// From nothing to the most.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A character for each of `values`, as high as it is beside the largest; a space where there is none.
pub(super) fn spark(values: &[Option<f64>]) -> String {
    let most = values.iter().flatten().fold(0.0, |most: f64, value| most.max(*value));
    let level = |value: f64| {
        let level = if most > 0.0 { value / most * (LEVELS.len() - 1) as f64 } else { 0.0 };
        // Something is never shown as nothing. Casts of floats stay within bounds.
        LEVELS[(level.ceil() as usize).min(LEVELS.len() - 1)]
    };
    values.iter().map(|value| value.map_or(' ', level)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_is_full_and_the_unknown_is_blank() {
        assert_eq!(spark(&[None, Some(0.0), Some(0.1), Some(50.0), Some(100.0)]), " ▁▂▅█");
        assert_eq!(spark(&[Some(0.0), Some(0.0)]), "▁▁");
        assert_eq!(spark(&[]), "");
        assert_eq!(spark(&[Some(f64::NAN), Some(f64::INFINITY)]).chars().count(), 2);
    }
}
