//! A folder with all that an update needs, and the program.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use qemu_tests::{setup, workspace};
use serde_json::Value;

/// A folder with a key pair, the parts of a system, an image of 1.0.0 and a disk with it in slot A.
pub struct Lab {
    dir: tempfile::TempDir,
    image_tool: PathBuf,
}

/// The least that passes for a kernel of x86_64.
fn pe() -> Vec<u8> {
    let mut linux = vec![0; 40_000];
    let pieces: [(usize, &[u8]); 5] =
        [(0, b"MZ"), (0x3C, &[64]), (64, b"PE\0\0\x64\x86"), (88, &[0x0B, 0x02]), (156, &[10])];
    for (at, bytes) in pieces {
        linux[at..at + bytes.len()].copy_from_slice(bytes);
    }
    linux
}

impl Lab {
    pub fn new() -> Self {
        setup::ensure_tools().unwrap();
        let image_tool = workspace::host_programs().unwrap().image;
        let lab = Lab { dir: tempfile::tempdir().unwrap(), image_tool };
        let noise: Vec<u8> = (0..1_500_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        lab.write("root", &noise);
        lab.write("linux", &pe());
        lab.write("loader", &qemu_tests::pe::program(0x8664, &[(".text", b"a boot loader")]));
        lab.write("initrd", b"an initrd");
        lab.tool(&["keygen", "--out", "key"]);
        lab.tool(&["keygen", "--out", "other"]);
        lab.image("v1.zst", &["--version", "1.0.0"]);
        lab.disk("16M");
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    #[track_caller]
    pub fn tool(&self, args: &[&str]) {
        let out = Command::new(&self.image_tool).current_dir(self.dir.path()).args(args).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    #[track_caller]
    pub fn image(&self, name: &str, args: &[&str]) {
        let fixed = ["build", "--root", "root", "--linux", "linux", "--initrd", "initrd", "--os-id", "ralphos"];
        let more = ["--arch", "x86_64", "--level", "1", "--key", "key.pem", "-o", name];
        let epoch: &[&str] = if args.contains(&"--epoch") { &[] } else { &["--epoch", "1"] };
        self.tool(&[&fixed[..], &more, epoch, args].concat());
    }

    /// Makes `disk.raw`, anew, with `v1.zst` in slot A.
    #[track_caller]
    pub fn disk(&self, slot_size: &str) {
        let fixed = ["disk", "--image", "v1.zst", "--trust", "key.pub.pem", "--loader", "loader", "--seed", "1"];
        let sizes = ["--esp-size", "64M", "--slot-size", slot_size, "--var-size", "16M"];
        self.tool(&[&fixed[..], &sizes, &["--force", "-o", "disk.raw"]].concat());
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ralph-update"));
        command.current_dir(self.dir.path()).args(["--disk", "disk.raw"]).args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs with `--json`; the exit code and the object.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> (i32, Value) {
        let out = self.run(&[&["--json"], args].concat());
        let code = out.status.code().unwrap();
        let object: Value = serde_json::from_slice(&out.stdout)
            .unwrap_or_else(|e| panic!("{args:?}: {e}: {}", String::from_utf8_lossy(&out.stderr)));
        assert_eq!(object["format"], 1);
        assert_eq!(object["exit"], code, "{object}");
        (code, object)
    }

    #[track_caller]
    pub fn apply(&self, image: &str, more: &[&str]) -> (i32, Value) {
        self.json(&[&["apply", image, "--trust", "key.pub.pem"], more].concat())
    }

    pub fn status(&self) -> Value {
        self.json(&["status"]).1
    }

    /// The disk as stock tools see it.
    #[track_caller]
    pub fn check_disk(&self) {
        let esp = self.path("esp.img");
        let disk = fs::read(self.path("disk.raw")).unwrap();
        fs::write(&esp, &disk[1 << 20..65 << 20]).unwrap();
        let listing = Command::new("mdir").args(["-a", "-/", "-i"]).arg(&esp).arg("::/").output().unwrap();
        let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
        assert!(listing.contains("1980-01-01") && !listing.contains("-00-00"), "ENT-26: {listing}");
        for command in
            [Command::new("fsck.vfat").arg("-n").arg(&esp), Command::new("sgdisk").arg("-v").arg(self.path("disk.raw"))]
        {
            let out = command.output().unwrap();
            assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stdout));
        }
    }

    #[track_caller]
    pub fn verity_holds(&self, slot: &str) {
        let status = self.status();
        let root_hash = status["slots"][slot]["root_hash"].as_str().unwrap();
        let start = if slot == "a" { 65 } else { 81 } << 20;
        let disk = fs::read(self.path("disk.raw")).unwrap();
        let file = self.path("slot.img");
        fs::write(&file, &disk[start..start + (16 << 20)]).unwrap();
        let size = fs::metadata(self.path("root")).unwrap().len().next_multiple_of(4096);
        let out = Command::new("veritysetup")
            .args(["verify", &format!("--hash-offset={size}")])
            .args([&file, &file])
            .arg(root_hash)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}
