use std::collections::HashSet;

use boot_entries::fat::{FormatOptions, format_esp};
use disk_layout::{Architecture, NewDisk, Seed};

use super::*;
use crate::SECTOR;
use crate::disk::{Content, Fingerprint};
use crate::interval::{self, intervals};
use crate::log::{Log, LogWriter};
use crate::places::Places;

type InMemory<'a> = Source<'a, Vec<u8>, Vec<u8>>;

/// An ESP behind one MiB, as the places want it; what the log writes lies in it.
fn with_source(log: LogWriter, test: &dyn Fn(&InMemory<'_>)) {
    let disk = NewDisk {
        architecture: Architecture::X86_64,
        sector_size: 512,
        esp_len: 40 << 20,
        slot_len: 1 << 20,
        var_len: 1 << 20,
        seed: Seed::Fixed(1),
    };
    let layout = disk.plan().unwrap().layout().clone();
    let mut esp = std::io::Cursor::new(vec![0; usize::try_from(layout.esp.len).unwrap()]);
    format_esp(&mut esp, FormatOptions { label: "EFI", serial: 1, sector_size: 512 }).unwrap();
    let places = Places::new(&layout, esp).unwrap();
    let log = log.finish();
    let mut disk = Disk::new(vec![0; 1 << 22], log.clone()).unwrap();
    let log = Log::read(log, disk.bytes()).unwrap();
    let intervals = intervals(&mut disk, &log).unwrap();
    let start = Rc::new(Layer::default());
    let choices = intervals[0].choices(&start);
    test(&Source { disk: &disk, interval: &intervals[0], start: &start, choices: &choices, places: &places });
}

fn all(source: &Source<'_, Vec<u8>, Vec<u8>>) -> HashSet<Fingerprint> {
    let mut found = HashSet::new();
    let _ = source.all(&mut |state, _| {
        assert!(found.insert(state.fingerprint()), "each once");
        ControlFlow::Continue(())
    });
    found
}

fn chosen(source: &Source<'_, Vec<u8>, Vec<u8>>, seed: u64, limit: usize) -> Vec<(Fingerprint, How)> {
    let mut found = Vec::new();
    let _ = source.chosen(seed, 1024, &mut |state, how| {
        found.push((state.fingerprint(), how));
        if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    found
}

#[test]
fn cut14_small_intervals_are_enumerated_whole() {
    let mut log = LogWriter::new();
    log.write(4000, &[1; 3 * SECTOR]);
    log.write(4001, &[2; SECTOR]);
    log.flush();
    with_source(log, &|source| {
        assert_eq!(interval::count(source.choices), 2 * 3 * 2);
        let all = all(source);
        assert_eq!(all.len(), 12);
        for (state, how) in chosen(source, 1, 300) {
            assert!(all.contains(&state), "{how}");
        }
    });
}

#[test]
fn cut14_of_large_intervals_the_interesting_states_are_taken() {
    let mut log = LogWriter::new();
    log.write(2100, &[1; 20 * SECTOR]);
    log.write(6000, &vec![2; 200 * SECTOR]);
    log.flush();
    with_source(log, &|source| {
        assert!(source.places.kind(2100).is_metadata() && !source.places.kind(6000).is_metadata());
        let found = chosen(source, 7, 3000);
        let has = |wanted: &dyn Fn(&How) -> bool| found.iter().filter(|(_, how)| wanted(how)).count();
        assert_eq!(has(&|how| matches!(how, How::Prefix(_))), 3);
        assert_eq!(has(&|how| matches!(how, How::Torn { request: 0, .. })), 2 * 19);
        assert_eq!(has(&|how| matches!(how, How::Torn { request: 1, .. })), 2 * 8);
        assert_eq!(has(&|how| matches!(how, How::Without(..))), 20 + 64);
        assert_eq!(has(&|how| matches!(how, How::Alone(..))), 20 + 64);
        assert_eq!(has(&|how| matches!(how, How::MetadataOnly | How::DataOnly)), 2);
        assert!(has(&|how| matches!(how, How::Chance(_))) > 1000);
        assert_eq!(found, chosen(source, 7, 3000), "the same seed gives the same states");
        assert_ne!(found, chosen(source, 8, 3000));
    });
}

#[test]
fn cut12_nothing_behind_a_durable_write_is_there_without_it() {
    let mut log = LogWriter::new();
    log.write(4000, &[1; SECTOR]);
    log.write_fua(4001, &[2; SECTOR]);
    log.write(4002, &[3; SECTOR]);
    log.flush();
    with_source(log, &|source| {
        let mut found = HashSet::new();
        let _ = source.all(&mut |state, _| {
            let there = |sector| state.get(sector) != Content::Base;
            found.insert((there(4000), there(4001), there(4002)));
            ControlFlow::Continue(())
        });
        // Six: 4002 only with 4001.
        assert_eq!(found.len(), 6);
        assert!(found.iter().all(|(_, durable, behind)| *durable || !behind));
    });
}
