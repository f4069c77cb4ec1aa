//! Exit codes.

use std::io;
use std::process::ExitCode;

use image_format::{ChunkError, FinishError, HeadError, PolicyError, VerifyError};

/// What `--help` says about exit codes.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  failed: a file could not be read or written, or an input is not what it must be
  2  usage
  3  the image is refused: it is not signed as demanded, it is damaged, or it is no image";

/// The image's content is not what its signed head says, found outside the image library.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The dm-verity tree over the root has another root hash than the manifest.
    #[error("the dm-verity root hash of the root payload is {computed} and not the signed {signed} (IMG-23)")]
    RootHash {
        /// What the data gives.
        computed: image_format::Digest,
        /// What the manifest says.
        signed: image_format::Digest,
    },
    /// The kernel's PE header is not that of a kernel of this architecture.
    #[error("the kernel in the image is for {found} but the image is for {wanted} (IMG-15)")]
    Machine {
        /// By the PE header.
        found: image_format::Architecture,
        /// By the manifest.
        wanted: image_format::Architecture,
    },
    /// The kernel is not a PE program at all.
    #[error("the kernel in the image cannot be started by UEFI firmware (IMG-15)")]
    Kernel(#[source] image_format::PeError),
    /// The unified kernel image is not what the manifest demands.
    #[error(transparent)]
    Uki(updater::uki::UkiError),
}

/// The exit code for an error.
pub fn code(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(is_usage) {
        ExitCode::from(2)
    } else if error.chain().any(is_refusal) {
        ExitCode::from(3)
    } else {
        ExitCode::FAILURE
    }
}

fn is_usage(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<PolicyError>()
}

fn is_refusal(cause: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(inner) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        // Where a payload is read as a stream, what is wrong with it comes wrapped.
        return is_refusal(inner);
    }
    if let Some(error) = cause.downcast_ref::<ChunkError>() {
        return !matches!(error, ChunkError::Io { .. } | ChunkError::Base { .. });
    }
    if let Some(error) = cause.downcast_ref::<HeadError>() {
        return !matches!(error, HeadError::Io { .. });
    }
    if let Some(error) = cause.downcast_ref::<FinishError>() {
        return matches!(error, FinishError::TrailingData);
    }
    cause.is::<VerifyError>() || cause.is::<Refused>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    fn code_of(error: impl std::error::Error + Send + Sync + 'static) -> String {
        let wrapped = Err::<(), _>(error).context("cannot do it").unwrap_err();
        format!("{:?}", code(&wrapped))
    }

    #[test]
    fn each_kind_of_error_has_its_code() {
        let number = |n: u8| format!("{:?}", ExitCode::from(n));
        assert_eq!(code_of(io::Error::other("disk full")), number(1));
        assert_eq!(code_of(ChunkError::Io { chunk: 1, source: io::Error::other("x") }), number(1));
        assert_eq!(code_of(PolicyError::NoKeys), number(2));
        assert_eq!(code_of(ChunkError::PlainDigest { chunk: 1 }), number(3));
        assert_eq!(code_of(io::Error::from(ChunkError::PlainDigest { chunk: 1 })), number(3));
        assert_eq!(code_of(HeadError::Version { found: 2 }), number(3));
        assert_eq!(code_of(FinishError::TrailingData), number(3));
        assert_eq!(code_of(VerifyError::TableMismatch("length")), number(3));
    }
}
