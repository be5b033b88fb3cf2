/* Floats to levels, bits of levels and of planes for AVX-512. Comparisons give masks, which are the
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

/* The bits of a plane of 64 residuals, from which it is taken unless nobody needs what is left. */
KB_INLINE uint64_t take_plane(__m512 rest[4], float scale, int is_last) {
  const __m512 size = _mm512_set1_ps(scale);
  uint64_t bits = 0;
  KB_UNROLL for (int i = 0; i < 4; i++) {
    const __mmask16 set = _mm512_cmp_ps_mask(rest[i], _mm512_setzero_ps(), _CMP_GE_OQ);
    bits |= (uint64_t)set << 16 * i;
    if (is_last) continue;
    const __m512 more = _mm512_add_ps(rest[i], size); /* r - -s */
    rest[i] = _mm512_mask_sub_ps(more, set, rest[i], size);
  }
  return bits;
}

/* A unit of each plane, `at` bytes from the start of its image: the `valid` ones of 64 numbers. */
KB_INLINE void put_units(kb_planes planes, const float* x, uint64_t valid, size_t at,
                         uint8_t* const* images) {
  const __m512 lo = _mm512_set1_ps(planes.lo), hi = _mm512_set1_ps(planes.hi);
  const int last = planes.count - 1;
  __m512 rest[4];
  KB_UNROLL for (int i = 0; i < 4; i++)
    rest[i] = clip(_mm512_maskz_loadu_ps((__mmask16)(valid >> 16 * i), x + 16 * i), lo, hi);
  for (int p = 0; p < last; p++)
    store_word(take_plane(rest, planes.scales[p], 0) & valid, images[p] + at);
  store_word(take_plane(rest, planes.scales[last], 1) & valid, images[last] + at);
}

void kb_planes_avx512(const kb_planes* planes, const float* x, size_t count,
                      uint8_t* const* images) {
  const kb_planes own = *planes; /* which no image overlaps */
  size_t at = 0;
  for (; count >= 64; count -= 64, x += 64, at += 8) put_units(own, x, ~UINT64_C(0), at, images);
  if (count) put_units(own, x, first64(count), at, images);
}
#endif
