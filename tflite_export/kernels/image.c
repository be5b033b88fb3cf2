/* Floats of an input to the images that kernels read. */
#include "image.h"

kb_place kb_place_of(const kb_strip* strip, const kb_image* image, size_t term, size_t group) {
  const int64_t row = image->origin[0] + strip->row * image->spacing[0];
  const int64_t column = image->origin[1] + strip->column * image->spacing[1];
  const int64_t room = image->size[1] - column;
  kb_place place = {.step = (size_t)image->spacing[1] * image->pixel_bytes};
  if (row >= image->size[0] || room <= 0) return place;
  const int64_t visible = (room + image->spacing[1] - 1) / image->spacing[1];
  place.visible = visible < strip->count ? visible : strip->count;
  place.first = (uint8_t*)kb_shared(strip->op, image->at) +
                (term * kb_groups_of(strip) + group) * image->plane_bytes +
                (size_t)(row * image->size[1] + column) * image->pixel_bytes;
  return place;
}

static void fill_floats(const kb_strip* strip) {
  const kb_image* image = &strip->plan->image[KB_IMAGE_F32];
  for (size_t g = 0; g < kb_groups_of(strip); g++) {
    const kb_place place = kb_place_of(strip, image, 0, g);
    const float* x = strip->x + g * kb_channels_of(strip);
    uint8_t* to = place.first;
    const size_t all = kb_channels_of(strip) * kb_groups_of(strip);
    for (int64_t i = 0; i < place.visible; i++, to += place.step, x += all)
      kb_input_values(&strip->op->input, x, kb_channels_of(strip), (float*)(void*)to, strip->codes);
  }
}

/* Bytes of one term. */
static void copy_term(const kb_term* term, const uint8_t* low, const uint8_t* high, size_t count,
                      uint8_t* to) {
  const uint8_t* from = term->shift < 8 ? low : high;
  const int shift = term->shift % 8;
  if (term->mask == 255) {
    memcpy(to, from, count);
    return;
  }
  for (size_t c = 0; c < count; c++) to[c] = (uint8_t)(from[c] >> shift & 1);
}

static void fill_bytes(const kb_strip* strip) {
  const kb_image* image = &strip->plan->image[KB_IMAGE_U8];
  const kb_terms* terms = &strip->op->input.bytes;
  const size_t n = kb_channels_of(strip), all = n * kb_groups_of(strip);
  for (int t = 0; t < terms->count; t++) {
    for (size_t g = 0; g < kb_groups_of(strip); g++) {
      const kb_place place = kb_place_of(strip, image, (size_t)t, g);
      uint8_t* to = place.first;
      if (to == strip->low) continue; /* the levels were found in place */
      for (int64_t i = 0; i < place.visible; i++, to += place.step) {
        const size_t at = (size_t)i * all + g * n;
        copy_term(&terms->term[t], strip->low + at, strip->high + at, n, to);
        memset(to + n, 0, image->pixel_bytes - n);
      }
    }
  }
}

static void fill_words(const kb_strip* strip) {
  const kb_image* image = &strip->plan->image[KB_IMAGE_S16];
  const kb_terms* terms = &strip->op->input.bytes;
  const size_t n = kb_channels_of(strip), all = n * kb_groups_of(strip);
  for (int t = 0; t < terms->count; t++) {
    const kb_term* term = &terms->term[t];
    const uint8_t* from = term->shift < 8 ? strip->low : strip->high;
    const int shift = term->shift % 8;
    for (size_t g = 0; g < kb_groups_of(strip); g++) {
      const kb_place place = kb_place_of(strip, image, (size_t)t, g);
      uint8_t* to = place.first;
      for (int64_t i = 0; i < place.visible; i++, to += place.step) {
        const uint8_t* levels = from + (size_t)i * all + g * n;
        uint16_t* words = (uint16_t*)(void*)to;
        for (size_t c = 0; c < n; c++) words[c] = (uint16_t)(levels[c] >> shift & (int)term->mask);
        memset(words + n, 0, image->pixel_bytes - n * sizeof *words);
      }
    }
  }
}

/* For inputs of a single term, whose levels are its bytes. */
static void fill_tables(const kb_strip* strip) {
  const size_t n = kb_channels_of(strip), all = n * kb_groups_of(strip);
  for (size_t g = 0; g < kb_groups_of(strip); g++) {
    const kb_place place = kb_place_of(strip, &strip->plan->image[KB_IMAGE_TABLES], 0, g);
    uint8_t* to = place.first;
    for (int64_t i = 0; i < place.visible; i++, to += place.step)
      strip->op->kernels.sum_tables(strip->low + (size_t)i * all + g * n, n, to);
  }
}

double* kb_sums_of(const kb_strip* strip, size_t group) {
  const kb_plan* plan = strip->plan;
  return (double*)kb_shared(strip->op, plan->pixel_sums) +
         (int64_t)group * plan->in_pixels + strip->row * plan->window.in[1] + strip->column;
}

/* Sum of the inputs of each pixel, in units of the input grid. Levels have 8 bits mostly. */
static void sum_levels(const kb_strip* strip) {
  const kb_input* input = &strip->op->input;
  const size_t n = kb_channels_of(strip), all = n * kb_groups_of(strip);
  for (size_t g = 0; g < kb_groups_of(strip); g++) {
    double* sums = kb_sums_of(strip, g);
    for (int64_t i = 0; i < strip->count; i++) {
      const uint8_t* low = strip->low + (size_t)i * all + g * n;
      const uint8_t* high = strip->high + (size_t)i * all + g * n;
      sums[i] = 0;
      for (int t = 0; t < input->bytes.count; t++) {
        const kb_term* term = &input->bytes.term[t];
        const uint8_t* from = term->shift < 8 ? low : high;
        const int shift = term->shift % 8;
        uint64_t sum = 0;
        for (size_t first = 0; first < n; first += 1 << 16) { /* 2^16 * 255 fits 32 bits */
          const size_t end = n - first < 1 << 16 ? n : first + (1 << 16);
          uint32_t part = 0;
          for (size_t c = first; c < end; c++) part += from[c] >> shift & term->mask;
          sum += part;
        }
        sums[i] += term->factor * (double)sum;
      }
    }
  }
}

static void fill_strip(kb_strip* strip) {
  const kb_op* op = strip->op;
  const kb_plan* plan = strip->plan;
  const kb_image* bytes = &plan->image[KB_IMAGE_U8];
  const size_t all = kb_channels_of(strip) * kb_groups_of(strip);
  if (plan->image[KB_IMAGE_F32].used) fill_floats(strip);
  if (kb_only_planes(op, plan)) {
    kb_fill_planes(strip);
    return;
  }
  if (op->input.kind == KB_INPUT_FLOAT || op->weights.layout[KB_IMAGE_F32].used) return;
  strip->high = strip->low + all * (size_t)plan->strip;
  if (bytes->used && op->input.linear && op->input.bytes.count == 1 && kb_groups_of(strip) == 1 &&
      bytes->pixel_bytes == all && bytes->spacing[1] == 1) {
    const kb_place place = kb_place_of(strip, bytes, 0, 0);
    if (place.visible == strip->count) strip->low = place.first;
  }
  kb_input_levels(&op->input, &op->kernels, strip->x, all * (size_t)strip->count, strip->codes,
                  strip->low, strip->high);
  if (bytes->used) fill_bytes(strip);
  if (plan->image[KB_IMAGE_S16].used) fill_words(strip);
  if (plan->image[KB_IMAGE_TABLES].used) fill_tables(strip);
  if (plan->image[KB_IMAGE_BITS].used) kb_fill_bits(strip);
  if (op->weights.needs_input_sums) sum_levels(strip);
}

/* Whether no window has a tap on a row of the input. (Columns that are left out do not pay: strips of
 * single pixels cost what they save.) */
static int is_skipped(const kb_window* window, int64_t row) {
  const int64_t stride = window->stride[0];
  if (stride <= window->kernel[0]) return 0; /* hardly any, and then they only cost time */
  const int64_t place = row * window->input_dilation[0] + window->pad[0];
  for (int64_t tap = 0; tap < window->kernel[0]; tap++) {
    const int64_t start = place - tap * window->dilation[0];
    if (start >= 0 && start % stride == 0 && start / stride < window->out[0]) return 0;
  }
  return 1;
}

void kb_fill_pixels(const kb_op* op, const kb_plan* plan, int64_t first, int64_t count,
                    const float* x, int worker) {
  const int64_t width = plan->window.in[1], end = first + count;
  const size_t all = (size_t)(op->geometry.in * op->geometry.groups);
  for (int64_t pixel = first; pixel < end;) {
    kb_strip strip = {.op = op, .plan = plan, .x = x + (size_t)(pixel - first) * all};
    strip.row = pixel / width;
    strip.column = pixel % width;
    strip.low = kb_own(op, plan, worker, plan->levels);
    strip.codes = kb_own(op, plan, worker, plan->codes);
    strip.count = width - strip.column < end - pixel ? width - strip.column : end - pixel;
    if (!is_skipped(&plan->window, strip.row)) {
      if (strip.count > plan->strip) strip.count = plan->strip;
      fill_strip(&strip);
    }
    pixel += strip.count;
  }
}
