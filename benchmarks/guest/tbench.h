/* The benchmark program's contract: a benchmark is one row of a group's table and one function. */
#ifndef TBENCH_H
#define TBENCH_H

#include <stddef.h>
#include <stdint.h>

struct bench {
    const char *name;
    long iterations;                /* default: 0.3 to 1 s under qemu-system-x86_64 -accel tcg on a 2026 server */
    uint64_t (*run)(long iterations); /* returns a checksum that depends on nothing but `iterations` */
};

struct group {
    const char *name;
    const struct bench *benches;    /* ends with a null name */
};

extern const struct bench integer_benches[], string_benches[], float_benches[], system_benches[],
    code_benches[], translation_benches[];

/* Leave set-up so far out of the time. */
void timer_restart(void);
/* Leave everything after this call out of the time. */
void timer_stop(void);

/* A failed system call ends the program with a message and status 1. */
long check(long result, const char *what);

/* xorshift64*: the same numbers everywhere. */
static inline uint64_t random64(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(2685821657736338717);
}

/* Mix a value into a checksum. */
static inline uint64_t mix(uint64_t sum, uint64_t value)
{
    sum = (sum ^ value) * UINT64_C(0x9E3779B97F4A7C15);
    return sum ^ sum >> 29;
}

/* Hide a value's origin from the compiler. */
#define OPAQUE(value) __asm__ volatile("" : "+r"(value))
/* Memory was or will be used in ways the compiler cannot see. */
#define BARRIER() __asm__ volatile("" ::: "memory")

#endif
