/* Sums to outputs with AVX2, 4 rows at a time; the last ones through a mask. */
#if defined(__x86_64__)
#include "avx2.h"

enum { kLanes = 4 };

/* The first `lanes` of 4 are all ones. */
static __m128i first_lanes(int lanes) {
  return _mm_cmpgt_epi32(_mm_set1_epi32(lanes), _mm_setr_epi32(0, 1, 2, 3));
}

KB_INLINE __m256d load_doubles(const double* p, __m128i mask, int whole) {
  return whole ? _mm256_loadu_pd(p) : _mm256_maskload_pd(p, _mm256_cvtepi32_epi64(mask));
}

KB_INLINE __m256d load_sums(const kb_finish_args* args, size_t part, size_t at, __m128i mask,
                            int whole) {
  const char* sums = (const char*)args->sums + part * args->part_stride + at * sizeof(int32_t);
  const int* from = (const int*)(const void*)sums;
  const __m128i four =
      whole ? _mm_loadu_si128((const __m128i*)(const void*)from) : _mm_maskload_epi32(from, mask);
  return args->is_float ? _mm256_cvtps_pd(_mm_castsi128_ps(four)) : _mm256_cvtepi32_pd(four);
}

/* Rows r to r + 3 of pixel p. Products and sums are rounded apart, so never fused. The operands of
 * max and min are in the order that keeps NaN. */
KB_INLINE void finish_4(const kb_finish_args* args, int p, int r, __m128i mask, int whole) {
  const size_t rows = (size_t)args->rows, row = (size_t)r, at = (size_t)p * rows + row;
  __m256d total = load_sums(args, 0, at, mask, whole);
  if (args->coefficients)
    total = _mm256_mul_pd(total, load_doubles(args->coefficients + row, mask, whole));
  for (size_t i = 1; i < (size_t)args->parts; i++) {
    const __m256d coefficient = load_doubles(args->coefficients + i * rows + row, mask, whole);
    const __m256d sum = load_sums(args, i, at, mask, whole);
    total = _mm256_add_pd(total, _mm256_mul_pd(coefficient, sum));
  }
  if (args->input_weights) {
    const __m256d weight = load_doubles(args->input_weights + row, mask, whole);
    total = _mm256_add_pd(total, _mm256_mul_pd(weight, _mm256_set1_pd(args->input_sums[p])));
  }
  total = _mm256_mul_pd(total, load_doubles(args->scales + row, mask, whole));
  total = _mm256_add_pd(total, load_doubles(args->base[p] + row, mask, whole));
  __m128 y = _mm256_cvtpd_ps(total);
  y = _mm_min_ps(_mm_set1_ps(args->high), _mm_max_ps(_mm_set1_ps(args->low), y));
  float* to = args->y + (size_t)p * args->y_stride + row;
  if (whole)
    _mm_storeu_ps(to, y);
  else
    _mm_maskstore_ps(to, mask, y);
}

void kb_finish_avx2(const kb_finish_args* args) {
  const int whole = args->used / kLanes * kLanes;
  const __m128i mask = first_lanes(args->used - whole);
  for (int p = 0; p < args->count; p++) {
    for (int r = 0; r < whole; r += kLanes) finish_4(args, p, r, mask, 1);
    if (whole < args->used) finish_4(args, p, whole, mask, 0);
  }
}
#endif
