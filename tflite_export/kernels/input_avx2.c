/* Bits of levels and of planes with AVX2, in units of nibbles. */
#if defined(__x86_64__)
#include "avx2.h"

/* x < lo ? lo : x > hi ? hi : x, which NaN passes unchanged. */
KB_INLINE __m256 clip(__m256 x, __m256 lo, __m256 hi) {
  return _mm256_min_ps(hi, _mm256_max_ps(lo, x));
}

/* 64 bits as a unit of 16 bytes: bit c becomes bit 4 + c % 4 of byte c / 4. */
KB_INLINE void store_unit(uint64_t bits, uint8_t* unit) {
  const __m128i eight = _mm_cvtsi64_si128((long long)bits), high = _mm_set1_epi8((char)0xf0);
  const __m128i even = _mm_and_si128(_mm_slli_epi16(eight, 4), high);
  const __m128i odd = _mm_and_si128(eight, high);
  _mm_storeu_si128((__m128i*)(void*)unit, _mm_unpacklo_epi8(even, odd));
}

/* The wanted bit goes to the top of its byte; what comes from the byte below stays beneath it. */
KB_INLINE uint64_t bits_of_levels(const uint8_t* levels, __m128i up) {
  const unsigned low = (unsigned)_mm256_movemask_epi8(_mm256_sll_epi16(kb_load(levels), up));
  const unsigned high = (unsigned)_mm256_movemask_epi8(_mm256_sll_epi16(kb_load(levels + 32), up));
  return low | (uint64_t)high << 32;
}

void kb_pack_bits_avx2(const uint8_t* levels, size_t count, int shift, uint8_t* image) {
  const __m128i up = _mm_cvtsi32_si128(7 - shift);
  for (; count >= 64; count -= 64, levels += 64, image += 16)
    store_unit(bits_of_levels(levels, up), image);
  if (!count) return;
  uint8_t rest[64] = {0};
  memcpy(rest, levels, count);
  store_unit(bits_of_levels(rest, up), image);
}

/* The bits of a plane of 64 residuals, from which it is taken unless nobody needs what is left. */
KB_INLINE uint64_t take_plane(__m256 rest[8], float scale, int is_last) {
  const __m256 up = _mm256_set1_ps(scale), down = _mm256_set1_ps(-scale);
  uint64_t bits = 0;
  KB_UNROLL for (int i = 0; i < 8; i++) {
    const __m256 set = _mm256_cmp_ps(rest[i], _mm256_setzero_ps(), _CMP_GE_OQ);
    bits |= (uint64_t)(unsigned)_mm256_movemask_ps(set) << 8 * i;
    if (!is_last) rest[i] = _mm256_sub_ps(rest[i], _mm256_blendv_ps(down, up, set));
  }
  return bits;
}

/* A unit of each plane, `at` bytes from the start of its image: the `valid` ones of 64 numbers. */
KB_INLINE void put_units(kb_planes planes, const float* x, uint64_t valid, size_t at,
                         uint8_t* const* images) {
  const __m256 lo = _mm256_set1_ps(planes.lo), hi = _mm256_set1_ps(planes.hi);
  const int last = planes.count - 1;
  __m256 rest[8];
  KB_UNROLL for (int i = 0; i < 8; i++) rest[i] = clip(_mm256_loadu_ps(x + 8 * i), lo, hi);
  for (int p = 0; p < last; p++)
    store_unit(take_plane(rest, planes.scales[p], 0) & valid, images[p] + at);
  store_unit(take_plane(rest, planes.scales[last], 1) & valid, images[last] + at);
}

void kb_planes_avx2(const kb_planes* planes, const float* x, size_t count, uint8_t* const* images) {
  const kb_planes own = *planes; /* which no image overlaps */
  size_t at = 0;
  for (; count >= 64; count -= 64, x += 64, at += 16) put_units(own, x, ~0ull, at, images);
  if (!count) return;
  float rest[64] = {0};
  memcpy(rest, x, count * sizeof *rest);
  put_units(own, rest, (1ull << count) - 1, at, images);
}
#endif
