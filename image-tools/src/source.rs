//! Reading images.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result};
use image_format::{
    Digest, Manifest, PE_HEAD_LEN, PayloadReader, TrustPolicy, UnverifiedImage, VerifiedImage, Verity, VerityBuilder,
    pe_machine,
};

use tempfile::NamedTempFile;
use updater::uki::{Checked, Expected, UkiError, check};

use crate::exit::Refused;
use crate::interrupt;

/// Where an image is read from.
pub type Source = BufReader<Box<dyn Read>>;

/// Opens an image and reads its head, without any trust in it. `-` is standard input.
pub fn open(path: &Path) -> Result<UnverifiedImage<Source>> {
    let source: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?),
    };
    let source = BufReader::with_capacity(1 << 18, source);
    UnverifiedImage::read_head(source).with_context(|| format!("cannot use {}", path.display()))
}

/// Opens an image and checks its head as a device would.
pub fn open_verified(path: &Path, trust: &TrustPolicy) -> Result<VerifiedImage<Source>> {
    open(path)?.verify(trust).with_context(|| format!("{} is refused", path.display()))
}

/// Where hash blocks and verified data of a root go: offset in the slot and bytes.
pub type SlotSink<'a> = dyn FnMut(u64, &[u8]) -> io::Result<()> + 'a;

/// Reads a root payload to its end, computes the dm-verity tree over it as a device does, and insists on the signed root hash
/// (`IMG-23`). Data and hash blocks go to `sink` as they come.
pub fn read_root<R: Read>(payload: PayloadReader<'_, R>, verity: &Verity, sink: &mut SlotSink<'_>) -> Result<()> {
    let mut payload = payload.leave_digest_to_verity();
    let mut tree = VerityBuilder::new(payload.payload().size, &verity.salt)?;
    while let Some(chunk) = payload.next_chunk()? {
        sink(chunk.offset, chunk.bytes).context("cannot write the root")?;
        tree.update(chunk.bytes, &mut |offset: u64, bytes: &[u8]| sink(offset, bytes))?;
    }
    let computed: Digest = tree.finish(&mut |offset: u64, bytes: &[u8]| sink(offset, bytes))?;
    if computed != verity.root_hash {
        return Err(Refused::RootHash { computed, signed: verity.root_hash }.into());
    }
    Ok(())
}

/// Insists that the real bytes of a kernel are for the machine that the manifest names (`IMG-15`). `head` is its beginning, as
/// much as there is up to [`PE_HEAD_LEN`] bytes.
pub fn check_kernel(head: &[u8], wanted: image_format::Architecture) -> Result<(), Refused> {
    debug_assert!(head.len() <= PE_HEAD_LEN);
    match pe_machine(head).map_err(Refused::Kernel)? {
        found if found == wanted => Ok(()),
        found => Err(Refused::Machine { found, wanted }),
    }
}

/// A file that goes when the program ends, and another handle of it: that stays the file's whatever is put in its place.
pub fn temporary_file() -> Result<(NamedTempFile, File)> {
    let made = interrupt::make(|| {
        let made = NamedTempFile::new().context("cannot make a temporary file")?;
        let path = made.path().to_owned();
        Ok((made, path))
    })?;
    let file = made.as_file().try_clone().context("cannot duplicate a file handle")?;
    Ok((made, file))
}

/// A unified kernel image that was taken out of an image and is what its manifest demands.
#[derive(Debug)]
pub struct Uki {
    /// At its beginning.
    pub file: NamedTempFile,
    /// What else was seen of it.
    pub checked: Checked,
}

/// Reads a payload of kind `uki` to its end and checks it as a device would (`specs/uki.md`). Unlike the other payloads it cannot be
/// judged as it passes.
pub fn read_uki<R: Read>(
    mut payload: PayloadReader<'_, R>,
    manifest: &Manifest,
    progress: &mut dyn FnMut(u64),
) -> Result<Uki> {
    let (mut made, mut file) = temporary_file()?;
    while let Some(chunk) = payload.next_chunk()? {
        file.write_all(chunk.bytes).context("cannot write a temporary file")?;
        progress(chunk.bytes.len() as u64);
    }
    let checked = match check(&Expected::of(manifest), &mut file) {
        Ok(checked) => checked,
        Err(UkiError::Read(error)) => return Err(error).context("cannot read a temporary file"),
        Err(error) => return Err(Refused::Uki(error).into()),
    };
    made.rewind().context("cannot read a temporary file")?;
    Ok(Uki { file: made, checked })
}
