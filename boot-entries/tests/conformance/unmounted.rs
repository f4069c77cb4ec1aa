//! What is done on the unmounted volume by the back end that works through the kernel's mount: names taken away (ENT-22),
//! and room made for new ones (ENT-28).

use std::io;
use std::sync::{Arc, Mutex};

use boot_entries::esp::{Esp, EspError, ImageEsp, KernelEsp, Remount};
use boot_entries::names::entries_dir;

use super::{fsck, image_file, names, path, put};

/// Stands for the mount of the volume in an image file: the file is the medium, the directory what the kernel shows of it.
#[derive(Debug)]
struct CountedMount {
    log: Arc<Mutex<Vec<&'static str>>>,
    fails: Fails,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fails {
    Nothing,
    Unmount,
    Mount,
}

impl Remount for CountedMount {
    fn unmount(&mut self) -> io::Result<()> {
        self.log.lock().unwrap().push("unmount");
        if self.fails == Fails::Unmount { Err(io::ErrorKind::ResourceBusy.into()) } else { Ok(()) }
    }

    fn mount(&mut self) -> io::Result<()> {
        self.log.lock().unwrap().push("mount");
        if self.fails == Fails::Mount { Err(io::Error::other("no mount today")) } else { Ok(()) }
    }
}

#[test]
fn ent22_the_kernels_volume_is_mended_unmounted() {
    let image = image_file(40);
    let twins = ["ralphos-b-g7+2-1.conf", "ralphos-b-g7+1-2.conf"].map(|name| entries_dir().join(name).unwrap());
    let mut on_medium = ImageEsp::new(image.reopen().unwrap());
    for twin in &twins {
        put(&mut on_medium, twin.as_str(), b"x");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("shown"), "by the mount").unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let mounted = |fails| {
        let remount = CountedMount { log: log.clone(), fails };
        KernelEsp::mounted(dir.path(), image.path(), Box::new(remount)).unwrap()
    };

    let mut esp = mounted(Fails::Nothing);
    // The check reads the medium and leaves the mount alone.
    assert_eq!(esp.cluster_faults(&[entries_dir()]).unwrap(), []);
    assert_eq!(*log.lock().unwrap(), Vec::<&str>::new());
    esp.drop_name(&twins[0]).unwrap();
    assert_eq!(*log.lock().unwrap(), ["unmount", "mount"]);
    assert!(!on_medium.exists(&twins[0]).unwrap() && on_medium.exists(&twins[1]).unwrap());
    // It is usable again, and mounted again also after a repair that failed.
    assert_eq!(esp.read(&path("shown"), 100).unwrap(), b"by the mount");
    assert!(matches!(esp.drop_name(&twins[0]), Err(EspError::Missing { .. })));
    assert_eq!(*log.lock().unwrap(), ["unmount", "mount", "unmount", "mount"]);
    assert!(esp.exists(&path("shown")).unwrap());

    // What cannot be unmounted is left as it is.
    log.lock().unwrap().clear();
    let mut busy = mounted(Fails::Unmount);
    assert!(matches!(busy.drop_name(&twins[1]), Err(EspError::Busy { .. })));
    assert_eq!(*log.lock().unwrap(), ["unmount"]);
    assert!(on_medium.exists(&twins[1]).unwrap());
    assert!(busy.exists(&path("shown")).unwrap());
    let mut plain = KernelEsp::directory(dir.path()).unwrap();
    assert!(matches!(plain.drop_name(&twins[1]), Err(EspError::CannotRepair { .. })));

    // What is not mounted again is not used again: the bare mount point is no ESP. That is told before what the repair said.
    log.lock().unwrap().clear();
    let mut lost = mounted(Fails::Mount);
    let error = lost.drop_name(&twins[0]).unwrap_err();
    assert!(matches!(&error, EspError::Io { source, .. } if source.to_string() == "no mount today"), "{error:?}");
    assert_eq!(*log.lock().unwrap(), ["unmount", "mount"]);
    is_lost(&mut lost);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is written to the mount point");
}

fn is_lost(esp: &mut dyn Esp) {
    assert!(esp.write_new(&path("new"), 1, &mut &b"x"[..]).is_err());
    assert!(esp.make_dir(&path("new")).is_err() && esp.flush().is_err() && esp.space().is_err());
    assert!(esp.list(&path("loader")).is_err() && esp.exists(&path("shown")).is_err());
}

/// An unmount that fails may leave nothing mounted all the same.
#[test]
fn ent22_another_file_system_at_the_mount_point_is_not_used() {
    #[derive(Debug)]
    struct Vanishes(std::path::PathBuf);
    impl Remount for Vanishes {
        fn unmount(&mut self) -> io::Result<()> {
            std::fs::remove_file(&self.0)?;
            std::os::unix::fs::symlink("/proc", &self.0)?;
            Err(io::Error::other("still in use"))
        }
        fn mount(&mut self) -> io::Result<()> {
            panic!("it was not unmounted")
        }
    }
    let (image, dir) = (image_file(40), tempfile::tempdir().unwrap());
    let (shown, point) = (dir.path().join("shown"), dir.path().join("point"));
    std::fs::create_dir(&shown).unwrap();
    std::os::unix::fs::symlink(&shown, &point).unwrap();
    let mut esp = KernelEsp::mounted(&point, image.path(), Box::new(Vanishes(point.clone()))).unwrap();
    match esp.make_room(&entries_dir(), 1000) {
        Err(EspError::Io { source, .. }) => assert!(source.to_string().contains("not mounted any more")),
        other => panic!("{other:?}"),
    }
    is_lost(&mut esp);
}

/// The mount is one of ours and not the kernel's; with that it is shown in the guest of the power-cut proof (`apply-makes-room`).
#[test]
fn ent28_room_is_made_on_the_unmounted_volume() {
    // Of each name: long ones, so that few are needed.
    const SLOTS: usize = 18;
    let image = image_file(40);
    let mut on_medium = ImageEsp::new(image.reopen().unwrap());
    let room =
        || boot_entries::fat::Volume::open(image.reopen().unwrap()).unwrap().room("loader/entries").unwrap().unwrap();
    let file = |number: usize| format!("loader/entries/note-{number:04}-{}.txt", "x".repeat(200));
    let mut number = 0;
    // To between `least` and `least` + SLOTS.
    let mut fill = |esp: &mut dyn Esp, least: usize| {
        while room() >= least + SLOTS {
            number += 1;
            put(esp, &file(number), format!("number {number}").as_bytes());
        }
    };
    fill(&mut on_medium, 0);
    let before = names(&mut on_medium, "loader/entries");
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let mounted = |fails| {
        let remount = CountedMount { log: log.clone(), fails };
        KernelEsp::mounted(dir.path(), image.path(), Box::new(remount)).unwrap()
    };

    // What cannot be unmounted, or not be mounted again, is told.
    let bytes = std::fs::read(image.path()).unwrap();
    assert!(matches!(mounted(Fails::Unmount).make_room(&entries_dir(), 256), Err(EspError::Busy { .. })));
    assert!(std::fs::read(image.path()).unwrap() == bytes, "nothing is changed");
    assert!(matches!(mounted(Fails::Mount).make_room(&entries_dir(), 256), Err(EspError::Io { .. })));
    std::fs::write(image.path(), &bytes).unwrap();
    log.lock().unwrap().clear();

    let mut esp = mounted(Fails::Nothing);
    esp.make_room(&entries_dir(), 256).unwrap();
    assert_eq!(*log.lock().unwrap(), ["unmount", "mount"]);
    assert!(room() >= 512, "{}", room());
    fsck(image.path());
    assert_eq!(names(&mut on_medium, "loader/entries"), before);
    // Names find place in it, and it is left alone until half of it is used.
    fill(&mut on_medium, 256);
    esp.make_room(&entries_dir(), 256).unwrap();
    assert_eq!(*log.lock().unwrap(), ["unmount", "mount"]);
    fill(&mut on_medium, 256 - SLOTS);
    esp.make_room(&entries_dir(), 256).unwrap();
    assert_eq!(*log.lock().unwrap(), ["unmount", "mount", "unmount", "mount"]);
    assert!(room() >= 512, "{}", room());
    fsck(image.path());
    let all = names(&mut on_medium, "loader/entries");
    assert_eq!(all.len(), number);
    for number in 1..=number {
        assert_eq!(on_medium.read(&path(&file(number)), 100).unwrap(), format!("number {number}").as_bytes());
    }
    // A volume that is full is not called broken.
    let space = on_medium.space().unwrap();
    let free = usize::try_from(space.free_clusters * u64::from(space.cluster_size)).unwrap();
    put(&mut on_medium, "ralphos/fill", &vec![1; free]);
    match esp.make_room(&entries_dir(), 1000) {
        Err(EspError::Io { source, .. }) => assert_eq!(source.kind(), io::ErrorKind::StorageFull),
        other => panic!("{other:?}"),
    }
    fsck(image.path());
}
