/* One run: quantize the inputs into images, then blocks of output pixels times tiles of channels:
 *
 *     y = clamp((sum_parts coefficient * <row, term> + input_weight * input_sum) * scale + base)
 *
 * The products <.,.> are whole numbers and exact. The rest is done once and in a fixed order, so that
 * results depend neither on the instruction set nor on the number of threads: in double, or, where
 * all but scale and base are whole numbers, too, in int32 and float (whole.h). */
#include "block.h"
#include "depthwise_float.h"

/* One image of the batch, cut in items that do not depend on each other. */
typedef struct {
  const kb_op* op;
  const kb_plan* plan;
  const float* x;
  float* y;
  int64_t pixels;       /* of the input that an item fills */
} kb_run;

static int steps_of(const kb_op* op, const kb_tile* tile) {
  return tile->form == KB_FORM_F32 ? 0 : INT16_MAX / (2 * op->input.bytes.most * tile->most);
}

/* All pieces of one plane of a tile and one term; returns where the next sums go. */
static uint8_t* multiply_plane(const kb_block* block, const kb_tile* tile, kb_pieces pieces,
                               kb_gemm_args* args, size_t stride) {
  const kb_op* op = block->op;
  const kb_layout* layout = &op->weights.layout[kb_image_of(tile->form)];
  const int bits = op->kernels.bits_unit_bytes;
  const size_t of_unit = (size_t)kb_unit_weight_bytes(tile->form, bits) * (size_t)tile->rows;
  const int input_unit = kb_unit_input_bytes(tile->form, bits);
  const ptrdiff_t* taps = kb_table(op, block->plan->taps[kb_image_of(tile->form)]);
  const uint8_t* weights = args->weights;
  for (int64_t tap = 0; tap < layout->taps; tap += pieces.taps) {
    const int64_t left = layout->taps - tap;
    args->tap_count = (int)(left < pieces.taps ? left : pieces.taps);
    for (int64_t unit = 0; unit < tile->units; unit += pieces.units) {
      const int64_t rest = tile->units - unit;
      const ptrdiff_t from = unit ? taps[tap] + (ptrdiff_t)(unit * input_unit) : 0;
      args->units = (int)(rest < pieces.units ? rest : pieces.units);
      args->taps = unit ? &from : taps + tap;
      args->weights = weights + (size_t)(tap * tile->units + unit) * of_unit;
      op->kernels.gemm[tile->form](args);
      args->sums = (uint8_t*)args->sums + stride;
    }
  }
  return args->sums;
}

/* Returns the number of parts. */
static int multiply(const kb_block* block, const kb_tile* tile, kb_pieces pieces, size_t stride) {
  const kb_plan* plan = block->plan;
  const kb_image_kind kind = kb_image_of(tile->form);
  const kb_image* image = &plan->image[kind];
  const int terms = image->patch_terms ? image->patch_terms : image->terms;
  const uint8_t* const* pointers = kb_block_own(block, plan->pointers[kind]);
  kb_gemm_args args = {.levels = tile->levels, .sums = kb_block_own(block, plan->sums),
                       .count = block->count, .rows = tile->rows, .used = tile->used,
                       .unit_bytes = block->op->kernels.bits_unit_bytes,
                       .steps = steps_of(block->op, tile)};
  for (int t = 0; t < terms; t++) {
    args.pixels = pointers + (int64_t)t * plan->block;
    for (int plane = 0; plane < tile->planes; plane++) {
      args.weights = tile->weights + (size_t)plane * tile->plane_bytes;
      args.sums = multiply_plane(block, tile, pieces, &args, stride);
    }
  }
  return terms * tile->planes * (int)pieces.count;
}

/* Coefficients of all parts, where a row of weights was cut in pieces. */
static const double* repeat_coefficients(const kb_block* block, const kb_tile* tile, int parts,
                                         int pieces) {
  double* to = kb_block_own(block, block->plan->coefficients);
  for (int part = 0; part < parts; part++) {
    for (int r = 0; r < tile->rows; r++)
      to[part * tile->rows + r] =
          tile->coefficients ? tile->coefficients[part / pieces * tile->rows + r] : 1;
  }
  return to;
}

/* Pointers to what the outputs of a tile start from: doubles, or int32. */
static const void* const* bases_of(kb_block* block, const kb_tile* tile) {
  const kb_plan* plan = block->plan;
  const int64_t each = kb_base_bytes(&block->op->weights), before = block->based;
  const int64_t size = (block->op->geometry.out + KB_MAX_ROWS) * each;
  const char* base = (const char*)kb_table(block->op, plan->base) + tile->first * each;
  const void** bases = kb_block_own(block, plan->bases);
  block->based = tile->first;
  if (before >= 0) {
    const int64_t further = (tile->first - before) * each;
    for (int p = 0; p < block->count; p++) bases[p] = (const char*)bases[p] + further;
    return bases;
  }
  kb_position at = kb_block_start(block);
  for (int p = 0; p < block->count; p++, kb_advance(&at)) {
    const int64_t pattern = kb_block_reach(block, 0, at.row)->pattern * plan->patterns[1] +
                            kb_block_reach(block, 1, at.column)->pattern;
    bases[p] = base + pattern * size;
  }
  return bases;
}

static void scatter(const kb_block* block, const kb_tile* tile, const float* results) {
  const int64_t out = block->op->geometry.out, *order = block->op->weights.order + tile->first;
  for (int p = 0; p < block->count; p++, results += tile->used) {
    for (int r = 0; r < tile->used; r++) block->y[p * out + order[r]] = results[r];
  }
}

/* Shifts of all parts, where a row of weights was cut in pieces. */
static const int32_t* repeat_shifts(const kb_block* block, const int32_t* shifts, int parts,
                                    int pieces) {
  int32_t* to = kb_block_own(block, block->plan->coefficients);
  for (int part = 0; part < parts; part++) to[part] = shifts ? shifts[part / pieces] : 0;
  return to;
}

/* The sums of a tile: parts that lie stride bytes apart, of pieces. */
typedef struct {
  int parts, pieces;
  size_t stride;
} kb_sums;

/* Where outputs go: the first, and from pixel to pixel. */
typedef struct {
  float* y;
  size_t stride;
} kb_outputs;

static void finish(kb_block* block, const kb_tile* tile, kb_sums sums, kb_outputs to) {
  const kb_op* op = block->op;
  kb_finish_args args = {.sums = kb_block_own(block, block->plan->sums), .part_stride = sums.stride,
                         .parts = sums.parts, .is_float = tile->form == KB_FORM_F32,
                         .coefficients = tile->coefficients, .scales = tile->scales,
                         .input_weights = tile->input_weights,
                         .input_sums = kb_block_own(block, block->plan->input_sums),
                         .base = bases_of(block, tile), .low = op->geometry.act_min,
                         .high = op->geometry.act_max, .count = block->count,
                         .rows = tile->rows, .used = tile->used, .y = to.y, .y_stride = to.stride};
  if (sums.pieces > 1)
    args.coefficients = repeat_coefficients(block, tile, sums.parts, sums.pieces);
  op->kernels.finish(&args);
}

static void finish_whole(kb_block* block, const kb_tile* tile, kb_sums sums, kb_outputs to) {
  const kb_op* op = block->op;
  const kb_whole_rows* whole = &tile->whole;
  kb_finish_whole_args args = {.sums = kb_block_own(block, block->plan->sums),
                               .part_stride = sums.stride, .parts = sums.parts,
                               .shifts = whole->shifts, .input_weights = whole->input_weights,
                               .input_sums = kb_block_own(block, block->plan->whole_sums),
                               .scales = whole->scales, .biases = whole->biases,
                               .low = op->geometry.act_min, .high = op->geometry.act_max,
                               .count = block->count, .rows = tile->rows, .used = tile->used,
                               .y = to.y, .y_stride = to.stride};
  if (op->weights.tap_starts) args.starts = bases_of(block, tile);
  if (sums.pieces > 1) args.shifts = repeat_shifts(block, whole->shifts, sums.parts, sums.pieces);
  op->kernels.finish_whole(&args);
}

static void run_tile(kb_block* block, const kb_tile* tile) {
  const kb_op* op = block->op;
  const kb_pieces pieces = kb_tile_pieces(op, tile);
  const size_t stride = (size_t)block->count * (size_t)tile->rows * sizeof(int32_t);
  const int parts = multiply(block, tile, pieces, stride);
  kb_outputs to = {kb_block_own(block, block->plan->results), (size_t)tile->used};
  if (tile->contiguous)
    to = (kb_outputs){block->y + op->weights.order[tile->first], (size_t)op->geometry.out};
  const kb_sums sums = {parts, (int)pieces.count, stride};
  (op->weights.is_whole ? finish_whole : finish)(block, tile, sums, to);
  if (!tile->contiguous) scatter(block, tile, to.y);
}

/* Channels without weights are their bias. */
static void write_dropped(const kb_block* block, const kb_tile* tile) {
  const kb_op* op = block->op;
  const float low = op->geometry.act_min, high = op->geometry.act_max;
  for (int r = 0; r < tile->used; r++) {
    const float bias = (float)op->weights.bias[tile->first + r];
    float* y = block->y + op->weights.order[tile->first + r];
    for (int p = 0; p < block->count; p++, y += op->geometry.out)
      *y = bias < low ? low : bias > high ? high : bias;
  }
}

/* Go to a group. Sums of levels are whole, but they may be larger than an int32: modulo 2^32. */
static void enter(kb_block* block, int64_t group) {
  kb_block_enter(block, group);
  if (!block->op->weights.is_whole || !block->op->weights.needs_input_sums) return;
  const double* sums = kb_block_own(block, block->plan->input_sums);
  int32_t* whole = kb_block_own(block, block->plan->whole_sums);
  for (int p = 0; p < block->count; p++) whole[p] = (int32_t)(uint32_t)(int64_t)sums[p];
}

static void run_item(void* context, int item, int worker) {
  const kb_run* run = context;
  const kb_op* op = run->op;
  const int64_t number = item / run->plan->shares, share = item % run->plan->shares;
  const int64_t tiles = op->weights.tiles;
  kb_block block = {.op = op, .plan = run->plan, .worker = worker, .group = -1,
                    .based = -1};
  block.first = number * run->plan->block;
  const int64_t left = run->plan->out_pixels - block.first;
  block.count = (int)(left < run->plan->block ? left : run->plan->block);
  block.y = run->y + block.first * op->geometry.out;
  const int64_t end = tiles * (share + 1) / run->plan->shares;
  for (int64_t i = tiles * share / run->plan->shares; i < end; i++) {
    const kb_tile* tile = &op->weights.tile[i];
    if (tile->form == KB_FORMS) {
      write_dropped(&block, tile);
      continue;
    }
    if (tile->group != block.group) enter(&block, tile->group);
    run_tile(&block, tile);
  }
}

static void fill_item(void* context, int item, int worker) {
  const kb_run* run = context;
  const int64_t first = item * run->pixels, left = run->plan->in_pixels - first;
  const int64_t channels = run->op->geometry.in * run->op->geometry.groups;
  kb_fill_pixels(run->op, run->plan, first, left < run->pixels ? left : run->pixels,
                 run->x + first * channels, worker);
}

/* Items of some number of pixels: several for each worker, so that none waits long, but large
 * enough to pay, and fewer than a pool takes. */
static int64_t items_of(int64_t pixels, int64_t each, int64_t* of_item) {
  enum { kMost = 1 << 28 };
  *of_item = each > pixels / kMost + 1 ? each : pixels / kMost + 1;
  return (pixels + *of_item - 1) / *of_item;
}

static void run_image(kb_run* run) {
  const kb_op* op = run->op;
  const kb_plan* plan = run->plan;
  const int64_t blocks = (plan->out_pixels + plan->block - 1) / plan->block;
  kb_phase phases[2] = {{0, fill_item}, {(int)(blocks * plan->shares), run_item}};
  int used = 0;
  for (int kind = 0; kind < KB_IMAGES; kind++) used |= plan->image[kind].used && plan->in_pixels;
  if (used) {
    const int64_t width = plan->window.in[1], parts = 4 * plan->threads;
    const int64_t share = (plan->in_pixels + parts - 1) / parts;
    const int64_t rows = (share + width - 1) / width * width; /* whole rows, unless they are long */
    const int64_t pixels = rows < 2 * share ? rows : share > plan->strip ? share : plan->strip;
    phases[0].items = (int)items_of(plan->in_pixels, pixels, &run->pixels);
  }
  kb_parallel_phases(kb_pool_of(op, plan), phases + !used, 1 + used, run);
}

void kb_execute(kb_op* op, const float* x, float* y) {
  const kb_plan* plan = &op->plan;
  const kb_blob* layer = &op->geometry;
  if (!op->cleared) kb_spoil(op, op->scratch, plan->bytes);
  if (op->depthwise.parts) {
    const kb_dw_run whole = kb_dw_run_of(op, plan);
    kb_dw_execute(&whole, kb_pool_of(op, plan), op->scratch, x, y);
    return;
  }
  if (layer->op == KB_DEPTHWISE) {
    kb_depthwise_float(op, plan, x, y);
    return;
  }
  if (plan->images == 0 || plan->out_pixels == 0) return;
  if (!op->cleared) kb_clear_images(op, plan);
  op->cleared = !op->is_lent;
  kb_run run = {.op = op, .plan = plan, .x = x, .y = y};
  for (int64_t i = 0; i < plan->images; i++) {
    run_image(&run);
    run.x += plan->in_pixels * layer->in * layer->groups;
    run.y += plan->out_pixels * layer->out;
  }
}
