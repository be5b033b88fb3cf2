/* Whole numbers to outputs with AVX2: 32 or 16 rows at a time, pixel by pixel, so that what belongs
 * to the rows stays in registers. Eight outputs of one part take a conversion, a multiplication, an
 * addition, the clamp and a store. */
#if defined(__x86_64__)
#include "avx2.h"

enum { kLanes = 8, kGroups = 4 };

/* What a call has of the terms, known when compiling. */
typedef struct {
  int groups;  /* of eight rows */
  int is_part; /* not eight rows, but some of them */
  int is_sum;  /* one part without a shift, and no input weights */
  int has_starts;
} terms;

KB_INLINE __m256i load_words(const void* from, __m256i mask, int is_part) {
  return is_part ? _mm256_maskload_epi32(from, mask) : kb_load(from);
}

KB_INLINE __m256 load_floats(const float* from, __m256i mask, int is_part) {
  return is_part ? _mm256_maskload_ps(from, mask) : _mm256_loadu_ps(from);
}

/* Totals of all groups of a pixel, without starts: a shift and what an input adds serve all. */
KB_INLINE void add_parts(const kb_finish_whole_args* args, size_t pixel, size_t row, __m256i mask,
                         terms has, __m256i* total) {
  const char* sums = (const char*)(args->sums + pixel * (size_t)args->rows + row);
  __m128i shift = _mm_cvtsi32_si128(args->shifts ? args->shifts[0] : 0);
  KB_UNROLL for (int g = 0; g < has.groups; g++)
    total[g] = _mm256_sll_epi32(load_words(sums + 32 * g, mask, has.is_part), shift);
  for (int i = 1; i < args->parts; i++) {
    sums += args->part_stride;
    shift = _mm_cvtsi32_si128(args->shifts ? args->shifts[i] : 0);
    KB_UNROLL for (int g = 0; g < has.groups; g++) {
      const __m256i part = load_words(sums + 32 * g, mask, has.is_part);
      total[g] = _mm256_add_epi32(total[g], _mm256_sll_epi32(part, shift));
    }
  }
  if (!args->input_weights) return;
  const __m256i inputs = _mm256_set1_epi32(args->input_sums[pixel]);
  KB_UNROLL for (int g = 0; g < has.groups; g++) {
    const int32_t* weights = args->input_weights + row + kLanes * g;
    const __m256i product = _mm256_mullo_epi32(load_words(weights, mask, has.is_part), inputs);
    total[g] = _mm256_add_epi32(total[g], product);
  }
}

/* Products and sums are rounded apart, so never fused; max and min return their second operand for
 * NaN, which therefore stays. */
KB_INLINE __m256 outputs(__m256i total, __m256 scale, __m256 bias, __m256 low, __m256 high) {
  const __m256 y = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(total), scale), bias);
  return _mm256_min_ps(high, _mm256_max_ps(low, y));
}

/* Arguments by value: nothing written can change them. */
KB_INLINE void finish(const kb_finish_whole_args args, size_t row, __m256i mask, terms has) {
  __m256 scale[kGroups], bias[kGroups];
  const __m256 low = _mm256_set1_ps(args.low), high = _mm256_set1_ps(args.high);
  KB_UNROLL for (int g = 0; g < has.groups; g++) {
    scale[g] = load_floats(args.scales + row + kLanes * g, mask, has.is_part);
    bias[g] = load_floats(args.biases + row + kLanes * g, mask, has.is_part);
  }
  for (size_t p = 0; p < (size_t)args.count; p++) {
    const int32_t* sums = args.sums + p * (size_t)args.rows + row;
    const int32_t* starts = has.has_starts ? (const int32_t*)args.starts[p] + row : NULL;
    float* to = args.y + p * args.y_stride + row;
    __m256i total[kGroups];
    if (!has.is_sum) add_parts(&args, p, row, mask, has, total);
    KB_UNROLL for (int g = 0; g < has.groups; g++) {
      if (has.is_sum) total[g] = load_words(sums + kLanes * g, mask, has.is_part);
      if (has.has_starts) {
        const __m256i start = load_words(starts + kLanes * g, mask, has.is_part);
        total[g] = _mm256_add_epi32(total[g], start);
      }
      const __m256 y = outputs(total[g], scale[g], bias[g], low, high);
      if (has.is_part)
        _mm256_maskstore_ps(to + kLanes * g, mask, y);
      else
        _mm256_storeu_ps(to + kLanes * g, y);
    }
  }
}

KB_INLINE void finish_rows(const kb_finish_whole_args* args, int is_sum, int has_starts) {
  const size_t used = (size_t)args->used;
  const __m256i all = _mm256_set1_epi32(-1);
  size_t row = 0;
  for (; row + kLanes * kGroups <= used; row += kLanes * kGroups)
    finish(*args, row, all, (terms){kGroups, 0, is_sum, has_starts});
  for (; row + kLanes * 2 <= used; row += kLanes * 2)
    finish(*args, row, all, (terms){2, 0, is_sum, has_starts});
  if (row + kLanes <= used) {
    finish(*args, row, all, (terms){1, 0, is_sum, has_starts});
    row += kLanes;
  }
  if (row == used) return;
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(used - row)), lanes);
  finish(*args, row, mask, (terms){1, 1, is_sum, has_starts});
}

void kb_finish_whole_avx2(const kb_finish_whole_args* args) {
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
