/* Sums to outputs: the scalar functions against hand-computed values, those of the instruction sets
 * against the scalar ones, bit by bit. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "random_for_tests.h"

enum { kPixels = 7, kParts = 9 };

typedef struct {
  int32_t sums[kParts * kPixels * KB_MAX_ROWS];
  double coefficients[kParts * KB_MAX_ROWS], weights[KB_MAX_ROWS], scales[KB_MAX_ROWS];
  double input_sums[kPixels], base[kPixels][KB_MAX_ROWS];
  const void* bases[kPixels];
} finish_case;

static double number(void) { return ((double)draw() - 2147483648.0) * ldexp(1, between(-40, -20)); }

/* Where two outputs differ, in their bits or in that one is a number; -1 if nowhere. */
static int differ(const float* want, const float* got, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const int same = isnan(want[i]) ? isnan(got[i]) : !memcmp(&want[i], &got[i], sizeof *got);
    if (!same) return (int)i;
  }
  return -1;
}

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
  const int at = differ(want, got, floats);
  if (at >= 0)
    printf("%s: %d pixels, %d parts, %d of %d rows, float %d: expected %.9g at %d, got %.9g\n", name,
           args.count, args.parts, args.used, args.rows, args.is_float, want[at], at, got[at]);
  free(want);
  free(got);
  return at >= 0;
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

/* Totals near the ends of int32, small ones, and any; sums and weights of parts wrap around. */
static int32_t whole_number(void) {
  const int kind = between(0, 3);
  const uint32_t few = draw() % 3;
  if (kind == 0) return (int32_t)(draw() % 2 ? 0x7fffffffu - few : 0x80000000u + few);
  return (int32_t)draw() >> (kind == 1 ? between(0, 24) : kind == 2 ? 31 : 0);
}

/* Scales of both signs, of which products are zero, subnormal, or leave float32. */
static float scale_of(void) {
  static const float special[] = {0.0f, -0.0f, FLT_MAX, -FLT_MAX, FLT_MIN, 1, -1};
  if (draw() % 8 == 0) return special[between(0, 6)];
  return (float)number() * ldexpf(1, between(-120, 100));
}

typedef struct {
  int32_t sums[kParts * kPixels * KB_MAX_ROWS];
  int32_t shifts[kParts], weights[KB_MAX_ROWS], input_sums[kPixels], starts[kPixels][KB_MAX_ROWS];
  float scales[KB_MAX_ROWS], biases[KB_MAX_ROWS];
  const void* pointers[kPixels];
} whole_case;

static void fill_whole(whole_case* c) {
  for (int i = 0; i < kParts * kPixels * KB_MAX_ROWS; i++) c->sums[i] = whole_number();
  for (int i = 0; i < kParts; i++) c->shifts[i] = draw() % 2 ? between(0, 31) : 0;
  for (int p = 0; p < kPixels; p++) {
    c->pointers[p] = c->starts[between(0, p)];
    c->input_sums[p] = whole_number();
    for (int r = 0; r < KB_MAX_ROWS; r++) c->starts[p][r] = whole_number();
  }
  for (int r = 0; r < KB_MAX_ROWS; r++) {
    c->weights[r] = whole_number();
    c->scales[r] = scale_of();
    c->biases[r] = draw() % 4 ? (float)number() : draw() % 2 ? -0.0f : 0.0f;
  }
  c->scales[2] = INFINITY; /* with a total of 0: no number, which no clamp touches */
  c->sums[2] = 0;
}

static int run_whole(const char* name, kb_finish_whole finish, kb_finish_whole_args args,
                     whole_case* c) {
  fill_whole(c);
  args.sums = c->sums;
  args.part_stride = (size_t)(args.count * args.rows) * sizeof(int32_t);
  args.shifts = draw() % 2 ? c->shifts : NULL;
  args.input_weights = draw() % 2 ? c->weights : NULL;
  args.input_sums = args.input_weights ? c->input_sums : NULL;
  args.starts = draw() % 2 ? c->pointers : NULL;
  args.scales = c->scales;
  args.biases = c->biases;
  args.low = draw() % 2 ? -INFINITY : draw() % 2 ? -0.5f : 0;
  args.high = draw() % 2 ? INFINITY : 6;
  args.y_stride = (size_t)(args.used + between(0, 3));
  const size_t floats = (size_t)(args.count - 1) * args.y_stride + (size_t)args.used;
  float *want = malloc(floats * sizeof *want), *got = malloc(floats * sizeof *got);
  for (size_t i = 0; i < floats; i++) want[i] = got[i] = 77;
  args.y = want;
  kb_finish_whole_scalar(&args);
  args.y = got;
  finish(&args);
  const int at = differ(want, got, floats);
  if (at >= 0)
    printf("%s: %d pixels, %d parts, %d of %d rows: expected %.9g at %d, got %.9g\n", name,
           args.count, args.parts, args.used, args.rows, want[at], at, got[at]);
  free(want);
  free(got);
  return at >= 0;
}

static int check_whole(const char* name, kb_finish_whole finish, kb_isa_id isa) {
  whole_case* c = malloc(sizeof *c);
  int wrong = 0;
  for (int trial = 0; kb_isa_supported(isa) && trial < 2000; trial++) {
    kb_finish_whole_args args = {.count = between(1, kPixels), .rows = between(1, KB_MAX_ROWS)};
    args.used = draw() % 2 ? args.rows : between(1, args.rows);
    args.parts = draw() % 2 ? 1 : between(1, kParts);
    wrong += run_whole(name, finish, args, c);
  }
  free(c);
  if (kb_isa_supported(isa)) printf("%-24s %s\n", name, wrong ? "WRONG" : "ok");
  return wrong;
}

/* A total that wraps around on its way: 2^30 * 4 = 0, so 5 - 3 * 7 + 2^31 - 1 - (2^31 - 1) = -16 is
 * left; -16 * 0.5 + 1 = -7. And 2^24 + 1 goes to the even 2^24, 2^24 + 3 to 2^24 + 4. */
static int check_whole_by_hand(void) {
  const int32_t sums[] = {1 << 30, (1 << 24) + 1, (1 << 24) + 3, INT32_MIN + 4, 0, 0};
  const int32_t shifts[] = {2, 0}, plain[] = {0, 0}, weights[] = {-3, 0, 0}, input_sums[] = {7};
  const int32_t start[] = {-INT32_MAX, 0, 0};
  const float scales[] = {0.5f, 1, 1}, biases[] = {1, 0, 0};
  const void* starts[] = {start};
  float y[3], z[3];
  kb_finish_whole_args args = {.sums = sums, .parts = 2, .part_stride = 12, .rows = 3, .used = 1,
                               .shifts = shifts, .input_weights = weights,
                               .input_sums = input_sums, .starts = starts, .scales = scales,
                               .biases = biases, .low = -9, .high = INFINITY, .count = 1, .y = y,
                               .y_stride = 3};
  kb_finish_whole_scalar(&args);
  args.shifts = plain;
  args.used = 3;
  args.y = z;
  kb_finish_whole_scalar(&args);
  if (y[0] == -7 && z[1] == 0x1p24f && z[2] == 0x1p24f + 4) return 0;
  printf("kb_finish_whole_scalar: expected -7, 2^24 and 2^24 + 4, got %.9g, %.9g and %.9g\n", y[0],
         z[1], z[2]);
  return 1;
}

/* (2 * 10 + 4 * -1 + 3 * 5) * 0.5 + 1 = 16.5, and a row that is clamped from above. */
static int check_finish_by_hand(void) {
  const int32_t sums[] = {10, 100, -1, 100};
  const double coefficients[] = {2, 2, 4, 4}, weights[] = {3, 0}, scales[] = {0.5, 1};
  const double base[] = {1, 0}, input_sums[] = {5};
  const void* bases[] = {base};
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
  int wrong = check_finish_by_hand() + check_whole_by_hand();
#define KB_FINISH(name, isa) wrong += check_finish(#name, name, isa);
#define KB_FINISH_WHOLE(name, isa) wrong += check_whole(#name, name, isa);
#include "kernels.inc"
  return wrong > 0;
}
