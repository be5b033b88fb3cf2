/* Sums to outputs for NEON: four rows as two pairs of doubles. */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernels.h"

typedef struct {
  float64x2_t low, high;
} four;

static inline four load(const double* p) { return (four){vld1q_f64(p), vld1q_f64(p + 2)}; }

static inline four multiply(four a, four b) {
  return (four){vmulq_f64(a.low, b.low), vmulq_f64(a.high, b.high)};
}

static inline four add(four a, four b) {
  return (four){vaddq_f64(a.low, b.low), vaddq_f64(a.high, b.high)};
}

static inline four four_sums(const void* sums, size_t at, int is_float) {
  if (is_float) {
    const float32x4_t values = vld1q_f32((const float*)sums + at);
    return (four){vcvt_f64_f32(vget_low_f32(values)), vcvt_high_f64_f32(values)};
  }
  const int32x4_t values = vld1q_s32((const int32_t*)sums + at);
  return (four){vcvtq_f64_s64(vmovl_s32(vget_low_s32(values))),
                vcvtq_f64_s64(vmovl_high_s32(values))};
}

/* Four outputs. Comparisons, as minima and maxima would turn -0 into 0. */
static inline __attribute__((always_inline)) void four_rows(const kb_finish_args* args, int pixel,
                                                            int row, float* y, const int is_float) {
  const size_t rows = (size_t)args->rows, first = (size_t)row;
  const size_t at = (size_t)pixel * rows + first;
  four total = four_sums(args->sums, at, is_float);
  if (args->coefficients) total = multiply(total, load(args->coefficients + first));
  for (int i = 1; i < args->parts; i++) {
    const char* sums = (const char*)args->sums + (size_t)i * args->part_stride;
    const four coefficients = load(args->coefficients + (size_t)i * rows + first);
    total = add(total, multiply(coefficients, four_sums(sums, at, is_float)));
  }
  if (args->input_weights) {
    const float64x2_t sum = vdupq_n_f64(args->input_sums[pixel]);
    total = add(total, multiply(load(args->input_weights + first), (four){sum, sum}));
  }
  const double* base = args->base[pixel];
  total = add(multiply(total, load(args->scales + first)), load(base + first));
  const float32x4_t value = vcvt_high_f32_f64(vcvt_f32_f64(total.low), total.high);
  const float32x4_t low = vdupq_n_f32(args->low), high = vdupq_n_f32(args->high);
  const float32x4_t inner = vbslq_f32(vcgtq_f32(value, high), high, value);
  vst1q_f32(y, vbslq_f32(vcltq_f32(value, low), low, inner));
}

/* Rows that make no whole four, which may end where memory ends. */
static void last_rows(const kb_finish_args* args, int pixel, int row, float* y) {
  const void* base = (const double*)args->base[pixel] + row;
  const size_t at = (size_t)row;
  kb_finish_args rest = *args;
  rest.sums = (const char*)args->sums + ((size_t)pixel * (size_t)args->rows + at) * 4;
  if (args->coefficients) rest.coefficients = args->coefficients + at;
  if (args->input_weights) {
    rest.input_weights = args->input_weights + at;
    rest.input_sums = args->input_sums + pixel;
  }
  rest.scales = args->scales + at;
  rest.base = &base;
  rest.count = 1;
  rest.used = args->used - row;
  rest.y = y;
  kb_finish_scalar(&rest);
}

static inline __attribute__((always_inline)) void all_rows(const kb_finish_args* args,
                                                           const int is_float) {
  for (int p = 0; p < args->count; p++) {
    float* y = args->y + (size_t)p * args->y_stride;
    int row = 0;
    for (; row + 4 <= args->used; row += 4) four_rows(args, p, row, y + row, is_float);
    if (row < args->used) last_rows(args, p, row, y + row);
  }
}

void kb_finish_neon(const kb_finish_args* args) {
  if (args->is_float)
    all_rows(args, 1);
  else
    all_rows(args, 0);
}
#endif
