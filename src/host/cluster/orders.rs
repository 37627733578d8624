//! What the operator orders becomes entries that this node signs. They are written first, and told then: a node that
//! dies in between has said nothing, or remembers what it has said.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use zeroize::Zeroizing;

use super::ordered::settings_entry;
use super::{ClusterPart, Host, done, moving, relocate};
use crate::control::{AddOrder, ClusterReply, ClusterRequest, ErrorCode, Reply, SecretLine, TokenOrder};
use crate::host::answer::refusal;
use crate::host::core::Core;
use crate::host::ledger::Asker;
use crate::host::membership::Membership;
use crate::identity::PrivateKey;
use crate::roster::{
    AddressBlock, ClusterSettings, ClusterTrial, DesiredProtection, EntryId, IkeKey, Invite, Listed,
    RecoveryKey, Removed, Roster, RosterView, Rotation, Saying, Seconds, SignedEntry, Signer, Site,
    Statement, Token,
};
use crate::store::{settings_in_force, shared};
use crate::types::{NodeName, Protection, UnixTime, trial};

/// What is told where a host that belongs to no cluster is asked about it.
const NO_MEMBER: &str = "this host belongs to no cluster: `hostseal init NAME` makes one, and `hostseal join TOKEN` \
                         joins one";
/// What is told where what this node knows may be old.
const NOT_HEARD: &str = "this node has heard no other member since its start, so what it knows of the cluster may be old: \
                         wait until one answers (`hostseal status --cluster`), or say --alone";
/// The most orders that wait for the one before them.
const ORDERS_MAX: usize = 16;
/// The longest that a token is good.
const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// The most addresses of members that a token names.
const SEEDS_MAX: usize = 8;

/// An order that is signed.
pub(super) struct SignedOrder {
    pub(super) entries: Vec<SignedEntry>,
    /// What is answered once it is written, and to whom; `None` where nobody has ordered it here.
    pub(super) answer: Option<(Asker, ClusterReply)>,
}

/// What an order signs, and what is answered then.
struct Drafted {
    statements: Vec<Statement>,
    /// The key of an invite, which signs with this node's.
    token: Option<PrivateKey>,
    reply: ClusterReply,
}

impl Drafted {
    fn new(statements: Vec<Statement>) -> Self {
        Self { statements, token: None, reply: done() }
    }
}

impl Host {
    /// Takes an order about the cluster, or a question.
    pub(in crate::host) fn handle_cluster_request(
        &mut self,
        now: Instant,
        asker: Asker,
        request: ClusterRequest,
    ) {
        let Some(cluster) = &mut self.cluster else {
            let message = NO_MEMBER.to_owned();
            return self.answer(now, asker, Reply::Error { code: ErrorCode::Cluster, message });
        };
        match request {
            ClusterRequest::Status => {
                let all = self.call_members(now);
                self.ask_members(now, vec![asker], all);
            }
            ClusterRequest::Preview(settings) => self.ask_previews(now, asker, settings),
            ClusterRequest::Checks => self.ask_checks(now, asker),
            ClusterRequest::Proofs(request) => self.ask_proofs(now, asker, request),
            ClusterRequest::Pairs => self.ask_pairs(now, vec![asker]),
            ClusterRequest::Settings => {
                let of_view = |(roster, _): (&Roster, _)| {
                    settings_in_force(roster.view(), self.tried_settings()).to_owned()
                };
                let toml = self.roster().map(of_view).unwrap_or_default();
                let entry =
                    self.roster().map(|(roster, _)| settings_entry(roster.view())).unwrap_or_default();
                let on_trial = self.tried_settings().is_some();
                self.answer(now, asker, Reply::Cluster(ClusterReply::Settings { toml, on_trial, entry }));
            }
            ClusterRequest::Floating => {
                let rows = self.roster().map(|(roster, _)| moving::rows(roster.view()));
                self.answer(now, asker, Reply::Cluster(ClusterReply::Floating(rows.unwrap_or_default())));
            }
            _ if cluster.orders.len() >= ORDERS_MAX => {
                let message = "many orders wait already: try again".to_owned();
                self.answer(now, asker, Reply::Error { code: ErrorCode::Failed, message });
            }
            order => cluster.orders.push_back((asker, order)),
        }
    }

    /// Asks how the cluster stands, for all of these onlookers.
    pub(in crate::host) fn ask_cluster(
        &mut self,
        now: Instant,
        request: &ClusterRequest,
        askers: Vec<Asker>,
    ) {
        match self.cluster {
            Some(_) if *request == ClusterRequest::Pairs => self.ask_pairs(now, askers),
            // They may look all the time: nobody is called for that.
            Some(_) => self.ask_members(now, askers, self.near_members()),
            None => {
                let message = NO_MEMBER.to_owned();
                self.answer_all(now, askers, Reply::Error { code: ErrorCode::Cluster, message });
            }
        }
    }

    /// Takes what this node says without being asked, or signs the next order.
    pub(super) fn begin_order(&mut self, now: Instant) {
        // A write that has begun does not have it.
        let is_free = |cluster: &ClusterPart| cluster.signed.is_none() && !cluster.is_writing;
        if !self.cluster.as_ref().is_some_and(is_free) {
            return;
        }
        let signed = match self.say_unasked(now) {
            Some(entries) => Some(SignedOrder { entries, answer: None }),
            None => self.sign_next(now),
        };
        if let Some(cluster) = &mut self.cluster {
            cluster.signed = signed;
        }
    }

    /// What this node says of somebody who joins, or of its keys.
    fn say_unasked(&mut self, now: Instant) -> Option<Vec<SignedEntry>> {
        let joins = self.core.as_mut().and_then(Core::poll_signed);
        joins.or_else(|| self.say_of_keys(now))
    }

    /// The next order that can be signed. Who has ordered others is told why not.
    fn sign_next(&mut self, now: Instant) -> Option<SignedOrder> {
        loop {
            let (asker, order) = self.cluster.as_mut()?.orders.pop_front()?;
            match self.sign(order) {
                Ok((entries, reply)) => return Some(SignedOrder { entries, answer: Some((asker, reply)) }),
                Err(error) => self.answer(now, asker, refusal(ErrorCode::Cluster, &error)),
            }
        }
    }

    fn sign(&mut self, order: ClusterRequest) -> anyhow::Result<(Vec<SignedEntry>, ClusterReply)> {
        ensure!(
            self.core.is_some(),
            "this host cannot talk to its cluster: {}",
            self.trouble().unwrap_or("see its log")
        );
        let wall = self.moment.wall;
        let (order, alone) = match order {
            ClusterRequest::Alone(order) => (*order, true),
            order => (order, false),
        };
        ensure!(alone || self.membership().is_some_and(Membership::is_up_to_date), NOT_HEARD);
        let drafted = match order {
            ClusterRequest::Recovered { key, order } => {
                let key = RecoveryKey::from_line(&key.0)?.key()?;
                return self.sign_recovered(*order, &key, wall);
            }
            ClusterRequest::CreateToken(order) => {
                let mut seed = Zeroizing::new([0; 32]);
                (self.chance)().fill(seed.as_mut());
                self.draft_token(&order, wall, &seed)?
            }
            order => self.draft(order, self.signer()?, wall)?,
        };
        let (roster, _) = self.roster().context(NO_MEMBER)?;
        let signing = &self.cluster.as_ref().context(NO_MEMBER)?.signing;
        let keys: Vec<&PrivateKey> = [signing.as_ref()].into_iter().chain(&drafted.token).collect();
        let sign = |statement| SignedEntry::sign(roster.cluster(), statement, &keys);
        let entries = drafted.statements.into_iter().map(sign).collect::<Result<_, _>>()?;
        Ok((entries, drafted.reply))
    }

    /// What the recovery key signs. It is on no host, and this one forgets it at once.
    fn sign_recovered(
        &self,
        order: ClusterRequest,
        key: &PrivateKey,
        wall: UnixTime,
    ) -> anyhow::Result<(Vec<SignedEntry>, ClusterReply)> {
        let (roster, _) = self.roster().context(NO_MEMBER)?;
        let by = Signer::of(key).context("the recovery key is of another kind")?;
        ensure!(by == roster.view().recovery, "this is not the recovery key of this cluster");
        let Drafted { statements, reply, .. } = self.draft(order, by, wall)?;
        let sign = |statement| SignedEntry::sign(roster.cluster(), statement, &[key]);
        Ok((statements.into_iter().map(sign).collect::<Result<_, _>>()?, reply))
    }

    fn draft(&self, order: ClusterRequest, by: Signer, wall: UnixTime) -> anyhow::Result<Drafted> {
        let (roster, (own, _)) = self.roster().context(NO_MEMBER)?;
        let view = roster.view();
        let one = |says| Ok(Drafted::new(vec![roster.draft(by, says, wall)?]));
        match order {
            ClusterRequest::Enable { try_s } => {
                one(enabled(view, self.cluster_trial().is_some(), try_s, wall)?)
            }
            ClusterRequest::Confirm => {
                let desired = self.cluster_trial().map(|trial| {
                    Saying::Desired(DesiredProtection { on: true, trial: None, confirms: Some(trial) })
                });
                let settings = self.tried_settings().map(|tried| {
                    Saying::Settings(ClusterSettings::lasting(settings_in_force(view, Some(tried))))
                });
                ensure!(
                    desired.is_some() || settings.is_some(),
                    "no trial of the cluster waits to be confirmed: there was none, it is over, or somebody has \
                     confirmed it"
                );
                let mut confirmed = Drafted::new(Vec::new());
                confirmed.statements.extend(desired.map(|says| roster.draft(by, says, wall)).transpose()?);
                match settings.map(|says| roster.draft(by, says, wall)).transpose() {
                    Ok(settings) => confirmed.statements.extend(settings),
                    Err(error) if confirmed.statements.is_empty() => return Err(error.into()),
                    // Any node keeps what is protected; the settings go back unless an admin keeps them.
                    Err(error) => {
                        let notes = vec![format!("the settings on trial are not confirmed: {error}")];
                        confirmed.reply = ClusterReply::Done { notes };
                    }
                }
                Ok(confirmed)
            }
            ClusterRequest::Disable => {
                one(Saying::Desired(DesiredProtection { on: false, trial: None, confirms: None }))
            }
            ClusterRequest::Rotate => one(Saying::Rotation(Rotation {})),
            ClusterRequest::Add(order) => one(listed(roster, own, order)?),
            ClusterRequest::Move(order) => {
                let says = relocate::moved(view, (named(view, &order.node)?, own), order)?;
                let notes = relocate::notes(&says, own, self.here.as_ref().map(|here| &here.own));
                Ok(Drafted { reply: ClusterReply::Done { notes }, ..one(says)? })
            }
            ClusterRequest::Remove { node, address, compromised } => {
                let gone = if compromised { gone_by_name(view, &node, address) } else { Vec::new() };
                let lines = match gone.as_slice() {
                    [] => vec![named_at(view, &node, address)?],
                    gone => not_yet_compromised(gone, &node, address)?,
                };
                ensure!(
                    !compromised || roster.line_of(&by).is_none_or(|own| !lines.contains(&own)),
                    "a thief could say this of {node} too, so its word does not count: run the command on another \
                     admin node, or say --recovery-key"
                );
                let drafts = lines.into_iter().map(|of| roster.removal(by, of, compromised, wall));
                Ok(Drafted::new(drafts.collect::<Result<Vec<_>, _>>()?.concat()))
            }
            ClusterRequest::Leave => Ok(Drafted::new(roster.removal(by, own, false, wall)?)),
            ClusterRequest::Admin { node, admin } => {
                let of = named(view, &node)?;
                Ok(Drafted::new(roster.rights(by, of, admin, wall)?))
            }
            ClusterRequest::SetSettings(order) => {
                one(Saying::Settings(self.ordered_settings((view, own), order, wall)?))
            }
            ClusterRequest::SetFloating(order) => one(moving::set(view, order)?),
            ClusterRequest::RemoveFloating(name) => one(moving::remove(view, name)?),
            ClusterRequest::Status
            | ClusterRequest::Settings
            | ClusterRequest::Floating
            | ClusterRequest::Preview(_)
            | ClusterRequest::Checks
            | ClusterRequest::Proofs(_)
            | ClusterRequest::Pairs
            | ClusterRequest::CreateToken(_)
            | ClusterRequest::Alone(_)
            | ClusterRequest::Recovered { .. } => Err(anyhow!("this is no order")),
        }
    }

    /// The entry of the trial that runs here, or is to begin.
    pub(super) fn cluster_trial(&self) -> Option<EntryId> {
        let desired = self.roster()?.0.view().desired.as_ref()?;
        let trial = desired.says.trial.as_ref()?;
        // A host that was protected before tries nothing itself: there the time alone says when it is over.
        let stays = trial.until.is_some() && self.saved.protection == Protection::On;
        let went_back = self.saved.followed == Some(desired.id) && self.saved.trial.is_none() && !stays;
        (!went_back && trial.left(self.moment.wall) > 0).then_some(desired.id)
    }

    pub(super) fn signer(&self) -> anyhow::Result<Signer> {
        let signing = &self.cluster.as_ref().context(NO_MEMBER)?.signing;
        Signer::of(signing).context("the signing key of this node is of another kind")
    }

    fn draft_token(&self, order: &TokenOrder, wall: UnixTime, seed: &[u8; 32]) -> anyhow::Result<Drafted> {
        let (roster, (own, _)) = self.roster().context(NO_MEMBER)?;
        let view = roster.view();
        let ttl = Duration::from_secs(order.ttl_s);
        ensure!(
            !ttl.is_zero() && ttl <= TTL_MAX,
            "a token is good for 30 days at most, and a second at least"
        );
        let within = order.within.iter().map(|text| {
            AddressBlock::try_from(text.clone()).map_err(|wrong| anyhow!("--within {text}: {wrong}"))
        });
        let expires = wall.after(ttl);
        let key = PrivateKey::from_seed(seed)?;
        let invite = Invite {
            key: Signer::of(&key).context("the key of a token is of another kind")?,
            name: order.node.clone(),
            line: order.node.as_ref().map_or(Ok(None), |name| taken_over(view, name))?,
            admin: order.admin,
            expires: Seconds::from(expires),
            within: within.collect::<anyhow::Result<_>>()?,
            addresses: Vec::new(),
        };
        let statement = roster.draft(self.signer()?, Saying::Invite(invite), wall)?;
        let cluster = (view.cluster.clone(), roster.cluster());
        let seeds = seeds(view, own, self.setup.config.keying.port);
        let token = Token::new(cluster, seeds, (order.node.clone(), order.admin), expires, *seed);
        let token_line = SecretLine(token.to_line().to_string());
        Ok(Drafted {
            statements: vec![statement],
            token: Some(key),
            reply: ClusterReply::Token { token: token_line, expires },
        })
    }
}

fn enabled(view: &RosterView, on_trial: bool, try_s: Option<u64>, wall: UnixTime) -> anyhow::Result<Saying> {
    let longest = trial::LONGEST.as_secs();
    ensure!(try_s.is_none_or(|seconds| seconds <= longest), "a trial lasts a day at most");
    let desired = view.desired.as_ref().map(|desired| &desired.says);
    ensure!(
        !on_trial || try_s.is_some(),
        "a trial of the cluster runs: `hostseal confirm --cluster` keeps it"
    );
    let before = desired.is_some_and(DesiredProtection::lapses_to);
    ensure!(!before || try_s.is_none(), "the cluster is to be protected already: leave out --try");
    let until = |seconds| Some(Seconds::from(wall.after(Duration::from_secs(seconds))));
    let trial = try_s.map(|seconds| ClusterTrial { seconds, before, until: until(seconds) });
    Ok(Saying::Desired(DesiredProtection { on: true, trial, confirms: None }))
}

/// A node that runs other software.
fn listed(roster: &Roster, own: EntryId, order: AddOrder) -> anyhow::Result<Saying> {
    let AddOrder { node, addresses, public_key } = order;
    let view = roster.view();
    if let Some(member) = view.members.iter().find(|member| member.site.name == node) {
        bail!("there is a node {} already", member.site.name);
    }
    ensure!(!addresses.is_empty(), "a node has at least one address");
    let ike = IkeKey::try_from(public_key).context("--public-key")?;
    let site = Site { name: node, addresses, inside: Default::default() };
    let mut with = shared(view, own, None);
    with.nodes.push(crate::config::Node {
        name: site.name.clone(),
        addresses: site.addresses.clone(),
        inside: Default::default(),
        public_key: Some(ike.0.clone()),
        previous_public_key: None,
        auth: None,
        expects_secret: false,
    });
    let settings = with.settings.clone();
    with.check_settings(&settings, "")?;
    Ok(Saying::Node(Listed { line: None, site, foreign: true, ike: Some(ike) }))
}

/// The first entry of the node with that name which has that address: several with one name may be held out.
fn named_at(view: &RosterView, name: &NodeName, address: Option<IpAddr>) -> anyhow::Result<EntryId> {
    let members = view.members.iter().map(|member| (member.line, &member.site));
    let sites = members.chain(view.held_out.iter().map(|out| (out.line, &out.site)));
    let alike: Vec<(EntryId, &Site)> = sites.filter(|(_, site)| site.name == *name).collect();
    let has_it = |(_, site): &&(EntryId, &Site)| address.is_none_or(|it| site.addresses.contains(&it));
    match (alike.iter().filter(has_it).collect::<Vec<_>>().as_slice(), address) {
        ([(line, _)], _) => Ok(*line),
        ([], None) => named(view, name),
        ([], Some(address)) => bail!("there is no node {name} with the address {address}"),
        (several, _) => bail!(stand_for_several(name, several.iter().map(|(_, site)| *site))),
    }
}

fn stand_for_several<'a>(name: &NodeName, sites: impl Iterator<Item = &'a Site>) -> String {
    let addresses: Vec<String> =
        sites.filter_map(|site| site.addresses.first()).map(ToString::to_string).collect();
    format!("{name} stands for several: say which one with --address ({})", addresses.join(", "))
}

/// Those that had that name and address, and were removed; none where a node has them that is not removed.
fn gone_by_name<'a>(view: &'a RosterView, name: &NodeName, address: Option<IpAddr>) -> Vec<&'a Removed> {
    let has_it =
        |site: &Site| site.name == *name && address.is_none_or(|address| site.addresses.contains(&address));
    let others = view.members.iter().map(|member| &member.site);
    if others.chain(view.held_out.iter().map(|out| &out.site)).any(has_it) {
        return Vec::new();
    }
    view.removed.iter().filter(|out| has_it(&out.site)).collect()
}

/// The first entries of those of `gone` that are not compromised yet. All had that name. Those that had other addresses are
/// other machines, as far as anybody knows.
fn not_yet_compromised(
    gone: &[&Removed],
    name: &NodeName,
    address: Option<IpAddr>,
) -> anyhow::Result<Vec<EntryId>> {
    let open: Vec<&Removed> = gone.iter().filter(|out| !out.compromised).copied().collect();
    ensure!(!open.is_empty(), "{name} is removed as compromised already");
    let is_one = open.windows(2).all(|two| two[0].site.addresses == two[1].site.addresses);
    ensure!(address.is_some() || is_one, stand_for_several(name, open.iter().map(|out| &out.site)));
    Ok(open.iter().map(|out| out.line).collect())
}

/// The first entry of the node with that name.
fn named(view: &RosterView, name: &NodeName) -> anyhow::Result<EntryId> {
    let member = view.members.iter().find(|member| member.site.name == *name);
    if let Some(member) = member {
        return Ok(member.line);
    }
    let mut gone = view.removed.iter().filter(|removed| removed.site.name == *name).peekable();
    if gone.peek().is_some() {
        ensure!(!gone.all(|removed| removed.compromised), "{name} is removed as compromised already");
        bail!(
            "{name} was removed already; if its keys may be in other hands: `hostseal remove {name} --compromised`"
        );
    }
    let held_out = view.held_out.iter().find(|out| out.site.name == *name);
    held_out.map(|out| out.line).with_context(|| {
        let names: Vec<&str> = view.members.iter().map(|member| member.site.name.as_str()).collect();
        format!("there is no node {name}; the nodes are {}", names.join(", "))
    })
}

/// The node without keys that joins by a token for that name; `None` where the name is free.
fn taken_over(view: &RosterView, name: &NodeName) -> anyhow::Result<Option<EntryId>> {
    match view.members.iter().find(|member| member.site.name == *name) {
        Some(member) if member.keys.is_some() => {
            bail!(
                "there is a node {name} already: remove it first (`hostseal remove {name}`), or choose another name"
            )
        }
        Some(member) => Ok(Some(member.line)),
        None => Ok(None),
    }
}

/// Where members listen: this one first.
fn seeds(view: &RosterView, own: EntryId, port: u16) -> Vec<SocketAddr> {
    let (ours, others): (Vec<_>, Vec<_>) =
        view.members.iter().filter(|member| member.keys.is_some()).partition(|member| member.line == own);
    let first = |addresses: &[IpAddr]| addresses.first().copied();
    let ours = ours.iter().flat_map(|member| member.site.addresses.clone());
    let others = others.iter().filter_map(|member| first(&member.site.addresses));
    ours.chain(others).take(SEEDS_MAX).map(|address| SocketAddr::new(address, port)).collect()
}

#[cfg(test)]
mod tests;
