/* Whole numbers to outputs for AVX-512: up to 64 rows at a time, pixel by pixel, so that what
 * belongs to the rows stays in registers. */
#if defined(__x86_64__)
#include "avx512.h"

enum { kLanes = 16, kGroups = 4 };

/* What belongs to a group of 16 rows, of which only those that are used are read and written. */
typedef struct {
  __m512 scale, bias;
  __mmask16 used;
} group;

/* What a call has of the terms, known when compiling. */
typedef struct {
  int groups;
  int is_sum; /* one part without a shift, and no input weights */
  int has_starts;
} terms;

static group make_group(const kb_finish_whole_args* args, size_t row) {
  const size_t left = (size_t)args->used - row;
  const __mmask16 used = (__mmask16)(left < kLanes ? (1u << left) - 1 : 0xffff);
  return (group){_mm512_maskz_loadu_ps(used, args->scales + row),
                 _mm512_maskz_loadu_ps(used, args->biases + row), used};
}

/* Shifted parts, and what the weights' offsets add. */
KB_INLINE __m512i add_parts(const kb_finish_whole_args* args, size_t pixel, size_t row,
                            __mmask16 used) {
  const char* sums = (const char*)(args->sums + pixel * (size_t)args->rows + row);
  __m512i total = _mm512_setzero_si512();
  for (int i = 0; i < args->parts; i++, sums += args->part_stride) {
    const __m128i shift = _mm_cvtsi32_si128(args->shifts ? args->shifts[i] : 0);
    const __m512i part = _mm512_sll_epi32(_mm512_maskz_loadu_epi32(used, sums), shift);
    total = _mm512_add_epi32(total, part);
  }
  if (!args->input_weights) return total;
  const __m512i weights = _mm512_maskz_loadu_epi32(used, args->input_weights + row);
  const __m512i inputs = _mm512_set1_epi32(args->input_sums[pixel]);
  return _mm512_add_epi32(total, _mm512_mullo_epi32(weights, inputs));
}

/* One rounding for each operation of the law (-ffp-contract=off). Of min and max each returns its
 * second operand for NaN. */
KB_INLINE __m512 outputs(const kb_finish_whole_args* args, const group* group, __m512i total) {
  const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(total), group->scale);
  const __m512 y = _mm512_max_ps(_mm512_set1_ps(args->low), _mm512_add_ps(product, group->bias));
  return _mm512_min_ps(_mm512_set1_ps(args->high), y);
}

/* Arguments by value: nothing written can change them. */
KB_INLINE void finish(const kb_finish_whole_args args, size_t row, terms has) {
  group group[kGroups];
  KB_UNROLL
  for (int g = 0; g < has.groups; g++) group[g] = make_group(&args, row + kLanes * (size_t)g);
  for (size_t p = 0; p < (size_t)args.count; p++) {
    KB_UNROLL
    for (int g = 0; g < has.groups; g++) {
      const size_t at = row + kLanes * (size_t)g;
      const __mmask16 used = group[g].used;
      const int32_t* sums = args.sums + p * (size_t)args.rows + at;
      __m512i total = has.is_sum ? _mm512_maskz_loadu_epi32(used, sums)
                                 : add_parts(&args, p, at, used);
      if (has.has_starts) {
        const int32_t* starts = args.starts[p];
        total = _mm512_add_epi32(total, _mm512_maskz_loadu_epi32(used, starts + at));
      }
      _mm512_mask_storeu_ps(args.y + p * args.y_stride + at, used,
                            outputs(&args, &group[g], total));
    }
  }
}

KB_INLINE void finish_rows(const kb_finish_whole_args* args, int is_sum, int has_starts) {
  for (size_t row = 0; row < (size_t)args->used; row += kLanes * kGroups) {
    const size_t groups = ((size_t)args->used - row + kLanes - 1) / kLanes;
    if (groups >= 4)
      finish(*args, row, (terms){4, is_sum, has_starts});
    else if (groups == 3)
      finish(*args, row, (terms){3, is_sum, has_starts});
    else if (groups == 2)
      finish(*args, row, (terms){2, is_sum, has_starts});
    else
      finish(*args, row, (terms){1, is_sum, has_starts});
  }
}

void kb_finish_whole_avx512(const kb_finish_whole_args* args) {
  const int is_sum = args->parts == 1 && !args->shifts && !args->input_weights;
  if (is_sum && !args->starts)
    finish_rows(args, 1, 0);
  else if (is_sum)
    finish_rows(args, 1, 1);
  else if (!args->starts)
    finish_rows(args, 0, 0);
  else
    finish_rows(args, 0, 1);
}
#endif
