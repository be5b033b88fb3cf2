#include "block.h"

/* First bytes of windows in the image itself. */
static void point(const kb_block* block, const kb_image* image, const uint8_t* plane,
                  const uint8_t** pointers) {
  const int64_t* stride = block->plan->window.stride;
  kb_position at = kb_block_start(block);
  for (int p = 0; p < block->count; p++, kb_advance(&at))
    pointers[p] = plane + (size_t)(at.row * stride[0] * image->size[1] + at.column * stride[1]) *
                  image->pixel_bytes;
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

/* Sums of the inputs that the windows of a block meet. */
static void sum_inputs(const kb_block* block) {
  const kb_window* window = &block->plan->window;
  int64_t step[2], known = -1;
  for (int axis = 0; axis < 2; axis++)
    step[axis] = window->step[axis] * window->dilation[axis] / window->input_dilation[axis];
  double* sums = kb_block_own(block, block->plan->input_sums);
  double* columns = kb_block_own(block, block->plan->column_sums);
  kb_position at = kb_block_start(block);
  for (int p = 0; p < block->count; p++, kb_advance(&at)) {
    const int64_t left = at.width - at.column, rest = block->count - p;
    if (at.row != known) sum_rows(block, at, left < rest ? left : rest, step, columns);
    known = at.row;
    const kb_reach* column = kb_block_reach(block, 1, at.column);
    const double* first = columns + column->start;
    double sum = 0;
    for (int32_t j = 0; j < column->count; j++) sum += first[j * step[1]];
    sums[p] = sum;
  }
}

void kb_block_enter(kb_block* block, int64_t group) {
  block->group = group;
  for (int kind = 0; kind < KB_IMAGES; kind++) {
    if (block->plan->image[kind].used) point_to_windows(block, (kb_image_kind)kind);
  }
  if (block->op->weights.needs_input_sums) sum_inputs(block);
}
