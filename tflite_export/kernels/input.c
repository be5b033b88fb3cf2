#include "input.h"

#include <math.h>
#include <stdlib.h>

static int bit_length(unsigned value) {
  int bits = 0;
  for (; value; value >>= 1) bits++;
  return bits;
}

/* Terms of a level that is linear in the value. */
static void set_linear_terms(kb_input* input, double unit, unsigned top) {
  const int bits = top ? bit_length(top) : 1;
  input->linear = 1;
  input->level_bits = bits;
  input->unit = unit;
  input->bytes.term[0] = (kb_term){0, 255, 1};
  input->bytes.term[1] = (kb_term){8, 255, 256};
  input->bytes.count = bits > 8 ? 2 : 1;
  input->bytes.most = bits > 8 ? 255 : top > 1 ? (int)top : 1;
  for (int i = 0; i < bits; i++) input->planes.term[i] = (kb_term){i, 1, ldexp(1, i)};
  input->planes.count = bits;
  input->planes.most = 1;
}

/* Value of a code = sum_p +-scale_p, the first plane in the highest bit. */
static void set_plane_terms(kb_input* input) {
  const double last = input->borders[input->bits - 1];
  int powers = 1;
  for (int i = 0; i < input->bits; i++) {
    input->offset -= input->borders[i];
    powers &= (double)input->borders[i] == ldexp(last, input->bits - 1 - i);
  }
  if (powers) {
    set_linear_terms(input, 2 * last, (1u << input->bits) - 1);
    return;
  }
  input->level_bits = input->bits;
  input->unit = 1;
  for (int i = 0; i < input->bits; i++)
    input->planes.term[i] = (kb_term){input->bits - 1 - i, 1, 2 * (double)input->borders[i]};
  input->planes.count = input->bits;
  input->planes.most = 1;
  input->bytes = input->planes;
}

static void set_terms(kb_input* input) {
  const double step = input->step;
  input->unit = 1;
  if (input->kind == KB_INPUT_UNIFORM) {
    input->offset = input->origin - step * input->zero;
    set_linear_terms(input, step, (1u << input->bits) - 1);
  } else if (input->kind == KB_INPUT_TABLE) {
    int32_t top = input->table_levels[input->length - 1];
    input->offset = input->is_signed ? -step * top : 0;
    set_linear_terms(input, step, (unsigned)(input->is_signed ? 2 * top : top));
  } else if (input->kind == KB_INPUT_PLANES) {
    set_plane_terms(input);
  }
}

int kb_input_create(const kb_blob* blob, kb_input* input, kb_error error) {
  *input = (kb_input){.kind = blob->input_kind,
                      .bits = blob->input_bits,
                      .is_signed = blob->input_signed,
                      .length = blob->input_length,
                      .lo = blob->input_lo,
                      .hi = blob->input_hi,
                      .origin = blob->input_origin,
                      .step = blob->input_step,
                      .zero = blob->input_zero};
  size_t borders = blob->section[KB_INPUT_BORDERS].bytes / 4;
  size_t levels = blob->section[KB_INPUT_LEVELS].bytes / 2;
  input->borders = kb_alloc(borders, sizeof *input->borders);
  input->table_levels = kb_alloc(levels, sizeof *input->table_levels);
  if (!input->borders || !input->table_levels) return kb_fail(error, "out of memory");
  for (size_t i = 0; i < borders; i++)
    input->borders[i] = kb_blob_f32(blob, KB_INPUT_BORDERS, (int64_t)i);
  for (size_t i = 0; i < levels; i++)
    input->table_levels[i] = kb_blob_i16(blob, KB_INPUT_LEVELS, (int64_t)i);
  set_terms(input);
  return kb_input_find_steps(input) ? kb_fail(error, "out of memory") : 0;
}

void kb_input_destroy(kb_input* input) {
  free(input->borders);
  free(input->table_levels);
  free(input->steps);
  *input = (kb_input){0};
}

static float clip(float x, float lo, float hi) { return x < lo ? lo : x > hi ? hi : x; }

/* clip(round(t) + zero, 0, top) = round(clip(t, -zero, top - zero)) + zero, since the bounds are
 * whole numbers of at most 2^24 in magnitude, which float32 has. The comparisons send NaN to code 0. */
static void uniform_codes(const kb_input* input, const float* x, size_t count, uint16_t* codes) {
  const float low = (float)-input->zero;
  const float high = (float)((int32_t)((1u << input->bits) - 1) - input->zero);
  const float lo = input->lo, hi = input->hi, origin = input->origin, step = input->step;
  const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to whole numbers, ties even */
  if (fabsf(low) > 4194304.0f || fabsf(high) > 4194304.0f) {
    for (size_t i = 0; i < count; i++) {
      float t = (clip(x[i], lo, hi) - origin) / step;
      t = t > low ? t : low;
      codes[i] = (uint16_t)(lrintf(t < high ? t : high) + input->zero);
    }
    return;
  }
  for (size_t i = 0; i < count; i++) {
    float t = (clip(x[i], lo, hi) - origin) / step;
    t = t > low ? t : low;
    t = t < high ? t : high;
    codes[i] = (uint16_t)((int32_t)((t + shift) - shift) + input->zero);
  }
}

/* Number of borders strictly below `magnitude`. */
static int border_index(const kb_input* input, float magnitude) {
  int low = 0, high = input->length - 1;
  while (low < high) {
    int middle = low + (high - low) / 2;
    if (input->borders[middle] < magnitude)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static void table_codes(const kb_input* input, const float* x, size_t count, uint16_t* codes) {
  int top = input->length - 1;
  for (size_t i = 0; i < count; i++) {
    float u = x[i] / input->origin;
    int code = 0;
    if (input->is_signed && !isnan(u))
      code = u < 0 ? top - border_index(input, -u) : top + border_index(input, u);
    else if (u > 0)
      code = border_index(input, u);
    codes[i] = (uint16_t)code;
  }
}

/* Some values at a time, plane by plane, which the compiler turns into vectors. */
static void plane_codes(const kb_input* input, const float* x, size_t count, uint16_t* codes) {
  enum { kSome = 64 };
  const float lo = input->lo, hi = input->hi;
  float rest[kSome];
  int32_t code[kSome];
  for (size_t first = 0; first < count; first += kSome) {
    const size_t some = count - first < kSome ? count - first : kSome;
    for (size_t i = 0; i < some; i++) rest[i] = clip(x[first + i], lo, hi);
    memset(code, 0, sizeof code);
    for (int p = 0; p < input->bits; p++) {
      const float up = input->borders[p], down = -up;
      for (size_t i = 0; i < some; i++) {
        code[i] = 2 * code[i] + (rest[i] >= 0);
        rest[i] -= rest[i] >= 0 ? up : down;
      }
    }
    for (size_t i = 0; i < some; i++) codes[first + i] = (uint16_t)code[i];
  }
}

void kb_input_codes(const kb_input* input, const float* x, size_t count, uint16_t* codes) {
  if (input->kind == KB_INPUT_UNIFORM)
    uniform_codes(input, x, count, codes);
  else if (input->kind == KB_INPUT_TABLE)
    table_codes(input, x, count, codes);
  else if (input->kind == KB_INPUT_PLANES)
    plane_codes(input, x, count, codes);
  else
    memset(codes, 0, count * sizeof *codes);
}

static void uniform_values(const kb_input* input, const uint16_t* codes, size_t count,
                           float* values) {
  const float origin = input->origin, step = input->step;
  const int32_t zero = input->zero;
  for (size_t i = 0; i < count; i++) values[i] = origin + step * (float)(codes[i] - zero);
}

/* Value of a code of a table or of planes. */
static float code_value(const kb_input* input, int code) {
  if (input->kind == KB_INPUT_TABLE) {
    int index = input->is_signed ? code - (input->length - 1) : code;
    int level = index < 0 ? -input->table_levels[-index] : input->table_levels[index];
    return input->step * (float)level;
  }
  float total = 0;
  for (int p = 0; p < input->bits; p++)
    total += code >> (input->bits - 1 - p) & 1 ? input->borders[p] : -input->borders[p];
  return total;
}

void kb_input_values(const kb_input* input, const float* x, size_t count, float* values,
                     uint16_t* codes) {
  if (input->kind == KB_INPUT_FLOAT) {
    for (size_t i = 0; i < count; i++) values[i] = clip(x[i], input->lo, input->hi);
    return;
  }
  kb_input_codes(input, x, count, codes);
  if (input->kind == KB_INPUT_UNIFORM) {
    uniform_values(input, codes, count, values);
    return;
  }
  for (size_t i = 0; i < count; i++) values[i] = code_value(input, codes[i]);
}

uint16_t kb_input_level(const kb_input* input, int code) {
  if (input->kind != KB_INPUT_TABLE) return (uint16_t)code;
  const int top = input->length - 1, index = input->is_signed ? code - top : code;
  const int level = index < 0 ? -input->table_levels[-index] : input->table_levels[index];
  return (uint16_t)(input->is_signed ? level + input->table_levels[top] : level);
}

static int is_small_grid(const kb_input* input) {
  return input->kind == KB_INPUT_UNIFORM && input->bits <= 8;
}

void kb_input_levels(const kb_input* input, const kb_kernels* kernels, const float* x, size_t count,
                     uint16_t* codes, uint8_t* low, uint8_t* high) {
  if (is_small_grid(input)) {
    const kb_grid grid = {.lo = input->lo, .hi = input->hi, .origin = input->origin,
                          .step = input->step, .zero = input->zero,
                          .top = (1 << input->bits) - 1};
    kernels->levels(&grid, x, count, low);
    return;
  }
  if (input->steps) {
    kernels->search(&input->steps[0], x, count, low);
    if (input->level_bits > 8) kernels->search(&input->steps[1], x, count, high);
    return;
  }
  kb_input_codes(input, x, count, codes);
  for (size_t i = 0; i < count; i++) codes[i] = kb_input_level(input, codes[i]);
  for (size_t i = 0; i < count; i++) low[i] = (uint8_t)codes[i];
  if (input->level_bits <= 8) return;
  for (size_t i = 0; i < count; i++) high[i] = (uint8_t)(codes[i] >> 8);
}
