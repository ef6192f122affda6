/* The C library's memory and string functions, as Debian's glibc picks them by CPUID, over 16 KiB and over short runs. */
#include "tbench.h"

#include <string.h>

enum { SIZE = 16384 };

static char one[SIZE + 64] __attribute__((aligned(64))), two[SIZE + 64] __attribute__((aligned(64)));

/* Through pointers that the compiler cannot see into: no inline expansion, no folding. */
static void *(*volatile copy)(void *, const void *, size_t) = memcpy;
static void *(*volatile move)(void *, const void *, size_t) = memmove;
static void *(*volatile set)(void *, int, size_t) = memset;
static int (*volatile compare)(const void *, const void *, size_t) = memcmp;
static size_t (*volatile length)(const char *) = strlen;
static int (*volatile compare_text)(const char *, const char *) = strcmp;
static char *(*volatile copy_text)(char *, const char *) = strcpy;

static void fill(char last)
{
    memset(one, 'a', SIZE);
    one[SIZE - 1] = last;
    memcpy(two, one, SIZE);
    timer_restart();
}

static uint64_t bench_memcpy(long iterations)
{
    fill('z');
    for (long n = 0; n < iterations; n++)
        copy(two, one, SIZE - (size_t)(n & 63));
    return (uint64_t)two[SIZE - 1];
}

static uint64_t bench_memcpy_short(long iterations)
{
    fill('z');
    for (long n = 0; n < iterations; n++)
        copy(two + (n & 15), one + (n & 7), 8 + (size_t)(n & 63));
    return mix(mix(0, (uint64_t)two[3]), (uint64_t)two[40]);
}

static uint64_t bench_memmove(long iterations)
{
    fill('z');
    for (long n = 0; n < iterations; n++)
        move(one + (n & 1), one + (~n & 1), SIZE);
    return mix((uint64_t)one[0], (uint64_t)one[SIZE]);
}

static uint64_t bench_memset(long iterations)
{
    for (long n = 0; n < iterations; n++)
        set(one, (int)n & 0x7F, SIZE - (size_t)(n & 63));
    return mix((uint64_t)one[0], (uint64_t)one[SIZE - 1]);
}

static uint64_t bench_memcmp(long iterations)
{
    uint64_t sum = 0;
    fill('z');
    two[SIZE - 1] = 'y';
    for (long n = 0; n < iterations; n++)
        sum += compare(one, two, SIZE) > 0;
    return sum;
}

static uint64_t bench_memchr(long iterations)
{
    uint64_t sum = 0;
    fill('z');
    for (long n = 0; n < iterations; n++) {
        int wanted = 'z';
        OPAQUE(wanted);
        sum += (uint64_t)((char *)memchr(one + (n & 31), wanted, SIZE) - one);
    }
    return sum;
}

static uint64_t bench_strlen(long iterations)
{
    uint64_t sum = 0;
    fill(0);
    for (long n = 0; n < iterations; n++)
        sum += length(one + (n & 31));
    return sum;
}

static uint64_t bench_strlen_short(long iterations)
{
    uint64_t sum = 0;
    fill(0);
    for (long n = 0; n < iterations; n++)
        sum += length(one + SIZE - 2 - (n & 31));
    return sum;
}

static uint64_t bench_strcmp(long iterations)
{
    uint64_t sum = 0;
    fill(0);
    for (long n = 0; n < iterations; n++)
        sum += compare_text(one + (n & 15), two + (n & 15)) == 0;
    return sum;
}

static uint64_t bench_strchr(long iterations)
{
    uint64_t sum = 0;
    fill(0);
    one[SIZE - 2] = 'q';
    for (long n = 0; n < iterations; n++) {
        int wanted = 'q';
        OPAQUE(wanted);
        sum += (uint64_t)(strchr(one + (n & 31), wanted) - one);
    }
    return sum;
}

static uint64_t bench_strcpy(long iterations)
{
    uint64_t sum = 0;
    fill(0);
    for (long n = 0; n < iterations; n++)
        sum += (uint64_t)copy_text(two, one + (n & 31))[0];
    return sum;
}

const struct bench string_benches[] = {
    {"memcpy", 15000, bench_memcpy},
    {"memcpy_short", 8000000, bench_memcpy_short},
    {"memmove", 20000, bench_memmove},
    {"memset", 20000, bench_memset},
    {"memcmp", 40000, bench_memcmp},
    {"memchr", 60000, bench_memchr},
    {"strlen", 70000, bench_strlen},
    {"strlen_short", 15000000, bench_strlen_short},
    {"strcmp", 40000, bench_strcmp},
    {"strchr", 50000, bench_strchr},
    {"strcpy", 50000, bench_strcpy},
    {NULL, 0, NULL},
};
