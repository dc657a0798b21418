//! What differs between the machines of the architectures.

use protocol::agent::Architecture;

use super::model::{Enabled, Features, Gic, Input, PowerManagement, Timer};

#[derive(Debug)]
pub(super) struct Machine {
    /// QEMU's name for it.
    pub(super) name: &'static str,
    /// Whether hosts have such processors themselves; otherwise each guest is emulated.
    pub(super) is_hosts: bool,
    pub(super) features: Features,
    pub(super) timers: Vec<Timer>,
    pub(super) sleep: Option<PowerManagement>,
    pub(super) devices: OfMachine,
}

#[derive(Debug)]
pub(super) struct OfMachine {
    /// The serial port that firmware and kernels write to; libvirt knows it where it is part of the machine.
    pub(super) serial: Option<&'static str>,
    pub(super) video: &'static str,
    pub(super) input: Vec<Input>,
}

/// Pointers that say where they are, not how far they moved: a console shows the pointer where the mouse is.
const POINTER: Input = Input { kind: "tablet", bus: "usb" };
const KEYBOARD: Input = Input { kind: "keyboard", bus: "usb" };

pub(super) fn of(architecture: Architecture) -> Machine {
    match architecture {
        Architecture::X86_64 => q35(),
        Architecture::Aarch64 => virt(Some(Gic { version: 3 })),
        Architecture::Riscv64 => virt(None),
    }
}

fn q35() -> Machine {
    let no = || Enabled { enabled: "no" };
    Machine {
        name: "q35",
        is_hosts: true,
        // The power button is an ACPI device.
        features: Features { acpi: (), apic: Some(()), gic: None },
        timers: timers(),
        // A guest that puts itself to sleep would be a state that nobody can wake it from.
        sleep: Some(PowerManagement { suspend_to_mem: no(), suspend_to_disk: no() }),
        devices: OfMachine {
            serial: Some("isa-serial"),
            // What every boot loader and every kernel can draw on.
            video: "vga",
            // The keyboard is part of the machine.
            input: vec![POINTER],
        },
    }
}

/// The timers as libvirt's own tools set them: lost ticks are made up for, and no HPET, which costs much and gives
/// nothing beside the TSC.
fn timers() -> Vec<Timer> {
    let timer = |name, tick_policy, present| Timer { name, tick_policy, present };
    vec![
        timer("rtc", Some("catchup"), None),
        timer("pit", Some("delay"), None),
        timer("hpet", None, Some("no")),
    ]
}

/// QEMU's machine for guests that expect no particular board.
fn virt(gic: Option<Gic>) -> Machine {
    Machine {
        name: "virt",
        is_hosts: false,
        features: Features { acpi: (), apic: None, gic },
        timers: Vec::new(),
        sleep: None,
        // There is no VGA on it.
        devices: OfMachine { serial: None, video: "virtio", input: vec![POINTER, KEYBOARD] },
    }
}
