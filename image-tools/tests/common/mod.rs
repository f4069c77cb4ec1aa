//! What every test of `ralph-image` needs: a directory with inputs, and the real program.

// Each test program uses its own part of this.
#![allow(dead_code)]

pub mod uki;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use qemu_tests::setup;

/// PE machine numbers.
pub const X86_64: u16 = 0x8664;
pub const AARCH64: u16 = 0xaa64;

/// A directory with keys `k` and `other`, `root.erofs`, `linux`, `initrd` and `loader.efi`, where everything runs.
pub struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// Also makes sure that the tools are there which the tests run.
    pub fn new() -> Lab {
        setup::ensure_tools().unwrap();
        let lab = Lab { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(lab.path("tree/etc")).unwrap();
        fs::write(lab.path("tree/etc/os-release"), "ID=ralphos\n").unwrap();
        // Something that does not compress, something that does, something that is not whole chunks.
        fs::write(lab.path("tree/random"), noise(1, 2_500_000)).unwrap();
        fs::write(lab.path("tree/text"), "all work and no play makes ralph a dull boy\n".repeat(20_000)).unwrap();
        lab.tool("mkfs.erofs", &["-T0", "-Enoinline_data", "root.erofs", "tree"]);
        lab.write("linux", &pe(X86_64, 1_300_000));
        lab.write("initrd", &noise(2, 70_001));
        lab.write("loader.efi", &pe(X86_64, 100_000));
        for name in ["k", "other"] {
            lab.ok(&["keygen", "--out", name]);
        }
        lab
    }

    /// As [`Lab::new`], with `v1.zst` signed by `k`.
    pub fn with_image() -> Lab {
        let lab = Lab::new();
        lab.build("v1.zst", &["--key", "k.pem"]);
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// Names in the directory, to tell whether something was left behind.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// `ralph-image`, run in the directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ralph-image"));
        command.current_dir(self.dir.path()).args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs `ralph-image`, which must succeed and say nothing on standard error; its standard output.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        assert_eq!(error, "", "no progress where standard error is no terminal");
        output.stdout
    }

    /// Runs `ralph-image`, which must fail with this exit code, print nothing, and leave no file behind; its message.
    #[track_caller]
    pub fn fails(&self, arguments: &[&str], code: i32) -> String {
        let before = self.names();
        let output = self.run(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
        assert_eq!(self.names(), before, "{arguments:?} left something behind");
        error
    }

    /// Builds an image of the inputs.
    #[track_caller]
    pub fn build(&self, output: &str, more: &[&str]) {
        self.ok(&[&Self::BUILD, more, &["-o", output]].concat());
    }

    pub const BUILD: [&str; 17] = [
        "build",
        "--root",
        "root.erofs",
        "--linux",
        "linux",
        "--initrd",
        "initrd",
        "--os-id",
        "ralphos",
        "--version",
        "1.0.0",
        "--arch",
        "x86_64",
        "--epoch",
        "1",
        "--level",
        "3",
    ];

    /// Runs a stock tool in the directory, which must succeed; its standard output.
    #[track_caller]
    pub fn tool(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        setup::run(setup::command(program).current_dir(self.dir.path()).args(arguments)).unwrap()
    }
}

/// Bytes that do not compress, the same ones each time.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| next().to_le_bytes()).take(len.div_ceil(8)).flatten().collect();
    bytes.truncate(len);
    bytes
}

/// Something that the firmware of this machine would take for an EFI application, with noise for code.
pub fn pe(machine: u16, len: usize) -> Vec<u8> {
    let mut bytes = noise(machine.into(), len);
    bytes[..256].fill(0);
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c..0x40].copy_from_slice(&64_u32.to_le_bytes());
    bytes[64..68].copy_from_slice(b"PE\0\0");
    bytes[68..70].copy_from_slice(&machine.to_le_bytes());
    bytes[88..90].copy_from_slice(&0x020b_u16.to_le_bytes());
    bytes[156..158].copy_from_slice(&10_u16.to_le_bytes());
    bytes
}

/// As [`pe`], with a header that is whole: a kernel which needs more memory than it has bytes.
pub fn kernel(machine: u16, len: usize) -> Vec<u8> {
    let mut bytes = pe(machine, len);
    // Six data directories, all empty.
    bytes[84..86].copy_from_slice(&160_u16.to_le_bytes());
    bytes[196..200].copy_from_slice(&6_u32.to_le_bytes());
    bytes[144..148].copy_from_slice(&kernel_memory(len).to_le_bytes());
    bytes
}

/// The memory that a [`kernel`] of this length asks for.
pub fn kernel_memory(len: usize) -> u32 {
    len as u32 + 0x12_3000
}

/// Where something stands in a file.
pub fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).expect("it is there")
}

/// Copies a byte range of a file to another file, as holes where it can.
pub fn cut(from: &Path, start: u64, len: u64, to: &Path) {
    use std::io::{Read, Seek, SeekFrom};
    let mut source = fs::File::open(from).unwrap();
    source.seek(SeekFrom::Start(start)).unwrap();
    let target = fs::File::create(to).unwrap();
    target.set_len(len).unwrap();
    let mut block = vec![0; 1 << 16];
    let mut at = 0;
    while at < len {
        let part = block.len().min((len - at) as usize);
        source.read_exact(&mut block[..part]).unwrap();
        if block[..part].iter().any(|byte| *byte != 0) {
            std::os::unix::fs::FileExt::write_all_at(&target, &block[..part], at).unwrap();
        }
        at += part as u64;
    }
}
