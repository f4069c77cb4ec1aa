//! The contenders: for each what it needs, made once, and its cases. Our own are in [`crate::ours`].

use std::path::{Path, PathBuf};

use anyhow::Result;
use qemu_tests::setup;

use crate::case::{Case, FLOOR, Fetched, Target, Theme};
use crate::lab::Lab;
use crate::made::{made, quoted};
use crate::ours;

type Maker = fn(&Lab, Target) -> Result<Vec<Case>>;

/// The contenders in the order in which a round runs them.
const MAKERS: [(&str, Maker); 7] = [
    (FLOOR, floor),
    (ours::OURS, ours::images),
    (ours::DELTA, ours::delta),
    ("swupdate", swupdate),
    ("rauc", rauc),
    ("casync", casync),
    ("patch-from", patch_from),
];

/// Their names.
pub fn contenders() -> impl Iterator<Item = &'static str> {
    MAKERS.iter().map(|(name, _)| *name)
}

/// All cases on these targets. What the wanted contenders need is made on the way.
///
/// # Errors
/// When a tool fails.
pub fn cases(lab: &Lab, targets: &[Target], wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for target in targets {
        for (_, maker) in MAKERS.iter().filter(|(name, _)| wanted(name)) {
            cases.extend(maker(lab, *target)?);
        }
    }
    Ok(cases)
}

/// Peers write to a slot that is a file or device of its own, from its beginning.
fn slot(lab: &Lab, target: Target) -> String {
    lab.text(match target {
        Target::File => "slot.img",
        Target::Loop => "slot.dev",
    })
}

/// A case on that slot, which held noise.
fn on_slot(lab: &Lab, target: Target, contender: &'static str, what: &'static str, theme: Theme) -> Case {
    let slot = slot(lab, target);
    Case {
        contender,
        what,
        theme,
        target,
        reset: vec![noise(&slot, 0, lab.slot_len)],
        warm: Vec::new(),
        command: Vec::new(),
        flush: slot.clone().into(),
        fetched: Fetched::Files(Vec::new()),
        check: holds_v2(lab, &slot, 0),
    }
}

/// A command line that fills a part of a file with noise.
pub(crate) fn noise(file: &str, offset: u64, len: u64) -> Vec<String> {
    let (offset, len) = (offset.to_string(), len.to_string());
    words(&[&ours::this_program(), "fill", file, "--offset", &offset, "--len", &len])
}

/// A command line that succeeds if v2 lies there.
pub(crate) fn holds_v2(lab: &Lab, file: &str, offset: u64) -> Vec<String> {
    let root = lab.roots.v2.display().to_string();
    let len = std::fs::metadata(&lab.roots.v2).map_or(0, |meta| meta.len());
    words(&["cmp", &format!("--bytes={len}"), &format!("--ignore-initial=0:{offset}"), &root, file])
}

/// A command line.
pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A pipeline; it fails when any part of it does.
fn shell(script: &str) -> Vec<String> {
    words(&["bash", "-o", "pipefail", "-c", script])
}

/// `dd` as in the floor: whole pieces past the page cache, flushed.
fn dd_into(slot: &str) -> String {
    format!("dd of={} bs=4M iflag=fullblock oflag=direct conv=fsync,notrunc status=none", quoted(slot))
}

fn floor(lab: &Lab, target: Target) -> Result<Vec<Case>> {
    let image = lab.path("v2.zst");
    let dd = dd_into(&slot(lab, target));
    let command = shell(&format!("zstd -dcq {} | {dd}", quoted(&lab.text("v2.zst"))));
    let warm = vec![image.clone()];
    let fetched = Fetched::Files(vec![image]);
    Ok(vec![Case { command, warm, fetched, ..on_slot(lab, target, FLOOR, "zstd and dd", Theme::Full) }])
}

const SW_DESCRIPTION: &str = r#"software = {
    version = "2.0.0";
    hardware-compatibility: ["1.0"];
    slot = {
        file: { images: ({ filename = "v2.zst"; sha256 = "@SHA256@"; device = "@FILE@"; type = "raw"; compressed = "zstd"; installed-directly = true; }); };
        loop: { images: ({ filename = "v2.zst"; sha256 = "@SHA256@"; device = "@LOOP@"; type = "raw"; compressed = "zstd"; installed-directly = true; }); };
    };
}
"#;

/// A signed archive, streamed into the slot.
fn swupdate(lab: &Lab, target: Target) -> Result<Vec<Case>> {
    let swu = lab.path("v2.swu");
    made(&swu, &[&lab.path("v2.zst"), &lab.path("cert.pem")], |new| {
        let sum = setup::run(setup::command("sha256sum").arg(lab.path("v2.zst")))?;
        let sum = String::from_utf8_lossy(&sum[..64.min(sum.len())]).into_owned();
        let text = [("@SHA256@", sum), ("@FILE@", lab.text("slot.img")), ("@LOOP@", lab.text("slot.dev"))]
            .iter()
            .fold(SW_DESCRIPTION.to_owned(), |text, (name, value)| text.replace(name, value));
        std::fs::write(lab.path("sw-description"), text)?;
        let mut sign = setup::command("openssl");
        sign.args(["cms", "-sign", "-binary", "-nosmimecap", "-outform", "DER"]);
        sign.args(["-in", "sw-description", "-out", "sw-description.sig", "-signer", "cert.pem"]);
        sign.args(["-inkey", "cert.key.pem"]).current_dir(parent(new));
        setup::run(&mut sign)?;
        let pack = "printf '%s\\n' sw-description sw-description.sig v2.zst | cpio --quiet -o -H crc > \"$0\"";
        setup::run(setup::command("sh").args(["-c", pack]).arg(new).current_dir(parent(new))).map(drop)
    })?;
    let (cert, selection) = (lab.text("cert.pem"), format!("slot,{}", target.name()));
    let archive = swu.display().to_string();
    let command = words(&["swupdate", "-H", "bench:1.0", "-k", &cert, "-e", &selection, "-i", &archive]);
    let base = on_slot(lab, target, "swupdate", "zstd, signed", Theme::Full);
    Ok(vec![Case { command, warm: vec![swu.clone()], fetched: Fetched::Files(vec![swu]), ..base }])
}

const RAUC_CONF: &str = "[system]
compatible=bench
bootloader=noop
mountprefix=@DIR@/rauc-mount
bundle-formats=plain

[keyring]
path=@DIR@/cert.pem

[slot.rootfs.0]
device=@DIR@/rauc-booted
type=raw
bootname=A

[slot.rootfs.1]
device=@SLOT@
type=raw
bootname=B
";

const RAUC_MANIFEST: &str = "[update]
compatible=bench
version=2.0.0

[bundle]
format=plain

[image.rootfs]
filename=root.img
";

/// The service on a bus of its own, and a client that asks it to install; both are gone when it is done.
const RAUC_SCRIPT: &str = r#"
export DBUS_SYSTEM_BUS_ADDRESS="$DBUS_SESSION_BUS_ADDRESS" DBUS_STARTER_BUS_TYPE=session
rauc --conf="$0" service --override-boot-slot=A >&2 & service=$!
until dbus-send --print-reply --dest=de.pengutronix.rauc / org.freedesktop.DBus.Peer.Ping > /dev/null 2>&1; do
    kill -0 $service || exit 1
    sleep 0.02
done
rauc install "$1" >&2; result=$?
kill $service; wait $service
exit $result
"#;

/// A plain bundle: those that it streams need the device mapper and NBD.
fn rauc(lab: &Lab, target: Target) -> Result<Vec<Case>> {
    let bundle = lab.path("v2.raucb");
    made(&bundle, &[&lab.roots.v2, &lab.path("cert.pem")], |new| {
        let content = parent(new).join("rauc-content");
        // Hard links: the roots lie on the same file system.
        setup::run(setup::command("rm").arg("-rf").arg(&content))?;
        std::fs::create_dir(&content)?;
        std::fs::hard_link(&lab.roots.v2, content.join("root.img"))?;
        std::fs::write(content.join("manifest.raucm"), RAUC_MANIFEST)?;
        let mut bundle = setup::command("rauc");
        bundle.arg("bundle").arg("--cert").arg(lab.path("cert.pem")).arg("--key").arg(lab.path("cert.key.pem"));
        bundle.arg("--mksquashfs-args=-comp zstd -Xcompression-level 3 -b 131072");
        setup::run(bundle.arg(&content).arg(new))?;
        setup::run(setup::command("rm").arg("-rf").arg(&content)).map(drop)
    })?;
    std::fs::write(lab.path("rauc-booted"), "")?;
    std::fs::create_dir_all(lab.path("rauc-mount"))?;
    let conf = lab.path(&format!("rauc-{}.conf", target.name()));
    let dir = parent(&conf).display().to_string();
    std::fs::write(&conf, RAUC_CONF.replace("@DIR@", &dir).replace("@SLOT@", &slot(lab, target)))?;
    let (conf, path) = (conf.display().to_string(), bundle.display().to_string());
    let command = words(&["dbus-run-session", "--", "sh", "-c", RAUC_SCRIPT, &conf, &path]);
    let base = on_slot(lab, target, "rauc", "plain bundle", Theme::Full);
    Ok(vec![Case { command, warm: vec![bundle.clone()], fetched: Fetched::Files(vec![bundle]), ..base }])
}

/// What the slot holds is noise, not worth a look.
const NO_SEED: &str = "--seed-output=no";

/// Chunks from a local store without a seed; and over HTTP with v1 as the seed.
fn casync(lab: &Lab, target: Target) -> Result<Vec<Case>> {
    let index = lab.path("v2.caibx");
    made(&index, &[&lab.roots.v2], |new| {
        let store = parent(new).join("v2.castr");
        setup::run(setup::command("rm").arg("-rf").arg(&store))?;
        let mut make = setup::command("casync");
        make.arg("make").arg(format!("--store={}", store.display())).args(["--compression=zstd", "--digest=sha256"]);
        setup::run(make.arg(new).arg(&lab.roots.v2)).map(drop)
    })?;
    let slot = slot(lab, target);
    let store = format!("--store={}", lab.text("v2.castr"));
    let full = Case {
        command: words(&["casync", "extract", NO_SEED, &store, &index.display().to_string(), &slot]),
        warm: vec![index, lab.path("v2.castr")],
        // What it takes of a store is not to be told from outside; without a seed that is everything.
        fetched: Fetched::Files(vec![lab.path("v2.caibx"), lab.path("v2.castr")]),
        ..on_slot(lab, target, "casync", "local store", Theme::Full)
    };
    let store = format!("--store={}", lab.server.url("v2.castr"));
    let seed = format!("--seed={}", lab.roots.v1.display());
    let update = Case {
        command: words(&["casync", "extract", NO_SEED, &store, &seed, &lab.server.url("v2.caibx"), &slot]),
        warm: vec![lab.path("v2.castr"), lab.roots.v1.clone()],
        fetched: Fetched::Served,
        ..on_slot(lab, target, "casync", "http, v1 as seed", Theme::Update)
    };
    Ok(vec![full, update])
}

/// No updater, but the reference for deltas.
fn patch_from(lab: &Lab, target: Target) -> Result<Vec<Case>> {
    let patch = lab.path("v2.patch.zst");
    let v1 = lab.roots.v1.display().to_string();
    made(&patch, &[&lab.roots.v1, &lab.roots.v2], |new| {
        let mut zstd = setup::command("zstd");
        zstd.args(["-q", "-3", "--long=31", &format!("--patch-from={v1}")]).arg(&lab.roots.v2).arg("-o").arg(new);
        setup::run(&mut zstd).map(drop)
    })?;
    let decode =
        format!("zstd -dcq --long=31 {} {}", quoted(&format!("--patch-from={v1}")), quoted(&lab.text("v2.patch.zst")));
    let command = shell(&format!("{decode} | {}", dd_into(&slot(lab, target))));
    let warm: Vec<PathBuf> = vec![patch.clone(), lab.roots.v1.clone()];
    let base = on_slot(lab, target, "patch-from", "zstd -3 --patch-from", Theme::Update);
    Ok(vec![Case { command, warm, fetched: Fetched::Files(vec![patch]), ..base }])
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::measure;

    #[test]
    fn a_pipeline_fails_with_any_part_of_it() {
        measure(&shell("true | true"), None).unwrap();
        assert!(measure(&shell("false | true"), None).is_err());
    }

    #[test]
    fn what_the_floor_writes_is_the_image_and_nothing_behind_it() {
        // Beside the program under test: a memory file system may lack what writes past the page cache need.
        let dir = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        let slot = dir.path().join("a slot");
        std::fs::write(&slot, vec![7; 16384]).unwrap();
        let script = format!("head -c 8192 /dev/zero | {}", dd_into(&slot.display().to_string()));
        measure(&shell(&script), Some(&slot)).unwrap();
        let bytes = std::fs::read(&slot).unwrap();
        assert!(bytes[..8192].iter().all(|byte| *byte == 0) && bytes[8192..] == [7; 8192]);
    }

    #[test]
    fn contenders_have_names_of_their_own() {
        let mut names: Vec<_> = contenders().collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), MAKERS.len());
    }
}
