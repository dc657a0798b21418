//! Guests that fit in a boot sector.

/// SeaBIOS does not boot from a virtio disk of a single sector.
pub const DISK_BYTES: u64 = 1 << 20;

const SECTOR: usize = 512;
const TEXT: usize = 64;

/// Writes the text at 0x7c40 to the serial port.
#[rustfmt::skip]
const PRINT: &[u8] = &[
    0x31, 0xc0,             //       xor %ax, %ax
    0x8e, 0xd8,             //       mov %ax, %ds
    0xfc,                   //       cld
    0xbe, 0x40, 0x7c,       //       mov $0x7c40, %si
    0xac,                   // next: lodsb
    0x84, 0xc0,             //       test %al, %al
    0x74, 0x06,             //       jz done
    0xba, 0xf8, 0x03,       //       mov $0x3f8, %dx
    0xee,                   //       out %al, %dx
    0xeb, 0xf5,             //       jmp next
];

/// Waits until somebody presses the power button (bit 8 of PM1a status), looking at every timer tick.
#[rustfmt::skip]
const WAIT_FOR_BUTTON: &[u8] = &[
    0xba, 0x02, 0x06,       //       mov $0x602, %dx
    0xb8, 0x00, 0x01,       //       mov $0x100, %ax
    0xef,                   //       out %ax, %dx
    0xfb,                   //       sti
    0xf4,                   // wait: hlt
    0xba, 0x00, 0x06,       //       mov $0x600, %dx
    0xed,                   //       in %dx, %ax
    0xf6, 0xc4, 0x01,       //       test $1, %ah
    0x74, 0xf6,             //       jz wait
];

/// Enters S5 through PM1a control, where SeaBIOS puts it on a q35.
#[rustfmt::skip]
const POWER_OFF: &[u8] = &[
    0xba, 0x04, 0x06,       //       mov $0x604, %dx
    0xb8, 0x00, 0x20,       //       mov $0x2000, %ax
    0xef,                   //       out %ax, %dx
    0xf4,                   // end:  hlt
    0xeb, 0xfd,             //       jmp end
];

/// Prints `text` and powers itself off when the power button is pressed.
pub fn obedient(text: &str) -> [u8; SECTOR] {
    sector(&[PRINT, WAIT_FOR_BUTTON, POWER_OFF].concat(), text)
}

/// Prints `text` and powers itself off at once.
pub fn brief(text: &str) -> [u8; SECTOR] {
    sector(&[PRINT, POWER_OFF].concat(), text)
}

fn sector(code: &[u8], text: &str) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    assert!(code.len() <= TEXT);
    sector[..code.len()].copy_from_slice(code);
    sector[TEXT..TEXT + text.len()].copy_from_slice(text.as_bytes());
    sector[SECTOR - 2..].copy_from_slice(&[0x55, 0xaa]);
    sector
}
