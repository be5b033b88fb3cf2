#include "block.h"

/* First bytes of windows in the image itself. */
static void point(const kb_block* block, const kb_image* image, const uint8_t* plane,
                  const uint8_t** pointers) {
  const int64_t* stride = block->plan->window.stride;
  const size_t right = (size_t)stride[1] * image->pixel_bytes;
  const size_t down = (size_t)(stride[0] * image->size[1]) * image->pixel_bytes;
  kb_position at = kb_block_start(block);
  const uint8_t* row = plane + (size_t)at.row * down;
  const uint8_t* from = row + (size_t)at.column * right;
  for (int p = 0; p < block->count; p++, from += right) {
    if (at.column++ == at.width) {
      at.column = 1;
      from = row += down;
    }
    pointers[p] = from;
  }
}

static void point_to_windows(const kb_block* block, kb_image_kind kind) {
  const kb_op* op = block->op;
  const kb_plan* plan = block->plan;
  const kb_image* image = &plan->image[kind];
  const uint8_t** pointers = kb_block_own(block, plan->pointers[kind]);
  const uint8_t* planes = kb_shared(op, image->at);
  const uint8_t* patches = kb_block_own(block, plan->patches[kind]);
  if (image->patch_terms)
    kb_gather_patches(op, plan, kind, block->group, block->first, block->count, block->worker);
  for (int t = 0; t < (image->patch_terms ? image->patch_terms : image->terms); t++) {
    const uint8_t** to = pointers + (int64_t)t * plan->block;
    if (!image->patch_terms) {
      const size_t plane = (size_t)(t * op->geometry.groups + block->group);
      point(block, image, planes + plane * image->plane_bytes, to);
      continue;
    }
    for (int p = 0; p < block->count; p++)
      to[p] = patches + (size_t)(t * plan->block + p) * image->patch_bytes;
  }
}

/* Sums of the rows of pixels that windows of one output row meet, in the columns that the windows
 * at `count` outputs from `first` on meet; step is from tap to tap in the input. */
static void sum_rows(const kb_block* block, kb_position first, int64_t count, const int64_t* step,
                     double* columns) {
  const kb_plan* plan = block->plan;
  const kb_reach* row = kb_block_reach(block, 0, first.row);
  const kb_reach* reach = kb_block_reach(block, 1, first.column);
  const int64_t width = plan->window.in[1];
  int64_t low = width, high = 0;
  for (int64_t i = 0; i < count; i++) {
    const int64_t end = reach[i].start + (reach[i].count - 1) * step[1] + 1;
    if (reach[i].count && reach[i].start < low) low = reach[i].start;
    if (reach[i].count && end > high) high = end;
  }
  const double* pixels = (const double*)kb_shared(block->op, plan->pixel_sums) +
                         block->group * plan->in_pixels + row->start * width;
  for (int64_t x = low; x < high; x++) columns[x] = 0;
  for (int32_t i = 0; i < row->count; i++, pixels += step[0] * width) {
    for (int64_t x = low; x < high; x++) columns[x] += pixels[x];
  }
}

/* Sums of the columns that `count` outputs of a row meet. Neighbours of the same taps, one column
 * further each, are summed tap by tap. */
static void sum_columns(const kb_reach* reach, int64_t count, int64_t step, const double* columns,
                        double* sums) {
  for (int64_t i = 0, run; i < count; i += run, reach += run, sums += run) {
    for (run = 1; i + run < count; run++)
      if (reach[run].count != reach->count || reach[run].start != reach->start + run) break;
    for (int64_t r = 0; r < run; r++) sums[r] = 0;
    const double* tap = columns + reach->start;
    for (int32_t j = 0; j < reach->count; j++, tap += step)
      for (int64_t r = 0; r < run; r++) sums[r] += tap[r];
  }
}

/* Sums of the inputs that the windows of a block meet. */
static void sum_inputs(const kb_block* block) {
  const kb_window* window = &block->plan->window;
  int64_t step[2];
  for (int axis = 0; axis < 2; axis++)
    step[axis] = window->step[axis] * window->dilation[axis] / window->input_dilation[axis];
  double* sums = kb_block_own(block, block->plan->input_sums);
  double* columns = kb_block_own(block, block->plan->column_sums);
  kb_position at = kb_block_start(block);
  for (int64_t left = block->count, some; left > 0; left -= some, sums += some) {
    some = at.width - at.column < left ? at.width - at.column : left;
    sum_rows(block, at, some, step, columns);
    sum_columns(kb_block_reach(block, 1, at.column), some, step[1], columns, sums);
    at = (kb_position){at.row + 1, 0, at.width};
  }
}

void kb_block_enter(kb_block* block, int64_t group) {
  block->group = group;
  for (int kind = 0; kind < KB_IMAGES; kind++) {
    if (block->plan->image[kind].used) point_to_windows(block, (kb_image_kind)kind);
  }
  if (block->op->weights.needs_input_sums) sum_inputs(block);
}
