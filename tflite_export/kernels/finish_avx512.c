/* Sums to outputs for AVX-512: eight rows at a time, in double, for all pixels of a call, so that
 * what belongs to the rows stays in registers. */
#if defined(__x86_64__)
#include "avx512.h"

typedef struct {
  __m512d coefficient, input_weight, scale;
  __mmask8 used; /* of the eight rows */
} row_vectors;

/* Sums of eight rows; those that are not used are not read, as they may lie behind the end. */
KB_INLINE __m512d load_sums(const void* sums, size_t at, __mmask8 used, const int is_float) {
  if (is_float)
    return _mm512_cvtps_pd(_mm256_maskz_loadu_ps(used, (const float*)sums + at));
  return _mm512_cvtepi32_pd(_mm256_maskz_loadu_epi32(used, (const int32_t*)sums + at));
}

/* Parts behind the first, in their order. */
static __m512d add_parts(const kb_finish_args* args, __m512d total, size_t at, size_t row,
                         __mmask8 used) {
  for (int i = 1; i < args->parts; i++) {
    const uint8_t* sums = (const uint8_t*)args->sums + (size_t)i * args->part_stride;
    const double* coefficients = args->coefficients + (size_t)i * (size_t)args->rows + row;
    __m512d part = load_sums(sums, at, used, args->is_float);
    total = _mm512_add_pd(
        total, _mm512_mul_pd(_mm512_maskz_loadu_pd(used, coefficients), part));
  }
  return total;
}

KB_INLINE void finish_rows(const kb_finish_args* args, size_t row, const row_vectors* rows,
                           const int is_float, const int has_coefficients, const int has_more) {
  const __m256 low = _mm256_set1_ps(args->low), high = _mm256_set1_ps(args->high);
  for (int p = 0; p < args->count; p++) {
    const size_t at = (size_t)p * (size_t)args->rows + row;
    __m512d total = load_sums(args->sums, at, rows->used, is_float);
    if (has_coefficients) total = _mm512_mul_pd(total, rows->coefficient);
    if (has_more) total = add_parts(args, total, at, row, rows->used);
    if (args->input_weights) {
      __m512d input = _mm512_set1_pd(args->input_sums[p]);
      total = _mm512_add_pd(total, _mm512_mul_pd(rows->input_weight, input));
    }
    __m512d base = _mm512_maskz_loadu_pd(rows->used, args->base[p] + row);
    __m256 y = _mm512_cvtpd_ps(_mm512_add_pd(_mm512_mul_pd(total, rows->scale), base));
    /* v < low ? low : v > high ? high : v; each returns its second operand for NaN */
    y = _mm256_min_ps(high, _mm256_max_ps(low, y));
    _mm256_mask_storeu_ps(args->y + (size_t)p * args->y_stride + row, rows->used, y);
  }
}

void kb_finish_avx512(const kb_finish_args* args) {
  for (int row = 0; row < args->used; row += 8) {
    const size_t at = (size_t)row;
    const __mmask8 used = (__mmask8)(args->used - row < 8 ? (1 << (args->used - row)) - 1 : 255);
    row_vectors rows = {_mm512_setzero_pd(), _mm512_setzero_pd(),
                        _mm512_maskz_loadu_pd(used, args->scales + at), used};
    if (args->coefficients)
      rows.coefficient = _mm512_maskz_loadu_pd(used, args->coefficients + at);
    if (args->input_weights)
      rows.input_weight = _mm512_maskz_loadu_pd(used, args->input_weights + at);
    if (args->is_float)
      finish_rows(args, at, &rows, 1, args->coefficients != NULL, args->parts > 1);
    else if (args->parts > 1)
      finish_rows(args, at, &rows, 0, 1, 1);
    else
      finish_rows(args, at, &rows, 0, args->coefficients != NULL, 0);
  }
}
#endif
