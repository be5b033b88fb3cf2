/* Shapes and scratch memory. All sizes come from outside, so every product is checked. */
#include "op.h"

static int64_t channels_in(const kb_op* op) { return op->geometry.in * op->geometry.groups; }

static int64_t common_divisor(int64_t a, int64_t b) {
  while (b) {
    int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

/* Output size and leading padding of one axis; -1 if the kernel does not fit. */
static int64_t output_size(const kb_blob* layer, int axis, int64_t in, int64_t* pad) {
  const int64_t stride = layer->stride[axis];
  const int64_t reach = (layer->kernel[axis] - 1) * layer->dilation[axis] + 1;
  *pad = layer->pad_before[axis];
  if (layer->padding == KB_SAME) {
    int64_t out = (in + stride - 1) / stride;
    int64_t total = (out - 1) * stride + reach - in;
    *pad = total > 0 ? total / 2 : 0;
    return out;
  }
  int64_t padded = kb_widened(in, layer->input_dilation[axis]) + layer->pad_before[axis] +
                   layer->pad_after[axis];
  return padded < reach ? -1 : (padded - reach) / stride + 1;
}

static void set_window(const kb_blob* layer, kb_window* window) {
  for (int axis = 0; axis < 2; axis++) {
    int64_t between = layer->input_dilation[axis];
    window->kernel[axis] = layer->kernel[axis];
    window->stride[axis] = layer->stride[axis];
    window->dilation[axis] = layer->dilation[axis];
    window->input_dilation[axis] = between;
    window->step[axis] = between / common_divisor(layer->dilation[axis], between);
  }
}

static int embedding_shape(const kb_op* op, const int32_t* dims, int rank, kb_plan* plan,
                           kb_error error) {
  if (rank < 0 || rank >= KB_MAX_RANK)
    return kb_fail(error, "embedding: expected ids of rank 0 to %d, got rank %d", KB_MAX_RANK - 1,
                   rank);
  plan->rank = rank + 1;
  plan->out_pixels = 1;
  for (int i = 0; i < rank; i++) {
    plan->dims[i] = dims[i];
    if (__builtin_mul_overflow(plan->out_pixels, (int64_t)dims[i], &plan->out_pixels))
      return kb_fail(error, "embedding: expected fewer than 2^63 ids, got more");
  }
  plan->dims[rank] = (int32_t)kb_embedding_columns(&op->geometry);
  if (plan->out_pixels > INT64_MAX / 8 / plan->dims[rank])
    return kb_fail(error, "embedding: expected fewer than 2^60 values, got more");
  return 0;
}

static int dense_shape(const kb_op* op, const int32_t* dims, int rank, kb_plan* plan,
                       kb_error error) {
  if (rank < 1 || rank > KB_MAX_RANK || dims[rank - 1] != op->geometry.in)
    return kb_fail(error, "dense: expected an input of rank 1 to %d with %lld channels, got rank %d"
                   " with %d", KB_MAX_RANK, (long long)op->geometry.in, rank,
                   rank > 0 && rank <= KB_MAX_RANK ? dims[rank - 1] : -1);
  int64_t rows = 1;
  for (int i = 0; i < rank - 1; i++) {
    plan->dims[i] = dims[i];
    if (__builtin_mul_overflow(rows, (int64_t)dims[i], &rows))
      return kb_fail(error, "dense: expected fewer than 2^63 rows, got more");
  }
  plan->images = 1;
  plan->window.in[0] = plan->window.out[0] = 1;
  plan->window.in[1] = plan->window.out[1] = rows;
  return 0;
}

static int conv_shape(const kb_op* op, const int32_t* dims, int rank, kb_plan* plan,
                      kb_error error) {
  if (rank != 4 || dims[3] != channels_in(op))
    return kb_fail(error, "convolution: expected an NHWC input with %lld channels, got rank %d with"
                   " %d", (long long)channels_in(op), rank, rank > 0 ? dims[rank - 1] : -1);
  plan->images = plan->dims[0] = dims[0];
  for (int axis = 0; axis < 2; axis++) {
    int64_t in = plan->window.in[axis] = dims[axis + 1];
    int64_t out = output_size(&op->geometry, axis, in, &plan->window.pad[axis]);
    if (out < 0 || out > INT32_MAX)
      return kb_fail(error, "convolution: expected an input that the kernel of %lld fits into, got "
                     "%lld", (long long)op->geometry.kernel[axis], (long long)in);
    plan->window.out[axis] = out;
    plan->dims[axis + 1] = (int32_t)out;
  }
  return 0;
}

int kb_plan_shape(const kb_op* op, const int32_t* dims, int rank, kb_plan* plan, kb_error error) {
  *plan = (kb_plan){.rank = rank};
  for (int i = 0; i < rank && i < KB_MAX_RANK; i++) {
    if (dims[i] < 0) return kb_fail(error, "expected no negative axis, got %d", dims[i]);
  }
  if (op->geometry.op == KB_EMBEDDING) return embedding_shape(op, dims, rank, plan, error);
  kb_window* window = &plan->window;
  set_window(&op->geometry, window);
  int dense = op->geometry.op == KB_DENSE;
  if ((dense ? dense_shape : conv_shape)(op, dims, rank, plan, error)) return -1;
  plan->dims[rank - 1] = (int32_t)op->geometry.out;
  int64_t in = 0, out = 0, all = 0;
  if (__builtin_mul_overflow(window->in[0], window->in[1], &plan->in_pixels) ||
      __builtin_mul_overflow(window->out[0], window->out[1], &plan->out_pixels) ||
      __builtin_mul_overflow(plan->in_pixels, channels_in(op), &in) ||
      __builtin_mul_overflow(plan->out_pixels, op->geometry.out, &out) ||
      __builtin_mul_overflow(in > out ? in : out, plan->images, &all) || all > INT64_MAX / 8)
    return kb_fail(error, "expected tensors of fewer than 2^60 elements, got more");
  return 0;
}
