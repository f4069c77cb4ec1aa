//! `cargo demo`: the life of two updates on a real (virtual) machine, a good one and a bad one, told as it happens.

use std::time::Instant;

use anyhow::Result;
use qemu_tests::arch::Arch;
use qemu_tests::guest::{Release, base};
use qemu_tests::lab::Lab;
use qemu_tests::machine::Machine;
use qemu_tests::vm::BOOT_TIMEOUT;
use qemu_tests::workspace;

fn main() -> Result<()> {
    let mut story = Story { start: Instant::now(), chapter: 0 };
    println!(
        "A machine with two system slots, A and B, is going to be updated twice. The first update is good, the second is\n\
         not. Nobody is there to help: firmware, boot loader and the programs of this workspace decide by themselves."
    );

    story.chapter("Set-up: the programs, and a small operating system made of Debian packages");
    println!("(This takes minutes the first time, and seconds from then on.)");
    let arch = Arch::to_show()?;
    workspace::host_programs()?;
    workspace::guest_programs(arch)?;
    base(arch)?;
    let lab = Lab::new(arch, "demo")?;

    story.chapter("The build host: a key pair, and version 1.0.0 on the disk of a new machine");
    let keys = lab.keygen()?;
    println!(
        "    $ ralph-image keygen --out release\n    \
             $ ralph-image build --root root.erofs --linux vmlinuz --initrd initrd.img --version 1.0.0 … -o v1.0.0.zst\n    \
             $ ralph-image disk --image v1.0.0.zst --trust release.pub.pem --loader systemd-boot{}.efi … -o disk.raw",
        arch.efi()
    );
    let first = lab.image(&Release::new("1.0.0"), &keys)?;
    let disk = lab.disk(&first, &keys)?;
    println!("Two more versions are built and put on an HTTP server: 2.0.0 is healthy, the ralphd of 3.0.0 crashes.");

    let mut machine = Machine::on(&lab, &disk, keys)?;
    let second = machine.serve(&lab, &Release::new("2.0.0"))?;
    let third = machine.serve(&lab, &Release::new("3.0.0").with_ralphd("crash-after 0"))?;

    story.chapter("The machine boots: firmware, systemd-boot, kernel, dm-verity, systemd");
    story.settled(&mut machine)?;
    story.console(&machine, 1);
    story.type_in(&mut machine, "ralph-update status")?;
    story.boot_state(&machine, "One entry without a counter: slot A is committed.")?;

    story.chapter("Update to 2.0.0: streamed into slot B while A runs, every byte checked before it is used");
    story.type_in(&mut machine, &format!("ralph-update apply --progress plain {second}"))?;
    story.boot_state(
        &machine,
        "B is staged with three tries (+3-0): `LEFT-DONE`. Until it proves itself it is on trial.",
    )?;

    story.chapter("Reboot into the trial");
    machine.vm.reboot()?;
    story.boot_state(&machine, "systemd-boot took a try before it started the kernel (+2-1). Were the machine reset before it is found healthy, A would be back after three.")?;
    story.settled(&mut machine)?;
    story.console(&machine, 1);
    story.boot_state(&machine, "The health check found ralphd up and stable, and committed B: the counter is gone.")?;

    story.chapter(
        "Update to 3.0.0, into slot A this time. It was built and signed as it should be; only, it does not work",
    );
    story.type_in(&mut machine, &format!("ralph-update apply --progress none {third}"))?;
    machine.vm.reboot()?;
    for left in ["Two tries are left.", "One try is left.", "This was the last."] {
        story.boot_state(&machine, left)?;
        machine.vm.wait_boot(BOOT_TIMEOUT)?;
        story.console(&machine, 2);
    }

    story.chapter("And the machine is back, by itself, on the version that worked");
    story.settled(&mut machine)?;
    story.type_in(&mut machine, "ralph-update explain")?;
    story.type_in(&mut machine, "ralph-update history")?;
    println!("\nThe same image again? It is remembered by its content:");
    story.type_in(&mut machine, &format!("ralph-update apply {third}"))?;
    machine.vm.power_off()?;

    story.chapter("Done");
    println!("Everything is in {}: keys, images, and the disk, which", lab.path("").display());
    println!("`target/debug/ralph-update --disk disk.raw status` reads without booting it.");
    Ok(())
}

/// Tells what happens, and when.
struct Story {
    start: Instant,
    chapter: u32,
}

impl Story {
    fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        println!("\n[{:>3} s] {}. {title}\n", self.start.elapsed().as_secs(), self.chapter);
    }

    /// Runs a command in the guest and shows it as a person at its console would see it.
    fn type_in(&self, machine: &mut Machine, command: &str) -> Result<()> {
        println!("    ralph# {command}");
        let ran = machine.vm.run(command)?;
        for line in ran.stderr.lines().chain(ran.stdout.lines()) {
            println!("    {line}");
        }
        if ran.code != 0 {
            println!("    (exit code {})", ran.code);
        }
        Ok(())
    }

    /// Shows the names of the boot entries, which are the whole boot state.
    fn boot_state(&self, machine: &Machine, meaning: &str) -> Result<()> {
        println!("    boot entries:  {}", machine.entries()?.join("  "));
        println!("{meaning}");
        Ok(())
    }

    /// Shows what the console of a boot said about the system, `ralphd` and the health check; 1 is the last boot.
    fn console(&self, machine: &Machine, back: usize) {
        const TOLD: [&str; 3] = ["Welcome to", "ralphd[", "ralph-health-check["];
        let transcript = machine.vm.transcript();
        let boots = transcript.boots();
        let lines = boots.len().checked_sub(back).map_or(&[][..], |index| boots[index]);
        for line in lines.iter().filter(|line| TOLD.iter().any(|told| line.text.contains(told))) {
            println!("    console| {}", line.text);
        }
    }

    /// Waits until all that starts at boot has ended.
    fn settled(&self, machine: &mut Machine) -> Result<()> {
        machine.vm.run("systemctl is-system-running --wait")?;
        Ok(())
    }
}
