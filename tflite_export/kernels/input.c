#include "input.h"

#include <math.h>
#include <stdlib.h>

static int bit_length(unsigned value) {
  int bits = 0;
  for (; value; value >>= 1) bits++;
  return bits;
}

/* Terms of a level that is linear in the value. */
static void set_linear_terms(kb_input* input, double scale, unsigned top) {
  int bits = bit_length(top);
  input->bytes.term[0] = (kb_term){0, 255, scale};
  input->bytes.term[1] = (kb_term){8, 255, 256 * scale};
  input->bytes.count = bits > 8 ? 2 : 1;
  for (int i = 0; i < bits; i++) input->planes.term[i] = (kb_term){i, 1, ldexp(scale, i)};
  input->planes.count = bits;
}

static void set_plane_terms(kb_input* input) {
  input->offset = 0;
  for (int i = 0; i < input->bits; i++) {
    double scale = input->borders[i];
    input->planes.term[i] = (kb_term){input->bits - 1 - i, 1, 2 * scale};
    input->offset -= scale;
  }
  input->planes.count = input->bits;
  input->bytes = input->planes;
}

static void set_terms(kb_input* input) {
  double step = input->step;
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
  return 0;
}

void kb_input_destroy(kb_input* input) {
  free(input->borders);
  free(input->table_levels);
  *input = (kb_input){0};
}

static float clip(float x, float lo, float hi) { return x < lo ? lo : x > hi ? hi : x; }

/* clip(round(t) + zero, 0, top) = round(clip(t, -zero, top - zero)) + zero, since the bounds are
 * whole numbers of at most 2^24 + 2^16 in magnitude. The comparisons send NaN to code 0. */
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

/* Codes to levels, in place. */
static void to_levels(const kb_input* input, size_t count, uint16_t* codes) {
  if (input->kind != KB_INPUT_TABLE) return;
  int top = input->length - 1;
  for (size_t i = 0; i < count; i++) {
    int index = input->is_signed ? codes[i] - top : codes[i];
    int level = index < 0 ? -input->table_levels[-index] : input->table_levels[index];
    codes[i] = (uint16_t)(input->is_signed ? level + input->table_levels[top] : level);
  }
}

int kb_input_terms(const kb_input* input, kb_form form) {
  if (form == KB_FORM_F32) return 1;
  return form == KB_FORM_BITS ? input->planes.count : input->bytes.count;
}

size_t kb_input_pixel_bytes(kb_form form, size_t channels) {
  if (form == KB_FORM_F32) return channels * sizeof(float);
  return form == KB_FORM_BITS ? (channels + 63) / 64 * 8 : channels;
}

static void pack_bits(const uint16_t* levels, size_t count, int shift, uint8_t* out) {
  size_t bytes = kb_input_pixel_bytes(KB_FORM_BITS, count), whole = count / 8;
  for (size_t i = 0; i < whole; i++, levels += 8) {
    unsigned byte = 0;
    for (int b = 0; b < 8; b++) byte |= (levels[b] >> shift & 1u) << b;
    out[i] = (uint8_t)byte;
  }
  memset(out + whole, 0, bytes - whole);
  for (size_t b = 0; b < count % 8; b++) out[whole] |= (uint8_t)((levels[b] >> shift & 1u) << b);
}

static void pack_bytes(const uint16_t* levels, size_t count, const kb_term* term, uint8_t* out) {
  for (size_t i = 0; i < count; i++) out[i] = (uint8_t)(levels[i] >> term->shift & term->mask);
}

void kb_input_image(const kb_input* input, kb_form form, const float* x, size_t groups,
                    size_t channels, const kb_image* image, uint16_t* codes) {
  const kb_terms* terms = form == KB_FORM_BITS ? &input->planes : &input->bytes;
  const size_t all = groups * channels, plane = image->pixels * image->pixel_bytes;
  for (size_t pixel = 0; pixel < image->pixels; pixel++, x += all) {
    uint8_t* out = image->data + pixel * image->pixel_bytes;
    if (form == KB_FORM_F32) {
      for (size_t g = 0; g < groups; g++, out += plane)
        kb_input_values(input, x + g * channels, channels, (float*)(void*)out, codes);
      continue;
    }
    kb_input_codes(input, x, all, codes);
    to_levels(input, all, codes);
    for (int t = 0; t < terms->count; t++) {
      for (size_t g = 0; g < groups; g++, out += plane) {
        if (form == KB_FORM_BITS)
          pack_bits(codes + g * channels, channels, terms->term[t].shift, out);
        else
          pack_bytes(codes + g * channels, channels, &terms->term[t], out);
      }
    }
  }
}
