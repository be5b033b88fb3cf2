/* Every item of a job runs once, on a worker of its own, whoever calls and however often. Also built
 * with the thread sanitizer. */
#define _POSIX_C_SOURCE 200809L /* nanosleep */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "pool.h"

enum { kMost = 1000 };

typedef struct {
  atomic_int runs[kMost];
  atomic_int at_work[KB_MAX_THREADS];
  int threads;
  atomic_int wrong;
  int64_t sums[KB_MAX_THREADS]; /* plain memory of each worker, which a race would spoil */
} job;

static void count(void* context, int item, int worker) {
  job* job = context;
  if (item < 0 || item >= kMost || worker < 0 || worker >= job->threads) {
    atomic_fetch_add(&job->wrong, 1);
    return;
  }
  if (atomic_fetch_add(&job->at_work[worker], 1)) atomic_fetch_add(&job->wrong, 1);
  atomic_fetch_add(&job->runs[item], 1);
  job->sums[worker] += item;
  atomic_fetch_sub(&job->at_work[worker], 1);
}

/* Sums are read without atomics: kb_parallel has waited for all who wrote them. */
static int check(const char* name, kb_pool* pool, int items) {
  job* job = kb_alloc(1, sizeof *job);
  job->threads = kb_pool_threads(pool);
  kb_parallel(pool, items, count, job);
  int64_t sum = 0;
  int wrong = job->wrong;
  for (int i = 0; i < job->threads; i++) sum += job->sums[i];
  for (int i = 0; i < kMost; i++) wrong += job->runs[i] != (i < items);
  wrong += sum != (int64_t)items * (items - 1) / 2;
  if (wrong) printf("%s: %d threads, %d items: %d wrong\n", name, job->threads, items, wrong);
  free(job);
  return wrong > 0;
}

/* Two phases: an item of the second finds all of the first done, in plain memory. */
typedef struct {
  int items[KB_MAX_PHASES], first[kMost], second[kMost];
  atomic_int wrong;
} phased;

static void do_first(void* context, int item, int worker) {
  phased* job = context;
  (void)worker;
  for (volatile int i = 0; i < item % 7 * 50; i++) continue; /* some take longer */
  job->first[item] += item + 1;
}

static void do_second(void* context, int item, int worker) {
  phased* job = context;
  (void)worker;
  for (int i = 0; i < job->items[0]; i++)
    if (job->first[i] != i + 1) atomic_fetch_add(&job->wrong, 1);
  job->second[item] += item + 1;
}

static int check_phases(void) {
  static const int threads[] = {1, 2, 3, 8}, items[] = {0, 1, 2, 5, 16, 64};
  enum { kItems = sizeof items / sizeof *items };
  int wrong = 0;
  for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
    kb_pool* pool;
    kb_error quiet = {NULL, 0};
    if (kb_pool_create(threads[t], &pool, quiet)) return 1;
    for (int again = 0; again < 40 * kItems * kItems; again++) {
      phased* job = kb_alloc(1, sizeof *job);
      const int first = items[again % kItems], second = items[again / kItems % kItems];
      const kb_phase phases[] = {{first, do_first}, {second, do_second}};
      job->items[0] = first;
      kb_parallel_phases(pool, phases, 2, job);
      wrong += job->wrong;
      for (int i = 0; i < kMost; i++) {
        wrong += job->first[i] != (i < first ? i + 1 : 0);
        wrong += job->second[i] != (i < second ? i + 1 : 0);
      }
      free(job);
    }
    kb_pool_destroy(pool);
  }
  if (wrong) printf("phases: %d wrong\n", wrong);
  return wrong > 0;
}

static int check_counts(void) {
  static const int threads[] = {1, 2, 3, 8}, items[] = {0, 1, 2, 3, 7, 64, kMost};
  int wrong = 0;
  for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
    kb_pool* pool;
    char text[96];
    if (kb_pool_create(threads[t], &pool, (kb_error){text, sizeof text})) return puts(text), 1;
    wrong += (kb_pool_threads(pool) > threads[t]) + (threads[t] == 1 && pool);
    for (int again = 0; again < 30; again++) {
      for (size_t i = 0; i < sizeof items / sizeof *items; i++)
        wrong += check("counts", pool, items[i]);
    }
    kb_pool_destroy(pool);
  }
  return wrong;
}

static int check_refused(void) {
  int wrong = 0;
  for (int threads = -1; threads <= KB_MAX_THREADS + 1; threads += KB_MAX_THREADS + 2) {
    kb_pool* pool = (kb_pool*)&wrong;
    char text[96] = "";
    wrong += kb_pool_create(threads, &pool, (kb_error){text, sizeof text}) != -1;
    wrong += pool != NULL || !strstr(text, "expected 1 to 256 threads");
  }
  return wrong;
}

typedef struct {
  kb_pool* pool;
  atomic_int wrong;
} outer;

static void nest(void* context, int item, int worker) {
  outer* outer = context;
  (void)worker;
  /* The pool is taken: these run here, one by one. */
  job* job = kb_alloc(1, sizeof *job);
  job->threads = 1;
  kb_parallel(outer->pool, item, count, job);
  int64_t sum = (int64_t)item * (item - 1) / 2;
  if (job->wrong || job->sums[0] != sum) atomic_fetch_add(&outer->wrong, 1);
  free(job);
}

static int check_nested(void) {
  outer outer = {0};
  kb_error quiet = {NULL, 0};
  if (kb_pool_create(3, &outer.pool, quiet)) return 1;
  kb_parallel(outer.pool, 40, nest, &outer);
  kb_pool_destroy(outer.pool);
  return outer.wrong;
}

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void let_sleep(void) { nanosleep(&(struct timespec){0, 20000000}, NULL); }

/* Who is at work, and how many have been at the same time. */
typedef struct {
  atomic_int here, together;
} meeting;

/* Until another thread is at work as well, for ten seconds at most. */
static void meet(void* context, int item, int worker) {
  meeting* meeting = context;
  (void)item, (void)worker;
  if (atomic_fetch_add(&meeting->here, 1)) atomic_store(&meeting->together, 1);
  for (int i = 0; i < 10000 && !atomic_load(&meeting->together); i++)
    nanosleep(&(struct timespec){0, 1000000}, NULL);
  atomic_fetch_sub(&meeting->here, 1);
}

/* A job wakes those who sleep. */
static int check_woken(void) {
  kb_pool* pool;
  kb_error quiet = {NULL, 0};
  int wrong = kb_pool_create(2, &pool, quiet);
  for (int again = 0; again < 3 && kb_pool_threads(pool) == 2 && !wrong; again++) {
    meeting meeting = {0};
    let_sleep();
    kb_parallel(pool, 2, meet, &meeting);
    wrong += !meeting.together;
  }
  kb_pool_destroy(pool);
  if (wrong) puts("a thread slept on");
  return wrong > 0;
}

static void* call_often(void* pool) {
  int wrong = 0;
  for (int i = 0; i < 100; i++) wrong += check("callers", pool, i * 10);
  return (void*)(intptr_t)wrong;
}

/* Two threads and this one have the same pool. */
static int check_callers(void) {
  kb_pool* pool;
  kb_error quiet = {NULL, 0};
  pthread_t thread[2];
  int wrong = kb_pool_create(3, &pool, quiet);
  for (int i = 0; i < 2; i++) wrong += pthread_create(&thread[i], NULL, call_often, pool) != 0;
  wrong += (int)(intptr_t)call_often(pool);
  for (int i = 0; i < 2; i++) {
    void* found;
    pthread_join(thread[i], &found);
    wrong += (int)(intptr_t)found;
  }
  let_sleep();
  wrong += check("after sleep", pool, kMost);
  kb_pool_destroy(pool);
  return wrong;
}

/* A child has the pool's memory without its threads, and neither waits for them nor ends them. */
static int check_forked(void) {
#if defined(__SANITIZE_THREAD__)
  return 0; /* it knows no forks of programs with threads */
#endif
  kb_pool* pool;
  kb_error quiet = {NULL, 0};
  int status = 0;
  if (kb_pool_create(2, &pool, quiet)) return 1;
  int wrong = check("before fork", pool, 50);
  let_sleep();
  pid_t child = fork();
  if (!child) {
    int found = check("forked", pool, 50);
    kb_pool_destroy(pool);
    _exit(found);
  }
  wrong += waitpid(child, &status, 0) != child || status != 0;
  wrong += check("after fork", pool, 50);
  kb_pool_destroy(pool);
  return wrong;
}
#else
static int check_woken(void) { return 0; }
static int check_callers(void) { return 0; }
static int check_forked(void) { return 0; }
#endif

int main(void) {
  int wrong = check_counts() + check_phases() + check_refused() + check_nested();
  wrong += check_woken() + check_callers() + check_forked();
  printf("%-24s %s\n", "pool", wrong ? "WRONG" : "ok");
  return wrong > 0;
}
