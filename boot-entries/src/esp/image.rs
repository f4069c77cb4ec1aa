//! The ESP inside a disk image file, through the `fatfs` library.
//!
//! The library is opened and closed for every operation, because it holds back what belongs on the disk until it is
//! closed and swallows errors when it is only dropped. It orders its writes as it likes, so a power cut is not survived
//! here (`UPD-60`).

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};

use super::{DirItem, Esp, EspError, EspPath, Op, ReadSeek, Space, WriteError, copy_exactly};
use crate::fat::{self, ClusterFault, FatError, Volume};

/// What an ESP may lie in: a file, or a part of one.
pub trait EspStorage: Read + Write + Seek {
    /// Everything written is on the medium when this returns.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&mut self) -> io::Result<()>;
}

impl EspStorage for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

impl EspStorage for disk_layout::FileWindow {
    fn sync(&mut self) -> io::Result<()> {
        disk_layout::FileWindow::sync(self)
    }
}

impl EspStorage for io::Cursor<Vec<u8>> {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: EspStorage + ?Sized> EspStorage for &mut T {
    fn sync(&mut self) -> io::Result<()> {
        (**self).sync()
    }
}

/// See the module.
#[derive(Debug)]
pub struct ImageEsp<T> {
    storage: T,
}

type Library<'a, T> = fatfs::FileSystem<&'a mut T>;

/// The date of every file: a valid one, and always the same, so that equal inputs give equal disks.
///
/// Left alone, the library writes month 0 and day 0 (ENT-26). The firmware then refuses to change the file's name, the
/// loader ignores that, and a trial is tried for ever.
#[derive(Debug)]
struct FixedTime;

static FIXED: FixedTime = FixedTime;

impl fatfs::TimeProvider for FixedTime {
    fn get_current_date(&self) -> fatfs::Date {
        fatfs::Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> fatfs::DateTime {
        let time = fatfs::Time { hour: 0, min: 0, sec: 0, millis: 0 };
        fatfs::DateTime { date: self.get_current_date(), time }
    }
}

impl<T: EspStorage> ImageEsp<T> {
    /// The ESP that fills `storage`.
    pub fn new(storage: T) -> ImageEsp<T> {
        ImageEsp { storage }
    }

    /// The storage again.
    pub fn into_inner(self) -> T {
        self.storage
    }

    fn with<R>(&mut self, work: impl FnOnce(&Library<'_, T>) -> io::Result<R>) -> io::Result<R> {
        self.storage.seek(SeekFrom::Start(0))?;
        let library = fatfs::FileSystem::new(&mut self.storage, fatfs::FsOptions::new().time_provider(&FIXED))?;
        let result = work(&library);
        let closed = library.unmount();
        result.and_then(|result| closed.map(|()| result))
    }

    fn change<R>(&mut self, work: impl FnOnce(&Library<'_, T>) -> io::Result<R>) -> io::Result<R> {
        let result = self.with(work)?;
        self.storage.sync()?;
        Ok(result)
    }

    /// What is at `path`: None when there is nothing, else whether it is a directory.
    fn look(&mut self, path: &EspPath, op: Op) -> Result<Option<bool>, EspError> {
        let found = self.volume(op)?.find(path.as_str()).map_err(|source| EspError::Fat { source })?;
        Ok(found.map(|item| item.is_dir))
    }

    fn is_torn(&mut self, path: &EspPath, op: Op) -> Result<bool, EspError> {
        self.volume(op)?.is_torn(path.as_str()).map_err(|source| EspError::Fat { source })
    }

    fn volume(&mut self, op: Op) -> Result<Volume<&mut T>, EspError> {
        Volume::open(&mut self.storage).map_err(|source| match source {
            FatError::Io { source, .. } => EspError::volume(op, source),
            source => EspError::Fat { source },
        })
    }
}

impl<T: EspStorage> Esp for ImageEsp<T> {
    fn list(&mut self, dir: &EspPath) -> Result<Vec<DirItem>, EspError> {
        let items = self.with(|fs| {
            let dir = match fs.root_dir().open_dir(dir.as_str()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                other => other?,
            };
            let mut items = Vec::new();
            for item in dir.iter() {
                let item = item?;
                let name = item.file_name();
                if name != "." && name != ".." {
                    items.push(DirItem { name, size: item.len(), is_dir: item.is_dir() });
                }
            }
            Ok(items)
        });
        items.map_err(|error| EspError::io(Op::List, dir, error))
    }

    fn exists(&mut self, path: &EspPath) -> Result<bool, EspError> {
        Ok(self.look(path, Op::Read)?.is_some())
    }

    fn read(&mut self, path: &EspPath, limit: u64) -> Result<Vec<u8>, EspError> {
        if self.is_torn(path, Op::Read)? {
            return Ok(Vec::new());
        }
        let (size, bytes) = self
            .with(|fs| {
                let mut file = fs.root_dir().open_file(path.as_str())?;
                let size = file.seek(SeekFrom::End(0))?;
                file.seek(SeekFrom::Start(0))?;
                let mut bytes = Vec::new();
                if size <= limit {
                    file.read_to_end(&mut bytes)?;
                }
                Ok((size, bytes))
            })
            .map_err(|error| EspError::io(Op::Read, path, error))?;
        if size > limit { Err(EspError::TooLong { path: path.clone(), size, limit }) } else { Ok(bytes) }
    }

    fn read_head(&mut self, path: &EspPath, length: usize) -> Result<Vec<u8>, EspError> {
        if self.is_torn(path, Op::Read)? {
            return Ok(Vec::new());
        }
        self.with(|fs| {
            let mut bytes = Vec::new();
            fs.root_dir().open_file(path.as_str())?.take(length as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        })
        .map_err(|error| EspError::io(Op::Read, path, error))
    }

    fn examine(&mut self, path: &EspPath, look: &mut dyn FnMut(&mut dyn ReadSeek)) -> Result<(), EspError> {
        if self.is_torn(path, Op::Read)? {
            return Err(EspError::io(Op::Read, path, io::ErrorKind::UnexpectedEof.into()));
        }
        self.with(|fs| {
            // The library follows the chain from its beginning for each step back, and has no buffer.
            look(&mut BufReader::new(fs.root_dir().open_file(path.as_str())?));
            Ok(())
        })
        .map_err(|error| EspError::io(Op::Read, path, error))
    }

    fn write_new(&mut self, path: &EspPath, size: u64, content: &mut dyn Read) -> Result<(), WriteError> {
        // The library would open an existing file.
        if self.look(path, Op::Write)?.is_some() {
            return Err(EspError::Exists { path: path.clone() }.into());
        }
        let mut failed = None;
        let result = self.change(|fs| {
            let mut file = fs.root_dir().create_file(path.as_str())?;
            if let Err(error) = copy_exactly(path, size, content, &mut |bytes| file.write_all(bytes)) {
                failed = Some(error);
                drop(file);
                return fs.root_dir().remove(path.as_str());
            }
            file.flush()
        });
        match (failed, result) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(EspError::io(Op::Write, path, error).into()),
            (None, Ok(())) => Ok(()),
        }
    }

    fn overwrite_byte(&mut self, path: &EspPath, offset: u64, from: u8, to: u8) -> Result<(), EspError> {
        let found = self
            .change(|fs| {
                let mut file = fs.root_dir().open_file(path.as_str())?;
                let mut byte = [0];
                file.seek(SeekFrom::Start(offset))?;
                file.read_exact(&mut byte)?;
                if byte[0] == from {
                    file.seek(SeekFrom::Start(offset))?;
                    file.write_all(&[to])?;
                    file.flush()?;
                }
                Ok(byte[0])
            })
            .map_err(|error| EspError::io(Op::Overwrite, path, error))?;
        if found == from {
            Ok(())
        } else {
            Err(EspError::OtherByte { path: path.clone(), offset, expected: from, found })
        }
    }

    fn remove(&mut self, path: &EspPath) -> Result<(), EspError> {
        // The library would remove an empty directory too.
        if self.look(path, Op::Remove)? == Some(true) {
            let source = io::Error::from(io::ErrorKind::IsADirectory);
            return Err(EspError::Io { op: Op::Remove, path: path.to_string(), source });
        }
        self.change(|fs| fs.root_dir().remove(path.as_str())).map_err(|error| EspError::io(Op::Remove, path, error))
    }

    fn make_dir(&mut self, path: &EspPath) -> Result<(), EspError> {
        let mut walked = String::new();
        for part in path.parts() {
            walked = if walked.is_empty() { part.to_owned() } else { format!("{walked}/{part}") };
            let here = EspPath::literal(&walked);
            match self.look(&here, Op::MakeDir)? {
                Some(true) => continue,
                Some(false) => {
                    let source = io::Error::from(io::ErrorKind::NotADirectory);
                    return Err(EspError::Io { op: Op::MakeDir, path: walked, source });
                }
                None => {}
            }
            self.change(|fs| fs.root_dir().create_dir(here.as_str()).map(drop))
                .map_err(|error| EspError::io(Op::MakeDir, &here, error))?;
            fat::tidy_new_directory(&mut self.storage, here.as_str()).map_err(|source| EspError::Fat { source })?;
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), EspError> {
        self.storage.sync().map_err(|error| EspError::volume(Op::Flush, error))
    }

    fn hash_file(&mut self, path: &EspPath) -> Result<([u8; 32], u64), EspError> {
        if self.is_torn(path, Op::Read)? {
            return super::uncached::hash(&mut io::empty()).map_err(|error| EspError::io(Op::Read, path, error));
        }
        self.with(|fs| {
            let mut file = fs.root_dir().open_file(path.as_str())?;
            super::uncached::hash(&mut file)
        })
        .map_err(|error| EspError::io(Op::Read, path, error))
    }

    fn space(&mut self) -> Result<Space, EspError> {
        let mut volume = self.volume(Op::Space)?;
        let cluster_size = volume.geometry().cluster_size;
        let free_clusters = volume.free_clusters().map_err(|source| EspError::Fat { source })?;
        Ok(Space { cluster_size, free_clusters })
    }

    fn cluster_faults(&mut self, dirs: &[EspPath]) -> Result<Vec<ClusterFault>, EspError> {
        let mut volume = self.volume(Op::CheckClusters)?;
        fat::cluster_faults(&mut volume, dirs).map_err(|source| EspError::Fat { source })
    }

    fn drop_name(&mut self, path: &EspPath) -> Result<(), EspError> {
        let dropped = self.volume(Op::DropName)?.drop_name(path.as_str());
        dropped.map_err(|source| EspError::not_dropped(path, source))?;
        self.flush()
    }

    fn can_swap(&mut self, a: &EspPath, b: &EspPath) -> Result<(), EspError> {
        let found = self.volume(Op::Swap)?.find_pair(a.as_str(), b.as_str());
        found.map(drop).map_err(|source| EspError::not_swapped(a, b, source))
    }

    fn swap_contents(&mut self, a: &EspPath, b: &EspPath) -> Result<(), EspError> {
        let swapped = self.volume(Op::Swap)?.swap_contents(a.as_str(), b.as_str());
        swapped.map_err(|source| EspError::not_swapped(a, b, source))?;
        self.flush()
    }

    fn make_room(&mut self, dir: &EspPath, slots: usize) -> Result<(), EspError> {
        let made = self.volume(Op::MakeRoom)?.make_room(dir.as_str(), slots, &mut |storage| storage.sync());
        made.map(drop).map_err(|source| EspError::no_room(dir, source))
    }
}
