/* MAX_POOL, AVERAGE_POOL: over windows of NHWC images, padded positions left out. */
#include <math.h>
#include <string.h>

#include "ops.h"

enum { KERNEL, STRIDE = 2, PAD = 4 }; /* where rows and columns are in node->ints */

int kb_check_pool(const kb_node* node, kb_error error) {
  const kb_tensor_info *x = &node->x[0]->info, *y = &node->y->info;
  if (x->rank != 4 || y->rank != 4 || x->dims[0] != y->dims[0] || x->dims[3] != y->dims[3])
    return kb_fail_node(node, error, "expected NHWC images with as many channels as the output");
  for (int axis = 0; axis < 2; axis++) {
    const int64_t kernel = node->ints[KERNEL + axis], stride = node->ints[STRIDE + axis];
    const int64_t before = node->ints[PAD + 2 * axis], after = node->ints[PAD + 2 * axis + 1];
    const int64_t in = x->dims[1 + axis], out = y->dims[1 + axis];
    if (kernel < 1 || stride < 1 || before < 0 || after < 0 || before >= kernel)
      return kb_fail_node(node, error, "expected positive sizes and strides, and padding smaller "
                          "than the kernel");
    if (in + before + after < kernel || (in + before + after - kernel) / stride + 1 != out)
      return kb_fail_node(node, error, "expected another length of axis %d than %lld", 1 + axis,
                          (long long)out);
    if ((out - 1) * stride - before >= in)
      return kb_fail_node(node, error, "expected no window in the padding alone");
  }
  return 0;
}

/* The part of a window that is inside of the image. */
typedef struct {
  int64_t first, end;
} range;

static range inside(const kb_node* node, int axis, int64_t at) {
  const int64_t in = node->x[0]->info.dims[1 + axis];
  const int64_t first = at * node->ints[STRIDE + axis] - node->ints[PAD + 2 * axis];
  const int64_t end = first + node->ints[KERNEL + axis];
  return (range){first > 0 ? first : 0, end < in ? end : in};
}

/* Some channels of one window. Of an average the double sums are divided, of a maximum NaN wins. */
enum { kSome = 64 };

static void add_up(double* sums, const float* x, int32_t count) {
  for (int32_t k = 0; k < count; k++) sums[k] += x[k];
}

static void keep_larger(float* top, const float* x, int32_t count) {
  for (int32_t k = 0; k < count; k++) top[k] = x[k] > top[k] || x[k] != x[k] ? x[k] : top[k];
}

static void pool_some(const kb_node* node, const float* image, range rows, range columns,
                      int32_t count, float* y) {
  const int32_t* dims = node->x[0]->info.dims;
  const int average = node->op == KB_OP_AVERAGE_POOL;
  double sums[kSome];
  float top[kSome];
  for (int32_t k = 0; k < count; k++) sums[k] = 0, top[k] = -INFINITY;
  for (int64_t r = rows.first; r < rows.end; r++) {
    for (int64_t c = columns.first; c < columns.end; c++) {
      const float* x = image + (r * dims[2] + c) * dims[3];
      if (average)
        add_up(sums, x, count);
      else
        keep_larger(top, x, count);
    }
  }
  const double size = (double)((rows.end - rows.first) * (columns.end - columns.first));
  for (int32_t k = 0; k < count; k++)
    y[k] = kb_clamp(node, average ? (float)(sums[k] / size) : top[k]);
}

/* Maxima of a row of windows: those of its rows of the image first, as if they were pixels of many
 * channels, since most images that are pooled have few. */
enum { kLine = 256 };

static void pool_line(const kb_node* node, const float* image, range rows, float* y) {
  const int32_t *in = node->x[0]->info.dims, *out = node->y->info.dims;
  const int32_t channels = in[3], width = in[2] * channels;
  float line[kLine];
  memcpy(line, image + rows.first * width, (size_t)width * sizeof *line);
  for (int64_t r = rows.first + 1; r < rows.end; r++) keep_larger(line, image + r * width, width);
  for (int32_t c = 0; c < out[2]; c++) {
    const range columns = inside(node, 1, c);
    float* top = y + (int64_t)c * channels;
    memcpy(top, line + columns.first * channels, (size_t)channels * sizeof *top);
    for (int64_t i = columns.first + 1; i < columns.end; i++)
      keep_larger(top, line + i * channels, channels);
  }
  if (!node->float_count) return;
  for (int64_t i = 0; i < (int64_t)out[2] * channels; i++) y[i] = kb_clamp(node, y[i]);
}

/* Rows of outputs, of all images, from `first` on. */
typedef struct {
  const kb_node* node;
  int64_t first;
} kb_rows;

static void pool_row(void* context, int item, int worker) {
  const kb_rows* all = context;
  const kb_node* node = all->node;
  const int32_t *in = node->x[0]->info.dims, *out = node->y->info.dims;
  const int64_t row = all->first + item;
  const float* image = kb_floats(node->x[0]) + row / out[1] * in[1] * in[2] * in[3];
  const range rows = inside(node, 0, row % out[1]);
  float* y = kb_results(node) + row * out[2] * out[3];
  (void)worker;
  if (node->op == KB_OP_MAX_POOL && (int64_t)in[2] * in[3] <= kLine) {
    pool_line(node, image, rows, y);
    return;
  }
  for (int32_t c = 0; c < out[2]; c++, y += out[3]) {
    const range columns = inside(node, 1, c);
    for (int32_t k = 0; k < out[3]; k += kSome)
      pool_some(node, image + k, rows, columns, out[3] - k < kSome ? out[3] - k : kSome, y + k);
  }
}

int kb_run_pool(const kb_node* node, kb_error error) {
  enum { kMost = 1 << 28 /* rows at a time */ };
  const int32_t* out = node->y->info.dims;
  const int64_t rows = (int64_t)out[0] * out[1];
  kb_pool* pool = node->x[0]->count < KB_SHARED_VALUES ? NULL : node->pool;
  (void)error;
  for (kb_rows all = {node, 0}; all.first < rows; all.first += kMost) {
    const int64_t left = rows - all.first;
    kb_parallel(pool, left < kMost ? (int)left : kMost, pool_row, &all);
  }
  return 0;
}
