/* Whole numbers to outputs in plain C: the law for the other instruction sets. */
#include "kernels.h"

/* Unsigned numbers, whose sums and products are modulo 2^32. */
static uint32_t total_of(const kb_finish_whole_args* args, int pixel, int row) {
  const size_t at = (size_t)pixel * (size_t)args->rows + (size_t)row;
  const char* sums = (const char*)args->sums;
  uint32_t total = 0;
  for (int i = 0; i < args->parts; i++, sums += args->part_stride) {
    const uint32_t sum = (uint32_t)((const int32_t*)(const void*)sums)[at];
    total += sum << (args->shifts ? args->shifts[i] : 0);
  }
  if (args->input_weights)
    total += (uint32_t)args->input_weights[row] * (uint32_t)args->input_sums[pixel];
  if (args->starts) total += (uint32_t)((const int32_t*)args->starts[pixel])[row];
  return total;
}

static float clamp(float value, float low, float high) {
  return value < low ? low : value > high ? high : value;
}

void kb_finish_whole_scalar(const kb_finish_whole_args* args) {
  for (int p = 0; p < args->count; p++) {
    float* y = args->y + (size_t)p * args->y_stride;
    for (int r = 0; r < args->used; r++) {
      const float product = (float)(int32_t)total_of(args, p, r) * args->scales[r];
      y[r] = clamp(product + args->biases[r], args->low, args->high);
    }
  }
}
