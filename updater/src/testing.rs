//! What the tests of several modules share: small signed images, and a machine in memory.

use std::cell::RefCell;
use std::io::Cursor;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use boot_entries::fat::VolumeHealth;
use boot_entries::guard::{GuardError, GuardRecord};
use boot_entries::vars::LOADER_GUID;
use boot_entries::{
    BootOptions, Entry, EntryArchitecture, EntryName, Esp, FakeEsp, FoundVars, Liveness, LoaderVars, OnCorruption,
    PayloadKind, Payloads, read_vars,
};
use disk_layout::fake::{FakeSlot, SlotEvent};
use disk_layout::{
    Architecture, DiskLayout, LockError, NewDisk, RepairError, Seed, Slot, SlotError, SlotIo, TableCopy, TableHealth,
    UpdateLock,
};
use image_format::{BootSource, Digest, ImageSpec, Manifest, PrivateKey, Sources, TrustPolicy, UpdaterVersion, build};

use crate::apply::{ApplyError, Outcome, Request, apply};
use crate::config::Policy;
use crate::history::Records;
use crate::host::{Access, Host, HostError, OpenEsp, TargetSlot};
use crate::progress::Silent;
use crate::refuse::{Downgrade, KnownBad};
use crate::source::Forward;
use crate::stop::Stop;
use crate::uki::tests::{program, small_uki};
use crate::vars::{LoaderVariable, VariableError};
use crate::vitals::{EspVolume, Firmware, Vitals, Watchdog};

pub(crate) const SLOT_LEN: usize = 2 << 20;

/// The least that passes for a kernel of x86_64.
pub(crate) fn kernel() -> Vec<u8> {
    let mut linux = vec![0; 1000];
    let pieces: [(usize, &[u8]); 5] =
        [(0, b"MZ"), (0x3C, &[64]), (64, b"PE\0\0\x64\x86"), (88, &[0x0B, 0x02]), (156, &[10])];
    for (at, bytes) in pieces {
        linux[at..at + bytes.len()].copy_from_slice(bytes);
    }
    linux
}

/// A program that nobody has signed, another for each version.
pub(crate) fn installed_kernel(version: &str) -> Vec<u8> {
    small_uki(version)
}

pub(crate) fn key() -> PrivateKey {
    PrivateKey::from_seed(&[7; 32])
}

pub(crate) fn spec(version: &str) -> ImageSpec {
    ImageSpec {
        os_id: "ralphos".to_owned(),
        version: version.to_owned(),
        architecture: image_format::Architecture::X86_64,
        compatible: Vec::new(),
        epoch: 1,
        min_updater: UpdaterVersion(0, 1, 0),
        title: "RalphOS".to_owned(),
        options: "quiet panic=10".to_owned(),
        level: 1,
        chunk_len: 256 * 1024,
        workers: NonZeroUsize::new(1),
    }
}

/// An image and its manifest. The root has 700 KiB: two blocks of leaves, and chunks that do not end with it.
pub(crate) fn image(spec: &ImageSpec) -> (Vec<u8>, Manifest) {
    let root: Vec<u8> = (0..700 * 1024_u32).map(|at| (at >> 5 ^ at >> 13) as u8).collect();
    image_of(spec, [root, spec.version.clone().into_bytes()].concat())
}

/// An image of this root.
pub(crate) fn image_of(spec: &ImageSpec, root: Vec<u8>) -> (Vec<u8>, Manifest) {
    let mut out = Cursor::new(Vec::new());
    let sources = Sources {
        root: &mut Cursor::new(root),
        boot: BootSource::Kernel {
            linux: &mut Cursor::new(kernel()),
            initrd: &mut Cursor::new(format!("initrd of {}", spec.version).into_bytes()),
        },
    };
    let built = build(spec, sources, &[key()], &mut out, &mut |_, _| {}).unwrap();
    (out.into_inner(), built.manifest)
}

pub(crate) fn trust(keys: &[PrivateKey]) -> TrustPolicy {
    TrustPolicy::new(keys.iter().map(PrivateKey::public).collect(), NonZeroUsize::MIN).unwrap()
}

/// The namespace of `SecureBoot`, and that of `db`.
pub(crate) const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const IMAGE_SECURITY: &str = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";

/// The default boot loader of every machine here.
pub(crate) fn installed_loader() -> Vec<u8> {
    program(0x8664, &[(".sdmagic", b"#### LoaderInfo: systemd-boot 257.9 ####")])
}

/// The boot loader of this boot says that it was started from here. Gone with the boot, as it makes it.
pub(crate) fn started_by(variables: &Path, path: &str) {
    let text: Vec<u8> = path.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let name = format!("LoaderImageIdentifier-{LOADER_GUID}");
    std::fs::write(variables.join(name), [&[6, 0, 0, 0], &text[..]].concat()).unwrap();
}

/// EFI variables of a firmware that enforces, and trusts the boot loader and nobody else.
fn enforcing(dir: &Path) {
    for (name, namespace, value) in
        [("SecureBoot", GLOBAL, &[1][..]), ("SetupMode", GLOBAL, &[0]), ("db", IMAGE_SECURITY, &[])]
    {
        std::fs::write(dir.join(format!("{name}-{namespace}")), [&[7, 0, 0, 0], value].concat()).unwrap();
    }
}

/// `host` with a firmware that enforces, and trusts its boot loader and nobody else; its variables are in the folder.
pub(crate) fn under_secure_boot(host: FakeHost) -> (FakeHost, tempfile::TempDir) {
    let variables = tempfile::tempdir().unwrap();
    enforcing(variables.path());
    enrol_digest(variables.path(), "db", &installed_loader());
    (FakeHost { efivars: Some(variables.path().to_owned()), ..host }, variables)
}

/// Adds to `db` or `dbx` the digest of a program, in a list of its own.
pub(crate) fn enrol_digest(dir: &Path, list: &str, program: &[u8]) {
    // EFI_CERT_SHA256_GUID, as it is stored.
    const SHA256: [u8; 16] = 0x2616_c4c1_4c50_9240_aca9_41f9_3693_4328_u128.to_be_bytes();
    let digest = secure_boot::Pe::open(Cursor::new(program)).unwrap().authenticode_digest().unwrap();
    let numbers = [28 + 48, 0, 48_u32].map(u32::to_le_bytes).concat();
    let path = dir.join(format!("{list}-{IMAGE_SECURITY}"));
    let old = std::fs::read(&path).unwrap_or_else(|_| vec![7, 0, 0, 0]);
    std::fs::write(path, [&old[..], &SHA256, &numbers, &[0; 16], &digest].concat()).unwrap();
}

/// What happens to the machine, in order.
pub(crate) type Log = Arc<Mutex<Vec<String>>>;

/// A machine in memory: a [`FakeEsp`], a [`FakeSlot`] for the target, and one log of both.
pub(crate) struct FakeHost {
    pub layout: DiskLayout,
    pub booted: Option<BootOptions>,
    pub vars: LoaderVars,
    /// Where the variables are read from, in place of `vars`.
    pub efivars: Option<PathBuf>,
    pub records: Records,
    pub log: Log,
    pub esp: Rc<RefCell<Option<FakeEsp>>>,
    pub slot: Arc<Mutex<Option<FakeSlot>>>,
    /// What the boot guard's record says; none: there is no such file.
    pub guard: RefCell<Option<GuardRecord>>,
    /// Flips a bit of every block read back at this offset.
    pub spoil: Option<u64>,
    /// What else the doctor looks at; nothing is amiss.
    pub vitals: RefCell<Vitals>,
    /// A systemd-boot 257 that counts.
    pub firmware: RefCell<Option<Firmware>>,
    /// Variables that were removed.
    pub removed: RefCell<Vec<LoaderVariable>>,
    /// The machine takes neither a variable nor a partition table.
    pub refuses: bool,
}

impl FakeHost {
    /// Slot A runs, committed, generation 1, version 1.0.0; slot B is empty.
    pub(crate) fn new() -> Self {
        let layout = NewDisk {
            architecture: Architecture::X86_64,
            sector_size: 512,
            esp_len: 64 << 20,
            slot_len: SLOT_LEN as u64,
            var_len: 1 << 20,
            seed: Seed::Fixed(1),
        };
        let layout = layout.plan().unwrap().layout().clone();
        let log = Log::default();
        let slot_log = Arc::clone(&log);
        let slot = FakeSlot::new(SLOT_LEN).observed_by(Box::new(move |event| {
            let (what, offset) = match event {
                SlotEvent::Write { offset, .. } => ("write", offset),
                SlotEvent::Read { offset, .. } => ("read", offset),
                SlotEvent::Flush => ("flush", 0),
            };
            slot_log.lock().unwrap().push(format!("slot {what} {offset}"));
            Ok(())
        }));
        let mut esp = FakeEsp::new();
        esp.put("EFI/BOOT/BOOTX64.EFI", &installed_loader());
        esp.put("loader/loader.conf", b"timeout 0\n");
        esp.put("ralphos/guard", &[0; 4096]);
        let mut host = FakeHost {
            layout,
            booted: None,
            vars: LoaderVars::default(),
            efivars: None,
            records: Records::none(),
            log,
            esp: Rc::new(RefCell::new(Some(esp))),
            slot: Arc::new(Mutex::new(Some(slot))),
            guard: RefCell::new(Some(GuardRecord::default())),
            spoil: None,
            vitals: RefCell::new(Vitals {
                loaders_swapped: Some(false),
                table: Some(TableHealth { primary: None, backup: None, differ: false, misplaced: false }),
                volume: Some(Ok(EspVolume { health: VolumeHealth::default(), entries_room: Some(256) })),
                watchdog: Some(Watchdog::Armed),
                now: Some(1_800_000_000),
                built: Some(1_700_000_000),
                bless_boot: Some(false),
                ..Vitals::default()
            }),
            firmware: RefCell::new(Some(Firmware {
                features: Some(0xff),
                loader: Some("systemd-boot 257.9".into()),
                preferred: None,
            })),
            removed: RefCell::default(),
            refuses: false,
        };
        host.put_system("ralphos-a-g1.conf", "1.0.0");
        host.boot("ralphos-a-g1.conf", "1.0.0");
        host
    }

    pub(crate) fn entry(&self, name: EntryName, version: &str) -> Entry {
        Entry {
            title: "RalphOS".into(),
            architecture: EntryArchitecture::X64,
            options: BootOptions {
                root_hash: [1; 32],
                partuuid: self.layout.slot(name.slot).unique_guid,
                hash_offset: 4096,
                on_corruption: OnCorruption::Fail,
                slot: name.slot,
                generation: name.generation,
                system: *Digest::of(version).as_bytes(),
                epoch: 1,
                os_version: version.into(),
                failed: None,
                extra: String::new(),
            },
            payloads: Payloads::Kernel {
                linux: *Digest::of(installed_kernel(version)).as_bytes(),
                initrd: *Digest::of(b"old initrd").as_bytes(),
            },
        }
    }

    /// Puts a whole system there.
    pub(crate) fn put_system(&mut self, name: &str, version: &str) {
        let name: EntryName = name.parse().unwrap();
        let entry = self.entry(name, version);
        self.with_esp(|esp| {
            esp.put(name.path().as_str(), &entry.render(Liveness::Live));
            esp.put(entry.payload(PayloadKind::Linux).path().as_str(), &installed_kernel(version));
            esp.put(entry.payload(PayloadKind::Initrd).path().as_str(), b"old initrd");
        });
    }

    /// Boots it.
    pub(crate) fn boot(&mut self, name: &str, version: &str) {
        self.booted = Some(self.entry(name.parse().unwrap(), version).options);
    }

    pub(crate) fn with_esp<T>(&self, f: impl FnOnce(&mut FakeEsp) -> T) -> T {
        f(self.esp.borrow_mut().as_mut().expect("the ESP is not in use"))
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        self.with_esp(|esp| {
            let files = esp.files();
            files.iter().filter_map(|f| Some(f.strip_prefix("loader/entries/")?.to_owned())).collect()
        })
    }

    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    /// Applies an image signed by [`key`].
    pub(crate) fn apply(&self, image: Vec<u8>) -> Result<Outcome, ApplyError> {
        self.apply_as(image, Downgrade::Refuse, KnownBad::Refuse)
    }

    pub(crate) fn apply_as(
        &self,
        image: Vec<u8>,
        downgrade: Downgrade,
        known_bad: KnownBad,
    ) -> Result<Outcome, ApplyError> {
        self.apply_with(image, downgrade, known_bad, &Stop::default())
    }

    /// As [`FakeHost::apply`]; `stop` may have been asked before.
    pub(crate) fn apply_until(&self, image: Vec<u8>, stop: &Stop) -> Result<Outcome, ApplyError> {
        self.apply_with(image, Downgrade::Refuse, KnownBad::Refuse, stop)
    }

    fn apply_with(
        &self,
        image: Vec<u8>,
        downgrade: Downgrade,
        known_bad: KnownBad,
        stop: &Stop,
    ) -> Result<Outcome, ApplyError> {
        let trust = trust(&[key()]);
        let policy = Policy { os_id: Some("ralphos".into()), ..Policy::default() };
        let request =
            Request { trust: &trust, policy: &policy, downgrade, known_bad, stop, workers: NonZeroUsize::new(1) };
        let source = Box::new(Forward(Cursor::new(image)));
        apply(self, source, &request, &mut Silent)
    }
}

impl Host for FakeHost {
    fn lock(&self) -> Result<UpdateLock, LockError> {
        Ok(UpdateLock::for_tests())
    }

    fn layout(&self) -> &DiskLayout {
        &self.layout
    }

    fn booted(&self) -> Option<&BootOptions> {
        self.booted.as_ref()
    }

    fn loader_vars(&self) -> FoundVars {
        let mut found = match &self.efivars {
            Some(dir) => read_vars(dir),
            None => FoundVars { vars: self.vars.clone(), unreadable: Vec::new() },
        };
        for removed in &*self.removed.borrow() {
            match removed {
                LoaderVariable::OneShot => found.vars.one_shot = None,
                LoaderVariable::Default => found.vars.default = None,
                LoaderVariable::Preferred => {}
            }
        }
        found
    }

    fn variables(&self) -> Option<&Path> {
        self.efivars.as_deref()
    }

    fn records(&self) -> &Records {
        &self.records
    }

    fn refuse_lookalikes(&self) -> Result<(), HostError> {
        Ok(())
    }

    fn open_esp(&self, _: Access) -> Result<Box<dyn OpenEsp>, HostError> {
        let esp = self.esp.borrow_mut().take().expect("opened once at a time");
        let seen = esp.events().len();
        Ok(Box::new(InUse { esp: Some(esp), home: Rc::clone(&self.esp), log: Arc::clone(&self.log), seen }))
    }

    fn open_slot(&self, slot: TargetSlot) -> Result<Box<dyn SlotIo>, SlotError> {
        let running = self.booted.as_ref().map(|options| options.slot);
        assert_ne!(Some(slot.slot()), running, "the booted slot is never opened for writing");
        let slot = self.slot.lock().unwrap().take();
        Ok(Box::new(SlotInUse { slot, home: Arc::clone(&self.slot), spoil: self.spoil }))
    }

    fn read_guard(&self) -> Result<GuardRecord, GuardError> {
        self.guard.borrow().clone().ok_or(GuardError::Missing)
    }

    fn write_guard(&self, _: &UpdateLock, record: &GuardRecord) -> Result<(), GuardError> {
        self.log.lock().unwrap().push("guard write".to_owned());
        *self.guard.borrow_mut() = Some(record.clone());
        Ok(())
    }

    fn firmware(&self) -> Option<Firmware> {
        self.firmware.borrow().clone()
    }

    fn vitals(&self) -> Vitals {
        self.vitals.borrow().clone()
    }

    fn remove_variable(&self, _: &UpdateLock, variable: LoaderVariable) -> Result<(), VariableError> {
        self.log.lock().unwrap().push(format!("variable remove {}", variable.name()));
        if self.refuses {
            return Err(VariableError::StillThere("efivars".into()));
        }
        self.removed.borrow_mut().push(variable);
        if let (LoaderVariable::Preferred, Some(firmware)) = (variable, &mut *self.firmware.borrow_mut()) {
            firmware.preferred = None;
        }
        Ok(())
    }

    fn repair_table(&self, _: &UpdateLock, which: TableCopy) -> Result<(), RepairError> {
        self.log.lock().unwrap().push(format!("table repair {which:?}"));
        if self.refuses {
            return Err(RepairError::NotAsWritten);
        }
        let whole = TableHealth { primary: None, backup: None, differ: false, misplaced: false };
        self.vitals.borrow_mut().table = Some(whole);
        Ok(())
    }

    fn is_blank(&self, slot: Slot) -> Option<bool> {
        let running = self.booted.as_ref().map(|options| options.slot);
        if Some(slot) == running { None } else { self.slot.lock().unwrap().as_mut()?.is_blank().ok() }
    }
}

struct InUse {
    esp: Option<FakeEsp>,
    home: Rc<RefCell<Option<FakeEsp>>>,
    log: Log,
    seen: usize,
}

impl OpenEsp for InUse {
    fn esp(&mut self) -> &mut dyn Esp {
        self.esp.as_mut().expect("present until dropped")
    }

    fn close(self: Box<Self>) -> Result<(), HostError> {
        Ok(())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let Some(esp) = self.esp.take() else { return };
        self.log.lock().unwrap().extend(esp.events()[self.seen..].iter().map(|event| format!("esp {event}")));
        *self.home.borrow_mut() = Some(esp);
    }
}

struct SlotInUse {
    slot: Option<FakeSlot>,
    home: Arc<Mutex<Option<FakeSlot>>>,
    spoil: Option<u64>,
}

impl SlotInUse {
    fn slot(&mut self) -> &mut FakeSlot {
        self.slot.as_mut().expect("present until dropped")
    }
}

impl Drop for SlotInUse {
    fn drop(&mut self) {
        *self.home.lock().unwrap() = self.slot.take();
    }
}

impl SlotIo for SlotInUse {
    fn len(&self) -> u64 {
        SLOT_LEN as u64
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SlotError> {
        self.slot().write_at(offset, bytes)
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        self.slot().flush()
    }

    fn read_at_uncached(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), SlotError> {
        self.slot().read_at_uncached(offset, bytes)?;
        if let Some(at) = self.spoil.and_then(|at| usize::try_from(at.checked_sub(offset)?).ok())
            && let Some(byte) = bytes.get_mut(at)
        {
            *byte ^= 1;
        }
        Ok(())
    }
}
