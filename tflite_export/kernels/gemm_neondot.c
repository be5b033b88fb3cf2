/* int8 weights for NEON with the dot product instructions of ARMv8.2. The only file that is
 * compiled with them; nothing here may run before the dispatcher has asked the processor.
 *
 * sdot multiplies four int8 of each of four rows by the four of one lane, the unit of one pixel: 16
 * products an instruction, and nothing is broadcast by an instruction of its own. Both factors are
 * signed, so inputs are taken as x - 128, which leaves
 *     sum w * x = sum w * (x - 128) + 128 * sum w
 * and totals start with the latter. Intermediate sums may wrap around; the whole one fits int32. */
#if defined(__aarch64__)
#if !defined(__ARM_FEATURE_DOTPROD)
#error "expected the compiler flag -march=armv8.2-a+dotprod for this file"
#endif
#include <arm_neon.h>

#include "kernels.h"

enum { kRows = 8, kVectors = kRows / 4, kPixels = 8, kTile = kRows * 4 /* bytes of a unit */ };

/* 128 * sum w of each row. */
static void start_totals(const kb_gemm_args* args, int32x4_t* start) {
  const int8_t* w = args->weights;
  const int8x16_t ones = vdupq_n_s8(1);
  for (int v = 0; v < kVectors; v++) start[v] = vdupq_n_s32(0);
  const size_t units = (size_t)args->tap_count * (size_t)args->units;
  for (size_t unit = 0; unit < units; unit++, w += kTile) {
    for (int v = 0; v < kVectors; v++) start[v] = vdotq_s32(start[v], vld1q_s8(w + 16 * v), ones);
  }
  for (int v = 0; v < kVectors; v++) start[v] = vshlq_n_s32(start[v], 7);
}

static inline int8x16_t minus_128(uint8x16_t input) {
  return vreinterpretq_s8_u8(veorq_u8(input, vdupq_n_u8(128)));
}

static inline int8x16_t broadcast_unit(const uint8_t* unit) {
  uint32_t word; /* by memcpy, as units may lie anywhere */
  memcpy(&word, unit, sizeof word);
  return minus_128(vreinterpretq_u8_u32(vdupq_n_u32(word)));
}

/* Unit `lane` of the four in input[]. A lane must be a constant without any optimization. */
#define ADD_UNIT(lane)                                                             \
  for (int v = 0; v < kVectors; v++) {                                             \
    const int8x16_t weight = vld1q_s8(w + (lane)*kTile + 16 * v);                  \
    for (int p = 0; p < pixels; p++)                                               \
      total[p][(lane) % chains][v] =                                               \
          vdotq_laneq_s32(total[p][(lane) % chains][v], weight, input[p], (lane)); \
  }

/* Some pixels at a time; `chains` sums of each row keep a single pixel from waiting for itself. */
static inline __attribute__((always_inline)) void some_pixels(const kb_gemm_args* args, int first,
                                                              const int pixels, const int chains,
                                                              const int32x4_t* start) {
  const int8_t* w = args->weights;
  int32x4_t total[kPixels][4][kVectors];
  for (int p = 0; p < pixels; p++)
    for (int c = 0; c < chains; c++)
      for (int v = 0; v < kVectors; v++) total[p][c][v] = c ? vdupq_n_s32(0) : start[v];
  for (int tap = 0; tap < args->tap_count; tap++) {
    const uint8_t* x[kPixels];
    for (int p = 0; p < pixels; p++) x[p] = args->pixels[first + p] + args->taps[tap];
    int unit = 0;
    for (; unit + 4 <= args->units; unit += 4, w += 4 * kTile) {
      int8x16_t input[kPixels];
      for (int p = 0; p < pixels; p++) input[p] = minus_128(vld1q_u8(x[p] + (size_t)unit * 4));
      ADD_UNIT(0)
      ADD_UNIT(1)
      ADD_UNIT(2)
      ADD_UNIT(3)
    }
    for (; unit < args->units; unit++, w += kTile) {
      int8x16_t input[kPixels];
      for (int p = 0; p < pixels; p++) input[p] = broadcast_unit(x[p] + (size_t)unit * 4);
      ADD_UNIT(0)
    }
  }
  for (int p = 0; p < pixels; p++) {
    for (int c = 1; c < chains; c++)
      for (int v = 0; v < kVectors; v++) total[p][0][v] = vaddq_s32(total[p][0][v], total[p][c][v]);
    int32_t* sums = (int32_t*)args->sums + (size_t)(first + p) * kRows;
    for (int v = 0; v < kVectors; v++) vst1q_s32(sums + 4 * v, total[p][0][v]);
  }
}

void kb_gemm_s8_neondot(const kb_gemm_args* args) {
  int32x4_t start[kVectors];
  int pixel = 0;
  start_totals(args, start);
  for (; pixel + kPixels <= args->count; pixel += kPixels)
    some_pixels(args, pixel, kPixels, 1, start);
  for (; pixel + 4 <= args->count; pixel += 4) some_pixels(args, pixel, 4, 1, start);
  for (; pixel < args->count; pixel++) some_pixels(args, pixel, 1, 4, start);
}
#endif
