/* What a run needs to know of the shape alone. Tables are filled once: which taps meet the input, the
 * sums that outputs start from, offsets of taps. The zeros around images are written anew where other
 * layers use the same memory. */
#include "op.h"

/* Taps of one output row or column, without its pattern. */
static kb_reach reach_of(const kb_window* window, int axis, int64_t out) {
  const kb_taps taps = kb_window_taps(window, axis == 0 ? out : 0, axis == 1 ? out : 0);
  const int64_t first = taps.first[axis], end = taps.end[axis], step = window->step[axis];
  kb_reach reach = {.first = (int32_t)first};
  if (first >= end) return reach;
  reach.count = (int32_t)((end - first + step - 1) / step);
  reach.start = kb_window_at(window, axis, out, first) / window->input_dilation[axis];
  return reach;
}

int64_t kb_plan_reach(const kb_window* window, int axis, kb_reach* reach) {
  enum { kKnown = 8 }; /* as many as a strided layer has between its borders, mostly */
  kb_reach known[kKnown];
  int64_t patterns = 0;
  for (int64_t out = 0; out < window->out[axis]; out++) {
    kb_reach here = reach_of(window, axis, out);
    const int64_t latest = patterns < kKnown ? patterns : kKnown;
    here.pattern = -1;
    for (int64_t i = 0; i < latest && here.pattern < 0; i++) {
      if (known[i].first == here.first && known[i].count == here.count)
        here.pattern = known[i].pattern;
    }
    if (here.pattern < 0) {
      here.pattern = (int32_t)patterns;
      known[patterns++ % kKnown] = here;
    }
    if (reach) reach[out] = here;
  }
  return patterns;
}

static void add_sums(const double* restrict sums, int64_t out, double* restrict base) {
  for (int64_t o = 0; o < out; o++) base[o] += sums[o];
}

static void add_starts(const int32_t* restrict starts, int64_t out, int32_t* restrict total) {
  for (int64_t o = 0; o < out; o++) total[o] += starts[o];
}

/* base = bias + what the taps of a pattern add; of whole numbers, that without the bias. */
static void set_base(const kb_op* op, const kb_window* window, const kb_reach* row,
                     const kb_reach* column, void* base) {
  const kb_weights* weights = &op->weights;
  const int64_t out = op->geometry.out, bytes = (out + KB_MAX_ROWS) * kb_base_bytes(weights);
  if (weights->is_whole)
    memset(base, 0, (size_t)bytes);
  else
    memcpy(base, weights->bias, (size_t)bytes);
  if (!kb_has_patterns(weights)) return;
  for (int32_t i = 0; i < row->count; i++) {
    const int64_t ky = row->first + i * window->step[0];
    for (int32_t j = 0; j < column->count; j++) {
      const int64_t kx = column->first + j * window->step[1];
      const int64_t at = (ky * window->kernel[1] + kx) * out;
      if (weights->is_whole)
        add_starts(weights->tap_starts + at, out, base);
      else
        add_sums(weights->tap_sums + at, out, base);
    }
  }
}

/* Patterns are numbered as they come. */
static void set_bases(const kb_op* op, const kb_plan* plan) {
  const kb_window* window = &plan->window;
  const kb_reach *rows = kb_table(op, plan->reach[0]), *columns = kb_table(op, plan->reach[1]);
  const int64_t size = (op->geometry.out + KB_MAX_ROWS) * kb_base_bytes(&op->weights);
  char* base = kb_table(op, plan->base);
  int32_t row = 0, column;
  for (int64_t y = 0; y < window->out[0] && row < plan->patterns[0]; y++) {
    if (rows[y].pattern != row) continue;
    column = 0;
    for (int64_t x = 0; x < window->out[1] && column < plan->patterns[1]; x++) {
      if (columns[x].pattern != column) continue;
      set_base(op, window, &rows[y], &columns[x], base + (row * plan->patterns[1] + column) * size);
      column++;
    }
    row++;
  }
}

/* Offsets from the first byte of a window, or of a patch. */
static void set_taps(const kb_op* op, const kb_plan* plan, kb_image_kind kind) {
  const kb_image* image = &plan->image[kind];
  const kb_layout* layout = &op->weights.layout[kind];
  const kb_window* window = &plan->window;
  ptrdiff_t* taps = kb_table(op, plan->taps[kind]);
  for (int64_t tap = 0; tap < layout->taps; tap++) {
    const int64_t ky = tap / window->kernel[1], kx = tap % window->kernel[1];
    const int64_t at = ky * window->dilation[0] * image->size[1] + kx * window->dilation[1];
    taps[tap] = (ptrdiff_t)(image->patch_terms ? tap * layout->units * layout->unit_bytes
                                               : at * (int64_t)image->pixel_bytes);
  }
}

/* Zeros of one term and group that no pixel of the input will overwrite: in one piece from the end of
 * one row of pixels to the start of the next. */
static void clear_plane(const kb_plan* plan, const kb_image* image, uint8_t* plane) {
  const int64_t *in = plan->window.in, *size = image->size, *origin = image->origin;
  if (image->spacing[0] > 1 || image->spacing[1] > 1) {
    memset(plane, 0, image->plane_bytes);
    return;
  }
  int64_t end[2]; /* of the pixels that the image has room for */
  for (int axis = 0; axis < 2; axis++)
    end[axis] = origin[axis] + in[axis] < size[axis] ? origin[axis] + in[axis] : size[axis];
  const int64_t rows = origin[1] < end[1] ? end[0] : 0;
  size_t done = 0;
  for (int64_t row = origin[0]; row < rows; row++) {
    const size_t first = (size_t)(row * size[1] + origin[1]) * image->pixel_bytes;
    memset(plane + done, 0, first - done);
    done = (size_t)(row * size[1] + end[1]) * image->pixel_bytes;
  }
  memset(plane + done, 0, image->plane_bytes - done);
}

void kb_fill_tables(const kb_op* op, const kb_plan* plan) {
  for (int axis = 0; axis < 2; axis++)
    kb_plan_reach(&plan->window, axis, kb_table(op, plan->reach[axis]));
  if (!kb_has_patterns(&op->weights)) { /* all windows are alike */
    for (int axis = 0; axis < 2; axis++) {
      kb_reach* reach = kb_table(op, plan->reach[axis]);
      for (int64_t i = 0; i < plan->window.out[axis]; i++) reach[i].pattern = 0;
    }
  }
  set_bases(op, plan);
  for (int kind = 0; kind < KB_IMAGES; kind++) {
    if (plan->image[kind].used) set_taps(op, plan, (kb_image_kind)kind);
  }
}

void kb_clear_images(const kb_op* op, const kb_plan* plan) {
  for (int kind = 0; kind < KB_IMAGES; kind++) {
    const kb_image* image = &plan->image[kind];
    if (!image->used || image->bare) continue;
    uint8_t* plane = kb_shared(op, image->at);
    const int64_t planes = image->terms * op->geometry.groups;
    for (int64_t i = 0; i < planes; i++, plane += image->plane_bytes)
      clear_plane(plan, image, plane);
  }
}
