//! What a version of hostseal knows that another one may not.

/// This version of hostseal.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whether `version` of hostseal may not know what another one does. Those that differ in the third number alone know the
/// same; text that is no version is not older than any.
pub fn is_older(version: &str, than: &str) -> bool {
    let generation = |version: &str| -> Option<(u64, u64)> {
        let mut numbers = version.split(['.', '-', '+']).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    generation(version).zip(generation(than)).is_some_and(|(version, than)| version < than)
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn versions_of_one_generation_know_the_same() {
        for (version, older) in [
            ("0.2.0", false),
            ("0.2.9", false),
            ("0.3.0", false),
            ("1.0.0", false),
            ("0.1.7", true),
            ("0.1.7-rc.1", true),
            ("x", false),
            ("", false),
        ] {
            assert_eq!(is_older(version, "0.2.0"), older, "{version}");
        }
        assert!(is_older("0.9.1", "1.0.0"));
    }
}
