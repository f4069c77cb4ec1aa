//! The file system for `/var`, made by e2fsprogs without root.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use disk_layout::{LABEL_VAR, Partition, Seed};
use image_format::SlotMap;

/// What `/var` holds from the beginning, parents first; all of it belongs to root.
const DIRECTORIES: [&str; 5] = ["lib", "lib/ralphd", "lib/ralph-update", "lib/ralph-update/slots", "log"];

/// The map of slot A (SLM-1).
const MAP: &str = "lib/ralph-update/slots/a.map";

/// What stands in for the host's own `/etc/mke2fs.conf`, which differs from host to host. Only features that every kernel and
/// e2fsck of the last ten years knows.
const MKE2FS_CONF: &str = "\
[defaults]
	base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
	default_mntopts = acl,user_xattr
	enable_periodic_fsck = 0
	blocksize = 4096
	inode_size = 256
	inode_ratio = 16384
[fs_types]
	ext4 = {
		features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
	}
";

/// Every time stamp, in seconds since 1970: long past on any machine's clock, so that fsck finds none in the future. Zero would mean the clock.
const TIME: &str = "1";

/// Where system administration programs lie; a user's `PATH` may lack it.
const SBIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The programs of e2fsprogs.
#[derive(Debug)]
pub struct Tools {
    mke2fs: PathBuf,
    debugfs: PathBuf,
}

impl Tools {
    /// Looks for the programs, before any work is done.
    pub fn find() -> Result<Tools> {
        Ok(Tools { mke2fs: find("mke2fs")?, debugfs: find("debugfs")? })
    }

    /// Makes the file system of `partition` inside `disk`, with its directories, and what the machine remembers of slot A: its first update
    /// need not fetch what it was delivered with.
    pub fn make_var(&self, disk: &File, partition: &Partition, seed: Seed, map: &SlotMap) -> Result<()> {
        // By the number of our open file: a path may hold characters that e2fsprogs reads as options of its own.
        let disk = OsString::from(format!("/proc/{}/fd/{}", std::process::id(), disk.as_raw_fd()));
        let mut conf = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
        conf.write_all(MKE2FS_CONF.as_bytes()).context("cannot write a temporary file")?;
        let offset = partition.start;
        let hash_seed = seed.guid("VAR hash seed");
        // The disk is new and all holes: nothing to discard, nothing to zero.
        let extended = format!(
            "offset={offset},nodiscard,hash_seed={hash_seed},root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1"
        );
        let uuid = seed.guid("VAR file system").to_string();
        let mut mke2fs = command(&self.mke2fs);
        mke2fs.env("MKE2FS_CONFIG", conf.path());
        mke2fs.args(["-q", "-F", "-t", "ext4", "-L", LABEL_VAR, "-U", &uuid, "-E", &extended]);
        mke2fs.arg(&disk).arg(format!("{}k", partition.len / 1024));
        run(&mut mke2fs)?;

        let mut within = disk;
        within.push(format!("?offset={offset}"));
        let mut script = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
        for directory in DIRECTORIES {
            writeln!(script, "mkdir {directory}").context("cannot write a temporary file")?;
        }
        let map = map.to_bytes();
        let mut file = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
        file.write_all(&map).context("cannot write a temporary file")?;
        // By number, as above: debugfs splits its lines at blanks.
        let source = format!("/proc/{}/fd/{}", std::process::id(), file.as_file().as_raw_fd());
        writeln!(script, "write {source} {MAP}").context("cannot write a temporary file")?;
        run(command(&self.debugfs).arg("-w").arg("-f").arg(script.path()).arg(&within))?;
        self.check(&within, map.len())
    }

    /// debugfs reports success whatever happens, so what it did is looked at.
    fn check(&self, file_system: &OsStr, map_len: usize) -> Result<()> {
        for directory in DIRECTORIES {
            self.check_one(file_system, directory, &["Type:", "directory", "Mode:", "0755"])?;
        }
        let len = map_len.to_string();
        self.check_one(file_system, MAP, &["Type:", "regular"])?;
        self.check_one(file_system, MAP, &["Size:", &len])
    }

    fn check_one(&self, file_system: &OsStr, path: &str, inode: &[&str]) -> Result<()> {
        let output = run(command(&self.debugfs).args(["-R", &format!("stat {path}")]).arg(file_system))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let has = |wanted: &[&str]| words.windows(wanted.len()).any(|window| window == wanted);
        if !has(inode) || !has(&["User:", "0", "Group:", "0"]) {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("debugfs did not make {path}: {}", error.trim());
        }
        Ok(())
    }
}

fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SBIN.map(PathBuf::from));
    match dirs.map(|dir| dir.join(program)).find(|path| path.is_file()) {
        Some(found) => Ok(found),
        None => bail!("{program} is not there; it makes the file system for /var: apt-get install e2fsprogs"),
    }
}

fn command(program: &PathBuf) -> Command {
    let mut command = Command::new(program);
    command.env("E2FSPROGS_FAKE_TIME", TIME).env("SOURCE_DATE_EPOCH", TIME).env("LC_ALL", "C").env("PAGER", "cat");
    command
}

fn run(command: &mut Command) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed ({}): {}", output.status, error.trim());
    }
    Ok(output)
}
