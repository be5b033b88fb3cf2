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

static void add_tile(const kb_block* block, kb_form form, const kb_panel* panel, int64_t tile,
                     int64_t group, double term_scale) {
  const int lanes = kb_tile_rows(form);
  const int64_t out = block->op->geometry.out, first = tile * lanes;
  for (int lane = 0; lane < lanes && first + lane < panel->rows; lane++) {
    const kb_row* row = &panel->row[first + lane];
    const double scale = row->scale * term_scale;
    int64_t step = row->channel == KB_SUM_OF_INPUTS ? 1 : out;
    double* to = row->channel == KB_SUM_OF_INPUTS ? block->input_sums + group * block->pixels
                                                  : block->results + row->channel;
    for (int p = 0; p < block->pixels; p++, to += step) *to += scale * block->totals[p * lanes + lane];
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

static void multiply_depthwise(const kb_block* block) {
  const kb_op* op = block->op;
  const kb_window* window = &block->plan->window;
  const int64_t out = op->geometry.out, channels = op->geometry.groups, times = out / channels;
  const float* image = scratch_at(op, block->plan->image[KB_FORM_F32]);
  for (int p = 0; p < block->pixels; p++) {
    int64_t row = (block->first + p) / window->out[1], column = (block->first + p) % window->out[1];
    kb_taps taps = kb_window_taps(window, row, column);
    double* results = block->results + p * out;
    for (int64_t ky = taps.first[0]; ky < taps.end[0]; ky++) {
      for (int64_t kx = taps.first[1]; kx < taps.end[1]; kx++) {
        int64_t y = row * window->stride[0] - window->pad[0] + ky * window->dilation[0];
        int64_t x = column * window->stride[1] - window->pad[1] + kx * window->dilation[1];
        const float* values = image + (y * window->in[1] + x) * channels;
        const float* weights = op->weights.depthwise + (ky * window->kernel[1] + kx) * out;
        for (int64_t c = 0, o = 0; c < channels; c++) {
          for (int64_t m = 0; m < times; m++, o++)
            results[o] += (double)values[c] * (double)weights[o];
        }
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
    for (int64_t ky = taps->first[0]; ky < taps->end[0]; ky++) {
      for (int64_t kx = taps->first[1]; kx < taps->end[1]; kx++)
        sum += op->weights.tap_sum[o * count + ky * window->kernel[1] + kx];
    }
    borders[o] = op->input.offset * sum;
  }
}

static float clamp(float value, float low, float high) {
  return value < low ? low : value > high ? high : value;
}

static void finish(const kb_block* block, float* y) {
  const kb_op* op = block->op;
  const kb_window* window = &block->plan->window;
  const int64_t out = op->geometry.out, of_group = out / op->geometry.groups;
  double* borders = scratch_at(op, block->plan->borders);
  kb_taps known = {{0, 0}, {-1, -1}};
  if (!op->weights.tap_sum)
    for (int64_t o = 0; o < out; o++) borders[o] = 0;
  for (int p = 0; p < block->pixels; p++) {
    int64_t pixel = block->first + p;
    if (op->weights.tap_sum) {
      kb_taps taps = kb_window_taps(window, pixel / window->out[1], pixel % window->out[1]);
      if (memcmp(&taps, &known, sizeof taps)) sum_borders(op, window, &taps, borders);
      known = taps;
    }
    const double* results = block->results + p * out;
    for (int64_t o = 0; o < out; o++) {
      double input_sum = block->input_sums[o / of_group * block->pixels + p];
      double sum = results[o] + op->weights.offset[o] * input_sum + borders[o];
      float value = (float)(op->multiplier[o] * sum + op->bias[o]);
      y[p * out + o] = clamp(value, op->geometry.act_min, op->geometry.act_max);
    }
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
