/* A depthwise layer on whole numbers, from its blob to its outputs. With levels l of the input,
 *
 *     y[o] = clamp((float)((c0[o] * s0 + c1[o] * s1) * scale[o] + base[o]))
 *     s0 = sum_taps weight[tap][o] * l,  s1 = sum_taps l
 *
 * where weights are offset[o] + step[o] * number. Where no channel has an offset, s1 is left out and
 * c0 is 1. Base is the bias and what the input's offset adds; taps outside of the image see the
 * level of 0, so it is the same for all pixels.
 *
 * Where offsets are whole or half steps, weights are whole or twice that, s0 alone is left, and what
 * the input's offset adds is whole, too (whole.h):
 *
 *     y[o] = clamp((float)(s0 * 2^shift + start[o]) * scale[o] + bias[o]) */
#ifndef KERASBITS_DEPTHWISE_LAYER_H
#define KERASBITS_DEPTHWISE_LAYER_H

#include "depthwise.h"
#include "im2col.h"
#include "input.h"
#include "pool.h"

/* Channels are cut into slabs, so that the sums of many pixels fit the nearest cache. What belongs
 * to channels lies slab by slab: of those with `width` channels from `first` on, numbers that are
 * [n][out] for the layer are [n][width] from n * first on. */
typedef struct {
  int parts;       /* sums of an output: 1 or 2; 0 if the layer is done in floats */
  int channels, repeats;  /* of the input; outputs of each */
  int slabs;
  int tap_count, outside; /* taps; the level of taps outside of the image */
  int16_t* weights[2];    /* [taps][out] of each part */
  kb_depthwise_digits* digits[2]; /* [slabs], NULL if the kernel takes none */
  int fits16[2];
  double* coefficients;  /* [2][out], NULL if there is one part */
  double *scales, *base; /* [out] */
  int is_whole;          /* whether these are used instead: */
  int32_t shift, *starts; /* [out], NULL if all are 0 */
  float *whole_scales, *biases; /* [out] */
  float low, high;
  size_t bytes;          /* allocated for all this */
} kb_dw_layer;

/* The first channel of a slab, or of the one behind the last: whole blocks, but at the end. */
static inline int kb_dw_first(const kb_dw_layer* layer, int slab) {
  const int64_t out = (int64_t)layer->channels * layer->repeats;
  if (slab == layer->slabs) return (int)out;
  return (int)(out * slab / layer->slabs / KB_DW_BLOCK * KB_DW_BLOCK);
}

/* Fill a zeroed layer; parts stays 0 where it has to be done in floats: float or plane inputs or
 * inputs of more than 8 bits, weights of uneven levels, and taps outside of an image where the
 * input grid has no 0. */
int kb_dw_create(const kb_blob* blob, const kb_input* input, const kb_kernels* kernels,
                 kb_dw_layer* layer, kb_error error);
void kb_dw_destroy(kb_dw_layer* layer);

/* One run, for images of one shape. */
typedef struct {
  const kb_dw_layer* layer;
  const kb_input* input;
  const kb_kernels* kernels;
  const kb_window* window;
  int64_t images;
} kb_dw_run;

/* Scratch bytes of one worker; -1 if they do not fit size_t. */
int kb_dw_scratch(const kb_dw_run* run, size_t* bytes);

/* y = layer(x), with scratch memory for each of the pool's threads. */
void kb_dw_execute(const kb_dw_run* run, kb_pool* pool, uint8_t* scratch, const float* x, float* y);

#endif
