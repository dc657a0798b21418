# The probe's guest: a boot sector that does what every kernel does in its first milliseconds, and says so.
#
# Real mode -> protected mode -> long mode with paging; a write through one mapping is read back through
# another; then it halts until the timer interrupt wakes it. Only the interrupt handler reports success, by
# writing 16 to QEMU's isa-debug-exit port, which ends QEMU with status (16 << 1) | 1 = 33.
#
#   as --64 -o boot_sector.o boot_sector.S
#   ld -m elf_x86_64 -Ttext 0x7c00 --oformat binary -o boot_sector.bin boot_sector.o

.set PML4, 0x1000
.set PDPT, 0x2000
.set PD,   0x3000
.set IDT,  0x4000
.set TIMER_VECTOR, 0x20
.set MIRROR, 0x200000                   # the second large page; it maps physical address 0 once more
.set SCRATCH, 0x6000

.code16
.globl _start
_start:
    ljmp $0, $real                      # some firmware enters at 07c0:0000
real:
    cli
    cld
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp

    mov $PML4, %di                      # clear the tables and the IDT: 0x1000 to 0x5000
    mov $0x2000, %cx
    rep stosw
    movw $(PDPT | 3), PML4              # present, writable
    movw $(PD | 3), PDPT
    movw $0x83, PD                      # two large pages, both at physical address 0
    movw $0x83, PD + 8

    lgdt gdt_pointer
    mov %cr4, %eax
    or $0x620, %eax                     # PAE, and SSE as every 64-bit compiler assumes
    mov %eax, %cr4
    mov $PML4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx               # EFER: long mode
    rdmsr
    or $0x100, %ax
    wrmsr
    mov %cr0, %eax
    and $0xfffffffb, %eax               # no x87 emulation
    or $0x80000003, %eax                # paging, protection, and the coprocessor is there
    mov %eax, %cr0
    ljmp $8, $long

.code64
long:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $0x7c00, %esp

    mov $0x5ca1ab1e, %eax               # through an SSE register into one mapping, out of the other
    movd %eax, %xmm0
    movd %xmm0, SCRATCH
    cmp %eax, MIRROR + SCRATCH
    jne stuck

    movw $timer, IDT + TIMER_VECTOR * 16
    movl $0x8e000008, IDT + TIMER_VECTOR * 16 + 2
    lidt idt_pointer

    mov $0x11, %al                      # the interrupt controllers: IRQ 0 becomes TIMER_VECTOR
    out %al, $0x20
    mov $TIMER_VECTOR, %al
    out %al, $0x21
    mov $4, %al
    out %al, $0x21
    mov $1, %al
    out %al, $0x21
    mov $0xfe, %al                      # the timer alone
    out %al, $0x21
    mov $0xff, %al
    out %al, $0xa1
    sti
stuck:
    hlt
    jmp stuck

timer:
    mov $0xf4, %dx
    mov $16, %al
    out %al, %dx
    jmp stuck

.balign 8
gdt:
    .quad 0
    .quad 0x00209a0000000000            # code, 64 bits
    .quad 0x0000920000000000            # data
gdt_pointer:
    .word . - gdt - 1
    .long gdt
idt_pointer:
    .word 0x0fff
    .quad IDT

.org 510
.word 0xaa55
