use std::io::Cursor;

use boot_entries::fat::{FormatOptions, Volume, format_esp};
use boot_entries::{EntryArchitecture, ImageEsp, LoaderVars};

use super::*;

type Memory = Cursor<Vec<u8>>;

/// A volume with two foreign entries, a payload file of slot B, and this line in loader.conf.
fn volume(conf: &str) -> Memory {
    let mut memory = Cursor::new(vec![0; 40 << 20]);
    format_esp(&mut memory, FormatOptions { label: "ESP", serial: 1, sector_size: 512 }).unwrap();
    let mut esp = ImageEsp::new(&mut memory);
    for (path, content) in [
        ("k", "kernel"),
        ("loader/loader.conf", conf),
        ("loader/entries/x.conf", "title x\nlinux /k\n"),
        ("loader/entries/y.conf", "title y\nlinux /k\n"),
        ("ralphos/b/linux-g2", "kernel"),
    ] {
        let path: EspPath = path.parse().unwrap();
        if let Some(dir) = path.split().0 {
            esp.make_dir(&dir).unwrap();
        }
        esp.write_new(&path, content.len() as u64, &mut content.as_bytes()).unwrap();
    }
    memory
}

/// The chain of what lies at `path` loses its end mark.
fn break_chain(memory: &mut Memory, path: &str) {
    let mut volume = Volume::open(&mut *memory).unwrap();
    let first = volume.find(path).unwrap().unwrap().first_cluster;
    let fats = volume.geometry().fats();
    let half = (fats.end - fats.start) / 2;
    for fat in [fats.start, fats.start + half] {
        let at = usize::try_from(fat + u64::from(first) * 4).unwrap();
        memory.get_mut()[at..at + 4].fill(0);
    }
}

fn compared(ours: &Memory, theirs: &Memory) -> Readers {
    let flow = r#"{"format": "power-cuts flow 1", "name": "x", "architecture": "x64",
        "before": [{"slot": "a", "generation": 1}], "after": [{"slot": "a", "generation": 1}]}"#;
    let flow = Flow::parse(flow.as_bytes()).unwrap();
    let mut raw = RawEsp::open(ours.clone()).unwrap();
    let state = EspState::read(&mut raw).unwrap();
    let prediction = state.predict(&LoaderVars::default(), EntryArchitecture::X64);
    compare(&flow, &state, &prediction, &mut raw, &mut ImageEsp::new(theirs.clone())).unwrap()
}

#[test]
fn cut32_a_broken_directory_explains_what_is_in_it_and_nothing_else() {
    let mut broken = volume("default x.conf\n");
    break_chain(&mut broken, "ralphos/b");
    let found = compared(&broken, &broken);
    assert!(matches!(found, Readers::Agree | Readers::Explained), "{found:?}");
    // The other reader sees the files of the directory, which is explained; and another choice, which is not.
    let mut other = volume("default x.conf\n");
    ImageEsp::new(&mut other).remove(&"k".parse().unwrap()).unwrap();
    assert_eq!(compared(&other, &other), Readers::Agree);
    assert_eq!(compared(&broken, &volume("default x.conf\n")), Readers::Explained);
    let Readers::Differ(text) = compared(&broken, &other) else { panic!("the choice differs") };
    assert!(text.contains("differ in the choice"), "{text}");
}

#[test]
fn cut32_a_torn_entry_explains_its_own_content_and_nothing_else() {
    let mut torn = volume("default y.conf\n");
    let mut raw = Volume::open(&mut torn).unwrap();
    let slot = *raw.find("loader/entries/y.conf").unwrap().unwrap().slots.last().unwrap();
    let start = usize::try_from(slot).unwrap();
    // A length of two clusters, and a chain of one.
    torn.get_mut()[start + 28..start + 32].copy_from_slice(&40_000u32.to_le_bytes());
    assert!(matches!(compared(&torn, &torn), Readers::Agree | Readers::Explained));
    assert_eq!(compared(&torn, &volume("default y.conf\n")), Readers::Explained);
    assert!(matches!(compared(&torn, &volume("default x.conf\n")), Readers::Differ(_)));
}
