//! One version of the guest: the base and what a release adds to it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::base::{Base, base, copy, pull_in};
use super::{put, remove};
use crate::setup;
use crate::workspace::{self, Programs};

/// Same for every image, so that equal trees give equal images.
const EROFS_UUID: &str = "7261ffff-7068-4f53-8000-000000000000";

/// Units of the lab; those of the programs under test come from their own folders.
const UNITS: &[(&str, &str, &str)] = &[
    ("guest-agent.service", "sysinit.target", include_str!("../../guest/units/guest-agent.service")),
    ("guest-network.service", "multi-user.target", include_str!("../../guest/units/guest-network.service")),
    ("ralphd.service", "multi-user.target", include_str!("../../guest/units/ralphd.service")),
];

/// A version of the operating system, as a release engineer would describe it.
#[derive(Clone, Debug)]
pub struct Release {
    /// The version, as in `os-release`.
    pub version: String,
    /// What `/usr/lib/ralphd/behave` says, see the program `ralphd`.
    pub ralphd: String,
    /// Its kernel panics in the initrd.
    pub panics: bool,
}

/// A built version: what `ralph-image build` takes.
#[derive(Clone, Debug)]
pub struct Built {
    /// The root file system, an erofs image.
    pub root: PathBuf,
    /// The kernel.
    pub linux: PathBuf,
    /// The initrd.
    pub initrd: PathBuf,
}

impl Release {
    /// A healthy version.
    pub fn new(version: &str) -> Self {
        Self { version: version.to_owned(), ralphd: "ready".to_owned(), panics: false }
    }

    /// The same with a stand-in that behaves as told.
    #[must_use]
    pub fn with_ralphd(mut self, behaviour: &str) -> Self {
        behaviour.clone_into(&mut self.ralphd);
        self
    }

    /// The same with a kernel that panics.
    #[must_use]
    pub fn with_panic(mut self) -> Self {
        self.panics = true;
        self
    }

    /// Builds it in `dir`, with `programs` inside; `extra` are further files (path in the root, content), which win
    /// over what is there.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn build(&self, programs: &Programs, extra: &[(&str, &[u8])], dir: &Path) -> Result<Built> {
        let base = base()?;
        std::fs::create_dir_all(dir)?;
        let tree = dir.join("tree");
        remove(&tree)?;
        // Hard links: a new version is a few files beside the shared ones.
        setup::run(setup::command("cp").args(["--archive", "--link"]).arg(&base.tree).arg(&tree))?;
        self.add(&tree, programs, extra)?;
        let root = dir.join("root.erofs");
        remove(&root)?;
        setup::run(
            setup::command("mkfs.erofs")
                .args(["-T0", "--all-root", "-zlz4hc", "-x-1"])
                .args(["-U", EROFS_UUID])
                .arg(&root)
                .arg(&tree),
        )?;
        remove(&tree)?;
        Ok(self.built(base, root))
    }

    fn built(&self, base: Base, root: PathBuf) -> Built {
        Built { root, linux: base.linux, initrd: if self.panics { base.initrd_that_panics } else { base.initrd } }
    }

    fn add(&self, tree: &Path, programs: &Programs, extra: &[(&str, &[u8])]) -> Result<()> {
        let version = &self.version;
        put(
            &tree.join("usr/lib/os-release"),
            format!("ID=ralphos\nNAME=RalphOS\nPRETTY_NAME=\"RalphOS {version}\"\nVERSION_ID={version}\n"),
        )?;
        put(&tree.join("usr/lib/ralphd/behave"), format!("{}\n", self.ralphd))?;
        for (program, name) in [
            (&programs.update, "ralph-update"),
            (&programs.health_check, "ralph-health-check"),
            (&programs.ralphd, "ralphd"),
            (&programs.agent, "guest-agent"),
        ] {
            let to = tree.join("usr/bin").join(name);
            remove(&to)?;
            // Without debug information: it is most of a program's size, and the guest hashes every byte.
            setup::run(setup::command("strip").arg("-o").arg(&to).arg(program))
                .with_context(|| format!("cannot put {name} into the guest"))?;
        }
        let units = tree.join("usr/lib/systemd/system");
        for (name, target, content) in UNITS {
            put(&units.join(name), content)?;
            pull_in(&units, target, "wants", name)?;
        }
        add_health_check(tree, &units)?;
        for (path, content) in extra {
            put(&tree.join(path), content)?;
        }
        Ok(())
    }
}

/// Installs the health check as its own folder says, by links in place of `systemctl enable`.
fn add_health_check(tree: &Path, units: &Path) -> Result<()> {
    const UNIT: &str = "ralph-health-check.service";
    let shipped = workspace::source_dir().join("health-check/units");
    copy(&shipped.join(UNIT), &units.join(UNIT))?;
    pull_in(units, "boot-complete.target", "requires", UNIT)?;
    pull_in(units, "multi-user.target", "wants", UNIT)?;
    let checks = tree.join("usr/lib/ralph-health-check/checks.d");
    std::fs::create_dir_all(&checks)?;
    copy(&shipped.join("checks.d/50-ralphd.toml"), &checks.join("50-ralphd.toml"))
}
