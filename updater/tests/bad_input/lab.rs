//! A disk image file with two systems, and the proof that a refused image changed nothing that counts.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use boot_entries::fat::{FormatOptions, Volume, format_esp};
use boot_entries::{
    BootOptions, Entry, EntryArchitecture, Esp, EspPath, EspState, Generation, ImageEsp, Liveness, LoaderVars,
    OnCorruption, PayloadKind, Payloads, guard,
};
use disk_layout::{Architecture, DiskLayout, FileWindow, NewDisk, Seed, Slot};
use image_format::{ImageSpec, TrustPolicy};
use updater::apply::{Outcome, Request, apply};
use updater::config::Policy;
use updater::host::ImageFile;
use updater::progress::{Progress, Silent};
use updater::reason;
use updater::refuse::{Downgrade, KnownBad};
use updater::session::{Fencing, Session};
use updater::source::{ImageStream, Source};
use updater::stop::Stop;

use crate::parts::{Plain, key, program_like, spec, trust};

/// Security epoch of the running system, and so the floor.
pub const EPOCH: u32 = 3;
/// Bytes in a slot.
pub const SLOT_LEN: u64 = 1 << 20;

/// How an apply ended: exit code, reason, cause (IFC-1 to IFC-3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ending {
    pub exit: u8,
    pub reason: &'static str,
    pub cause: &'static str,
}

impl Ending {
    /// `reason/cause`, or the reason alone where it says all.
    pub fn told(&self) -> String {
        let separator = if self.cause.is_empty() { "" } else { "/" };
        format!("{}{separator}{}", self.reason, self.cause)
    }
}

/// Slot A holds version 1 (generation 1), committed; slot B holds version 2 (generation 2), committed, and boots next: it is
/// what counts as running, and A is the target.
pub struct Lab {
    pub dir: tempfile::TempDir,
    pub disk: PathBuf,
    layout: DiskLayout,
    pristine: Vec<u8>,
}

/// An image of version 2, the running one.
pub fn running_spec() -> ImageSpec {
    ImageSpec { version: "2.0.0".to_owned(), epoch: EPOCH, compatible: Vec::new(), ..spec() }
}

/// The image of the system that runs.
pub fn running_image() -> Vec<u8> {
    Plain { root: program_like(4 * 4096, 9), ..Plain::small() }.build(&running_spec(), &[key(1)])
}

/// What the attacks are made from: it would be applied.
pub fn good_spec() -> ImageSpec {
    ImageSpec { version: "3.0.0".to_owned(), title: "RalphOS 3.0.0".to_owned(), ..running_spec() }
}

impl Lab {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk.raw");
        let new = NewDisk {
            architecture: Architecture::X86_64,
            sector_size: 512,
            esp_len: 40 << 20,
            slot_len: SLOT_LEN,
            var_len: 1 << 20,
            seed: Seed::Fixed(1),
        };
        let file = File::options().read(true).write(true).create_new(true).open(&disk).unwrap();
        let layout = new.create(&file).unwrap();
        let mut window = FileWindow::new(file, layout.esp.start, layout.esp.len).unwrap();
        format_esp(&mut window, FormatOptions { label: "EFI", serial: 1, sector_size: 512 }).unwrap();
        let mut esp = ImageEsp::new(window);
        guard::make(&mut esp).unwrap();
        put_first_system(&mut esp, &layout);
        drop(esp);
        let mut lab = Lab { dir, disk, layout, pristine: Vec::new() };
        lab.apply(&running_image(), &trust(&[1], 1), &Policy::default()).unwrap();
        lab.commit();
        lab.pristine = fs::read(&lab.disk).unwrap();
        assert_eq!(lab.next_boot(), "ralphos-b-g2.conf");
        lab
    }

    fn commit(&self) {
        let host = ImageFile::open(&self.disk).unwrap();
        let lock = updater::host::Host::lock(&host).unwrap();
        let mut session = Session::open(&host, &lock, Fencing::None).unwrap();
        session.commit().unwrap();
        session.close().unwrap();
    }

    /// The real `apply`, on the disk image file.
    pub fn apply(&self, image: &[u8], trust: &TrustPolicy, policy: &Policy) -> anyhow::Result<Outcome> {
        let path = self.dir.path().join("image.zst");
        fs::write(&path, image).unwrap();
        self.apply_from(Source::File(path).open()?.reader, trust, policy, &mut Silent)
    }

    pub fn apply_from(
        &self,
        source: Box<dyn ImageStream>,
        trust: &TrustPolicy,
        policy: &Policy,
        progress: &mut dyn Progress,
    ) -> anyhow::Result<Outcome> {
        self.apply_until(source, trust, policy, progress, &Stop::default())
    }

    pub fn apply_until(
        &self,
        source: Box<dyn ImageStream>,
        trust: &TrustPolicy,
        policy: &Policy,
        progress: &mut dyn Progress,
        stop: &Stop,
    ) -> anyhow::Result<Outcome> {
        let host = ImageFile::open(&self.disk)?;
        let request =
            Request { trust, policy, downgrade: Downgrade::Refuse, known_bad: KnownBad::Refuse, stop, workers: None };
        Ok(apply(&host, source, &request, progress)?)
    }

    /// Proves that nothing but the target slot was touched, says whether that was, and puts the disk back as it was.
    #[track_caller]
    pub fn check_unchanged(&self, reason: &str, told: &str) {
        let now = fs::read(&self.disk).unwrap();
        if now == self.pristine {
            return;
        }
        assert_eq!(reason, "fenced", "{told}: the disk was changed (THR-14)");
        let (esp, target) = (&self.layout.esp, self.layout.slot(Slot::A));
        for (at, (block, before)) in now.chunks(4096).zip(self.pristine.chunks(4096)).enumerate() {
            let at = at as u64 * 4096;
            let may_differ = [esp, target].iter().any(|part| (part.start..part.end()).contains(&at));
            assert!(block == before || may_differ, "{told}: byte {at} and following were changed");
        }
        assert_eq!(now.len(), self.pristine.len(), "{told}");
        assert_eq!(self.next_boot(), "ralphos-b-g2.conf", "{told}");
        // Fenced at most: of the ESP's files only the target's own may be gone or new.
        let targets = |path: &str| path.starts_with("ralphos/a/") || path.starts_with("loader/entries/ralphos-a-");
        let others = |disk: &[u8]| -> Vec<(String, Vec<u8>)> {
            self.files(disk).into_iter().filter(|(path, _)| !targets(path)).collect()
        };
        assert_eq!(others(&now), others(&self.pristine), "{told}");
        let live = self.with_state(|state| state.live(Slot::A).is_some());
        assert!(!live, "{told}: the target slot was written to and has a live entry");
        self.restore(&now);
    }

    /// Puts the disk back as it was.
    pub fn put_back(&self) {
        self.restore(&fs::read(&self.disk).unwrap());
    }

    fn restore(&self, now: &[u8]) {
        const STEP: usize = 64 * 1024;
        let file = File::options().write(true).open(&self.disk).unwrap();
        for (at, (block, before)) in now.chunks(STEP).zip(self.pristine.chunks(STEP)).enumerate() {
            if block != before {
                file.write_all_at(before, (at * STEP) as u64).unwrap();
            }
        }
    }

    /// Applies and proves that it was refused, nothing changed.
    #[track_caller]
    pub fn refusal(&self, told: &str, image: &[u8], trust: &TrustPolicy, policy: &Policy) -> Ending {
        self.ending(told, self.apply(image, trust, policy))
    }

    /// How it ended; it must not have ended well.
    #[track_caller]
    pub fn ending(&self, told: &str, result: anyhow::Result<Outcome>) -> Ending {
        let Err(error) = result else { panic!("{told}: was accepted") };
        let (exit, reason) = reason::classify(&error);
        self.check_unchanged(reason, told);
        assert!(format!("{error:#}").len() > 20, "{told}: {error:#}");
        Ending { exit: exit as u8, reason, cause: reason::cause(&error).unwrap_or_default() }
    }

    fn with_state<T>(&self, look: impl FnOnce(&EspState) -> T) -> T {
        let file = File::open(&self.disk).unwrap();
        let window = FileWindow::new(file, self.layout.esp.start, self.layout.esp.len).unwrap();
        look(&EspState::read(&mut ImageEsp::new(window)).unwrap())
    }

    /// The file name of the entry that boots next.
    pub fn next_boot(&self) -> String {
        self.with_state(|state| match state.predict(&LoaderVars::default(), EntryArchitecture::X64) {
            boot_entries::Prediction::Boots { file_name, .. } => file_name,
            other => panic!("nothing boots: {other:?}"),
        })
    }

    /// Every file of the ESP, its path in lower case, and content, by the raw reader.
    fn files(&self, disk: &[u8]) -> Vec<(String, Vec<u8>)> {
        let esp = &self.layout.esp;
        let bytes = &disk[esp.start as usize..esp.end() as usize];
        let mut volume = Volume::open(std::io::Cursor::new(bytes)).unwrap();
        let mut esp = ImageEsp::new(std::io::Cursor::new(bytes.to_vec()));
        let (mut dirs, mut files) = (vec![String::new()], Vec::new());
        while let Some(dir) = dirs.pop() {
            for item in volume.list(&dir).unwrap().unwrap() {
                let path = if dir.is_empty() { item.name } else { format!("{dir}/{}", item.name) }.to_lowercase();
                if item.is_dir {
                    dirs.push(path);
                } else {
                    let at: EspPath = path.parse().unwrap();
                    files.push((path, esp.read(&at, 1 << 20).unwrap()));
                }
            }
        }
        files.sort();
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Version 1, in slot A: only its entry and payloads, which is all that a boot loader sees of it.
fn put_first_system(esp: &mut dyn Esp, layout: &DiskLayout) {
    let plain = Plain::small();
    let entry = Entry {
        title: "RalphOS".into(),
        architecture: EntryArchitecture::X64,
        options: BootOptions {
            root_hash: [1; 32],
            partuuid: layout.slot(Slot::A).unique_guid,
            hash_offset: 4096,
            on_corruption: OnCorruption::Fail,
            slot: Slot::A,
            generation: Generation::FIRST,
            system: [2; 32],
            epoch: 1,
            os_version: "1.0.0".into(),
            failed: None,
            extra: String::new(),
        },
        payloads: Payloads::Kernel {
            linux: *image_format::Digest::of(&plain.linux).as_bytes(),
            initrd: *image_format::Digest::of(&plain.initrd).as_bytes(),
        },
    };
    let mut put = |path: &EspPath, content: &[u8]| {
        esp.write_new(path, content.len() as u64, &mut &content[..]).unwrap();
    };
    put(&entry.payload(PayloadKind::Linux).path(), &plain.linux);
    put(&entry.payload(PayloadKind::Initrd).path(), &plain.initrd);
    put(&"loader/loader.conf".parse().unwrap(), b"timeout 0\n");
    put(&entry.name(None).path(), &entry.render(Liveness::Live));
    esp.flush().unwrap();
}

/// A PEM file of a public key of these 32 bytes, whatever they are.
pub fn pem(bytes: &[u8; 32]) -> String {
    const PREFIX: [u8; 12] = [0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00];
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let der = [&PREFIX[..], bytes].concat();
    // 44 bytes: 14 whole groups of three, and two bytes that need one `=`.
    let text: String = der
        .chunks(3)
        .flat_map(|group| {
            let [a, b, c] = [0, 1, 2].map(|at| u32::from(group.get(at).copied().unwrap_or(0)));
            let bits = a << 16 | b << 8 | c;
            (0..4).map(move |digit| match digit > group.len() {
                true => '=',
                false => char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]),
            })
        })
        .collect();
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

/// The text of a rule book beside the workspace.
pub fn specification(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
