/* The definition of a depthwise kernel. */
#include <string.h>

#include "kernels.h"

void kb_depthwise_scalar(const kb_depthwise_args* args) {
  const size_t channels = (size_t)args->channels;
  for (int p = 0; p < args->count; p++) {
    const uint8_t* pixel = args->pixel + (size_t)p * args->pixel_step;
    int32_t* restrict sums = args->sums + (size_t)p * channels;
    memset(sums, 0, channels * sizeof *sums);
    for (int tap = 0; tap < args->tap_count; tap++) {
      const uint8_t* restrict inputs = pixel + args->taps[tap];
      const int16_t* restrict weights = args->weights + (size_t)tap * channels;
      for (size_t c = 0; c < channels; c++) sums[c] += weights[c] * inputs[c];
    }
  }
}
