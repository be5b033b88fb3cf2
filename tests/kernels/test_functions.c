/* What kernels do with inputs: the scalar functions against hand-computed values and definitions, the
 * others against the scalar ones, bit by bit. */
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

/* A point seldom near a tie: kernels treat vectors of such points in a way of their own. */
static float draw_plain(const kb_grid* grid) {
  if (between(0, 99) == 0) return draw_point(grid);
  return grid->origin + grid->step * ((float)(grid->top + 4) * fraction() - (float)grid->zero - 2);
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
    for (size_t i = 0; i < count; i++) x[i] = trial % 2 ? draw_plain(&grid) : draw_point(&grid);
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

static int check_image(const char* name, const uint8_t* image, int unit_bytes, const uint8_t* want,
                       size_t count) {
  int set = 0, wrong = 0;
  for (size_t i = 0; i < count; i++) {
    set += want[i];
    if (bit_of(image, unit_bytes, i) != want[i] && !wrong++)
      printf("%s: expected bit %d at %zu of %zu\n", name, want[i], i, count);
  }
  if (bits_set(image, (count + 63) / 64 * (size_t)unit_bytes) != set && !wrong++)
    printf("%s: expected zero bits behind %zu values\n", name, count);
  return wrong;
}

/* An instruction set that has a product of bits has both ways to the units that it takes. */
static int check_unit(const char* name, int is_taken, int of_table, int unit_bytes) {
  if (!is_taken || of_table == unit_bytes) return 0;
  printf("%s: expected units of %d bytes, got %d\n", name, of_table, unit_bytes);
  return 1;
}

static int check_pack(const char* name, kb_pack_bits pack, kb_isa_id isa, int unit_bytes) {
  enum { kMost = 400 };
  kb_kernels table;
  if (!kb_isa_supported(isa)) return 0;
  kb_kernels_of(isa, &table);
  int wrong = check_unit(name, table.pack_bits == pack, table.bits_unit_bytes, unit_bytes);
  for (int trial = 0; trial < 2000; trial++) {
    const size_t count = (size_t)between(1, kMost), bytes = (count + 63) / 64 * (size_t)unit_bytes;
    const int shift = between(0, 7);
    uint8_t *levels = malloc(count), *image = malloc(bytes), want[kMost];
    for (size_t i = 0; i < count; i++) {
      levels[i] = (uint8_t)draw();
      want[i] = levels[i] >> shift & 1;
    }
    memset(image, 255, bytes);
    pack(levels, count, shift, image);
    wrong += check_image(name, image, unit_bytes, want, count);
    free(levels);
    free(image);
  }
  printf("%-24s %s\n", name, wrong ? "WRONG" : "ok");
  return wrong;
}

enum { kMostPlanes = 16, kMostValues = 400 };

/* Bits of residuals by the definition. */
static void define_planes(const kb_planes* planes, float x, size_t i,
                          uint8_t want[][kMostValues]) {
  float rest = x < planes->lo ? planes->lo : x > planes->hi ? planes->hi : x;
  for (int p = 0; p < planes->count; p++) {
    want[p][i] = rest >= 0;
    rest = want[p][i] ? rest - planes->scales[p] : rest + planes->scales[p];
  }
}

/* Scales that halve or are any, with values on the borders between codes, beside them, and any. */
static float draw_value(const kb_planes* planes) {
  const kb_grid grid = {.step = 0.5f, .top = 3};
  if (draw() % 2) return draw_point(&grid);
  float x = 0;
  for (int p = 0; p < planes->count && draw() % 4; p++)
    x += draw() % 2 ? planes->scales[p] : -planes->scales[p];
  return draw() % 3 ? x : nextafterf(x, draw() % 2 ? INFINITY : -INFINITY);
}

static int try_planes(const char* name, kb_put_planes put, int unit_bytes) {
  float scales[kMostPlanes];
  const size_t count = (size_t)between(1, kMostValues);
  const size_t bytes = (count + 63) / 64 * (size_t)unit_bytes;
  kb_planes planes = {.lo = -INFINITY, .hi = INFINITY, .count = between(1, 3), .scales = scales};
  if (draw() % 8 == 0) planes.count = between(4, kMostPlanes);
  for (int p = 0; p < planes.count; p++)
    scales[p] = draw() % 2 ? ldexpf(1, -p) : (fraction() - 0.1f) * ldexpf(1, between(-9, 9));
  if (draw() % 3 == 0) planes.lo = -fraction(), planes.hi = draw() % 3 ? fraction() : planes.lo;
  float* x = malloc(count * sizeof *x);
  uint8_t want[kMostPlanes][kMostValues], *images[kMostPlanes];
  for (size_t i = 0; i < count; i++) define_planes(&planes, x[i] = draw_value(&planes), i, want);
  for (int p = 0; p < planes.count; p++) images[p] = memset(malloc(bytes), 255, bytes);
  put(&planes, x, count, images);
  int wrong = 0;
  for (int p = 0; p < planes.count; p++) {
    wrong += check_image(name, images[p], unit_bytes, want[p], count);
    free(images[p]);
  }
  free(x);
  return wrong;
}

static int check_planes(const char* name, kb_put_planes put, kb_isa_id isa, int unit_bytes) {
  kb_kernels table;
  if (!kb_isa_supported(isa)) return 0;
  kb_kernels_of(isa, &table);
  int wrong = check_unit(name, table.put_planes == put, table.bits_unit_bytes, unit_bytes);
  for (int trial = 0; trial < 2000; trial++) wrong += try_planes(name, put, unit_bytes);
  printf("%-24s %s\n", name, wrong ? "WRONG" : "ok");
  return wrong;
}

/* Sorted borders in the order of a search of `depth`, with NaN behind the last. */
static void plant(const float* borders, int count, kb_steps* steps) {
  for (int i = 0; i < (1 << steps->depth) - 1; i++) {
    int at = i + 1, level = steps->depth - 1; /* 1 + the place from the left, of the bottom row */
    for (; at % 2 == 0; at /= 2) level--;
    steps->borders[(1 << level) + at / 2] = i < count ? borders[i] : NAN;
  }
}

static int compare_floats(const void* a, const void* b) {
  const float x = *(const float*)a, y = *(const float*)b;
  return (x > y) - (x < y);
}

/* The level's number is that of borders that are reached, however they are counted. */
static int check_search(const char* name, kb_search search, kb_isa_id isa) {
  enum { kMost = 133, kMostBorders = 255 };
  int wrong = 0;
  if (!kb_isa_supported(isa)) return 0;
  for (int trial = 0; trial < 2000; trial++) {
    kb_steps steps = {.depth = draw() % 2 ? 4 : between(4, 8)};
    const kb_grid grid = {.step = 0.25f, .zero = 9, .top = 15};
    const int borders = between(0, (1 << steps.depth) - 1);
    const size_t count = (size_t)between(0, kMost);
    float sorted[kMostBorders], *x = malloc(count * sizeof *x + 1);
    uint8_t *got = malloc(count + 1);
    for (int i = 0; i < borders; i++)
      while (isnan(sorted[i] = draw_point(&grid))) continue;
    qsort(sorted, (size_t)borders, sizeof *sorted, compare_floats);
    plant(sorted, borders, &steps);
    for (int i = 0; i < 256; i++) steps.levels[i] = (uint8_t)(255 - i * 3);
    for (size_t i = 0; i < count; i++)
      x[i] = borders && draw() % 2 ? sorted[between(0, borders - 1)] : draw_point(&grid);
    search(&steps, x, count, got);
    for (size_t i = 0; i < count; i++) {
      int reached = 0;
      for (int b = 0; b < borders; b++) reached += x[i] >= sorted[b];
      if (got[i] != steps.levels[reached] && !wrong++)
        printf("%s: x %.9g, depth %d: expected %d, got %d at %zu of %zu\n", name, x[i], steps.depth,
               steps.levels[reached], got[i], i, count);
    }
    free(x);
    free(got);
  }
  printf("%-24s %s\n", name, wrong ? "WRONG" : "ok");
  return wrong;
}

/* Scales 2 and 1: 1.5 is 2 - 1, -2 + 2 is not below 0, and NaN has no bits. */
static int check_planes_by_hand(void) {
  const float scales[] = {2, 1}, x[] = {1.5f, 2, -2, -2.5f, 9, NAN};
  const kb_planes planes = {-INFINITY, INFINITY, 2, scales};
  uint8_t first[8], second[8], *images[] = {first, second};
  kb_planes_scalar(&planes, x, 6, images);
  if (first[0] == 0x13 && second[0] == 0x16) return 0;
  printf("kb_planes_scalar: expected other bits of the values computed by hand\n");
  return 1;
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
  int wrong = check_levels_by_hand() + check_planes_by_hand();
#define KB_LEVELS(name, isa) wrong += check_levels(#name, name, isa);
#define KB_PACK_BITS(name, isa, unit_bytes) wrong += check_pack(#name, name, isa, unit_bytes);
#define KB_PLANES(name, isa, unit_bytes) wrong += check_planes(#name, name, isa, unit_bytes);
#define KB_SEARCH(name, isa) wrong += check_search(#name, name, isa);
#define KB_SUM_TABLES(name, isa) wrong += check_sum_tables(#name, name, isa);
#include "kernels.inc"
  return wrong > 0;
}
