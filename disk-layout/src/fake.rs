//! A slot in memory that records what is done to it, for tests of the order of effects.

use std::fmt;
use std::io;

use crate::device::{SlotError, SlotIo, check_access};

/// Something that was done to a [`FakeSlot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotEvent {
    /// Bytes were written.
    Write {
        /// Where in the slot.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// Everything written was made durable.
    Flush,
    /// Bytes were read from the medium.
    Read {
        /// Where in the slot.
        offset: u64,
        /// How many.
        bytes: u64,
    },
}

/// Called before each effect. It may write the event into a log that it shares with other fakes, and may refuse it: then the
/// effect does not happen.
pub type Observer = Box<dyn FnMut(SlotEvent) -> io::Result<()> + Send>;

/// A slot in memory. It keeps apart what was written and what is durable.
pub struct FakeSlot {
    written: Vec<u8>,
    durable: Vec<u8>,
    events: Vec<SlotEvent>,
    fail_at: Option<usize>,
    observer: Option<Observer>,
}

impl FakeSlot {
    /// A slot of `len` zero bytes.
    pub fn new(len: usize) -> FakeSlot {
        FakeSlot { written: vec![0; len], durable: vec![0; len], events: Vec::new(), fail_at: None, observer: None }
    }

    /// The event with this index (from 0), and none but it, fails with `EIO` and has no effect. It is recorded.
    pub fn fail_at(mut self, index: usize) -> FakeSlot {
        self.fail_at = Some(index);
        self
    }

    /// Has `observer` called before each effect.
    pub fn observed_by(mut self, observer: Observer) -> FakeSlot {
        self.observer = Some(observer);
        self
    }

    /// What was done, in order.
    pub fn events(&self) -> &[SlotEvent] {
        &self.events
    }

    /// What a reader would find now.
    pub fn written(&self) -> &[u8] {
        &self.written
    }

    /// What a power cut now would certainly leave: the state at the last flush.
    pub fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// Changes the content behind everybody's back, as a lying disk does; not an event.
    pub fn tamper(&mut self) -> &mut [u8] {
        &mut self.written
    }

    fn happens(&mut self, event: SlotEvent) -> io::Result<()> {
        let index = self.events.len();
        self.events.push(event);
        if self.fail_at == Some(index) {
            return Err(nix::errno::Errno::EIO.into());
        }
        self.observer.as_mut().map_or(Ok(()), |observer| observer(event))
    }
}

impl fmt::Debug for FakeSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeSlot").field("len", &self.written.len()).field("events", &self.events).finish()
    }
}

impl SlotIo for FakeSlot {
    fn len(&self) -> u64 {
        self.written.len() as u64
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SlotError> {
        check_access(offset, bytes.len(), self.len())?;
        let len = bytes.len() as u64;
        self.happens(SlotEvent::Write { offset, bytes: len }).map_err(|source| SlotError::Write {
            path: "fake slot".into(),
            offset,
            bytes: len,
            source,
        })?;
        self.written[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        self.happens(SlotEvent::Flush).map_err(|source| SlotError::Flush { path: "fake slot".into(), source })?;
        self.durable.copy_from_slice(&self.written);
        Ok(())
    }

    fn read_at_uncached(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), SlotError> {
        check_access(offset, bytes.len(), self.len())?;
        let len = bytes.len() as u64;
        self.happens(SlotEvent::Read { offset, bytes: len }).map_err(|source| SlotError::Read {
            path: "fake slot".into(),
            offset,
            bytes: len,
            source,
        })?;
        bytes.copy_from_slice(&self.written[offset as usize..][..bytes.len()]);
        Ok(())
    }
}
