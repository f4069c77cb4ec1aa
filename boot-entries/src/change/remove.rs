//! Removing names without destroying what shares their clusters (`ENT-22`).

use disk_layout::Slot;

use super::ChangeError;
use crate::esp::{Esp, EspPath};
use crate::fat::ClusterFault;
use crate::names::{EntryName, entries_dir, payload_dir};
use crate::state::rank;

/// Whether `name` will be able to go: no files but it share clusters in a way that [`remove`] could not mend. Asked before
/// the first write of a change that ends in a removal, so that a change which cannot be ended is not begun.
pub(super) fn can_remove(esp: &mut dyn Esp, name: &EspPath) -> Result<(), ChangeError> {
    for fault in esp.cluster_faults(&[entries_dir(), payload_dir(Slot::A), payload_dir(Slot::B)])? {
        match fault {
            ClusterFault::Shared { first, second, same_start }
                if first != *name && second != *name && !(same_start && cut_rename(&first, &second).is_some()) =>
            {
                return Err(ChangeError::SharedClusters { first, second });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes `names`, and returns when that is durable. `doomed` is a directory whose files go next.
///
/// A cut rename of the firmware leaves two names on one chain, and a cut while we wrote a file leaves a chain that leads
/// nowhere. The kernel would free the clusters of the name that stays, or take the volume for broken and turn it
/// read-only; so a name with such a fault loses its directory slots on the unmounted volume instead, and its clusters
/// are left alone.
pub(super) fn remove(esp: &mut dyn Esp, names: &[EspPath], doomed: Option<&EspPath>) -> Result<(), ChangeError> {
    let dirs = [entries_dir(), payload_dir(Slot::A), payload_dir(Slot::B)];
    let mut left = names.to_vec();
    loop {
        let faults = esp.cluster_faults(&dirs)?;
        let faulty = |name: &EspPath| faults.iter().any(|fault| fault.concerns(name));
        // Dropping one name may heal another, so the volume is looked at again after each.
        if let Some(at) = left.iter().position(faulty) {
            esp.drop_name(&left.remove(at))?;
            continue;
        }
        let goes = |path: &EspPath| match (path.split().0, doomed) {
            (Some(dir), Some(doomed)) => dir.as_str().eq_ignore_ascii_case(doomed.as_str()),
            _ => false,
        };
        let staying = faults.into_iter().find_map(|fault| match fault {
            ClusterFault::Shared { first, second, same_start } if !goes(&first) && !goes(&second) => {
                Some((first, second, same_start))
            }
            // Nothing is freed by removing another name, and a broken chain is no danger to anyone else.
            _ => None,
        });
        match staying {
            None => break,
            Some((first, second, same_start)) => match cut_rename(&first, &second) {
                Some(loser) if same_start => esp.drop_name(&loser)?,
                _ => return Err(ChangeError::SharedClusters { first, second }),
            },
        }
    }
    for name in &left {
        esp.remove(name)?;
    }
    esp.flush()?;
    Ok(())
}

/// When the two are names of one system, as the firmware's counting leaves them: the one that goes.
fn cut_rename(first: &EspPath, second: &EspPath) -> Option<EspPath> {
    let entry = |path: &EspPath| match path.split() {
        (Some(dir), name) if dir.as_str().eq_ignore_ascii_case(entries_dir().as_str()) => {
            name.parse::<EntryName>().ok()
        }
        _ => None,
    };
    let names = [entry(first)?, entry(second)?];
    let counted = names.iter().all(|name| name.counter.is_some());
    if !names[0].same_system(names[1]) || !counted || names[0] == names[1] {
        return None;
    }
    let loser = if rank(names[0], &names) < rank(names[1], &names) { second } else { first };
    Some(loser.clone())
}
