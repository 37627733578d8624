//! `hostseal floating`: addresses that move between nodes.

use super::member::{OwnMember, say};
use crate::cli::args::{FloatingArgs, FloatingCommand, Invocation};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::term::{print, print_json};
use crate::control::{ClusterReply, ClusterRequest, FloatingOrder, FloatingRow};

pub(in crate::cli) fn floating(invocation: &Invocation, args: &FloatingArgs) -> Result<Exit, CommandError> {
    let member = OwnMember::of(invocation)?;
    match &args.command {
        None => {
            let rows = member.ask(ClusterRequest::Floating, |reply| match reply {
                ClusterReply::Floating(rows) => Some(rows),
                _ => None,
            })?;
            match args.json {
                true => print_json(&rows)?,
                false => print(&lines(&rows))?,
            };
            Ok(Exit::Done)
        }
        Some(FloatingCommand::Set(args)) => {
            let (name, addresses, nodes) = (args.name.clone(), args.addresses.clone(), args.nodes.clone());
            let done = format!("{name} may be at each of these nodes: whichever has it speaks for it");
            let order = ClusterRequest::SetFloating(FloatingOrder { name, addresses, nodes });
            say(args.order.json, &done, &member.order(order, args.order.alone)?)
        }
        Some(FloatingCommand::Remove(args)) => {
            let order = ClusterRequest::RemoveFloating(args.name.clone());
            let notes = member.order(order, args.order.alone)?;
            say(args.order.json, &format!("{} is no more: its pairs go to the clear", args.name), &notes)
        }
    }
}

fn lines(rows: &[FloatingRow]) -> String {
    if rows.is_empty() {
        return "no addresses move between nodes\n".to_owned();
    }
    rows.iter().map(|row| format!("{}  {}\n", row.name, row.in_words())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_floats_and_where() {
        let row = FloatingRow {
            name: "vip".parse().unwrap(),
            addresses: vec!["10.0.0.100".parse().unwrap()],
            nodes: vec!["a".parse().unwrap(), "b".parse().unwrap()],
        };
        assert_eq!(lines(&[row]), "vip  10.0.0.100 at a, b\n");
        assert_eq!(lines(&[]), "no addresses move between nodes\n");
    }
}
