//! Keys, by the real program.

mod common;

use std::os::unix::fs::PermissionsExt;

use common::Lab;

#[test]
fn a_private_key_that_others_may_read_is_pointed_out() {
    let lab = Lab::with_image();
    let open = |mode| std::fs::set_permissions(lab.path("k.pem"), std::fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o601] {
        open(mode);
        let output = lab.run(&["sign", "v1.zst", "--key", "k.pem"]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{error}");
        assert!(error.contains(&format!("(mode {mode:04o}): chmod 600 k.pem")), "{error}");
    }
    open(0o400);
    lab.ok(&["sign", "v1.zst", "--key", "k.pem"]);
    // A public key is for everybody.
    std::fs::set_permissions(lab.path("k.pub.pem"), std::fs::Permissions::from_mode(0o666)).unwrap();
    lab.ok(&["verify", "v1.zst", "--trust", "k.pub.pem"]);
}

#[test]
fn keys_that_are_none_are_refused() {
    let lab = Lab::with_image();
    lab.tool("openssl", &["genpkey", "-algorithm", "x25519", "-out", "x.pem"]);
    lab.tool("openssl", &["genpkey", "-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:1024", "-out", "r.pem"]);
    for key in ["x.pem", "r.pem", "k.pub.pem", "initrd", "missing.pem"] {
        assert!(lab.fails(&["sign", "v1.zst", "--key", key], 1).contains(key), "{key}");
        lab.fails(&["verify", "v1.zst", "--trust", if key == "k.pub.pem" { "k.pem" } else { key }], 1);
    }
}
