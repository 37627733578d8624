//! The key schedule: from a Diffie-Hellman secret and two nonces to the keys of an IKE SA and of a child.

use super::Hidden;
use super::cipher::Cipher;
use super::suite::Suite;
use crate::identity::Ppk;
use crate::ike::reason::Reason;
use crate::types::{Integrity, Prf, SaKey};

/// Octets by which an end shows that it has a PPK (RFC 9867 section 3.1).
pub const PPK_CONFIRMATION: usize = 8;

/// The nonces of one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonces {
    /// The nonce of the end that initiated the exchange.
    pub initiator: Vec<u8>,
    /// The other one.
    pub responder: Vec<u8>,
}

impl Nonces {
    /// The one that decides which of two crossing exchanges is redundant (RFC 7296 section 2.8.1).
    pub fn lowest(&self) -> Vec<u8> {
        self.initiator.clone().min(self.responder.clone())
    }
}

/// Where a key schedule starts.
pub enum Seed<'a> {
    /// IKE_SA_INIT (RFC 7296 section 2.14): g^ir.
    Fresh(&'a Hidden),
    /// IKE_SESSION_RESUME (RFC 5723 section 5.1): the SK_d that the ticket stands for.
    Resumed(&'a Hidden),
    /// A rekey of an IKE SA (RFC 7296 section 2.18, RFC 9370 section 2.2.4): its prf, its SK_d, g^ir of the
    /// new exchange, and the secret of an additional one. An additional exchange before IKE_AUTH is such a
    /// step too: there its own secret takes the place of g^ir (RFC 9370 section 2.2.2).
    Rekey(Prf, &'a Hidden, &'a Hidden, Option<&'a Hidden>),
    /// A PPK in IKE_INTERMEDIATE (RFC 9867 section 3.1): the SK_d before it, and the PPK.
    Ppk(&'a Hidden, &'a Ppk),
}

/// The keys of an IKE SA that live as long as it does.
pub struct IkeKeys {
    /// What they are the keys of.
    pub suite: Suite,
    /// SK_d: what the keys of children and of successors come from.
    derive: Hidden,
    /// For what we send.
    pub encrypt: Cipher,
    /// For what we receive.
    pub decrypt: Cipher,
}

/// SK_pi and SK_pr: needed for AUTH, and not longer.
pub struct AuthKeys {
    /// Ours.
    pub mine: Hidden,
    /// The peer's.
    pub peer: Hidden,
}

/// An end's index of an IKE SA and the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spis {
    /// The initiator's.
    pub initiator: u64,
    /// The responder's.
    pub responder: u64,
}

/// RFC 7296 section 2.14: {SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr}, where AES-GCM has no SK_a
/// (RFC 5282 section 7).
pub fn derive(
    suite: Suite,
    seed: &Seed<'_>,
    nonces: &Nonces,
    spis: Spis,
    initiator: bool,
) -> Result<(IkeKeys, AuthKeys), Reason> {
    let (ni, nr) = (nonces.initiator.as_slice(), nonces.responder.as_slice());
    let seed = match seed {
        Seed::Fresh(shared) => suite.prf.compute(&[ni, nr].concat(), &[shared.expose()]),
        Seed::Resumed(derive) => suite.prf.compute(derive.expose(), &[b"Resumption", ni, nr]),
        Seed::Rekey(prf, derive, shared, additional) => {
            let additional = additional.map_or([].as_slice(), Hidden::expose);
            prf.compute(derive.expose(), &[shared.expose(), ni, nr, additional])
        }
        Seed::Ppk(derive, ppk) => mixed(suite.prf, ppk, derive),
    };
    let (proof, secret) = (suite.prf.output(), suite.cipher.key_octets());
    let integrity = suite.integrity.map_or(0, Integrity::key_octets);
    let (spi_i, spi_r) = (spis.initiator.to_be_bytes(), spis.responder.to_be_bytes());
    let total = 3 * proof + 2 * (integrity + secret);
    let stream = suite.prf.plus(seed.expose(), &[ni, nr, &spi_i, &spi_r], total);
    let (derive, rest) = stream.expose().split_at(proof);
    let (check_i, rest) = rest.split_at(integrity);
    let (check_r, rest) = rest.split_at(integrity);
    let (encrypt_i, rest) = rest.split_at(secret);
    let (encrypt_r, rest) = rest.split_at(secret);
    let (prove_i, prove_r) = rest.split_at(proof);
    #[cfg(feature = "key-export")]
    crate::ike::export::remember(suite, spis, [encrypt_i, encrypt_r], [check_i, check_r]);
    let from_i = Cipher::new(&suite, encrypt_i, check_i)?;
    let from_r = Cipher::new(&suite, encrypt_r, check_r)?;
    let (encrypt, decrypt) = if initiator { (from_i, from_r) } else { (from_r, from_i) };
    let (mine, peer) = if initiator { (prove_i, prove_r) } else { (prove_r, prove_i) };
    let keys = IkeKeys { suite, derive: Hidden::new(derive.to_vec()), encrypt, decrypt };
    Ok((keys, AuthKeys { mine: Hidden::new(mine.to_vec()), peer: Hidden::new(peer.to_vec()) }))
}

/// RFC 8784 section 3, and RFC 9867 section 3.1 of SK_d: prf+(PPK, SK).
fn mixed(prf: Prf, ppk: &Ppk, key: &Hidden) -> Hidden {
    prf.plus(ppk.expose(), &[key.expose()], key.expose().len())
}

/// What shows that an end has a PPK, to whoever has it too (RFC 9867 section 3.1): of no use in another IKE SA.
pub fn ppk_confirmation(prf: Prf, ppk: &Ppk, nonces: &Nonces, spis: Spis) -> [u8; PPK_CONFIRMATION] {
    let (spi_i, spi_r) = (spis.initiator.to_be_bytes(), spis.responder.to_be_bytes());
    let whole = prf.compute(ppk.expose(), &[&nonces.initiator, &nonces.responder, &spi_i, &spi_r]);
    std::array::from_fn(|at| whole.expose().get(at).copied().unwrap_or_default())
}

impl AuthKeys {
    /// The same with a PPK mixed in.
    pub fn with_ppk(&self, prf: Prf, ppk: &Ppk) -> Self {
        Self { mine: mixed(prf, ppk, &self.mine), peer: mixed(prf, ppk, &self.peer) }
    }
}

impl IkeKeys {
    /// Mixes a PPK into SK_d. Gives back what that was before.
    pub fn mix(&mut self, ppk: &Ppk) -> Hidden {
        let derive = mixed(self.suite.prf, ppk, &self.derive);
        std::mem::replace(&mut self.derive, derive)
    }

    /// Goes back to an SK_d that has no PPK in it.
    pub fn unmix(&mut self, derive: Hidden) {
        self.derive = derive;
    }

    /// The seed of the keys that the IKE SA has once a PPK is mixed into all of them.
    pub fn ppk_seed<'a>(&'a self, ppk: &'a Ppk) -> Seed<'a> {
        Seed::Ppk(&self.derive, ppk)
    }

    /// The seed of a successor.
    pub fn rekey_seed<'a>(&'a self, shared: &'a Hidden, additional: Option<&'a Hidden>) -> Seed<'a> {
        Seed::Rekey(self.suite.prf, &self.derive, shared, additional)
    }

    /// The keys of a child, inbound and outbound (RFC 7296 section 2.17, RFC 9370 section 2.2.4), with the secrets of
    /// its key exchange and of an additional one: the key for packets from the initiator of the exchange
    /// comes first. Each is AES key and salt (RFC 4106 section 8.1).
    pub fn child(
        &self,
        shared: Option<&Hidden>,
        additional: Option<&Hidden>,
        nonces: &Nonces,
        key_bits: u16,
        initiator: bool,
    ) -> (SaKey, SaKey) {
        let size = usize::from(key_bits / 8) + 4;
        let [shared, additional] = [shared, additional].map(|it| it.map_or([].as_slice(), Hidden::expose));
        let parts = [shared, &nonces.initiator, &nonces.responder, additional];
        let stream = self.suite.prf.plus(self.derive.expose(), &parts, 2 * size);
        let (from_initiator, from_responder) = stream.expose().split_at(size);
        let (inbound, outbound) =
            if initiator { (from_responder, from_initiator) } else { (from_initiator, from_responder) };
        (SaKey::new(inbound.to_vec()), SaKey::new(outbound.to_vec()))
    }
}
