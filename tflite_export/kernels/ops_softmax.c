/* SOFTMAX, LOG_SOFTMAX: along the last axis. */
#include <math.h>
#include <string.h>

#include "ops.h"

int kb_check_softmax(const kb_node* node, kb_error error) {
  const kb_tensor_info *x = &node->x[0]->info, *y = &node->y->info;
  if (x->rank < 1 || x->rank != y->rank ||
      memcmp(x->dims, y->dims, (size_t)x->rank * sizeof *x->dims))
    return kb_fail_node(node, error, "expected an output of the shape of the input, of rank 1 or "
                        "more");
  if (node->op == KB_OP_SOFTMAX && !(node->floats[0] > 0 && node->floats[0] < INFINITY))
    return kb_fail_node(node, error, "expected a positive beta, got %g", (double)node->floats[0]);
  return 0;
}

static void run_row(const float* x, float* y, int count, float beta, int is_log) {
  float top = x[0];
  double sum = 0;
  for (int i = 1; i < count; i++) top = x[i] > top ? x[i] : top;
  for (int i = 0; i < count; i++) {
    y[i] = beta * (x[i] - top);
    const float e = expf(y[i]);
    sum += e;
    if (!is_log) y[i] = e;
  }
  const float log_sum = (float)log(sum);
  for (int i = 0; i < count; i++) y[i] = is_log ? y[i] - log_sum : (float)(y[i] / sum);
}

int kb_run_softmax(const kb_node* node, kb_error error) {
  const int count = node->y->info.dims[node->y->info.rank - 1];
  const int is_log = node->op == KB_OP_LOG_SOFTMAX;
  (void)error;
  for (int64_t at = 0; at < node->y->count; at += count)
    run_row(kb_floats(node->x[0]) + at, kb_results(node) + at, count,
            is_log ? 1 : node->floats[0], is_log);
  return 0;
}
