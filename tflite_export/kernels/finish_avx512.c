/* Sums to outputs for AVX-512, in double: 32 rows at a time, pixel by pixel, so that outputs are
 * written as they lie and what belongs to the rows stays in registers. */
#if defined(__x86_64__)
#include <math.h>

#include "avx512.h"

enum { kGroup = 8, kGroups = 4 };

/* What belongs to a group of eight rows, of which only those that are used are read and written. */
typedef struct {
  __m512d coefficient, input_weight, scale, base;
  __mmask8 used;
} group;

static group make_group(const kb_finish_args* args, size_t row) {
  const size_t left = (size_t)args->used - row;
  const __mmask8 used = (__mmask8)(left < kGroup ? (1u << left) - 1 : 255);
  group group = {_mm512_setzero_pd(), _mm512_setzero_pd(),
                 _mm512_maskz_loadu_pd(used, args->scales + row), _mm512_setzero_pd(), used};
  if (args->coefficients)
    group.coefficient = _mm512_maskz_loadu_pd(used, args->coefficients + row);
  if (args->input_weights)
    group.input_weight = _mm512_maskz_loadu_pd(used, args->input_weights + row);
  return group;
}

KB_INLINE __m512d load_sums(const void* sums, size_t at, __mmask8 used, const int is_float) {
  if (is_float)
    return _mm512_cvtps_pd(_mm256_maskz_loadu_ps(used, (const float*)sums + at));
  return _mm512_cvtepi32_pd(_mm256_maskz_loadu_epi32(used, (const int32_t*)sums + at));
}

/* Parts behind the first, in their order. */
KB_INLINE __m512d add_parts(const kb_finish_args* args, __m512d total, size_t at, size_t row,
                            __mmask8 used, const int is_float) {
  const uint8_t* sums = args->sums;
  const double* coefficients = args->coefficients + row;
  for (int i = 1; i < args->parts; i++) {
    sums += args->part_stride;
    coefficients += args->rows;
    __m512d coefficient = _mm512_maskz_loadu_pd(used, coefficients);
    __m512d sum = load_sums(sums, at, used, is_float);
    total = _mm512_add_pd(total, _mm512_mul_pd(coefficient, sum));
  }
  return total;
}

/* One rounding for each operation of the law (-ffp-contract=off). Of min and max each returns its
 * second operand for NaN. */
KB_INLINE __m256 outputs(const kb_finish_args* args, const group* group, size_t pixel, size_t row,
                         const int is_float, int clamps) {
  const size_t at = pixel * (size_t)args->rows + row;
  __m512d total = load_sums(args->sums, at, group->used, is_float);
  if (args->coefficients) total = _mm512_mul_pd(total, group->coefficient);
  if (args->parts > 1) total = add_parts(args, total, at, row, group->used, is_float);
  if (args->input_weights) {
    __m512d input = _mm512_set1_pd(args->input_sums[pixel]);
    total = _mm512_add_pd(total, _mm512_mul_pd(group->input_weight, input));
  }
  __m256 y = _mm512_cvtpd_ps(_mm512_add_pd(_mm512_mul_pd(total, group->scale), group->base));
  if (!clamps) return y;
  y = _mm256_max_ps(_mm256_set1_ps(args->low), y);
  return _mm256_min_ps(_mm256_set1_ps(args->high), y);
}

/* Arguments by value: nothing written can change them. Neighbours mostly start from the same base,
 * which is then loaded once. */
KB_INLINE void finish_rows(const kb_finish_args args, size_t row, const int groups,
                           const int is_float) {
  group group[kGroups];
  const int clamps = args.low > -INFINITY || args.high < INFINITY;
  const double* base = NULL;
  KB_UNROLL
  for (int g = 0; g < groups; g++) group[g] = make_group(&args, row + kGroup * (size_t)g);
  for (size_t p = 0; p < (size_t)args.count; p++) {
    if (args.base[p] != base) {
      base = args.base[p];
      KB_UNROLL
      for (int g = 0; g < groups; g++)
        group[g].base = _mm512_maskz_loadu_pd(group[g].used, base + row + kGroup * g);
    }
    KB_UNROLL
    for (int g = 0; g < groups; g++) {
      const size_t at = row + kGroup * (size_t)g;
      __m256 y = outputs(&args, &group[g], p, at, is_float, clamps);
      _mm256_mask_storeu_ps(args.y + p * args.y_stride + at, group[g].used, y);
    }
  }
}

void kb_finish_avx512(const kb_finish_args* args) {
  for (size_t row = 0; row < (size_t)args->used; row += kGroup * kGroups) {
    const size_t groups = ((size_t)args->used - row + kGroup - 1) / kGroup;
    if (args->is_float) {
      for (size_t g = 0; g < groups && g < kGroups; g++)
        finish_rows(*args, row + kGroup * g, 1, 1);
    } else if (groups >= 4) {
      finish_rows(*args, row, 4, 0);
    } else if (groups == 3) {
      finish_rows(*args, row, 3, 0);
    } else if (groups == 2) {
      finish_rows(*args, row, 2, 0);
    } else {
      finish_rows(*args, row, 1, 0);
    }
  }
}
#endif
