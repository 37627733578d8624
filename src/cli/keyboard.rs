//! What is typed on a terminal, as keys.

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// What can be seen.
    Character(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

/// The keys that these bytes, which came together, stand for. What is no key of ours is left out.
pub(super) fn keys(bytes: &[u8]) -> Vec<Key> {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = text.as_ref();
    let mut keys = Vec::new();
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\r' | '\n' => keys.push(Key::Enter),
            '\x7f' | '\x08' => keys.push(Key::Backspace),
            '\x1b' => match sequence(rest) {
                Some((body, after)) => {
                    keys.extend(named(body));
                    rest = after;
                }
                None => keys.push(Key::Escape),
            },
            character if !character.is_control() => keys.push(Key::Character(character)),
            _ => {}
        }
    }
    keys
}

/// What a key with a name sends behind its ESC (ECMA-48 5.4: parameters, then one letter or `~`), and what follows.
fn sequence(text: &str) -> Option<(&str, &str)> {
    let body = text.strip_prefix(['[', 'O'])?;
    let end = body.find(|c: char| !matches!(c, '0'..='?'))?;
    Some(body.split_at(end + body[end..].chars().next()?.len_utf8()))
}

/// The key that terminals send this for.
fn named(body: &str) -> Option<Key> {
    Some(match body {
        "A" => Key::Up,
        "B" => Key::Down,
        "5~" => Key::PageUp,
        "6~" => Key::PageDown,
        "H" | "1~" | "7~" => Key::Home,
        "F" | "4~" | "8~" => Key::End,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_read() {
        for (bytes, expected) in [
            (&b"q"[..], &[Key::Character('q')][..]),
            (b"\x1b", &[Key::Escape]),
            (b"\x1b[A\x1bOB\x1b[5~\x1b[6~", &[Key::Up, Key::Down, Key::PageUp, Key::PageDown]),
            (b"\x1b[H\x1b[1~\x1bOF\x1b[4~", &[Key::Home, Key::Home, Key::End, Key::End]),
            (b"a\r\x7f", &[Key::Character('a'), Key::Enter, Key::Backspace]),
            ("ö".as_bytes(), &[Key::Character('ö')]),
            // A function key and Alt with a letter: not ours.
            (b"\x1b[15~\x1b[1;5Ax", &[Key::Character('x')]),
            (b"\x00\x01", &[]),
            (b"\x1b[", &[Key::Escape, Key::Character('[')]),
        ] {
            assert_eq!(keys(bytes), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_input_is_a_panic(bytes: Vec<u8>) {
            let keys = keys(&bytes);
            prop_assert!(keys.iter().all(|key| !matches!(key, Key::Character(c) if c.is_control())));
        }
    }
}
