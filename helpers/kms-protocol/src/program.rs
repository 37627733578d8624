//! What all helpers are as programs: they take no arguments, and do one thing.

use std::io::{self, Write as _};
use std::process::ExitCode;

/// Runs the helper `name`: `run` answers one ask, unless somebody wants to see its version or its help.
pub fn run_program(name: &str, version: &str, help: &str, run: impl FnOnce() -> io::Result<()>) -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => match run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{name}: {error}");
                ExitCode::FAILURE
            }
        },
        Some("--version" | "-V") => show(&format!("{name} {version}")),
        Some("--help" | "-h") => show(help),
        Some(_) => {
            eprintln!("{name}: takes no arguments (see --help)");
            ExitCode::from(2)
        }
    }
}

/// Shows it to somebody who may have seen enough already.
fn show(text: &str) -> ExitCode {
    let _ = writeln!(io::stdout(), "{text}");
    ExitCode::SUCCESS
}
