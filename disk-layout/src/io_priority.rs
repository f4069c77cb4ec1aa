//! A place at the end of the queue for the disk.
#![allow(unsafe_code)]

use std::io;

use nix::errno::Errno;
use nix::libc;

/// `IOPRIO_WHO_PROCESS`, of linux/ioprio.h.
const WHO_PROCESS: libc::c_int = 1;
/// `IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0)`, of linux/ioprio.h.
const IDLE: libc::c_int = 3 << 13;

/// This thread, and those that it starts from now on, get the disk only when nobody else wants it, where the disk's scheduler knows such
/// a difference.
///
/// # Errors
/// What the kernel says.
pub fn io_when_idle() -> io::Result<()> {
    // SAFETY: ioprio_set(2) takes three integers and touches no memory of this process; 0 stands for the calling thread. Neither the C
    // library nor a crate of this workspace has a function for it.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0 as libc::c_int, IDLE) };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_takes_it() {
        // In a thread of its own: the others of this test process keep theirs.
        std::thread::spawn(|| super::io_when_idle().unwrap()).join().unwrap();
    }
}
