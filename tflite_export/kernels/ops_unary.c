/* Operations on each element of one tensor. */
#include <math.h>
#include <string.h>

#include "ops.h"

int kb_check_unary(const kb_node* node, kb_error error) {
  const kb_tensor_info *x = &node->x[0]->info, *y = &node->y->info;
  if (x->rank != y->rank || memcmp(x->dims, y->dims, (size_t)x->rank * sizeof *x->dims))
    return kb_fail_node(node, error, "expected an output of the shape of the input");
  if (node->op == KB_OP_GELU && node->ints[0] != 0 && node->ints[0] != 1)
    return kb_fail_node(node, error, "expected formula 0 or 1, got %d", node->ints[0]);
  return 0;
}

static float gelu(float x, int by_tanh) {
  const float root_2 = 1.41421356f, root_2_over_pi = 0.797884561f;
  if (by_tanh) return 0.5f * x * (1 + tanhf(root_2_over_pi * (x + 0.044715f * x * x * x)));
  return 0.5f * x * erfcf(-x / root_2); /* 1 + erf(z) = erfc(-z), without losing small results */
}

static float hard_swish(float x) {
  float gate = x + 3;
  gate = gate < 0 ? 0 : gate > 6 ? 6 : gate;
  return x * gate / 6;
}

/* exp never overflows here. */
static float logistic(float x) {
  if (x >= 0) return 1 / (1 + expf(-x));
  float e = expf(x);
  return e / (1 + e);
}

#define EACH(formula)                         \
  for (int64_t i = 0; i < count; i++) {       \
    const float x = from[i];                  \
    to[i] = (formula);                        \
  }                                           \
  break

int kb_run_unary(const kb_node* node, kb_error error) {
  const float* from = kb_floats(node->x[0]);
  float* to = kb_results(node);
  const int64_t count = node->y->count;
  const float a = node->floats[0];
  (void)error;
  switch (node->op) {
    case KB_OP_CLAMP: EACH(kb_clamp(node, x));
    case KB_OP_LEAKY_RELU: EACH(x >= 0 ? x : a * x);
    case KB_OP_ELU: EACH(x >= 0 ? x : expm1f(x));
    case KB_OP_LOGISTIC: EACH(logistic(x));
    case KB_OP_TANH: EACH(tanhf(x));
    case KB_OP_HARD_SWISH: EACH(hard_swish(x));
    case KB_OP_GELU: EACH(gelu(x, node->ints[0]));
    case KB_OP_EXP: EACH(expf(x));
    case KB_OP_LOG: EACH(logf(x));
    case KB_OP_SQRT: EACH(sqrtf(x));
    case KB_OP_RSQRT: EACH(1 / sqrtf(x));
    case KB_OP_NEG: EACH(-x);
    case KB_OP_ABS: EACH(fabsf(x));
    case KB_OP_SQUARE: EACH(x * x);
    case KB_OP_SIN: EACH(sinf(x));
    case KB_OP_COS: EACH(cosf(x));
    case KB_OP_FLOOR: EACH(floorf(x));
    case KB_OP_CEIL: EACH(ceilf(x));
    case KB_OP_ROUND: EACH(rintf(x));
    case KB_OP_SIGN: EACH(x > 0 ? 1.0f : x < 0 ? -1.0f : x);
    default: break;
  }
  return 0;
}
