//! The two roots: Debian 12 as it was released, and the same tree after its updates, each as ext4 and as erofs.
//!
//! One run of mmdebstrap makes both: it packs the tree, upgrades it in place as a machine would be, and packs it again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use qemu_tests::{guest, setup};

use crate::made::{made, quoted};

/// What an agent's machine has on board, about a gigabyte with what `--variant=important` brings.
const PACKAGES: &str = "systemd-sysv,python3,nodejs,npm,perl,git,build-essential";
const HOOK: &str = include_str!("upgrade.sh");
/// Clamps the times of what packages and their scripts made: 2023-06-10, the day of Debian 12.
const EPOCH: &str = "1686355200";
const UUID: &str = "5ca1ab1e-0000-4000-8000-00000000be9c";
/// Fewer upgraded packages make a pair that says little.
const FEW: usize = 5;
/// Of both trees alike: what a release does not ship, and what differs between two hosts.
const LEFT_OUT: &[&str] = &[
    "./dev/*",
    "./proc/*",
    "./sys/*",
    "./run/*",
    "./tmp/*",
    "./v1.packages",
    "./v2.packages",
    "./v1.tar",
    "./etc/apt/*",
    "./etc/hostname",
    "./etc/machine-id",
    "./etc/resolv.conf",
    "./var/cache/*",
    "./var/lib/apt/*",
    "./var/log/*",
];

/// A file system for the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fs {
    /// ext4, made by `mkfs.ext4 -d`.
    Ext4,
    /// erofs, not compressed: `ralph-image` compresses better than its small blocks could, and what was compressed before
    /// looks new wherever one byte of it changed.
    Erofs,
}

impl Fs {
    /// As in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Erofs => "erofs",
        }
    }
}

/// The plain images of both versions.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Debian 12 as released.
    pub v1: PathBuf,
    /// With its updates.
    pub v2: PathBuf,
    /// How many packages differ.
    pub upgraded: usize,
}

/// Makes the roots in `dir`, or finds them there.
///
/// # Errors
/// When the archive cannot be reached, has no updates, or a tool fails.
pub fn roots(dir: &Path, fs: Fs) -> Result<Roots> {
    let (first, second) = (dir.join("v1.tar"), dir.join("v2.tar"));
    made(&second, &[], |new| trees(dir, new))?;
    let packages = |name: &str| -> Result<BTreeMap<String, String>> {
        let path = dir.join(name);
        Ok(versions(&std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?))
    };
    let upgraded = differing(&packages("v1.packages")?, &packages("v2.packages")?);
    if upgraded == 0 {
        bail!(
            "the archive has no updates for Debian 12 beyond its last point release: v1 and v2 would be the same. \
             A mirror with an older bookworm beside its present security updates gives a pair (RALPH_DEBIAN_MIRROR, RALPH_DEBIAN_SECURITY_MIRROR)"
        );
    }
    if upgraded < FEW {
        eprintln!("only {upgraded} packages differ between v1 and v2: figures about fetching less say little");
    }
    // Both get the same length: an update never resizes its slot. The second archive was packed without package lists.
    let tree_bytes = std::fs::metadata(&second)?.len();
    let mut images = Vec::new();
    for (tar, version) in [(&first, "v1"), (&second, "v2")] {
        let image = dir.join(format!("{version}.{}", fs.name()));
        made(&image, &[tar], |new| with_tree(tar, |tree| make_fs(fs, tree, tree_bytes, new)))?;
        images.push(image);
    }
    let [v1, v2] = images.try_into().map_err(|_| anyhow::anyhow!("two images were made"))?;
    Ok(Roots { v1, v2, upgraded })
}

/// To be counted up when the making of trees or file systems changes in a way that no constant tells.
const RECIPE: u32 = 2;

/// A name for the recipe: what was made by another one is not used.
pub fn recipe() -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (PACKAGES, HOOK, EPOCH, LEFT_OUT, UUID, RECIPE).hash(&mut hasher);
    format!("{:08x}", hasher.finish() >> 32)
}

fn trees(dir: &Path, new: &Path) -> Result<()> {
    eprintln!("bench: making Debian 12 and its updated version (some minutes, once)");
    let hook = dir.join("upgrade.sh");
    std::fs::write(&hook, HOOK).with_context(|| format!("cannot write {}", hook.display()))?;
    let mirror = guest::mirror();
    let security = guest::security_mirror();
    let script = format!("sh {} \"$1\"", quoted(&hook.display().to_string()));
    let out = quoted(&dir.display().to_string());
    let mut command = setup::command("mmdebstrap");
    command.env("SOURCE_DATE_EPOCH", EPOCH);
    command.args(["--quiet", "--variant=important", "--architectures=amd64", "--format=tar"]);
    command.arg(format!("--include={PACKAGES}"));
    if setup::is_root() {
        command.arg("--mode=root");
    }
    for option in guest::apt_options() {
        command.arg(format!("--aptopt={option}"));
    }
    for hook in [
        format!("{script} keep"),
        format!("copy-out /v1.packages /v1.tar {out}"),
        format!("{script} upgrade {} {}", quoted(&mirror), quoted(&security)),
        format!("copy-out /v2.packages {out}"),
    ] {
        command.arg(format!("--customize-hook={hook}"));
    }
    command.arg("bookworm").arg(new).arg(format!("deb {mirror} bookworm main"));
    setup::run(&mut command).with_context(|| {
        format!(
            "cannot make the trees from {mirror} and {security}; RALPH_DEBIAN_MIRROR and RALPH_DEBIAN_SECURITY_MIRROR name others"
        )
    })?;
    Ok(())
}

fn with_tree(tar: &Path, work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let tree = tar.with_extension("tree");
    let clean = || setup::run(setup::command("rm").arg("-rf").arg(&tree));
    clean()?;
    std::fs::create_dir(&tree).with_context(|| format!("cannot create {}", tree.display()))?;
    let mut command = setup::command("tar");
    command.args(LEFT_OUT.iter().map(|pattern| format!("--exclude={pattern}")));
    command.args(["--extract", "--numeric-owner", "--file"]).arg(tar).arg("--directory").arg(&tree);
    setup::run(&mut command)?;
    work(&tree)?;
    clean().map(drop)
}

fn make_fs(fs: Fs, tree: &Path, tree_bytes: u64, new: &Path) -> Result<()> {
    let mut command = match fs {
        Fs::Ext4 => {
            // A journal is of no use below dm-verity. Some room, as a release has, and lengths that do not change with every rebuild.
            let mib = (tree_bytes + tree_bytes / 2).div_ceil(100 << 20) * 100;
            let mut mkfs = setup::command("mkfs.ext4");
            mkfs.args(["-q", "-F", "-b", "4096", "-m", "0", "-O", "^has_journal", "-U", UUID, "-d"]).arg(tree);
            mkfs.args(["-E", &format!("hash_seed={UUID},lazy_itable_init=0,root_owner=0:0")]);
            // Both names of the same wish: e2fsprogs learnt the second in 1.47.1.
            mkfs.env("E2FSPROGS_FAKE_TIME", EPOCH).env("SOURCE_DATE_EPOCH", EPOCH);
            mkfs.arg(new).arg(format!("{mib}M"));
            mkfs
        }
        Fs::Erofs => {
            let mut mkfs = setup::command("mkfs.erofs");
            // Files without inodes between them (specs/cutting.md, section 3).
            mkfs.args(["-T0", "-U", UUID, "--chunksize=1048576"]).arg(new).arg(tree);
            mkfs
        }
    };
    setup::run(&mut command).map(drop)
}

/// Package and version of each line of `dpkg-query -W`.
fn versions(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|line| line.split_once('\t')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

fn differing(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> usize {
    new.iter().filter(|(name, version)| old.get(*name) != Some(version)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_changed_or_came_are_counted() {
        let old = versions("a\t1\nb:amd64\t2\ngone\t1\n");
        let new = versions("a\t1\nb:amd64\t3\nnew\t1\n");
        assert_eq!(differing(&old, &new), 2);
        assert_eq!(differing(&old, &old), 0);
    }
}
