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

/* Totals of all groups of a pixel, without starts: a shift and what an input adds serve all. */
KB_INLINE void add_parts(const kb_finish_whole_args* args, const group* group, size_t pixel,
                         size_t row, const int groups, __m512i* total) {
  const char* sums = (const char*)(args->sums + pixel * (size_t)args->rows + row);
  __m128i shift = _mm_cvtsi32_si128(args->shifts ? args->shifts[0] : 0);
  KB_UNROLL
  for (int g = 0; g < groups; g++)
    total[g] = _mm512_sll_epi32(_mm512_maskz_loadu_epi32(group[g].used, sums + 64 * g), shift);
  for (int i = 1; i < args->parts; i++) {
    sums += args->part_stride;
    shift = _mm_cvtsi32_si128(args->shifts ? args->shifts[i] : 0);
    KB_UNROLL
    for (int g = 0; g < groups; g++) {
      const __m512i part = _mm512_maskz_loadu_epi32(group[g].used, sums + 64 * g);
      total[g] = _mm512_add_epi32(total[g], _mm512_sll_epi32(part, shift));
    }
  }
  if (!args->input_weights) return;
  const __m512i inputs = _mm512_set1_epi32(args->input_sums[pixel]);
  KB_UNROLL
  for (int g = 0; g < groups; g++) {
    const int32_t* weights = args->input_weights + row + kLanes * g;
    const __m512i weight = _mm512_maskz_loadu_epi32(group[g].used, weights);
    total[g] = _mm512_add_epi32(total[g], _mm512_mullo_epi32(weight, inputs));
  }
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
    const int32_t* sums = args.sums + p * (size_t)args.rows + row;
    const int32_t* starts = has.has_starts ? (const int32_t*)args.starts[p] + row : NULL;
    float* to = args.y + p * args.y_stride + row;
    __m512i total[kGroups];
    if (!has.is_sum) add_parts(&args, group, p, row, has.groups, total);
    KB_UNROLL
    for (int g = 0; g < has.groups; g++) {
      const __mmask16 used = group[g].used;
      if (has.is_sum) total[g] = _mm512_maskz_loadu_epi32(used, sums + kLanes * g);
      if (has.has_starts) {
        const __m512i start = _mm512_maskz_loadu_epi32(used, starts + kLanes * g);
        total[g] = _mm512_add_epi32(total[g], start);
      }
      _mm512_mask_storeu_ps(to + kLanes * g, used, outputs(&args, &group[g], total[g]));
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
