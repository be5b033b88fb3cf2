/* The kernel for NEON with the dot product instructions of ARMv8.2. The only file that is compiled
 * with them; nothing here may run before the dispatcher has asked the processor. */
#if defined(__aarch64__)
#if !defined(__ARM_FEATURE_DOTPROD)
#error "expected the compiler flag -march=armv8.2-a+dotprod for this file"
#endif
#include <arm_neon.h>
#include <assert.h>

#include "core.h"

/* As in gemm_neon.c: inputs are taken as x - 128, and totals start with 128 * sum w. */
static void start_totals(const kb_gemm_args* args, int32x4_t* start) {
  const int8_t* w = args->weights;
  for (int r = 0; r < KB_TILE; r++) start[r] = vdupq_n_s32(0);
  for (int chunk = 0; chunk < args->chunks; chunk++) {
    for (int r = 0; r < KB_TILE; r++, w += KB_CHUNK) {
      start[r] = vdotq_s32(start[r], vld1q_s8(w), vdupq_n_s8(1));
      start[r] = vdotq_s32(start[r], vld1q_s8(w + 16), vdupq_n_s8(1));
    }
  }
  for (int r = 0; r < KB_TILE; r++) start[r] = vshlq_n_s32(start[r], 7);
}

static inline __attribute__((always_inline)) void s8_pixels(const kb_gemm_args* args, int pixel,
                                                            const int pixels,
                                                            const int32x4_t* start) {
  const uint8_t* x = args->inputs + (size_t)pixel * args->stride;
  const int8_t* w = args->weights;
  int32x4_t total[4][KB_TILE];
  for (int p = 0; p < pixels; p++)
    for (int r = 0; r < KB_TILE; r++) total[p][r] = start[r];
  for (int chunk = 0; chunk < args->chunks; chunk++, x += KB_CHUNK, w += KB_TILE * KB_CHUNK) {
    for (int half = 0; half < KB_CHUNK; half += 16) {
      int8x16_t input[4];
      for (int p = 0; p < pixels; p++) {
        uint8x16_t bytes = vld1q_u8(x + (size_t)p * args->stride + half);
        input[p] = vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(128)));
      }
      for (int r = 0; r < KB_TILE; r++) {
        int8x16_t weight = vld1q_s8(w + r * KB_CHUNK + half);
        for (int p = 0; p < pixels; p++) total[p][r] = vdotq_s32(total[p][r], weight, input[p]);
      }
    }
  }
  for (int p = 0; p < pixels; p++) {
    int32x4_t low = vpaddq_s32(total[p][0], total[p][1]);
    int32x4_t high = vpaddq_s32(total[p][2], total[p][3]);
    vst1q_s32((int32_t*)args->sums + (size_t)(pixel + p) * KB_TILE, vpaddq_s32(low, high));
  }
}

void kb_gemm_s8_neondot(const kb_gemm_args* args) {
  assert(args->max_weight <= KB_MAX_S8);
  int32x4_t start[KB_TILE];
  int pixel = 0;
  start_totals(args, start);
  for (; pixel + 4 <= args->pixels; pixel += 4) s8_pixels(args, pixel, 4, start);
  for (; pixel < args->pixels; pixel++) s8_pixels(args, pixel, 1, start);
}
#endif
