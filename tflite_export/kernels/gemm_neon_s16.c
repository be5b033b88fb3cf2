/* int16 weights and floats for NEON, which every 64-bit ARM processor has. Multiplications take the
 * input from one lane, so nothing is broadcast by an instruction of its own. */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernels.h"

enum { kRows = 8, kVectors = kRows / 4, kPixels16 = 8, kPixels32 = 6 };

/* Windows of some pixels at one tap. */
static inline void windows(const kb_gemm_args* args, int first, int tap, int pixels,
                           const uint8_t** x) {
  for (int p = 0; p < pixels; p++) x[p] = args->pixels[first + p] + args->taps[tap];
}

/* The two channels of a unit: lanes 2 * unit and 2 * unit + 1 of the inputs, which must be
 * constants. Weights lie as [row][channel] and are taken apart once for all pixels. */
#define ADD_UNIT(unit)                                                                \
  {                                                                                   \
    const int16x8_t top = vld1q_s16(w + (unit)*2 * kRows);                            \
    const int16x8_t bottom = vld1q_s16(w + (unit)*2 * kRows + 8);                     \
    const int16x8_t even = vuzp1q_s16(top, bottom), odd = vuzp2q_s16(top, bottom);    \
    for (int p = 0; p < pixels; p++) {                                                \
      int32x4_t* t = total[p];                                                        \
      t[0] = vmlal_laneq_s16(t[0], vget_low_s16(even), input[p], 2 * (unit));         \
      t[1] = vmlal_high_laneq_s16(t[1], even, input[p], 2 * (unit));                  \
      t[0] = vmlal_laneq_s16(t[0], vget_low_s16(odd), input[p], 2 * (unit) + 1);      \
      t[1] = vmlal_high_laneq_s16(t[1], odd, input[p], 2 * (unit) + 1);               \
    }                                                                                 \
  }

static inline __attribute__((always_inline)) void s16_pixels(const kb_gemm_args* args, int first,
                                                             const int pixels) {
  const int16_t* w = args->weights;
  int32x4_t total[kPixels16][kVectors];
  for (int p = 0; p < pixels; p++) total[p][0] = total[p][1] = vdupq_n_s32(0);
  for (int tap = 0; tap < args->tap_count; tap++) {
    const uint8_t* x[kPixels16];
    windows(args, first, tap, pixels, x);
    int16x8_t input[kPixels16];
    int unit = 0;
    for (; unit + 4 <= args->units; unit += 4, w += 4 * 2 * kRows) {
      for (int p = 0; p < pixels; p++)
        input[p] = vld1q_s16((const void*)(x[p] + (size_t)unit * 4));
      ADD_UNIT(0)
      ADD_UNIT(1)
      ADD_UNIT(2)
      ADD_UNIT(3)
    }
    for (; unit < args->units; unit++, w += 2 * kRows) {
      for (int p = 0; p < pixels; p++)
        input[p] = vreinterpretq_s16_s32(vld1q_dup_s32((const void*)(x[p] + (size_t)unit * 4)));
      ADD_UNIT(0)
    }
  }
  for (int p = 0; p < pixels; p++) {
    int32_t* sums = (int32_t*)args->sums + (size_t)(first + p) * kRows;
    vst1q_s32(sums, total[p][0]);
    vst1q_s32(sums + 4, total[p][1]);
  }
}
#undef ADD_UNIT

void kb_gemm_s16_neon(const kb_gemm_args* args) {
  int pixel = 0;
  for (; pixel + kPixels16 <= args->count; pixel += kPixels16) s16_pixels(args, pixel, kPixels16);
  for (; pixel < args->count; pixel++) s16_pixels(args, pixel, 1);
}

/* The channel of one unit. A product and a sum, each rounded: vfma would round once. */
#define ADD_UNIT(lane)                                                                  \
  {                                                                                     \
    const float32x4_t top = vld1q_f32(w + (lane)*kRows);                                \
    const float32x4_t bottom = vld1q_f32(w + (lane)*kRows + 4);                         \
    for (int p = 0; p < pixels; p++) {                                                  \
      total[p][0] = vaddq_f32(total[p][0], vmulq_laneq_f32(top, input[p], (lane)));     \
      total[p][1] = vaddq_f32(total[p][1], vmulq_laneq_f32(bottom, input[p], (lane)));  \
    }                                                                                   \
  }

static inline __attribute__((always_inline)) void f32_pixels(const kb_gemm_args* args, int first,
                                                             const int pixels) {
  const float* w = args->weights;
  float32x4_t total[kPixels32][kVectors];
  for (int p = 0; p < pixels; p++) total[p][0] = total[p][1] = vdupq_n_f32(0);
  for (int tap = 0; tap < args->tap_count; tap++) {
    const uint8_t* x[kPixels32];
    windows(args, first, tap, pixels, x);
    float32x4_t input[kPixels32];
    int unit = 0;
    for (; unit + 4 <= args->units; unit += 4, w += 4 * kRows) {
      for (int p = 0; p < pixels; p++)
        input[p] = vld1q_f32((const void*)(x[p] + (size_t)unit * 4));
      ADD_UNIT(0)
      ADD_UNIT(1)
      ADD_UNIT(2)
      ADD_UNIT(3)
    }
    for (; unit < args->units; unit++, w += kRows) {
      for (int p = 0; p < pixels; p++)
        input[p] = vld1q_dup_f32((const void*)(x[p] + (size_t)unit * 4));
      ADD_UNIT(0)
    }
  }
  for (int p = 0; p < pixels; p++) {
    float* sums = (float*)args->sums + (size_t)(first + p) * kRows;
    vst1q_f32(sums, total[p][0]);
    vst1q_f32(sums + 4, total[p][1]);
  }
}
#undef ADD_UNIT

void kb_gemm_f32_neon(const kb_gemm_args* args) {
  int pixel = 0;
  for (; pixel + kPixels32 <= args->count; pixel += kPixels32) f32_pixels(args, pixel, kPixels32);
  for (; pixel < args->count; pixel++) f32_pixels(args, pixel, 1);
}
#endif
