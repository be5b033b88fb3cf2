/* How much a function does in a cycle of the core. Include it first. */
#ifndef KERASBITS_CYCLES_H
#define KERASBITS_CYCLES_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 199309L
#endif
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(__x86_64__) || defined(__i386__)
#define ADD "add $1, %0\n\t"
#elif defined(__aarch64__) || defined(__arm__)
#define ADD "add %0, %0, #1\n\t"
#else
#error "no chain of additions for this processor"
#endif
#define ADD4 ADD ADD ADD ADD

/* `count` additions that wait for each other, 16 an iteration, so that the loop's own work hides
 * behind them: one takes one cycle on the processors we know. */
static inline uint64_t chained_additions(uint64_t count) {
  uintptr_t x = 0;
  for (uint64_t i = 0; i < count; i += 16) __asm__ volatile(ADD4 ADD4 ADD4 ADD4 : "+r"(x));
  return x;
}

static inline double now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Cycles a second. */
static inline double hertz(void) {
  const uint64_t count = 200000;
  const double start = now(CLOCK_MONOTONIC);
  chained_additions(count);
  return (double)count / (now(CLOCK_MONOTONIC) - start);
}

/* Does something and returns how much it was. */
typedef double (*work)(const void* context);

/* Work a cycle, of a burst that had the core for itself; of the last one if none did. */
static inline double work_per_cycle(work run, const void* context) {
  double found = 0, seconds, share = 0;
  for (int tries = 0; tries < 8 && share < 0.95; ++tries) {
    double done = 0;
    run(context);
    const double cpu = now(CLOCK_PROCESS_CPUTIME_ID), start = now(CLOCK_MONOTONIC);
    const double before = hertz(), begin = now(CLOCK_MONOTONIC);
    do {
      done += run(context);
      seconds = now(CLOCK_MONOTONIC) - begin;
    } while (seconds < 1e-3);
    const double cycles = hertz();
    share = (now(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (now(CLOCK_MONOTONIC) - start);
    found = done / seconds / (before > cycles ? before : cycles);
  }
  return found;
}

static inline int rising(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

enum { MOST_ROUNDS = 1000 };

/* Rounds that a program is asked for, between 1 and MOST_ROUNDS. */
static inline int rounds_of(int count, char** words) {
  const int rounds = count > 1 ? atoi(words[1]) : 50;
  return rounds < 1 ? 1 : rounds > MOST_ROUNDS ? MOST_ROUNDS : rounds;
}

/* A line of what was found in so many rounds: quartiles. */
static inline void print_quartiles(const char* isa, const char* name, double* found, int rounds) {
  qsort(found, (size_t)rounds, sizeof *found, rising);
  printf("%s\t%s\t%.3f\t%.3f\t%.3f\n", isa, name, found[rounds / 4], found[rounds / 2],
         found[3 * rounds / 4]);
}

#endif
