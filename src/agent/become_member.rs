//! How this host comes to be in a cluster: it founds one (`hostseal init`), or joins one (`hostseal join`). Both leave its
//! keys and the roster in its state directory, where the agent finds them, and nothing else.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use super::alarm::Alarm;
use super::process::{self, SystemEntropy};
use super::service::make_directory;
use super::single::{Claim, Single};
use super::sockets::UdpSockets;
use super::system::moment;
use super::whereabouts::{SaidOfHost, Whereabouts};
use crate::config::{Config, NAT_PORT, lists_nodes};
use crate::control::{NewCluster, NewMember};
use crate::host::file_host::{FileHost, to_join};
use crate::host::joiner::{JoinError, JoinOrder, JoinStep, JoinedRoster, Joiner};
use crate::host::setup::IkePorts;
use crate::identity::{AuthMethod, KeyKind, PrivateKey};
use crate::ike::Entropy as _;
use crate::machine::{named_node, own_addresses};
use crate::roster::{RecoveryKey, Roster, Site, Token};
use crate::store::{ClusterFiles, NodeKeys, Places, Saved, config_file, credentials, owner};
use crate::types::{NodeName, Protection};

/// What is told where somebody ends it.
const ENDED: &str = "ended before this host was let in";

/// What `hostseal init` is asked for.
#[derive(Debug, Clone)]
pub struct FoundOrder {
    /// What the cluster is to be called.
    pub cluster: String,
    /// What its first node, this host, is to be called; `None`: as the environment (`HOSTSEAL_NODE`) or the system says.
    pub node: Option<NodeName>,
    /// By which addresses the others will reach this host; none: those that its default routes send from.
    pub addresses: Vec<IpAddr>,
    /// The cluster has the nodes and the settings of the file that this host runs by, which also says who and where this
    /// host is.
    pub from_file: bool,
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
/// which need not be there: it says where the state directory is. Call it as root, with no agent running, or with that of a
/// host that runs by the file, which ends. Afterwards the keys (0600) and the roster are in `STATE_DIR/cluster`; the
/// recovery key is in what it returns and nowhere else.
///
/// # Errors
/// This host is in a cluster already, its file lists `[[nodes]]` or cannot be taken over, it is not clear what it is
/// called or where it is, or a file cannot be written. Nothing is changed then, but that keys may be there for the next
/// time, and that the agent may have ended.
pub fn init(path: &Path, order: FoundOrder) -> anyhow::Result<NewCluster> {
    process::harden()?;
    let newcomer = Newcomer::find(path)?;
    newcomer.ensure_source(path, order.from_file)?;
    let single = Single::new(&newcomer.places.run_dir);
    let mut seed = Zeroizing::new([0; 32]);
    SystemEntropy.fill(seed.as_mut_slice());
    let recovery = RecoveryKey::new(*seed);
    let recovery_key = recovery.key()?;
    let FoundOrder { cluster, node, addresses, .. } = order;
    let (roster, _claim) = if let Some(file) = &newcomer.file {
        // This host goes on as before until it is known that it can.
        let NodeKeys { signing, ike } = newcomer.make_keys()?;
        let wall = moment(Instant::now()).wall;
        let roster = file.found(&cluster, [&signing, &ike], &recovery_key, wall)?;
        (roster, newcomer.take_over(&single)?)
    } else {
        let claim = newcomer.take_over(&single)?;
        let site = Whereabouts::find()?.site(SaidOfHost { node, addresses })?;
        let NodeKeys { signing, ike } = newcomer.make_keys()?;
        (Roster::of_new_cluster(&cluster, site, [&signing, &ike], &recovery_key)?, claim)
    };
    let former_file = newcomer.keep(path, &roster)?;
    let view = roster.view();
    let own = view.member(roster.cluster().into()).context("the roster does not know this host")?;
    Ok(NewCluster {
        cluster,
        node: own.site.name.clone(),
        addresses: own.site.addresses.clone(),
        recovery: recovery.to_line(),
        to_join: to_join(view),
        former_file,
        desired_on: view.desired.as_ref().is_some_and(|desired| desired.says.on),
    })
}

/// Joins the cluster of a token; for `hostseal join`. `path` as for [`init`]. Call it as root, with no agent running, or
/// with that of a host that runs by the file, which ends: it talks IKE itself, on UDP 500 and 4500. It tells `progress`
/// how far it is, in words by [`Display`](std::fmt::Display). Afterwards the keys (0600) and the roster are in
/// `STATE_DIR/cluster`, and the agent can start. Where it fails or is ended, the keys stay, and the next try goes on with
/// them: with the same token, name and addresses it succeeds also where a member had admitted this host already.
///
/// # Errors
/// This host is in a cluster already, it runs by a file that a roster cannot stand for, an agent or another IKE daemon
/// runs, it is not clear what it is called or where it is, or it is not let in ([`JoinError`]): each in words
/// that say what to do.
pub fn join(path: &Path, args: JoinWish, progress: &mut dyn FnMut(JoinStep)) -> anyhow::Result<NewMember> {
    process::harden()?;
    let token = Token::from_line(&args.token)?;
    let newcomer = Newcomer::find(path)?;
    newcomer.ensure_named(&token, &args)?;
    let run_dir = newcomer.places.run_dir.clone();
    let _claim = newcomer.take_over(&Single::new(&run_dir))?;
    let keys = newcomer.make_keys()?;
    let joiner = joiner(token, args, newcomer.file.as_ref(), &keys)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let JoinedRoster { roster, own } = runtime.block_on(run(joiner, &run_dir, progress))?;
    let former_file = newcomer.keep(path, &roster)?;
    let view = roster.view();
    let member = view.member(own).context("the roster does not know this host")?;
    Ok(NewMember {
        cluster: view.cluster.clone(),
        node: member.site.name.clone(),
        addresses: member.site.addresses.clone(),
        admin: member.admin,
        nodes: view.members.len(),
        desired_on: view.desired.as_ref().is_some_and(|desired| desired.says.on),
        to_join: to_join(view),
        former_file,
    })
}

/// A host that is in no cluster.
struct Newcomer {
    places: Places,
    /// Where it keeps what it has of its cluster.
    files: ClusterFiles,
    /// It was in one, and is out.
    returns: bool,
    /// It runs by a file.
    file: Option<FileHost>,
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
        let file = Self::find_file(path, &places, returns)?;
        Ok(Self { places, files, returns, file })
    }

    /// The file that this host runs by, where it does.
    fn find_file(path: &Path, places: &Places, returns: bool) -> anyhow::Result<Option<FileHost>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        if !lists_nodes(&text) {
            return Ok(None);
        }
        if returns {
            let cluster = places.state_dir.join("cluster");
            bail!(
                "{} lists [[nodes]], and {} has a roster: move the one away that does not count any more",
                path.display(),
                cluster.display()
            );
        }
        let config = Config::parse(&text, &path.display().to_string())?;
        let saved = Saved::load(&places.state_path())?;
        let own = own_addresses().context("this host's addresses cannot be listed")?;
        let node = config.whoami(&own, named_node().as_deref(), saved.node.as_ref())?.clone();
        // What is wrong with its secret or its key is said while it still runs.
        if config.kms.is_some() && config.uses(AuthMethod::Secret) {
            bail!(
                "nodes of a cluster with a roster prove themselves with keys, and this host does with the secret that [kms] \
                 unwraps: first go on with auth.method = \"public_key\" and `ppk.wrapped = true` on all hosts"
            );
        }
        credentials::load_secrets(&config)?;
        credentials::load(&config, &node)?;
        let host = FileHost::new(config, node, &saved);
        host.map(Some).with_context(|| format!("{} cannot become a roster", path.display()))
    }

    /// That the file and nothing else says what the cluster is to be, or the operator.
    fn ensure_source(&self, path: &Path, from_file: bool) -> anyhow::Result<()> {
        match (&self.file, from_file) {
            (Some(_), false) => bail!(
                "{} lists [[nodes]], and a roster would too: `hostseal init NAME --from-file` makes a cluster of these \
                 nodes, and protection stays on. To begin anew, move the file away first",
                path.display()
            ),
            (None, true) => bail!("{} lists no [[nodes]]: leave out --from-file", path.display()),
            _ => Ok(()),
        }
    }

    /// That the token is for the node that this host is, as far as it is known.
    fn ensure_named(&self, token: &Token, args: &JoinWish) -> anyhow::Result<()> {
        let of_file = self.file.as_ref().map(FileHost::name);
        if let Some((of_file, node)) =
            of_file.zip(args.node.as_ref()).filter(|(of_file, node)| of_file != node)
        {
            bail!("this host is {of_file} in its file, and not {node}: leave out `--node`");
        }
        match token.name.as_ref().zip(args.node.as_ref().or(of_file)) {
            Some((token_is_for, node)) if token_is_for != node && of_file.is_some() => {
                bail!("the token is for the node {token_is_for}, and this host is {node} in its file")
            }
            Some((token_is_for, node)) if token_is_for != node => {
                bail!("the token is for the node {token_is_for}, not for {node}: leave out `--node`")
            }
            _ => Ok(()),
        }
    }

    /// Ends the agent where it has nothing to do any more, or another one goes on with what it did. No other starts as long
    /// as the result is there.
    fn take_over(&self, single: &Single) -> anyhow::Result<Claim> {
        self.end_agent(single)?;
        make_directory(&self.places.run_dir)?;
        single.claim()
    }

    fn end_agent(&self, single: &Single) -> anyhow::Result<()> {
        if !single.runs()? {
            return Ok(());
        }
        let saved = Saved::load(&self.places.state_path())?;
        let is_out = self.returns && saved.protection == Protection::Off && !saved.leaving;
        if is_out || self.file.is_some() {
            return single.end();
        }
        if self.returns {
            bail!(
                "this host is out of its cluster, and its agent is still going back to the clear: try again when \
                 `hostseal status` says that protection is off, or stop the agent (`systemctl stop hostseal`)"
            );
        }
        bail!("the agent runs on this host: stop it (`systemctl stop hostseal`, or SIGTERM) and try again");
    }

    /// The keys of this node, made where there are none. A host that its peers know by a key keeps it.
    fn make_keys(&self) -> anyhow::Result<NodeKeys> {
        self.forget_wish()?;
        if self.returns {
            self.files.set_aside()?;
        }
        if let Some(key) = self.file.as_ref().and_then(FileHost::key_file) {
            self.files.take_key(key)?;
        }
        Ok(self.files.make_keys(|| PrivateKey::generate(KeyKind::Ed25519))?)
    }

    /// What its operator wanted of the node that this host was is nothing that the next one goes by: `disable --force`
    /// wants it in the clear whatever the cluster is to do, and that may be the cluster it comes back to.
    fn forget_wish(&self) -> anyhow::Result<()> {
        let file = self.places.state_path();
        let mut saved = Saved::load(&file)?;
        if saved.followed.take().is_some() {
            saved.save(&file)?;
        }
        Ok(())
    }

    /// Keeps the roster. The file that this host ran by says local things alone from then on; where it is kept is returned.
    fn keep(&self, path: &Path, roster: &Roster) -> anyhow::Result<Option<PathBuf>> {
        let Some(file) = &self.file else {
            self.files.save_roster(roster)?;
            return Ok(None);
        };
        let former = config_file::former(path);
        config_file::set_aside(path)?;
        self.files.save_roster(roster)?;
        let local = file.local(&roster.view().cluster, &former);
        config_file::write(path, &local).with_context(|| {
            format!("this host is a member now: have {} say this and nothing else:\n{local}", path.display())
        })?;
        Ok(Some(former))
    }
}

fn joiner(token: Token, args: JoinWish, file: Option<&FileHost>, keys: &NodeKeys) -> anyhow::Result<Joiner> {
    let remotes: Vec<IpAddr> = token.seeds.iter().map(SocketAddr::ip).collect();
    let said = SaidOfHost { node: args.node.or(token.name.clone()), addresses: args.addresses };
    let mut here = Whereabouts::find()?;
    let sources = here.sources(&remotes);
    if sources.is_empty() {
        return Err(JoinError::no_way(&token).into());
    }
    let site = match file {
        // What a NAT turns its addresses into, the roster says.
        Some(file) => Site { inside: Default::default(), ..file.site() },
        None => here.site_at(said, &sources)?,
    };
    let peers = file.map(FileHost::peers).unwrap_or_default();
    let now = moment(Instant::now());
    let order = JoinOrder { token, site, sources, peers, patience: args.timeout };
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
    // If it is ended, the earlier agent goes on.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
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
            _ = hangup.recv() => bail!(ENDED),
            _ = interrupt.recv() => bail!(ENDED),
            _ = terminate.recv() => bail!(ENDED),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::roster::EntryId;

    #[test]
    fn who_is_in_a_cluster_or_has_a_list_of_nodes_is_no_newcomer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hostseal.toml");
        let state_dir = directory.path().join("state");
        let local = format!("state_dir = \"{}\"\n", state_dir.display());
        fs::write(&path, &local).unwrap();
        let files = Newcomer::find(&path).unwrap().files;
        let keys = files.make_keys(|| PrivateKey::generate(KeyKind::Ed25519)).unwrap();
        let site = Site {
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
        fs::write(
            &path,
            format!("cluster = \"x\"\n{local}[[nodes]]\nname = \"a\"\naddresses = [\"203.0.113.77\"]\n"),
        )
        .unwrap();
        let words = Newcomer::find(&path).err().unwrap().to_string();
        assert!(words.starts_with("this host is not in the file"), "{words}");
    }

    /// A host that was off when it was removed is taken out of the cluster with `disable --force`, and joins it again.
    #[test]
    fn what_was_wanted_of_an_earlier_node_does_not_count_for_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hostseal.toml");
        fs::write(&path, format!("state_dir = \"{}\"\n", directory.path().join("state").display())).unwrap();
        let newcomer = Newcomer::find(&path).unwrap();
        let state = newcomer.places.state_path();
        let followed = Some(EntryId::new([7; 32]));
        Saved { followed, ..Saved::default() }.save(&state).unwrap();
        newcomer.make_keys().unwrap();
        assert_eq!(Saved::load(&state).unwrap().followed, None);
    }
    /// Its agent may still be going back to the clear, in stages.
    #[test]
    fn who_is_out_and_joins_too_soon_is_told_what_to_wait_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hostseal.toml");
        fs::write(&path, format!("state_dir = \"{}\"\n", directory.path().join("state").display())).unwrap();
        let newcomer = Newcomer::find(&path).unwrap();
        Saved { leaving: true, ..Saved::default() }.save(&newcomer.places.state_path()).unwrap();
        let single = Single::of_test(directory.path(), directory.path());
        let agent = single.claim().unwrap();
        let words = |newcomer: &Newcomer| newcomer.end_agent(&single).unwrap_err().to_string();
        assert!(words(&newcomer).starts_with("the agent runs on this host: stop it"));
        let newcomer = Newcomer { returns: true, ..newcomer };
        let waits = words(&newcomer);
        assert!(
            waits.contains("still going back to the clear: try again when `hostseal status` says"),
            "{waits}"
        );
        drop(agent);
        newcomer.end_agent(&single).unwrap();
    }
}
