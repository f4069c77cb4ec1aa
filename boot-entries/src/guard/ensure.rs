//! Making the record's file (`GRD-1`).

use disk_layout::UpdateLock;

use super::{GUARD_SIZE, guard_path};
use crate::change::ChangeError;
use crate::esp::{Esp, EspError, Op, WriteError};

/// What [`ensure`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// The file was there.
    Present,
    /// It was made, empty.
    Made,
    /// What stood there could not be written in place, as after a cut while it was made; it was made anew, empty.
    MadeAnew,
}

/// Makes `ralphos/guard` where there is none that the guard can use; durable when it returns.
///
/// A file that is there and whole is left alone, whatever it holds: its content is nobody's business here.
///
/// # Errors
/// When the ESP cannot be changed. The guard is then missing, and nothing else; the caller says so and goes on.
pub fn ensure(_lock: &UpdateLock, esp: &mut dyn Esp) -> Result<Ensured, ChangeError> {
    let path = guard_path();
    let (dir, name) = path.split();
    let dir = dir.unwrap_or_else(guard_path);
    esp.make_dir(&dir)?;
    let found = esp.list(&dir)?.into_iter().find(|item| item.name.eq_ignore_ascii_case(name));
    let mut outcome = Ensured::Made;
    if let Some(item) = found {
        let faulty = esp.cluster_faults(std::slice::from_ref(&dir))?.iter().any(|fault| fault.concerns(&path));
        if !faulty && !item.is_dir && item.size == u64::from(GUARD_SIZE) {
            return Ok(Ensured::Present);
        }
        // ENT-22: clusters that cannot be trusted are not freed. A directory of this name refuses to be removed.
        if faulty {
            esp.drop_name(&path)?;
        } else {
            esp.remove(&path)?;
            esp.flush()?;
        }
        outcome = Ensured::MadeAnew;
    }
    make(esp)?;
    Ok(outcome)
}

/// Makes the file on an ESP that is being made and nobody else knows yet; durable when it returns.
///
/// # Errors
/// When the name is taken, or the ESP does not take the file.
pub fn make(esp: &mut dyn Esp) -> Result<(), ChangeError> {
    let path = guard_path();
    let zeros = vec![0; GUARD_SIZE as usize];
    esp.write_new(&path, u64::from(GUARD_SIZE), &mut zeros.as_slice()).map_err(|error| match error {
        WriteError::Esp(error) => error,
        WriteError::Source { path, source } => EspError::io(Op::Write, &path, source),
    })?;
    esp.flush()?;
    if esp.read(&path, u64::from(GUARD_SIZE))? != zeros {
        return Err(ChangeError::NotAsWritten { path });
    }
    Ok(())
}
