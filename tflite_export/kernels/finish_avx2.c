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

/* What a call has of the terms, known when compiling. */
typedef struct {
  int is_float, has_coefficients, has_more, has_weights;
} terms;

/* Parts behind the first. */
KB_INLINE __m256d add_parts(const kb_finish_args* args, __m256d total, size_t at, size_t row,
                            __m128i mask, int whole, int is_float) {
  for (size_t i = 1; i < (size_t)args->parts; i++) {
    const void* sums = (const char*)args->sums + i * args->part_stride;
    const double* coefficients = args->coefficients + i * (size_t)args->rows + row;
    const __m256d sum = load_sums(sums, at, mask, whole, is_float);
    total =
        _mm256_add_pd(total, _mm256_mul_pd(load_doubles(coefficients, mask, whole), sum));
  }
  return total;
}

/* Four rows of a pixel. Products and sums are rounded apart, so never fused; max and min return
 * their second operand for NaN, which therefore stays. */
KB_INLINE void finish_4(const kb_finish_args* args, size_t p, size_t row, __m128i mask, int whole,
                        terms has) {
  const size_t at = p * (size_t)args->rows + row;
  __m256d total = load_sums(args->sums, at, mask, whole, has.is_float);
  if (has.has_coefficients)
    total = _mm256_mul_pd(total, load_doubles(args->coefficients + row, mask, whole));
  if (has.has_more) total = add_parts(args, total, at, row, mask, whole, has.is_float);
  if (has.has_weights) {
    const __m256d weights = load_doubles(args->input_weights + row, mask, whole);
    total = _mm256_add_pd(total, _mm256_mul_pd(weights, _mm256_set1_pd(args->input_sums[p])));
  }
  total = _mm256_mul_pd(total, load_doubles(args->scales + row, mask, whole));
  total = _mm256_add_pd(total, load_doubles((const double*)args->base[p] + row, mask, whole));
  const __m128 low = _mm_set1_ps(args->low), high = _mm_set1_ps(args->high);
  const __m128 y = _mm_min_ps(high, _mm_max_ps(low, _mm256_cvtpd_ps(total)));
  float* to = args->y + p * args->y_stride + row;
  if (whole)
    _mm_storeu_ps(to, y);
  else
    _mm_maskstore_ps(to, mask, y);
}

/* Pixel by pixel, so that outputs are written one after the other. */
KB_INLINE void finish(const kb_finish_args* given, terms has) {
  const kb_finish_args args = *given; /* of which no output can be a part */
  const size_t whole = (size_t)(args.used / kLanes * kLanes);
  const int left = args.used % kLanes;
  const __m128i mask = first_lanes(left);
  for (size_t p = 0; p < (size_t)args.count; p++) {
    for (size_t row = 0; row < whole; row += kLanes) finish_4(&args, p, row, mask, 1, has);
    if (left) finish_4(&args, p, whole, mask, 0, has);
  }
}

void kb_finish_avx2(const kb_finish_args* args) {
  if (args->is_float)
    finish(args, (terms){1, args->coefficients != NULL, 1, args->input_weights != NULL});
  else if (args->coefficients)
    finish(args, (terms){0, 1, args->parts > 1, args->input_weights != NULL});
  else if (args->input_weights)
    finish(args, (terms){0, 0, 0, 1});
  else
    finish(args, (terms){0, 0, 0, 0});
}
#endif
