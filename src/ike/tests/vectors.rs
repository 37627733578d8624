//! Published test vectors.

use super::net::Dice;
use crate::ike::crypto::Hidden;
use crate::ike::crypto::agreement::KeyPair;
use crate::ike::crypto::cipher::{Cipher, unpadded};
use crate::ike::crypto::kem::KemKey;
use crate::ike::crypto::keys::{IkeKeys, Nonces, Seed, Spis, derive};
use crate::ike::crypto::suite::Suite;
use crate::types::{AdditionalKe, Group, IkeCipher, Integrity, Prf};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// RFC 4231 section 4.3 (test case 2).
#[test]
fn prf_is_hmac() {
    let text: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];
    for (prf, expected) in [
        (Prf::HmacSha256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (
            Prf::HmacSha384,
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
        ),
        (
            Prf::HmacSha512,
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd
             caeab1a34d4a6b4b636e070a38bce737",
        ),
    ] {
        assert_eq!(prf.compute(b"Jefe", &text).expose(), hex(expected), "{prf:?}");
        assert_eq!(prf.output(), hex(expected).len());
    }
}

/// RFC 7296 section 2.13: T1 = prf(K, S | 1), T2 = prf(K, T1 | S | 2), …
#[test]
fn prf_plus_chains() {
    let prf = Prf::HmacSha384;
    let t1 = prf.compute(b"key", &[b"seed", &[1]]);
    let t2 = prf.compute(b"key", &[t1.expose(), b"seed", &[2]]);
    let both = [t1.expose(), t2.expose()].concat();
    for length in [1, 48, 49, 96] {
        assert_eq!(prf.plus(b"key", &[b"se", b"ed"], length).expose(), &both[..length]);
    }
}

/// NIST's own vector of the key derivation of IKEv2 with SHA2-256 (SP 800-135 section 4.1.2; ACVP-Server,
/// IkeV2Tests.cs), by the formulas of RFC 7296 sections 2.13, 2.14, 2.17 and 2.18.
#[test]
fn keys_are_derived_as_nist_derives_them() {
    let text = include_str!("ikev2-kdf.txt");
    let value = |name: &str| labelled(text, name).next().unwrap();
    let (ni, nr, old, new) = (value("Ni"), value("Nr"), value("g^ir"), value("g^ir (new)"));
    let prf = Prf::HmacSha256;
    let octets = |name| u64::from_be_bytes(value(name).try_into().unwrap());
    let spis = Spis { initiator: octets("SPIi"), responder: octets("SPIr") };
    let seed = prf.compute(&[&ni[..], &nr].concat(), &[&old]);
    assert_eq!(seed.expose(), value("SKEYSEED"));
    let material = value("DKM");
    assert_eq!(
        prf.plus(seed.expose(), &[&ni, &nr, &value("SPIi"), &value("SPIr")], material.len()).expose(),
        material
    );

    let nonces = Nonces { initiator: ni, responder: nr };
    let suite = Suite { prf, ..gcm(256) };
    let (old, new) = (Hidden::new(old), Hidden::new(new));
    let (keys, _) = derive(suite, &Seed::Fresh(&old), &nonces, spis, true).unwrap();
    let of_child = |keys: &IkeKeys, shared| {
        let (inbound, outbound) = keys.child(shared, None, &nonces, 256, true);
        [outbound.expose(), inbound.expose()].concat()
    };
    assert!(value("DKM (child SA)").starts_with(&of_child(&keys, None)));
    assert!(value("DKM (child SA D-H)").starts_with(&of_child(&keys, Some(&new))));

    let (successor, _) = derive(suite, &keys.rekey_seed(&new, None), &nonces, spis, true).unwrap();
    let Nonces { initiator: ni, responder: nr } = &nonces;
    let sk_d = prf.plus(&value("SKEYSEED (rekey)"), &[ni, nr, &value("SPIi"), &value("SPIr")], 32);
    assert_eq!(of_child(&successor, None), prf.plus(sk_d.expose(), &[ni, nr], 72).expose());
}

/// What stands behind `name = ` in a file of vectors, each time.
fn labelled<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = Vec<u8>> + 'a {
    text.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(" = ")).map(hex)
}

/// FIPS 203 with given private keys: once the secret that was encapsulated, once the one that stands for a
/// ciphertext which is none. Nothing can be said of the other two operations so: the library draws their random
/// numbers by itself. They are checked against another implementation (`hybrid`).
#[test]
fn a_given_key_decapsulates() {
    let text = include_str!("ml-kem-768.txt");
    let ciphertext = labelled(text, "c");
    for ((private, ciphertext), secret) in labelled(text, "dk").zip(ciphertext).zip(labelled(text, "K")) {
        let key = KemKey::from_private(AdditionalKe::MlKem768, &private);
        assert_eq!(key.agree(&ciphertext).unwrap().expose(), secret);
    }
    assert_eq!(labelled(text, "K").count(), 2);
}

/// RFC 7748 section 6.1.
#[test]
fn x25519_agrees() {
    let alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let bob = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    let alice = KeyPair::from_private(Group::X25519, &alice).unwrap();
    let bob = KeyPair::from_private(Group::X25519, &bob).unwrap();
    assert_eq!(alice.public(), hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
    assert_eq!(alice.agree(bob.public()).unwrap().expose(), shared);
    assert_eq!(bob.agree(alice.public()).unwrap().expose(), shared);
}

/// RFC 5903 section 8.1.
#[test]
fn p256_agrees() {
    let [x, y] = [
        "DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180",
        "5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3",
    ];
    agrees(
        Group::EcpP256,
        "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433",
        &hex(&(x.to_owned() + y)),
        "C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53",
        "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE",
    );
}

/// RFC 5903 section 8.2.
#[test]
fn p384_agrees() {
    let [x, y] = [
        "667842D7D180AC2CDE6F74F37551F55755C7645C20EF73E31634FE72B4C55EE6DE3AC808ACB4BDB4C88732AEE95F41AA",
        "9482ED1FC0EEB9CAFC4984625CCFC23F65032149E0E144ADA024181535A0F38EEB9FCFF3C2C947DAE69B4C634573A81C",
    ];
    agrees(
        Group::EcpP384,
        "099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655E35B538041E649EE3FAEF896783AB194",
        &hex(&(x.to_owned() + y)),
        "41CB0779B4BDB85D47846725FBEC3C9430FAB46CC8DC5060855CC9BDA0AA2942E0308312916B8ED2960E4BD55A7448FC",
        "11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4D603135569B9E9D09CF5D4A270F59746",
    );
}

/// The first one's private and public key, the other's private key, and what they share.
fn agrees(group: Group, first: &str, public: &[u8], other: &str, shared: &str) {
    let first = KeyPair::from_private(group, &hex(first)).unwrap();
    let other = KeyPair::from_private(group, &hex(other)).unwrap();
    assert_eq!(first.public(), public);
    assert_eq!(first.agree(other.public()).unwrap().expose(), hex(shared));
    assert_eq!(other.agree(first.public()).unwrap().expose(), hex(shared));
}

/// RFC 7748 section 6.1 asks to refuse what makes the secret zero; RFC 5903 section 7, what is no point of
/// the curve.
#[test]
fn a_public_value_that_is_none_is_refused() {
    for group in [Group::X25519, Group::EcpP256, Group::EcpP384] {
        let mine = KeyPair::generate(group, &mut Dice(1)).unwrap();
        let octets = mine.public().len();
        assert!(mine.agree(&vec![0; octets]).is_err());
        assert!(mine.agree(&vec![1; octets - 1]).is_err());
        let another = KeyPair::generate(group, &mut Dice(2)).unwrap();
        assert!(mine.agree(another.public()).is_ok());
        assert!(mine.agree(&[another.public(), &[0]].concat()).is_err());
    }
    let [mine, another] = [1, 2].map(|seed| KeyPair::generate(Group::EcpP256, &mut Dice(seed)).unwrap());
    let mut beside_the_curve = another.public().to_vec();
    beside_the_curve[63] ^= 1;
    assert!(mine.agree(&beside_the_curve).is_err());
}

/// A private key of P-256 is less than the order of the curve: other numbers are passed over.
#[test]
fn a_number_that_is_no_private_key_is_passed_over() {
    struct HighFirst(bool);
    impl crate::ike::Entropy for HighFirst {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(if std::mem::take(&mut self.0) { 0xff } else { 0x5a });
        }
    }
    let pair = KeyPair::generate(Group::EcpP256, &mut HighFirst(true)).unwrap();
    assert_eq!(pair.public(), KeyPair::from_private(Group::EcpP256, &[0x5a; 32]).unwrap().public());
}

fn gcm(bits: u16) -> Suite {
    Suite {
        cipher: IkeCipher::AesGcm16(bits),
        integrity: None,
        prf: Prf::HmacSha384,
        group: Some(Group::X25519),
        additional: None,
    }
}

/// McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 4 and 16; salt and IV are their IV.
#[test]
fn the_cipher_is_gcm() {
    let key = "feffe9928665731c6d6a8f9467308308";
    let text = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
                    1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
    let associated = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let iv = u64::from_be_bytes(hex("facedbaddecaf888").try_into().unwrap());
    for (bits, key, start, tag) in [
        (128, key.to_owned(), "42831ec221777424", "5bc94fbc3221a5db94fae95ae7121a47"),
        (256, key.repeat(2), "522dc1f099567d07", "76fc6ece0f4e1768cddf8853bb2d551b"),
    ] {
        let cipher = Cipher::new(&gcm(bits), &hex(&(key + "cafebabe")), &[]).unwrap();
        let mut body = cipher.encrypt(iv, &associated, text.clone()).unwrap();
        assert_eq!(body.len(), cipher.encrypted_octets(text.len()));
        assert_eq!(body[..8], iv.to_be_bytes());
        assert_eq!(body[8..16], hex(start));
        assert_eq!(body[body.len() - 16..], hex(tag));
        assert_eq!(*cipher.decrypt(&associated, &body).unwrap(), text);
        body[9] ^= 1;
        assert!(cipher.decrypt(&associated, &body).is_none());
        assert!(cipher.decrypt(&associated, &body[..20]).is_none());
    }
}

/// NIST SP 800-38A appendix F.2.5 (CBC-AES256), under a checksum by RFC 4868.
#[test]
fn the_other_cipher_is_cbc_and_an_hmac() {
    let key = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
    let iv = hex("000102030405060708090a0b0c0d0e0f");
    let clear = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
    let text = hex("f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d");
    for (integrity, prf, octets) in
        [(Integrity::HmacSha256, Prf::HmacSha256, 16), (Integrity::HmacSha384, Prf::HmacSha384, 24)]
    {
        let suite = Suite { cipher: IkeCipher::AesCbc(256), integrity: Some(integrity), ..gcm(256) };
        let check = vec![0x0b; prf.output()];
        let cipher = Cipher::new(&suite, &key, &check).unwrap();
        let mut body = [&iv[..], &text].concat();
        let checksum = prf.compute(&check, &[b"head", &body]);
        body.extend(&checksum.expose()[..octets]);
        assert_eq!(*cipher.decrypt(b"head", &body).unwrap(), clear);
        for at in 0..body.len() {
            body[at] ^= 1;
            assert!(cipher.decrypt(b"head", &body).is_none(), "{at}");
            body[at] ^= 1;
        }
        assert!(cipher.decrypt(b"Head", &body).is_none());
        assert!(cipher.decrypt(b"head", &body[..body.len() - 1]).is_none());
        assert!(cipher.decrypt(b"head", &body[..10]).is_none());
    }
}

/// RFC 4868 section 2.7.2.1 and 2.7.2.2: test cases AUTH256-2 and AUTH384-2.
#[test]
fn the_checksum_is_half_an_hmac() {
    for (prf, key, expected) in [
        (Prf::HmacSha256, "JefeJefeJefeJefeJefeJefeJefeJefe", "167f928588c5cc2eef8e3093caa0e87c"),
        (
            Prf::HmacSha384,
            "JefeJefeJefeJefeJefeJefeJefeJefeJefeJefeJefeJefe",
            "2c7353974f1842fd66d53c452ca42122b28c0b594cfb184d",
        ),
    ] {
        let computed = prf.compute(key.as_bytes(), &[b"what do ya want for nothing?"]);
        assert_eq!(computed.expose()[..hex(expected).len()], hex(expected), "{prf:?}");
    }
}

#[test]
fn what_is_encrypted_is_decrypted() {
    let cbc = Suite { cipher: IkeCipher::AesCbc(256), integrity: Some(Integrity::HmacSha256), ..gcm(256) };
    for (suite, key) in [(gcm(128), 20), (gcm(256), 36), (cbc, 32)] {
        let cipher = Cipher::new(&suite, &vec![3; key], &[4; 32]).unwrap();
        let mut before = Vec::new();
        for length in 0..70 {
            let clear = vec![5; length];
            let mut text = clear.clone();
            cipher.pad(&mut text);
            let octets = cipher.encrypted_octets(text.len());
            let body = cipher.encrypt(length as u64, b"head", text).unwrap();
            assert_eq!(body.len(), octets);
            assert_eq!(unpadded(&cipher.decrypt(b"head", &body).unwrap()).unwrap(), clear);
            assert!(!before.contains(&body[..8].to_vec()), "an initialization vector comes once");
            before.push(body[..8].to_vec());
        }
    }
    assert!(unpadded(&[0, 0, 3]).is_err() && unpadded(&[]).is_err());
    assert_eq!(unpadded(&[1, 0, 0, 2]).unwrap(), [1]);
}
