//! Runs boot loaders over many small EFI partitions in one life of a machine: what a loader makes of an ESP is known after
//! a tenth of a second in place of a whole boot.
//!
//! The firmware starts `guest/efi/launcher.c`. For each partition it sets the EFI variables and starts the loader there
//! as the firmware would; what the loader starts is `guest/efi/kernel.c`, which writes down what was chosen and fails, so
//! that the loader returns.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::arch::Arch;
use crate::guest::{cached, fingerprint};
use crate::setup::{command, run};
use crate::vm;

/// Bytes of a volume. It has FAT12: for each volume of another kind the firmware takes megabytes of memory.
pub const VOLUME_LEN: u64 = 2 << 20;
/// Where the first partition begins.
const FIRST: u64 = 1 << 20;
/// Partitions on one disk; a table has room for 128.
const PER_DISK: usize = 60;
/// Volumes in one life of a machine: each takes some of the firmware's memory.
pub const PER_MACHINE: usize = 4 * PER_DISK;

/// The two EFI programs, built from `guest/efi`.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Runs loaders.
    pub launcher: PathBuf,
    /// What entries start.
    pub kernel: PathBuf,
    /// The same as a unified kernel image: the loader shows it for its section `.osrel`.
    pub unified: PathBuf,
}

/// Builds the EFI programs of `arch` with its C compiler and linker.
///
/// # Errors
/// When they fail.
pub fn programs(arch: Arch) -> Result<Programs> {
    const SOURCES: [(&str, &str); 3] = [
        ("efi.h", include_str!("../guest/efi/efi.h")),
        ("kernel.c", include_str!("../guest/efi/kernel.c")),
        ("launcher.c", include_str!("../guest/efi/launcher.c")),
    ];
    let dir = cached(&format!("efi-programs-{arch}"), &fingerprint(&(SOURCES, include_str!("loaders.rs"))), |dir| {
        for (name, text) in SOURCES {
            std::fs::write(dir.join(name), text)?;
        }
        compile(arch, dir, "kernel")?;
        compile(arch, dir, "launcher")?;
        let release = dir.join("os-release");
        std::fs::write(&release, "ID=unified\nNAME=Unified\nVERSION_ID=1\n")?;
        let mut objcopy = arch.binutils("objcopy");
        objcopy.arg("--add-section").arg(format!(".osrel={}", release.display()));
        objcopy.args(["--set-section-flags", ".osrel=data,readonly", "--change-section-vma", ".osrel=0x10030000"]);
        run(objcopy.arg(dir.join("kernel.efi")).arg(dir.join("unified.efi")))?;
        Ok(())
    })?;
    let program = |name: &str| dir.join(format!("{name}.efi"));
    Ok(Programs { launcher: program("launcher"), kernel: program("kernel"), unified: program("unified") })
}

/// Two sections on pages of their own, as a PE program has them.
const LAYOUT: &str = "SECTIONS {
    . = 0x10001000;
    .text : { *(.text*) }
    . = ALIGN(4096);
    .data : { *(.rodata*) *(.data*) *(.bss*) *(COMMON) }
    /DISCARD/ : { *(.note*) *(.comment) *(.eh_frame*) }
}
";

fn compile(arch: Arch, dir: &Path, name: &str) -> Result<()> {
    let (source, object) = (dir.join(format!("{name}.c")), dir.join(format!("{name}.o")));
    // No C library, no stack below the pointer (interrupts use it), no floating point, and no pointers in data: the
    // program has no relocations and runs at whatever place the firmware gives it.
    let options = "-c -std=gnu11 -Os -Wall -Wextra -Werror -ffreestanding -fno-ident -fno-stack-protector -fshort-wchar \
        -mgeneral-regs-only -fpic -fvisibility=hidden -fno-asynchronous-unwind-tables -fno-tree-loop-distribute-patterns";
    let mut gcc = arch.binutils("gcc");
    gcc.args(options.split_whitespace());
    if arch == Arch::X86_64 {
        gcc.arg("-mno-red-zone");
    }
    run(gcc.arg("-o").arg(&object).arg(&source))?;
    // A PE program of the kind EFI application (10).
    let program = dir.join(format!("{name}.efi"));
    match arch {
        Arch::X86_64 => {
            let options = "-m i386pep --subsystem 10 --image-base 0x10000000 -s -e efi_main";
            run(arch.binutils("ld").args(options.split_whitespace()).arg("-o").arg(program).arg(&object))?;
        }
        // Its linker writes ELF alone.
        Arch::Aarch64 => {
            let (elf, script) = (dir.join(format!("{name}.elf")), dir.join("pe.ld"));
            std::fs::write(&script, LAYOUT)?;
            let mut ld = arch.binutils("ld");
            run(ld
                .args(["-nostdlib", "--no-warn-rwx-segments", "-s", "-e", "efi_main", "-T"])
                .arg(&script)
                .arg("-o")
                .arg(&elf)
                .arg(&object))?;
            let options = "-O pei-aarch64-little --subsystem efi-app --image-base 0x10000000 --section-alignment 4096";
            run(arch.binutils("objcopy").args(options.split_whitespace()).arg(elf).arg(&program))?;
            // There are no relocations to apply. objcopy says that they were taken away, so that firmware would load the
            // program nowhere but at its base.
            let mut bytes = std::fs::read(&program)?;
            let head = bytes.windows(4).position(|word| word == b"PE\0\0").context("objcopy made no PE program")?;
            *bytes.get_mut(head + 22).context("a PE program has a head")? &= !1;
            std::fs::write(&program, bytes)?;
        }
    }
    Ok(())
}

/// An EFI partition to run the loader of, or a partition beside one.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    /// Paths of files and their content.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Volume {
    /// The files of a volume whose loader, for `arch`, is run under the name `state`, with these EFI variables (name, value).
    pub fn with_loader(arch: Arch, state: &str, loader: &[u8], vars: &[(&str, &str)]) -> Self {
        let mut volume = Self::default();
        volume.put(&arch.loader_path(), loader);
        volume.put("state", state);
        let utf16 = |text: &str| text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let sized = |bytes: Vec<u8>| (bytes.len() as u32).to_le_bytes().into_iter().chain(bytes).collect::<Vec<u8>>();
        let vars: Vec<u8> =
            vars.iter().flat_map(|(name, value)| [sized(utf16(name)), sized(utf16(value))].concat()).collect();
        volume.put("vars", vars);
        volume
    }

    /// Adds a file.
    pub fn put(&mut self, path: &str, content: impl AsRef<[u8]>) {
        self.files.insert(path.to_owned(), content.as_ref().to_vec());
    }

    /// Makes the FAT volume at `place`; `tree` is a folder to use for that.
    fn write(&self, place: &Place, blank: &[u8], tree: &Path) -> Result<()> {
        let disk = File::options().write(true).open(&place.disk)?;
        // Holes stay holes.
        for (n, block) in blank.chunks(4096).enumerate().filter(|(_, block)| block.iter().any(|b| *b != 0)) {
            disk.write_all_at(block, place.offset + n as u64 * 4096)?;
        }
        crate::guest::remove(tree)?;
        std::fs::create_dir_all(tree).with_context(|| format!("cannot create {}", tree.display()))?;
        for (path, content) in &self.files {
            let path = tree.join(path);
            std::fs::create_dir_all(path.parent().unwrap_or(tree))?;
            std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let mut names: Vec<PathBuf> = std::fs::read_dir(tree)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
        names.sort();
        let volume = format!("{}@@{}", place.disk.display(), place.offset);
        // Names are UTF-8 wherever this runs.
        let mut mcopy = command("mcopy");
        mcopy.env("MTOOLS_SKIP_CHECK", "1").env("LC_ALL", "C.UTF-8").args(["-s", "-i", &volume]).args(names).arg("::/");
        run(&mut mcopy)?;
        Ok(())
    }
}

/// A formatted, empty volume.
fn blank(dir: &Path) -> Result<Vec<u8>> {
    let path = dir.join("blank");
    File::create(&path)?.set_len(VOLUME_LEN)?;
    run(command("mkfs.vfat").args(["-F", "12", "-s", "1"]).arg(&path))?;
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// What a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An EFI system partition.
    Esp,
    /// An extended boot loader partition.
    Xbootldr,
}

/// Where a volume lies.
#[derive(Clone, Debug)]
pub struct Place {
    /// The disk image.
    pub disk: PathBuf,
    /// Its first byte there.
    pub offset: u64,
}

/// Machines to run loaders in.
#[derive(Debug)]
pub struct Loaders {
    arch: Arch,
    dir: PathBuf,
    blank: Vec<u8>,
    disks: Vec<PathBuf>,
}

impl Loaders {
    /// A machine of `arch` with its launcher and no volumes, all of it in `dir`, which is there.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn new(arch: Arch, dir: &Path) -> Result<Self> {
        let mut loaders = Self { arch, dir: dir.to_owned(), blank: blank(dir)?, disks: Vec::new() };
        let mut boot = Volume::default();
        boot.put(&arch.loader_path(), std::fs::read(programs(arch)?.launcher)?);
        loaders.add_disk(&[(Kind::Esp, boot)])?;
        Ok(loaders)
    }

    /// Adds ESPs, on as few disks as they fit. Gives their places, in order.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn add(&mut self, volumes: Vec<Volume>) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        let mut volumes: Vec<(Kind, Volume)> = volumes.into_iter().map(|volume| (Kind::Esp, volume)).collect();
        while !volumes.is_empty() {
            let later = volumes.split_off(volumes.len().min(PER_DISK));
            places.extend(self.add_disk(&volumes)?);
            volumes = later;
        }
        Ok(places)
    }

    /// Adds a disk with these partitions.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn add_disk(&mut self, volumes: &[(Kind, Volume)]) -> Result<Vec<Place>> {
        let disk = self.dir.join(format!("disk{}.raw", self.disks.len()));
        let file = File::create(&disk).with_context(|| format!("cannot create {}", disk.display()))?;
        file.set_len(FIRST * 2 + volumes.len() as u64 * VOLUME_LEN)?;
        let mut sgdisk = command("sgdisk");
        let mut places = Vec::new();
        for (n, (kind, _)) in volumes.iter().enumerate() {
            let offset = FIRST + n as u64 * VOLUME_LEN;
            let (first, last) = (offset / 512, (offset + VOLUME_LEN) / 512 - 1);
            let code = if *kind == Kind::Esp { "ef00" } else { "ea00" };
            sgdisk.arg(format!("--new={}:{first}:{last}", n + 1)).arg(format!("--typecode={}:{code}", n + 1));
            places.push(Place { disk: disk.clone(), offset });
        }
        run(sgdisk.arg(&disk))?;
        for (place, (_, volume)) in places.iter().zip(volumes) {
            volume.write(place, &self.blank, &self.dir.join("tree"))?;
        }
        self.disks.push(disk);
        Ok(places)
    }

    /// Starts the machine and runs the loader of every volume that has one. Gives what each did.
    ///
    /// # Errors
    /// When the machine does not come to its end; the last state that it began is the one to look at.
    pub fn run(&self, timeout: Duration) -> Result<BTreeMap<String, Ran>> {
        let text = vm::run_bare(self.arch, &self.disks, &self.dir, timeout)?;
        let mut states = BTreeMap::new();
        for part in text.split("state ").skip(1) {
            let (name, lines) = part.split_once('\n').context("a line without end")?;
            ensure!(part.contains("\nend\n") || part.contains("halted\n"), "{name} did not come to its end:\n{text}");
            states.insert(name.to_owned(), Ran::parse(lines).with_context(|| format!("{name}: {lines}"))?);
        }
        ensure!(text.ends_with("done\n") || text.ends_with("halted\n"), "not all states were run:\n{text}");
        Ok(states)
    }

    /// Starts the firmware on the disk of `place` alone: what the loader there does without a launcher. The machine's
    /// variables are as the last run left them.
    ///
    /// # Errors
    /// As for [`Loaders::run`].
    pub fn boot(&self, place: &Place, timeout: Duration) -> Result<Ran> {
        let text = vm::run_bare(self.arch, std::slice::from_ref(&place.disk), &self.dir, timeout)?;
        Ran::parse(&text).with_context(|| text.clone())
    }
}

/// What a loader did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// The path of what it started, as the firmware says it; None when nothing was.
    pub kernel: Option<String>,
    /// `LoaderInfo`: the loader's name and version.
    pub info: String,
    /// `LoaderEntries`: the ids of its list, in its order.
    pub entries: Vec<String>,
    /// `LoaderEntrySelected`: the id of what it chose.
    pub selected: Option<String>,
    /// `LoaderBootCountPath`: the path of the entry after its try was counted.
    pub counted: Option<String>,
    /// An assertion failed in the loader, which then waits for ever.
    pub halted: bool,
}

impl Ran {
    fn parse(lines: &str) -> Result<Self> {
        let mut ran = Self::default();
        for line in lines.lines() {
            let (word, value) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "kernel" => ran.kernel = Some(text(value)?),
                "info" => ran.info = text(value)?,
                "entries" => ran.entries = utf16(value)?.split_terminator('\0').map(str::to_owned).collect(),
                "selected" => ran.selected = Some(text(value)?),
                "counted" => ran.counted = Some(text(value)?),
                "halted" => ran.halted = true,
                "returned" | "end" | "done" => {}
                _ => bail!("not understood: {line}"),
            }
        }
        Ok(ran)
    }
}

/// A string that ends at its NUL.
fn text(hex: &str) -> Result<String> {
    Ok(utf16(hex)?.split('\0').next().unwrap_or_default().to_owned())
}

fn utf16(hex: &str) -> Result<String> {
    let digits = |at: usize| hex.get(at..at + 4).context("a unit has four digits");
    let unit = |at: usize| Ok(u16::from_str_radix(digits(at)?, 16)?);
    let units: Vec<u16> = (0..hex.len()).step_by(4).map(unit).collect::<Result<_>>()?;
    Ok(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_writes_is_read() {
        let lines =
            "kernel 005c006b0000\nentries 0061000000620000\nselected 00610000\nreturned 8000000000000015\nend\n";
        let ran = Ran::parse(lines).expect("well formed");
        assert_eq!(ran.kernel.as_deref(), Some("\\k"));
        assert_eq!(ran.entries, ["a", "b"]);
        assert_eq!(ran.selected.as_deref(), Some("a"));
        assert!(Ran::parse("kernel 005").is_err());
        assert!(Ran::parse("cannot-set").is_err());
    }
}
