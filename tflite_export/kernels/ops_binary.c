/* Operations on the elements of two tensors that broadcast as NumPy's do. */
#include <math.h>

#include "add.h"
#include "ops.h"

/* Axes from the last to the first; step[t][axis] elements from one index to the next in tensor t,
 * 0 where it is repeated. */
typedef struct {
  int rank;
  int32_t dims[KB_MAX_RANK];
  int64_t step[2][KB_MAX_RANK];
} broadcast;

static int length_of(const kb_tensor_info* info, int axis) {
  return axis < info->rank ? info->dims[info->rank - 1 - axis] : 1;
}

static void plan(const kb_node* node, broadcast* b) {
  b->rank = node->y->info.rank;
  int64_t step[2] = {1, 1};
  for (int axis = 0; axis < b->rank; axis++) {
    b->dims[axis] = length_of(&node->y->info, axis);
    for (int t = 0; t < 2; t++) {
      int length = length_of(&node->x[t]->info, axis);
      b->step[t][axis] = length == 1 ? 0 : step[t];
      step[t] *= length;
    }
  }
}

int kb_check_binary(const kb_node* node, kb_error error) {
  const kb_tensor_info *a = &node->x[0]->info, *b = &node->x[1]->info, *y = &node->y->info;
  int fits = y->rank == (a->rank > b->rank ? a->rank : b->rank);
  for (int axis = 0; fits && axis < y->rank; axis++) {
    int la = length_of(a, axis), lb = length_of(b, axis);
    fits = (la == lb || la == 1 || lb == 1) && length_of(y, axis) == (la == 1 ? lb : la);
  }
  return fits ? 0 : kb_fail_node(node, error, "expected shapes that broadcast to the output's");
}

/* NaN wins, as in NumPy. */
static float larger(float a, float b) { return a > b || a != a ? a : b; }
static float smaller(float a, float b) { return a < b || a != a ? a : b; }

#define EACH_OF(formula, at_a, at_b)                          \
  for (int32_t i = 0; i < count; i++) {                       \
    const float p = a[at_a], q = b[at_b];                     \
    y[i] = (formula);                                         \
  }

/* Steps of 1 and 0 apart, which the compiler turns into vectors. */
#define EACH(formula)                                         \
  if (step_a == 1 && step_b == 1) {                           \
    EACH_OF(formula, i, i)                                    \
  } else if (step_a == 1 && step_b == 0) {                    \
    EACH_OF(formula, i, 0)                                    \
  } else {                                                    \
    EACH_OF(formula, i * step_a, i * step_b)                  \
  }                                                           \
  break

static void run_row(uint32_t op, const float* a, int64_t step_a, const float* b, int64_t step_b,
                    float* y, int32_t count) {
  switch (op) {
    case KB_OP_ADD: EACH(p + q);
    case KB_OP_SUB: EACH(p - q);
    case KB_OP_MUL: EACH(p * q);
    case KB_OP_DIV: EACH(p / q);
    case KB_OP_MAXIMUM: EACH(larger(p, q));
    case KB_OP_MINIMUM: EACH(smaller(p, q));
    case KB_OP_POW: EACH(powf(p, q));
    case KB_OP_SQUARED_DIFFERENCE: EACH((p - q) * (p - q));
    case KB_OP_PRELU: EACH(p >= 0 ? p : q * p);
    default: break;
  }
}

static float* run_axis(const kb_node* node, const broadcast* plan, int axis, const float* a,
                       const float* b, float* y) {
  if (axis <= 0) {
    int32_t count = plan->rank ? plan->dims[0] : 1;
    run_row(node->op, a, plan->step[0][0], b, plan->step[1][0], y, count);
    return y + count;
  }
  for (int32_t i = 0; i < plan->dims[axis]; i++)
    y = run_axis(node, plan, axis - 1, a + i * plan->step[0][axis], b + i * plan->step[1][axis],
                 y);
  return y;
}

static void clamp_all(const kb_node* node, float* y) {
  const float low = node->floats[0], high = node->floats[1];
  const int64_t count = node->y->count;
  for (int64_t i = 0; i < count; i++) y[i] = y[i] < low ? low : y[i] > high ? high : y[i];
}

int kb_run_binary(const kb_node* node, kb_error error) {
  broadcast b = {0};
  float* y = kb_results(node);
  const int same = node->x[0]->count == node->y->count && node->x[1]->count == node->y->count;
  (void)error;
  if (same && node->op == KB_OP_ADD) {
    const float low = node->float_count ? node->floats[0] : -INFINITY;
    const float high = node->float_count ? node->floats[1] : INFINITY;
    kb_add(node->pool, kb_floats(node->x[0]), kb_floats(node->x[1]), y, node->y->count, low, high);
    return 0;
  }
  plan(node, &b);
  if (same)
    b = (broadcast){.rank = 1, .dims = {(int32_t)node->y->count}, .step = {{1}, {1}}};
  run_axis(node, &b, b.rank - 1, kb_floats(node->x[0]), kb_floats(node->x[1]), y);
  if (node->float_count) clamp_all(node, y);
  return 0;
}
