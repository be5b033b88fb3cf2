/* Sums to outputs with AVX2: 16 rows at a time, then 4; the last ones through a mask. */
#if defined(__x86_64__)
#include "avx2.h"

enum { kLanes = 4, kGroups = 4 };

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

/* What a call has of the terms, known when compiling, and groups of four rows that are done together,
 * which may be whole. */
typedef struct {
  int groups, whole;
  int is_float, has_coefficients, has_more, has_weights;
} terms;

/* Parts behind the first, for all groups of a pixel. */
KB_INLINE void add_parts(const kb_finish_args* args, size_t at, size_t row, __m128i mask, terms has,
                         __m256d* total) {
  const char* sums = args->sums;
  const double* coefficients = args->coefficients + row;
  for (int i = 1; i < args->parts; i++) {
    sums += args->part_stride;
    coefficients += args->rows;
    KB_UNROLL for (int g = 0; g < has.groups; g++) {
      const size_t more = (size_t)(kLanes * g);
      const __m256d sum = load_sums(sums, at + more, mask, has.whole, has.is_float);
      const __m256d coefficient = load_doubles(coefficients + more, mask, has.whole);
      total[g] = _mm256_add_pd(total[g], _mm256_mul_pd(coefficient, sum));
    }
  }
}

/* Groups of rows of a pixel. Products and sums are rounded apart, so never fused; max and min
 * return their second operand for NaN, which therefore stays. */
KB_INLINE void finish_groups(const kb_finish_args* args, size_t p, size_t row, __m128i mask,
                             terms has) {
  const size_t at = p * (size_t)args->rows + row;
  const __m128 low = _mm_set1_ps(args->low), high = _mm_set1_ps(args->high);
  __m256d total[kGroups];
  KB_UNROLL for (int g = 0; g < has.groups; g++) {
    const size_t more = (size_t)(kLanes * g);
    total[g] = load_sums(args->sums, at + more, mask, has.whole, has.is_float);
    if (has.has_coefficients)
      total[g] = _mm256_mul_pd(total[g], load_doubles(args->coefficients + row + more, mask,
                                                      has.whole));
  }
  if (has.has_more) add_parts(args, at, row, mask, has, total);
  KB_UNROLL for (int g = 0; g < has.groups; g++) {
    const size_t here = row + (size_t)(kLanes * g);
    if (has.has_weights) {
      const __m256d weights = load_doubles(args->input_weights + here, mask, has.whole);
      const __m256d inputs = _mm256_set1_pd(args->input_sums[p]);
      total[g] = _mm256_add_pd(total[g], _mm256_mul_pd(weights, inputs));
    }
    const __m256d scales = load_doubles(args->scales + here, mask, has.whole);
    const __m256d product = _mm256_mul_pd(total[g], scales);
    const double* base = (const double*)args->base[p] + here;
    const __m256d sum = _mm256_add_pd(product, load_doubles(base, mask, has.whole));
    const __m128 y = _mm_min_ps(high, _mm_max_ps(low, _mm256_cvtpd_ps(sum)));
    float* to = args->y + p * args->y_stride + here;
    if (has.whole)
      _mm_storeu_ps(to, y);
    else
      _mm_maskstore_ps(to, mask, y);
  }
}

/* Pixel by pixel, so that outputs are written one after the other. */
KB_INLINE void finish(const kb_finish_args* given, terms has) {
  const kb_finish_args args = *given; /* of which no output can be a part */
  const size_t used = (size_t)args.used, whole = used / kLanes * kLanes;
  const __m128i mask = first_lanes((int)(used - whole));
  terms some = has, one = has, last = has;
  some.groups = kGroups;
  one.groups = last.groups = 1;
  some.whole = one.whole = 1;
  for (size_t p = 0; p < (size_t)args.count; p++) {
    size_t row = 0;
    for (; row + kLanes * kGroups <= used; row += kLanes * kGroups)
      finish_groups(&args, p, row, mask, some);
    for (; row < whole; row += kLanes) finish_groups(&args, p, row, mask, one);
    if (row < used) finish_groups(&args, p, row, mask, last);
  }
}

void kb_finish_avx2(const kb_finish_args* args) {
  const int weights = args->input_weights != NULL;
  if (args->is_float)
    finish(args, (terms){0, 0, 1, args->coefficients != NULL, 1, weights});
  else if (args->coefficients)
    finish(args, (terms){0, 0, 0, 1, args->parts > 1, weights});
  else if (weights)
    finish(args, (terms){0, 0, 0, 0, 0, 1});
  else
    finish(args, (terms){0, 0, 0, 0, 0, 0});
}
#endif
