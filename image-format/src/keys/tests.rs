use super::*;

/// RFC 8032, section 7.1, TEST 1.
const SEED: [u8; 32] = [
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49, 0xc5,
    0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];
const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

/// As `openssl genpkey -algorithm ed25519` writes that key, and `openssl pkey -pubout` its public half.
const PRIVATE_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
    -----END PRIVATE KEY-----\n";
const PUBLIC_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
    -----END PUBLIC KEY-----\n";

fn key(n: u8) -> PrivateKey {
    PrivateKey::from_seed(&[n; 32])
}

fn threshold(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn public_pem(raw: &[u8; 32]) -> String {
    ed25519_dalek::pkcs8::PublicKeyBytes(*raw).to_public_key_pem(LineEnding::LF).unwrap()
}

#[test]
fn img_35_pem_on_known_constants() {
    let private = PrivateKey::from_seed(&SEED);
    assert_eq!(*private.to_pem(), PRIVATE_PEM);
    assert_eq!(private.public().to_pem(), PUBLIC_PEM);
    assert_eq!(PrivateKey::from_pem(PRIVATE_PEM).unwrap().public(), private.public());
    assert_eq!(PublicKey::from_pem(PUBLIC_PEM).unwrap(), private.public());
    assert_eq!(crate::digest::to_hex(private.public().as_bytes()), PUBLIC);
    assert_eq!(private.public().key_id(), Digest::of(private.public().as_bytes()));
}

#[test]
fn img_35_other_files_are_refused() {
    let rsa = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
    for text in ["", "hello", PUBLIC_PEM, &PRIVATE_PEM[..60], &PRIVATE_PEM.replace("IJ1h", "IJ1"), rsa] {
        assert!(matches!(PrivateKey::from_pem(text), Err(KeyError::Private(_))), "{text:?}");
    }
    for text in ["", PRIVATE_PEM, &PUBLIC_PEM[..50], &PUBLIC_PEM.replace("K2VwAy", "K2VuAy")] {
        assert!(matches!(PublicKey::from_pem(text), Err(KeyError::Public(_))), "{text:?}");
    }
}

#[test]
fn img_33_weak_public_keys_are_refused_when_loaded() {
    let mut identity = [0; 32];
    identity[0] = 1;
    // The point of order 4 is encoded by all zeros; p - 1 has order 2.
    let order_two: [u8; 32] = std::array::from_fn(|at| match at {
        0 => 0xEC,
        31 => 0x7F,
        _ => 0xFF,
    });
    for raw in [identity, [0; 32], order_two] {
        assert!(matches!(PublicKey::from_pem(&public_pem(&raw)), Err(KeyError::Weak)), "{raw:?}");
    }
    // No point of the curve at all.
    let mut nowhere = [0; 32];
    nowhere[0] = 2;
    assert!(matches!(PublicKey::from_pem(&public_pem(&nowhere)), Err(KeyError::Public(_))));
}

#[test]
fn img_33_scalars_are_canonical() {
    // S + L verifies under the bare equation; RFC 8032 forbids it.
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let signature = key(1).sign(b"message");
    assert!(key(1).public().verifies(b"message", &signature));
    let mut stretched = signature;
    let mut carry = 0;
    for (byte, add) in stretched[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    assert!(!key(1).public().verifies(b"message", &stretched));
}

#[test]
fn img_30_roles_are_separated() {
    let manifest = to_be_signed(Role::Manifest, b"body");
    let transport = to_be_signed(Role::Transport, b"body");
    assert_eq!(manifest, b"RALPHOS IMAGE v1 MANIFEST\0\0\0\0\0\0\0body");
    assert_eq!(transport, b"RALPHOS IMAGE v1 TRANSPORT\0\0\0\0\0\0body");
    let signature = key(1).sign(&manifest);
    assert!(key(1).public().verifies(&manifest, &signature));
    assert!(!key(1).public().verifies(&transport, &signature));
    assert!(!key(2).public().verifies(&manifest, &signature));
}

#[test]
fn img_34_a_policy_nobody_could_meet_is_refused() {
    let keys = |ids: &[u8]| ids.iter().map(|id| key(*id).public()).collect::<Vec<_>>();
    assert_eq!(TrustPolicy::new(Vec::new(), threshold(1)).unwrap_err(), PolicyError::NoKeys);
    let unreachable = PolicyError::Unreachable { threshold: 2, keys: 1 };
    assert_eq!(TrustPolicy::new(keys(&[1]), threshold(2)).unwrap_err(), unreachable);
    // One key listed twice is one key.
    assert_eq!(TrustPolicy::new(keys(&[1, 1]), threshold(2)).unwrap_err(), unreachable);
    assert_eq!(TrustPolicy::new(keys(&[1, 2, 1]), threshold(2)).unwrap().keys().len(), 2);
}

#[test]
fn generated_keys_differ_and_do_not_print_themselves() {
    let (one, two) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    assert_ne!(one.public(), two.public());
    assert_eq!(PrivateKey::from_pem(&one.to_pem()).unwrap().public(), one.public());
    assert_eq!(format!("{one:?}"), format!("PrivateKey(of {})", one.public().key_id()));
}
