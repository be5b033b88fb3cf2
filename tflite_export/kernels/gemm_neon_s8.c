/* int8 weights for NEON, which every 64-bit ARM processor has.
 *
 * Both factors are widened to int16, weights once for four pixels. A lane belongs to one row and
 * one of the four channels of a unit, so it takes one product a unit: all partial sums fit int16
 * for 2 * steps units, since steps * 2 products of the largest magnitude fit. Even if steps is 0
 * one product does: 255 * 128 = 32640 < 2^15. Pairs of lanes are then added to int32. */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernels.h"

enum { kRows = 8, kVectors = kRows / 2, kPixels = 4, kTile = kRows * 4 /* bytes of a unit */ };

typedef struct {
  int16x8_t part[kPixels][kVectors];
  int32x4_t total[kPixels][kVectors]; /* two for each row */
  int room;                           /* units until the parts are full */
} sums16;

static inline __attribute__((always_inline)) void flush(sums16* sum, const int pixels, int run) {
  for (int p = 0; p < pixels; p++) {
    for (int v = 0; v < kVectors; v++) {
      sum->total[p][v] = vpadalq_s16(sum->total[p][v], sum->part[p][v]);
      sum->part[p][v] = vdupq_n_s16(0);
    }
  }
  sum->room = run;
}

/* The four inputs of a unit twice. */
static inline int16x8_t broadcast_unit(const uint8_t* unit) {
  uint32_t word; /* by memcpy, as units may lie anywhere */
  memcpy(&word, unit, sizeof word);
  return vreinterpretq_s16_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word))));
}

static inline void load_weights(const int8_t* w, int16x8_t* weights) {
  for (int v = 0; v < kVectors; v += 2) {
    int8x16_t bytes = vld1q_s8(w + 8 * v);
    weights[v] = vmovl_s8(vget_low_s8(bytes));
    weights[v + 1] = vmovl_high_s8(bytes);
  }
}

/* The units of one tap; returns the weights behind them. If each product is widened `alone`, there
 * are no parts. */
static inline __attribute__((always_inline)) const int8_t* add_tap(sums16* sum, int units,
                                                                   const uint8_t* const* x,
                                                                   const int8_t* w,
                                                                   const int pixels, int run,
                                                                   const int alone) {
  for (int unit = 0; unit < units;) {
    if (!alone && !sum->room) flush(sum, pixels, run);
    const int some = alone || units - unit < sum->room ? units - unit : sum->room;
    if (!alone) sum->room -= some;
    for (const int end = unit + some; unit < end; unit++, w += kTile) {
      int16x8_t weights[kVectors];
      load_weights(w, weights);
      for (int p = 0; p < pixels; p++) {
        const int16x8_t input = broadcast_unit(x[p] + (size_t)unit * 4);
        for (int v = 0; v < kVectors; v++) {
          if (alone)
            sum->total[p][v] = vpadalq_s16(sum->total[p][v], vmulq_s16(weights[v], input));
          else
            sum->part[p][v] = vmlaq_s16(sum->part[p][v], weights[v], input);
        }
      }
    }
  }
  return w;
}

static inline __attribute__((always_inline)) void some_pixels(const kb_gemm_args* args, int first,
                                                              const int pixels, const int alone) {
  const int run = 2 * args->steps;
  const int8_t* w = args->weights;
  sums16 sum = {.room = run};
  for (int tap = 0; tap < args->tap_count; tap++) {
    const uint8_t* x[kPixels];
    for (int p = 0; p < pixels; p++) x[p] = args->pixels[first + p] + args->taps[tap];
    w = add_tap(&sum, args->units, x, w, pixels, run, alone);
  }
  if (!alone) flush(&sum, pixels, run);
  for (int p = 0; p < pixels; p++) {
    int32_t* sums = (int32_t*)args->sums + (size_t)(first + p) * kRows;
    vst1q_s32(sums, vpaddq_s32(sum.total[p][0], sum.total[p][1]));
    vst1q_s32(sums + 4, vpaddq_s32(sum.total[p][2], sum.total[p][3]));
  }
}

static inline __attribute__((always_inline)) void all_pixels(const kb_gemm_args* args,
                                                             const int alone) {
  int pixel = 0;
  for (; pixel + kPixels <= args->count; pixel += kPixels) some_pixels(args, pixel, kPixels, alone);
  for (; pixel < args->count; pixel++) some_pixels(args, pixel, 1, alone);
}

void kb_gemm_s8_neon(const kb_gemm_args* args) {
  if (args->steps)
    all_pixels(args, 0);
  else
    all_pixels(args, 1);
}
#endif
