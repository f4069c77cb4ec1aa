//! An ESP in memory that records what is done to it, fails where it is told to, and knows what a power cut leaves.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Cursor, Read};

use super::uncached::hash;
use super::{DirItem, Esp, EspError, EspPath, Op, ReadSeek, Space, WriteError, copy_exactly};
use crate::fat::ClusterFault;

/// Something done to a [`FakeEsp`]. Listing a directory and asking for a name or for space is not recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// [`Esp::read`], [`Esp::read_head`] or [`Esp::hash_file`]
    Read(EspPath),
    /// [`Esp::write_new`]
    Write(EspPath),
    /// [`Esp::overwrite_byte`], with the new byte.
    Overwrite(EspPath, u8),
    /// [`Esp::remove`]
    Remove(EspPath),
    /// [`Esp::make_dir`] of a directory that was missing.
    MakeDir(EspPath),
    /// [`Esp::flush`]
    Flush,
    /// [`Esp::cluster_faults`]
    CheckClusters,
    /// [`Esp::drop_name`]
    DropName(EspPath),
    /// [`Esp::swap_contents`]
    Swap(EspPath, EspPath),
    /// [`Esp::make_room`], with the number of slots.
    MakeRoom(EspPath, usize),
    /// The event that was told to fail; it had no effect.
    Failed(Box<Event>),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Read(path) => write!(f, "read {path}"),
            Event::Write(path) => write!(f, "write {path}"),
            Event::Overwrite(path, byte) => write!(f, "overwrite {path} {:?}", char::from(*byte)),
            Event::Remove(path) => write!(f, "remove {path}"),
            Event::MakeDir(path) => write!(f, "mkdir {path}"),
            Event::Flush => f.write_str("flush"),
            Event::CheckClusters => f.write_str("check clusters"),
            Event::DropName(path) => write!(f, "drop {path}"),
            Event::Swap(a, b) => write!(f, "swap {a} {b}"),
            Event::MakeRoom(path, slots) => write!(f, "make room for {slots} in {path}"),
            Event::Failed(event) => write!(f, "FAILED {event}"),
        }
    }
}

/// Path as it is stored, and content; a directory has none. The key is the path in lower case.
type Tree = BTreeMap<String, (EspPath, Option<Vec<u8>>)>;

/// A change that is not flushed yet.
#[derive(Debug, Clone)]
enum Change {
    Put(EspPath, Option<Vec<u8>>),
    Byte(EspPath, usize, u8),
    Take(EspPath),
}

/// See the module.
#[derive(Debug, Clone)]
pub struct FakeEsp {
    tree: Tree,
    durable: Tree,
    pending: Vec<Change>,
    events: Vec<Event>,
    fail_at: Option<usize>,
    faults: Vec<ClusterFault>,
    space: Space,
    /// Somebody uses the volume: it cannot be unmounted.
    busy: bool,
    /// Contents of removed files: what a new file's clusters may hold before its own content reaches them.
    stale: Vec<Vec<u8>>,
}

impl Default for FakeEsp {
    fn default() -> FakeEsp {
        FakeEsp::new()
    }
}

fn key(path: &EspPath) -> String {
    path.as_str().to_lowercase()
}

fn apply(tree: &mut Tree, change: &Change) {
    match change {
        Change::Put(path, content) => {
            tree.insert(key(path), (path.clone(), content.clone()));
        }
        Change::Byte(path, at, byte) => {
            if let Some((_, Some(content))) = tree.get_mut(&key(path))
                && let Some(old) = content.get_mut(*at)
            {
                *old = *byte;
            }
        }
        Change::Take(path) => {
            tree.remove(&key(path));
        }
    }
}

impl FakeEsp {
    /// An empty volume with 1 GiB of room.
    pub fn new() -> FakeEsp {
        FakeEsp {
            tree: Tree::new(),
            durable: Tree::new(),
            pending: Vec::new(),
            events: Vec::new(),
            fail_at: None,
            faults: Vec::new(),
            space: Space { cluster_size: 4096, free_clusters: 262_144 },
            busy: false,
            stale: Vec::new(),
        }
    }

    /// Puts a file there, durable and unrecorded, with the directories above it.
    ///
    /// # Panics
    /// When `path` is no path.
    pub fn put(&mut self, path: &str, content: &[u8]) {
        let path = EspPath::literal(path);
        let mut dir = path.split().0;
        while let Some(above) = dir {
            self.tree.entry(key(&above)).or_insert((above.clone(), None));
            dir = above.split().0;
        }
        self.tree.insert(key(&path), (path.clone(), Some(content.to_vec())));
        self.durable = self.tree.clone();
        self.pending.clear();
    }

    /// Takes a file away, durable and unrecorded.
    pub fn take(&mut self, path: &str) {
        self.tree.remove(&path.to_lowercase());
        self.durable = self.tree.clone();
    }

    /// The content of a file, unrecorded.
    pub fn content(&self, path: &str) -> Option<&[u8]> {
        self.tree.get(&path.to_lowercase())?.1.as_deref()
    }

    /// Paths of all files, as they are stored, in order.
    pub fn files(&self) -> Vec<&str> {
        self.tree.values().filter(|(_, content)| content.is_some()).map(|(path, _)| path.as_str()).collect()
    }

    /// Everything recorded so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Everything recorded so far, as text, and forgets it.
    pub fn take_events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events).iter().map(Event::to_string).collect()
    }

    /// Makes the event with this number fail without effect, once, counted from 0 over all that is recorded since the last
    /// [`FakeEsp::take_events`].
    pub fn fail_at(&mut self, event: usize) {
        self.fail_at = Some(event);
    }

    /// Sets the room that is left.
    pub fn set_space(&mut self, space: Space) {
        self.space = space;
    }

    /// The system has the volume mounted from now on and does not let go of it (or does again): what needs it unmounted is
    /// [`EspError::Busy`].
    pub fn set_busy(&mut self, busy: bool) {
        self.busy = busy;
    }

    /// Makes names share clusters, or breaks their chains. Removing such a name does what it does on a real volume: the
    /// other name's content is destroyed, or the removal fails.
    pub fn set_faults(&mut self, faults: Vec<ClusterFault>) {
        self.faults = faults;
    }

    /// Every volume that a power cut may leave now: the flushed state, with any subset of the later changes. A file that
    /// was being written may be missing, empty, garbage, whole, or hold what a removed file held before it.
    pub fn after_power_cut(&self) -> Vec<FakeEsp> {
        let mut trees = vec![self.durable.clone()];
        for change in &self.pending {
            let mut outcomes = vec![change.clone()];
            if let Change::Put(path, Some(content)) = change {
                outcomes.push(Change::Put(path.clone(), Some(Vec::new())));
                outcomes.push(Change::Put(path.clone(), Some(vec![0xa5; content.len()])));
                for stale in &self.stale {
                    let mut stale = stale.clone();
                    stale.resize(content.len(), 0);
                    outcomes.push(Change::Put(path.clone(), Some(stale)));
                }
            }
            let mut more = Vec::new();
            for tree in &trees {
                for outcome in &outcomes {
                    let mut tree = tree.clone();
                    apply(&mut tree, outcome);
                    more.push(tree);
                }
            }
            // The change may also not have reached the medium at all.
            trees.extend(more);
            trees.dedup();
        }
        let volume = |tree: Tree| FakeEsp { durable: tree.clone(), tree, space: self.space, ..FakeEsp::new() };
        trees.into_iter().map(volume).collect()
    }

    fn record(&mut self, op: Op, event: Event) -> Result<(), EspError> {
        if self.fail_at == Some(self.events.len()) {
            self.fail_at = None;
            self.events.push(Event::Failed(Box::new(event)));
            return Err(EspError::volume(op, io::Error::other("injected failure")));
        }
        self.events.push(event);
        Ok(())
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.tree, &change);
        self.pending.push(change);
    }

    fn file(&self, op: Op, path: &EspPath) -> Result<&Vec<u8>, EspError> {
        match self.tree.get(&key(path)) {
            Some((_, Some(content))) => Ok(content),
            Some((_, None)) => Err(EspError::io(op, path, io::ErrorKind::IsADirectory.into())),
            None => Err(EspError::Missing { op, path: path.clone() }),
        }
    }

    fn unmountable(&self, path: &EspPath) -> Result<(), EspError> {
        let source = || io::Error::other("the system has it mounted");
        if self.busy { Err(EspError::Busy { path: path.clone(), source: source() }) } else { Ok(()) }
    }

    fn parent_exists(&self, path: &EspPath) -> bool {
        path.split().0.is_none_or(|dir| matches!(self.tree.get(&key(&dir)), Some((_, None))))
    }
}

impl Esp for FakeEsp {
    fn list(&mut self, dir: &EspPath) -> Result<Vec<DirItem>, EspError> {
        if let Some((_, Some(_))) = self.tree.get(&key(dir)) {
            return Err(EspError::io(Op::List, dir, io::ErrorKind::NotADirectory.into()));
        }
        let inside = self.tree.values().filter(|(path, _)| path.split().0.is_some_and(|above| key(&above) == key(dir)));
        Ok(inside
            .map(|(path, content)| DirItem {
                name: path.split().1.to_owned(),
                size: content.as_ref().map_or(0, |content| content.len() as u64),
                is_dir: content.is_none(),
            })
            .collect())
    }

    fn exists(&mut self, path: &EspPath) -> Result<bool, EspError> {
        Ok(self.tree.contains_key(&key(path)))
    }

    fn read(&mut self, path: &EspPath, limit: u64) -> Result<Vec<u8>, EspError> {
        self.record(Op::Read, Event::Read(path.clone()))?;
        let content = self.file(Op::Read, path)?;
        let size = content.len() as u64;
        if size > limit { Err(EspError::TooLong { path: path.clone(), size, limit }) } else { Ok(content.clone()) }
    }

    fn read_head(&mut self, path: &EspPath, length: usize) -> Result<Vec<u8>, EspError> {
        self.record(Op::Read, Event::Read(path.clone()))?;
        let content = self.file(Op::Read, path)?;
        Ok(content[..content.len().min(length)].to_vec())
    }

    fn examine(&mut self, path: &EspPath, look: &mut dyn FnMut(&mut dyn ReadSeek)) -> Result<(), EspError> {
        self.record(Op::Read, Event::Read(path.clone()))?;
        look(&mut Cursor::new(self.file(Op::Read, path)?.to_vec()));
        Ok(())
    }

    fn write_new(&mut self, path: &EspPath, size: u64, content: &mut dyn Read) -> Result<(), WriteError> {
        self.record(Op::Write, Event::Write(path.clone()))?;
        if self.tree.contains_key(&key(path)) {
            return Err(EspError::Exists { path: path.clone() }.into());
        }
        if !self.parent_exists(path) {
            return Err(EspError::Missing { op: Op::Write, path: path.clone() }.into());
        }
        if self.space.clusters(size) > self.space.free_clusters {
            return Err(EspError::io(Op::Write, path, io::ErrorKind::StorageFull.into()).into());
        }
        let mut bytes = Vec::new();
        copy_exactly(path, size, content, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        self.space.free_clusters -= self.space.clusters(size);
        self.change(Change::Put(path.clone(), Some(bytes)));
        Ok(())
    }

    fn overwrite_byte(&mut self, path: &EspPath, offset: u64, from: u8, to: u8) -> Result<(), EspError> {
        self.record(Op::Overwrite, Event::Overwrite(path.clone(), to))?;
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = self.file(Op::Overwrite, path)?.get(at).copied();
        let found = found.ok_or_else(|| EspError::io(Op::Overwrite, path, io::ErrorKind::UnexpectedEof.into()))?;
        if found != from {
            return Err(EspError::OtherByte { path: path.clone(), offset, expected: from, found });
        }
        self.change(Change::Byte(path.clone(), at, to));
        Ok(())
    }

    fn remove(&mut self, path: &EspPath) -> Result<(), EspError> {
        self.record(Op::Remove, Event::Remove(path.clone()))?;
        let clusters = self.space.clusters(self.file(Op::Remove, path)?.len() as u64);
        for fault in self.faults.clone().iter().filter(|fault| fault.concerns(path)) {
            match fault {
                ClusterFault::Broken { .. } => return Err(EspError::io(Op::Remove, path, io::Error::other("broken"))),
                ClusterFault::Shared { first, second, .. } => {
                    let other = if key(first) == key(path) { second } else { first };
                    let length = self.file(Op::Remove, other)?.len();
                    self.change(Change::Put(other.clone(), Some(vec![0xa5; length])));
                }
            }
        }
        self.space.free_clusters += clusters;
        let content = self.file(Op::Remove, path)?.clone();
        if !self.stale.contains(&content) {
            self.stale.push(content);
        }
        self.change(Change::Take(path.clone()));
        Ok(())
    }

    fn make_dir(&mut self, path: &EspPath) -> Result<(), EspError> {
        if let Some(above) = path.split().0 {
            self.make_dir(&above)?;
        }
        match self.tree.get(&key(path)) {
            Some((_, None)) => return Ok(()),
            Some((_, Some(_))) => {
                let source = io::Error::from(io::ErrorKind::NotADirectory);
                return Err(EspError::Io { op: Op::MakeDir, path: path.to_string(), source });
            }
            None => {}
        }
        self.record(Op::MakeDir, Event::MakeDir(path.clone()))?;
        self.change(Change::Put(path.clone(), None));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), EspError> {
        self.record(Op::Flush, Event::Flush)?;
        self.durable = self.tree.clone();
        self.pending.clear();
        Ok(())
    }

    fn hash_file(&mut self, path: &EspPath) -> Result<([u8; 32], u64), EspError> {
        self.record(Op::Read, Event::Read(path.clone()))?;
        let content = self.file(Op::Read, path)?;
        hash(&mut content.as_slice()).map_err(|error| EspError::io(Op::Read, path, error))
    }

    fn space(&mut self) -> Result<Space, EspError> {
        Ok(self.space)
    }

    fn cluster_faults(&mut self, dirs: &[EspPath]) -> Result<Vec<ClusterFault>, EspError> {
        self.record(Op::CheckClusters, Event::CheckClusters)?;
        let inside =
            |path: &EspPath| path.split().0.is_some_and(|above| dirs.iter().any(|dir| key(dir) == key(&above)));
        let concerned = |fault: &&ClusterFault| match fault {
            ClusterFault::Shared { first, second, .. } => inside(first) || inside(second),
            ClusterFault::Broken { path } => inside(path),
        };
        Ok(self.faults.iter().filter(concerned).cloned().collect())
    }

    fn drop_name(&mut self, path: &EspPath) -> Result<(), EspError> {
        self.unmountable(path)?;
        self.record(Op::DropName, Event::DropName(path.clone()))?;
        self.file(Op::DropName, path)?;
        self.change(Change::Take(path.clone()));
        self.faults.retain(|fault| !fault.concerns(path));
        // The real ones unmount the volume for this and flush what they change.
        self.durable = self.tree.clone();
        self.pending.clear();
        Ok(())
    }

    fn can_swap(&mut self, a: &EspPath, b: &EspPath) -> Result<(), EspError> {
        self.unmountable(a)?;
        self.file(Op::Swap, a)?;
        self.file(Op::Swap, b).map(drop)
    }

    fn swap_contents(&mut self, a: &EspPath, b: &EspPath) -> Result<(), EspError> {
        self.unmountable(a)?;
        self.record(Op::Swap, Event::Swap(a.clone(), b.clone()))?;
        let (in_a, in_b) = (self.file(Op::Swap, a)?.clone(), self.file(Op::Swap, b)?.clone());
        self.change(Change::Put(a.clone(), Some(in_b)));
        self.change(Change::Put(b.clone(), Some(in_a)));
        self.durable = self.tree.clone();
        self.pending.clear();
        Ok(())
    }

    fn make_room(&mut self, dir: &EspPath, slots: usize) -> Result<(), EspError> {
        self.record(Op::MakeRoom, Event::MakeRoom(dir.clone(), slots))?;
        self.unmountable(dir)
    }
}
