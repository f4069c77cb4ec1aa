//! The machine we run on, by the updater's library.

use crate::machine::{Fault, Machine, OpenError, Session};

/// This machine.
#[derive(Debug)]
pub struct Device;

impl Machine for Device {
    fn session(&self, _work: &mut dyn FnMut(&mut dyn Session)) -> Result<Option<Fault>, OpenError> {
        Err(OpenError::Other("the updater library is not wired yet".into()))
    }
}
