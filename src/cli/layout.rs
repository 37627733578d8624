//! Text that fits a terminal: how wide it is, and where it may be broken.

/// Columns that `text` takes: colours take none.
pub(super) fn width(text: &str) -> usize {
    let mut count = 0;
    let mut escape = false;
    for character in text.chars() {
        match (escape, character) {
            (false, '\x1b') => escape = true,
            (false, _) => count += 1,
            (true, 'm') => escape = false,
            (true, _) => {}
        }
    }
    count
}

/// `text` in lines of `most` columns, those after the first as far to the right as it begins. Words are never broken:
/// a longer one has a line to itself. Without a limit it stays one line.
pub(super) fn wrap(text: &str, most: Option<usize>) -> Vec<String> {
    let Some(most) = most.filter(|most| width(text) > *most) else { return vec![text.to_owned()] };
    let words = text.trim_start();
    let indent = " ".repeat((text.len() - words.len()).min(most / 2));
    let mut lines: Vec<String> = Vec::new();
    for word in words.split(' ') {
        match lines.last_mut() {
            Some(line) if width(line) + 1 + width(word) <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines
}

/// `text` in at most so many columns. What has no room is left out of its middle: names and addresses differ at their
/// ends, too.
pub(super) fn middle(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let Some(kept) = most.checked_sub(1) else { return String::new() };
    let end = kept / 2;
    let begin = text.chars().take(kept - end);
    begin.chain(['…']).chain(text.chars().skip(count - end)).collect()
}

/// A text without its numbers and the `names` that it is about: the same for two texts that say the same of different
/// hosts.
pub(super) fn gist(text: &str, names: &[String]) -> String {
    let mut gist = String::new();
    for word in text.split(' ') {
        let bare = word.trim_matches(['(', ')', ',', ';', '?', '.']);
        let is_name = |name: &String| name == bare || bare.strip_suffix(':') == Some(name);
        let word = if names.iter().any(is_name) { "@" } else { word };
        for character in word.chars() {
            let character = if character.is_ascii_digit() { '#' } else { character };
            if !(character == '#' && gist.ends_with('#')) {
                gist.push(character);
            }
        }
        gist.push(' ');
    }
    gist
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_never_broken_and_colours_take_no_room() {
        assert_eq!(width("\x1b[1;31mclear\x1b[0m"), 5);
        assert_eq!(wrap("  one two three", Some(10)), ["  one two", "  three"]);
        assert_eq!(wrap("one 2001:db8:ffff::1 x", Some(10)), ["one", "2001:db8:ffff::1", "x"]);
        assert_eq!(wrap("one two three", None), ["one two three"]);
        assert_eq!(wrap("\x1b[31mone\x1b[0m two", Some(7)), ["\x1b[31mone\x1b[0m two"]);
        assert_eq!(wrap("", Some(7)), [""]);
    }

    #[test]
    fn the_middle_has_room_last() {
        assert_eq!(middle("node-1.example", 14), "node-1.example");
        assert_eq!(middle("node-1.example", 7), "nod…ple");
        assert_eq!(middle("ööööö", 4), "öö…ö");
        assert_eq!((middle("ab", 1).as_str(), middle("ab", 0).as_str()), ("…", ""));
    }

    #[test]
    fn what_differs_in_names_and_numbers_has_the_same_gist() {
        let of = |text, name: &str| gist(text, &[name.to_owned()]);
        assert_eq!(
            of("no answer from 10.0.0.2 for 8s", "10.0.0.2"),
            of("no answer from fd::7 for 12s", "fd::7")
        );
        assert_ne!(of("no answer", "x1"), of("no proposal", "x1"));
    }
}
