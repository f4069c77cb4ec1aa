//! Why an apply ends without a staged system.

use boot_entries::ChangeError;
use disk_layout::{LockError, SlotError};
use image_format::{Architecture, ChunkError, FinishError, HeadError, PeError, VerifyError};

use crate::fetch::FetchError;
use crate::firmware_trust::KernelRefused;
use crate::host::HostError;
use crate::refuse::Refusal;
use crate::session::SessionError;
use crate::slot_content::SlotContentError;

/// Why nothing was applied. Before [`ApplyError::NotFenced`] nothing was changed; whatever it is, the running system is
/// untouched.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Not an image, or a damaged one.
    #[error("this is not a usable image")]
    Head(#[from] HeadError),
    /// Not signed as the machine demands, or inconsistent.
    #[error("the image is not trusted")]
    Untrusted(#[from] VerifyError),
    /// No address has a head that can be used. What it is refused for is the first one's fault.
    #[error("no address has a usable image: {others}; of the first one")]
    Nobody {
        /// What each of them did.
        others: FetchError,
        /// What is wrong with the first.
        #[source]
        first: Box<ApplyError>,
    },
    /// Nobody has the file that its head is of.
    #[error("the image cannot be fetched")]
    Source(#[source] std::io::Error),
    /// A rule is against it.
    #[error("the image is refused")]
    Refused(#[from] Refusal),
    /// The machine, before the fence.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The lock cannot be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Somebody asked for an end in time.
    #[error("interrupted by a signal; nothing was changed")]
    Interrupted,
    /// The fence failed, so the slot was not written to. Its old entry may still be there.
    #[error("slot {slot} could not be fenced, and so was not written to; the running system is untouched")]
    NotFenced {
        /// The slot.
        slot: disk_layout::Slot,
        /// What failed.
        source: Box<FencedError>,
    },
    /// The entry's live byte may be on the medium or not.
    #[error(
        "the new system is whole in slot {slot}, but whether it boots next is uncertain: the EFI partition failed at the last step; `ralph-update status` tells what the disk says now"
    )]
    Uncertain {
        /// The slot.
        slot: disk_layout::Slot,
        /// What failed.
        source: Box<FencedError>,
    },
    /// Something failed once the slot was fenced.
    #[error("slot {slot} is fenced and cannot boot; the running system is untouched; mend the cause and apply again")]
    Fenced {
        /// The slot.
        slot: disk_layout::Slot,
        /// What failed.
        source: Box<FencedError>,
    },
}

/// What can fail once the slot is fenced.
#[derive(Debug, thiserror::Error)]
pub enum FencedError {
    /// The image broke off or is damaged.
    #[error("the image cannot be used")]
    Image(#[from] ChunkError),
    /// The image does not end where it should.
    #[error("the image cannot be used")]
    End(#[from] FinishError),
    /// The slot's content.
    #[error(transparent)]
    Content(#[from] SlotContentError),
    /// The slot cannot be opened.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The ESP cannot be opened.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The ESP cannot be changed.
    #[error("the boot entry cannot be staged")]
    Change(#[from] ChangeError),
    /// The kernel is no program the firmware starts.
    #[error("the kernel in the image cannot be started by this machine's firmware")]
    Kernel(#[from] PeError),
    /// The kernel is for another machine.
    #[error("the kernel in the image is for {kernel}, this machine is {machine}")]
    KernelMachine {
        /// By its PE header.
        kernel: Architecture,
        /// By its slots.
        machine: Architecture,
    },
    /// The unified kernel image cannot be staged, or the firmware would refuse it.
    #[error(transparent)]
    Refused(#[from] KernelRefused),
    /// Somebody asked for an end.
    #[error("interrupted by a signal")]
    Interrupted,
    /// A delta left the slot fenced, and then the full image could not be taken either.
    #[error("the delta failed ({delta}), and the full image after it")]
    Again {
        /// Why the delta was given up, for a person.
        delta: String,
        /// Why the full image was not applied.
        source: anyhow::Error,
    },
}

impl FencedError {
    /// Is it the image, or who sends it, and not this machine?
    pub(crate) fn is_of_source(&self) -> bool {
        matches!(
            self,
            FencedError::Image(_)
                | FencedError::End(_)
                | FencedError::Content(SlotContentError::Image { .. })
                | FencedError::Change(ChangeError::Source { .. })
        )
    }
}
