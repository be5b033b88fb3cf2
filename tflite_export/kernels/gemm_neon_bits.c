/* Bits times bits for NEON, which every 64-bit ARM processor has.
 *
 * A vector holds the units of two rows. Each takes three operations (and, cnt, add) for 128
 * products of bits, and four pixels share what is loaded of the weights. Counts are added as bytes,
 * at most 8 for each unit, and widened before they pass 255. */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernels.h"

enum {
  kRows = 8,
  kVectors = kRows / 2,
  kPixels = 4,
  kFlush = 31 /* 31 units of at most 8 a byte fit a byte */
};

typedef struct {
  uint8x16_t bytes[kPixels][kVectors];
  uint32x4_t totals[kPixels][kVectors]; /* two for each row */
  int room;                             /* units until the bytes are full */
} counts;

static inline __attribute__((always_inline)) void flush(counts* sum, const int pixels) {
  for (int p = 0; p < pixels; p++) {
    for (int v = 0; v < kVectors; v++) {
      sum->totals[p][v] = vpadalq_u16(sum->totals[p][v], vpaddlq_u8(sum->bytes[p][v]));
      sum->bytes[p][v] = vdupq_n_u8(0);
    }
  }
  sum->room = kFlush;
}

static inline uint8x16_t broadcast_unit(const uint8_t* unit) {
  uint64_t word; /* by memcpy, as units may lie anywhere */
  memcpy(&word, unit, sizeof word);
  return vreinterpretq_u8_u64(vdupq_n_u64(word));
}

/* The units of one tap. Returns the weights behind them. */
static inline __attribute__((always_inline)) const uint8_t* add_tap(counts* sum, int units,
                                                                    const uint8_t* const* x,
                                                                    const uint8_t* w,
                                                                    const int pixels) {
  for (int unit = 0; unit < units;) {
    if (!sum->room) flush(sum, pixels);
    const int run = units - unit < sum->room ? units - unit : sum->room;
    sum->room -= run;
    for (const int end = unit + run; unit < end; unit++, w += kRows * 8) {
      for (int p = 0; p < pixels; p++) {
        const uint8x16_t input = broadcast_unit(x[p] + (size_t)unit * 8);
        for (int v = 0; v < kVectors; v++) {
          const uint8x16_t both = vandq_u8(vld1q_u8(w + 16 * v), input);
          sum->bytes[p][v] = vaddq_u8(sum->bytes[p][v], vcntq_u8(both));
        }
      }
    }
  }
  return w;
}

static inline __attribute__((always_inline)) void some_pixels(const kb_gemm_args* args, int first,
                                                              const int pixels) {
  const uint8_t* w = args->weights;
  counts sum = {.room = kFlush};
  for (int tap = 0; tap < args->tap_count; tap++) {
    const uint8_t* x[kPixels];
    for (int p = 0; p < pixels; p++) x[p] = args->pixels[first + p] + args->taps[tap];
    w = add_tap(&sum, args->units, x, w, pixels);
  }
  flush(&sum, pixels);
  for (int p = 0; p < pixels; p++) {
    uint32_t* sums = (uint32_t*)args->sums + (size_t)(first + p) * kRows;
    vst1q_u32(sums, vpaddq_u32(sum.totals[p][0], sum.totals[p][1]));
    vst1q_u32(sums + 4, vpaddq_u32(sum.totals[p][2], sum.totals[p][3]));
  }
}

void kb_gemm_bits_neon(const kb_gemm_args* args) {
  int pixel = 0;
  for (; pixel + kPixels <= args->count; pixel += kPixels) some_pixels(args, pixel, kPixels);
  for (; pixel < args->count; pixel++) some_pixels(args, pixel, 1);
}
#endif
