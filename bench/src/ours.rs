//! Our own cases: full images, images from a server to a machine that runs v1, and deltas.

use std::path::Path;

use anyhow::Result;
use qemu_tests::setup;

use crate::case::{Case, Fetched, Target, Theme};
use crate::lab::{Lab, Size};
use crate::made::made;
use crate::peers::{holds_v2, noise, words};

/// Images.
pub const OURS: &str = "ours";
/// Deltas.
pub const DELTA: &str = "delta";

/// What is published, as releases are built: what is fetched counts more than the time to build it (specs/cutting.md, section 5).
const PUBLISHED: &str = "v2-19.ralph.zst";
const DELTA_FILE: &str = "v1-v2.ralph-delta";
/// The machine's records, slot maps among them.
const RECORDS: &str = "records";

/// Command lines that put the disk into its state from before.
struct Reset {
    /// Slot B holds nothing of use.
    noise: Vec<String>,
    /// Slot B holds v1.
    v1: Vec<String>,
    /// The EFI partition knows of no apply.
    forget: Vec<String>,
}

impl Reset {
    fn of(lab: &Lab) -> Self {
        let disk = lab.text("disk.raw");
        let of = format!("of={disk}");
        let (esp, seek) = (format!("if={}", lab.text("esp.img")), format!("seek={}", lab.esp_start));
        let forget = words(&["dd", &esp, &of, &seek, "bs=1M", "oflag=seek_bytes", "conv=fsync,notrunc", "status=none"]);
        let (v1, seek) = (format!("if={}", lab.roots.v1.display()), format!("seek={}", lab.slot_b));
        let flags = ["bs=4M", "iflag=fullblock", "oflag=direct,seek_bytes", "conv=fsync,notrunc", "status=none"];
        let v1 = [words(&["dd", &v1, &of, &seek]), words(&flags)].concat();
        Self { noise: noise(&disk, lab.slot_b, lab.slot_len), v1, forget }
    }
}

/// The machine's records say that these slots hold v1.
fn remember(lab: &Lab, slots: &[&str]) -> Vec<String> {
    let (records, image) = (lab.text(RECORDS), lab.text("v1.ralph.zst"));
    [words(&[&this_program(), "remember", "--records", &records, "--image", &image]), words(slots)].concat()
}

/// Full installs from a file, and updates of a machine that runs v1 from a server.
pub fn images(lab: &Lab, target: Target) -> Result<Vec<Case>> {
    let reset = Reset::of(lab);
    let image = lab.path("v2.ralph.zst");
    let full = Case {
        what: "apply",
        command: by_program(lab, target, &image.display().to_string()),
        ..case(lab, target, Theme::Full, &image)
    };
    if lab.size == Size::Large {
        return Ok(vec![full]);
    }
    let image = lab.path(PUBLISHED);
    made(&image, &[&lab.roots.v2, &lab.programs.image, &lab.path("key.pem")], |new| {
        lab.build_image(2, &lab.roots.v2, &["--level", "19"], new)
    })?;
    let v1_runs = Case {
        what: "http, v1 runs",
        reset: vec![reset.noise, reset.forget.clone(), remember(lab, &["a"])],
        command: by_machine(lab, target, &lab.server.url(PUBLISHED)),
        fetched: Fetched::Served,
        ..case(lab, target, Theme::Update, &image)
    };
    let slot_holds_v1 = Case {
        what: "http, v1 runs, slot holds v1",
        reset: vec![reset.v1, reset.forget, remember(lab, &["a", "b"])],
        ..v1_runs.clone()
    };
    Ok(vec![full, v1_runs, slot_holds_v1])
}

/// A delta from v1, which runs.
pub fn delta(lab: &Lab, target: Target) -> Result<Vec<Case>> {
    // Its new image is needed to make it, and made there.
    images(lab, target)?;
    let delta = lab.path(DELTA_FILE);
    let (old, new) = (lab.path("v1.ralph.zst"), lab.path(PUBLISHED));
    made(&delta, &[&old, &new, &lab.programs.image], |out| {
        let mut make = setup::command(&lab.programs.image.display().to_string());
        make.arg("delta").arg(&old).arg(&new).arg("--trust").arg(lab.path("key.pub.pem"));
        setup::run(make.arg("--sign-key").arg(lab.path("key.pem")).arg("-o").arg(out)).map(drop)
    })?;
    let command = by_program(lab, target, &delta.display().to_string());
    Ok(vec![Case { contender: DELTA, what: "apply", command, ..case(lab, target, Theme::Update, &delta) }])
}

/// Onto a disk whose slot B holds noise; without its command line.
fn case(lab: &Lab, target: Target, theme: Theme, image: &Path) -> Case {
    let reset = Reset::of(lab);
    Case {
        contender: OURS,
        what: "",
        theme,
        target,
        reset: vec![reset.noise, reset.forget],
        warm: vec![image.to_owned()],
        command: Vec::new(),
        flush: match target {
            Target::File => lab.path("disk.raw"),
            Target::Loop => lab.path("disk-slot.dev"),
        },
        fetched: Fetched::Files(vec![image.to_owned()]),
        check: holds_v2(lab, &lab.text("disk.raw"), lab.slot_b),
    }
}

/// `ralph-update --disk DISK apply`; onto a block device by way of [`crate::device`].
fn by_program(lab: &Lab, target: Target, image: &str) -> Vec<String> {
    let (disk, key) = (lab.text("disk.raw"), lab.text("key.pub.pem"));
    let update = lab.programs.update.display().to_string();
    match target {
        Target::File => {
            let mut command = words(&[&update, "--disk", &disk, "apply", "--progress", "json", "--trust", &key]);
            command.extend(workers(lab));
            command.push(image.to_owned());
            command
        }
        Target::Loop => machine(lab, target, &[], image),
    }
}

/// The same on a machine that remembers what its slots hold.
fn by_machine(lab: &Lab, target: Target, image: &str) -> Vec<String> {
    machine(lab, target, &["--records", &lab.text(RECORDS)], image)
}

fn machine(lab: &Lab, target: Target, more: &[&str], image: &str) -> Vec<String> {
    let (disk, key, slot) = (lab.text("disk.raw"), lab.text("key.pub.pem"), lab.text("disk-slot.dev"));
    let exe = this_program();
    let mut command = words(&[&exe, "apply", "--disk", &disk, "--trust", &key]);
    if target == Target::Loop {
        command.extend(words(&["--slot", &slot]));
    }
    command.extend(workers(lab));
    command.extend(words(more));
    command.push(image.to_owned());
    command
}

fn workers(lab: &Lab) -> Vec<String> {
    lab.workers.map_or_else(Vec::new, |workers| words(&["--workers", &workers.to_string()]))
}

/// This very program.
pub fn this_program() -> String {
    std::env::current_exe().unwrap_or_else(|_| "update-bench".into()).display().to_string()
}
