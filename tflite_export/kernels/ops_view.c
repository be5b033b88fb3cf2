/* Operations that put elements of x in other places: each output index leads to one input index
 * along each axis, or outside, where a value is filled in. TRANSPOSE, SLICE, PAD, MIRROR_PAD, TILE,
 * RESIZE_NEAREST. */
#include <math.h>
#include <string.h>

#include "ops.h"

enum { kElement = sizeof(float), kOutside = -1 };

static const int32_t* pads(const kb_node* node) {
  return node->ints + (node->op == KB_OP_MIRROR_PAD ? 1 : 0);
}

static int check_transpose(const kb_node* node, kb_error error) {
  const kb_tensor_info *x = &node->x[0]->info, *y = &node->y->info;
  unsigned seen = 0;
  if (node->int_count != x->rank)
    return kb_fail_node(node, error, "expected %d ints, got %d", x->rank, node->int_count);
  for (int a = 0; a < x->rank; a++) {
    int from = node->ints[a];
    if (from < 0 || from >= x->rank || seen >> from & 1 || y->dims[a] != x->dims[from])
      return kb_fail_node(node, error, "expected each input axis once, with its length in the "
                          "output");
    seen |= 1u << from;
  }
  return 0;
}

static int check_slice(const kb_node* node, kb_error error) {
  const kb_tensor_info *x = &node->x[0]->info, *y = &node->y->info;
  if (node->int_count != 2 * x->rank)
    return kb_fail_node(node, error, "expected %d ints, got %d", 2 * x->rank, node->int_count);
  for (int a = 0; a < x->rank; a++) {
    const int64_t first = node->ints[a], step = node->ints[x->rank + a];
    const int64_t last = first + step * (y->dims[a] - 1);
    if (step == 0 || first < 0 || first >= x->dims[a] || last < 0 || last >= x->dims[a])
      return kb_fail_node(node, error, "expected indices of axis %d inside of %d, got %lld to "
                          "%lld", a, x->dims[a], (long long)first, (long long)last);
  }
  return 0;
}

static int check_pad(const kb_node* node, kb_error error) {
  const kb_tensor_info *x = &node->x[0]->info, *y = &node->y->info;
  const int mirror = node->op == KB_OP_MIRROR_PAD, mode = node->ints[0];
  if (node->int_count != 2 * x->rank + mirror || (mirror && mode != 0 && mode != 1))
    return kb_fail_node(node, error, "expected %d ints, the mode of a mirror 0 or 1",
                        2 * x->rank + mirror);
  for (int a = 0; a < x->rank; a++) {
    const int64_t before = pads(node)[2 * a], after = pads(node)[2 * a + 1];
    const int64_t most = mirror ? x->dims[a] - 1 + mode : INT32_MAX;
    if (before < 0 || after < 0 || before > most || after > most ||
        before + x->dims[a] + after != y->dims[a])
      return kb_fail_node(node, error, "expected axis %d of %d to become %d, got %lld before and "
                          "%lld after", a, x->dims[a], y->dims[a], (long long)before,
                          (long long)after);
  }
  return 0;
}

static int check_tile(const kb_node* node, kb_error error) {
  const kb_tensor_info *x = &node->x[0]->info, *y = &node->y->info;
  for (int a = 0; a < x->rank; a++) {
    if (y->dims[a] % x->dims[a])
      return kb_fail_node(node, error, "expected a multiple of %d for axis %d, got %d", x->dims[a],
                          a, y->dims[a]);
  }
  return 0;
}

static int check_resize(const kb_node* node, kb_error error) {
  const kb_tensor_info *x = &node->x[0]->info, *y = &node->y->info;
  const int corners = node->ints[0], centers = node->ints[1];
  if (x->rank != 4 || x->dims[0] != y->dims[0] || x->dims[3] != y->dims[3])
    return kb_fail_node(node, error, "expected NHWC images with as many channels as the output");
  if ((corners != 0 && corners != 1) || (centers != 0 && centers != 1) || (corners && centers))
    return kb_fail_node(node, error, "expected aligned corners or half pixel centers, got %d, %d",
                        corners, centers);
  return 0;
}

int kb_check_view(const kb_node* node, kb_error error) {
  if (node->x[0]->info.rank != node->y->info.rank || node->x[0]->info.type != node->y->info.type)
    return kb_fail_node(node, error, "expected an output of the rank and type of the input");
  switch (node->op) {
    case KB_OP_TRANSPOSE: return check_transpose(node, error);
    case KB_OP_SLICE: return check_slice(node, error);
    case KB_OP_TILE: return check_tile(node, error);
    case KB_OP_RESIZE_NEAREST:
    case KB_OP_RESIZE_BILINEAR: return check_resize(node, error);
    default: return check_pad(node, error);
  }
}

static int64_t mirrored(int64_t at, int64_t length, int symmetric) {
  if (at < 0) return -at - symmetric;
  return at < length ? at : 2 * (length - 1) - at + symmetric;
}

static int64_t nearest(const kb_node* node, int64_t in, int64_t out, int32_t at) {
  const int corners = node->ints[0], centers = node->ints[1];
  const float scale = corners && out > 1 ? (float)(in - 1) / (float)(out - 1)
                                         : (float)in / (float)out;
  const float place = ((float)at + (centers ? 0.5f : 0.0f)) * scale;
  const int64_t index = (int64_t)(corners ? roundf(place) : floorf(place));
  return index < in ? index : in - 1;
}

/* Input index of output index `at` along an output axis. */
static int64_t source(const kb_node* node, int axis, int32_t at) {
  const int64_t in = node->x[0]->info.dims[axis], out = node->y->info.dims[axis];
  switch (node->op) {
    case KB_OP_SLICE:
      return node->ints[axis] + (int64_t)node->ints[node->x[0]->info.rank + axis] * at;
    case KB_OP_TILE: return at % in;
    case KB_OP_MIRROR_PAD: return mirrored(at - pads(node)[2 * axis], in, node->ints[0]);
    case KB_OP_PAD: {
      int64_t index = (int64_t)at - pads(node)[2 * axis];
      return index < in ? index : kOutside;
    }
    case KB_OP_RESIZE_NEAREST: return in == out ? at : nearest(node, in, out, at);
    default: return at;
  }
}

typedef struct {
  const kb_node* node;
  int whole;                    /* axes from here on are copied as they are */
  size_t step_x[KB_MAX_RANK];   /* bytes from one index to the next, of the input axis that an */
  size_t step_y[KB_MAX_RANK];   /* output axis comes from, and of the output */
  size_t block;                 /* bytes of the axes from `whole` on */
} view;

static void fill(const kb_node* node, uint8_t* y, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kElement) memcpy(y + at, &node->floats[0], kElement);
}

static void run_axis(const view* v, int axis, const uint8_t* x, uint8_t* y) {
  if (axis == v->whole) {
    memcpy(y, x, v->block);
    return;
  }
  for (int32_t i = 0; i < v->node->y->info.dims[axis]; i++, y += v->step_y[axis]) {
    const int64_t from = source(v->node, axis, i);
    if (from < 0)
      fill(v->node, y, v->step_y[axis]);
    else
      run_axis(v, axis + 1, x + (size_t)from * v->step_x[axis], y);
  }
}

static int is_whole(const kb_node* node, int axis) {
  if (node->op == KB_OP_TRANSPOSE) return node->ints[axis] == axis;
  if (node->x[0]->info.dims[axis] != node->y->info.dims[axis]) return 0;
  return node->op != KB_OP_SLICE || node->ints[node->x[0]->info.rank + axis] == 1;
}

int kb_run_view(const kb_node* node, kb_error error) {
  const kb_tensor_info *x = &node->x[0]->info, *y = &node->y->info;
  view v = {.node = node, .whole = y->rank, .block = kElement};
  size_t step_x[KB_MAX_RANK], step = kElement;
  (void)error;
  for (int a = x->rank - 1; a >= 0; a--) {
    step_x[a] = step;
    step *= (size_t)x->dims[a];
  }
  step = kElement;
  for (int a = y->rank - 1; a >= 0; a--) {
    v.step_y[a] = step;
    v.step_x[a] = step_x[node->op == KB_OP_TRANSPOSE ? node->ints[a] : a];
    step *= (size_t)y->dims[a];
    if (v.whole == a + 1 && is_whole(node, a)) {
      v.whole = a;
      v.block = step;
    }
  }
  run_axis(&v, 0, node->x[0]->data, node->y->data);
  return 0;
}
