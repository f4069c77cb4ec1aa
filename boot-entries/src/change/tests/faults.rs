//! Content that does not come, media that lie, and names that share clusters.

use std::io::Read;

use super::*;
use crate::entry::Payloads;
use crate::fat::ClusterFault;

fn path(text: &str) -> EspPath {
    text.parse().unwrap()
}

fn shared(first: &str, second: &str, same_start: bool) -> ClusterFault {
    ClusterFault::Shared { first: path(first), second: path(second), same_start }
}

const B: &str = "loader/entries/ralphos-b-g2+2-1.conf";
const B_COUNTED: &str = "loader/entries/ralphos-b-g2+1-2.conf";

#[test]
fn ent22_a_cut_counting_rename_is_mended_on_the_unmounted_volume() {
    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2+2-1.conf", "ralphos-b-g2+1-2.conf"]);
    esp.set_faults(vec![shared(B, B_COUNTED, true)]);
    let tidied = tidy(&lock(), &mut esp).unwrap();
    assert_eq!(tidied.removed, ["ralphos-b-g2+2-1.conf"]);
    assert_eq!(
        esp.take_events()[4..],
        ["check clusters", "drop loader/entries/ralphos-b-g2+2-1.conf", "check clusters", "flush"]
    );
    assert_eq!(boots(&esp), Some((Slot::B, 2)), "the entry's clusters were kept");
}

#[test]
fn ent22_a_cut_rename_of_the_other_slot_is_mended_before_the_fence_removes_anything() {
    let (a, a_counted) = ("loader/entries/ralphos-a-g3+2-1.conf", "loader/entries/ralphos-a-g3+1-2.conf");
    let mut esp = machine(&["ralphos-a-g3+2-1.conf", "ralphos-a-g3+1-2.conf", "ralphos-b-g2.conf"]);
    esp.set_faults(vec![shared(a_counted, a, true)]);
    let _ = fence(&lock(), &mut esp, Slot::B).unwrap();
    let events = esp.take_events();
    assert_eq!(events[..2], ["check clusters".to_owned(), format!("drop {a}")]);
    assert_eq!(boots(&esp), Some((Slot::A, 3)));
}

#[test]
fn ent22_any_other_sharing_is_refused_with_both_names() {
    for (first, second, same_start) in [
        // Not the same system, not the same start, not an entry, a name that is no counted one.
        ("loader/entries/ralphos-a-g1.conf", "loader/entries/ralphos-a-g3.conf", true),
        ("loader/entries/ralphos-a-g1.conf", "loader/entries/other.conf", true),
        ("loader/entries/ralphos-a-g1.conf", "loader/entries/ralphos-a-g1+1-2.conf", true),
        ("loader/entries/ralphos-a-g1+2-1.conf", "loader/entries/ralphos-a-g1+1-2.conf", false),
        ("ralphos/a/g1-linux", "EFI/BOOT/BOOTX64.EFI", true),
        ("ralphos/a/g1-linux", "ralphos/a/g1-initrd", false),
    ] {
        let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2.conf"]);
        esp.set_faults(vec![shared(first, second, same_start)]);
        match fence(&lock(), &mut esp, Slot::B) {
            Err(ChangeError::SharedClusters { first: f, second: s }) => {
                assert_eq!((f.as_str(), s.as_str()), (first, second));
            }
            other => panic!("{other:?} for {first} {second}"),
        }
        assert_eq!(esp.take_events(), ["check clusters"], "nothing is removed");
    }
}

/// A cut while payloads were written: the fence must get rid of them without the kernel freeing anything, and without
/// harm to what shares their clusters.
#[test]
fn ent22_the_fence_drops_what_it_cannot_remove() {
    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2+0-3.conf"]);
    esp.set_faults(vec![
        ClusterFault::Broken { path: path("ralphos/b/g2-linux") },
        shared("ralphos/b/g2-initrd", "ralphos/a/g1-initrd", false),
    ]);
    apply(&mut esp, 3).unwrap();
    let events = esp.take_events();
    assert_eq!(
        events[3..12],
        [
            "check clusters",
            "remove loader/entries/ralphos-b-g2+0-3.conf",
            "flush",
            "check clusters",
            "drop ralphos/b/g2-initrd",
            "check clusters",
            "drop ralphos/b/g2-linux",
            "check clusters",
            "flush"
        ]
    );
    assert_eq!(boots(&esp), Some((Slot::B, 3)));
    let running = find(&mut esp, "ralphos-a-g1.conf").unwrap();
    assert_eq!(crate::state::is_whole(&mut esp, &running).unwrap(), crate::state::Wholeness::Whole);
}

#[test]
fn ent22_a_broken_chain_elsewhere_stops_nothing() {
    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2.conf"]);
    esp.set_faults(vec![ClusterFault::Broken { path: path("ralphos/a/g9-linux") }]);
    apply(&mut esp, 3).unwrap();
    assert!(!esp.take_events().iter().any(|event| event.starts_with("drop ")));
}

/// Writes the kernel of slot B from `content`, whatever was announced.
fn write_linux(esp: &mut dyn Esp, size: u64, content: &mut dyn Read, digest: [u8; 32]) -> Result<(), ChangeError> {
    let fenced = fence(&lock(), esp, Slot::B)?;
    let generation = Generation::new(2).unwrap();
    fenced.write_payload(&lock(), esp, PayloadKind::Linux, generation, size, content, digest).map(drop)
}

#[test]
fn upd5_content_that_does_not_come_is_told_from_an_esp_that_fails() {
    struct Torn;
    impl Read for Torn {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::ConnectionReset))
        }
    }
    let linux = payload(Slot::B, 2, PayloadKind::Linux);
    let size = linux.len() as u64;
    for (mut content, kind) in [
        (Box::new(linux[..100].chain(Torn)) as Box<dyn Read>, io::ErrorKind::ConnectionReset),
        (Box::new(&linux[..100]), io::ErrorKind::UnexpectedEof),
        (Box::new(linux.chain(&b"x"[..])), io::ErrorKind::InvalidData),
    ] {
        let mut esp = machine(&["ralphos-a-g1.conf"]);
        match write_linux(&mut esp, size, &mut content, sha256(&linux)) {
            Err(ChangeError::Source { kind: PayloadKind::Linux, source }) => assert_eq!(source.kind(), kind),
            other => panic!("{other:?}"),
        }
        assert_eq!(esp.content("ralphos/b/g2-linux"), None, "the partial file is gone");
    }
    let mut esp = machine(&["ralphos-a-g1.conf"]);
    esp.set_space(crate::esp::Space { cluster_size: 4096, free_clusters: 1 });
    match write_linux(&mut esp, size, &mut linux.as_slice(), sha256(&linux)) {
        Err(ChangeError::Esp(EspError::Io { source, .. })) => assert_eq!(source.kind(), io::ErrorKind::StorageFull),
        other => panic!("{other:?}"),
    }
}

#[test]
fn upd5_other_content_than_announced_is_refused() {
    let linux = payload(Slot::B, 2, PayloadKind::Linux);
    let mut esp = machine(&["ralphos-a-g1.conf"]);
    let result = write_linux(&mut esp, linux.len() as u64, &mut linux.as_slice(), [7; 32]);
    assert!(matches!(result, Err(ChangeError::Content { kind: PayloadKind::Linux, .. })), "{result:?}");
    assert_eq!(boots(&esp), Some((Slot::A, 1)));
}

#[test]
fn ent3_payload_files_are_never_overwritten() {
    let linux = payload(Slot::B, 2, PayloadKind::Linux);
    let mut esp = machine(&["ralphos-a-g1.conf"]);
    let fenced = fence(&lock(), &mut esp, Slot::B).unwrap();
    let mut write = || {
        let (size, generation) = (linux.len() as u64, Generation::new(2).unwrap());
        fenced.write_payload(&lock(), &mut esp, PayloadKind::Linux, generation, size, &mut &linux[..], sha256(&linux))
    };
    write().unwrap();
    assert!(matches!(write(), Err(ChangeError::Esp(EspError::Exists { .. }))));
}

#[test]
fn upd6_an_entry_that_does_not_belong_to_what_was_written_is_refused() {
    let lock = lock();
    let write = |esp: &mut FakeEsp, fenced: &Fenced, kind| {
        let content = payload(Slot::B, 2, kind);
        let (size, digest) = (content.len() as u64, sha256(&content));
        fenced.write_payload(&lock, esp, kind, Generation::new(2).unwrap(), size, &mut &content[..], digest).unwrap()
    };
    let good = entry(Slot::B, 2);
    let Payloads::Kernel { linux, .. } = good.payloads else { panic!("{good:?}") };
    let other_hash = Entry { payloads: Payloads::Kernel { linux, initrd: [0; 32] }, ..good.clone() };
    let unified = Entry { payloads: Payloads::Uki(linux), ..good.clone() };
    let mut unprintable = good.clone();
    unprintable.title = "a\nb".into();
    for (entry, kinds, expected) in [
        (entry(Slot::A, 2), 2, "the slot differs"),
        (entry(Slot::B, 3), 2, "linux differs"),
        (other_hash, 2, "initrd differs"),
        (good, 1, "initrd differs"),
        (unified, 2, "uki differs"),
        (unprintable, 2, "not valid"),
    ] {
        let mut esp = machine(&["ralphos-a-g1.conf"]);
        let fenced = fence(&lock, &mut esp, Slot::B).unwrap();
        let kinds = &[PayloadKind::Linux, PayloadKind::Initrd][..kinds];
        let written: Vec<_> = kinds.iter().map(|kind| write(&mut esp, &fenced, *kind)).collect();
        let error = stage(&lock, &mut esp, fenced, &written, &entry).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(boots(&esp), Some((Slot::A, 1)));
        assert_eq!(esp.files().iter().filter(|file| file.contains("entries")).count(), 1);
    }
}

/// A medium that loses what it was given: the entry must not become live (`ENT-24`).
#[derive(Debug)]
struct Liar(FakeEsp);

impl Esp for Liar {
    fn list(&mut self, dir: &EspPath) -> Result<Vec<crate::esp::DirItem>, EspError> {
        self.0.list(dir)
    }
    fn exists(&mut self, path: &EspPath) -> Result<bool, EspError> {
        self.0.exists(path)
    }
    fn read(&mut self, path: &EspPath, limit: u64) -> Result<Vec<u8>, EspError> {
        self.0.read(path, limit)
    }
    fn read_head(&mut self, path: &EspPath, length: usize) -> Result<Vec<u8>, EspError> {
        self.0.read_head(path, length)
    }
    fn write_new(&mut self, path: &EspPath, size: u64, content: &mut dyn Read) -> Result<(), WriteError> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).unwrap();
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        self.0.write_new(path, size, &mut bytes.as_slice())
    }
    fn overwrite_byte(&mut self, path: &EspPath, offset: u64, from: u8, to: u8) -> Result<(), EspError> {
        self.0.overwrite_byte(path, offset, from, to)
    }
    fn remove(&mut self, path: &EspPath) -> Result<(), EspError> {
        self.0.remove(path)
    }
    fn make_dir(&mut self, path: &EspPath) -> Result<(), EspError> {
        self.0.make_dir(path)
    }
    fn flush(&mut self) -> Result<(), EspError> {
        self.0.flush()
    }
    fn hash_file(&mut self, path: &EspPath) -> Result<([u8; 32], u64), EspError> {
        self.0.hash_file(path)
    }
    fn space(&mut self) -> Result<crate::esp::Space, EspError> {
        self.0.space()
    }
    fn cluster_faults(&mut self, dirs: &[EspPath]) -> Result<Vec<ClusterFault>, EspError> {
        self.0.cluster_faults(dirs)
    }
    fn drop_name(&mut self, path: &EspPath) -> Result<(), EspError> {
        self.0.drop_name(path)
    }
    fn can_swap(&mut self, a: &EspPath, b: &EspPath) -> Result<(), EspError> {
        self.0.can_swap(a, b)
    }
    fn swap_contents(&mut self, a: &EspPath, b: &EspPath) -> Result<(), EspError> {
        self.0.swap_contents(a, b)
    }
    fn make_room(&mut self, dir: &EspPath, slots: usize) -> Result<(), EspError> {
        self.0.make_room(dir, slots)
    }
}

#[test]
fn ent24_what_does_not_read_back_does_not_go_live() {
    let mut esp = Liar(machine(&["ralphos-a-g1.conf", "ralphos-b-g2+2-1.conf"]));
    let trial = find(&mut esp, "ralphos-b-g2+2-1.conf").unwrap();
    let result = commit(&lock(), &mut esp, &trial);
    assert!(matches!(result, Err(ChangeError::NotAsWritten { .. })), "{result:?}");
    assert!(!esp.0.take_events().iter().any(|event| event.starts_with("overwrite") || event.starts_with("remove")));
    assert_eq!(boots(&esp.0), Some((Slot::B, 2)));

    let linux = payload(Slot::B, 2, PayloadKind::Linux);
    let result = write_linux(&mut esp, linux.len() as u64, &mut linux.as_slice(), sha256(&linux));
    assert!(matches!(result, Err(ChangeError::NotAsWritten { .. })), "{result:?}");
}
