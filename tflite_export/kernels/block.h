/* One block of output pixels at work. */
#ifndef KERASBITS_BLOCK_H
#define KERASBITS_BLOCK_H

#include "op.h"

typedef struct {
  const kb_op* op;
  const kb_plan* plan;
  int worker;
  int64_t first; /* output pixel */
  int count;
  float* y; /* of the first */
  int64_t group;
  int64_t based; /* first channel of the tile that the bases are of, -1 if there are none */
} kb_block;

static inline void* kb_block_own(const kb_block* block, size_t at) {
  return kb_own(block->op, block->plan, block->worker, at);
}

static inline const kb_reach* kb_block_reach(const kb_block* block, int axis, int64_t at) {
  return (const kb_reach*)kb_table(block->op, block->plan->reach[axis]) + at;
}

/* Row and column of the pixels of a block, one after the other. */
typedef struct {
  int64_t row, column, width;
} kb_position;

static inline kb_position kb_block_start(const kb_block* block) {
  const int64_t width = block->plan->window.out[1];
  return (kb_position){block->first / width, block->first % width, width};
}

static inline void kb_advance(kb_position* at) {
  if (++at->column < at->width) return;
  at->column = 0;
  at->row++;
}

/* Go to a group: pointers to the windows of the block in all images, and sums of their inputs. */
void kb_block_enter(kb_block* block, int64_t group);

#endif
