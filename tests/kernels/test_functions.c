/* Functions of kernels.inc that take inputs: the scalar ones against hand-computed values
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

int main(void) {
  int wrong = check_levels_by_hand();
#define KB_LEVELS(name, isa) wrong += check_levels(#name, name, isa);
#define KB_PACK_BITS(name, isa, unit_bytes) wrong += check_pack(#name, name, isa, unit_bytes);
#define KB_SIGNS(name, isa, unit_bytes) wrong += check_signs(#name, name, isa, unit_bytes);
#define KB_SUM_TABLES(name, isa) wrong += check_sum_tables(#name, name, isa);
#include "kernels.inc"
  return wrong > 0;
}
