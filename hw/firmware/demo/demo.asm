# The demo guest: a small x86-64 kernel that checks the machine it runs on.
#
# Intel syntax for keystone (demo.py assembles it, and strips comments: keystone takes none at a line's end).
# It is entered
#   - by multiboot or PVH, in 32-bit protected mode without paging, at start32 (eax, ebx as the protocol says), or
#   - in long mode under an identity map of the first 4 GiB, at start64, with rbx = the command line or 0.
#
# Memory: code and data from 1 MiB, uninitialised data from BSS to BSS_END, ring-3 code and the pages of the paging
# checks from USER. Output and input on COM1. The words "exit", "poweroff" and "reboot" on the command line act right
# after the self-check; "exit" leaves through isa-debug-exit at port 0xf4 with 0x10 (all checks good) or 0x11.

image:
.set BSS, image+0x10000
.set PML4, BSS
.set PDPT, BSS+0x1000
.set PD0, BSS+0x2000
.set PD3, BSS+0x3000
.set PT_USER, BSS+0x4000
.set GATES, BSS+0x5000
.set TSS, BSS+0x6000
.set SCRATCH, BSS+0x7000
.set CODE_BUFFER, BSS+0x9000
.set STACK, BSS+0xe000
.set FAULT_STACK, BSS+0xf000
.set BSS_END, BSS+0xf000

.set USER, image+0x300000
.set USER_STACK, USER+0x2000
.set PAGE_READ_ONLY, USER+0x3000
.set PAGE_ABSENT, USER+0x4000
.set PAGE_NO_EXECUTE, USER+0x5000
.set PAGE_ALIAS, USER+0x6000
.set FRAME_A, USER+0x8000
.set FRAME_B, USER+0x9000
.set UNMAPPED, 0x40000000

.set COM1, 0x3f8
.set LAPIC, 0xfee00000
.set KERNEL_CS, 0x08
.set KERNEL_DS, 0x10
.set USER_DS, 0x23
.set USER_CS, 0x2b
.set TSS_SELECTOR, 0x30
.set MSR_EFER, 0xc0000080
.set MSR_STAR, 0xc0000081
.set MSR_LSTAR, 0xc0000082
.set MSR_SFMASK, 0xc0000084
.set MSR_FS_BASE, 0xc0000100
.set MSR_GS_BASE, 0xc0000101
.set MSR_KERNEL_GS_BASE, 0xc0000102
.set MULTIBOOT_FLAGS, 0x10003
.set BOOT_DIRECT, 1
.set BOOT_MULTIBOOT, 2
.set BOOT_PVH, 3

.long 0x1badb002, MULTIBOOT_FLAGS, -(0x1badb002+MULTIBOOT_FLAGS)
.long image, image, image_end, BSS_END, start32
# For demo.py, behind the multiboot header.
.long start64

# ---------------------------------------------------------------- 32-bit entry

.code32
start32:
    cli
    mov esp, STACK
    cmp eax, 0x2badb002
    mov eax, BOOT_MULTIBOOT
    je protocol_known
    mov eax, BOOT_PVH
protocol_known:
    mov [protocol], eax
    mov [boot_ebx], ebx
    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb no_long_mode
    mov eax, 0x80000001
    cpuid
    test edx, 0x20000000
    jz no_long_mode

    # A first map: 1 GiB in 2 MiB pages, just to get into long mode.
    cld
    xor eax, eax
    mov edi, PML4
    mov ecx, 0xc00
    rep stosd
    mov dword ptr [PML4], PDPT+3
    mov dword ptr [PDPT], PD0+3
    mov edi, PD0
    mov eax, 0x83
    mov ecx, 512
first_map:
    mov [edi], eax
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz first_map

    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, PML4
    mov cr3, eax
    mov ecx, MSR_EFER
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80010001
    mov cr0, eax
    mov eax, gdt_pointer
    lgdt [eax]
    push KERNEL_CS
    mov eax, long_mode_entry
    push eax
    retf

no_long_mode:
    mov esi, text_no_long_mode
no_long_mode_next:
    mov bl, [esi]
    test bl, bl
    jz no_long_mode_halt
    mov edx, COM1+5
no_long_mode_wait:
    in al, dx
    test al, 0x20
    jz no_long_mode_wait
    mov edx, COM1
    mov al, bl
    out dx, al
    inc esi
    jmp no_long_mode_next
no_long_mode_halt:
    hlt
    jmp no_long_mode_halt

# ---------------------------------------------------------------- 64-bit entry

.code64
start64:
    cli
    mov dword ptr [rip+protocol], BOOT_DIRECT
    mov [rip+boot_ebx], ebx
    mov esp, STACK
    mov eax, gdt_pointer
    lgdt [rax]
    push KERNEL_CS
    mov eax, long_mode_entry
    push rax
    retfq

long_mode_entry:
    mov eax, KERNEL_DS
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    mov esp, STACK
    cld
    call serial_init
    call find_command_line
    mov esi, text_banner
    call puts
    call paging_init
    call interrupts_init
    call syscall_init
    call float_init
    call timer_init
    sti
    call self_check
    mov [rip+failures], eax

    call say_verdict

    mov edi, word_exit
    call has_word
    jnz command_exit
    mov edi, word_poweroff
    call has_word
    jnz command_poweroff
    mov edi, word_reboot
    call has_word
    jnz command_reboot
    jmp prompt

# ---------------------------------------------------------------- set-up

# The final map: 0 to 1 GiB and the last GiB below 4 GiB in 2 MiB pages, supervisor only; 0x400000 to 0x5fffff in 4 KiB
# pages, where the checks make holes. Nothing from 1 to 3 GiB.
paging_init:
    # No execute-disable unless the processor has it.
    mov eax, 0x80000001
    cpuid
    shr edx, 20
    and edx, 1
    mov [rip+has_nx], edx
    jz paging_tables
    mov ecx, MSR_EFER
    rdmsr
    or eax, 0x800
    wrmsr
paging_tables:
    # The map in use may be the one in PML4: build one aside and switch through it.
    mov edi, USER+0x10000
    mov ebx, edi
    call build_tables
    mov cr3, rbx
    mov edi, PML4
    mov ebx, edi
    call build_tables
    mov cr3, rbx
    ret

# Tables at rdi: PML4, PDPT, PD0, PD3 and the page table of USER, in this order.
build_tables:
    mov r8, rdi
    xor eax, eax
    mov ecx, 0xa00
    rep stosq
    lea rax, [r8+0x1007]
    mov [r8], rax
    lea rax, [r8+0x2007]
    mov [r8+0x1000], rax
    lea rax, [r8+0x3003]
    mov [r8+0x1018], rax
    lea rdi, [r8+0x2000]
    mov eax, 0x83
    call fill_2m
    lea rdi, [r8+0x3000]
    mov eax, 0xc0000093
    call fill_2m
    lea rax, [r8+0x4007]
    mov [r8+0x2010], rax
    lea rdi, [r8+0x4000]
    mov eax, USER+3
    mov ecx, 512
fill_4k:
    mov [rdi], rax
    add rax, 0x1000
    add rdi, 8
    dec ecx
    jnz fill_4k
    # Ring-3 code and stack pages, and the pages with something wrong.
    or qword ptr [r8+0x4000], 4
    or qword ptr [r8+0x4008], 4
    and qword ptr [r8+0x4018], -3
    and qword ptr [r8+0x4020], -2
    cmp dword ptr [rip+has_nx], 0
    je no_nx_page
    bts qword ptr [r8+0x4028], 63
no_nx_page:
    mov rax, FRAME_A+3
    mov [r8+0x4030], rax
    ret

fill_2m:
    mov ecx, 512
fill_2m_next:
    mov [rdi], rax
    add rax, 0x200000
    add rdi, 8
    dec ecx
    jnz fill_2m_next
    ret

interrupts_init:
    # 64-bit interrupt gates for 72 vectors, 0x80 apart, and one that is not present.
    mov edi, GATES
    xor eax, eax
    mov ecx, 512
    rep stosq
    mov edi, GATES
    mov eax, stubs
    mov ecx, 72
gates_next:
    call write_gate
    add edi, 16
    add eax, 16
    dec ecx
    jnz gates_next
    mov edi, GATES+0x80*16
    mov eax, stub_system_call
    call write_gate
    mov byte ptr [rdi+5], 0xee
    mov edi, GATES+0x50*16
    call write_gate
    mov byte ptr [rdi+5], 0x0e
    # The double fault has its own stack.
    mov byte ptr [rip+GATES+8*16+4], 1
    mov eax, idt_pointer
    lidt [rax]

    mov edi, TSS
    xor eax, eax
    mov ecx, 26
    rep stosd
    mov edi, TSS
    mov eax, STACK
    mov [rdi+4], rax
    mov eax, FAULT_STACK
    mov [rdi+0x24], rax
    mov word ptr [rdi+0x66], 104
    mov edi, gdt+TSS_SELECTOR
    mov rax, 0x0000890000000067
    mov [rdi], rax
    mov eax, TSS
    mov [rdi+2], ax
    shr eax, 16
    mov [rdi+4], al
    mov [rdi+7], ah
    mov qword ptr [rdi+8], 0
    mov eax, TSS_SELECTOR
    ltr ax

    # The two 8259s at vectors 0x20 and 0x28; IRQ 0 (timer) and 4 (COM1) unmasked.
    mov al, 0x11
    out 0x20, al
    out 0xa0, al
    mov al, 0x20
    out 0x21, al
    mov al, 0x28
    out 0xa1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xa1, al
    mov al, 1
    out 0x21, al
    out 0xa1, al
    mov al, 0xee
    out 0x21, al
    mov al, 0xff
    out 0xa1, al
    # Local APIC on, LINT0 takes the 8259s' vectors (ExtINT).
    mov edi, LAPIC
    mov dword ptr [rdi+0xf0], 0x147
    mov dword ptr [rdi+0x350], 0x700
    ret

# A gate at rdi to the code at rax; keeps both.
write_gate:
    mov [rdi], ax
    mov word ptr [rdi+2], KERNEL_CS
    mov word ptr [rdi+4], 0x8e00
    mov edx, eax
    shr edx, 16
    mov [rdi+6], dx
    mov qword ptr [rdi+8], 0
    ret

syscall_init:
    mov ecx, MSR_EFER
    rdmsr
    or eax, 1
    wrmsr
    mov ecx, MSR_STAR
    xor eax, eax
    mov edx, 0x001b0008
    wrmsr
    mov ecx, MSR_LSTAR
    mov eax, system_call
    xor edx, edx
    wrmsr
    mov ecx, MSR_SFMASK
    mov eax, 0x700
    xor edx, edx
    wrmsr
    ret

float_init:
    mov rax, cr0
    and eax, 0xfffffffb
    or eax, 0x22
    mov cr0, rax
    mov rax, cr4
    or eax, 0x600
    mov cr4, rax
    fninit
    ret

timer_init:
    # 8254 channel 0, mode 2, 1193182 / 11932 = 100 Hz.
    mov al, 0x34
    out 0x43, al
    mov al, 0x9c
    out 0x40, al
    mov al, 0x2e
    out 0x40, al
    ret

serial_init:
    # 115200 baud, 8N1, FIFOs on, receive interrupt on.
    mov edx, COM1+3
    mov al, 0x80
    out dx, al
    mov edx, COM1
    mov al, 1
    out dx, al
    mov edx, COM1+1
    mov al, 0
    out dx, al
    mov edx, COM1+3
    mov al, 3
    out dx, al
    mov edx, COM1+2
    mov al, 7
    out dx, al
    mov edx, COM1+4
    mov al, 0x0b
    out dx, al
    mov edx, COM1+1
    mov al, 1
    out dx, al
    ret

# command_line = the string that the boot protocol gives, or an empty one.
find_command_line:
    mov eax, empty
    mov [rip+command_line], rax
    mov ebx, [rip+boot_ebx]
    test ebx, ebx
    jz command_line_done
    mov eax, [rip+protocol]
    cmp eax, BOOT_DIRECT
    je command_line_direct
    cmp eax, BOOT_MULTIBOOT
    je command_line_multiboot
    cmp dword ptr [rbx], 0x336ec578
    jne command_line_done
    mov rax, [rbx+24]
    jmp command_line_set
command_line_multiboot:
    test dword ptr [rbx], 4
    jz command_line_done
    mov eax, [rbx+16]
    jmp command_line_set
command_line_direct:
    mov eax, ebx
command_line_set:
    test rax, rax
    jz command_line_done
    mov [rip+command_line], rax
command_line_done:
    ret

# Whether the command line has the word at rdi between blanks: ZF clear if so.
has_word:
    mov rsi, [rip+command_line]
has_word_start:
    mov rdx, rdi
    mov rcx, rsi
has_word_next:
    mov al, [rdx]
    test al, al
    jz has_word_end
    cmp al, [rcx]
    jne has_word_skip
    inc rdx
    inc rcx
    jmp has_word_next
has_word_end:
    mov al, [rcx]
    cmp al, 0x20
    ja has_word_skip
    or al, 1
    ret
has_word_skip:
    mov al, [rsi]
    test al, al
    jz has_word_no
    inc rsi
    cmp al, 0x20
    jne has_word_skip
    jmp has_word_start
has_word_no:
    ret

# ---------------------------------------------------------------- output and input

# Character in al.
putc:
    push rdx
    push rax
    mov edx, COM1+5
putc_wait:
    in al, dx
    test al, 0x20
    jz putc_wait
    pop rax
    mov edx, COM1
    out dx, al
    pop rdx
    ret

# String at rsi; changes rsi and al.
puts:
    lodsb
    test al, al
    jz puts_done
    call putc
    jmp puts
puts_done:
    ret

newline:
    mov al, 13
    call putc
    mov al, 10
    jmp putc

# rax in decimal.
put_decimal:
    mov ecx, 10
    xor edi, edi
put_decimal_divide:
    xor edx, edx
    div rcx
    push rdx
    inc edi
    test rax, rax
    jnz put_decimal_divide
put_decimal_next:
    pop rax
    add al, 0x30
    call putc
    dec edi
    jnz put_decimal_next
    ret

# rax in hexadecimal, 16 digits.
put_hex:
    mov ecx, 16
put_hex_next:
    rol rax, 4
    push rax
    and al, 15
    cmp al, 10
    jb put_hex_digit
    add al, 0x27
put_hex_digit:
    add al, 0x30
    call putc
    pop rax
    dec ecx
    jnz put_hex_next
    ret

# Wait for a character from COM1 and return it in al. The interrupt handler fills the ring.
getc:
    cli
    movzx ecx, byte ptr [rip+ring_out]
    cmp cl, [rip+ring_in]
    jne getc_have
    sti
    hlt
    jmp getc
getc_have:
    sti
    mov edi, ring
    mov al, [rdi+rcx]
    inc cl
    and cl, 63
    mov [rip+ring_out], cl
    ret

# ---------------------------------------------------------------- interrupts and exceptions

# 16 bytes a vector. Vectors with an error code get none pushed.
.macro STUB vector, has_error
    .balign 16
    .if \has_error == 0
    push 0
    .endif
    push \vector
    jmp interrupt
.endm
.balign 16
stubs:
    STUB 0, 0
    STUB 1, 0
    STUB 2, 0
    STUB 3, 0
    STUB 4, 0
    STUB 5, 0
    STUB 6, 0
    STUB 7, 0
    STUB 8, 1
    STUB 9, 0
    STUB 10, 1
    STUB 11, 1
    STUB 12, 1
    STUB 13, 1
    STUB 14, 1
    STUB 15, 0
    STUB 16, 0
    STUB 17, 1
    STUB 18, 0
    STUB 19, 0
    STUB 20, 0
    STUB 21, 1
    .set VECTOR, 22
    .rept 50
    STUB VECTOR, 0
    .set VECTOR, VECTOR+1
    .endr
    .balign 16
stub_system_call:
    push 0
    push 0x7f
    jmp interrupt

.set SAVED, 15*8
interrupt:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rax, [rsp+SAVED]
    cmp eax, 32
    jb exception
    je timer_interrupt
    cmp eax, 36
    je serial_interrupt
    cmp eax, 0x40
    je local_timer_interrupt
    cmp eax, 0x7f
    je leave_user
    # Spurious ones (39, and the local APIC's 71) need no end-of-interrupt.
    inc dword ptr [rip+spurious]
    jmp interrupt_return

timer_interrupt:
    inc qword ptr [rip+ticks]
    mov al, 0x20
    out 0x20, al
    jmp interrupt_return

serial_interrupt:
    mov edx, COM1+2
    in al, dx
serial_next:
    mov edx, COM1+5
    in al, dx
    test al, 1
    jz serial_done
    mov edx, COM1
    in al, dx
    movzx ecx, byte ptr [rip+ring_in]
    mov edi, ring
    mov [rdi+rcx], al
    inc cl
    and cl, 63
    cmp cl, [rip+ring_out]
    je serial_next
    mov [rip+ring_in], cl
    jmp serial_next
serial_done:
    mov al, 0x20
    out 0x20, al
    jmp interrupt_return

local_timer_interrupt:
    inc dword ptr [rip+local_ticks]
    mov edi, LAPIC
    mov dword ptr [rdi+0xb0], 0
    jmp interrupt_return

# An exception: note it, and go on where the check in progress wants; without one, this is the end.
exception:
    mov [rip+fault_vector], rax
    mov rcx, [rsp+SAVED+8]
    mov [rip+fault_error], rcx
    mov rcx, [rsp+SAVED+16]
    mov [rip+fault_rip], rcx
    mov rcx, [rsp+SAVED+24]
    mov [rip+fault_cs], rcx
    mov rcx, cr2
    mov [rip+fault_cr2], rcx
    mov rcx, [rip+recover]
    test rcx, rcx
    jz panic
    mov [rsp+SAVED+16], rcx
    mov qword ptr [rip+recover], 0
interrupt_return:
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq

panic:
    mov esi, text_panic
    call puts
    mov rax, [rip+fault_vector]
    call put_decimal
    mov esi, text_error
    call puts
    mov rax, [rip+fault_error]
    call put_hex
    mov esi, text_at
    call puts
    mov rax, [rip+fault_rip]
    call put_hex
    mov esi, text_cr2
    call puts
    mov rax, [rip+fault_cr2]
    call put_hex
    call newline
    mov dword ptr [rip+failures], 1
    jmp command_exit

# int 0x80 from ring 3 ends run_user, which returns the user's rax.
leave_user:
    mov rcx, [rsp+SAVED+24]
    mov [rip+fault_cs], rcx
    mov rax, [rsp+14*8]
    mov rsp, [rip+kernel_rsp]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    sti
    ret

# Enter ring 3 at rdi.
run_user:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [rip+kernel_rsp], rsp
    # Interrupts from ring 3 use the stack below this frame.
    mov ecx, TSS
    mov [rcx+4], rsp
    push USER_DS
    mov eax, USER_STACK
    push rax
    push 0x202
    push USER_CS
    push rdi
    iretq

# SYSCALL: returns 3 * rdi + 1, with the user's rflags as SFMASK left them in r11 and the kernel's in rdx.
system_call:
    mov [rip+user_rsp], rsp
    mov rsp, [rip+kernel_rsp]
    pushfq
    pop rdx
    lea rax, [rdi+rdi*2+1]
    inc dword ptr [rip+system_calls]
    mov rsp, [rip+user_rsp]
    sysret

# ---------------------------------------------------------------- the self-check

# Runs every row of `checks`; returns the number of failures in eax.
self_check:
    mov ebx, checks
    xor ebp, ebp
self_check_next:
    mov rsi, [rbx]
    test rsi, rsi
    jz self_check_done
    call puts
    push rbx
    push rbp
    call qword ptr [rbx+8]
    pop rbp
    pop rbx
    mov rdi, rax
    mov esi, text_check_ok
    test rax, rax
    jz self_check_say
    inc ebp
    mov esi, text_check_failed
    call puts
    mov rax, rdi
    call put_decimal
    call newline
    jmp self_check_step
self_check_say:
    call puts
self_check_step:
    add rbx, 16
    jmp self_check_next
self_check_done:
    mov eax, ebp
    ret

# Each check returns 0, or the number of the step that went wrong. They may change all registers but rsp.
.macro STEP number
    mov r15d, \number
.endm
.macro FAIL_IF condition
    j\condition check_failed
.endm
# Go on at `where` after the next exception.
.macro EXPECT where
    mov qword ptr [rip+fault_vector], -1
    mov eax, \where
    mov [rip+recover], rax
.endm
.macro FAULTED vector, error
    cmp qword ptr [rip+fault_vector], \vector
    jne check_failed
    cmp qword ptr [rip+fault_error], \error
    jne check_failed
.endm
check_failed:
    mov qword ptr [rip+recover], 0
    mov eax, r15d
    ret
check_good:
    xor eax, eax
    ret

check_arithmetic:
    STEP 1
    mov rax, 0xfedcba9876543210
    mov rcx, 0x0123456789abcdef
    mul rcx
    mov rbx, 0x2236d88fe5618cf0
    cmp rax, rbx
    FAIL_IF ne
    mov rbx, 0x0121fa00ad77d742
    cmp rdx, rbx
    FAIL_IF ne
    STEP 2
    div rcx
    mov rbx, 0xfedcba9876543210
    cmp rax, rbx
    FAIL_IF ne
    test rdx, rdx
    FAIL_IF ne
    STEP 3
    mov eax, -7
    cdq
    mov ecx, 2
    idiv ecx
    cmp eax, -3
    FAIL_IF ne
    cmp edx, -1
    FAIL_IF ne
    STEP 4
    mov rax, -1
    mov rbx, 1
    add rax, 1
    adc rbx, 5
    cmp rbx, 7
    FAIL_IF ne
    STEP 5
    mov rax, 0x8000000000000001
    mov rbx, rax
    rol rax, 4
    cmp rax, 0x18
    FAIL_IF ne
    sar rbx, 62
    cmp rbx, -2
    FAIL_IF ne
    STEP 6
    mov rax, 0x1122334455667788
    bswap rax
    mov rbx, 0x8877665544332211
    cmp rax, rbx
    FAIL_IF ne
    mov eax, 0xffffffff
    movsxd rax, eax
    cmp rax, -1
    FAIL_IF ne
    STEP 7
    mov ebx, 0x50000
    bsf eax, ebx
    cmp eax, 16
    FAIL_IF ne
    bsr eax, ebx
    cmp eax, 18
    FAIL_IF ne
    STEP 8
    # A 32-bit result clears the upper half; an 8-bit one does not.
    mov rax, -1
    mov eax, eax
    shr rax, 32
    FAIL_IF ne
    mov rax, -1
    mov al, 0
    inc rax
    neg rax
    cmp rax, 0xff
    FAIL_IF ne
    jmp check_good

check_flags:
    STEP 1
    # 0x7f + 1: OF SF AF
    mov al, 0x7f
    add al, 1
    pushfq
    pop rbx
    and ebx, 0x8d5
    cmp ebx, 0x890
    FAIL_IF ne
    STEP 2
    # 0xff + 1: ZF AF PF CF
    mov al, 0xff
    add al, 1
    pushfq
    pop rbx
    and ebx, 0x8d5
    cmp ebx, 0x055
    FAIL_IF ne
    STEP 3
    # 0 - 1: SF AF PF CF
    xor eax, eax
    sub eax, 1
    pushfq
    pop rbx
    and ebx, 0x8d5
    cmp ebx, 0x095
    FAIL_IF ne
    STEP 4
    # inc keeps CF
    stc
    mov eax, 0x7fffffff
    inc eax
    pushfq
    pop rbx
    and ebx, 0x8d5
    cmp ebx, 0x895
    FAIL_IF ne
    STEP 5
    # imul overflow sets CF and OF
    mov eax, 0x10000
    imul eax, eax
    FAIL_IF nc
    FAIL_IF no
    STEP 6
    # a shift by a count of 0 keeps the flags
    stc
    mov cl, 0
    shl eax, cl
    FAIL_IF nc
    STEP 7
    mov ah, 0xd5
    sahf
    lahf
    cmp ah, 0xd7
    FAIL_IF ne
    STEP 8
    mov ecx, 5
    cmp ecx, 7
    setl al
    setb ah
    cmp ax, 0x0101
    FAIL_IF ne
    cmovg ecx, eax
    cmp ecx, 5
    FAIL_IF ne
    jmp check_good

check_strings:
    STEP 1
    mov edi, SCRATCH
    mov ecx, 4096
    mov al, 0x5a
    rep stosb
    cmp edi, SCRATCH+4096
    FAIL_IF ne
    test rcx, rcx
    FAIL_IF ne
    STEP 2
    mov byte ptr [rip+SCRATCH+1000], 0x11
    mov esi, SCRATCH
    mov edi, SCRATCH+0x1003
    mov ecx, 4000
    rep movsb
    cmp byte ptr [rip+SCRATCH+0x1003+1000], 0x11
    FAIL_IF ne
    STEP 3
    mov esi, SCRATCH
    mov edi, SCRATCH+0x1003
    mov ecx, 4000
    repe cmpsb
    FAIL_IF ne
    mov edi, SCRATCH
    mov al, 0x11
    mov ecx, 4096
    repne scasb
    FAIL_IF ne
    cmp edi, SCRATCH+1001
    FAIL_IF ne
    STEP 4
    # Overlapping, upwards: the first byte spreads.
    mov byte ptr [rip+SCRATCH], 0x77
    mov esi, SCRATCH
    mov edi, SCRATCH+1
    mov ecx, 2000
    rep movsb
    cmp byte ptr [rip+SCRATCH+2000], 0x77
    FAIL_IF ne
    STEP 5
    # Downwards.
    mov rax, 0x0102030405060708
    mov [rip+SCRATCH], rax
    std
    mov esi, SCRATCH+7
    mov edi, SCRATCH+8
    mov ecx, 8
    rep movsb
    cld
    mov rax, [rip+SCRATCH]
    mov rbx, 0x0203040506070808
    cmp rax, rbx
    FAIL_IF ne
    STEP 6
    mov edi, SCRATCH
    mov rax, 0x123456789abcdef0
    mov ecx, 64
    rep stosq
    mov esi, SCRATCH
    xor edx, edx
    mov ecx, 64
strings_sum:
    lodsq
    add rdx, rax
    loop strings_sum
    mov rax, 0x123456789abcdef0
    shl rax, 6
    cmp rax, rdx
    FAIL_IF ne
    jmp check_good

check_floating_point:
    STEP 1
    fninit
    fld1
    fld1
    faddp st(1), st(0)
    fldpi
    fmulp st(1), st(0)
    sub rsp, 16
    fistp qword ptr [rsp]
    mov rax, [rsp]
    add rsp, 16
    cmp rax, 6
    FAIL_IF ne
    STEP 2
    mov eax, 3
    cvtsi2sd xmm0, rax
    mov eax, 8
    cvtsi2sd xmm1, rax
    divsd xmm0, xmm1
    movq rax, xmm0
    mov rbx, 0x3fd8000000000000
    cmp rax, rbx
    FAIL_IF ne
    STEP 3
    sqrtsd xmm1, xmm1
    movq rax, xmm1
    mov rbx, 0x4006a09e667f3bcd
    cmp rax, rbx
    FAIL_IF ne
    STEP 4
    mov rax, 0x0000000100000002
    movq xmm2, rax
    mov rax, 0x7fffffff00000003
    movq xmm3, rax
    paddd xmm2, xmm3
    movq rax, xmm2
    mov rbx, 0x8000000000000005
    cmp rax, rbx
    FAIL_IF ne
    STEP 5
    xorps xmm4, xmm4
    divsd xmm0, xmm4
    movq rax, xmm0
    mov rbx, 0x7ff0000000000000
    cmp rax, rbx
    FAIL_IF ne
    jmp check_good

check_atomics:
    STEP 1
    mov edi, SCRATCH
    mov qword ptr [rdi], 5
    mov eax, 5
    mov ecx, 9
    lock cmpxchg [rdi], rcx
    FAIL_IF ne
    lock cmpxchg [rdi], rcx
    FAIL_IF e
    cmp rax, 9
    FAIL_IF ne
    STEP 2
    mov eax, 3
    lock xadd [rdi], rax
    cmp rax, 9
    FAIL_IF ne
    cmp qword ptr [rdi], 12
    FAIL_IF ne
    STEP 3
    mov eax, 1
    xchg [rdi], rax
    cmp rax, 12
    FAIL_IF ne
    lock bts qword ptr [rdi], 40
    FAIL_IF c
    lock btr qword ptr [rdi], 40
    FAIL_IF nc
    STEP 4
    mov qword ptr [rdi+8], 7
    mov eax, 1
    mov edx, 7
    mov ebx, 2
    mov ecx, 8
    lock cmpxchg16b [rdi]
    FAIL_IF ne
    cmp qword ptr [rdi+8], 8
    FAIL_IF ne
    jmp check_good

check_exceptions:
    STEP 1
    EXPECT divide_done
    xor ecx, ecx
    mov eax, 1
    xor edx, edx
divide_here:
    div ecx
divide_done:
    FAULTED 0, 0
    mov eax, divide_here
    cmp [rip+fault_rip], rax
    FAIL_IF ne
    STEP 2
    EXPECT undefined_done
    ud2
undefined_done:
    FAULTED 6, 0
    STEP 3
    # A trap: rip is behind the instruction.
    EXPECT breakpoint_done
    int3
breakpoint_here:
    nop
breakpoint_done:
    FAULTED 3, 0
    mov eax, breakpoint_here
    cmp [rip+fault_rip], rax
    FAIL_IF ne
    STEP 4
    # A non-canonical address.
    EXPECT canonical_done
    mov rax, 0x8000000000000000
    mov rbx, [rax]
canonical_done:
    FAULTED 13, 0
    STEP 5
    # A selector beyond the GDT: the error code is the selector.
    EXPECT selector_done
    mov eax, 0xff8
    mov es, eax
selector_done:
    FAULTED 13, 0xff8
    STEP 6
    # A gate that is not present. The error code should be index * 8 + 2; QEMU 7.2 says index * 16 + 2, so it is not
    # looked at.
    EXPECT gate_done
    int 0x50
gate_done:
    cmp qword ptr [rip+fault_vector], 11
    FAIL_IF ne
    STEP 7
    # A gate of no type.
    EXPECT no_gate_done
    int 0x51
no_gate_done:
    cmp qword ptr [rip+fault_vector], 13
    FAIL_IF ne
    jmp check_good

check_page_faults:
    STEP 1
    EXPECT read_done
    mov eax, UNMAPPED+0x123
    mov rbx, [rax]
read_done:
    FAULTED 14, 0
    cmp qword ptr [rip+fault_cr2], UNMAPPED+0x123
    FAIL_IF ne
    STEP 2
    EXPECT write_done
    mov eax, PAGE_ABSENT+8
    mov [rax], rbx
write_done:
    FAULTED 14, 2
    cmp qword ptr [rip+fault_cr2], PAGE_ABSENT+8
    FAIL_IF ne
    STEP 3
    mov rbx, [rip+PAGE_READ_ONLY]
    EXPECT protected_done
    mov eax, PAGE_READ_ONLY+16
    or qword ptr [rax], 1
protected_done:
    FAULTED 14, 3
    cmp qword ptr [rip+fault_cr2], PAGE_READ_ONLY+16
    FAIL_IF ne
    STEP 4
    # Across the border into the absent page: the first byte that is missing.
    EXPECT crossing_done
    mov eax, PAGE_ABSENT-3
    mov rbx, [rax]
crossing_done:
    FAULTED 14, 0
    cmp qword ptr [rip+fault_cr2], PAGE_ABSENT
    FAIL_IF ne
    STEP 5
    # rep movsb up to the border: registers tell how far it came.
    EXPECT repeat_done
    mov esi, SCRATCH
    mov edi, PAGE_NO_EXECUTE-0x1000-32
    or qword ptr [rip+PT_USER+0x18], 2
    invlpg [rdi]
    mov ecx, 100
    rep movsb
repeat_done:
    and qword ptr [rip+PT_USER+0x18], -3
    mov eax, PAGE_READ_ONLY
    invlpg [rax]
    FAULTED 14, 2
    cmp ecx, 68
    FAIL_IF ne
    cmp edi, PAGE_ABSENT
    FAIL_IF ne
    STEP 6
    cmp dword ptr [rip+has_nx], 0
    je execute_skip
    mov byte ptr [rip+PAGE_NO_EXECUTE], 0xc3
    EXPECT execute_done
    mov r14, rsp
    mov eax, PAGE_NO_EXECUTE
    call rax
execute_done:
    mov rsp, r14
    FAULTED 14, 0x11
    cmp qword ptr [rip+fault_cr2], PAGE_NO_EXECUTE
    FAIL_IF ne
execute_skip:
    STEP 7
    # The page table now lets a second address see another frame; accessed and dirty bits follow.
    mov qword ptr [rip+FRAME_A], 0x111
    mov qword ptr [rip+FRAME_B], 0x222
    cmp qword ptr [rip+PAGE_ALIAS], 0x111
    FAIL_IF ne
    mov qword ptr [rip+PT_USER+0x30], FRAME_B+3
    mov eax, PAGE_ALIAS
    invlpg [rax]
    cmp qword ptr [rax], 0x222
    FAIL_IF ne
    mov rbx, [rip+PT_USER+0x30]
    and ebx, 0x60
    cmp ebx, 0x20
    FAIL_IF ne
    mov qword ptr [rax], 0x333
    mov rbx, [rip+PT_USER+0x30]
    and ebx, 0x60
    cmp ebx, 0x60
    FAIL_IF ne
    cmp qword ptr [rip+FRAME_B], 0x333
    FAIL_IF ne
    jmp check_good

check_segments:
    STEP 1
    mov ecx, MSR_FS_BASE
    mov eax, SCRATCH
    xor edx, edx
    wrmsr
    mov qword ptr [rip+SCRATCH+0x10], 0x5150
    mov ebx, 0x10
    mov rax, fs:[rbx]
    cmp rax, 0x5150
    FAIL_IF ne
    STEP 2
    mov ecx, MSR_GS_BASE
    mov eax, SCRATCH+0x100
    wrmsr
    mov ecx, MSR_KERNEL_GS_BASE
    mov eax, SCRATCH+0x200
    wrmsr
    mov qword ptr [rip+SCRATCH+0x110], 1
    mov qword ptr [rip+SCRATCH+0x210], 2
    cmp qword ptr gs:[rbx], 1
    FAIL_IF ne
    swapgs
    cmp qword ptr gs:[rbx], 2
    FAIL_IF ne
    swapgs
    cmp qword ptr gs:[rbx], 1
    FAIL_IF ne
    jmp check_good

check_ring_3:
    # The page of ring-3 code.
    mov esi, user_code
    mov edi, USER
    mov ecx, user_code_end-user_code
    rep movsb
    STEP 1
    mov dword ptr [rip+system_calls], 0
    mov edi, USER
    call run_user
    cmp rax, 0x600d
    FAIL_IF ne
    cmp dword ptr [rip+system_calls], 100
    FAIL_IF ne
    mov rax, [rip+fault_cs]
    cmp rax, USER_CS
    FAIL_IF ne
    STEP 2
    # Kernel memory is not readable there: present, user, read.
    EXPECT user_fault-user_code+USER
    mov edi, user_read-user_code+USER
    call run_user
    cmp rax, 0xbad
    FAIL_IF e
    FAULTED 14, 5
    cmp qword ptr [rip+fault_cr2], image
    FAIL_IF ne
    STEP 3
    EXPECT user_fault-user_code+USER
    mov edi, user_halt-user_code+USER
    call run_user
    cmp rax, 0xbad
    FAIL_IF e
    FAULTED 13, 0
    cmp qword ptr [rip+fault_cs], USER_CS
    FAIL_IF ne
    jmp check_good

# Copied to USER; must not refer to anything outside.
user_code:
    xor r12d, r12d
    mov r13d, 100
user_next:
    mov rdi, r12
    stc
    syscall
    jnc user_wrong
    lea rbx, [r12+r12*2+1]
    cmp rax, rbx
    jne user_wrong
    # SFMASK took IF away for the kernel; here it is on again.
    test edx, 0x200
    jnz user_wrong
    pushfq
    pop rax
    test eax, 0x200
    jz user_wrong
    mov eax, cs
    cmp eax, USER_CS
    jne user_wrong
    mov eax, ss
    cmp eax, USER_DS
    jne user_wrong
    add r12, 12345
    dec r13d
    jnz user_next
    mov eax, 0x600d
    int 0x80
user_wrong:
    mov eax, 0xbad
    int 0x80
user_read:
    mov ebx, image
    mov rax, [rbx]
    jmp user_wrong
user_halt:
    hlt
    jmp user_wrong
user_fault:
    mov eax, 0x600d
    int 0x80
user_code_end:

check_self_modifying:
    STEP 1
    # The very next instruction.
    mov byte ptr [rip+patch_next+1], 42
patch_next:
    mov al, 0
    cmp al, 42
    FAIL_IF ne
    mov byte ptr [rip+patch_next+1], 0
    STEP 2
    # A loop that counts in its own immediate.
    mov ecx, 100
    xor eax, eax
    mov dword ptr [rip+patch_loop+1], 0
patch_loop:
    add eax, 0x11111111
    inc dword ptr [rip+patch_loop+1]
    dec ecx
    jnz patch_loop
    cmp eax, 4950
    FAIL_IF ne
    STEP 3
    # Code written to a buffer, run, rewritten: mov eax, n; ret.
    mov edi, CODE_BUFFER
    mov byte ptr [rdi], 0xb8
    mov byte ptr [rdi+5], 0xc3
    xor ebx, ebx
    mov ecx, 1000
rewrite_next:
    mov [rdi+1], ecx
    call rdi
    add ebx, eax
    dec ecx
    jnz rewrite_next
    cmp ebx, 500500
    FAIL_IF ne
    STEP 4
    # Code that is written at one address and run at another one of the same frame.
    mov qword ptr [rip+PT_USER+0x30], FRAME_A+3
    mov eax, PAGE_ALIAS
    invlpg [rax]
    mov edi, FRAME_A
    mov dword ptr [rdi], 0x000001b8
    mov word ptr [rdi+4], 0xc300
    call rax
    cmp eax, 1
    FAIL_IF ne
    mov byte ptr [rdi+1], 2
    mov eax, PAGE_ALIAS
    call rax
    cmp eax, 2
    FAIL_IF ne
    jmp check_good

check_timers:
    STEP 1
    # Three ticks of the 8254.
    mov rbx, [rip+ticks]
    add rbx, 3
timer_wait:
    hlt
    cmp [rip+ticks], rbx
    jb timer_wait
    STEP 2
    # One shot of the local APIC's timer, at vector 0x40, within 200 ticks.
    mov dword ptr [rip+local_ticks], 0
    mov edi, LAPIC
    mov dword ptr [rdi+0x3e0], 0x0b
    mov dword ptr [rdi+0x320], 0x40
    mov dword ptr [rdi+0x380], 0x10000
    mov rbx, [rip+ticks]
    add rbx, 200
local_timer_wait:
    hlt
    cmp dword ptr [rip+local_ticks], 1
    je local_timer_came
    cmp [rip+ticks], rbx
    jb local_timer_wait
    jmp check_failed
local_timer_came:
    mov dword ptr [rdi+0x320], 0x10000
    STEP 3
    # An interrupt ends a loop that has no other way out.
    mov rbx, [rip+ticks]
spin:
    cmp [rip+ticks], rbx
    je spin
    STEP 4
    # The time stamp counter moves on.
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov rbx, rax
    hlt
    rdtsc
    shl rdx, 32
    or rax, rdx
    cmp rax, rbx
    FAIL_IF be
    jmp check_good

# ---------------------------------------------------------------- the prompt

prompt:
    mov esi, text_prompt
    call puts
    xor ebx, ebx
prompt_next:
    call getc
    cmp al, 13
    je prompt_enter
    cmp al, 10
    je prompt_enter
    cmp al, 8
    je prompt_erase
    cmp al, 0x7f
    je prompt_erase
    cmp al, 0x20
    jb prompt_next
    cmp ebx, 60
    jae prompt_next
    mov edi, line
    mov [rdi+rbx], al
    inc ebx
    call putc
    jmp prompt_next
prompt_erase:
    test ebx, ebx
    jz prompt_next
    dec ebx
    mov esi, text_erase
    call puts
    jmp prompt_next
prompt_enter:
    call newline
    mov edi, line
    mov byte ptr [rdi+rbx], 0
    test ebx, ebx
    jz prompt
    mov ebp, commands
prompt_command:
    mov rsi, [rbp]
    test rsi, rsi
    jz prompt_unknown
    mov edi, line
prompt_compare:
    lodsb
    cmp al, [rdi]
    jne prompt_skip
    inc rdi
    test al, al
    jnz prompt_compare
    call qword ptr [rbp+8]
    jmp prompt
prompt_skip:
    add rbp, 16
    jmp prompt_command
prompt_unknown:
    mov esi, line
    call puts
    mov esi, text_unknown
    call puts
    jmp prompt

command_help:
    mov esi, text_help
    jmp puts

command_ticks:
    mov rax, [rip+ticks]
    call put_decimal
    jmp newline

command_check:
    call self_check
    mov [rip+failures], eax
say_verdict:
    mov esi, text_self_check
    call puts
    mov esi, text_ok
    cmp dword ptr [rip+failures], 0
    je verdict
    mov esi, text_failed
verdict:
    call puts
    jmp newline

command_exit:
    mov eax, [rip+failures]
    cmp eax, 1
    sbb eax, eax
    add eax, 0x11
    out 0xf4, al
    # Still here: there is no isa-debug-exit.
command_poweroff:
    # PM1a control: SLP_EN with the sleep type of S5, 0.
    mov edx, 0x604
    mov eax, 0x2000
    out dx, ax
    jmp command_halt

command_reboot:
    mov edx, 0xcf9
    mov al, 2
    out dx, al
    mov al, 6
    out dx, al
    jmp command_halt

command_halt:
    cli
    hlt
    jmp command_halt

command_crash:
    # No gates, then an exception: the processor shuts down.
    mov eax, no_gates
    lidt [rax]
    ud2

# ---------------------------------------------------------------- data

.balign 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00cffb000000ffff
    .quad 0x00cff3000000ffff
    .quad 0x00affb000000ffff
    .quad 0
    .quad 0
gdt_end:
gdt_pointer:
    .word gdt_end-gdt-1
    .quad gdt
idt_pointer:
    .word 4095
    .quad GATES
no_gates:
    .word 0
    .quad 0

.balign 8
checks:
    .quad name_arithmetic, check_arithmetic
    .quad name_flags, check_flags
    .quad name_strings, check_strings
    .quad name_floating_point, check_floating_point
    .quad name_atomics, check_atomics
    .quad name_exceptions, check_exceptions
    .quad name_page_faults, check_page_faults
    .quad name_segments, check_segments
    .quad name_ring_3, check_ring_3
    .quad name_self_modifying, check_self_modifying
    .quad name_timers, check_timers
    .quad 0
commands:
    .quad word_help, command_help
    .quad word_ticks, command_ticks
    .quad word_check, command_check
    .quad word_exit, command_exit
    .quad word_poweroff, command_poweroff
    .quad word_reboot, command_reboot
    .quad word_crash, command_crash
    .quad word_halt, command_halt
    .quad 0

command_line: .quad 0
ticks: .quad 0
recover: .quad 0
fault_vector: .quad 0
fault_error: .quad 0
fault_rip: .quad 0
fault_cs: .quad 0
fault_cr2: .quad 0
kernel_rsp: .quad 0
user_rsp: .quad 0
protocol: .long 0
boot_ebx: .long 0
has_nx: .long 0
failures: .long 0
local_ticks: .long 0
spurious: .long 0
system_calls: .long 0
ring_in: .byte 0
ring_out: .byte 0
ring: .space 64
line: .space 64

empty: .byte 0
name_arithmetic: .asciz "  arithmetic"
name_flags: .asciz "  flags"
name_strings: .asciz "  strings"
name_floating_point: .asciz "  floating point"
name_atomics: .asciz "  atomics"
name_exceptions: .asciz "  exceptions"
name_page_faults: .asciz "  page faults"
name_segments: .asciz "  segments"
name_ring_3: .asciz "  ring 3"
name_self_modifying: .asciz "  self-modifying code"
name_timers: .asciz "  timers"
word_help: .asciz "help"
word_ticks: .asciz "ticks"
word_check: .asciz "check"
word_exit: .asciz "exit"
word_poweroff: .asciz "poweroff"
word_reboot: .asciz "reboot"
word_crash: .asciz "crash"
word_halt: .asciz "halt"
text_banner: .asciz "\r\nTessera demo guest: x86-64 long mode\r\n"
text_no_long_mode: .asciz "\r\nTessera demo guest: this processor has no long mode\r\n"
text_self_check: .asciz "self-check: "
text_ok: .asciz "OK"
text_failed: .asciz "FAILED"
text_check_ok: .asciz ": ok\r\n"
text_check_failed: .asciz ": FAILED at step "
text_prompt: .asciz "demo> "
text_erase: .byte 8, 32, 8, 0
text_unknown: .asciz ": not a command; try help\r\n"
text_help: .asciz "help ticks check exit poweroff reboot crash halt\r\n"
text_panic: .asciz "\r\npanic: exception "
text_error: .asciz " error "
text_at: .asciz " at "
text_cr2: .asciz " cr2 "
.balign 16
image_end:
