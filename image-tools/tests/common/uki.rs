//! What the tests of unified kernel images share.

use std::fs;

use qemu_tests::setup;

use super::{AARCH64, Lab, X86_64, kernel};

/// The architecture whose systemd-stub is there.
pub const ARCH: &str = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" };
/// Its PE number.
pub const MACHINE: u16 = if cfg!(target_arch = "aarch64") { AARCH64 } else { X86_64 };
/// Bytes of the kernel.
pub const LINUX_LEN: usize = 1_300_001;

pub const STUB: [&str; 6] = ["--linux", "linux", "--initrd", "initrd", "--stub", "stub"];
pub const SIGN: [&str; 4] = ["--sign-key", "sb.key", "--sign-cert", "sb.crt"];

/// Besides what every lab has: a stub, a loader, and two key pairs for Secure Boot.
pub fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("linux", &kernel(MACHINE, LINUX_LEN));
    fs::copy(setup::STUB, lab.path("stub")).unwrap();
    fs::copy(setup::LOADER, lab.path("loader.efi")).unwrap();
    for name in ["sb", "else"] {
        let (key, cert) = (format!("{name}.key"), format!("{name}.crt"));
        let fixed = ["req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=lab", "-days", "3650"];
        lab.tool("openssl", &[&fixed[..], &["-keyout", &key, "-out", &cert]].concat());
        fs::set_permissions(lab.path(&key), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    lab
}

pub fn build<'a>(output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["build", "--root", "root.erofs", "--os-id", "ralphos", "--version", "1.0.0", "--arch", ARCH];
    let rest = ["--epoch", "1", "--level", "3", "--cmdline", "quiet", "--key", "k.pem", "-o", output];
    [&fixed[..], &rest, more].concat()
}

/// Builds an image, and gives what is said of its unified kernel image.
pub fn built(lab: &Lab, output: &str, more: &[&str]) -> String {
    let text = String::from_utf8(lab.ok(&build(output, more))).unwrap();
    text.lines().find(|line| line.starts_with("  UKI")).unwrap_or_default().to_owned()
}

pub fn extract(lab: &Lab, image: &str, output: &str) {
    lab.ok(&["extract", image, "--trust", "k.pub.pem", "--payload", "uki", "-o", output]);
}
