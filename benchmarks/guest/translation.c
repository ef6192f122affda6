/*
 * Translation throughput: N basic blocks of ordinary instruction forms that no one has executed before, each executed
 * once. Making them is not timed.
 *
 * rbx points to a scratch area; rsp is the caller's; all other registers but r15 are the blocks' own. Flags are consumed
 * only right behind an instruction that defines them, so the checksum is the same on every CPU.
 */
#include "tbench.h"

#include <string.h>
#include <sys/mman.h>

enum { SCRATCH = 4096 };

struct emitter {
    unsigned char *at;
    uint64_t state;
};

static unsigned pick(struct emitter *e, unsigned below)
{
    return (unsigned)(random64(&e->state) >> 33) % below;
}

static void byte(struct emitter *e, unsigned value)
{
    *e->at++ = (unsigned char)value;
}

static void word(struct emitter *e, uint32_t value)
{
    memcpy(e->at, &value, 4);
    e->at += 4;
}

/* Any register that blocks may write: not rbx (3), rsp (4), r15 (15). */
static unsigned any_register(struct emitter *e)
{
    static const unsigned char usable[] = {0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
    return usable[pick(e, sizeof usable)];
}

static void rex(struct emitter *e, unsigned wide, unsigned reg, unsigned base)
{
    unsigned value = 0x40 | wide << 3 | (reg >> 3) << 2 | base >> 3;
    if (value != 0x40)
        byte(e, value);
}

static void registers(struct emitter *e, unsigned reg, unsigned rm)
{
    byte(e, 0xC0 | (reg & 7) << 3 | (rm & 7));
}

/* [rbx + disp8 or disp32], inside the scratch area. */
static void memory(struct emitter *e, unsigned reg)
{
    if (pick(e, 2)) {
        byte(e, 0x43 | (reg & 7) << 3);
        byte(e, pick(e, 15) * 8);
    } else {
        byte(e, 0x83 | (reg & 7) << 3);
        word(e, pick(e, SCRATCH / 8) * 8);
    }
}

static void emit_instruction(struct emitter *e)
{
    unsigned one = any_register(e), two = any_register(e), wide = pick(e, 2), operation = pick(e, 8);
    if (operation == 2 || operation == 3)
        operation = 0; /* adc and sbb would read flags of unknown origin */
    switch (pick(e, 14)) {
    case 0: /* mov reg,reg */
        rex(e, wide, one, two), byte(e, 0x89), registers(e, one, two);
        break;
    case 1: /* add/or/and/sub/xor/cmp reg,reg */
    case 2:
        rex(e, wide, one, two), byte(e, operation << 3 | 1), registers(e, one, two);
        break;
    case 3: /* the same with imm8 */
        rex(e, wide, 0, two), byte(e, 0x83), registers(e, operation, two), byte(e, pick(e, 256));
        break;
    case 4: /* the same with imm32 */
        rex(e, wide, 0, two), byte(e, 0x81), registers(e, operation, two), word(e, (uint32_t)random64(&e->state));
        break;
    case 5: /* mov reg,[mem] */
    case 6:
        rex(e, wide, one, 3), byte(e, 0x8B), memory(e, one);
        break;
    case 7: /* mov [mem],reg */
        rex(e, wide, one, 3), byte(e, 0x89), memory(e, one);
        break;
    case 8: /* add/... reg,[mem] */
        rex(e, wide, one, 3), byte(e, operation << 3 | 3), memory(e, one);
        break;
    case 9: /* lea reg,[reg+disp8] */
        rex(e, 1, one, two), byte(e, 0x8D), byte(e, 0x40 | (one & 7) << 3 | (two & 7));
        if ((two & 7) == 4)
            byte(e, 0x24);
        byte(e, pick(e, 256));
        break;
    case 10: /* movzx or movsx reg,byte [mem] */
        rex(e, wide, one, 3), byte(e, 0x0F), byte(e, pick(e, 2) ? 0xB6 : 0xBE), memory(e, one);
        break;
    case 11: /* shl, shr or sar reg,imm8 */
        rex(e, wide, 0, two), byte(e, 0xC1), registers(e, (const unsigned[]){4, 5, 7}[pick(e, 3)], two);
        byte(e, 1 + pick(e, 30));
        break;
    case 12: /* imul reg,reg */
        rex(e, wide, one, two), byte(e, 0x0F), byte(e, 0xAF), registers(e, one, two);
        break;
    default: /* mov reg,imm32 */
        rex(e, 0, 0, two), byte(e, 0xB8 | (two & 7)), word(e, (uint32_t)random64(&e->state));
        break;
    }
}

/* A block of 3 to 7 instructions with its end: compare and conditional jump, jump over padding, or call and drop. */
static void emit_block(struct emitter *e)
{
    unsigned one, two, skip;
    for (unsigned count = 2 + pick(e, 5); count; count--)
        emit_instruction(e);
    one = any_register(e), two = any_register(e);
    switch (pick(e, 8)) {
    case 0: /* jmp rel8 */
        skip = pick(e, 8);
        byte(e, 0xEB), byte(e, skip);
        memset(e->at, 0xCC, skip);
        e->at += skip;
        break;
    case 1: /* call rel32 to the next block, which drops the return address */
        byte(e, 0xE8), word(e, 0);
        byte(e, 0x48), byte(e, 0x8D), byte(e, 0x64), byte(e, 0x24), byte(e, 8); /* lea rsp,[rsp+8] */
        break;
    default: /* cmp or test reg,reg; jcc over nothing or over one further instruction */
        rex(e, 1, one, two), byte(e, pick(e, 2) ? 0x39 : 0x85), registers(e, one, two);
        byte(e, 0x70 | (const unsigned[]){2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15}[pick(e, 12)]), byte(e, 0);
        break;
    }
}

/* void run(void *scratch): save what the ABI wants kept, the blocks, a digest of all registers into the scratch area. */
static uint64_t translation(long iterations)
{
    static uint64_t scratch[SCRATCH / 8 + 16];
    static const unsigned char head[] = {
        0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, /* push rbx, rbp, r12 to r15 */
        0x48, 0x89, 0xFB,                                           /* mov rbx,rdi */
        0x31, 0xC0, 0x31, 0xC9, 0x31, 0xD2, 0x31, 0xED, 0x31, 0xF6, 0x31, 0xFF, /* xor eax,eax ... edi */
        0x45, 0x31, 0xC0, 0x45, 0x31, 0xC9, 0x45, 0x31, 0xD2, 0x45, 0x31, 0xDB, /* r8d to r11d */
        0x45, 0x31, 0xE4, 0x45, 0x31, 0xED, 0x45, 0x31, 0xF6,                   /* r12d to r14d */
    };
    static const unsigned char tail[] = {
        0x48, 0x31, 0xC8, 0x48, 0x01, 0xD0, 0x48, 0x31, 0xE8, 0x48, 0x01, 0xF0, /* xor rax,rcx; add rdx; xor rbp; add rsi */
        0x48, 0x31, 0xF8, 0x4C, 0x01, 0xC0, 0x4C, 0x31, 0xC8, 0x4C, 0x01, 0xD0, /* xor rdi; add r8; xor r9; add r10 */
        0x4C, 0x31, 0xD8, 0x4C, 0x01, 0xE0, 0x4C, 0x31, 0xE8, 0x4C, 0x01, 0xF0, /* xor r11; add r12; xor r13; add r14 */
        0x41, 0x5F, 0x41, 0x5E, 0x41, 0x5D, 0x41, 0x5C, 0x5D, 0x5B, 0xC3,       /* pop ...; ret */
    };
    size_t size = sizeof head + sizeof tail + (size_t)iterations * 96;
    size = (size + 4095) & ~(size_t)4095;
    unsigned char *code = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check((long)code, "mmap");
    struct emitter emitter = {code, 43};
    memcpy(emitter.at, head, sizeof head);
    emitter.at += sizeof head;
    for (long n = 0; n < iterations; n++)
        emit_block(&emitter);
    memcpy(emitter.at, tail, sizeof tail);
    check(mprotect(code, size, PROT_READ | PROT_EXEC), "mprotect");
    timer_restart();
    uint64_t sum = ((uint64_t(*)(void *))code)(scratch);
    timer_stop();
    for (size_t i = 0; i < sizeof scratch / 8; i++)
        sum = mix(sum, scratch[i]);
    return sum;
}

const struct bench translation_benches[] = {
    {"never_seen_blocks", 100000, translation},
    {NULL, 0, NULL},
};
