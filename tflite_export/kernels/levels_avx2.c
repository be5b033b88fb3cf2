/* Floats to levels with AVX2, mostly without division, and clamped as integers.
 *
 * The law rounds t = d / step, d = clip(x) - origin, to a whole number. Here d is multiplied with
 * 2^16 / step and rounded, and half a level added, so that the upper 16 bits are the level. All
 * roundings, those of t too, amount to less than 4: three relative ones of 2^-24 for |t| of at most
 * 256.5, and the last one of 1/2. So where the lower 16 bits are at least kNear from the next level,
 * the upper ones are sure. Where they are not, once in a hundred times, 32 values are divided.
 *
 * Whole numbers are packed with saturation, which clamps them for 8 bits; the conversion makes what
 * is too small, and NaN, the smallest int32, and so level 0. Only large values are clipped before. */
#if defined(__x86_64__)
#include <math.h>
#include <stdlib.h>

#include "avx2.h"

enum { kSome = 32, kBound = 1 << 8, kNear = 8 };

typedef struct {
  __m256 hi, origin, scale;
  __m256i offset, top;
} constants;

/* The upper halves of two vectors of int32, in turns, and the lower ones. */
KB_INLINE __m256i upper(__m256i a, __m256i b) {
  return _mm256_blend_epi16(_mm256_srli_epi32(a, 16), b, 0xaa);
}

KB_INLINE __m256i lower(__m256i a, __m256i b) {
  return _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa);
}

/* 32 levels; 0 if they are not sure. An origin of 0 need not be subtracted. */
KB_INLINE int multiplied(const constants* c, const float* x, int has_origin, uint8_t* levels) {
  const __m256i margin = _mm256_set1_epi16(kNear), twice = _mm256_set1_epi16(2 * kNear);
  const __m256i turns = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  __m256i t[4];
  KB_UNROLL for (int i = 0; i < 4; i++) {
    __m256 d = _mm256_min_ps(c->hi, _mm256_loadu_ps(x + 8 * i)); /* keeps NaN */
    if (has_origin) d = _mm256_sub_ps(d, c->origin);
    t[i] = _mm256_add_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(d, c->scale)), c->offset);
  }
  __m256i bytes = _mm256_packus_epi16(upper(t[0], t[1]), upper(t[2], t[3]));
  bytes = _mm256_shuffle_epi8(_mm256_min_epu8(bytes, c->top), turns);
  kb_store(levels, _mm256_permutevar8x32_epi32(bytes, order));
  const __m256i first = _mm256_add_epi16(lower(t[0], t[1]), margin);
  const __m256i nearest = _mm256_min_epu16(first, _mm256_add_epi16(lower(t[2], t[3]), margin));
  const __m256i beyond = _mm256_subs_epu16(nearest, twice); /* 0 where not sure */
  return !_mm256_movemask_epi8(_mm256_cmpeq_epi16(beyond, _mm256_setzero_si256()));
}

/* 32 whole numbers, clamped to bytes. Packing works within halves of vectors; the permutation
 * puts the fours in order. */
KB_INLINE __m256i to_bytes(const __m256i whole[4]) {
  const __m256i first = _mm256_packs_epi32(whole[0], whole[1]);
  const __m256i second = _mm256_packs_epi32(whole[2], whole[3]);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(first, second), order);
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
  kb_store(levels, to_bytes(whole));
}

/* The law's t of a value that needs no clip. */
static float scaled(const kb_grid* grid, float x) { return (x - grid->origin) / grid->step; }

/* Constants for multiplied; 0 if the clip leaves out level 0, which NaN has, or leaves a clamp at
 * the bottom to be done, or where roundings would be larger than said above. Values are clipped at
 * the clip's upper end, or a quarter of a step above the highest level if that is lower. */
static int find_constants(const kb_grid* grid, constants* c) {
  if (abs(grid->zero) > kBound || abs(grid->top - grid->zero) > kBound) return 0;
  if (!(grid->step > 0x1p-100f && grid->step < 0x1p100f)) return 0;
  const float most = grid->origin + grid->step * ((float)(grid->top - grid->zero) + 0.25f);
  const float hi = grid->hi < most ? grid->hi : most;
  /* What is below the clip, and the clip itself, must have level 0. */
  if (!(scaled(grid, grid->lo) < 0.4f - (float)grid->zero && grid->lo <= hi)) return 0;
  *c = (constants){_mm256_set1_ps(hi),
                   _mm256_set1_ps(grid->origin),
                   _mm256_set1_ps(1 / grid->step * 0x1p16f),
                   _mm256_set1_epi32(grid->zero * (1 << 16) + (1 << 15)),
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
