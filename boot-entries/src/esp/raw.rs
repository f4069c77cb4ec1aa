//! An ESP that is only read, from the raw volume, as the boot loader's firmware reads it (CUT-20 to CUT-24 of
//! `specs/power-cuts.md`).

use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};

use super::{DirItem, Esp, EspError, EspPath, Op, Space, WriteError};
use crate::fat::{self, ClusterFault, FatError, RawItem, Volume};

/// A volume behind the seam; whatever would change it fails.
///
/// A directory whose chain of clusters is broken is an empty one, as it is for the firmware (CUT-23), and [`Esp::read`] gives
/// nothing of a file whose chain ends before it does (CUT-24).
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

    /// Up to `limit` bytes of a file, in pieces.
    fn pieces(
        &mut self,
        path: &EspPath,
        item: &RawItem,
        limit: u64,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), EspError> {
        let io = |source| EspError::io(Op::Read, path, source);
        if item.is_dir {
            return Err(io(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let extents = match item.first_cluster {
            0 => Vec::new(),
            first => self.volume.extents(first).map_err(|source| EspError::Fat { source })?.ranges,
        };
        let mut left = u64::from(item.size).min(limit);
        let mut buffer = vec![0; 64 * 1024];
        for range in extents {
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
        if left > 0 { Err(io(io::Error::from(io::ErrorKind::UnexpectedEof))) } else { Ok(()) }
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
        match self.pieces(path, &item, limit, &mut |piece| bytes.extend_from_slice(piece)) {
            // The firmware cannot read it (CUT-24), and the loader goes on as if there were nothing in it.
            Err(EspError::Io { source, .. }) if source.kind() == io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
            read => read.map(|()| bytes),
        }
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
        self.pieces(path, &item, u64::MAX, &mut |piece| digest.update(piece))?;
        Ok((digest.finalize().into(), u64::from(item.size)))
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
}
