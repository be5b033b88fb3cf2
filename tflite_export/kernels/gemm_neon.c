/* The kernels for NEON, which every 64-bit ARM processor has. */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <assert.h>

#include "core.h"

/* Sums of the four int32 of each of four vectors. */
static inline void store_sums(const kb_gemm_args* args, int pixel, const int32x4_t* total) {
  int32x4_t sums = vpaddq_s32(vpaddq_s32(total[0], total[1]), vpaddq_s32(total[2], total[3]));
  vst1q_s32((int32_t*)args->sums + (size_t)pixel * KB_TILE, sums);
}

/* Bits in common: at most 16 for a byte of the result. */
static inline uint8x16_t count_both(const uint8_t* a, uint8x16_t low, uint8x16_t high) {
  return vaddq_u8(vcntq_u8(vandq_u8(vld1q_u8(a), low)), vcntq_u8(vandq_u8(vld1q_u8(a + 16), high)));
}

static inline __attribute__((always_inline)) void bits_pixels(const kb_gemm_args* args, int pixel,
                                                              const int pixels) {
  enum { kFlush = 15 }; /* 15 chunks of at most 16 a byte fit a byte */
  const uint8_t* x = args->inputs + (size_t)pixel * args->stride;
  const uint8_t* w = args->weights;
  int32x4_t total[2][KB_TILE];
  for (int p = 0; p < pixels; p++)
    for (int r = 0; r < KB_TILE; r++) total[p][r] = vdupq_n_s32(0);
  for (int left = args->chunks; left > 0; left -= kFlush) {
    uint8x16_t bytes[2][KB_TILE];
    for (int p = 0; p < pixels; p++)
      for (int r = 0; r < KB_TILE; r++) bytes[p][r] = vdupq_n_u8(0);
    int run = left < kFlush ? left : kFlush;
    for (int chunk = 0; chunk < run; chunk++, x += KB_CHUNK, w += KB_TILE * KB_CHUNK) {
      for (int p = 0; p < pixels; p++) {
        const uint8_t* input = x + (size_t)p * args->stride;
        uint8x16_t low = vld1q_u8(input), high = vld1q_u8(input + 16);
        for (int r = 0; r < KB_TILE; r++)
          bytes[p][r] = vaddq_u8(bytes[p][r], count_both(w + r * KB_CHUNK, low, high));
      }
    }
    for (int p = 0; p < pixels; p++)
      for (int r = 0; r < KB_TILE; r++)
        total[p][r] = vpadalq_s16(total[p][r], vreinterpretq_s16_u16(vpaddlq_u8(bytes[p][r])));
  }
  for (int p = 0; p < pixels; p++) store_sums(args, pixel + p, total[p]);
}

void kb_gemm_bits_neon(const kb_gemm_args* args) {
  int pixel = 0;
  for (; pixel + 2 <= args->pixels; pixel += 2) bits_pixels(args, pixel, 2);
  if (pixel < args->pixels) bits_pixels(args, pixel, 1);
}

/* NEON multiplies int8 by int8 only, so inputs are taken as x - 128, which leaves
 *     sum w * x = sum w * (x - 128) + 128 * sum w
 * The four vectors are the latter, and totals start with them. */
static void start_totals(const kb_gemm_args* args, int32x4_t* start) {
  const int8_t* w = args->weights;
  for (int r = 0; r < KB_TILE; r++) start[r] = vdupq_n_s32(0);
  for (int chunk = 0; chunk < args->chunks; chunk++) {
    for (int r = 0; r < KB_TILE; r++, w += KB_CHUNK) {
      int16x8_t sums = vpadalq_s8(vpaddlq_s8(vld1q_s8(w)), vld1q_s8(w + 16));
      start[r] = vpadalq_s16(start[r], sums);
    }
  }
  for (int r = 0; r < KB_TILE; r++) start[r] = vshlq_n_s32(start[r], 7);
}

static inline int8x16_t load_input(const uint8_t* p) {
  return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p), vdupq_n_u8(128)));
}

static inline int16x8_t add_products(int16x8_t sum, int8x16_t a, int8x16_t b) {
  return vmlal_high_s8(vmlal_s8(sum, vget_low_s8(a), vget_low_s8(b)), a, b);
}

/* Some pixels at a time. Products are added as int16 for `steps` chunks, as long as they are sure
 * to fit, and widened then. */
static inline __attribute__((always_inline)) void s8_pixels(const kb_gemm_args* args, int pixel,
                                                            const int pixels, int steps,
                                                            const int32x4_t* start) {
  const uint8_t* x = args->inputs + (size_t)pixel * args->stride;
  const int8_t* w = args->weights;
  int32x4_t total[2][KB_TILE];
  for (int p = 0; p < pixels; p++)
    for (int r = 0; r < KB_TILE; r++) total[p][r] = start[r];
  for (int left = args->chunks; left > 0; left -= steps) {
    int16x8_t part[2][KB_TILE][2];
    for (int p = 0; p < pixels; p++)
      for (int r = 0; r < KB_TILE; r++) part[p][r][0] = part[p][r][1] = vdupq_n_s16(0);
    int run = left < steps ? left : steps;
    for (int chunk = 0; chunk < run; chunk++, x += KB_CHUNK, w += KB_TILE * KB_CHUNK) {
      for (int half = 0; half < 2; half++) {
        int8x16_t input[2];
        for (int p = 0; p < pixels; p++)
          input[p] = load_input(x + (size_t)p * args->stride + 16 * half);
        for (int r = 0; r < KB_TILE; r++) {
          int8x16_t weight = vld1q_s8(w + r * KB_CHUNK + 16 * half);
          for (int p = 0; p < pixels; p++)
            part[p][r][half] = add_products(part[p][r][half], input[p], weight);
        }
      }
    }
    for (int p = 0; p < pixels; p++)
      for (int r = 0; r < KB_TILE; r++)
        total[p][r] = vpadalq_s16(vpadalq_s16(total[p][r], part[p][r][0]), part[p][r][1]);
  }
  for (int p = 0; p < pixels; p++) store_sums(args, pixel + p, total[p]);
}

void kb_gemm_s8_neon(const kb_gemm_args* args) {
  assert(args->max_weight <= KB_MAX_S8);
  /* A chunk adds two products to each int16. */
  int steps = INT16_MAX / (2 * 128 * args->max_weight), pixel = 0;
  int32x4_t start[KB_TILE];
  start_totals(args, start);
  for (; pixel + 2 <= args->pixels; pixel += 2) s8_pixels(args, pixel, 2, steps, start);
  if (pixel < args->pixels) s8_pixels(args, pixel, 1, steps, start);
}

static inline int32x4_t add_wide_products(int32x4_t sum, int16x8_t a, int16x8_t b) {
  return vmlal_high_s16(vmlal_s16(sum, vget_low_s16(a), vget_low_s16(b)), a, b);
}

static inline __attribute__((always_inline)) void s16_pixels(const kb_gemm_args* args, int pixel,
                                                             const int pixels) {
  const uint8_t* x = args->inputs + (size_t)pixel * args->stride;
  const int16_t* w = args->weights;
  int32x4_t total[2][KB_TILE];
  for (int p = 0; p < pixels; p++)
    for (int r = 0; r < KB_TILE; r++) total[p][r] = vdupq_n_s32(0);
  for (int chunk = 0; chunk < args->chunks; chunk++, x += KB_CHUNK, w += KB_TILE * KB_CHUNK) {
    for (int eighth = 0; eighth < KB_CHUNK; eighth += 8) {
      int16x8_t input[2];
      for (int p = 0; p < pixels; p++) {
        uint8x8_t bytes = vld1_u8(x + (size_t)p * args->stride + eighth);
        input[p] = vreinterpretq_s16_u16(vmovl_u8(bytes));
      }
      for (int r = 0; r < KB_TILE; r++) {
        int16x8_t weight = vld1q_s16(w + r * KB_CHUNK + eighth);
        for (int p = 0; p < pixels; p++)
          total[p][r] = add_wide_products(total[p][r], input[p], weight);
      }
    }
  }
  for (int p = 0; p < pixels; p++) store_sums(args, pixel + p, total[p]);
}

void kb_gemm_s16_neon(const kb_gemm_args* args) {
  int pixel = 0;
  for (; pixel + 2 <= args->pixels; pixel += 2) s16_pixels(args, pixel, 2);
  if (pixel < args->pixels) s16_pixels(args, pixel, 1);
}

/* A product and a sum, each rounded: vfma would round once. */
static inline __attribute__((always_inline)) void f32_pixels(const kb_gemm_args* args, int pixel,
                                                             const int pixels) {
  const uint8_t* x = args->inputs + (size_t)pixel * args->stride;
  const float* w = args->weights;
  float32x4_t total[4][2];
  for (int p = 0; p < pixels; p++) total[p][0] = total[p][1] = vdupq_n_f32(0);
  for (int k = 0; k < args->chunks; k++, w += KB_TILE_F32) {
    float32x4_t low = vld1q_f32(w), high = vld1q_f32(w + 4);
    for (int p = 0; p < pixels; p++) {
      const float input = ((const float*)(const void*)(x + (size_t)p * args->stride))[k];
      total[p][0] = vaddq_f32(total[p][0], vmulq_n_f32(low, input));
      total[p][1] = vaddq_f32(total[p][1], vmulq_n_f32(high, input));
    }
  }
  for (int p = 0; p < pixels; p++) {
    float* sums = (float*)args->sums + (size_t)(pixel + p) * KB_TILE_F32;
    vst1q_f32(sums, total[p][0]);
    vst1q_f32(sums + 4, total[p][1]);
  }
}

void kb_gemm_f32_neon(const kb_gemm_args* args) {
  int pixel = 0;
  for (; pixel + 4 <= args->pixels; pixel += 4) f32_pixels(args, pixel, 4);
  for (; pixel < args->pixels; pixel++) f32_pixels(args, pixel, 1);
}
#endif
