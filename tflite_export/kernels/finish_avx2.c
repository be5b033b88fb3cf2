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

KB_INLINE __m256d load_sums(const void* sums, size_t at, __m128i mask, int whole, int is_float) {
  const int* from = (const int*)sums + at;
  const __m128i four =
      whole ? _mm_loadu_si128((const __m128i*)(const void*)from) : _mm_maskload_epi32(from, mask);
  return is_float ? _mm256_cvtps_pd(_mm_castsi128_ps(four)) : _mm256_cvtepi32_pd(four);
}

/* What comes between the first sum and the scale, for all but the plainest layers. */
KB_INLINE __m256d add_terms(const kb_finish_args* args, __m256d total, int p, size_t row,
                            __m128i mask, int whole) {
  const size_t rows = (size_t)args->rows, at = (size_t)p * rows + row;
  if (args->coefficients)
    total = _mm256_mul_pd(total, load_doubles(args->coefficients + row, mask, whole));
  for (size_t i = 1; i < (size_t)args->parts; i++) {
    const void* sums = (const char*)args->sums + i * args->part_stride;
    const __m256d coefficient = load_doubles(args->coefficients + i * rows + row, mask, whole);
    const __m256d sum = load_sums(sums, at, mask, whole, args->is_float);
    total = _mm256_add_pd(total, _mm256_mul_pd(coefficient, sum));
  }
  if (!args->input_weights) return total;
  const __m256d weight = load_doubles(args->input_weights + row, mask, whole);
  return _mm256_add_pd(total, _mm256_mul_pd(weight, _mm256_set1_pd(args->input_sums[p])));
}

/* Four rows of all pixels. Products and sums are rounded apart, so never fused; max and min return
 * their second operand for NaN, which therefore stays. */
KB_INLINE void finish_rows(const kb_finish_args* args, size_t row, __m128i mask, int whole,
                           int is_float, int is_plain) {
  const size_t rows = (size_t)args->rows, stride = args->y_stride;
  const void* sums = args->sums;
  const double* const* base = args->base;
  const __m128 low = _mm_set1_ps(args->low), high = _mm_set1_ps(args->high);
  const __m256d scale = load_doubles(args->scales + row, mask, whole);
  float* to = args->y + row;
  const int count = args->count;
  for (int p = 0; p < count; p++, to += stride) {
    __m256d total = load_sums(sums, (size_t)p * rows + row, mask, whole, is_float);
    if (!is_plain) total = add_terms(args, total, p, row, mask, whole);
    total = _mm256_mul_pd(total, scale);
    total = _mm256_add_pd(total, load_doubles(base[p] + row, mask, whole));
    const __m128 y = _mm_min_ps(high, _mm_max_ps(low, _mm256_cvtpd_ps(total)));
    if (whole)
      _mm_storeu_ps(to, y);
    else
      _mm_maskstore_ps(to, mask, y);
  }
}

/* Of the plainest layers, eight rows of all pixels. */
static void finish_eight(const kb_finish_args* args, size_t row) {
  const __m256 low = _mm256_set1_ps(args->low), high = _mm256_set1_ps(args->high);
  const __m256d first = _mm256_loadu_pd(args->scales + row);
  const __m256d second = _mm256_loadu_pd(args->scales + row + 4);
  const int32_t* sums = (const int32_t*)args->sums + row;
  float* to = args->y + row;
  for (int p = 0; p < args->count; p++, to += args->y_stride, sums += args->rows) {
    const double* base = args->base[p] + row;
    const __m256d s = _mm256_cvtepi32_pd(_mm_loadu_si128((const void*)sums));
    const __m256d t = _mm256_cvtepi32_pd(_mm_loadu_si128((const void*)(sums + 4)));
    const __m256d u = _mm256_add_pd(_mm256_mul_pd(s, first), _mm256_loadu_pd(base));
    const __m256d v = _mm256_add_pd(_mm256_mul_pd(t, second), _mm256_loadu_pd(base + 4));
    const __m256 y = _mm256_set_m128(_mm256_cvtpd_ps(v), _mm256_cvtpd_ps(u));
    _mm256_storeu_ps(to, _mm256_min_ps(high, _mm256_max_ps(low, y)));
  }
}

KB_INLINE void finish_all(const kb_finish_args* args, int is_float, int is_plain) {
  const int whole = args->used / kLanes * kLanes;
  const __m128i mask = first_lanes(args->used - whole);
  int r = 0;
  if (is_plain && !is_float) {
    for (; r + 2 * kLanes <= args->used; r += 2 * kLanes) finish_eight(args, (size_t)r);
  }
  for (; r < whole; r += kLanes)
    finish_rows(args, (size_t)r, mask, 1, is_float, is_plain);
  if (whole < args->used) finish_rows(args, (size_t)whole, mask, 0, is_float, is_plain);
}

void kb_finish_avx2(const kb_finish_args* args) {
  const int is_plain = !args->coefficients && !args->input_weights;
  if (args->is_float)
    finish_all(args, 1, 0);
  else if (is_plain)
    finish_all(args, 0, 1);
  else
    finish_all(args, 0, 0);
}
#endif
