/* Threads: a job is announced, and each thread has a share of its items, handed out by an atomic
 * counter. Who is done with a share helps with those of others. Items that follow each other touch
 * memory that does, so from job to job a thread finds in its caches what it wrote itself.
 *
 * One word says which job there is, whether it is open, and how many threads have joined it. Threads
 * join while it is open, and the caller closes it when no item is left. So it waits for those at work
 * only, never for one that has yet to wake up: small jobs do not pay for sleepers. The lock is there
 * for sleep alone. Idle threads spin for about a millisecond, since the next layer's job tends to
 * follow soon, and then sleep: to be woken takes longer than a small layer. */
#include "pool.h"

#include <stdlib.h>

static void run_alone(const kb_phase* phases, int count, void* context) {
  for (int p = 0; p < count; p++) {
    for (int item = 0; item < phases[p].items; item++) phases[p].task(context, item, 0);
  }
}

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#if defined(__x86_64__) || defined(__i386__)
#define KB_PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define KB_PAUSE() __asm__ volatile("isb")
#else
#define KB_PAUSE() ((void)0)
#endif

enum { kSpins = 1 << 15 }; /* pauses of 10 to 40 ns before a thread sleeps */

/* The state of a pool: the number of a job above, below it whether threads may join, whether the
 * caller sleeps, and how many have joined. */
enum { kJoined = KB_MAX_THREADS - 1, kOpen = KB_MAX_THREADS, kCallerSleeps = 2 * kOpen, kJob = 4 * kOpen };

static unsigned number_of(unsigned state) { return state / kJob; }

/* The next item of a share, in each phase; in a cache line of its own. */
typedef struct {
  _Alignas(64) atomic_int next[KB_MAX_PHASES];
} share;

struct kb_pool {
  /* The job, in one cache line. What is not atomic changes while nobody has joined. */
  _Alignas(64) atomic_uint state;
  int phases;
  kb_phase phase[KB_MAX_PHASES];
  void* context;
  _Alignas(64) atomic_int done; /* items of all phases but the last */
  _Alignas(64) int threads;     /* with the caller */
  pid_t process;
  pthread_t* handles;    /* [threads - 1] */
  struct member* member; /* [threads - 1] */
  share* shares;         /* [threads] */
  atomic_int busy;       /* somebody has the pool */
  atomic_int sleepers, stopped; /* change under the lock */
  pthread_mutex_t lock;
  pthread_cond_t wake, left;
};

struct member {
  kb_pool* pool;
  int worker;
};

/* The first item of a share; of the one behind the last, the end. */
static int share_of(const kb_pool* pool, int items, int number) {
  return (int)((int64_t)items * number / pool->threads);
}

/* Its own share first, then those of the others. Returns how many it was. */
static int take_items(kb_pool* pool, int phase, int worker) {
  const int items = pool->phase[phase].items;
  int taken = 0;
  for (int i = 0; i < pool->threads; i++) {
    const int number = (worker + i) % pool->threads, end = share_of(pool, items, number + 1);
    atomic_int* next = &pool->shares[number].next[phase];
    int item;
    while (atomic_load_explicit(next, memory_order_relaxed) < end &&
           (item = atomic_fetch_add_explicit(next, 1, memory_order_relaxed)) < end) {
      pool->phase[phase].task(pool->context, item, worker);
      taken++;
    }
  }
  return taken;
}

/* Until so many items are done, all of which somebody is at. */
static void wait_for_items(kb_pool* pool, int count) {
  for (int i = 0; atomic_load_explicit(&pool->done, memory_order_acquire) < count; i++) {
    if (i < kSpins)
      KB_PAUSE();
    else
      sched_yield();
  }
}

static void take_part(kb_pool* pool, int worker) {
  int before = 0;
  for (int phase = 0; phase < pool->phases; phase++) {
    if (phase) wait_for_items(pool, before);
    const int taken = take_items(pool, phase, worker);
    if (taken && phase + 1 < pool->phases)
      atomic_fetch_add_explicit(&pool->done, taken, memory_order_release);
    before += pool->phase[phase].items;
  }
}

static void leave(kb_pool* pool) {
  const unsigned before = atomic_fetch_sub_explicit(&pool->state, 1, memory_order_acq_rel);
  if (!(before & kCallerSleeps) || (before & kJoined) > 1) return;
  pthread_mutex_lock(&pool->lock);
  pthread_cond_signal(&pool->left);
  pthread_mutex_unlock(&pool->lock);
}

/* The state once there is a job after `seen`, or the pool ends. */
static unsigned next_state(kb_pool* pool, unsigned seen) {
  unsigned state;
  for (int i = 0; i < kSpins; i++) {
    state = atomic_load_explicit(&pool->state, memory_order_relaxed);
    if (number_of(state) != seen) return state;
    KB_PAUSE();
  }
  pthread_mutex_lock(&pool->lock);
  atomic_fetch_add(&pool->sleepers, 1); /* before it looks again: see announce */
  while (number_of(state = atomic_load(&pool->state)) == seen && !atomic_load(&pool->stopped))
    pthread_cond_wait(&pool->wake, &pool->lock);
  atomic_fetch_sub(&pool->sleepers, 1);
  pthread_mutex_unlock(&pool->lock);
  return state;
}

/* Wait for a job after `seen`, and take part if it is still open. 0 when the pool ends. */
static int serve(const struct member* self, unsigned* seen) {
  kb_pool* pool = self->pool;
  unsigned state = next_state(pool, *seen);
  int joined = 0;
  while ((state & kOpen) && !joined)
    joined = atomic_compare_exchange_weak_explicit(&pool->state, &state, state + 1,
                                                   memory_order_acquire, memory_order_relaxed);
  *seen = number_of(state);
  if (joined) {
    take_part(pool, self->worker);
    leave(pool);
  }
  return !atomic_load_explicit(&pool->stopped, memory_order_relaxed);
}

static void* live(void* argument) {
  const struct member* self = argument;
  unsigned seen = 0;
  while (serve(self, &seen)) continue;
  return NULL;
}

/* Start the threads; those that the system refuses are left out. */
static void start(kb_pool* pool, int threads) {
  pool->threads = 1;
  for (int i = 0; i < threads - 1; i++) {
    pool->member[i] = (struct member){pool, i + 1};
    if (pthread_create(&pool->handles[i], NULL, live, &pool->member[i])) return;
    pool->threads++;
  }
}

int kb_pool_create(int threads, kb_pool** pool, kb_error error) {
  *pool = NULL;
  if (threads < 1 || threads > KB_MAX_THREADS)
    return kb_fail(error, "expected 1 to %d threads, got %d", KB_MAX_THREADS, threads);
  if (threads == 1) return 0;
  kb_pool* made = kb_alloc(1, sizeof *made);
  if (!made) return kb_fail(error, "out of memory");
  made->handles = kb_alloc((size_t)threads - 1, sizeof *made->handles);
  made->member = kb_alloc((size_t)threads - 1, sizeof *made->member);
  made->shares = kb_alloc((size_t)threads, sizeof *made->shares);
  made->process = getpid();
  const int failed = !made->handles || !made->member || !made->shares ||
                     pthread_mutex_init(&made->lock, NULL) ||
                     pthread_cond_init(&made->wake, NULL) || pthread_cond_init(&made->left, NULL);
  if (failed) { /* the locks of pthreads hold no memory that would be lost */
    free(made->handles);
    free(made->member);
    free(made->shares);
    free(made);
    return kb_fail(error, "expected memory and locks for %d threads, got none", threads);
  }
  start(made, threads);
  *pool = made;
  return 0;
}

int kb_pool_threads(const kb_pool* pool) { return pool ? pool->threads : 1; }

size_t kb_pool_memory(const kb_pool* pool) {
  if (!pool) return 0;
  return sizeof *pool + (size_t)pool->threads *
                            (sizeof *pool->handles + sizeof *pool->member + sizeof *pool->shares);
}

static void announce(kb_pool* pool, const kb_phase* phases, int count, void* context) {
  const unsigned before = atomic_load_explicit(&pool->state, memory_order_relaxed);
  pool->phases = count;
  pool->context = context;
  for (int p = 0; p < count; p++) {
    pool->phase[p] = phases[p];
    for (int i = 0; i < pool->threads; i++)
      atomic_store_explicit(&pool->shares[i].next[p], share_of(pool, phases[p].items, i),
                            memory_order_relaxed);
  }
  if (count > 1) atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
  /* Both in the one order of all such operations: either a thread that is about to sleep sees the
   * job, or it is seen here. */
  atomic_store(&pool->state, (before & ~(unsigned)(kJob - 1)) + kJob + kOpen);
  if (!atomic_load(&pool->sleepers)) return;
  pthread_mutex_lock(&pool->lock);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->lock);
}

/* Nobody joins any more; wait for those who did. */
static void finish(kb_pool* pool) {
  unsigned state = atomic_fetch_and_explicit(&pool->state, ~(unsigned)kOpen, memory_order_acq_rel);
  for (int i = 0; i < kSpins && state & kJoined; i++) {
    KB_PAUSE();
    state = atomic_load_explicit(&pool->state, memory_order_acquire);
  }
  if (!(state & kJoined)) return;
  pthread_mutex_lock(&pool->lock);
  atomic_fetch_or(&pool->state, kCallerSleeps);
  while (atomic_load(&pool->state) & kJoined) pthread_cond_wait(&pool->left, &pool->lock);
  pthread_mutex_unlock(&pool->lock);
}

/* Whether there is something to share. */
static int is_shared(const kb_phase* phases, int count) {
  int most = 0;
  for (int p = 0; p < count; p++) most = phases[p].items > most ? phases[p].items : most;
  return most > 1;
}

void kb_parallel_phases(kb_pool* pool, const kb_phase* phases, int count, void* context) {
  if (!pool || !is_shared(phases, count) ||
      atomic_exchange_explicit(&pool->busy, 1, memory_order_acquire)) {
    run_alone(phases, count, context);
    return;
  }
  announce(pool, phases, count, context);
  take_part(pool, 0);
  finish(pool);
  atomic_store_explicit(&pool->busy, 0, memory_order_release);
}

void kb_pool_destroy(kb_pool* pool) {
  if (!pool) return;
  /* A forked process has the memory of the pool, but not its threads. */
  if (pool->process == getpid()) {
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stopped, 1);
    atomic_fetch_add(&pool->state, kJob); /* for those that spin */
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->threads - 1; i++) pthread_join(pool->handles[i], NULL);
    pthread_cond_destroy(&pool->left);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
  }
  free(pool->handles);
  free(pool->member);
  free(pool->shares);
  free(pool);
}

#else

int kb_pool_create(int threads, kb_pool** pool, kb_error error) {
  *pool = NULL;
  if (threads >= 1 && threads <= KB_MAX_THREADS) return 0;
  return kb_fail(error, "expected 1 to %d threads, got %d", KB_MAX_THREADS, threads);
}

int kb_pool_threads(const kb_pool* pool) {
  (void)pool;
  return 1;
}

size_t kb_pool_memory(const kb_pool* pool) {
  (void)pool;
  return 0;
}

void kb_parallel_phases(kb_pool* pool, const kb_phase* phases, int count, void* context) {
  (void)pool;
  run_alone(phases, count, context);
}

void kb_pool_destroy(kb_pool* pool) { (void)pool; }
#endif

void kb_parallel(kb_pool* pool, int items, kb_task task, void* context) {
  const kb_phase phase = {items, task};
  kb_parallel_phases(pool, &phase, 1, context);
}
