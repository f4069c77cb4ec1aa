//! The libraries' unit tests once more, as programs of the architecture that this machine has not: what they make of
//! bytes, lengths and pointers must not depend on it.

use anyhow::Result;
use qemu_tests::arch::Arch;
use qemu_tests::{setup, workspace};

const LIBRARIES: [&str; 5] = ["boot-entries", "disk-layout", "file-map", "image-format", "power-cuts"];

#[test]
fn the_libraries_pass_their_tests_on_the_other_architecture() -> Result<()> {
    for arch in Arch::ALL.into_iter().filter(|arch| !arch.is_host()) {
        if setup::skip_vm() || !Arch::wanted()?.contains(&arch) {
            eprintln!("not run on {arch}, because RALPH_SKIP_VM or RALPH_VM_ARCH asks for that");
            continue;
        }
        workspace::test_libraries(arch, &LIBRARIES)?;
    }
    Ok(())
}
