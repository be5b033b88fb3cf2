/* One run: quantize the inputs, lay out patches, call the kernels, and add up
 *
 *     y = multiplier * (sum_rows scale * sum_terms scale * <row, term>
 *                       + weight offset * sum_terms scale * <ones, term>
 *                       + input offset * sum of the weights at taps inside) + bias
 *
 * The products <.,.> are whole numbers and exact. The rest is done here, once, in double and in
 * a fixed order, so results do not depend on the instruction set. */
#include "op.h"

/* One block of output pixels at work. */
typedef struct {
  const kb_op* op;
  const kb_plan* plan;
  int64_t first; /* output pixel */
  int pixels;
  double* results;    /* [pixels][out] */
  double* input_sums; /* [groups][pixels] */
  double* totals;     /* [pixels][tile rows] */
} kb_block;

static void* scratch_at(const kb_op* op, size_t at) { return op->scratch + at; }

static const uint8_t* patches(const kb_block* block, kb_form form, int64_t image) {
  const kb_plan* plan = block->plan;
  const size_t pixel = plan->pixel_bytes[form];
  const uint8_t* source = (uint8_t*)scratch_at(block->op, plan->image[form]) +
                          (size_t)(image * plan->in_pixels) * pixel;
  if (plan->direct) return source + (size_t)block->first * pixel;
  uint8_t* columns = scratch_at(block->op, plan->columns);
  kb_im2col(&plan->window, source, pixel, block->first, block->pixels, columns,
            plan->stride[form]);
  return columns;
}

/* totals = one tile times all patches; integer sums are split where int32 could overflow. */
static void multiply_tile(const kb_block* block, kb_form form, const kb_panel* panel,
                          int64_t tile, const uint8_t* inputs) {
  const int count = block->pixels * kb_tile_rows(form);
  const size_t weight_chunk = panel->tile_bytes / (size_t)panel->chunks;
  void* sums = scratch_at(block->op, block->plan->sums);
  kb_gemm_args args = {.stride = block->plan->stride[form],
                       .pixels = block->pixels,
                       .max_weight = panel->max_weight,
                       .sums = sums};
  const int64_t step = form == KB_FORM_F32 ? panel->chunks : panel->block_chunks;
  for (int64_t chunk = 0; chunk < panel->chunks; chunk += step) {
    int64_t left = panel->chunks - chunk;
    args.chunks = (int)(left < step ? left : step);
    args.weights = panel->tiles + (size_t)tile * panel->tile_bytes + (size_t)chunk * weight_chunk;
    args.inputs = inputs + (size_t)chunk * KB_CHUNK;
    block->op->kernels.gemm[form](&args);
    if (form == KB_FORM_F32) {
      for (int i = 0; i < count; i++) block->totals[i] = ((const float*)sums)[i];
    } else if (chunk == 0) {
      for (int i = 0; i < count; i++) block->totals[i] = ((const int32_t*)sums)[i];
    } else {
      for (int i = 0; i < count; i++) block->totals[i] += ((const int32_t*)sums)[i];
    }
  }
}

/* Whether the rows of a tile are as many outputs side by side. */
static int side_by_side(const kb_panel* panel, int64_t first, int lanes) {
  if (first + lanes > panel->rows || panel->row[first].channel == KB_SUM_OF_INPUTS) return 0;
  for (int lane = 1; lane < lanes; lane++) {
    if (panel->row[first + lane].channel != panel->row[first].channel + lane) return 0;
  }
  return 1;
}

/* The constant number of lanes lets the compiler use vectors. */
static inline __attribute__((always_inline)) void add_lanes(const kb_block* block,
                                                            const kb_row* rows, double term_scale,
                                                            const int lanes) {
  const int64_t out = block->op->geometry.out;
  double scale[KB_TILE_F32];
  for (int lane = 0; lane < lanes; lane++) scale[lane] = rows[lane].scale * term_scale;
  for (int p = 0; p < block->pixels; p++) {
    const double* totals = block->totals + p * lanes;
    double* to = block->results + p * out + rows->channel;
    for (int lane = 0; lane < lanes; lane++) to[lane] += scale[lane] * totals[lane];
  }
}

static void add_tile(const kb_block* block, kb_form form, const kb_panel* panel, int64_t tile,
                     int64_t group, double term_scale) {
  const int lanes = kb_tile_rows(form);
  const int64_t out = block->op->geometry.out, first = tile * lanes;
  if (side_by_side(panel, first, lanes)) {
    if (lanes == KB_TILE)
      add_lanes(block, panel->row + first, term_scale, KB_TILE);
    else
      add_lanes(block, panel->row + first, term_scale, KB_TILE_F32);
    return;
  }
  for (int lane = 0; lane < lanes && first + lane < panel->rows; lane++) {
    const kb_row* row = &panel->row[first + lane];
    const int is_sum = row->channel == KB_SUM_OF_INPUTS;
    const double scale = row->scale * term_scale;
    const int64_t step = is_sum ? 1 : out;
    double* to = is_sum ? block->input_sums + group * block->pixels : block->results + row->channel;
    for (int p = 0; p < block->pixels; p++) to[p * step] += scale * block->totals[p * lanes + lane];
  }
}

static void multiply_panel(const kb_block* block, int64_t group, kb_form form) {
  const kb_op* op = block->op;
  const kb_panel* panel = &op->weights.panels[group * KB_FORMS + form];
  if (!panel->rows) return;
  const int lanes = kb_tile_rows(form), terms = kb_input_terms(&op->input, form);
  const kb_terms* cut = form == KB_FORM_BITS ? &op->input.planes : &op->input.bytes;
  for (int t = 0; t < terms; t++) {
    const uint8_t* inputs = patches(block, form, t * op->geometry.groups + group);
    const double scale = form == KB_FORM_F32 ? 1 : cut->term[t].scale;
    for (int64_t tile = 0; tile * lanes < panel->rows; tile++) {
      multiply_tile(block, form, panel, tile, inputs);
      add_tile(block, form, panel, tile, group, scale);
    }
  }
}

/* Add one tap of a depthwise layer; most have one output a channel, which vectors suit. */
static void add_tap(const float* restrict values, const float* restrict weights, int64_t channels,
                    int64_t times, double* restrict results) {
  if (times == 1) {
    for (int64_t c = 0; c < channels; c++) results[c] += (double)values[c] * (double)weights[c];
    return;
  }
  for (int64_t c = 0, o = 0; c < channels; c++) {
    for (int64_t m = 0; m < times; m++, o++) results[o] += (double)values[c] * (double)weights[o];
  }
}

static void multiply_depthwise(const kb_block* block) {
  const kb_op* op = block->op;
  const kb_window* window = &block->plan->window;
  const int64_t out = op->geometry.out, channels = op->geometry.groups;
  const float* image = scratch_at(op, block->plan->image[KB_FORM_F32]);
  for (int p = 0; p < block->pixels; p++) {
    int64_t row = (block->first + p) / window->out[1], column = (block->first + p) % window->out[1];
    kb_taps taps = kb_window_taps(window, row, column);
    for (int64_t ky = taps.first[0]; ky < taps.end[0]; ky += window->step[0]) {
      int64_t y = kb_window_at(window, 0, row, ky) / window->input_dilation[0];
      for (int64_t kx = taps.first[1]; kx < taps.end[1]; kx += window->step[1]) {
        int64_t x = kb_window_at(window, 1, column, kx) / window->input_dilation[1];
        add_tap(image + (y * window->in[1] + x) * channels,
                op->weights.depthwise + (ky * window->kernel[1] + kx) * out, channels,
                out / channels, block->results + p * out);
      }
    }
  }
}

/* What the input offset adds to each channel, at an output pixel with these taps inside. */
static void sum_borders(const kb_op* op, const kb_window* window, const kb_taps* taps,
                        double* borders) {
  const int64_t count = window->kernel[0] * window->kernel[1];
  for (int64_t o = 0; o < op->geometry.out; o++) {
    double sum = 0;
    for (int64_t ky = taps->first[0]; ky < taps->end[0]; ky += window->step[0]) {
      for (int64_t kx = taps->first[1]; kx < taps->end[1]; kx += window->step[1])
        sum += op->weights.tap_sum[o * count + ky * window->kernel[1] + kx];
    }
    borders[o] = op->input.offset * sum;
  }
}

static float clamp(float value, float low, float high) {
  return value < low ? low : value > high ? high : value;
}

/* The only place where sums become outputs. */
static void finish_pixel(const kb_op* op, const double* results, double input_sum,
                         const double* borders, int64_t first, int64_t end, float* y) {
  const double *offset = op->weights.offset, *multiplier = op->multiplier, *bias = op->bias;
  const float low = op->geometry.act_min, high = op->geometry.act_max;
  for (int64_t o = first; o < end; o++) {
    double sum = results[o] + offset[o] * input_sum + borders[o];
    y[o] = clamp((float)(multiplier[o] * sum + bias[o]), low, high);
  }
}

static void finish(const kb_block* block, float* y) {
  const kb_op* op = block->op;
  const kb_window* window = &block->plan->window;
  /* Input sums belong to groups; a depthwise layer has none of them. */
  const int64_t groups = op->weights.depthwise ? 1 : op->geometry.groups;
  const int64_t out = op->geometry.out, of_group = out / groups;
  double* borders = scratch_at(op, block->plan->borders);
  kb_taps known = {{0, 0}, {-1, -1}};
  if (!op->weights.tap_sum) memset(borders, 0, (size_t)out * sizeof *borders);
  for (int p = 0; p < block->pixels; p++) {
    int64_t pixel = block->first + p;
    if (op->weights.tap_sum) {
      kb_taps taps = kb_window_taps(window, pixel / window->out[1], pixel % window->out[1]);
      if (memcmp(&taps, &known, sizeof taps)) sum_borders(op, window, &taps, borders);
      known = taps;
    }
    for (int64_t g = 0; g < groups; g++)
      finish_pixel(op, block->results + p * out, block->input_sums[g * block->pixels + p], borders,
                   g * of_group, (g + 1) * of_group, y + p * out);
  }
}

static void run_block(const kb_block* block, float* y) {
  const kb_op* op = block->op;
  const size_t pixels = (size_t)block->pixels;
  memset(block->results, 0, pixels * (size_t)op->geometry.out * sizeof(double));
  memset(block->input_sums, 0, pixels * (size_t)op->geometry.groups * sizeof(double));
  if (op->weights.depthwise) {
    multiply_depthwise(block);
  } else if (op->weights.panels) {
    for (int64_t group = 0; group < op->geometry.groups; group++) {
      for (int form = 0; form < KB_FORMS; form++) multiply_panel(block, group, (kb_form)form);
    }
  }
  finish(block, y);
}

void kb_execute(const kb_op* op, const kb_plan* plan, const float* x, float* y) {
  const kb_blob* layer = &op->geometry;
  const int depthwise = layer->op == KB_DEPTHWISE;
  const size_t groups = depthwise ? 1 : (size_t)layer->groups;
  const size_t channels = depthwise ? (size_t)layer->groups : (size_t)layer->in;
  kb_block block = {.op = op,
                    .plan = plan,
                    .results = scratch_at(op, plan->results),
                    .input_sums = scratch_at(op, plan->input_sums),
                    .totals = scratch_at(op, plan->totals)};
  for (int64_t i = 0; i < plan->images; i++, x += (size_t)plan->in_pixels * groups * channels) {
    for (int form = 0; form < KB_FORMS; form++) {
      if (!op->uses[form]) continue;
      kb_image image = {scratch_at(op, plan->image[form]), plan->pixel_bytes[form],
                        (size_t)plan->in_pixels};
      kb_input_image(&op->input, (kb_form)form, x, groups, channels, &image,
                     scratch_at(op, plan->codes));
    }
    for (block.first = 0; block.first < plan->out_pixels; block.first += plan->block) {
      int64_t left = plan->out_pixels - block.first;
      block.pixels = (int)(left < plan->block ? left : plan->block);
      run_block(&block, y);
      y += (size_t)block.pixels * (size_t)layer->out;
    }
  }
}
