//! What is wrong with a file, and where.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// Why there is no [`Config`](super::Config).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}{}", file.display(), hint(source))]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// What a member keeps of its cluster cannot be read.
    #[error(transparent)]
    Cluster(Box<dyn std::error::Error + Send + Sync>),
    /// The file was read and does not say what it must.
    #[error("{}", listed(file, problems))]
    Invalid {
        /// What the file is called.
        file: String,
        /// All that is wrong, in the file's order, at least one.
        problems: Vec<ConfigProblem>,
    },
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key with its section, such as `keying.port` or `nodes[2].addresses[0]`; empty where the text is
    /// no TOML at all.
    pub key: String,
    /// What is wrong, in words.
    pub message: String,
    /// The text of the line.
    source_line: String,
    /// How many characters from `column` on are meant, at least 1.
    width: usize,
}

impl ConfigProblem {
    /// A problem with the bytes `span` of `text`.
    pub(super) fn new(text: &str, span: Range<usize>, key: &str, message: String) -> Self {
        let floor =
            |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (start, end) = (floor(span.start), floor(span.end));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let width = text[start..end.clamp(start, line_end)].chars().count();
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            key: key.to_owned(),
            message,
            source_line: text[line_start..line_end].trim_end_matches('\r').to_owned(),
            width: width.max(1),
        }
    }

    /// The problem in one line and its place below it, as compilers show it.
    fn show(&self, file: &str, f: &mut String) {
        let Self { line, column, source_line, width, .. } = self;
        let gutter = " ".repeat(line.to_string().len());
        // A tab keeps its width in front of the caret too.
        let indent: String =
            source_line.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        f.push_str(&format!("{file}:{self}\n{gutter} |\n"));
        f.push_str(&format!("{line} | {source_line}\n{gutter} | {indent}{}", "^".repeat(*width)));
    }
}

fn listed(file: &str, problems: &[ConfigProblem]) -> String {
    let mut text = String::new();
    for (at, problem) in problems.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        problem.show(file, &mut text);
    }
    text
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "; `hostseal config new a=ADDRESS b=ADDRESS` writes a first one, --config names another"
        }
        io::ErrorKind::PermissionDenied => "; run as root",
        io::ErrorKind::InvalidData => "; it must be UTF-8 text",
        _ => "",
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, key, message, .. } = self;
        let separator = if key.is_empty() { "" } else { ": " };
        write!(f, "{line}:{column}: {key}{separator}{message}")
    }
}
