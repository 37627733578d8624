//! `hostseal config new`: a first file and a first secret.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::args::{Invocation, NewArgs, NewNode};
use super::exit::{CommandError, Exit};
use super::secret;
use super::term::print;
use crate::config::{Config, ConfigError};
use crate::machine::own_addresses;

pub(super) fn run(invocation: &Invocation, args: &NewArgs) -> Result<Exit, CommandError> {
    let file = std::path::absolute(&invocation.config)
        .map_err(|error| CommandError::io(format!("{}", invocation.config.display()), &error))?;
    let directory = file.parent().unwrap_or(Path::new("/"));
    let secret_file = directory.join("secret");
    let text = text(args, &secret_file);
    check(args, &text)?;
    // Both first: half a pair would have to be cleaned up by hand.
    for taken in [&file, &secret_file] {
        refuse_existing(taken, "move it away, or name another place (--config)")?;
    }

    let secret = secret::generate()?;
    let line = Zeroizing::new(format!("{}\n", *secret.to_line()));
    fs::create_dir_all(directory)
        .map_err(|error| CommandError::io(format!("making {}", directory.display()), &error))?;
    write_new(&secret_file, &line, 0o600)?;
    write_new(&file, &text, 0o644)?;
    let own = own_addresses().unwrap_or_default();
    let is_other = |node: &&NewNode| !node.addresses.iter().any(|address| own.contains(address));
    // A first host alone is this one, whatever its addresses will be.
    let others = args.nodes.iter().filter(|node| args.nodes.len() > 1 && is_other(node));
    print(&next_steps(&file, &secret_file, others, &secret.id().to_string()))?;
    Ok(Exit::Done)
}

/// Refuses to go on where `file` exists, and says what to do `instead`.
pub(super) fn refuse_existing(file: &Path, instead: &str) -> Result<(), CommandError> {
    match fs::symlink_metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(CommandError::io(format!("looking for {}", file.display()), &error)),
        Ok(_) => {
            let message = format!("{} exists and is not overwritten: {instead}", file.display());
            Err(CommandError::new(Exit::Usage, message))
        }
    }
}

pub(super) fn write_new(file: &Path, contents: &str, mode: u32) -> Result<(), CommandError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
        file.write_all(contents.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| CommandError::io(format!("writing {}", file.display()), &error))
}

/// What the rules of the file say to what was asked for. The places that they name are in a text that
/// nobody has seen, so only the words are shown.
fn check(args: &NewArgs, text: &str) -> Result<(), CommandError> {
    match Config::parse(text, "") {
        Ok(_) => Ok(()),
        Err(ConfigError::Invalid { problems, .. }) => {
            let node = |key: &str| {
                let at: usize = key.strip_prefix("nodes[")?.split(']').next()?.parse().ok()?;
                args.nodes.get(at).map(|node| node.name.clone())
            };
            let describe = |problem: &crate::config::ConfigProblem| {
                let subject = node(&problem.key).unwrap_or_else(|| problem.key.clone());
                let message = problem.message.split(", in line").next().unwrap_or_default();
                format!("{subject}: {message}")
            };
            let problems: Vec<String> = problems.iter().map(describe).collect();
            Err(CommandError::new(Exit::Usage, problems.join("\n")))
        }
        Err(error) => Err(error.into()),
    }
}

fn text(args: &NewArgs, secret_file: &Path) -> String {
    let quote = |text: &str| toml::Value::from(text).to_string();
    let nodes: Vec<String> = args
        .nodes
        .iter()
        .map(|node| {
            let addresses: Vec<String> =
                node.addresses.iter().map(|address| quote(&address.to_string())).collect();
            format!("[[nodes]]\nname = {}\naddresses = [{}]\n", quote(&node.name), addresses.join(", "))
        })
        .collect();
    format!(
        "# The same file on every host; each finds itself by its own addresses.\n\
         # Everything else has its default: `hostseal config check` prints what is in effect.\n\
         cluster = {}\n\n\
         [secret]\nfile = {} # the same on every host, mode 0600\n\n\
         # Only packets between these hosts are touched. Who comes from outside the cluster, by SSH for example,\n\
         # needs no exemption.\n\n{}",
        quote(&args.cluster),
        quote(&secret_file.display().to_string()),
        nodes.join("\n")
    )
}

fn next_steps<'n>(
    file: &Path,
    secret_file: &Path,
    others: impl Iterator<Item = &'n NewNode>,
    secret_id: &str,
) -> String {
    let (config, secret) = (file.display(), secret_file.display());
    let option = match file == Path::new(crate::config::DEFAULT_PATH) {
        true => String::new(),
        false => format!(" --config {config}"),
    };
    let copies: String = others
        .filter_map(|node| {
            let directory = file.parent()?.display();
            let to = node.addresses.first()?;
            let to = if to.is_ipv6() { format!("[{to}]") } else { to.to_string() };
            let bare = node.addresses.first()?;
            Some(format!(
                "  ssh root@{bare} mkdir -p {directory} && scp -p {config} {secret} root@{to}:{directory}/  # {}\n",
                node.name
            ))
        })
        .collect();
    let copy = match copies.is_empty() {
        true => "Add the other hosts to the file as [[nodes]], and copy both to them. Then on every host:"
            .to_owned(),
        false => format!(
            "Copy both to the same place on every other host, readable by root alone:\n{copies}\nThen on every host:"
        ),
    };
    format!(
        "wrote {config}\nwrote {secret} (mode 0600, id {secret_id})\n\n\
         {copy}\n  hostseal{option} config check\n  hostseal{option} enable\n"
    )
}
