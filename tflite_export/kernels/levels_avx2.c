/* Floats to levels with AVX2, mostly without division, and clamped as integers.
 *
 * The law rounds t = d / step, d = clip(x) - origin, to a whole number. Here d is multiplied with two
 * numbers beside 1 / step, a little smaller and a little larger: by 2^-21 of it, while all roundings
 * of t and of the products amount to at most 2^-22. So t lies between the products, and where both
 * round to the same whole number, t does. Where they do not, about once in a hundred times, 32
 * values are divided.
 *
 * Whole numbers are packed with saturation, which clamps them for 8 bits; the conversion makes what
 * is too small, and NaN, the smallest int32, and so level 0. Only large values are clipped before. */
#if defined(__x86_64__)
#include <math.h>
#include <stdlib.h>

#include "avx2.h"

enum { kSome = 32, kBound = 1 << 9 };

typedef struct {
  __m256 hi, origin, less, more;
  __m256i zero, top;
} constants;

/* 32 whole numbers and the zero, clamped to bytes. Packing works within halves of vectors; the permutation
 * puts the fours in order. */
KB_INLINE __m256i to_bytes(const __m256i whole[4], __m256i zero) {
  const __m256i first = _mm256_adds_epi16(_mm256_packs_epi32(whole[0], whole[1]), zero);
  const __m256i second = _mm256_adds_epi16(_mm256_packs_epi32(whole[2], whole[3]), zero);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(first, second), order);
}

/* 32 levels; 0 if they are not sure. An origin of 0 need not be subtracted. */
KB_INLINE int multiplied(const constants* c, const float* x, int has_origin, uint8_t* levels) {
  __m256i less[4], more[4];
  KB_UNROLL for (int i = 0; i < 4; i++) {
    __m256 d = _mm256_min_ps(c->hi, _mm256_loadu_ps(x + 8 * i)); /* keeps NaN */
    if (has_origin) d = _mm256_sub_ps(d, c->origin);
    less[i] = _mm256_cvtps_epi32(_mm256_mul_ps(d, c->less)); /* ties to even */
    more[i] = _mm256_cvtps_epi32(_mm256_mul_ps(d, c->more));
  }
  const __m256i bytes = _mm256_min_epu8(to_bytes(less, c->zero), c->top);
  kb_store(levels, bytes);
  const __m256i other = _mm256_min_epu8(to_bytes(more, c->zero), c->top);
  return _mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, other)) == -1;
}

/* The operations of the law. Each max and min returns its second operand for NaN, which passes the
 * clip and then becomes the lowest level. The bounds are whole numbers of at most 2^24 in magnitude. */
static void divided(const kb_grid* grid, const float* x, uint8_t* levels) {
  const __m256 lo = _mm256_set1_ps(grid->lo), hi = _mm256_set1_ps(grid->hi);
  const __m256 origin = _mm256_set1_ps(grid->origin), step = _mm256_set1_ps(grid->step);
  const __m256 low = _mm256_set1_ps((float)-grid->zero);
  const __m256 high = _mm256_set1_ps((float)(grid->top - grid->zero));
  __m256i whole[4];
  KB_UNROLL for (int i = 0; i < 4; i++) {
    const __m256 clipped = _mm256_min_ps(hi, _mm256_max_ps(lo, _mm256_loadu_ps(x + 8 * i)));
    const __m256 t = _mm256_div_ps(_mm256_sub_ps(clipped, origin), step);
    whole[i] = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(t, low), high));
    whole[i] = _mm256_add_epi32(whole[i], _mm256_set1_epi32(grid->zero));
  }
  kb_store(levels, to_bytes(whole, _mm256_setzero_si256()));
}

/* The law's t of a value that needs no clip. */
static float scaled(const kb_grid* grid, float x) { return (x - grid->origin) / grid->step; }

/* Constants for multiplied; 0 if the clip leaves out level 0, which NaN has, or leaves a clamp at
 * the bottom to be done, or where roundings would be larger than said above. Values are clipped at
 * the clip's upper end, or half a step above the highest level if that is lower. */
static int find_constants(const kb_grid* grid, constants* c) {
  if (abs(grid->zero) >= kBound || abs(grid->top - grid->zero) >= kBound) return 0;
  if (!(grid->step > 0x1p-100f && grid->step < 0x1p100f)) return 0;
  const float most = grid->origin + grid->step * ((float)(grid->top - grid->zero) + 0.5f);
  const float hi = grid->hi < most ? grid->hi : most, inverse = 1 / grid->step;
  /* What is below the clip, and the clip itself, must have level 0. */
  if (!(scaled(grid, grid->lo) < 0.4f - (float)grid->zero && grid->lo <= hi)) return 0;
  *c = (constants){_mm256_set1_ps(hi),
                   _mm256_set1_ps(grid->origin),
                   _mm256_set1_ps(inverse * (1 - 0x1p-21f)),
                   _mm256_set1_ps(inverse * (1 + 0x1p-21f)),
                   _mm256_set1_epi16((int16_t)grid->zero),
                   _mm256_set1_epi8((char)grid->top)};
  return 1;
}

KB_INLINE size_t all(const kb_grid* grid, const constants* c, const float* x, size_t count,
                     int has_origin, uint8_t* levels) {
  size_t i = 0;
  for (; i + kSome <= count; i += kSome) {
    if (!multiplied(c, x + i, has_origin, levels + i)) divided(grid, x + i, levels + i);
  }
  return i;
}

void kb_levels_avx2(const kb_grid* grid, const float* x, size_t count, uint8_t* levels) {
  constants c;
  size_t i = 0;
  if (count >= kSome && find_constants(grid, &c))
    i = grid->origin == 0 ? all(grid, &c, x, count, 0, levels) : all(grid, &c, x, count, 1, levels);
  for (; i + kSome <= count; i += kSome) divided(grid, x + i, levels + i);
  if (i == count) return;
  float rest[kSome] = {0};
  uint8_t last[kSome];
  memcpy(rest, x + i, (count - i) * sizeof *rest);
  divided(grid, rest, last);
  memcpy(levels + i, last, count - i);
}
#endif
