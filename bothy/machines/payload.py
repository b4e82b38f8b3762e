"""A boot sector that proves that a virtual CPU works: real mode to 64-bit mode, a page table changed and flushed, eight timer
interrupts awaited in `hlt`; then it writes `bothy64` to the first serial port and ends QEMU by its isa-debug-exit device.

Made of the source below by GNU as and ld (`as -o p.o p.S; ld -Ttext 0x7c00 --oformat binary -o p.bin p.o`), which are not needed
to use it. Sources: Intel SDM volume 3, sections 4.5 and 9.8.5; the 8259A and 8254 data sheets.

    .code16
    .globl _start
    _start:
        cli
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movw $0x7c00, %sp
        # page tables at 0x1000: PML4, PDPT, PD with one 2 MiB page
        movw $0x1000, %di
        movw $0x1800, %cx
        cld
        rep stosw
        movw $0x2003, (0x1000)
        movw $0x3003, (0x2000)
        movw $0x0083, (0x3000)
        movl $0x1000, %eax
        movl %eax, %cr3
        movl $0x20, %eax           # PAE
        movl %eax, %cr4
        movl $0xc0000080, %ecx
        rdmsr
        orl $0x100, %eax           # LME
        wrmsr
        lgdt gdtr
        movl $0x80000001, %eax
        movl %eax, %cr0
        ljmp $8, $long_mode
    .code64
    long_mode:
        movw $16, %ax
        movw %ax, %ds
        movw %ax, %ss
        movq $0x7c00, %rsp
        # IDT at 0x6000: vector 32 -> tick
        movl $0x6200, %edi
        movl $tick, %eax
        movw %ax, (%rdi)
        movw $8, 2(%rdi)
        movw $0x8e00, 4(%rdi)
        shrl $16, %eax
        movw %ax, 6(%rdi)
        xorl %eax, %eax
        movq %rax, 8(%rdi)
        lidt idtr
        # PIC: vectors 32.., timer only
        movb $0x11, %al
        outb %al, $0x20
        movb $0x20, %al
        outb %al, $0x21
        movb $0x04, %al
        outb %al, $0x21
        movb $0x01, %al
        outb %al, $0x21
        movb $0xfe, %al
        outb %al, $0x21
        # PIT: channel 0, 1 kHz
        movb $0x34, %al
        outb %al, $0x43
        movb $0xa9, %al
        outb %al, $0x40
        movb $0x04, %al
        outb %al, $0x40
        xorl %ebx, %ebx
        # write to a page that is mapped later through a change of the page table, and flush
        movq $0x200083, %rax
        movq %rax, (0x3008)
        invlpg 0x200000
        movq $0x1234, %rcx
        movq %rcx, 0x200000
        sti
    wait:
        hlt
        cmpl $8, %ebx
        jb wait
        cmpq %rcx, 0x200000
        jne dead
        xorl %eax, %eax
        cpuid
        movl $word, %esi
    say:
        lodsb
        testb %al, %al
        jz end
        movw $0x3f8, %dx
        outb %al, %dx
        jmp say
    end:
        movw $0xf4, %dx
        outb %al, %dx
    dead:
        cli
        hlt
        jmp dead
    tick:
        incl %ebx
        pushq %rax
        movb $0x20, %al
        outb %al, $0x20
        popq %rax
        iretq
    word: .asciz "bothy64"
    .balign 8
    gdt: .quad 0, 0x00209a0000000000, 0x0000920000000000
    gdtr: .word 23
          .long gdt
    idtr: .word 0x20f
          .quad 0x6000
    .org 510
    .word 0xaa55
"""

from __future__ import annotations

_CODE = (
    "fa31c08ed88ec08ed0bc007cbf0010b90018fcf3abc70600100320c70600200330c7060030830066b8001000000f22d866b8200000000f22e066b980"
    "0000c00f32660d000100000f300f0116407d66b8010000800f22c0ea5c7c080066b810008ed88ed048c7c4007c0000bf00620000b8107d0000668907"
    "66c74702080066c74704008ec1e8106689470631c0488947080f011c25467d0000b011e620b020e621b004e621b001e621b0fee621b034e643b0a9e6"
    "40b004e64031db48c7c08300200048890425083000000f013c250000200048c7c13412000048890c2500002000fbf483fb0872fa48390c2500002000"
    "751a31c00fa2be1a7d0000ac84c0740766baf803eeebf466baf400eefaf4ebfcffc350b020e6205848cf626f746879363400660f1f44000000000000"
    "0000000000000000009a200000000000009200001700287d00000f020060"
)


def boot_sector() -> bytes:
    """The 512 bytes that a BIOS loads and runs."""
    return bytes.fromhex(_CODE).ljust(510, b"\0") + b"\x55\xaa"
