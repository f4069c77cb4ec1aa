//! An ESP that is only read, from the raw volume, as the boot loader's firmware reads it (CUT-20 to CUT-24 of
//! `specs/power-cuts.md`).

use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};

use super::{DirItem, Esp, EspError, EspPath, Op, Space, WriteError};
use crate::fat::{self, ClusterFault, FatError, RawItem, Volume};

/// A volume behind the seam; whatever would change it fails.
///
/// A directory whose chain of clusters is broken is an empty one, as it is for the firmware (CUT-23), and a file whose chain
/// ends before it does reads as empty (CUT-24, ENT-27).
#[derive(Debug)]
pub struct RawEsp<T> {
    volume: Volume<T>,
}

impl<T: Read + Seek> RawEsp<T> {
    /// The volume that fills `storage`.
    ///
    /// # Errors
    /// When its boot sector is not that of a FAT volume.
    pub fn open(storage: T) -> Result<RawEsp<T>, FatError> {
        Ok(RawEsp { volume: Volume::open(storage)? })
    }

    /// The volume itself.
    pub fn volume(&mut self) -> &mut Volume<T> {
        &mut self.volume
    }

    fn find(&mut self, op: Op, path: &EspPath) -> Result<RawItem, EspError> {
        let found = match self.volume.find(path.as_str()) {
            // What lies in a broken directory is not there.
            Err(FatError::Directory(_)) => None,
            found => found.map_err(|source| EspError::Fat { source })?,
        };
        found.ok_or_else(|| EspError::Missing { op, path: path.clone() })
    }

    /// Up to `limit` bytes of a file, in pieces, and its length. A torn one is empty: the firmware cannot read it (CUT-24).
    fn pieces(
        &mut self,
        path: &EspPath,
        item: &RawItem,
        limit: u64,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<u64, EspError> {
        let io = |source| EspError::io(Op::Read, path, source);
        if item.is_dir {
            return Err(io(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let extents = self.volume.extents(item.first_cluster).map_err(|source| EspError::Fat { source })?;
        let size = u64::from(item.size);
        if extents.len() < size {
            return Ok(0);
        }
        let mut left = size.min(limit);
        let mut buffer = vec![0; 64 * 1024];
        for range in extents.ranges {
            let mut at = range.start;
            while at < range.end && left > 0 {
                let piece = (range.end - at).min(left).min(buffer.len() as u64);
                let piece_len = usize::try_from(piece).unwrap_or(buffer.len());
                self.volume.storage.seek(SeekFrom::Start(at)).map_err(io)?;
                self.volume.storage.read_exact(&mut buffer[..piece_len]).map_err(io)?;
                take(&buffer[..piece_len]);
                at += piece;
                left -= piece;
            }
        }
        Ok(size)
    }

    fn refuse(op: Op, path: &str) -> EspError {
        EspError::Io { op, path: path.to_owned(), source: io::Error::from(io::ErrorKind::ReadOnlyFilesystem) }
    }
}

impl<T: Read + Seek> Esp for RawEsp<T> {
    fn list(&mut self, dir: &EspPath) -> Result<Vec<DirItem>, EspError> {
        let items = match self.volume.list(dir.as_str()) {
            Err(FatError::Directory(_)) => None,
            items => items.map_err(|source| EspError::Fat { source })?,
        };
        let item = |item: RawItem| DirItem { name: item.name, size: u64::from(item.size), is_dir: item.is_dir };
        Ok(items.unwrap_or_default().into_iter().map(item).collect())
    }

    fn exists(&mut self, path: &EspPath) -> Result<bool, EspError> {
        match self.find(Op::Read, path) {
            Ok(_) => Ok(true),
            Err(EspError::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, path: &EspPath, limit: u64) -> Result<Vec<u8>, EspError> {
        let item = self.find(Op::Read, path)?;
        let size = u64::from(item.size);
        if size > limit {
            return Err(EspError::TooLong { path: path.clone(), size, limit });
        }
        let mut bytes = Vec::new();
        self.pieces(path, &item, limit, &mut |piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }

    fn read_head(&mut self, path: &EspPath, length: usize) -> Result<Vec<u8>, EspError> {
        let item = self.find(Op::Read, path)?;
        let mut bytes = Vec::new();
        self.pieces(path, &item, length as u64, &mut |piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }

    fn hash_file(&mut self, path: &EspPath) -> Result<([u8; 32], u64), EspError> {
        let item = self.find(Op::Read, path)?;
        let mut digest = Sha256::new();
        let length = self.pieces(path, &item, u64::MAX, &mut |piece| digest.update(piece))?;
        Ok((digest.finalize().into(), length))
    }

    fn space(&mut self) -> Result<Space, EspError> {
        let cluster_size = self.volume.geometry().cluster_size;
        let free_clusters = self.volume.free_clusters().map_err(|source| EspError::Fat { source })?;
        Ok(Space { cluster_size, free_clusters })
    }

    fn cluster_faults(&mut self, dirs: &[EspPath]) -> Result<Vec<ClusterFault>, EspError> {
        fat::cluster_faults(&mut self.volume, dirs).map_err(|source| EspError::Fat { source })
    }

    fn write_new(&mut self, path: &EspPath, _size: u64, _content: &mut dyn Read) -> Result<(), WriteError> {
        Err(Self::refuse(Op::Write, path.as_str()).into())
    }

    fn overwrite_byte(&mut self, path: &EspPath, _offset: u64, _from: u8, _to: u8) -> Result<(), EspError> {
        Err(Self::refuse(Op::Overwrite, path.as_str()))
    }

    fn remove(&mut self, path: &EspPath) -> Result<(), EspError> {
        Err(Self::refuse(Op::Remove, path.as_str()))
    }

    fn make_dir(&mut self, path: &EspPath) -> Result<(), EspError> {
        Err(Self::refuse(Op::MakeDir, path.as_str()))
    }

    fn flush(&mut self) -> Result<(), EspError> {
        Ok(())
    }

    fn drop_name(&mut self, path: &EspPath) -> Result<(), EspError> {
        Err(Self::refuse(Op::DropName, path.as_str()))
    }

    fn can_swap(&mut self, a: &EspPath, _b: &EspPath) -> Result<(), EspError> {
        Err(Self::refuse(Op::Swap, a.as_str()))
    }

    fn swap_contents(&mut self, a: &EspPath, _b: &EspPath) -> Result<(), EspError> {
        Err(Self::refuse(Op::Swap, a.as_str()))
    }

    fn make_room(&mut self, dir: &EspPath, _slots: usize) -> Result<(), EspError> {
        Err(Self::refuse(Op::MakeRoom, dir.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;
    use crate::esp::ImageEsp;
    use crate::fat::{FormatOptions, format_esp};

    const ENTRY: &str = "loader/entries/ralphos-b-g2+3-0.conf";
    const LEN: usize = 34 << 20;

    /// A volume with one entry of three clusters.
    fn volume() -> Vec<u8> {
        let mut storage = Cursor::new(vec![0; LEN]);
        format_esp(&mut storage, FormatOptions { label: "EFI", serial: 1, sector_size: 512 }).unwrap();
        let mut esp = ImageEsp::new(storage);
        esp.write_new(&ENTRY.parse().unwrap(), 1300, &mut [b'x'; 1300].as_slice()).unwrap();
        esp.into_inner().into_inner()
    }

    fn open(bytes: &[u8]) -> RawEsp<Cursor<Vec<u8>>> {
        RawEsp::open(Cursor::new(bytes.to_vec())).unwrap()
    }

    fn entries(bytes: &[u8]) -> Vec<String> {
        let items = open(bytes).list(&"loader/entries".parse().unwrap()).unwrap();
        items.into_iter().map(|item| item.name).collect()
    }

    /// Where the directory slots of the entry lie, its short name last.
    fn slots(bytes: &[u8]) -> Vec<usize> {
        let item = open(bytes).volume().find(ENTRY).unwrap().unwrap();
        item.slots.iter().map(|at| usize::try_from(*at).unwrap()).collect()
    }

    /// Overwrites the FAT's entry for a cluster.
    fn set_next(bytes: &mut [u8], cluster: u32, value: u32) {
        let fat = open(bytes).volume().geometry().fats().start;
        let mut cursor = Cursor::new(bytes);
        cursor.set_position(fat + u64::from(cluster) * 4);
        cursor.write_all(&value.to_le_bytes()).unwrap();
    }

    fn first_cluster(bytes: &[u8], path: &str) -> u32 {
        open(bytes).volume().find(path).unwrap().unwrap().first_cluster
    }

    #[test]
    fn cut21_a_long_name_must_fit_its_short_name() {
        let bytes = volume();
        assert_eq!(entries(&bytes), ["ralphos-b-g2+3-0.conf"]);
        let [second, first, name] = slots(&bytes)[..] else { panic!("two parts and the name") };
        for (at, byte) in [
            (first, 0xe5),      // a deleted part
            (second, 0xe5),     // the part farther away
            (first, 0x02),      // another ordinal
            (first + 13, 0x00), // another checksum
            (first + 11, 0x2f), // other attributes
            (first + 26, 0x01), // a cluster
        ] {
            let mut torn = bytes.clone();
            assert_ne!(torn[at], byte);
            torn[at] = byte;
            let found = entries(&torn);
            assert_eq!(found.len(), 1, "{at}");
            assert_ne!(found, ["ralphos-b-g2+3-0.conf"]);
            assert!(found[0].starts_with("RALPHO"), "{found:?}");
        }
        // Orphans mean nothing.
        let mut orphans = bytes.clone();
        orphans[name] = 0xe5;
        assert_eq!(entries(&orphans), Vec::<String>::new());
    }

    #[test]
    fn cut20_a_free_slot_ends_the_directory() {
        let mut bytes = volume();
        let first = slots(&bytes)[0];
        bytes[first..first + 32].fill(0);
        assert_eq!(entries(&bytes), Vec::<String>::new(), "what lies behind it is not seen");
    }

    #[test]
    fn cut23_a_directory_with_a_broken_chain_is_empty() {
        let mut bytes = volume();
        let dir = first_cluster(&bytes, "loader/entries");
        // It goes on in a cluster that is free.
        set_next(&mut bytes, dir, 60_000);
        assert_eq!(entries(&bytes), Vec::<String>::new());
        assert!(!open(&bytes).exists(&ENTRY.parse().unwrap()).unwrap());
    }

    #[test]
    fn cut24_ent27_nothing_is_read_of_a_file_whose_chain_ends_early() {
        let mut bytes = volume();
        let path: EspPath = ENTRY.parse().unwrap();
        assert_eq!(open(&bytes).read(&path, 4096).unwrap(), [b'x'; 1300]);
        assert_eq!(open(&bytes).hash_file(&path).unwrap().1, 1300);
        let first = first_cluster(&bytes, ENTRY);
        set_next(&mut bytes, first, 0);
        assert!(open(&bytes).read(&path, 4096).unwrap().is_empty());
        assert!(open(&bytes).read_head(&path, 16).unwrap().is_empty());
        assert_eq!(open(&bytes).hash_file(&path).unwrap(), (Sha256::digest(b"").into(), 0));
    }

    #[test]
    fn a_raw_volume_is_only_read() {
        let mut esp = open(&volume());
        let path: EspPath = ENTRY.parse().unwrap();
        assert!(esp.remove(&path).is_err() && esp.drop_name(&path).is_err() && esp.make_dir(&path).is_err());
        assert!(esp.make_room(&path, 1).is_err());
        assert!(esp.overwrite_byte(&path, 0, b'x', b'y').is_err());
        assert!(esp.write_new(&"a".parse().unwrap(), 1, &mut [0].as_slice()).is_err());
        assert_eq!(esp.read(&path, 4096).unwrap(), [b'x'; 1300]);
    }
}
