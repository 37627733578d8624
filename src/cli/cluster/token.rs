//! `hostseal token create`: what joins one node.

use std::time::SystemTime;

use serde::Serialize;
use zeroize::Zeroizing;

use super::member::{OwnMember, on_terms};
use crate::cli::args::{CreateTokenArgs, Invocation, TokenCommand};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::term::{print, print_json, tell};
use crate::control::{ClusterReply, ClusterRequest, SecretLine, TokenOrder};
use crate::types::UnixTime;
use crate::types::units::human_duration;

/// A token, for programs.
#[derive(Serialize)]
struct CreatedToken<'t> {
    token: &'t SecretLine,
    command: &'t str,
    expires: UnixTime,
}

pub(in crate::cli) fn token(invocation: &Invocation, command: &TokenCommand) -> Result<Exit, CommandError> {
    let TokenCommand::Create(args) = command;
    let order = TokenOrder {
        node: args.node.clone(),
        admin: args.admin,
        ttl_s: args.ttl.as_secs(),
        within: args.within.clone(),
    };
    let (token, expires) = OwnMember::of(invocation)?.ask(
        on_terms(ClusterRequest::CreateToken(order), args.order.alone),
        |reply| match reply {
            ClusterReply::Token { token, expires } => Some((token, expires)),
            _ => None,
        },
    )?;
    let command = Zeroizing::new(format!("hostseal join {}", token.0));
    if args.order.json {
        print_json(&CreatedToken { token: &token, command: &command, expires })?;
        return Ok(Exit::Done);
    }
    print(&Zeroizing::new(format!("{}\n", *command)))?;
    if !invocation.quiet {
        tell(&good_for(args, expires, SystemTime::now().into()));
    }
    Ok(Exit::Done)
}

/// What the token is good for, in words.
fn good_for(args: &CreateTokenArgs, expires: UnixTime, now: UnixTime) -> String {
    let node = args.node.as_ref().map_or_else(|| "one node".to_owned(), |node| format!("node {node}"));
    let within = match args.within.as_slice() {
        [] => String::new(),
        within => format!(" with addresses in {}", within.join(", ")),
    };
    let admin = if args.admin { ", which will be an admin" } else { "" };
    format!(
        "run this on {node}{within}{admin}: once, and until {expires} ({} from now). Whoever has the token can join \
         in its place",
        human_duration(expires.since(now))
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::args::OrderArgs;

    #[test]
    fn what_a_token_is_good_for() {
        let mut args = CreateTokenArgs {
            node: None,
            admin: false,
            ttl: Duration::from_secs(600),
            within: Vec::new(),
            order: OrderArgs { alone: false, json: false },
        };
        let words = |args: &CreateTokenArgs| good_for(args, UnixTime(1_767_226_200), UnixTime(1_767_225_600));
        assert_eq!(
            words(&args),
            "run this on one node: once, and until 2026-01-01T00:10:00Z (10m from now). Whoever has the token can \
             join in its place"
        );
        args.node = Some("c".parse().unwrap());
        args.admin = true;
        args.within = vec!["10.0.0.0/16".to_owned(), "fd00::/64".to_owned()];
        assert!(
            words(&args).starts_with(
                "run this on node c with addresses in 10.0.0.0/16, fd00::/64, which will be an admin: once"
            ),
            "{}",
            words(&args)
        );
    }
}
