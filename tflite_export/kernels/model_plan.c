/* Where tensors lie in the arena, so that those that live at the same time do not overlap. */
#include <stdlib.h>

#include "ops.h"

enum { kAlignment = 64 };

static size_t room(const kb_tensor* tensor) {
  return (tensor->info.bytes + kAlignment - 1) / kAlignment * kAlignment;
}

/* A tensor that needs a place, and the nodes from which to which it is alive. */
typedef struct {
  kb_tensor* tensor;
  int32_t first, last;
} life;

/* Large ones first; of equal ones, the first one first. */
static int by_size(const void* a, const void* b) {
  const life *p = a, *q = b;
  if (room(p->tensor) != room(q->tensor)) return room(p->tensor) > room(q->tensor) ? -1 : 1;
  return p->tensor < q->tensor ? -1 : 1;
}

static int overlap(const life* a, const life* b) {
  return a->first <= b->last && b->first <= a->last;
}

/* The lowest gap among the `count` placed ones, which are in the order of their places, that no
 * tensor alive with this one uses. The list stays in order. */
static int place(life* placed, size_t count, life added, size_t* end) {
  size_t at = 0;
  for (size_t i = 0; i < count; i++) {
    const kb_tensor* other = placed[i].tensor;
    if (!overlap(&placed[i], &added)) continue;
    if (other->place >= at && other->place - at >= room(added.tensor)) break;
    if (other->place + room(other) > at) at = other->place + room(other);
  }
  added.tensor->place = at;
  if (__builtin_add_overflow(at, room(added.tensor), &at) || at > SIZE_MAX / 4) return -1;
  if (at > *end) *end = at;
  size_t i = count;
  for (; i > 0 && placed[i - 1].tensor->place > added.tensor->place; i--) placed[i] = placed[i - 1];
  placed[i] = added;
  return 0;
}

/* Tensors that get memory here. Inputs are read where the caller has them, unless they are kept. */
static size_t list_lives(kb_model* model, life* lives) {
  const int keep = model->flags & KB_KEEP_TENSORS;
  size_t count = 0;
  for (uint32_t i = 0; i < model->tensor_count; i++) {
    kb_tensor* tensor = &model->tensors[i];
    if (tensor->producer == KB_CONSTANT_TENSOR) continue;
    if (tensor->producer == KB_INPUT_TENSOR && !keep) continue;
    life* added = &lives[count++];
    *added = (life){tensor, tensor->producer, tensor->last_use};
    if (added->last < added->first) added->last = added->first;
    if (keep) added->first = 0, added->last = (int32_t)model->node_count;
  }
  return count;
}

static int plan_arena(kb_model* model, kb_error error) {
  size_t end = 0;
  life* lives = kb_alloc(model->tensor_count, 2 * sizeof *lives);
  if (!lives) return kb_fail(error, "out of memory");
  life* placed = lives + model->tensor_count;
  const size_t count = list_lives(model, lives);
  int failed = 0;
  qsort(lives, count, sizeof *lives, by_size);
  for (size_t i = 0; i < count && !failed; i++) failed = place(placed, i, lives[i], &end);
  if (failed)
    kb_fail(error, "expected tensors that fit into the address space");
  else if (!(model->arena = kb_model_alloc(model, end, 1, error)))
    failed = -1;
  for (size_t i = 0; i < count && !failed; i++)
    lives[i].tensor->data = model->arena + lives[i].tensor->place;
  free(lives);
  return failed;
}

static size_t scratch_room(const kb_model* model) {
  return model->scratch ? kb_room(model->scratch_bytes) : 0;
}

int kb_model_plan_scratch(kb_model* model, kb_error error) {
  size_t most = 0;
  for (uint32_t n = 0; n < model->node_count; n++) {
    size_t bytes = 0;
    const kb_node* node = &model->nodes[n];
    if (node->packed && kb_packed_plan(node, &bytes, &model->memory, error)) return -1;
    if (bytes > most) most = bytes;
  }
  uint8_t* scratch = kb_model_alloc(model, most, 1, error);
  if (!scratch) return -1;
  model->memory -= scratch_room(model);
  free(model->scratch);
  model->scratch = scratch;
  model->scratch_bytes = most;
  for (uint32_t i = 0; i < model->blob_count; i++)
    kb_packed_lend(model->blobs[i], model->scratch, most);
  return 0;
}

int kb_model_plan(kb_model* model, kb_error error) {
  return plan_arena(model, error) || kb_model_plan_scratch(model, error) ? -1 : 0;
}
