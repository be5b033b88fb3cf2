/* Whole numbers to outputs for NEON: four rows at a time. */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernels.h"

static inline __attribute__((always_inline)) uint32x4_t four_words(const void* from) {
  return vreinterpretq_u32_s32(vld1q_s32((const int32_t*)from));
}

/* Four totals, modulo 2^32, and so without signs: the header of some compilers adds signed ones as C
 * does, which does not say what becomes of those that are too large. */
static inline __attribute__((always_inline)) int32x4_t four_totals(const kb_finish_whole_args* args,
                                                                   size_t pixel, size_t row) {
  const char* sums = (const char*)(args->sums + pixel * (size_t)args->rows + row);
  uint32x4_t total = vdupq_n_u32(0);
  for (int i = 0; i < args->parts; i++, sums += args->part_stride) {
    const int32x4_t shift = vdupq_n_s32(args->shifts ? args->shifts[i] : 0);
    total = vaddq_u32(total, vshlq_u32(four_words(sums), shift));
  }
  if (args->input_weights)
    total = vmlaq_n_u32(total, four_words(args->input_weights + row),
                        (uint32_t)args->input_sums[pixel]);
  if (args->starts)
    total = vaddq_u32(total, four_words((const int32_t*)args->starts[pixel] + row));
  return vreinterpretq_s32_u32(total);
}

/* Four outputs. Comparisons, as minima and maxima would turn -0 into 0. */
static inline __attribute__((always_inline)) void put_four(const kb_finish_whole_args* args,
                                                           size_t row, int32x4_t total, float* y) {
  const float32x4_t product = vmulq_f32(vcvtq_f32_s32(total), vld1q_f32(args->scales + row));
  const float32x4_t value = vaddq_f32(product, vld1q_f32(args->biases + row));
  const float32x4_t low = vdupq_n_f32(args->low), high = vdupq_n_f32(args->high);
  const float32x4_t inner = vbslq_f32(vcgtq_f32(value, high), high, value);
  vst1q_f32(y, vbslq_f32(vcltq_f32(value, low), low, inner));
}

/* Rows that make no whole four, which may end where memory ends. */
static void last_rows(const kb_finish_whole_args* args, size_t pixel, size_t row, float* y) {
  kb_finish_whole_args rest = *args;
  const void* starts = NULL;
  rest.sums = args->sums + pixel * (size_t)args->rows + row;
  if (args->input_weights) {
    rest.input_weights = args->input_weights + row;
    rest.input_sums = args->input_sums + pixel;
  }
  if (args->starts) {
    starts = (const int32_t*)args->starts[pixel] + row;
    rest.starts = &starts;
  }
  rest.scales = args->scales + row;
  rest.biases = args->biases + row;
  rest.count = 1;
  rest.used = args->used - (int)row;
  rest.y = y;
  kb_finish_whole_scalar(&rest);
}

static inline __attribute__((always_inline)) void all_rows(const kb_finish_whole_args* args,
                                                           const int is_sum) {
  const size_t used = (size_t)args->used;
  for (size_t p = 0; p < (size_t)args->count; p++) {
    float* y = args->y + p * args->y_stride;
    const int32_t* sums = args->sums + p * (size_t)args->rows;
    size_t row = 0;
    for (; row + 4 <= used; row += 4)
      put_four(args, row, is_sum ? vld1q_s32(sums + row) : four_totals(args, p, row), y + row);
    if (row < used) last_rows(args, p, row, y + row);
  }
}

void kb_finish_whole_neon(const kb_finish_whole_args* args) {
  if (args->parts == 1 && !args->shifts && !args->input_weights && !args->starts)
    all_rows(args, 1);
  else
    all_rows(args, 0);
}
#endif
