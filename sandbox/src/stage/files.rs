//! The files of the sandbox (SBX-2). Runs as the host's root, in a mount namespace of its own, before the user
//! namespace is made: nothing inside has any privilege over these mounts.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown, symlink};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::pivot_root;

use crate::Wall;
use crate::error::{Error, Explain};
use crate::plan::{Bind, HOST_ID, Plan};
use crate::probe::BASE_FILES;

/// Where the new root is put together; every host has the folder, and what it holds is seen again after the pivot.
const NEW_ROOT: &str = "/run";

/// Where the host's files are until the end.
const OLD: &str = "/old";

/// Where the layer over `/usr` is made. Covered later: the layer stays, but there is no other way to it.
const SCRATCH: &str = "/tmp";

/// The device nodes (SBX-2).
pub(crate) const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Links into `usr`, where the host has them (SBX-2).
pub(crate) const LINKS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

const PLAIN: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
const FIXED: MsFlags = PLAIN.union(MsFlags::MS_RDONLY);

pub(super) fn build(plan: &Plan) -> Result<(), Error> {
    let private = MsFlags::MS_PRIVATE.union(MsFlags::MS_REC);
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).at("make private the mounts below", "/")?;
    tmpfs(NEW_ROOT, PLAIN, "size=16m,mode=0755")?;
    let old = format!("{NEW_ROOT}{OLD}");
    folder(&old)?;
    pivot_root(NEW_ROOT, old.as_str()).at("pivot_root (is the host's root an initramfs?) to", NEW_ROOT)?;
    nix::unistd::chdir("/").at("enter", "/")?;
    // From here, paths that begin with OLD are the host's, and links lead nowhere else than into the sandbox.
    folder(SCRATCH)?;
    tmpfs(SCRATCH, MsFlags::MS_NOSUID, &format!("size={},mode=0700", plan.layer))?;
    usr(plan)?;
    if !plan.has(Wall::BaseReadOnly) {
        writable_base_file()?;
    }
    links()?;
    proc(plan)?;
    devices(plan)?;
    umount2(SCRATCH, MntFlags::MNT_DETACH).at("unmount", SCRATCH)?;
    tmpfs("/tmp", PLAIN, "size=16m,mode=1777")?;
    if let Some(cgroup) = &plan.cgroup {
        bind(&Bind { host: cgroup.clone(), inside: "/sys/fs/cgroup".into() }, FIXED.union(MsFlags::MS_NOEXEC))?;
    }
    for wanted in &plan.binds {
        bind(wanted, FIXED)?;
    }
    if !plan.has(Wall::Mounts) {
        bind(&Bind { host: "/etc".into(), inside: "/etc".into() }, FIXED)?;
    }
    umount2(OLD, MntFlags::MNT_DETACH).at("unmount", OLD)?;
    fs::remove_dir(OLD).at("remove", OLD)
}

fn usr(plan: &Plan) -> Result<(), Error> {
    folder("/usr")?;
    if !plan.has(Wall::Overlay) {
        return bind(&Bind { host: "/usr".into(), inside: "/usr".into() }, FIXED);
    }
    let (upper, work) = (format!("{SCRATCH}/upper"), format!("{SCRATCH}/work"));
    folder(&upper)?;
    folder(&work)?;
    // The top of the layer is the top of what is seen, and the program may write there.
    chown(&upper, Some(HOST_ID), Some(HOST_ID)).at("give away", &upper)?;
    let options = format!("lowerdir={OLD}/usr,upperdir={upper},workdir={work}");
    mount(Some("overlay"), "/usr", Some("overlay"), PLAIN, Some(options.as_str()))
        .at("mount an overlay (module overlay, CONFIG_OVERLAY_FS) at", "/usr")
}

/// A hole that hurts nobody: in place of one file of the base there is another one, on a writable file system of the
/// sandbox, that the program may write to.
fn writable_base_file() -> Result<(), Error> {
    let is_there = |path: &&&str| Path::new(path).is_file();
    let file = BASE_FILES.iter().find(is_there).ok_or(nix::errno::Errno::ENOENT).step("find a file of the base")?;
    let path = format!("{SCRATCH}/hole");
    fs::write(&path, "left open for a test\n").at("write", &path)?;
    chown(&path, Some(HOST_ID), Some(HOST_ID)).at("give away", &path)?;
    bind_from(Path::new(&path), Path::new(file), PLAIN)
}

/// `bin` and its like, where the host has them as links into `usr`.
fn links() -> Result<(), Error> {
    for name in LINKS {
        let host = Path::new(OLD).join(name);
        if let Ok(target) = fs::read_link(&host)
            && target.strip_prefix("/").unwrap_or(&target).starts_with("usr")
        {
            let link = Path::new("/").join(name);
            symlink(&target, &link).at("create the link", &link)?;
        }
    }
    Ok(())
}

fn proc(plan: &Plan) -> Result<(), Error> {
    let flags = PLAIN.union(MsFlags::MS_NOEXEC);
    folder("/proc")?;
    if !plan.has(Wall::Processes) {
        return bind(&Bind { host: "/proc".into(), inside: "/proc".into() }, flags);
    }
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>).at("mount", "/proc")
}

fn devices(plan: &Plan) -> Result<(), Error> {
    let node = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);
    folder("/dev")?;
    tmpfs("/dev", PLAIN.union(MsFlags::MS_NOEXEC), "size=64k,mode=0755")?;
    for device in DEVICES {
        bind(&Bind { host: device.into(), inside: device.into() }, node)?;
    }
    if plan.kvm && plan.has(Wall::Kvm) {
        kvm(node)?;
    }
    Ok(())
}

/// A node of our own, for the host's belongs to a group that the program is not in.
fn kvm(flags: MsFlags) -> Result<(), Error> {
    let host = format!("{OLD}/dev/kvm");
    let number = fs::metadata(&host).at("find (is KVM there, and its module loaded?)", "/dev/kvm")?.rdev();
    let ours = format!("{SCRATCH}/kvm");
    mknod(ours.as_str(), SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, number).at("make the node", "/dev/kvm")?;
    chown(&ours, Some(HOST_ID), Some(HOST_ID)).at("give away", &ours)?;
    bind_from(Path::new(&ours), Path::new("/dev/kvm"), flags)
}

/// Binds what the host has.
fn bind(wanted: &Bind, flags: MsFlags) -> Result<(), Error> {
    let host = Path::new(OLD).join(wanted.host.strip_prefix("/").unwrap_or(&wanted.host));
    bind_from(&host, &wanted.inside, flags)
}

fn bind_from(source: &Path, target: &Path, flags: MsFlags) -> Result<(), Error> {
    let meta = fs::metadata(source).at("find what is to be bound,", source)?;
    if meta.is_dir() {
        folder(target)?;
    } else {
        folder(target.parent().unwrap_or(Path::new("/")))?;
        if !target.exists() {
            fs::write(target, "").at("create", target)?;
        }
    }
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).at("bind", target)?;
    // The kernel takes flags for a bind only the second time.
    let again = MsFlags::MS_BIND.union(MsFlags::MS_REMOUNT).union(flags);
    mount(None::<&str>, target, None::<&str>, again, None::<&str>).at("set the flags of the bind", target)
}

fn tmpfs(target: &str, flags: MsFlags, options: &str) -> Result<(), Error> {
    mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options)).at("mount a tmpfs at", target)
}

/// Makes a folder and those above it, readable by all whatever the caller's umask is.
fn folder(path: impl AsRef<Path>) -> Result<(), Error> {
    let path = path.as_ref();
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).at("create", path)
}
