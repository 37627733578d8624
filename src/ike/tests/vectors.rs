//! Published test vectors.

use super::net::Dice;
use crate::ike::crypto::{Aead, Group, KeyPair, Prf};

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

/// RFC 7748 section 6.1 asks to refuse what makes the secret zero.
#[test]
fn a_public_value_of_small_order_is_refused() {
    let mine = KeyPair::generate(Group::X25519, &mut Dice(1)).unwrap();
    assert!(mine.agree(&[0; 32]).is_err());
    assert!(mine.agree(&[1; 31]).is_err());
}

/// McGrew and Viega, "The Galois/Counter Mode of Operation", test case 16; salt and IV are its IV.
#[test]
fn the_cipher_is_gcm() {
    let key = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308 cafebabe");
    let mut text = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
                        1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
    let associated = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let iv: [u8; 8] = hex("facedbaddecaf888").try_into().unwrap();
    let clear = text.clone();
    let cipher = Aead::new(&key).unwrap();
    let tag = cipher.seal(&iv, &associated, &mut text).unwrap();
    assert_eq!(tag.to_vec(), hex("76fc6ece0f4e1768cddf8853bb2d551b"));
    assert_eq!(text[..8], hex("522dc1f099567d07"));
    let mut body = [&iv[..], &text, &tag].concat();
    assert_eq!(*cipher.open(&associated, &body).unwrap(), clear);
    body[9] ^= 1;
    assert!(cipher.open(&associated, &body).is_none());
    assert!(cipher.open(&associated, &body[..20]).is_none());
}
