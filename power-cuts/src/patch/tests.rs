use std::io::Cursor;

use proptest::prelude::*;

use super::*;

fn state(id: &str) -> PatchState {
    PatchState {
        id: id.to_owned(),
        made: "by hand".to_owned(),
        kinds: vec!["fat".to_owned()],
        runs: Vec::new(),
        boots: PatchBoots { file: "ralphos-a-g1.conf".into(), slot: "a".into(), generation: 1, options: "ro".into() },
        entries: vec!["ralphos-a-g1.conf".to_owned()],
        before: true,
        after: false,
    }
}

fn written(states: &[Vec<(u64, [u8; SECTOR])>]) -> Vec<u8> {
    let mut writer = PatchWriter::new();
    for (number, sectors) in states.iter().enumerate() {
        writer.add(state(&format!("s{number}")), sectors.iter().copied());
    }
    let mut bytes = Vec::new();
    writer.write("first-apply", 7, 1 << 20, &mut bytes).unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Vec<Vec<(u64, [u8; SECTOR])>> {
    let mut reader = PatchReader::open(Cursor::new(bytes)).unwrap();
    let states = 0..reader.header().states.len();
    let all = states.map(|state| {
        let mut found = Vec::new();
        reader
            .apply(state, &mut |offset, bytes| {
                for (i, sector) in bytes.chunks_exact(SECTOR).enumerate() {
                    found.push((offset / SECTOR as u64 + i as u64, sector.try_into().unwrap()));
                }
                Ok(())
            })
            .unwrap();
        found
    });
    all.collect()
}

#[test]
fn cut51_equal_blocks_are_stored_once_and_runs_are_joined() {
    let states =
        [vec![(5, [1; SECTOR]), (6, [2; SECTOR]), (9, [1; SECTOR])], vec![(5, [1; SECTOR]), (6, [2; SECTOR])], vec![]];
    let bytes = written(&states);
    let reader = PatchReader::open(Cursor::new(&bytes)).unwrap();
    assert_eq!(reader.header().blocks, 2);
    assert_eq!(reader.header().states[0].runs, [(5, 0, 2), (9, 0, 1)]);
    assert_eq!(bytes.len() % SECTOR, 0, "the blocks begin at a multiple of 512");
    assert_eq!(read(&bytes), states);
}

#[test]
fn cut50_what_is_no_state_file_is_refused() {
    let good = written(&[vec![(5, [1; SECTOR])]]);
    let refused = |bytes: &[u8]| PatchReader::open(Cursor::new(bytes.to_vec())).unwrap_err();
    assert!(matches!(refused(b"PWRCUTS2 and more than 16 bytes"), PatchError::Magic));
    assert!(matches!(refused(&good[..10]), PatchError::Io(_)));
    assert!(matches!(refused(&good[..100]), PatchError::Json(_)));
    let mut long = good.clone();
    long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(refused(&long), PatchError::HeaderLength(u32::MAX)));
    for (from, to) in [("[[5,0,1]]", "[[5,0,2]]"), ("[[5,0,1]]", "[[5,1,1]]"), ("[[5,0,1]]", "[[9999,0,1]]")] {
        let json = String::from_utf8_lossy(&good[16..]).split('\0').next().unwrap().replace(from, to);
        let mut bytes = good[..8].to_vec();
        bytes.extend(u32::try_from(json.len()).unwrap().to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(json.as_bytes());
        assert!(matches!(refused(&bytes), PatchError::Header(_)), "{to}");
    }
}

proptest! {
    #[test]
    fn cut51_states_come_back_as_they_were(states in proptest::collection::vec(
        proptest::collection::btree_map(0..2048u64, 0..4u8, 0..40), 0..5))
    {
        let states: Vec<Vec<(u64, [u8; SECTOR])>> =
            states.into_iter().map(|s| s.into_iter().map(|(sector, byte)| (sector, [byte; SECTOR])).collect()).collect();
        prop_assert_eq!(read(&written(&states)), states);
    }

    #[test]
    fn cut50_any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut file = MAGIC.to_vec();
        file.extend(&bytes);
        let _ = PatchReader::open(Cursor::new(file));
    }
}
