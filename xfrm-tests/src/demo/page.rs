//! The demo's page: headings, commands, what they print, bytes off the wire, and what was checked.

use std::fmt::Display;

use crate::lab::Kind;

/// The margin of everything below a heading.
const MARGIN: &str = "     ";
/// Bytes in a line of a dump.
const DUMP_WIDTH: usize = 16;

/// Prints to standard output and keeps the verdicts.
pub(super) struct Page {
    colour: bool,
    steps: u32,
    passed: usize,
    failed: Vec<String>,
}

/// A part that an escape sequence gives a look.
#[derive(Clone, Copy)]
enum Look {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

impl Page {
    pub(super) fn new(colour: bool) -> Self {
        Self { colour, steps: 0, passed: 0, failed: Vec::new() }
    }

    /// The title and what is to be seen, in some lines.
    pub(super) fn title(&self, title: &str, lines: &[&str]) {
        println!("\n  {}\n", self.paint(Look::Bold, title));
        for line in lines {
            println!("  {line}");
        }
    }

    /// The heading of the next step.
    pub(super) fn step(&mut self, heading: &str) {
        self.steps += 1;
        let number = self.paint(Look::Bold, &self.steps.to_string());
        println!("\n\n  {number}  {}\n", self.paint(Look::Bold, heading));
    }

    /// A command, with the host or hosts where it runs.
    pub(super) fn command(&self, place: &str, command: &str) {
        println!("{MARGIN}{} {command}", self.paint(Look::Dim, &format!("{place}#")));
    }

    /// What a command printed.
    pub(super) fn output(&self, text: &str) {
        for line in text.trim_end().lines() {
            println!("{}", self.states(&format!("{MARGIN}{line}")).trim_end());
        }
        println!();
    }

    /// A remark.
    pub(super) fn note(&self, text: &str) {
        println!("{MARGIN}{}", self.paint(Look::Dim, text));
    }

    /// A packet as a listener reads it: what it is, and its bytes as digits and as text, in at most so many
    /// lines.
    pub(super) fn packet(&self, kind: Kind, what: &str, bytes: &[u8], lines: usize) {
        let look = if kind == Kind::Clear { Look::Yellow } else { Look::Dim };
        println!("{MARGIN}{} {what}\n", self.paint(Look::Dim, "on the wire:"));
        for line in bytes.chunks(DUMP_WIDTH).take(lines) {
            let digits: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let text: String = line.iter().copied().map(readable).collect();
            let digits = format!("{:<47}", digits.join(" "));
            println!("{MARGIN}  {}   {}", self.paint(Look::Dim, &digits), self.paint(look, &text));
        }
        if bytes.len() > DUMP_WIDTH * lines {
            println!("{MARGIN}  {}", self.paint(Look::Dim, "…"));
        }
        println!();
    }

    /// Figures of the same kind, each with what it is of.
    pub(super) fn figures(&self, figures: &[(&str, String)]) {
        for (of, figure) in figures {
            println!("{MARGIN}  {of:<13} {}", self.paint(Look::Bold, &format!("{figure:>12}")));
        }
    }

    /// Something that was to be shown: either it holds, or this is what was seen instead.
    pub(super) fn check(&mut self, claim: &str, seen: Result<(), impl Display>) {
        match seen {
            Ok(()) => {
                self.passed += 1;
                println!("{MARGIN}{} {claim}", self.paint(Look::Green, "✓"));
            }
            Err(seen) => {
                self.failed.push(claim.to_owned());
                println!("{MARGIN}{} {claim}", self.paint(Look::Red, "✗"));
                for line in seen.to_string().trim_end().lines() {
                    println!("{MARGIN}  {}", self.paint(Look::Red, line));
                }
            }
        }
    }

    /// The last lines: what was proved, or what was not. Returns the exit status.
    pub(super) fn end(&self, proved: &str) -> i32 {
        println!();
        if self.failed.is_empty() {
            println!("\n  {} {proved}\n", self.paint(Look::Green, "Proved:"));
            return 0;
        }
        let all = self.passed + self.failed.len();
        println!(
            "\n  {} {} of {all} checks failed:",
            self.paint(Look::Red, "Not proved:"),
            self.failed.len()
        );
        for claim in &self.failed {
            println!("    {} {claim}", self.paint(Look::Red, "✗"));
        }
        println!();
        1
    }

    fn paint(&self, look: Look, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match look {
            Look::Bold => 1,
            Look::Dim => 2,
            Look::Red => 31,
            Look::Green => 32,
            Look::Yellow => 33,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The states in a line of `hostseal status`, in the colours that it gives them on a terminal.
    fn states(&self, line: &str) -> String {
        line.replace(" protected", &format!(" {}", self.paint(Look::Green, "protected")))
    }
}

/// A byte in the text column.
fn readable(byte: u8) -> char {
    if byte == b' ' || byte.is_ascii_graphic() { char::from(byte) } else { '.' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_check_is_enough_to_prove_nothing() {
        let mut page = Page::new(false);
        page.check("water is wet", Ok::<_, String>(()));
        assert_eq!(page.end("all"), 0);
        page.check("fire is cold", Err("it burns"));
        page.check("water is still wet", Ok::<_, String>(()));
        assert_eq!(page.end("all"), 1);
        assert_eq!(page.failed, ["fire is cold"]);
    }

    #[test]
    fn without_colour_nothing_is_painted() {
        assert_eq!(Page::new(false).states("a  protected"), "a  protected");
        assert_eq!(Page::new(true).states("a  protected"), "a  \x1b[32mprotected\x1b[0m");
    }
}
