/* Programs that write code: patched, generated, and mixed with data. */
#include "tbench.h"

#include <string.h>
#include <sys/mman.h>

typedef uint64_t (*function)(uint64_t);

static unsigned char *map_pages(size_t size, int protection)
{
    unsigned char *pages = mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check((long)pages, "mmap");
    return pages;
}

/* uint64_t f(uint64_t x) { return x * 3 + constant; }  as  lea rax,[rdi+rdi*2]; add rax,imm32; ret */
static size_t emit_function(unsigned char *at, uint32_t constant)
{
    static const unsigned char code[] = {0x48, 0x8D, 0x04, 0x7F, 0x48, 0x05, 0, 0, 0, 0, 0xC3};
    memcpy(at, code, sizeof code);
    memcpy(at + 6, &constant, 4);
    return sizeof code;
}

static uint64_t patched_code(long iterations)
{
    unsigned char *page = map_pages(4096, PROT_READ | PROT_WRITE | PROT_EXEC);
    uint64_t value = 1;
    emit_function(page, 0);
    for (long n = 0; n < iterations; n++) {
        uint32_t constant = (uint32_t)n & 0x7FFFFFFF;
        memcpy(page + 6, &constant, 4);
        BARRIER();
        value = ((function)page)(value);
    }
    return value;
}

/* A counter 2 KiB behind the function that changes it: mov rax,[rip+d]; add rax,rdi; mov [rip+d],rax; ret */
static uint64_t data_beside_code(long iterations)
{
    unsigned char *page = map_pages(4096, PROT_READ | PROT_WRITE | PROT_EXEC);
    static const unsigned char code[] = {
        0x48, 0x8B, 0x05, 0xF9, 0x07, 0x00, 0x00, /* 0: mov rax,[0x800] */
        0x48, 0x01, 0xF8,                         /* 7: add rax,rdi */
        0x48, 0x89, 0x05, 0xEF, 0x07, 0x00, 0x00, /* 10: mov [0x800],rax */
        0xC3,
    };
    uint64_t sum = 0;
    memcpy(page, code, sizeof code);
    for (long n = 0; n < iterations; n++)
        sum += ((function)page)((uint64_t)n);
    return sum;
}

/* A JIT that compiles a function of its own for each round, into a ring of slots, and calls it 16 times. */
static uint64_t jit(long iterations, int separate)
{
    enum { SIZE = 65536, SLOT = 64 };
    int writable = PROT_READ | PROT_WRITE, executable = PROT_READ | PROT_EXEC;
    unsigned char *pages = map_pages(SIZE, separate ? writable : writable | PROT_EXEC);
    uint64_t value = 1;
    size_t at = 0;
    for (long n = 0; n < iterations; n++) {
        if (separate)
            check(mprotect(pages, SIZE, writable), "mprotect");
        emit_function(pages + at, (uint32_t)n * 7 & 0x7FFFFFFF);
        if (separate)
            check(mprotect(pages, SIZE, executable), "mprotect");
        BARRIER();
        for (int i = 0; i < 16; i++)
            value = ((function)(pages + at))(value);
        at = (at + SLOT) % SIZE;
    }
    return value;
}

static uint64_t jit_rwx(long iterations)
{
    return jit(iterations, 0);
}

static uint64_t jit_wx(long iterations)
{
    return jit(iterations, 1);
}

const struct bench code_benches[] = {
    {"patched_code", 80000, patched_code},
    {"data_beside_code", 3000000, data_beside_code},
    {"jit_rwx", 40000, jit_rwx},
    {"jit_wx", 10000, jit_wx},
    {NULL, 0, NULL},
};
