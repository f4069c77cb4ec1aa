//! Errors as stable words for programs: the `reason` (IFC-2) says how a command ended, the `cause` (IFC-3) what exactly is
//! wrong with the image, its source, or the policy. The attacks of `specs/threat-model.md` section 4 are told apart by them.
//!
//! The matches over causes name every variant, so that a new one has to be given a word.

use std::error::Error;
use std::io;

use boot_entries::ChangeError;
use disk_layout::{BootedError, Clash, LockError};
use image_format::{
    ChunkError, FinishError, FrameHeaderError, HeadError, JsonError, KeyError, ManifestError, PolicyError, TableError,
    TransportError, VerifyError,
};

use crate::apply::{ApplyError, FencedError};
use crate::config::ConfigError;
use crate::doctor::fix::{FixError, StepError};
use crate::exit::Exit;
use crate::fetch::FetchError;
use crate::firmware_trust::KernelRefused;
use crate::host::HostError;
use crate::loader::LoaderError;
use crate::refuse::Refusal;
use crate::session::SessionError;
use crate::slot_content::SlotContentError;
use crate::source::SourceError;

/// Something that cannot happen unless this program is wrong.
const INTERNAL: &str = "internal";

/// The stable reason of an error, and how the process ends.
pub fn classify(error: &anyhow::Error) -> (Exit, &'static str) {
    for cause in links(error) {
        if let Some(refusal) = cause.downcast_ref::<Refusal>() {
            return (Exit::Refused, refusal.reason());
        }
        if let Some(LockError::Busy { .. }) = cause.downcast_ref() {
            return (Exit::Busy, "busy");
        }
        if cause.is::<SourceError>() {
            return (Exit::Failure, "source");
        }
        if cause.is::<ConfigError>() {
            return (Exit::Failure, "policy");
        }
        match cause.downcast_ref().map(innermost) {
            // The image was not read, so nothing is known against it.
            Some(ApplyError::Nobody { .. }) => return (Exit::Failure, "source"),
            Some(ApplyError::Head(HeadError::Io { .. }) | ApplyError::Source(_)) => return (Exit::Failure, "source"),
            Some(ApplyError::Untrusted(_)) => return (Exit::Refused, "untrusted"),
            Some(ApplyError::Head(_)) => return (Exit::Refused, "not-an-image"),
            Some(ApplyError::NotFenced { .. }) => return (Exit::Failure, "not-fenced"),
            Some(ApplyError::Fenced { .. }) => return (Exit::Failure, "fenced"),
            Some(ApplyError::Interrupted) => return (Exit::Failure, "interrupted"),
            Some(ApplyError::Uncertain { .. }) => return (Exit::Failure, "uncertain"),
            _ => {}
        }
        match cause.downcast_ref() {
            Some(SessionError::NoFallback { .. } | SessionError::RefusedFallback { .. }) => {
                return (Exit::Refused, "no-fallback");
            }
            Some(SessionError::UnprovenFallback { .. }) => return (Exit::Refused, "unproven-fallback"),
            Some(SessionError::NoEntry { .. } | SessionError::OtherSystem { .. }) => {
                return (Exit::Refused, "not-our-entry");
            }
            Some(SessionError::NothingCommitted) => return (Exit::Refused, "nothing-committed"),
            Some(SessionError::Change(ChangeError::OlderEntries { .. })) => return (Exit::Refused, "older-entries"),
            _ => {}
        }
        match cause.downcast_ref() {
            Some(LoaderError::OnTrial) => return (Exit::Refused, "on-trial"),
            Some(LoaderError::NoFirmware) => return (Exit::Refused, "no-firmware"),
            Some(LoaderError::OnAlternate { .. }) => return (Exit::Refused, "on-alternate-loader"),
            Some(LoaderError::DidNotStart(_)) => return (Exit::Refused, "loader-did-not-start"),
            Some(LoaderError::Refused { .. }) => return (Exit::Refused, "loader-refused"),
            Some(LoaderError::Full { .. }) => return (Exit::Refused, "esp-too-small"),
            Some(LoaderError::Broken(_) | LoaderError::Shared { .. }) => return (Exit::Refused, "esp-damaged"),
            _ => {}
        }
        match cause.downcast_ref() {
            Some(BootedError::CommandLine { .. }) => return (Exit::Refused, "command-line-disagrees"),
            Some(BootedError::OtherEsp { .. }) => return (Exit::Refused, "other-esp"),
            _ => {}
        }
        if let Some(HostError::ReadOnly(_)) = cause.downcast_ref() {
            return (Exit::Refused, "esp-read-only");
        }
        if cause.is::<Clash>() {
            return (Exit::Refused, "two-disks");
        }
    }
    (Exit::Failure, "failed")
}

/// An error and its causes, those too that an error around them shows as its own: such a one is no cause of it, and whoever
/// goes by causes alone never meets it.
fn links(error: &anyhow::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    error.chain().flat_map(|cause| std::iter::successors(Some(cause), |link| shown(*link)))
}

/// What an error shows as its own (`#[error(transparent)]`).
fn shown<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    if let Some(error) = error.downcast_ref::<ApplyError>() {
        return match error {
            ApplyError::Session(error) => Some(error),
            ApplyError::Lock(error) => Some(error),
            _ => None,
        };
    }
    if let Some(SessionError::Host(error)) = error.downcast_ref() {
        return Some(error);
    }
    match error.downcast_ref() {
        Some(LoaderError::Host(error)) => return Some(error),
        Some(LoaderError::Session(error)) => return Some(error),
        Some(LoaderError::Lock(error)) => return Some(error),
        _ => {}
    }
    match error.downcast_ref() {
        Some(FixError::Lock(error)) => return Some(error),
        Some(FixError::Host(error)) => return Some(error),
        _ => {}
    }
    // A boxed cause is a link of its own kind.
    let step = error.downcast_ref::<Box<StepError>>().map(Box::as_ref).or_else(|| error.downcast_ref());
    match step {
        Some(StepError::Host(error)) => Some(error),
        _ => None,
    }
}

/// What is wrong with the first address, where no other one may have something better later.
fn innermost(error: &ApplyError) -> &ApplyError {
    match error {
        ApplyError::Nobody { others, first } if !others.may_pass() => innermost(first),
        error => error,
    }
}

/// What exactly is wrong with the image, its source, or the policy (IFC-3).
pub fn cause(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|link| {
        if let Some(error) = link.downcast_ref() {
            return of_apply(error);
        }
        let chunk = link.downcast_ref().map(of_chunk);
        let finish = || link.downcast_ref().map(of_finish);
        let source = || link.downcast_ref().map(of_source);
        let config = || link.downcast_ref().map(of_config);
        chunk.or_else(finish).or_else(source).or_else(config)
    })
}

/// Of a failed apply; `None` where `reason` says all, and where the fault is the machine's and not the image's.
fn of_apply(error: &ApplyError) -> Option<&'static str> {
    match error {
        ApplyError::Nobody { first, .. } => of_apply(first),
        ApplyError::Head(error) => Some(of_head(error)),
        ApplyError::Untrusted(error) => Some(of_verify(error)),
        ApplyError::Source(error) => Some(of_io(error)),
        ApplyError::Fenced { source, .. } => of_fenced(source),
        ApplyError::Interrupted => Some("interrupted"),
        ApplyError::Refused(_)
        | ApplyError::Session(_)
        | ApplyError::Lock(_)
        | ApplyError::NotFenced { .. }
        | ApplyError::Uncertain { .. } => None,
    }
}

fn of_fenced(error: &FencedError) -> Option<&'static str> {
    Some(match error {
        FencedError::Image(error) => of_chunk(error),
        FencedError::End(error) => of_finish(error),
        FencedError::Content(SlotContentError::Image { source }) => of_chunk(source),
        FencedError::Content(SlotContentError::RootHash { .. }) => "root-hash",
        FencedError::Content(SlotContentError::Interrupted) | FencedError::Interrupted => "interrupted",
        FencedError::Content(SlotContentError::Verity { .. }) => INTERNAL,
        FencedError::Change(ChangeError::Source { source, .. }) => of_payload(source),
        FencedError::Change(ChangeError::Content { .. }) => "payload-digest",
        FencedError::Kernel(_) => "kernel-not-efi",
        FencedError::KernelMachine { .. } => "kernel-machine",
        FencedError::Refused(KernelRefused::Uki(_) | KernelRefused::Program(_)) => "kernel-not-unified",
        FencedError::Refused(KernelRefused::Firmware(_)) => "kernel-not-trusted",
        FencedError::Refused(KernelRefused::Unclear(_)) => return None,
        FencedError::Content(
            SlotContentError::Slot { .. } | SlotContentError::ReadBack { .. } | SlotContentError::Differs { .. },
        )
        // What it says of itself is found behind it.
        | FencedError::Again { .. }
        | FencedError::Change(_)
        | FencedError::Slot(_)
        | FencedError::Host(_) => return None,
    })
}

/// Of a failure before the signatures were looked at.
fn of_head(error: &HeadError) -> &'static str {
    match error {
        HeadError::Io { source, .. } => of_io(source),
        HeadError::Truncated { .. } => "truncated",
        HeadError::NotOurs { .. } => "no-frame",
        HeadError::Version { .. } => "format-version",
        HeadError::Kind { .. } => "frame-kind",
        HeadError::Reserved { .. } => "frame-reserved",
        HeadError::Length { .. } => "frame-length",
        HeadError::Signatures(_) => "signature-frame",
    }
}

fn of_verify(error: &VerifyError) -> &'static str {
    match error {
        VerifyError::Threshold { wrong: 1.., .. } => "wrong-signature",
        VerifyError::Threshold { valid: 1.., .. } => "threshold",
        VerifyError::Threshold { untrusted: 1.., .. } => "unknown-key",
        VerifyError::Threshold { .. } => "unsigned",
        VerifyError::Transport(TransportError::Length { .. }) => "transport-length",
        VerifyError::Transport(TransportError::Encoding(_) | TransportError::Bases(_)) => "transport-encoding",
        VerifyError::Delta { .. } => "transport-encoding",
        VerifyError::SystemId { .. } => "transport-of-another",
        VerifyError::TableMismatch(_) => "table-of-another",
        VerifyError::Manifest(error) => of_manifest(error),
        VerifyError::Table(error) => of_table(error),
    }
}

fn of_manifest(error: &ManifestError) -> &'static str {
    match error {
        ManifestError::Json(JsonError::NotUtf8(_) | JsonError::ByteOrderMark) => "manifest-not-utf8",
        ManifestError::Json(JsonError::DuplicateKey(_)) => "manifest-duplicate-key",
        ManifestError::Json(JsonError::Trailing | JsonError::Syntax(_)) => "manifest-json",
        ManifestError::TooLong(_) => "frame-length",
        ManifestError::Format(_) => "manifest-format",
        ManifestError::Critical(_) => "manifest-critical",
        ManifestError::Field { field, .. } => match field.as_str() {
            "title" => "manifest-title",
            "options" => "manifest-options",
            field if field.ends_with(".size") => "payload-size",
            _ => "manifest-field",
        },
        ManifestError::ReservedOption(_) => "reserved-option",
        ManifestError::UnknownRequired { .. } => "unknown-payload-kind",
        ManifestError::Payloads(_) => "manifest-payloads",
        ManifestError::Machine { .. } => "manifest-machine",
        ManifestError::Verity(_) => "manifest-verity",
        ManifestError::Sum { .. } => "manifest-sum",
    }
}

fn of_table(error: &TableError) -> &'static str {
    match error {
        TableError::Length(_) => "frame-length",
        TableError::Encoding { .. } => "chunk-encoding",
        TableError::Reserved { .. } => "table-reserved",
        TableError::Payload { .. } => "table-payload",
        TableError::PlainOffset { .. } => "table-plain-offset",
        TableError::PlainLength { .. } => "table-plain-length",
        TableError::Unaligned { .. } => "table-unaligned",
        TableError::EncodedOffset { .. } => "table-encoded-offset",
        TableError::EncodedLength { .. } => "table-encoded-length",
        TableError::Uncovered { .. } => "table-uncovered",
        TableError::DataLength { .. } => "table-data-length",
    }
}

/// Of chunks that cannot be used.
fn of_chunk(error: &ChunkError) -> &'static str {
    match error {
        ChunkError::Io { source, .. } => of_io(source),
        ChunkError::Truncated { .. } => "truncated",
        ChunkError::EncodedDigest { .. } => "chunk-damaged",
        ChunkError::FrameHeader { source, .. } => match source {
            FrameHeaderError::Window(_) => "chunk-window",
            FrameHeaderError::ContentSize(_) | FrameHeaderError::NoContentSize => "chunk-content-size",
            FrameHeaderError::Dictionary => "chunk-dictionary",
            FrameHeaderError::Magic
            | FrameHeaderError::Short
            | FrameHeaderError::Reserved
            | FrameHeaderError::NotOneFrame => "chunk-frame",
        },
        ChunkError::Decompress { .. } => "chunk-decompress",
        ChunkError::PlainDigest { .. } => "chunk-content",
        ChunkError::Ranges { .. } => "delta-ranges",
        ChunkError::Base { .. } => "delta-base-unread",
        ChunkError::BaseDiffers { .. } => "delta-base-differs",
        ChunkError::PayloadDigest { .. } => "payload-digest",
        ChunkError::Unfinished { .. } | ChunkError::AlreadyFailed => INTERNAL,
    }
}

/// Of an image that does not end as it should.
fn of_finish(error: &FinishError) -> &'static str {
    match error {
        FinishError::TrailingData => "trailing-data",
        FinishError::Io(source) => of_io(source),
        FinishError::NotAtEnd(_) | FinishError::Unread { .. } => INTERNAL,
    }
}

/// A payload's reader hides what stopped it in an [`io::Error`].
fn of_payload(error: &io::Error) -> &'static str {
    let inside = error.get_ref().and_then(|inside| inside.downcast_ref::<ChunkError>());
    inside.map_or_else(|| of_io(error), of_chunk)
}

fn of_io(error: &io::Error) -> &'static str {
    let inside = error.get_ref().and_then(|inside| inside.downcast_ref::<FetchError>());
    inside.map_or("read-error", FetchError::cause)
}

/// Of a source that cannot be opened.
fn of_source(error: &SourceError) -> &'static str {
    match error {
        SourceError::Open { .. } => "cannot-open",
        SourceError::Proxy(_) => "http-proxy",
    }
}

/// Of a policy or trusted keys that cannot be used.
fn of_config(error: &ConfigError) -> &'static str {
    match error {
        ConfigError::Read { .. } => "cannot-open",
        ConfigError::Syntax { .. } | ConfigError::Setting { .. } => "policy-syntax",
        ConfigError::Key { source: KeyError::Weak, .. } => "weak-key",
        ConfigError::Key { .. } => "not-a-key",
        ConfigError::NoKeys { .. } | ConfigError::Trust { source: PolicyError::NoKeys } => "no-keys",
        ConfigError::Trust { source: PolicyError::Unreachable { .. } } => "threshold-unreachable",
    }
}
