//! A guest in a boot sector that fills its disk, and says what was acknowledged.

use std::fs;

use camino::Utf8Path;

const SECTOR: usize = 512;
/// What it writes at once.
pub const CHUNK_BYTES: usize = 32 << 10;
/// Where it begins to write.
const FIRST_BYTE: usize = 1 << 20;
/// Where the code has the number of chunks.
const COUNT_AT: usize = 0xa9;

/// Writes chunk after chunk to the disk that it was booted from, each full of its number, reads each back, and prints
/// its number when it has read what it wrote: four digits from `a` to `p` and a line break. Prints `.` after the last
/// one, and `!` when a disk fails or has forgotten something; then it does no more.
#[rustfmt::skip]
const CODE: &[u8] = &[
    0x31, 0xc0,                   //         xor %ax, %ax
    0x8e, 0xd8,                   //         mov %ax, %ds
    0x8e, 0xd0,                   //         mov %ax, %ss
    0xbc, 0x00, 0x7c,             //         mov $0x7c00, %sp
    0xfc,                         //         cld
    0x88, 0x16, 0xa8, 0x7c,       //         mov %dl, drive
    0x31, 0xed,                   //         xor %bp, %bp
    0xbb, 0x00, 0x10,             // next:   mov $0x1000, %bx
    0x8e, 0xc3,                   //         mov %bx, %es
    0x31, 0xff,                   //         xor %di, %di
    0x89, 0xe8,                   //         mov %bp, %ax
    0xb9, 0x00, 0x40,             //         mov $0x4000, %cx
    0xf3, 0xab,                   //         rep stosw
    0x89, 0xe8,                   //         mov %bp, %ax
    0xb9, 0x40, 0x00,             //         mov $64, %cx
    0xf7, 0xe1,                   //         mul %cx
    0x05, 0x00, 0x08,             //         add $2048, %ax
    0x83, 0xd2, 0x00,             //         adc $0, %dx
    0xa3, 0xa0, 0x7c,             //         mov %ax, packet + 8
    0x89, 0x16, 0xa2, 0x7c,       //         mov %dx, packet + 10
    0xb4, 0x43,                   //         mov $0x43, %ah
    0xe8, 0x4f, 0x00,             //         call disk
    0xbb, 0x00, 0x20,             //         mov $0x2000, %bx
    0xb4, 0x42,                   //         mov $0x42, %ah
    0xe8, 0x47, 0x00,             //         call disk
    0x8e, 0xc3,                   //         mov %bx, %es
    0x31, 0xff,                   //         xor %di, %di
    0x89, 0xe8,                   //         mov %bp, %ax
    0xb9, 0x00, 0x40,             //         mov $0x4000, %cx
    0xf3, 0xaf,                   //         repe scasw
    0x75, 0x21,                   //         jne fail
    0xb9, 0x04, 0x00,             //         mov $4, %cx
    0xc1, 0xc5, 0x04,             // digit:  rol $4, %bp
    0x89, 0xe8,                   //         mov %bp, %ax
    0x24, 0x0f,                   //         and $15, %al
    0x04, 0x61,                   //         add $'a', %al
    0xe8, 0x1a, 0x00,             //         call put
    0xe2, 0xf2,                   //         loop digit
    0xb0, 0x0a,                   //         mov $'\n', %al
    0xe8, 0x13, 0x00,             //         call put
    0x45,                         //         inc %bp
    0x3b, 0x2e, 0xa9, 0x7c,       //         cmp count, %bp
    0x75, 0xa7,                   //         jne next
    0xb0, 0x2e,                   //         mov $'.', %al
    0xeb, 0x02,                   //         jmp last
    0xb0, 0x21,                   // fail:   mov $'!', %al
    0xe8, 0x03, 0x00,             // last:   call put
    0xf4,                         // end:    hlt
    0xeb, 0xfd,                   //         jmp end
    0x88, 0xc3,                   // put:    mov %al, %bl
    0xba, 0xfd, 0x03,             //         mov $0x3fd, %dx
    0xec,                         // busy:   in %dx, %al
    0xa8, 0x20,                   //         test $0x20, %al
    0x74, 0xfb,                   //         jz busy
    0x88, 0xd8,                   //         mov %bl, %al
    0xba, 0xf8, 0x03,             //         mov $0x3f8, %dx
    0xee,                         //         out %al, %dx
    0xc3,                         //         ret
    0x89, 0x1e, 0x9e, 0x7c,       // disk:   mov %bx, packet + 6
    0xb0, 0x00,                   //         mov $0, %al
    0xbe, 0x98, 0x7c,             //         mov $packet, %si
    0x8a, 0x16, 0xa8, 0x7c,       //         mov drive, %dl
    0xcd, 0x13,                   //         int $0x13
    0x72, 0xd6,                   //         jc fail
    0xc3,                         //         ret
    16, 0, 64, 0, 0, 0, 0, 0,     // packet: 64 sectors, offset, segment
    0, 0, 0, 0, 0, 0, 0, 0,       //         first sector
    0,                            // drive:
];

/// The boot sector for that many chunks.
pub fn sector(chunks: u16) -> [u8; SECTOR] {
    assert_eq!(CODE.len(), COUNT_AT);
    let mut sector = [0; SECTOR];
    sector[..COUNT_AT].copy_from_slice(CODE);
    sector[COUNT_AT..COUNT_AT + 2].copy_from_slice(&chunks.to_le_bytes());
    sector[SECTOR - 2..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// How far it has come, by its serial log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Chunks that it has written and read back.
    pub chunks: usize,
    pub is_done: bool,
}

/// Reads the log. That a disk failed, or has forgotten something, fails the test.
pub fn progress(log: &Utf8Path) -> Progress {
    let text = fs::read_to_string(log).unwrap_or_default();
    // The firmware prints, too.
    let digits = |line: &&str| line.len() == 4 && line.bytes().all(|byte| (b'a'..=b'p').contains(&byte));
    let chunks = text.lines().filter(digits).count();
    assert!(!text.lines().any(|line| line == "!"), "the guest has seen an error after {chunks} chunks");
    Progress { chunks, is_done: text.lines().any(|line| line == ".") }
}

/// Whether a raw copy of its disk has these chunks.
pub fn assert_written(raw: &Utf8Path, chunks: usize) {
    let disk = fs::read(raw).unwrap();
    for (number, chunk) in disk[FIRST_BYTE..].chunks(CHUNK_BYTES).take(chunks).enumerate() {
        let expected = u16::try_from(number).unwrap().to_le_bytes().repeat(CHUNK_BYTES / 2);
        assert!(chunk == expected, "chunk {number} of {chunks} was acknowledged and is lost");
    }
}
