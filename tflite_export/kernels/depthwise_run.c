/* Runs of depthwise layers on whole numbers.
 *
 * Output rows are cut into bands, which threads take. A band quantizes the rows of its input one by
 * one into a ring of as many rows as a window is high, so that they are still in the first-level
 * cache when they are multiplied. Rows and columns around the image, and between the pixels of a
 * dilated input, hold the level of 0. */
#include "depthwise_layer.h"

enum {
  kSumBytes = 12 << 10, /* of one call of the kernels: stays in the first-level cache */
  kMostPixels = 64,     /* of one call */
  kBandsOfThread = 3,
  kRowsOfBand = 4 /* at least, since rows between two bands are quantized twice */
};

/* Sizes of a run, and where the scratch memory of a worker holds what. */
typedef struct {
  int64_t rows, columns; /* of the ring */
  int64_t in_channels, out_channels;
  int width;  /* channels of the widest slab */
  int pixels; /* of one call */
  size_t row_bytes;
  size_t ring, sums, taps, bases, codes, levels, bytes;
} sizes;

static int64_t reach(const kb_window* window, int axis) {
  return (window->kernel[axis] - 1) * window->dilation[axis] + 1;
}

static int place(sizes* s, int64_t count, size_t size, size_t* at) {
  size_t bytes;
  *at = s->bytes;
  return __builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 4 ||
         __builtin_add_overflow(s->bytes, (bytes + 63) / 64 * 64, &s->bytes);
}

static int find_sizes(const kb_dw_run* run, sizes* s) {
  const kb_dw_layer* layer = run->layer;
  const kb_window* window = run->window;
  const int64_t out = (int64_t)layer->channels * layer->repeats;
  *s = (sizes){.rows = reach(window, 0), .in_channels = layer->channels, .out_channels = out};
  s->columns = (window->out[1] - 1) * window->stride[1] + reach(window, 1);
  for (int slab = 0; slab < layer->slabs; slab++) {
    const int width = kb_dw_first(layer, slab + 1) - kb_dw_first(layer, slab);
    if (width > s->width) s->width = width;
  }
  int64_t pixels = kSumBytes / 4 / (s->width * layer->parts), row, ring, codes;
  if (pixels > kMostPixels) pixels = kMostPixels;
  s->pixels = pixels < 2 ? 2 : (int)pixels;
  int failed = __builtin_mul_overflow(s->columns, out, &row) ||
               __builtin_mul_overflow(s->rows, row, &ring) ||
               __builtin_mul_overflow(window->in[1], s->in_channels, &codes) ||
               ring > INT64_MAX - KB_SLACK;
  if (failed) return -1;
  s->row_bytes = (size_t)row;
  failed |= place(s, ring + KB_SLACK, 1, &s->ring);
  failed |= place(s, (int64_t)s->width * s->pixels * layer->parts, sizeof(int32_t), &s->sums);
  failed |= place(s, layer->tap_count, sizeof(ptrdiff_t), &s->taps);
  failed |= place(s, s->pixels, sizeof(double*), &s->bases);
  failed |= place(s, codes, sizeof(uint16_t), &s->codes);
  failed |= place(s, layer->repeats > 1 ? codes : 0, 1, &s->levels);
  return failed;
}

int kb_dw_scratch(const kb_dw_run* run, size_t* bytes) {
  sizes s = {0};
  const int empty = !run->window->out[0] || !run->window->out[1];
  if (!empty && find_sizes(run, &s)) return -1;
  *bytes = s.bytes;
  return 0;
}

/* One worker at a band. */
typedef struct {
  const kb_dw_run* run;
  const sizes* sizes;
  uint8_t* scratch;
  const float* x; /* of the image */
  float* y;
} worker;

/* Row `at` of the padded and widened image, counted from -pad. */
static uint8_t* ring_row(const worker* w, int64_t at) {
  const int64_t row = (at + w->run->window->pad[0]) % w->sizes->rows;
  return w->scratch + w->sizes->ring + (size_t)row * w->sizes->row_bytes;
}

/* Each of the levels `repeats` times. */
static void repeat(const uint8_t* levels, size_t count, int repeats, uint8_t* to) {
  for (size_t i = 0; i < count; i++) {
    for (int r = 0; r < repeats; r++) *to++ = levels[i];
  }
}

/* Quantize neighbouring pixels of one row. */
static void quantize(const worker* w, const float* x, int64_t pixels, uint8_t* to) {
  const kb_dw_run* run = w->run;
  const size_t count = (size_t)(pixels * w->sizes->in_channels);
  uint16_t* codes = (uint16_t*)(void*)(w->scratch + w->sizes->codes);
  if (run->layer->repeats == 1) {
    kb_input_levels(run->input, run->kernels, x, count, codes, to, NULL);
    return;
  }
  uint8_t* levels = w->scratch + w->sizes->levels;
  kb_input_levels(run->input, run->kernels, x, count, codes, levels, NULL);
  repeat(levels, count, run->layer->repeats, to);
}

static void clear(const worker* w, uint8_t* to, int64_t columns) {
  memset(to, w->run->layer->outside, (size_t)(columns * w->sizes->out_channels));
}

/* Fill a row of the ring. Columns of the image that no window meets are left out. */
static void fill_row(const worker* w, int64_t at) {
  const kb_window* window = w->run->window;
  const int64_t apart = window->input_dilation[1], pad = window->pad[1];
  const int64_t columns = w->sizes->columns, pixel = w->sizes->out_channels;
  uint8_t* row = ring_row(w, at);
  const int64_t in_row = at / window->input_dilation[0];
  if (at < 0 || at % window->input_dilation[0] || in_row >= window->in[0]) {
    clear(w, row, columns);
    return;
  }
  const float* x = w->x + in_row * window->in[1] * w->sizes->in_channels;
  int64_t seen = pad < columns ? (columns - pad + apart - 1) / apart : 0; /* pixels of the row */
  if (seen > window->in[1]) seen = window->in[1];
  if (apart == 1) {
    const int64_t before = pad < columns ? pad : columns;
    clear(w, row, before);
    quantize(w, x, seen, row + before * pixel);
    clear(w, row + (before + seen) * pixel, columns - before - seen);
    return;
  }
  clear(w, row, columns);
  for (int64_t i = 0; i < seen; i++)
    quantize(w, x + i * w->sizes->in_channels, 1, row + (pad + i * apart) * pixel);
}

/* Where the taps of an output row are in the ring, from its start. */
static void find_taps(const worker* w, int64_t out_row, ptrdiff_t* taps) {
  const kb_window* window = w->run->window;
  for (int64_t ky = 0; ky < window->kernel[0]; ky++) {
    const uint8_t* row = ring_row(w, kb_window_at(window, 0, out_row, ky));
    for (int64_t kx = 0; kx < window->kernel[1]; kx++)
      *taps++ = row - (w->scratch + w->sizes->ring) +
                (ptrdiff_t)(kx * window->dilation[1] * w->sizes->out_channels);
  }
}

/* Outputs of some pixels of a row to be made of their sums. */
typedef struct {
  size_t first, width; /* channels */
  int count;           /* pixels */
  const int32_t* sums;
  float* y;
} outputs;

/* All pixels start from the same numbers. */
static const void* const* repeat_base(const worker* w, const void* base, int count) {
  const void** bases = (const void**)(void*)(w->scratch + w->sizes->bases);
  for (int i = 0; i < count; i++) bases[i] = base;
  return bases;
}

static void finish(const worker* w, const outputs* to) {
  const kb_dw_layer* layer = w->run->layer;
  const double* coefficients = layer->coefficients;
  const kb_finish_args args = {.sums = to->sums,
                               .part_stride = (size_t)to->count * to->width * sizeof *to->sums,
                               .parts = layer->parts,
                               .coefficients = coefficients ? coefficients + 2 * to->first : NULL,
                               .scales = layer->scales + to->first,
                               .base = repeat_base(w, layer->base + to->first, to->count),
                               .low = layer->low,
                               .high = layer->high,
                               .count = to->count,
                               .rows = (int)to->width,
                               .used = (int)to->width,
                               .y = to->y,
                               .y_stride = (size_t)w->sizes->out_channels};
  w->run->kernels->finish(&args);
}

static void finish_whole(const worker* w, const outputs* to) {
  const kb_dw_layer* layer = w->run->layer;
  const int32_t* starts = layer->starts;
  const kb_finish_whole_args args = {.sums = to->sums,
                                     .parts = 1,
                                     .shifts = layer->shift ? &layer->shift : NULL,
                                     .starts = starts ? repeat_base(w, starts + to->first, to->count)
                                                      : NULL,
                                     .scales = layer->whole_scales + to->first,
                                     .biases = layer->biases + to->first,
                                     .low = layer->low,
                                     .high = layer->high,
                                     .count = to->count,
                                     .rows = (int)to->width,
                                     .used = (int)to->width,
                                     .y = to->y,
                                     .y_stride = (size_t)w->sizes->out_channels};
  w->run->kernels->finish_whole(&args);
}

/* Sums and outputs of some pixels of a row, in the channels of a slab. */
static void take_pixels(const worker* w, const ptrdiff_t* taps, int slab, int64_t column, int count,
                        float* y) {
  const kb_dw_layer* layer = w->run->layer;
  const size_t first = (size_t)kb_dw_first(layer, slab);
  const size_t width = (size_t)kb_dw_first(layer, slab + 1) - first;
  const size_t pixel = (size_t)w->sizes->out_channels;
  const size_t step = (size_t)w->run->window->stride[1] * pixel;
  int32_t* sums = (int32_t*)(void*)(w->scratch + w->sizes->sums);
  kb_depthwise_args args = {.pixel = w->scratch + w->sizes->ring + (size_t)column * step + first,
                            .pixel_step = step,
                            .taps = taps,
                            .count = count,
                            .tap_count = layer->tap_count,
                            .channels = (int)width};
  for (int i = 0; i < layer->parts; i++) {
    args.weights = layer->weights[i] + first * (size_t)layer->tap_count;
    args.fits16 = layer->fits16[i];
    args.digits = layer->digits[i] ? &layer->digits[i][slab] : NULL;
    args.sums = sums + (size_t)i * (size_t)count * width;
    w->run->kernels->depthwise(&args);
  }
  const outputs to = {first, width, count, sums, y + first};
  (layer->is_whole ? finish_whole : finish)(w, &to);
}

static void take_row(const worker* w, const ptrdiff_t* taps, float* y) {
  const sizes* s = w->sizes;
  const int64_t columns = w->run->window->out[1];
  for (int slab = 0; slab < w->run->layer->slabs; slab++) {
    for (int64_t column = 0; column < columns; column += s->pixels) {
      const int64_t left = columns - column;
      take_pixels(w, taps, slab, column, left < s->pixels ? (int)left : s->pixels,
                  y + column * s->out_channels);
    }
  }
}

/* Output rows first to end - 1. */
static void take_rows(const worker* w, int64_t first, int64_t end) {
  const kb_window* window = w->run->window;
  const sizes* s = w->sizes;
  ptrdiff_t* taps = (ptrdiff_t*)(void*)(w->scratch + s->taps);
  int64_t next = kb_window_at(window, 0, first, 0); /* row to be filled */
  for (int64_t row = first; row < end; row++) {
    const int64_t top = kb_window_at(window, 0, row, 0);
    if (next < top) next = top;
    for (; next < top + s->rows; next++) fill_row(w, next);
    find_taps(w, row, taps);
    take_row(w, taps, w->y + row * window->out[1] * s->out_channels);
  }
}

/* A run cut into bands of output rows. */
typedef struct {
  const kb_dw_run* run;
  sizes sizes;
  uint8_t* scratch;
  const float* x;
  float* y;
  int64_t bands, band_rows; /* of one image */
} job;

static void take_band(void* context, int item, int index) {
  const job* job = context;
  const kb_window* window = job->run->window;
  const int64_t image = item / job->bands, first = item % job->bands * job->band_rows;
  const int64_t left = window->out[0] - first;
  const int64_t in = window->in[0] * window->in[1] * job->sizes.in_channels;
  const int64_t out = window->out[0] * window->out[1] * job->sizes.out_channels;
  const worker w = {job->run, &job->sizes, job->scratch + (size_t)index * job->sizes.bytes,
                    job->x + image * in, job->y + image * out};
  take_rows(&w, first, first + (left < job->band_rows ? left : job->band_rows));
}

void kb_dw_execute(const kb_dw_run* run, kb_pool* pool, uint8_t* scratch, const float* x,
                   float* y) {
  enum { kMostImages = 1 << 20 };
  const kb_window* window = run->window;
  const int threads = kb_pool_threads(pool);
  job job = {.run = run, .scratch = scratch, .x = x, .y = y, .bands = 1};
  if (!window->out[0] || !window->out[1] || find_sizes(run, &job.sizes)) return;
  if (threads > 1) {
    const int64_t most = window->out[0] / kRowsOfBand;
    job.bands = (int64_t)threads * kBandsOfThread < most ? threads * kBandsOfThread : most;
    if (job.bands < 1) job.bands = 1;
  }
  job.band_rows = (window->out[0] + job.bands - 1) / job.bands;
  job.bands = (window->out[0] + job.band_rows - 1) / job.band_rows;
  const int64_t in = window->in[0] * window->in[1] * job.sizes.in_channels;
  const int64_t out = window->out[0] * window->out[1] * job.sizes.out_channels;
  for (int64_t done = 0; done < run->images; done += kMostImages) {
    const int64_t left = run->images - done, some = left < kMostImages ? left : kMostImages;
    kb_parallel(pool, (int)(some * job.bands), take_band, &job);
    job.x += some * in;
    job.y += some * out;
  }
}
