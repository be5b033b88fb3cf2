/* Every function of kernels.inc beside the products: the scalar ones against hand-computed values
 * and definitions, the others against the scalar ones, bit by bit. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "random_for_tests.h"

static float fraction(void) { return (float)draw() / 4294967296.0f; }

/* Points near a grid's ties and ends, far away ones, and what is not a number. */
static float draw_point(const kb_grid* grid) {
  static const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, FLT_MAX, -FLT_MAX,
                                  FLT_MIN, -FLT_MIN, 1e-45f};
  const int kind = between(0, 9);
  if (kind == 0) return special[between(0, 9)];
  if (kind == 1) {
    uint32_t bits = draw();
    float any;
    memcpy(&any, &bits, sizeof any);
    return any;
  }
  const float half = (float)between(-2, 2 * grid->top + 2) / 2 - (float)grid->zero;
  float x = grid->origin + grid->step * half;
  if (kind == 2) x += grid->step * (fraction() - 0.5f);
  for (int i = between(0, 3); i > 0; i--) x = nextafterf(x, kind % 2 ? INFINITY : -INFINITY);
  return x;
}

static kb_grid draw_grid(void) {
  kb_grid grid = {.lo = -INFINITY, .hi = INFINITY, .top = (1 << between(1, 8)) - 1};
  const int kind = between(0, 5);
  grid.step = ldexpf(1 + fraction(), between(-12, 4));
  if (kind == 1) grid.step = ldexpf(1 + fraction(), between(-149, 100));
  if (kind == 2) grid.step = ldexpf(1, between(-10, 3));
  const int most = (1 << 24) - (1 << 16); /* of a zero */
  grid.zero = kind == 3 ? between(-most, most) : kind == 4 ? 0 : between(0, grid.top);
  grid.origin = kind == 5 ? grid.step * (fraction() - 0.5f) * 100 : 0;
  if (draw() % 2) {
    grid.lo = grid.origin - grid.step * (float)grid.zero;
    grid.hi = grid.origin + grid.step * (float)(grid.top - grid.zero);
    if (!(grid.lo <= grid.hi)) grid.lo = -1, grid.hi = 1;
  }
  return grid;
}

static int check_levels(const char* name, kb_levels levels, kb_isa_id isa) {
  enum { kMost = 133 };
  int wrong = 0;
  if (!kb_isa_supported(isa)) return 0;
  for (int trial = 0; trial < 3000; trial++) {
    const kb_grid grid = draw_grid();
    const size_t count = (size_t)between(0, kMost);
    float* x = malloc(count * sizeof *x + 1);
    uint8_t want[kMost + 1], *got = malloc(count + 1);
    for (size_t i = 0; i < count; i++) x[i] = draw_point(&grid);
    kb_levels_scalar(&grid, x, count, want);
    levels(&grid, x, count, got);
    for (size_t i = 0; i < count; i++) {
      if (want[i] != got[i] && !wrong++)
        printf("%s: x %.9g, lo %.9g, hi %.9g, origin %.9g, step %.9g, zero %d, top %d: expected %d, "
               "got %d\n", name, x[i], grid.lo, grid.hi, grid.origin, grid.step, grid.zero,
               grid.top, want[i], got[i]);
    }
    free(x);
    free(got);
  }
  printf("%-24s %s\n", name, wrong ? "WRONG" : "ok");
  return wrong;
}

/* Step 0.5, zero 1: 0.75 / 0.5 goes to the even 2 and has level 3; 0.25 / 0.5 goes to 0. */
static int check_levels_by_hand(void) {
  const kb_grid grid = {.lo = -10, .hi = 10, .step = 0.5f, .zero = 1, .top = 15};
  const float x[] = {0, 0.75f, 0.25f, -0.5f, -9, 99, NAN, 7.01f};
  const uint8_t want[] = {1, 3, 1, 0, 0, 15, 0, 15};
  uint8_t got[8];
  kb_levels_scalar(&grid, x, 8, got);
  if (!memcmp(want, got, sizeof got)) return 0;
  printf("kb_levels_scalar: expected other levels of the values computed by hand\n");
  return 1;
}

static int bit_of(const uint8_t* image, int unit_bytes, size_t i) {
  const uint8_t* unit = image + i / 64 * (size_t)unit_bytes;
  const size_t c = i % 64;
  return unit_bytes == 8 ? unit[c / 8] >> c % 8 & 1 : unit[c / 4] >> (4 + c % 4) & 1;
}

/* Number of bits of the image that are set; those of 16-byte units leave the low nibbles 0. */
static int bits_set(const uint8_t* image, size_t bytes) {
  int count = 0;
  for (size_t i = 0; i < bytes; i++) count += __builtin_popcount(image[i]);
  return count;
}

static int check_bits(const char* name, kb_pack_bits pack, kb_signs signs, int unit_bytes) {
  enum { kMost = 400 };
  int wrong = 0;
  for (int trial = 0; trial < 2000; trial++) {
    const size_t count = (size_t)between(1, kMost), bytes = (count + 63) / 64 * (size_t)unit_bytes;
    const int shift = between(0, 7);
    const float lo = -fraction(), hi = trial % 3 ? fraction() : lo;
    float* x = malloc(count * sizeof *x);
    uint8_t *levels = malloc(count), *image = malloc(bytes);
    for (size_t i = 0; i < count; i++) {
      const kb_grid grid = {.step = 0.5f, .top = 3};
      x[i] = draw_point(&grid);
      levels[i] = (uint8_t)draw();
    }
    memset(image, 255, bytes);
    if (pack)
      pack(levels, count, shift, image);
    else
      signs(lo, hi, x, count, image);
    int set = 0;
    for (size_t i = 0; i < count; i++) {
      const float clipped = x[i] < lo ? lo : x[i] > hi ? hi : x[i];
      const int want = pack ? levels[i] >> shift & 1 : clipped >= 0;
      set += want;
      if (bit_of(image, unit_bytes, i) != want && !wrong++)
        printf("%s: expected bit %d at %zu of %zu\n", name, want, i, count);
    }
    if (bits_set(image, bytes) != set && !wrong++)
      printf("%s: expected zero bits behind %zu values\n", name, count);
    free(x);
    free(levels);
    free(image);
  }
  printf("%-24s %s\n", name, wrong ? "WRONG" : "ok");
  return wrong;
}

static int check_pack(const char* name, kb_pack_bits pack, kb_isa_id isa, int unit_bytes) {
  return kb_isa_supported(isa) ? check_bits(name, pack, NULL, unit_bytes) : 0;
}

/* An instruction set that has a product of bits has both ways to the units that it takes. */
static int check_signs(const char* name, kb_signs signs, kb_isa_id isa, int unit_bytes) {
  kb_kernels table;
  if (!kb_isa_supported(isa)) return 0;
  kb_kernels_of(isa, &table);
  int wrong = check_bits(name, NULL, signs, unit_bytes);
  if (table.signs == signs && table.bits_unit_bytes != unit_bytes && ++wrong)
    printf("%s: expected units of %d bytes, got %d\n", name, table.bits_unit_bytes, unit_bytes);
  return wrong;
}

enum { kPixels = 7, kParts = 9 };

typedef struct {
  int32_t sums[kParts * kPixels * KB_MAX_ROWS];
  double coefficients[kParts * KB_MAX_ROWS], weights[KB_MAX_ROWS], scales[KB_MAX_ROWS];
  double input_sums[kPixels], base[kPixels][KB_MAX_ROWS];
  const double* bases[kPixels];
} finish_case;

/* Each table entry is a sum of the four levels that its number names. */
static int check_sum_tables(const char* name, kb_sum_tables tables, kb_isa_id isa) {
  if (!kb_isa_supported(isa)) return 0;
  int wrong = 0;
  for (size_t count = 1; count < 140; count++) {
    const size_t bytes = (count + 31) / 32 * 8 * KB_TABLE_BYTES;
    uint8_t *levels = malloc(count), *image = malloc(bytes);
    for (size_t i = 0; i < count; i++) levels[i] = (uint8_t)(count % 4 ? draw() : 255);
    tables(levels, count, image);
    for (size_t i = 0; i < bytes / 2; i++) {
      const size_t group = i / 16, low = group * KB_TABLE_BYTES + i % 16;
      int sum = 0;
      for (size_t j = 0; j < 4 && 4 * group + j < count; j++)
        sum += i >> j & 1 ? levels[4 * group + j] : 0;
      wrong += image[low] != sum % 32 || image[low + 16] != sum / 32;
    }
    free(levels);
    free(image);
  }
  if (wrong) printf("%s: %d sums differ\n", name, wrong);
  return wrong > 0;
}

static double number(void) { return ((double)draw() - 2147483648.0) * ldexp(1, between(-40, -20)); }

static void fill_finish(finish_case* c, kb_finish_args* args) {
  const int values = kParts * kPixels * KB_MAX_ROWS;
  for (int i = 0; i < values; i++) {
    const float real = (float)number();
    c->sums[i] = (int32_t)draw() >> between(0, 24);
    if (args->is_float) memcpy(&c->sums[i], &real, sizeof real);
  }
  if (args->is_float) ((float*)(void*)c->sums)[3] = draw() % 2 ? NAN : INFINITY;
  for (int i = 0; i < kParts * KB_MAX_ROWS; i++) c->coefficients[i] = number();
  for (int r = 0; r < KB_MAX_ROWS; r++) c->weights[r] = number(), c->scales[r] = number();
  for (int p = 0; p < kPixels; p++) {
    c->bases[p] = c->base[between(0, p)];
    c->input_sums[p] = number();
    for (int r = 0; r < KB_MAX_ROWS; r++) c->base[p][r] = number();
    c->base[p][1] = -0.0; /* and a product of 0 or -0: a clamp at 0 keeps the sign of the sum */
  }
  c->scales[1] = 0;
}

static int run_finish(const char* name, kb_finish finish, kb_finish_args args, finish_case* c) {
  fill_finish(c, &args);
  args.part_stride = (size_t)(args.count * args.rows) * sizeof(int32_t);
  args.sums = c->sums;
  args.coefficients = args.parts > 1 || draw() % 2 ? c->coefficients : NULL;
  args.input_weights = draw() % 2 ? c->weights : NULL;
  args.input_sums = args.input_weights ? c->input_sums : NULL;
  args.scales = c->scales;
  args.base = c->bases;
  args.low = draw() % 2 ? -INFINITY : draw() % 2 ? -0.5f : 0;
  args.high = draw() % 2 ? INFINITY : 6;
  args.y_stride = (size_t)(args.used + between(0, 3));
  /* Exactly as many floats as may be written. */
  const size_t floats = (size_t)(args.count - 1) * args.y_stride + (size_t)args.used;
  float *want = malloc(floats * sizeof *want), *got = malloc(floats * sizeof *got);
  for (size_t i = 0; i < floats; i++) want[i] = got[i] = 77;
  args.y = want;
  kb_finish_scalar(&args);
  args.y = got;
  finish(&args);
  int wrong = 0;
  for (size_t i = 0; i < floats; i++) {
    const int same = isnan(want[i]) ? isnan(got[i]) : !memcmp(&want[i], &got[i], sizeof *got);
    if (!same && !wrong++)
      printf("%s: %d pixels, %d parts, %d of %d rows, float %d: expected %.9g at %zu, got %.9g\n",
             name, args.count, args.parts, args.used, args.rows, args.is_float, want[i], i, got[i]);
  }
  free(want);
  free(got);
  return wrong > 0;
}

static int check_finish(const char* name, kb_finish finish, kb_isa_id isa) {
  static const int rows[] = {1, 4, 8, 16, 24, 32, 64};
  finish_case* c = malloc(sizeof *c);
  int wrong = 0;
  for (int trial = 0; kb_isa_supported(isa) && trial < 1000; trial++) {
    kb_finish_args args = {.count = between(1, kPixels), .rows = rows[between(0, 6)]};
    args.used = draw() % 2 ? args.rows : between(1, args.rows);
    args.parts = draw() % 2 ? 1 : between(1, kParts);
    args.is_float = draw() % 4 == 0;
    wrong += run_finish(name, finish, args, c);
  }
  free(c);
  if (kb_isa_supported(isa)) printf("%-24s %s\n", name, wrong ? "WRONG" : "ok");
  return wrong;
}

/* (2 * 10 + 4 * -1 + 3 * 5) * 0.5 + 1 = 16.5, and a row that is clamped from above. */
static int check_finish_by_hand(void) {
  const int32_t sums[] = {10, 100, -1, 100};
  const double coefficients[] = {2, 2, 4, 4}, weights[] = {3, 0}, scales[] = {0.5, 1};
  const double base[] = {1, 0}, input_sums[] = {5}, *bases[] = {base};
  float y[2];
  const kb_finish_args args = {.sums = sums, .parts = 2, .part_stride = 8, .rows = 2, .used = 2,
                               .coefficients = coefficients, .input_weights = weights,
                               .input_sums = input_sums, .scales = scales, .base = bases,
                               .low = 0, .high = 99, .count = 1, .y = y, .y_stride = 2};
  kb_finish_scalar(&args);
  if (y[0] == 16.5f && y[1] == 99) return 0;
  printf("kb_finish_scalar: expected 16.5 and 99, got %g and %g\n", y[0], y[1]);
  return 1;
}

int main(void) {
  int wrong = check_levels_by_hand() + check_finish_by_hand();
#define KB_LEVELS(name, isa) wrong += check_levels(#name, name, isa);
#define KB_PACK_BITS(name, isa, unit_bytes) wrong += check_pack(#name, name, isa, unit_bytes);
#define KB_SIGNS(name, isa, unit_bytes) wrong += check_signs(#name, name, isa, unit_bytes);
#define KB_SUM_TABLES(name, isa) wrong += check_sum_tables(#name, name, isa);
#define KB_FINISH(name, isa) wrong += check_finish(#name, name, isa);
#include "kernels.inc"
  return wrong > 0;
}
