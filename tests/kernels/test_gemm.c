/* Every product of kernels.inc that this machine can run, against the definition in kernels.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "random_for_tests.h"

enum { kMaxCount = 19, kMaxTaps = 5, kMaxUnits = 37 };

/* Random, or everything at an end of its range. */
typedef enum { RANDOM, LOWEST_WEIGHTS, HIGHEST_WEIGHTS, NO_INPUTS, DRAWS } draws;

/* Floats for F32, else whole numbers: processors without double run this test, too. */
typedef union {
  int32_t whole;
  float real;
} number;

/* One case: the numbers that the kernel multiplies, and the same as it takes them. */
typedef struct {
  kb_form form;
  int rows, used, count, taps, units, unit_bytes, max_input, max_weight;
  draws how;
  int8_t levels[16];
  number* w; /* [taps * units * channels of a unit][rows] */
  number* x; /* [count][taps * units * channels of a unit] */
  uint8_t *weights, *image;
  const uint8_t* pixels[kMaxCount];
  ptrdiff_t offsets[kMaxTaps];
} sample;

static int code_bits(kb_form form) {
  return form == KB_FORM_P1 ? 1 : form == KB_FORM_P2 ? 2 : form == KB_FORM_P4 ? 4 : 0;
}

static int draw_weight(const sample* s) {
  if (s->how == LOWEST_WEIGHTS)
    return s->form == KB_FORM_S8 && s->max_weight == 128 ? -128 : -s->max_weight;
  if (s->how == HIGHEST_WEIGHTS)
    return s->form == KB_FORM_S8 && s->max_weight == 128 ? 127 : s->max_weight;
  const int weight = between(-s->max_weight, s->max_weight);
  return weight == 128 && s->form == KB_FORM_S8 ? 127 : weight;
}

static int draw_input(const sample* s) {
  return s->how == RANDOM ? between(0, s->max_input) : s->how == NO_INPUTS ? 0 : s->max_input;
}

/* Element e of a row of a weight unit of all rows. Returns the number that it stands for. */
static number put_weight(const sample* s, uint8_t* all, int row, int e) {
  const int bits = code_bits(s->form), weight = draw_weight(s);
  uint8_t* unit = all + row * kb_unit_weight_bytes(s->form, s->unit_bytes);
  if (bits) {
    const int any = between(0, (1 << bits) - 1);
    const int code = s->how == LOWEST_WEIGHTS ? 0 : s->how == HIGHEST_WEIGHTS ? 1 : any;
    unit[e % 4] |= (uint8_t)(code << (bits * (e / 4)));
    return (number){.whole = s->levels[code]};
  }
  if (s->form == KB_FORM_T1) {
    const int bit = s->how == LOWEST_WEIGHTS ? 0 : s->how == HIGHEST_WEIGHTS ? 1 : between(0, 1);
    if (bit) all[e / 8 * s->rows + row] |= (uint8_t)(1 << e % 8);
    return (number){.whole = bit};
  }
  if (s->form == KB_FORM_BITS) {
    const int bit = s->how == RANDOM ? between(0, 1) : 1;
    if (s->unit_bytes == 8)
      unit[e / 8] |= (uint8_t)(bit << e % 8);
    else
      all[e / 4 * s->rows + row] |= (uint8_t)(bit << e % 4);
    return (number){.whole = bit};
  }
  if (s->form == KB_FORM_F32) {
    const float value = (float)(int32_t)draw() / 1e9f;
    memcpy(unit, &value, sizeof value);
    return (number){.real = value};
  }
  const int16_t wide = (int16_t)weight;
  if (s->form == KB_FORM_S16)
    memcpy(unit + 2 * e, &wide, sizeof wide);
  else
    unit[e] = (uint8_t)(int8_t)weight;
  return (number){.whole = weight};
}

/* Adds an input to the sums of those subsets of four that it is in. */
static void put_in_table(uint8_t* unit, int e, int input) {
  uint8_t* low = unit + e / 4 * KB_TABLE_BYTES;
  for (int set = 0; set < 16; set++) {
    if (!(set >> e % 4 & 1)) continue;
    const int sum = low[set] + 32 * low[16 + set] + input;
    low[set] = (uint8_t)(sum % 32);
    low[16 + set] = (uint8_t)(sum / 32);
  }
}

/* The same for inputs. */
static number put_input(const sample* s, uint8_t* unit, int e) {
  const int input = draw_input(s);
  if (s->form == KB_FORM_BITS) {
    const int bit = s->how == RANDOM ? between(0, 1) : s->how != NO_INPUTS;
    if (s->unit_bytes == 8)
      unit[e / 8] |= (uint8_t)(bit << e % 8);
    else
      unit[e / 4] |= (uint8_t)(bit << (4 + e % 4));
    return (number){.whole = bit};
  }
  if (s->form == KB_FORM_F32) {
    const float value = (float)(int32_t)draw() / 1e9f;
    memcpy(unit, &value, sizeof value);
    return (number){.real = value};
  }
  if (s->form == KB_FORM_T1) {
    put_in_table(unit, e, input);
    return (number){.whole = input};
  }
  const int16_t wide = (int16_t)input;
  if (s->form == KB_FORM_S16)
    memcpy(unit + 2 * e, &wide, sizeof wide);
  else
    unit[e] = (uint8_t)input;
  return (number){.whole = input};
}

/* Some kernels multiply codes instead of levels where that is possible. */
static void space_evenly(sample* s) {
  const int most = s->max_weight < 128 ? s->max_weight : 127;
  const int last = (1 << code_bits(s->form)) - 1;
  const int first = between(-s->max_weight, most), end = draw() % 2 ? most : between(-most, most);
  for (int i = 0; i <= last; i++) s->levels[i] = (int8_t)(first + (end - first) / last * i);
}

/* Windows lie anywhere, far enough apart that no two share a byte. */
static void fill(sample* s) {
  const int channels = kb_unit_channels(s->form), row = kb_unit_weight_bytes(s->form, s->unit_bytes);
  const int bytes = kb_unit_input_bytes(s->form, s->unit_bytes), tap = s->units * bytes;
  const int align = s->form == KB_FORM_S16 || s->form == KB_FORM_F32 ? 4 : 1;
  const int k_of_tap = s->units * channels, k = s->taps * k_of_tap;
  const size_t weights = (size_t)(s->taps * s->units * s->rows * row);
  s->weights = calloc(1, weights + KB_SLACK);
  s->w = calloc((size_t)(k * s->rows), sizeof *s->w);
  s->x = calloc((size_t)(k * s->count), sizeof *s->x);
  int at = 0;
  for (int t = 0; t < s->taps; t++, at += tap) s->offsets[t] = at += align * between(0, 5);
  const int window = at + align * between(0, 3);
  s->image = calloc(1, (size_t)(s->count * window + KB_SLACK));
  for (int i = 0; i < 16; i++) s->levels[i] = (int8_t)draw_weight(s);
  s->levels[0] = (int8_t)-s->max_weight;
  if (s->max_weight < 128) s->levels[1] = (int8_t)s->max_weight;
  if (code_bits(s->form) && draw() % 2) space_evenly(s);
  for (int i = 0; i < k * s->rows; i++) {
    const int unit = i / (channels * s->rows), r = i / channels % s->rows, e = i % channels;
    s->w[(unit * channels + e) * s->rows + r] =
        put_weight(s, s->weights + (size_t)(unit * s->rows * row), r, e);
  }
  for (int i = 0; i < k * s->count; i++) {
    const int pixel = i / k, t = i % k / k_of_tap, unit = i % k_of_tap / channels;
    /* The pixels lie backwards, so that nobody takes them for rows of a matrix. */
    uint8_t* first = s->image + (size_t)((s->count - 1 - pixel) * window);
    s->pixels[pixel] = first;
    s->x[i] = put_input(s, first + s->offsets[t] + unit * bytes, i % channels);
  }
}

/* All sums: [count][rows]. Floats are added in the order of the contract. */
static void define(const sample* s, number* sums) {
  const int k = s->taps * s->units * kb_unit_channels(s->form);
  for (int p = 0; p < s->count; p++, sums += s->rows) {
    for (int r = 0; r < s->rows; r++) sums[r].whole = 0; /* the float 0, too */
    for (int i = 0; i < k; i++) {
      const number x = s->x[p * k + i], *w = s->w + i * s->rows;
      if (s->form == KB_FORM_F32)
        for (int r = 0; r < s->rows; r++) sums[r].real += w[r].real * x.real;
      else
        for (int r = 0; r < s->rows; r++) sums[r].whole += w[r].whole * x.whole;
    }
  }
}

static int steps_of(const sample* s) { return 32767 / (2 * s->max_input * s->max_weight); }

static int run(const char* name, kb_gemm gemm, sample* s) {
  s->used = draw() % 2 ? s->rows : between(1, s->rows);
  fill(s);
  /* Exactly as long as the contract says, so that the sanitizer sees an overrun. */
  const size_t bytes = (size_t)(s->count * s->rows) * sizeof(number);
  number *sums = malloc(bytes), *wanted = malloc(bytes);
  memset(sums, 255, bytes);
  define(s, wanted);
  const kb_gemm_args args = {.pixels = s->pixels, .taps = s->offsets, .weights = s->weights,
                             .levels = s->levels, .sums = sums, .count = s->count,
                             .tap_count = s->taps, .units = s->units, .rows = s->rows,
                             .used = s->used, .unit_bytes = s->unit_bytes, .steps = steps_of(s)};
  gemm(&args);
  int wrong = 0;
  for (int i = 0; i < s->count * s->rows; i++) {
    if (i % s->rows >= s->used || wanted[i].whole == sums[i].whole || wrong++) continue;
    printf("%s: %d pixels, %d taps of %d units, inputs up to %d, weights up to %d, draw %d: "
           "expected bits %08x, got %08x for pixel %d, row %d\n", name, s->count, s->taps,
           s->units, s->max_input, s->max_weight, (int)s->how, (unsigned)wanted[i].whole,
           (unsigned)sums[i].whole, i / s->rows, i % s->rows);
  }
  free(sums);
  free(wanted);
  free(s->weights);
  free(s->image);
  free(s->w);
  free(s->x);
  return wrong > 0;
}

/* All numbers of pixels; then long rows of extreme numbers, where sums that are too narrow show. */
static int run_sizes(const char* name, kb_gemm gemm, sample s) {
  int wrong = 0;
  for (s.count = 1; s.count <= kMaxCount; s.count++) {
    s.how = RANDOM;
    s.taps = between(1, kMaxTaps);
    s.units = between(1, 6);
    wrong += run(name, gemm, &s);
  }
  static const int units[] = {1, 2, 3, 4, 5, 7, 8, 16, 31, 32, 33, kMaxUnits};
  for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
    s.units = units[u];
    s.taps = between(1, s.units * kb_unit_channels(s.form) > 256 ? 2 : kMaxTaps);
    s.count = between(1, 9);
    s.how = (draws)(u % DRAWS);
    wrong += run(name, gemm, &s);
    s.how = u % 2 ? LOWEST_WEIGHTS : HIGHEST_WEIGHTS;
    wrong += run(name, gemm, &s);
  }
  for (s.how = RANDOM; s.how < DRAWS; s.how++) {
    s.count = s.how == RANDOM ? 9 : 3;
    s.taps = 1;
    /* Counts of bits and pairs of products no longer fit a byte, or int16. */
    s.units = s.form == KB_FORM_BITS ? 100 : 2400 / kb_unit_channels(s.form);
    wrong += run(name, gemm, &s);
  }
  if (s.form == KB_FORM_BITS) { /* nor counts of bits 16 bits */
    s.units = 1100;
    s.count = 1;
    s.how = HIGHEST_WEIGHTS;
    wrong += run(name, gemm, &s);
  }
  return wrong;
}

static int check(const char* name, kb_gemm gemm, kb_form form, int rows, int unit_bytes) {
  static const int s8[] = {1, 2, 3, 9, 21, 31, 64, 65, 127, 128}, s16[] = {1, 255, 5000, 32767};
  static const int inputs[] = {255, 1, 15, 3, 254, 255, 200, 128, 127};
  const int narrow = form == KB_FORM_S8 || code_bits(form);
  const int bounds = narrow ? 10 : form == KB_FORM_S16 ? 4 : 1;
  const int step = code_bits(form) ? 3 : 1; /* their units are long */
  int wrong = 0;
  for (int b = 0; b < bounds; b += step) {
    sample s = {.form = form, .rows = rows, .unit_bytes = unit_bytes};
    s.max_weight = narrow ? s8[b] : form == KB_FORM_S16 ? s16[b] : 1;
    s.max_input = form == KB_FORM_S16 ? (s16[b] < 5000 ? 255 : 1) : 255;
    wrong += run_sizes(name, gemm, s);
    s.max_input = form == KB_FORM_S16 ? 1 : inputs[b % 9];
    wrong += run_sizes(name, gemm, s);
  }
  printf("%-24s %s\n", name, wrong ? "WRONG" : "ok");
  return wrong;
}

static int check_kernel(const char* name, kb_gemm gemm, kb_form form, kb_isa_id isa, int rows) {
  kb_kernels table;
  if (!kb_isa_supported(isa)) return 0;
  kb_kernels_of(isa, &table);
  int wrong = rows > KB_MAX_ROWS || table.gemm[form] != gemm || table.rows[form] != rows;
  if (wrong) printf("%s: expected it in the table of its instruction set\n", name);
  wrong += check(name, gemm, form, rows, table.bits_unit_bytes);
  if (isa != KB_ISA_SCALAR) return wrong;
  /* The law takes any number of rows, and both units of bits. */
  wrong += check(name, gemm, form, 3, 16);
  return wrong;
}

int main(void) {
  int wrong = 0;
#define KB_GEMM(name, form, isa, rows) wrong += check_kernel(#name, name, form, isa, rows);
#include "kernels.inc"
  return wrong > 0;
}
