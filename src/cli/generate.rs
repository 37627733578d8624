//! Completion scripts and manual pages, made from the grammar of the command line.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::Invocation;
use super::exit::{Exit, Failure};
use super::term::print;

pub(super) fn completions(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Invocation::command(), "hostseal", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

/// Writes `hostseal.1` and a page for each command into `directory`, or prints the former.
pub(super) fn man(directory: Option<&Path>) -> Result<Exit, Failure> {
    let command = Invocation::command();
    match directory {
        None => {
            let mut page = Vec::new();
            Man::new(command)
                .render(&mut page)
                .map_err(|error| Failure::io("making the manual page", &error))?;
            print(&String::from_utf8_lossy(&page))?;
        }
        Some(directory) => {
            fs::create_dir_all(directory)
                .and_then(|()| clap_mangen::generate_to(command, directory))
                .map_err(|error| Failure::io(format!("writing to {}", directory.display()), &error))?;
        }
    }
    Ok(Exit::Done)
}
