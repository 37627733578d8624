//! An error in words.

use std::error::Error;

/// An error and its causes, each said once: the words of many errors contain those of their cause.
pub fn words(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context as _;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the file: {source}; make one")]
    struct Whole {
        source: io::Error,
    }

    #[test]
    fn each_cause_is_said_once() {
        let bare = || io::Error::other("no room");
        let error = anyhow::Error::new(Whole { source: bare() });
        assert_eq!(words(error.as_ref()), "the file: no room; make one");
        let error = anyhow::Result::<()>::Err(error).context("it cannot start").unwrap_err();
        assert_eq!(words(error.as_ref()), "it cannot start: the file: no room; make one");
        let error = Err::<(), _>(bare()).context("it cannot start").unwrap_err();
        assert_eq!(words(error.as_ref()), "it cannot start: no room");
    }
}
