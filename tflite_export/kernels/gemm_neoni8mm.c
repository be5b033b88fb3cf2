/* int8 weights for NEON with the matrix products of ARMv8.6. The only file that is compiled with
 * them; nothing here may run before the dispatcher has asked the processor.
 *
 * usmmla multiplies two pixels by two rows, 8 channels of each: 32 products an instruction, of
 * unsigned inputs and signed weights as they are. Vectors of eight channels come from two units,
 * once for all pixels. */
#if defined(__aarch64__)
#if !defined(__ARM_FEATURE_MATMUL_INT8)
#error "expected the compiler flag -march=armv8.2-a+dotprod+i8mm for this file"
#endif
#include <arm_neon.h>

#include "kernels.h"

enum {
  kRows = 8,
  kPixels = 8,
  kTile = kRows * 4, /* bytes of a unit */
  kPairs = kRows / 2
};

/* Rows 2 i and 2 i + 1 of a unit and the next: 8 channels of the one, then of the other. */
static inline void load_weights(const int8_t* w, int32x4_t next_low, int32x4_t next_high,
                                int8x16_t* pairs) {
  const int32x4_t low = vreinterpretq_s32_s8(vld1q_s8(w));
  const int32x4_t high = vreinterpretq_s32_s8(vld1q_s8(w + 16));
  pairs[0] = vreinterpretq_s8_s32(vzip1q_s32(low, next_low));
  pairs[1] = vreinterpretq_s8_s32(vzip2q_s32(low, next_low));
  pairs[2] = vreinterpretq_s8_s32(vzip1q_s32(high, next_high));
  pairs[3] = vreinterpretq_s8_s32(vzip2q_s32(high, next_high));
}

static inline void load_two_units(const int8_t* w, int8x16_t* pairs) {
  load_weights(w, vreinterpretq_s32_s8(vld1q_s8(w + kTile)),
               vreinterpretq_s32_s8(vld1q_s8(w + kTile + 16)), pairs);
}

/* `input` has 8 channels of pixel 2 p, then of pixel 2 p + 1. */
static inline __attribute__((always_inline)) void add_products(int32x4_t (*total)[kPairs],
                                                               const int8x16_t* weights,
                                                               const uint8x16_t* input,
                                                               const int pixels) {
  for (int p = 0; p < pixels / 2; p++)
    for (int r = 0; r < kPairs; r++) total[p][r] = vusmmlaq_s32(total[p][r], input[p], weights[r]);
}

/* Four units of two pixels become two times two units of each. */
static inline __attribute__((always_inline)) void load_inputs(const uint8_t* const* x, size_t at,
                                                              const int pixels, uint8x16_t* first,
                                                              uint8x16_t* second) {
  for (int p = 0; p < pixels / 2; p++) {
    const uint64x2_t a = vreinterpretq_u64_u8(vld1q_u8(x[2 * p] + at));
    const uint64x2_t b = vreinterpretq_u64_u8(vld1q_u8(x[2 * p + 1] + at));
    first[p] = vreinterpretq_u8_u64(vzip1q_u64(a, b));
    second[p] = vreinterpretq_u8_u64(vzip2q_u64(a, b));
  }
}

/* Four units. */
static inline __attribute__((always_inline)) void add_four(int32x4_t (*total)[kPairs],
                                                           const uint8_t* const* x, size_t at,
                                                           const int8_t* w, const int pixels) {
  uint8x16_t first[kPixels / 2], second[kPixels / 2];
  int8x16_t weights[kPairs];
  load_inputs(x, at, pixels, first, second);
  load_two_units(w, weights);
  add_products(total, weights, first, pixels);
  load_two_units(w + 2 * kTile, weights);
  add_products(total, weights, second, pixels);
}

/* One to three units. What is read of the inputs behind them is not used: weights are 0 there. */
static inline __attribute__((always_inline)) void add_rest(int32x4_t (*total)[kPairs],
                                                           const uint8_t* const* x, size_t at,
                                                           const int8_t* w, int units,
                                                           const int pixels) {
  uint8x16_t first[kPixels / 2], second[kPixels / 2];
  int8x16_t weights[kPairs];
  const int32x4_t none = vdupq_n_s32(0);
  load_inputs(x, at, pixels, first, second);
  if (units >= 2) {
    load_two_units(w, weights);
    add_products(total, weights, first, pixels);
  }
  if (units == 2) return;
  load_weights(w + (units - 1) * kTile, none, none, weights);
  add_products(total, weights, units == 1 ? first : second, pixels);
}

/* Some pixels at a time, an even number. */
static inline __attribute__((always_inline)) void some_pixels(const kb_gemm_args* args, int first,
                                                              const int pixels) {
  const int8_t* w = args->weights;
  int32x4_t total[kPixels / 2][kPairs];
  for (int p = 0; p < pixels / 2; p++)
    for (int r = 0; r < kPairs; r++) total[p][r] = vdupq_n_s32(0);
  for (int tap = 0; tap < args->tap_count; tap++) {
    const uint8_t* x[kPixels];
    for (int p = 0; p < pixels; p++) x[p] = args->pixels[first + p] + args->taps[tap];
    int unit = 0;
    for (; unit + 4 <= args->units; unit += 4, w += 4 * kTile)
      add_four(total, x, (size_t)unit * 4, w, pixels);
    if (unit == args->units) continue;
    add_rest(total, x, (size_t)unit * 4, w, args->units - unit, pixels);
    w += (args->units - unit) * kTile;
  }
  for (int p = 0; p < pixels / 2; p++) {
    int32_t* sums = (int32_t*)args->sums + (size_t)(first + 2 * p) * kRows;
    for (int r = 0; r < kPairs; r += 2) {
      const int64x2_t a = vreinterpretq_s64_s32(total[p][r]);
      const int64x2_t b = vreinterpretq_s64_s32(total[p][r + 1]);
      vst1q_s32(sums + 2 * r, vreinterpretq_s32_s64(vzip1q_s64(a, b)));
      vst1q_s32(sums + kRows + 2 * r, vreinterpretq_s32_s64(vzip2q_s64(a, b)));
    }
  }
}

/* A pixel that has no other: four sums of each row, so that none waits for the one before. */
static void one_pixel(const kb_gemm_args* args, int pixel) {
  const int8_t* w = args->weights;
  int32x4_t low[4], high[4];
  for (int lane = 0; lane < 4; lane++) low[lane] = high[lane] = vdupq_n_s32(0);
#define ADD_UNIT(lane)                                                                      \
  low[lane] = vsudotq_laneq_s32(low[lane], vld1q_s8(w + (lane)*kTile), input, lane);        \
  high[lane] = vsudotq_laneq_s32(high[lane], vld1q_s8(w + (lane)*kTile + 16), input, lane);
  for (int tap = 0; tap < args->tap_count; tap++) {
    const uint8_t* x = args->pixels[pixel] + args->taps[tap];
    int unit = 0;
    for (; unit + 4 <= args->units; unit += 4, x += 16, w += 4 * kTile) {
      const uint8x16_t input = vld1q_u8(x);
      ADD_UNIT(0)
      ADD_UNIT(1)
      ADD_UNIT(2)
      ADD_UNIT(3)
    }
    for (; unit < args->units; unit++, x += 4, w += kTile) {
      const uint8x16_t input = vld1q_u8(x);
      ADD_UNIT(0)
    }
  }
#undef ADD_UNIT
  int32_t* sums = (int32_t*)args->sums + (size_t)pixel * kRows;
  vst1q_s32(sums, vaddq_s32(vaddq_s32(low[0], low[1]), vaddq_s32(low[2], low[3])));
  vst1q_s32(sums + 4, vaddq_s32(vaddq_s32(high[0], high[1]), vaddq_s32(high[2], high[3])));
}

void kb_gemm_s8_neoni8mm(const kb_gemm_args* args) {
  int pixel = 0;
  for (; pixel + kPixels <= args->count; pixel += kPixels) some_pixels(args, pixel, kPixels);
  for (; pixel + 2 <= args->count; pixel += 2) some_pixels(args, pixel, 2);
  if (pixel < args->count) one_pixel(args, pixel);
}
#endif
