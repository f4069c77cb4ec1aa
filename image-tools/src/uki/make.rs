//! Makes a unified kernel image: sections behind those of a systemd-stub.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::pe::{self, SectionFlags};
use secure_boot::pe::MAX_HEADER;
use updater::uki::{Expected, kernel};

use super::stub::{Addition, Stub};
use super::{Release, open};

const DATA: SectionFlags = SectionFlags(pe::IMAGE_SCN_CNT_INITIALIZED_DATA.0 | pe::IMAGE_SCN_MEM_READ.0);
/// Kernels that a stub enters at their EFI handover point run where they lie.
const CODE: SectionFlags = SectionFlags(pe::IMAGE_SCN_CNT_CODE.0 | pe::IMAGE_SCN_MEM_READ.0);

/// What it is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The stub.
    pub stub: &'a Path,
    /// The kernel.
    pub linux: &'a Path,
    /// The initial RAM disk.
    pub initrd: &'a Path,
}

/// Makes the unified kernel image in `out`, which is empty.
pub fn make(parts: &Parts<'_>, release: Release<'_>, expected: &Expected, out: &File) -> Result<()> {
    let stub = Stub::read(parts.stub)?;
    let (mut linux, initrd) = (open(parts.linux)?, open(parts.initrd)?);
    let (linux_size, initrd_size) = (size(&linux, parts.linux)?, size(&initrd, parts.initrd)?);
    let mut head = Vec::new();
    let read = (&mut linux).take(MAX_HEADER).read_to_end(&mut head);
    read.with_context(|| format!("cannot read {}", parts.linux.display()))?;
    let shown = parts.linux.display();
    let kernel = kernel(&head, expected.architecture)
        .with_context(|| format!("{shown} is not a kernel that a unified kernel image can hold"))?;
    if kernel.signed {
        bail!(
            "the kernel {shown} is signed by itself (UKI-7): firmware would also start it alone, with any initrd and command line. \
             Take the signature off a copy of it: sbattach --remove COPY"
        );
    }

    let os_release = os_release(release);
    let mut additions: Vec<Addition<'_>> = stub.magic().map(|magic| text(".sdmagic", magic)).into_iter().collect();
    additions.extend([text(".osrel", &os_release), text(".cmdline", &expected.command_line)]);
    additions.extend(uname(&head).map(|uname| text(".uname", uname)));
    additions.push(Addition {
        name: ".initrd",
        content: Box::new(initrd),
        size: initrd_size,
        virtual_size: initrd_size,
        flags: DATA,
    });
    // Last, and with as much memory as it says it needs: a kernel that runs in place grows over whatever is behind it.
    additions.push(Addition {
        name: ".linux",
        content: Box::new(Cursor::new(&head).chain(linux)),
        size: linux_size,
        virtual_size: linux_size.max(kernel.size_of_image.into()),
        flags: CODE,
    });
    stub.extend(additions, out)
        .with_context(|| format!("cannot make a unified kernel image of {}", parts.stub.display()))
}

fn text<'a>(name: &'static str, text: &'a str) -> Addition<'a> {
    let size = text.len() as u64;
    Addition { name, content: Box::new(text.as_bytes()), size, virtual_size: size, flags: DATA }
}

fn size(file: &File, path: &Path) -> Result<u64> {
    Ok(file.metadata().with_context(|| format!("cannot read {}", path.display()))?.len())
}

/// What boot menus and `bootctl` show of the image.
fn os_release(release: Release<'_>) -> String {
    let Release { os_id, version, title } = release;
    let mut quoted = String::new();
    for c in title.chars() {
        if matches!(c, '"' | '$' | '`' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    format!("ID=\"{os_id}\"\nVERSION_ID=\"{version}\"\nNAME=\"{quoted}\"\nPRETTY_NAME=\"{quoted} {version}\"\n")
}

/// The release that an x86 kernel names in its boot header (Linux, `Documentation/arch/x86/boot.rst`).
fn uname(head: &[u8]) -> Option<&str> {
    const MAGIC: usize = 0x202;
    const VERSION: usize = 0x20e;
    if head.get(MAGIC..MAGIC + 4)? != b"HdrS" {
        return None;
    }
    let at = 0x200 + usize::from(u16::from_le_bytes(head.get(VERSION..VERSION + 2)?.try_into().ok()?));
    let text = head.get(at..)?.split(|byte| *byte == b' ' || *byte == 0).next()?;
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+~-".contains(byte);
    let plausible = (1..=64).contains(&text.len()) && text.iter().all(known);
    std::str::from_utf8(text).ok().filter(|_| plausible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_stays_one_value_in_os_release() {
        let text = os_release(Release { os_id: "ralphos", version: "1.0~rc1", title: r#"a "b" $c `d` \e"# });
        let quoted = r#"a \"b\" \$c \`d\` \\e"#;
        assert_eq!(
            text,
            format!("ID=\"ralphos\"\nVERSION_ID=\"1.0~rc1\"\nNAME=\"{quoted}\"\nPRETTY_NAME=\"{quoted} 1.0~rc1\"\n")
        );
    }

    #[test]
    fn an_x86_kernel_names_its_release() {
        let mut head = vec![0; 0x400];
        assert_eq!(uname(&head), None);
        head[0x202..0x206].copy_from_slice(b"HdrS");
        head[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        assert_eq!(uname(&head), None, "no text there");
        head[0x300..0x312].copy_from_slice(b"6.12.9-cloud (me) ");
        assert_eq!(uname(&head), Some("6.12.9-cloud"));
        head[0x301] = b'\n';
        assert_eq!(uname(&head), None);
        head[0x20e..0x210].fill(0xff);
        assert_eq!(uname(&head), None, "out of reach");
        assert_eq!(uname(&head[..0x204]), None);
    }
}
