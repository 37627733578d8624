//! `hostseal prove --verify`: whether a report is what its node has signed.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::sheet::Whose;
use super::show;
use crate::cli::args::{Invocation, ProveArgs};
use crate::cli::context;
use crate::cli::exit::{CommandError, Exit};
use crate::cli::term::tell;
use crate::identity::PublicKey;
use crate::observe::proof_report::{NotAReport, ProofReport};
use crate::store::ClusterFiles;
use crate::types::NodeName;

/// The longest report that is read: one of 10,000 pairs is a tenth of it.
const REPORT_MAX: u64 = 128 << 20;

pub(super) fn run(invocation: &Invocation, file: &Path, args: &ProveArgs) -> Result<Exit, CommandError> {
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        fs::File::open(file)?.take(REPORT_MAX + 1).read_to_string(&mut text)?;
        match text.len() as u64 > REPORT_MAX {
            true => Err(std::io::Error::other("it is too long for a report")),
            false => Ok(text),
        }
    };
    let text = read().map_err(|error| CommandError::io(format!("reading {}", file.display()), &error))?;
    let refused = |error: NotAReport| CommandError::new(Exit::Failed, format!("{}: {error}", file.display()));
    let claimed = ProofReport::read(&text).map_err(refused)?;
    if claimed.signature.is_none() {
        return Err(refused(NotAReport::Unsigned));
    }
    let (key, whence) = match &args.key {
        Some(given) => (given_key(given)?, "the key that was given".to_owned()),
        None => known_key(invocation, &claimed.node)?,
    };
    let report = ProofReport::verified(&text, |_| key).map_err(refused)?;
    if !invocation.quiet {
        tell(&format!(
            "{} has signed this report (verified with {whence}), and it was not changed since. Its clock said {}. The \
             signature does not show that the node told the truth",
            report.node, report.time
        ));
    }
    show(&report, args.json, Whose::Verified)
}

/// A key on the command line: its line, or a file with that.
fn given_key(given: &str) -> Result<PublicKey, CommandError> {
    let bare = |text: &str| {
        let text = text.trim();
        let value = text.strip_prefix("public_key").and_then(|rest| rest.trim_start().strip_prefix('='));
        value.map_or(text, |value| value.trim().trim_matches('"')).parse::<PublicKey>()
    };
    if let Ok(key) = bare(given) {
        return Ok(key);
    }
    let text = fs::read_to_string(given)
        .map_err(|error| CommandError::io(format!("--key: {given} is neither a key nor a file"), &error))?;
    bare(&text).map_err(|error| CommandError::new(Exit::Usage, format!("--key: {given}: {error}")))
}

/// The key of a node, as this host knows it: from the roster of its cluster, else from the file.
fn known_key(invocation: &Invocation, node: &NodeName) -> Result<(PublicKey, String), CommandError> {
    let (config, _) = context::config_at_work(invocation)?;
    if let Ok(Some(roster)) = ClusterFiles::of(&config.state_dir).load_roster() {
        let members = &roster.view().members;
        let keys = members.iter().find(|member| member.site.name == *node).and_then(|it| it.keys.as_ref());
        if let Some(key) = keys.and_then(|keys| keys.signing.public_key().ok()) {
            return Ok((key, "its key as the cluster knows it".to_owned()));
        }
    }
    let listed = config.nodes.iter().find(|listed| listed.name == *node);
    match listed.and_then(|listed| listed.public_key.clone()) {
        Some(key) => Ok((key, "its key as the configuration lists it".to_owned())),
        None => Err(CommandError::new(
            Exit::Usage,
            format!(
                "no key of {node} is known here: name it (`--key`; `hostseal key show` on {node} prints it)"
            ),
        )),
    }
}
