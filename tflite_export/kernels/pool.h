/* Threads that share the items of one job. Results do not depend on their number: items are
 * independent of each other, and whoever is done with its own helps the others. */
#ifndef KERASBITS_POOL_H
#define KERASBITS_POOL_H

#include "core.h"

enum { KB_MAX_THREADS = 256, KB_MAX_PHASES = 2 };

typedef struct kb_pool kb_pool;

/* One item of a job. `worker` is below kb_pool_threads, and no two items run at the same time with
 * the same one, so it may choose scratch memory. */
typedef void (*kb_task)(void* context, int item, int worker);

/* A pool in which `threads` take part, one of them the caller of kb_parallel. It is NULL for one
 * thread, and where there are no threads; if the system starts fewer, these are used. -1 after
 * writing an error. */
int kb_pool_create(int threads, kb_pool** pool, kb_error error);

/* How many take part; 1 for NULL. */
int kb_pool_threads(const kb_pool* pool);

/* Bytes that a pool holds beside the stacks of its threads. */
size_t kb_pool_memory(const kb_pool* pool);

/* Run items 0 to items - 1, fewer than 2^30, and wait for all. From several threads at once, or from
 * within a task, one caller gets the pool and the others run their items alone, as worker 0; they
 * must not share scratch memory with it. */
void kb_parallel(kb_pool* pool, int items, kb_task task, void* context);

/* Items of a job that may run in any order. */
typedef struct {
  int items;
  kb_task task;
} kb_phase;

/* As kb_parallel for each phase in turn, but at the price of one: items of a phase begin once all of
 * the phase before are done. 1 to KB_MAX_PHASES of them, of fewer than 2^30 items together. */
void kb_parallel_phases(kb_pool* pool, const kb_phase* phases, int count, void* context);

/* Ends the threads. Nobody may use the pool any more; NULL is allowed. */
void kb_pool_destroy(kb_pool* pool);

#endif
