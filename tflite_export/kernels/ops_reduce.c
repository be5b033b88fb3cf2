/* Sums, means, products, extremes over some axes. */
#include <math.h>

#include "ops.h"

/* Axes of the input in two groups, from the last to the first: 0 kept, 1 reduced. */
typedef struct {
  int rank[2];
  int32_t dims[2][KB_MAX_RANK];
  int64_t step[2][KB_MAX_RANK];
  uint32_t op;
} reduction;

/* Whether the output has the kept axes, and the reduced ones as ones or not at all. */
static int check_output(const kb_node* node, const int* reduced) {
  const kb_tensor_info *x = &node->x[0]->info, *y = &node->y->info;
  const int keeps = y->rank == x->rank;
  int at = 0;
  if (!keeps && y->rank != x->rank - node->int_count) return 0;
  for (int a = 0; a < x->rank; a++) {
    if (reduced[a] && !keeps) continue;
    if (y->dims[at++] != (reduced[a] ? 1 : x->dims[a])) return 0;
  }
  return 1;
}

int kb_check_reduce(const kb_node* node, kb_error error) {
  int reduced[KB_MAX_RANK] = {0}, last = -1;
  for (int i = 0; i < node->int_count; i++) {
    if (node->ints[i] <= last || node->ints[i] >= node->x[0]->info.rank)
      return kb_fail_node(node, error, "expected rising axes below %d, got %d",
                          node->x[0]->info.rank, node->ints[i]);
    last = node->ints[i];
    reduced[last] = 1;
  }
  return check_output(node, reduced) ? 0 : kb_fail_node(node, error, "expected an output with the "
                                                        "axes that stay");
}

static void plan(const kb_node* node, reduction* r) {
  const kb_tensor_info* x = &node->x[0]->info;
  int64_t step = 1;
  *r = (reduction){.op = node->op};
  for (int a = x->rank - 1, i = node->int_count - 1; a >= 0; a--) {
    const int group = i >= 0 && node->ints[i] == a;
    i -= group;
    r->dims[group][r->rank[group]] = x->dims[a];
    r->step[group][r->rank[group]++] = step;
    step *= x->dims[a];
  }
}

static double combined(uint32_t op, double so_far, double value) {
  switch (op) {
    case KB_OP_REDUCE_MAX: return value > so_far || value != value ? value : so_far;
    case KB_OP_REDUCE_MIN: return value < so_far || value != value ? value : so_far;
    case KB_OP_REDUCE_PROD: return so_far * value;
    default: return so_far + value;
  }
}

static double reduced(const reduction* r, int axis, const float* x, double so_far) {
  if (axis < 0) return combined(r->op, so_far, *x);
  for (int32_t i = 0; i < r->dims[1][axis]; i++)
    so_far = reduced(r, axis - 1, x + i * r->step[1][axis], so_far);
  return so_far;
}

static double start(uint32_t op) {
  return op == KB_OP_REDUCE_MAX    ? -(double)INFINITY
         : op == KB_OP_REDUCE_MIN  ? (double)INFINITY
         : op == KB_OP_REDUCE_PROD ? 1
                                   : 0;
}

/* The sums of `count` neighbours, which vectors add at a time; each is added in the same order. */
static void add_rows(const reduction* r, int axis, const float* x, int32_t count, double* sums) {
  if (axis < 0) {
    for (int32_t k = 0; k < count; k++) sums[k] += x[k];
    return;
  }
  for (int32_t i = 0; i < r->dims[1][axis]; i++)
    add_rows(r, axis - 1, x + i * r->step[1][axis], count, sums);
}

static float* add_neighbours(const reduction* r, const float* x, float* y, double divisor) {
  enum { kSome = 64 };
  double sums[kSome];
  const int32_t all = r->dims[0][0];
  for (int32_t first = 0; first < all; first += kSome, y += kSome) {
    const int32_t count = all - first < kSome ? all - first : kSome;
    memset(sums, 0, sizeof sums);
    add_rows(r, r->rank[1] - 1, x + first, count, sums);
    for (int32_t k = 0; k < count; k++) y[k] = (float)(sums[k] / divisor);
    if (count < kSome) return y + count;
  }
  return y;
}

static int is_sum(const reduction* r) {
  return r->op == KB_OP_REDUCE_MEAN || r->op == KB_OP_REDUCE_SUM;
}

static float* run_axis(const reduction* r, int axis, const float* x, float* y, double divisor) {
  if (axis == 0 && r->step[0][0] == 1 && is_sum(r)) return add_neighbours(r, x, y, divisor);
  if (axis < 0) {
    *y = (float)(reduced(r, r->rank[1] - 1, x, start(r->op)) / divisor);
    return y + 1;
  }
  for (int32_t i = 0; i < r->dims[0][axis]; i++)
    y = run_axis(r, axis - 1, x + i * r->step[0][axis], y, divisor);
  return y;
}

int kb_run_reduce(const kb_node* node, kb_error error) {
  reduction r;
  (void)error;
  plan(node, &r);
  double divisor = 1;
  for (int i = 0; node->op == KB_OP_REDUCE_MEAN && i < r.rank[1]; i++) divisor *= r.dims[1][i];
  run_axis(&r, r.rank[0] - 1, kb_floats(node->x[0]), kb_results(node), divisor);
  return 0;
}
