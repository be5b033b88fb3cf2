/* Threads: a job is announced under a lock, and each thread has a share of its items, handed out by
 * an atomic counter. Who is done with a share helps with those of others. Items that follow each other
 * touch memory that does, so from job to job a thread finds in its caches what it wrote itself.
 *
 * Threads join a job while it is open, and the caller closes it when no item is left. So it waits
 * for those at work only, never for one that has yet to wake up: small jobs do not pay for sleepers.
 * Idle threads spin for about a millisecond, since the next layer's job tends to follow soon, and
 * then sleep: to be woken takes longer than a small layer. */
#include "pool.h"

#include <stdlib.h>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
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

/* The next item of a share, in a cache line of its own. */
typedef struct {
  _Alignas(64) atomic_int next;
} share;

struct kb_pool {
  int threads; /* with the caller */
  pid_t process;
  pthread_t* handles;    /* [threads - 1] */
  struct member* member; /* [threads - 1] */
  pthread_mutex_t lock;
  pthread_cond_t wake, done;
  share* shares;         /* [threads] */
  atomic_int busy; /* somebody has the pool */
  atomic_int working;
  atomic_uint job; /* counts jobs; changes under the lock */
  /* Under the lock: */
  int open, stopped, items;
  kb_task task;
  void* context;
};

struct member {
  kb_pool* pool;
  int worker;
};

/* The first item of a share; of the one behind the last, the end. */
static int share_of(const kb_pool* pool, int items, int number) {
  return (int)((int64_t)items * number / pool->threads);
}

/* Its own share first, then those of the others. */
static void take_items(kb_pool* pool, int items, kb_task task, void* context, int worker) {
  for (int i = 0; i < pool->threads; i++) {
    const int number = (worker + i) % pool->threads, end = share_of(pool, items, number + 1);
    atomic_int* next = &pool->shares[number].next;
    int item;
    while (atomic_load_explicit(next, memory_order_relaxed) < end &&
           (item = atomic_fetch_add_explicit(next, 1, memory_order_relaxed)) < end)
      task(context, item, worker);
  }
}

static void leave(kb_pool* pool) {
  if (atomic_fetch_sub_explicit(&pool->working, 1, memory_order_acq_rel) > 1) return;
  pthread_mutex_lock(&pool->lock);
  pthread_cond_signal(&pool->done);
  pthread_mutex_unlock(&pool->lock);
}

/* Wait for a job after `seen`, and take part if it is still open. 0 when the pool ends. */
static int serve(const struct member* self, unsigned* seen) {
  kb_pool* pool = self->pool;
  for (int i = 0; i < kSpins; i++) {
    if (atomic_load_explicit(&pool->job, memory_order_relaxed) != *seen) break;
    KB_PAUSE();
  }
  pthread_mutex_lock(&pool->lock);
  while (!pool->stopped && atomic_load_explicit(&pool->job, memory_order_relaxed) == *seen)
    pthread_cond_wait(&pool->wake, &pool->lock);
  *seen = atomic_load_explicit(&pool->job, memory_order_relaxed);
  const int stopped = pool->stopped, joins = pool->open && !stopped, items = pool->items;
  const kb_task task = pool->task;
  void* context = pool->context;
  if (joins) atomic_fetch_add_explicit(&pool->working, 1, memory_order_relaxed);
  pthread_mutex_unlock(&pool->lock);
  if (joins) {
    take_items(pool, items, task, context, self->worker);
    leave(pool);
  }
  return !stopped;
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
                     pthread_cond_init(&made->wake, NULL) || pthread_cond_init(&made->done, NULL);
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

static void announce(kb_pool* pool, int items, kb_task task, void* context) {
  pthread_mutex_lock(&pool->lock);
  pool->items = items;
  pool->task = task;
  pool->context = context;
  pool->open = 1;
  for (int i = 0; i < pool->threads; i++)
    atomic_store_explicit(&pool->shares[i].next, share_of(pool, items, i), memory_order_relaxed);
  atomic_fetch_add_explicit(&pool->job, 1, memory_order_relaxed);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->lock);
}

/* Nobody joins any more; wait for those who did. */
static void finish(kb_pool* pool) {
  pthread_mutex_lock(&pool->lock);
  pool->open = 0;
  pthread_mutex_unlock(&pool->lock);
  for (int i = 0; i < kSpins; i++) {
    if (!atomic_load_explicit(&pool->working, memory_order_acquire)) return;
    KB_PAUSE();
  }
  pthread_mutex_lock(&pool->lock);
  while (atomic_load_explicit(&pool->working, memory_order_acquire))
    pthread_cond_wait(&pool->done, &pool->lock);
  pthread_mutex_unlock(&pool->lock);
}

void kb_parallel(kb_pool* pool, int items, kb_task task, void* context) {
  if (!pool || items < 2 || atomic_exchange_explicit(&pool->busy, 1, memory_order_acquire)) {
    for (int item = 0; item < items; item++) task(context, item, 0);
    return;
  }
  announce(pool, items, task, context);
  take_items(pool, items, task, context, 0);
  finish(pool);
  atomic_store_explicit(&pool->busy, 0, memory_order_release);
}

void kb_pool_destroy(kb_pool* pool) {
  if (!pool) return;
  /* A forked process has the memory of the pool, but not its threads. */
  if (pool->process == getpid()) {
    pthread_mutex_lock(&pool->lock);
    pool->stopped = 1;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->threads - 1; i++) pthread_join(pool->handles[i], NULL);
    pthread_cond_destroy(&pool->done);
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

void kb_parallel(kb_pool* pool, int items, kb_task task, void* context) {
  (void)pool;
  for (int item = 0; item < items; item++) task(context, item, 0);
}

void kb_pool_destroy(kb_pool* pool) { (void)pool; }
#endif
