/* Depthwise layers for NEON: channels side by side in a vector, weights shared by four pixels. */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernels.h"

enum { kPixels = 4, kVectors = 2, kBlock = 8 * kVectors /* channels */ };

/* One tap of 8 channels; `low` and `high` are not used if sums fit int16. */
static inline __attribute__((always_inline)) void add_tap(int16x8_t input, int16x8_t weights,
                                                          const int fits16, int16x8_t* sum,
                                                          int32x4_t* low, int32x4_t* high) {
  if (fits16) {
    *sum = vmlaq_s16(*sum, input, weights);
    return;
  }
  *low = vmlal_s16(*low, vget_low_s16(input), vget_low_s16(weights));
  *high = vmlal_high_s16(*high, input, weights);
}

/* Some pixels of 8 * vectors channels. */
static inline __attribute__((always_inline)) void block(const kb_depthwise_args* args, int first,
                                                        int channel, const int pixels,
                                                        const int vectors, const int fits16) {
  int16x8_t sum[kPixels][kVectors];
  int32x4_t low[kPixels][kVectors], high[kPixels][kVectors];
  for (int p = 0; p < pixels; p++) {
    for (int v = 0; v < vectors; v++) {
      sum[p][v] = vdupq_n_s16(0);
      low[p][v] = high[p][v] = vdupq_n_s32(0);
    }
  }
  const uint8_t* pixel = args->pixel + (size_t)first * args->pixel_step + channel;
  const int16_t* w = args->weights + channel;
  for (int tap = 0; tap < args->tap_count; tap++, w += args->channels) {
    for (int v = 0; v < vectors; v++) {
      const int16x8_t weights = vld1q_s16(w + 8 * v);
      for (int p = 0; p < pixels; p++) {
        const uint8_t* x = pixel + (size_t)p * args->pixel_step + args->taps[tap];
        const int16x8_t input = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(x + 8 * v)));
        add_tap(input, weights, fits16, &sum[p][v], &low[p][v], &high[p][v]);
      }
    }
  }
  for (int p = 0; p < pixels; p++) {
    int32_t* sums = args->sums + (size_t)(first + p) * (size_t)args->channels + channel;
    for (int v = 0; v < vectors; v++) {
      if (fits16) {
        low[p][v] = vmovl_s16(vget_low_s16(sum[p][v]));
        high[p][v] = vmovl_high_s16(sum[p][v]);
      }
      vst1q_s32(sums + 8 * v, low[p][v]);
      vst1q_s32(sums + 8 * v + 4, high[p][v]);
    }
  }
}

static inline __attribute__((always_inline)) void all_pixels(const kb_depthwise_args* args,
                                                             int channel, const int vectors,
                                                             const int fits16) {
  int pixel = 0;
  for (; pixel + kPixels <= args->count; pixel += kPixels)
    block(args, pixel, channel, kPixels, vectors, fits16);
  for (; pixel < args->count; pixel++) block(args, pixel, channel, 1, vectors, fits16);
}

/* The last block ends with the last channel, so channels in the middle may be computed twice. */
static inline __attribute__((always_inline)) void all_channels(const kb_depthwise_args* args,
                                                               const int vectors,
                                                               const int fits16) {
  const int last = args->channels - 8 * vectors;
  for (int channel = 0; channel < last; channel += 8 * vectors)
    all_pixels(args, channel, vectors, fits16);
  all_pixels(args, last, vectors, fits16);
}

void kb_depthwise_neon(const kb_depthwise_args* args) {
  if (args->channels < 8)
    kb_depthwise_scalar(args);
  else if (args->channels < kBlock && args->fits16)
    all_channels(args, 1, 1);
  else if (args->channels < kBlock)
    all_channels(args, 1, 0);
  else if (args->fits16)
    all_channels(args, kVectors, 1);
  else
    all_channels(args, kVectors, 0);
}
#endif
