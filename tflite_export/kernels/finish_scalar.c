/* Sums to outputs in plain C: the law for the other instruction sets. */
#include "kernels.h"

static double sum_at(const kb_finish_args* args, int part, int pixel, int row) {
  const char* sums = (const char*)args->sums + (size_t)part * args->part_stride;
  const size_t at = (size_t)pixel * (size_t)args->rows + (size_t)row;
  if (args->is_float) return (double)((const float*)(const void*)sums)[at];
  return (double)((const int32_t*)(const void*)sums)[at];
}

static float clamp(float value, float low, float high) {
  return value < low ? low : value > high ? high : value;
}

void kb_finish_scalar(const kb_finish_args* args) {
  for (int p = 0; p < args->count; p++) {
    float* y = args->y + (size_t)p * args->y_stride;
    for (int r = 0; r < args->used; r++) {
      double total = sum_at(args, 0, p, r);
      if (args->coefficients) total *= args->coefficients[r];
      for (int i = 1; i < args->parts; i++)
        total += args->coefficients[(size_t)i * (size_t)args->rows + (size_t)r] *
                 sum_at(args, i, p, r);
      if (args->input_weights) total += args->input_weights[r] * args->input_sums[p];
      const double base = ((const double*)args->base[p])[r];
      y[r] = clamp((float)(total * args->scales[r] + base), args->low, args->high);
    }
  }
}
