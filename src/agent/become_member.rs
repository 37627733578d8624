//! How this host comes to be in a cluster: it founds one (`hostseal init`), or joins one (`hostseal join`). Both leave its
//! keys and the roster in its state directory, where the agent finds them, and nothing else.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use zeroize::Zeroizing;

use super::alarm::Alarm;
use super::process::{self, SystemEntropy};
use super::service::make_directory;
use super::single::Single;
use super::sockets::UdpSockets;
use super::system::moment;
use super::whereabouts::{SaidOfHost, Whereabouts};
use crate::config::{NAT_PORT, lists_nodes};
use crate::control::{NewCluster, NewMember};
use crate::host::joiner::{JoinError, JoinOrder, JoinStep, JoinedRoster, Joiner};
use crate::host::setup::IkePorts;
use crate::identity::{KeyKind, PrivateKey};
use crate::ike::Entropy as _;
use crate::roster::{RecoveryKey, Roster, Token};
use crate::store::{ClusterFiles, NodeKeys, Places, Saved, owner};
use crate::types::{NodeName, Protection};

/// What `hostseal init` is asked for.
#[derive(Debug, Clone)]
pub struct FoundOrder {
    /// What the cluster is to be called.
    pub cluster: String,
    /// What its first node, this host, is to be called; `None`: as the environment (`HOSTSEAL_NODE`) or the system says.
    pub node: Option<NodeName>,
    /// By which addresses the others will reach this host; none: those that its default routes send from.
    pub addresses: Vec<IpAddr>,
}

/// What `hostseal join` is asked for.
pub struct JoinWish {
    /// The token, as `hostseal token create` has printed it.
    pub token: Zeroizing<String>,
    /// What this host is to be called; `None`: as the token, the environment (`HOSTSEAL_NODE`) or the system says.
    pub node: Option<NodeName>,
    /// By which addresses the others will reach this host; none: those that it has towards the members of the token.
    pub addresses: Vec<IpAddr>,
    /// How long it tries to find a member that talks to it.
    pub timeout: Duration,
}

/// Founds a cluster whose first node, an admin, is this host; for `hostseal init`. `path` is the configuration file,
/// which need not be there: it says where the state directory is. Call it as root, with no agent running. Afterwards
/// the keys (0600) and the roster are in `STATE_DIR/cluster`; the recovery key is in what it returns and nowhere else.
///
/// # Errors
/// This host is in a cluster already, its file lists `[[nodes]]`, it is not clear what it is called or where it is, or
/// a file cannot be written. Nothing is changed then, but that keys may be there for the next time.
pub fn init(path: &Path, order: FoundOrder) -> anyhow::Result<NewCluster> {
    process::harden()?;
    let newcomer = Newcomer::find(path)?;
    let single = Single::new(&newcomer.places.run_dir);
    newcomer.end_agent(&single)?;
    make_directory(&newcomer.places.run_dir)?;
    let _claim = single.claim()?;
    let files = &newcomer.files;
    let FoundOrder { cluster, node, addresses } = order;
    let site = Whereabouts::find()?.site(SaidOfHost { node, addresses })?;
    if newcomer.returns {
        files.set_aside()?;
    }
    let keys = files.make_keys(|| PrivateKey::generate(KeyKind::Ed25519))?;
    let mut seed = Zeroizing::new([0; 32]);
    SystemEntropy.fill(seed.as_mut_slice());
    let recovery = RecoveryKey::new(*seed);
    let roster =
        Roster::of_new_cluster(&cluster, site.clone(), [&keys.signing, &keys.ike], &recovery.key()?)?;
    files.save_roster(&roster)?;
    Ok(NewCluster { cluster, node: site.name, addresses: site.addresses, recovery: recovery.to_line() })
}

/// Joins the cluster of a token; for `hostseal join`. `path` as for [`init`]. Call it as root, with no agent running: it
/// talks IKE itself, on UDP 500 and 4500. It tells `progress` how far it is, in words by
/// [`Display`](std::fmt::Display). Afterwards the keys (0600) and the roster are in `STATE_DIR/cluster`, and the agent
/// can start. Where it fails or is ended, the keys stay, and the next try goes on with them: with the same token, name
/// and addresses it succeeds also where a member had admitted this host already.
///
/// # Errors
/// This host is in a cluster already, its file lists `[[nodes]]`, an agent or another IKE daemon runs, it is not clear
/// what it is called or where it is, or it is not let in ([`JoinError`]): each in words
/// that say what to do.
pub fn join(path: &Path, args: JoinWish, progress: &mut dyn FnMut(JoinStep)) -> anyhow::Result<NewMember> {
    process::harden()?;
    let token = Token::from_line(&args.token)?;
    let newcomer = Newcomer::find(path)?;
    let run_dir = &newcomer.places.run_dir;
    let single = Single::new(run_dir);
    newcomer.end_agent(&single)?;
    make_directory(run_dir)?;
    let _claim = single.claim()?;
    if let Some((token_is_for, node)) = token.name.as_ref().zip(args.node.as_ref())
        && token_is_for != node
    {
        bail!("the token is for the node {token_is_for}, not for {node}: leave out `--node`");
    }
    let files = &newcomer.files;
    if newcomer.returns {
        files.set_aside()?;
    }
    let keys = files.make_keys(|| PrivateKey::generate(KeyKind::Ed25519))?;
    let joiner = joiner(token, args, &keys)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let JoinedRoster { roster, own } = runtime.block_on(run(joiner, run_dir, progress))?;
    files.save_roster(&roster)?;
    let view = roster.view();
    let member = view.member(own).context("the roster does not know this host")?;
    Ok(NewMember {
        cluster: view.cluster.clone(),
        node: member.site.name.clone(),
        addresses: member.site.addresses.clone(),
        admin: member.admin,
        nodes: view.members.len(),
        desired_on: view.desired.as_ref().is_some_and(|desired| desired.says.on),
    })
}

/// A host that is in no cluster.
struct Newcomer {
    places: Places,
    /// Where it keeps what it has of its cluster.
    files: ClusterFiles,
    /// It was in one, and is out.
    returns: bool,
}

impl Newcomer {
    fn find(path: &Path) -> anyhow::Result<Self> {
        owner::check(path)?;
        let places = Places::of(path);
        owner::check(&places.state_dir)?;
        let files = ClusterFiles::of(&places.state_dir);
        let returns = match files.load_roster()? {
            None => false,
            Some(_) if files.load()?.is_some_and(|state| state.is_over()) => true,
            Some(roster) => bail!(
                "this host is in the cluster {} already: leave it first (`hostseal leave`), or move {} away where that \
                 cluster is no more",
                roster.view().cluster,
                places.state_dir.join("cluster").display()
            ),
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        if lists_nodes(&text) {
            bail!(
                "{} lists [[nodes]], and a roster would too: keep to the file, or move it away first",
                path.display()
            );
        }
        Ok(Self { places, files, returns })
    }

    /// The agent of a host that is out has nothing to do any more.
    fn end_agent(&self, single: &Single) -> anyhow::Result<()> {
        if !single.runs()? {
            return Ok(());
        }
        let saved = Saved::load(&self.places.state_path())?;
        if self.returns && saved.protection == Protection::Off && !saved.leaving {
            return single.end();
        }
        bail!("the agent runs on this host: stop it (`systemctl stop hostseal`, or SIGTERM) and try again");
    }
}

fn joiner(token: Token, args: JoinWish, keys: &NodeKeys) -> anyhow::Result<Joiner> {
    let remotes: Vec<IpAddr> = token.seeds.iter().map(SocketAddr::ip).collect();
    let said = SaidOfHost { node: args.node.or(token.name.clone()), addresses: args.addresses };
    let mut here = Whereabouts::find()?;
    let sources = here.sources(&remotes);
    if sources.is_empty() {
        return Err(JoinError::no_way(&token).into());
    }
    let site = here.site_at(said, &sources)?;
    let now = moment(Instant::now());
    let order = JoinOrder { token, site, sources, patience: args.timeout };
    let own = [&keys.signing, &keys.ike];
    Ok(Joiner::new(now.now, now.wall, order, own, Box::new(SystemEntropy))?)
}

/// Gives the joiner time and sockets, until it has come to an end.
async fn run(
    mut joiner: Joiner,
    run_dir: &Path,
    progress: &mut dyn FnMut(JoinStep),
) -> anyhow::Result<JoinedRoster> {
    let mut sockets = UdpSockets::new(run_dir);
    let ports = IkePorts { ike: joiner.port(), nat: Some(NAT_PORT) };
    sockets.bind(joiner.sources(), ports).context("hostseal talks IKE itself to join")?;
    let mut alarm = Alarm::new()?;
    joiner.handle_timeout(Instant::now());
    loop {
        while let Some(step) = joiner.poll_step() {
            progress(step);
        }
        let transmits: Vec<_> = std::iter::from_fn(|| joiner.poll_transmit()).collect();
        for unsent in sockets.send(&transmits) {
            tracing::debug!("{} to {}: {}", unsent.local, unsent.remote, unsent.why);
        }
        if let Some(outcome) = joiner.poll_outcome() {
            return Ok(outcome?);
        }
        alarm.set(Instant::now(), joiner.poll_timeout())?;
        tokio::select! {
            (now, datagrams) = sockets.receive() => {
                for datagram in datagrams {
                    joiner.handle_datagram(now, datagram.local, datagram.remote, &datagram.bytes);
                }
            }
            () = alarm.ring() => joiner.handle_timeout(Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn who_is_in_a_cluster_or_has_a_list_of_nodes_is_no_newcomer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hostseal.toml");
        let state_dir = directory.path().join("state");
        let local = format!("state_dir = \"{}\"\n", state_dir.display());
        fs::write(&path, &local).unwrap();
        let files = Newcomer::find(&path).unwrap().files;
        let keys = files.make_keys(|| PrivateKey::generate(KeyKind::Ed25519)).unwrap();
        let site = crate::roster::Site {
            name: "a".parse().unwrap(),
            addresses: vec![[10, 0, 0, 1].into()],
            inside: Default::default(),
        };
        let recovery = RecoveryKey::new([7; 32]).key().unwrap();
        let roster = Roster::of_new_cluster("prod", site, [&keys.signing, &keys.ike], &recovery).unwrap();
        assert!(Newcomer::find(&path).is_ok_and(|it| !it.returns), "keys alone are of no cluster");
        files.save_roster(&roster).unwrap();
        let words = Newcomer::find(&path).err().unwrap().to_string();
        assert!(words.starts_with("this host is in the cluster prod already: leave it first"), "{words}");
        fs::remove_dir_all(&state_dir).unwrap();
        fs::write(&path, local + "[[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n").unwrap();
        let words = Newcomer::find(&path).err().unwrap().to_string();
        assert!(words.contains("hostseal.toml lists [[nodes]]"), "{words}");
    }
}
