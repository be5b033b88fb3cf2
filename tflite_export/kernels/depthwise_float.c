/* Depthwise layers in floats: values of the input grid, then sums in double, tap by tap. Threads take
 * rows, of the input and then of the output. */
#include "depthwise_float.h"

typedef struct {
  const kb_op* op;
  const kb_plan* plan;
  const float* x;
  float* y;
} kb_run;

/* Add one tap; most layers have one output a channel, which vectors suit. */
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

static void add_window(const kb_run* run, int64_t row, int64_t column, double* results) {
  const kb_op* op = run->op;
  const kb_window* window = &run->plan->window;
  const int64_t out = op->geometry.out, channels = op->geometry.groups;
  const float* image = kb_shared(op, run->plan->image[KB_IMAGE_F32].at);
  const kb_taps taps = kb_window_taps(window, row, column);
  for (int64_t ky = taps.first[0]; ky < taps.end[0]; ky += window->step[0]) {
    const int64_t y = kb_window_at(window, 0, row, ky) / window->input_dilation[0];
    for (int64_t kx = taps.first[1]; kx < taps.end[1]; kx += window->step[1]) {
      const int64_t x = kb_window_at(window, 1, column, kx) / window->input_dilation[1];
      add_tap(image + (y * window->in[1] + x) * channels,
              op->weights.depthwise + (ky * window->kernel[1] + kx) * out, channels,
              out / channels, results);
    }
  }
}

static float clamp(float value, float low, float high) {
  return value < low ? low : value > high ? high : value;
}

/* One row of the output. */
static void run_row(void* context, int row, int worker) {
  const kb_run* run = context;
  const kb_op* op = run->op;
  const int64_t out = op->geometry.out, width = run->plan->window.out[1];
  const double *multiplier = op->weights.multiplier, *bias = op->weights.bias;
  const float low = op->geometry.act_min, high = op->geometry.act_max;
  double* results = kb_own(op, run->plan, worker, run->plan->results);
  float* y = run->y + row * width * out;
  for (int64_t column = 0; column < width; column++, y += out) {
    memset(results, 0, (size_t)out * sizeof *results);
    if (op->weights.depthwise) add_window(run, row, column, results);
    for (int64_t o = 0; o < out; o++)
      y[o] = clamp((float)(multiplier[o] * results[o] + bias[o]), low, high);
  }
}

/* Values of one row of the input, a strip at a time. */
static void fill_row(void* context, int row, int worker) {
  const kb_run* run = context;
  const kb_op* op = run->op;
  const int64_t channels = op->geometry.groups, width = run->plan->window.in[1];
  const int64_t strip = run->plan->strip;
  float* image = kb_shared(op, run->plan->image[KB_IMAGE_F32].at);
  for (int64_t first = 0; first < width; first += strip) {
    const int64_t count = width - first < strip ? width - first : strip;
    const int64_t at = (row * width + first) * channels;
    kb_input_values(&op->input, run->x + at, (size_t)(count * channels), image + at,
                    kb_own(op, run->plan, worker, run->plan->codes));
  }
}

void kb_depthwise_float(const kb_op* op, const kb_plan* plan, const float* x, float* y) {
  kb_run run = {op, plan, x, y};
  for (int64_t i = 0; i < plan->images; i++) {
    if (op->weights.depthwise)
      kb_parallel(kb_pool_of(op, plan), (int)plan->window.in[0], fill_row, &run);
    kb_parallel(kb_pool_of(op, plan), (int)plan->window.out[0], run_row, &run);
    run.x += plan->in_pixels * op->geometry.groups;
    run.y += plan->out_pixels * op->geometry.out;
  }
}
