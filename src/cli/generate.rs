//! Completion scripts and manual pages, made from the grammar of the command line.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::Invocation;
use super::exit::{CommandError, Exit};
use super::term::print;

/// Behind bash's script: it knows words of the grammar alone, and `status`, `top`, `doctor`, `prove`, `move`, `remove`,
/// `admin` and `floating` take names of nodes.
const BASH_NODES: &str = r#"
_hostseal_nodes() {
    _hostseal "$@"
    local word before= named=
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$before $word" in
            *" status" | *" top" | *" doctor" | *" prove" | *" move" | *" remove" | "admin add" | *" --node") named=1 ;;
        esac
        before=$word
    done
    case "$before" in
        --out | --verify | --key | --address) named= ;;
    esac
    if [ -n "$named" ] && [[ ${COMP_WORDS[COMP_CWORD]} != -* ]]; then
        COMPREPLY=($(compgen -W "$(hostseal nodes 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
    fi
}
complete -F _hostseal_nodes -o nosort -o bashdefault -o default hostseal
"#;

/// The same behind fish's script.
const FISH_NODES: &str = "
complete -c hostseal -n '__fish_seen_subcommand_from status top doctor prove move remove' -f -a '(hostseal nodes 2>/dev/null)'
complete -c hostseal -n '__fish_seen_subcommand_from admin; and __fish_seen_subcommand_from add' -f -a \
'(hostseal nodes 2>/dev/null)'
complete -c hostseal -n '__fish_seen_subcommand_from floating; and __fish_seen_subcommand_from set' -l node -x -a \
'(hostseal nodes 2>/dev/null)'
";

/// What the help says of words that are names of nodes: by that zsh's script is told how to complete them.
const ZSH_NODES: [&str; 6] = [
    "Only pairs with these nodes",
    "Only the paths to this node",
    "The node that has other addresses now",
    "The node that goes",
    "The node whose rights change",
    "A node that may have it. At least two]:NODE",
];
/// The function that completes them. It stands behind the first line, which says what the script is for.
const ZSH_FUNCTION: &str =
    "\n_hostseal_nodes() {\n    compadd -- ${(f)\"$(hostseal nodes 2>/dev/null)\"}\n}\n";

pub(super) fn completions(shell: Shell) -> Result<Exit, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Invocation::command(), "hostseal", &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => script += BASH_NODES,
        Shell::Fish => script += FISH_NODES,
        Shell::Zsh => {
            for help in ZSH_NODES {
                script = script.replace(&format!("{help}:_default"), &format!("{help}:_hostseal_nodes"));
            }
            script = script.replacen('\n', ZSH_FUNCTION, 1);
        }
        _ => {}
    }
    print(&script)?;
    Ok(Exit::Done)
}

/// Writes `hostseal.1` and a page for each command into `directory`, or prints the former.
pub(super) fn man(directory: Option<&Path>) -> Result<Exit, CommandError> {
    let mut command = Invocation::command().disable_help_subcommand(true);
    command.build();
    match directory {
        None => {
            let (_, page) =
                page(&command).map_err(|error| CommandError::io("making the manual page", &error))?;
            print(&page)?;
        }
        Some(directory) => {
            fs::create_dir_all(directory)
                .and_then(|()| pages(&command, directory))
                .map_err(|error| CommandError::io(format!("writing to {}", directory.display()), &error))?;
        }
    }
    Ok(Exit::Done)
}

/// The page of `command` and those of its commands.
fn pages(command: &clap::Command, directory: &Path) -> io::Result<()> {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        pages(command, directory)?;
    }
    let (name, page) = page(command)?;
    fs::write(directory.join(name), page)
}

/// The page of one command, and the name of its file. The text behind its help gets its own sections: clap_mangen
/// would run it together in one that it calls EXTRA.
fn page(command: &clap::Command) -> io::Result<(String, String)> {
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command.clone().after_help(None::<&str>));
    let mut page = Vec::new();
    man.render(&mut page)?;
    let page = String::from_utf8_lossy(&page).into_owned() + &sections(&after);
    Ok((man.get_filename(), page))
}

/// Lines that end with a colon are headings; what is below is shown as it is.
fn sections(text: &str) -> String {
    let mut roff = String::new();
    let mut open = false;
    for line in text.lines() {
        match line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
            Some(heading) => {
                let heading = if heading == "Example" { "Examples" } else { heading };
                let close = if open { ".fi\n" } else { "" };
                let _ = writeln!(roff, "{close}.SH \"{}\"\n.nf", heading.to_uppercase());
                open = true;
            }
            // A backslash and a dash mean something to roff, and a full stop or a quote in the first column.
            None => {
                let _ = writeln!(roff, "\\&{}", line.replace('\\', "\\e").replace('-', "\\-"));
            }
        }
    }
    roff + if open { ".fi\n" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_the_help_has_sections_of_its_own() {
        assert_eq!(
            sections("Example:\n  hostseal -v agent\n\nExit status:\n  0  done"),
            ".SH \"EXAMPLES\"\n.nf\n\\&  hostseal \\-v agent\n\\&\n.fi\n.SH \"EXIT STATUS\"\n.nf\n\\&  0  done\n.fi\n"
        );
        assert_eq!(sections(""), "");
    }

    #[test]
    fn no_page_has_a_section_that_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Invocation::command().disable_help_subcommand(true);
        command.build();
        pages(&command, directory.path()).unwrap();
        for entry in fs::read_dir(directory.path()).unwrap() {
            let page = fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(!page.contains("EXTRA"), "{page}");
        }
        let main = fs::read_to_string(directory.path().join("hostseal.1")).unwrap();
        assert!(main.contains(".SH \"EXIT STATUS\"") && main.contains(".SH \"FIRST STEPS\""), "{main}");
    }
}
