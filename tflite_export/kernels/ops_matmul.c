/* BATCH_MATMUL: matrix products over the last two axes; the others broadcast as NumPy's do. */
#include "ops.h"

/* Length of an axis counted from the last. */
static int length_of(const kb_tensor_info* info, int axis) {
  return axis < info->rank ? info->dims[info->rank - 1 - axis] : 1;
}

int kb_check_matmul(const kb_node* node, kb_error error) {
  const kb_tensor_info *a = &node->x[0]->info, *b = &node->x[1]->info, *y = &node->y->info;
  const int swap_a = node->ints[0], swap_b = node->ints[1];
  if ((swap_a != 0 && swap_a != 1) || (swap_b != 0 && swap_b != 1))
    return kb_fail_node(node, error, "expected 0 or 1 as ints, got %d, %d", swap_a, swap_b);
  int fits = a->rank > 1 && b->rank > 1 && y->rank == (a->rank > b->rank ? a->rank : b->rank) &&
             length_of(a, swap_a) == length_of(b, !swap_b) &&
             length_of(y, 1) == length_of(a, !swap_a) && length_of(y, 0) == length_of(b, swap_b);
  for (int axis = 2; fits && axis < y->rank; axis++) {
    int la = length_of(a, axis), lb = length_of(b, axis);
    fits = (la == lb || la == 1 || lb == 1) && length_of(y, axis) == (la == 1 ? lb : la);
  }
  return fits ? 0 : kb_fail_node(node, error, "expected matrices that can be multiplied to the "
                                 "output");
}

/* Rows, columns and sums of a product, and distances of elements. */
typedef struct {
  int64_t rows, columns, depth;
  int64_t row_a, depth_a, column_b, depth_b;
} product;

static void multiply(const product* p, const float* a, const float* b, float* y) {
  for (int64_t r = 0; r < p->rows; r++) {
    for (int64_t c = 0; c < p->columns; c++) {
      const float *left = a + r * p->row_a, *right = b + c * p->column_b;
      double sum = 0;
      for (int64_t k = 0; k < p->depth; k++)
        sum += (double)left[k * p->depth_a] * (double)right[k * p->depth_b];
      *y++ = (float)sum;
    }
  }
}

/* Element offset of a matrix of a tensor for matrix `index` of the output. */
static int64_t matrix_at(const kb_tensor_info* x, const kb_tensor_info* y, int64_t index) {
  int64_t at = 0, step = (int64_t)length_of(x, 0) * length_of(x, 1);
  for (int axis = 2; axis < y->rank; axis++) {
    const int64_t i = index % length_of(y, axis);
    index /= length_of(y, axis);
    at += length_of(x, axis) == 1 ? 0 : i * step;
    step *= length_of(x, axis);
  }
  return at;
}

int kb_run_matmul(const kb_node* node, kb_error error) {
  const kb_tensor_info *a = &node->x[0]->info, *b = &node->x[1]->info, *y = &node->y->info;
  const int swap_a = node->ints[0], swap_b = node->ints[1];
  const int64_t width_a = length_of(a, 0), width_b = length_of(b, 0);
  const product p = {.rows = length_of(y, 1),
                     .columns = length_of(y, 0),
                     .depth = length_of(a, swap_a),
                     .row_a = swap_a ? 1 : width_a,
                     .depth_a = swap_a ? width_a : 1,
                     .column_b = swap_b ? width_b : 1,
                     .depth_b = swap_b ? 1 : width_b};
  const int64_t size = p.rows * p.columns;
  (void)error;
  for (int64_t i = 0; i < node->y->count / size; i++)
    multiply(&p, kb_floats(node->x[0]) + matrix_at(a, y, i),
             kb_floats(node->x[1]) + matrix_at(b, y, i), kb_results(node) + i * size);
  return 0;
}
