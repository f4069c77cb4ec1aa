//! One slot, several threads.

use std::sync::{Mutex, PoisonError};

use disk_layout::{SlotError, SlotIo};

/// Gives each thread a way to the slot.
pub(super) struct Handles<'s> {
    only: Mutex<&'s mut dyn SlotIo>,
}

impl<'s> Handles<'s> {
    pub(super) fn new(slot: &'s mut dyn SlotIo) -> Self {
        Handles { only: Mutex::new(slot) }
    }

    /// A handle for one thread.
    pub(super) fn handle(&self) -> Handle<'_, 's> {
        let own = self.only.lock().unwrap_or_else(PoisonError::into_inner).another();
        own.map_or(Handle::Turn(&self.only), Handle::Own)
    }
}

/// A handle of a thread's own, or its turn at the only one.
pub(super) enum Handle<'h, 's> {
    Own(Box<dyn SlotIo>),
    Turn(&'h Mutex<&'s mut dyn SlotIo>),
}

impl Handle<'_, '_> {
    fn with<T>(&mut self, act: impl FnOnce(&mut dyn SlotIo) -> T) -> T {
        match self {
            Handle::Own(slot) => act(&mut **slot),
            Handle::Turn(slot) => act(&mut **slot.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

impl SlotIo for Handle<'_, '_> {
    fn len(&self) -> u64 {
        match self {
            Handle::Own(slot) => slot.len(),
            Handle::Turn(slot) => slot.lock().unwrap_or_else(PoisonError::into_inner).len(),
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SlotError> {
        self.with(|slot| slot.write_at(offset, bytes))
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        self.with(|slot| slot.flush())
    }

    fn read_at_uncached(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), SlotError> {
        self.with(|slot| slot.read_at_uncached(offset, bytes))
    }

    fn zero_at(&mut self, offset: u64, bytes: u64) -> Result<(), SlotError> {
        self.with(|slot| slot.zero_at(offset, bytes))
    }
}
