/*
 * tbench NAME [N]         run one benchmark and print "NAME ITERATIONS CHECKSUM SECONDS"
 * tbench run NAME[:N],... run several, each in a process of its own; a group's name stands for its benchmarks,
 *                         `all` for everything
 * tbench list             print "GROUP NAME ITERATIONS" for all
 */
#include "tbench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct group groups[] = {
    {"integer", integer_benches}, {"string", string_benches}, {"float", float_benches},
    {"system", system_benches},   {"system", code_benches},   {"translation", translation_benches},
};
#define GROUPS (sizeof groups / sizeof *groups)

static double started, stopped;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

void timer_restart(void)
{
    started = now();
}

void timer_stop(void)
{
    stopped = now();
}

long check(long result, const char *what)
{
    if (result == -1) {
        fprintf(stderr, "tbench: %s: %s\n", what, strerror(errno));
        exit(1);
    }
    return result;
}

static int run_one(const struct bench *bench, long iterations)
{
    stopped = 0;
    timer_restart();
    uint64_t sum = bench->run(iterations);
    if (stopped == 0)
        timer_stop();
    printf("%s %ld %016llx %.6f\n", bench->name, iterations, (unsigned long long)sum, stopped - started);
    return fflush(stdout) == 0 ? 0 : 1;
}

static int run_in_child(const struct bench *bench, long iterations)
{
    int status;
    pid_t child = (pid_t)check(fork(), "fork");
    if (child == 0)
        exit(run_one(bench, iterations));
    check(waitpid(child, &status, 0), "waitpid");
    if (status != 0)
        printf("%s failed: status %#x\n", bench->name, status);
    return status != 0;
}

static int run_list(char *list)
{
    int failures = 0;
    for (char *word = strtok(list, ","); word; word = strtok(NULL, ",")) {
        char *colon = strchr(word, ':');
        int found = 0;
        if (colon)
            *colon = 0;
        for (size_t g = 0; g < GROUPS; g++)
            for (const struct bench *b = groups[g].benches; b->name; b++)
                if (!strcmp(word, b->name) || !strcmp(word, groups[g].name) || !strcmp(word, "all")) {
                    found = 1;
                    failures += run_in_child(b, colon ? atol(colon + 1) : b->iterations);
                }
        if (!found) {
            fprintf(stderr, "tbench: no benchmark %s\n", word);
            failures++;
        }
    }
    return failures != 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--exit"))
        return 0;
    if (argc == 2 && !strcmp(argv[1], "list")) {
        for (size_t g = 0; g < GROUPS; g++)
            for (const struct bench *b = groups[g].benches; b->name; b++)
                printf("%s %s %ld\n", groups[g].name, b->name, b->iterations);
        return 0;
    }
    if (argc == 3 && !strcmp(argv[1], "run"))
        return run_list(argv[2]);
    if (argc == 2 || argc == 3)
        for (size_t g = 0; g < GROUPS; g++)
            for (const struct bench *b = groups[g].benches; b->name; b++)
                if (!strcmp(argv[1], b->name))
                    return run_one(b, argc == 3 ? atol(argv[2]) : b->iterations);
    fprintf(stderr, "usage: tbench NAME [N] | run NAME[:N],... | list\n");
    return 2;
}
