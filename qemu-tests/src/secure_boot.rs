//! Keys for UEFI Secure Boot, and machines that have them enrolled, as docs/secure-boot.md tells an operator to do it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::arch::Arch;
use crate::board::{Board, Firmware};
use crate::guest::{cached, fingerprint};
use crate::lab::Lab;
use crate::setup::{self, run};
use crate::vm::{BOOT_TIMEOUT, OnReset, VARIABLES, Vm};

/// The owner that signature lists name: it means nothing.
const OWNER: &str = "6f1d7a30-6b0e-4c0e-9a55-0d3a4f5b7c11";
/// The platform key, the key exchange key, and the one that signs programs.
const ENROLLED: [&str; 3] = ["PK", "KEK", "db"];
/// One that no firmware knows.
const STRANGER: &str = "stranger";
/// Namespaces of the variables (UEFI 2.10, 3.3 and 32.6).
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const IMAGE_SECURITY: &str = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";

/// What the firmware says of its own shell, which it tries once it has refused the loader: nobody whom it knows has signed that either.
const REFUSED: &str = "Security Violation";
/// And when it has nothing left to try. Until then it writes variables, and AAVMF erases all of them to change one: switched off
/// then, it has lost its keys, and starts anything.
const NOTHING_LEFT: &str = "No bootable option or device was found";

/// Who signs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The key in `db`.
    Ours,
    /// A key that is not.
    Stranger,
}

/// Key pairs and what enrols them, made once for all guests.
#[derive(Clone, Debug)]
pub struct SecureKeys(PathBuf);

impl SecureKeys {
    /// Makes them, or finds those that were made.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn get() -> Result<Self> {
        setup::ensure_tools()?;
        cached("secure-boot-keys", "1", make_keys).map(Self)
    }

    /// A private key and its certificate, as `ralph-image build --sign-key --sign-cert` takes them.
    pub fn pair(&self, signer: Signer) -> (PathBuf, PathBuf) {
        let name = match signer {
            Signer::Ours => "db",
            Signer::Stranger => STRANGER,
        };
        (self.0.join(format!("{name}.key")), self.0.join(format!("{name}.pem")))
    }

    /// Signs a program.
    ///
    /// # Errors
    /// When `sbsign` fails.
    pub fn sign(&self, signer: Signer, program: &Path, to: &Path) -> Result<()> {
        let (key, certificate) = self.pair(signer);
        let mut sbsign = setup::command("sbsign");
        sbsign.arg("--key").arg(key).arg("--cert").arg(certificate).arg("--output").arg(to).arg(program);
        run(&mut sbsign).map(drop)
    }

    /// What an operator types so that the firmware does not start a program any more, whoever has signed it: its digest, in `dbx`.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn revoke(&self, program: &Path) -> Result<String> {
        let (list, auth) = (program.with_extension("esl"), program.with_extension("auth"));
        run(setup::command("hash-to-efi-sig-list").arg(program).arg(&list))?;
        run(&mut sign_list(&self.0, "KEK", "dbx", Change::Append, [&list, &auth]))?;
        let auth = std::fs::read(&auth).with_context(|| format!("cannot read {}", auth.display()))?;
        Ok(write("dbx", IMAGE_SECURITY, Change::Append, &auth))
    }
}

fn make_keys(dir: &Path) -> Result<()> {
    let tool = |program: &str| tool(dir, program);
    for name in ENROLLED.into_iter().chain([STRANGER]) {
        let (key, certificate, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN=lab {name}/"));
        run(tool("openssl")
            .args(["req", "-new", "-x509", "-newkey", "rsa:2048", "-sha256", "-nodes", "-days", "3650"])
            .args(["-subj", &subject, "-keyout", &key, "-out", &certificate]))?;
    }
    // Each is signed by the one above it; the platform key by itself.
    for (name, signer) in [("PK", "PK"), ("KEK", "PK"), ("db", "KEK")] {
        let (certificate, list, auth) = (format!("{name}.pem"), format!("{name}.esl"), format!("{name}.auth"));
        run(tool("cert-to-efi-sig-list").args(["-g", OWNER, &certificate, &list]))?;
        run(&mut sign_list(dir, signer, name, Change::Replace, [list.as_ref(), auth.as_ref()]))?;
    }
    Ok(())
}

/// Makes of a signature list what the firmware takes for the variable `name`: signed by `signer`, who signs the change, too.
fn sign_list(keys: &Path, signer: &str, name: &str, change: Change, [list, auth]: [&Path; 2]) -> Command {
    let (key, certificate) = (format!("{signer}.key"), format!("{signer}.pem"));
    let mut command = tool(keys, "sign-efi-sig-list");
    command.args(change.option()).args(["-g", OWNER, "-k", &key, "-c", &certificate, name]).arg(list).arg(auth);
    command
}

/// A tool that finds the keys by their names.
fn tool(keys: &Path, program: &str) -> Command {
    let mut command = setup::command(program);
    command.current_dir(keys);
    command
}

/// The variables of a firmware that had no keys, once an operator has enrolled these from the running system.
///
/// # Errors
/// When the machine does not boot, or does not enforce signatures afterwards.
pub fn enrolled_variables(arch: Arch) -> Result<PathBuf> {
    let keys = SecureKeys::get()?;
    let platform_key = std::fs::read(keys.0.join("PK.auth")).context("the keys are gone")?;
    let dir = cached(&format!("enrolled-variables-{arch}"), &fingerprint(&platform_key), |dir| {
        let board = Board { arch, firmware: Firmware::SecureBoot };
        let variables = dir.join(VARIABLES);
        std::fs::copy(board.flash().1, &variables).with_context(|| format!("cannot make {}", variables.display()))?;
        let lab = Lab::new(arch, "enrol")?;
        let (disk, _) = lab.shared_disk()?;
        let mut vm = Vm::start(board, &disk, dir, OnReset::Reboot)?;
        vm.wait_boot(BOOT_TIMEOUT)?;
        // The platform key last: with it the firmware leaves setup mode, and lets nobody write the others.
        for (name, namespace) in [("db", IMAGE_SECURITY), ("KEK", GLOBAL), ("PK", GLOBAL)] {
            let path = keys.0.join(format!("{name}.auth"));
            let auth = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            vm.ok(&write(name, namespace, Change::Replace, &auth))?;
        }
        vm.start_script("systemctl reboot")?;
        // The disk's programs are not signed: the firmware says so, and stays where it is. Once more, because what it says must be what it
        // has kept: every scenario of Secure Boot begins with a copy of that.
        for again in [false, true] {
            if again {
                vm.power_cycle()?;
            }
            vm.wait_console(REFUSED)?;
            vm.wait_console(NOTHING_LEFT)?;
        }
        drop(vm);
        lab.remove()
    })?;
    let variables = dir.join(VARIABLES);
    ensure!(variables.exists(), "{} is gone", variables.display());
    Ok(variables)
}

/// What becomes of what the variable holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Replace,
    Append,
}

impl Change {
    /// Of what is written, for `printf`: time-based authenticated, at boot and at run time, kept.
    fn attributes(self) -> &'static str {
        match self {
            Self::Replace => "\\0047",
            Self::Append => "\\0147",
        }
    }

    /// Of `sign-efi-sig-list`, which wants it first.
    fn option(self) -> Option<&'static str> {
        (self == Self::Append).then_some("-a")
    }
}

/// What an operator types: attributes and content, in one write.
fn write(name: &str, namespace: &str, change: Change, auth: &[u8]) -> String {
    // As an argument: a percent sign in the format would mean something.
    let attributes = change.attributes();
    let octal: String = auth.iter().map(|byte| format!("\\0{byte:03o}")).collect();
    format!(
        "set -e
         vars=/sys/firmware/efi/efivars
         variable=$vars/{name}-{namespace}
         mountpoint -q $vars || mount -t efivarfs efivarfs $vars
         printf %b '{attributes}\\0000\\0000\\0000{octal}' > /run/enrol
         # The kernel protects those that are there.
         [ ! -e $variable ] || chattr -i $variable
         cat /run/enrol > $variable"
    )
}
