/* System work: what the guest's kernel does for a program. */
#define _GNU_SOURCE
#include "tbench.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t getpid_calls(long iterations)
{
    long first = syscall(SYS_getpid);
    uint64_t same = 0;
    for (long n = 0; n < iterations; n++)
        same += syscall(SYS_getpid) == first;
    return same;
}

static uint64_t wait_ok(pid_t child)
{
    int status;
    check(waitpid(child, &status, 0), "waitpid");
    return status == 0;
}

static uint64_t fork_exit(long iterations)
{
    uint64_t done = 0;
    for (long n = 0; n < iterations; n++) {
        pid_t child = (pid_t)check(fork(), "fork");
        if (child == 0)
            _exit(0);
        done += wait_ok(child);
    }
    return done;
}

static uint64_t fork_exec(long iterations)
{
    char *const arguments[] = {"tbench", "--exit", NULL};
    uint64_t done = 0;
    for (long n = 0; n < iterations; n++) {
        pid_t child = (pid_t)check(fork(), "fork");
        if (child == 0) {
            execv("/proc/self/exe", arguments);
            _exit(127);
        }
        done += wait_ok(child);
    }
    return done;
}

static uint64_t pipe_transfer(long iterations)
{
    static char out[4096], in[4096];
    int ends[2];
    uint64_t sum = 0;
    check(pipe(ends), "pipe");
    for (long n = 0; n < iterations; n++) {
        out[n % 4096] = (char)n;
        check(write(ends[1], out, sizeof out), "write");
        check(read(ends[0], in, sizeof in), "read");
        sum += (unsigned char)in[n % 4096];
    }
    return sum;
}

static uint64_t page_faults(long iterations)
{
    enum { PAGES = 256 };
    uint64_t sum = 0;
    for (long n = 0; n < iterations; n++) {
        char *memory = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check((long)memory, "mmap");
        madvise(memory, PAGES * 4096, MADV_NOHUGEPAGE);
        for (int i = 0; i < PAGES; i++)
            memory[i * 4096] = (char)i;
        sum += (unsigned char)memory[(n % PAGES) * 4096];
        check(munmap(memory, PAGES * 4096), "munmap");
    }
    return sum;
}

static volatile sig_atomic_t handled;

static void on_signal(int number)
{
    (void)number;
    handled++;
}

static uint64_t signals(long iterations)
{
    struct sigaction action = {.sa_handler = on_signal};
    check(sigaction(SIGUSR1, &action, NULL), "sigaction");
    for (long n = 0; n < iterations; n++)
        raise(SIGUSR1);
    return (uint64_t)handled;
}

/* A byte to and fro between two processes: two context switches a round. */
static uint64_t context_switches(long iterations)
{
    int there[2], back[2];
    uint64_t sum = 0;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    sched_setaffinity(0, sizeof one, &one);
    check(pipe(there), "pipe");
    check(pipe(back), "pipe");
    pid_t child = (pid_t)check(fork(), "fork");
    if (child == 0) {
        unsigned char byte;
        close(there[1]);
        while (read(there[0], &byte, 1) == 1) {
            byte++;
            if (write(back[1], &byte, 1) != 1)
                _exit(1);
        }
        _exit(0);
    }
    close(there[0]);
    for (long n = 0; n < iterations; n++) {
        unsigned char byte = (unsigned char)n;
        check(write(there[1], &byte, 1), "write");
        check(read(back[0], &byte, 1), "read");
        sum += byte;
    }
    close(there[1]);
    return sum + wait_ok(child);
}

static uint64_t tmpfs_io(long iterations)
{
    static char block[8192], back[8192];
    char name[64];
    uint64_t sum = 0;
    snprintf(name, sizeof name, "/dev/shm/tbench-%d", (int)getpid());
    for (long n = 0; n < iterations; n++) {
        int file = (int)check(open(name, O_RDWR | O_CREAT | O_TRUNC, 0600), "open");
        block[n % 8192] = (char)n;
        for (int i = 0; i < 4; i++)
            check(write(file, block, sizeof block), "write");
        check(lseek(file, 8192, SEEK_SET), "lseek");
        check(read(file, back, sizeof back), "read");
        sum += (unsigned char)back[n % 8192];
        close(file);
        check(unlink(name), "unlink");
    }
    return sum;
}

static uint64_t stat_calls(long iterations)
{
    struct stat status;
    uint64_t sum = 0;
    for (long n = 0; n < iterations; n++) {
        check(stat("/proc/self/exe", &status), "stat");
        sum += S_ISREG(status.st_mode);
    }
    return sum;
}

const struct bench system_benches[] = {
    {"getpid", 1000000, getpid_calls},
    {"fork_exit", 500, fork_exit},
    {"fork_exec", 200, fork_exec},
    {"pipe", 25000, pipe_transfer},
    {"page_faults", 100, page_faults},
    {"signals", 20000, signals},
    {"context_switches", 8000, context_switches},
    {"tmpfs_io", 1500, tmpfs_io},
    {"stat", 30000, stat_calls},
    {NULL, 0, NULL},
};
