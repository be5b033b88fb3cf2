/* Floats to levels, bits of levels and signs for AVX-512. Comparisons give masks, which are the
 * bits of a unit as they stand. */
#if defined(__x86_64__)
#include "avx512.h"

/* x < lo ? lo : x > hi ? hi : x. Each of the two returns its second operand for NaN. */
KB_INLINE __m512 clip(__m512 x, __m512 lo, __m512 hi) {
  return _mm512_min_ps(hi, _mm512_max_ps(lo, x));
}

/* The first `count` of 16 or 64 elements. */
static inline __mmask16 first16(size_t count) { return (__mmask16)((1u << count) - 1); }

static inline __mmask64 first64(size_t count) { return (UINT64_C(1) << count) - 1; }

typedef struct {
  __m512 lo, hi, origin, step, low, high;
  __m512i zero;
} grid_vectors;

/* The operations of the law one by one; the conversion rounds ties to even. */
KB_INLINE __m512i to_levels(const grid_vectors* grid, __m512 x) {
  __m512 t = _mm512_sub_ps(clip(x, grid->lo, grid->hi), grid->origin);
  t = _mm512_max_ps(_mm512_div_ps(t, grid->step), grid->low); /* NaN gives low */
  return _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_min_ps(t, grid->high)), grid->zero);
}

void kb_levels_avx512(const kb_grid* grid, const float* x, size_t count, uint8_t* levels) {
  const grid_vectors vectors = {_mm512_set1_ps(grid->lo),
                                _mm512_set1_ps(grid->hi),
                                _mm512_set1_ps(grid->origin),
                                _mm512_set1_ps(grid->step),
                                _mm512_set1_ps((float)-grid->zero),
                                _mm512_set1_ps((float)(grid->top - grid->zero)),
                                _mm512_set1_epi32(grid->zero)};
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    __m512i level = to_levels(&vectors, _mm512_loadu_ps(x + i));
    _mm_storeu_si128((__m128i*)(void*)(levels + i), _mm512_cvtepi32_epi8(level));
  }
  if (i < count) {
    const __mmask16 rest = first16(count - i);
    __m512i level = to_levels(&vectors, _mm512_maskz_loadu_ps(rest, x + i));
    _mm512_mask_cvtepi32_storeu_epi8(levels + i, rest, level);
  }
}

static inline void store_word(uint64_t word, uint8_t* image) { memcpy(image, &word, sizeof word); }

void kb_pack_bits_avx512(const uint8_t* levels, size_t count, int shift, uint8_t* image) {
  const __m512i bit = _mm512_set1_epi8((char)(1u << shift));
  for (; count >= 64; count -= 64, levels += 64, image += 8)
    store_word(_mm512_test_epi8_mask(_mm512_loadu_si512(levels), bit), image);
  if (count) {
    __m512i rest = _mm512_maskz_loadu_epi8(first64(count), levels);
    store_word(_mm512_test_epi8_mask(rest, bit), image);
  }
}

KB_INLINE uint64_t signs16(__m512 lo, __m512 hi, __m512 x) {
  return _mm512_cmp_ps_mask(clip(x, lo, hi), _mm512_setzero_ps(), _CMP_GE_OQ);
}

void kb_signs_avx512(float lo, float hi, const float* x, size_t count, uint8_t* image) {
  const __m512 low = _mm512_set1_ps(lo), high = _mm512_set1_ps(hi);
  for (; count >= 64; count -= 64, x += 64, image += 8) {
    store_word(signs16(low, high, _mm512_loadu_ps(x)) |
                   signs16(low, high, _mm512_loadu_ps(x + 16)) << 16 |
                   signs16(low, high, _mm512_loadu_ps(x + 32)) << 32 |
                   signs16(low, high, _mm512_loadu_ps(x + 48)) << 48,
               image);
  }
  if (count) {
    uint64_t word = 0;
    for (size_t at = 0; at < count; at += 16) {
      const __mmask16 some = count - at < 16 ? first16(count - at) : (__mmask16)0xffff;
      __m512 rest = _mm512_maskz_loadu_ps(some, x + at);
      word |= (signs16(low, high, rest) & some) << at;
    }
    store_word(word, image);
  }
}
#endif
