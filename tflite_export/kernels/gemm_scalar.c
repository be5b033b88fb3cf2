/* The kernels in plain C: the definition that the others are compared with, bit by bit. */
#include <assert.h>
#include <string.h>

#include "core.h"

static void sum_up(const kb_gemm_args* args, int pixel, const int32_t* total) {
  int32_t* sums = (int32_t*)args->sums + (size_t)pixel * KB_TILE;
  for (int r = 0; r < KB_TILE; r++) sums[r] = total[r];
}

static uint64_t load_word(const uint8_t* p) {
  uint64_t word;
  memcpy(&word, p, sizeof word);
  return word;
}

void kb_gemm_bits_scalar(const kb_gemm_args* args) {
  for (int pixel = 0; pixel < args->pixels; pixel++) {
    const uint8_t* x = args->inputs + (size_t)pixel * args->stride;
    const uint8_t* w = args->weights;
    int32_t total[KB_TILE] = {0};
    for (int chunk = 0; chunk < args->chunks; chunk++, x += KB_CHUNK) {
      for (int r = 0; r < KB_TILE; r++, w += KB_CHUNK) {
        for (int i = 0; i < KB_CHUNK; i += 8)
          total[r] += __builtin_popcountll(load_word(w + i) & load_word(x + i));
      }
    }
    sum_up(args, pixel, total);
  }
}

void kb_gemm_s8_scalar(const kb_gemm_args* args) {
  assert(args->max_weight <= KB_MAX_S8);
  for (int pixel = 0; pixel < args->pixels; pixel++) {
    const uint8_t* x = args->inputs + (size_t)pixel * args->stride;
    const int8_t* w = args->weights;
    int32_t total[KB_TILE] = {0};
    for (int chunk = 0; chunk < args->chunks; chunk++, x += KB_CHUNK) {
      for (int r = 0; r < KB_TILE; r++, w += KB_CHUNK) {
        for (int i = 0; i < KB_CHUNK; i++) total[r] += w[i] * x[i];
      }
    }
    sum_up(args, pixel, total);
  }
}

void kb_gemm_s16_scalar(const kb_gemm_args* args) {
  for (int pixel = 0; pixel < args->pixels; pixel++) {
    const uint8_t* x = args->inputs + (size_t)pixel * args->stride;
    const int16_t* w = args->weights;
    int32_t total[KB_TILE] = {0};
    for (int chunk = 0; chunk < args->chunks; chunk++, x += KB_CHUNK) {
      for (int r = 0; r < KB_TILE; r++, w += KB_CHUNK) {
        for (int i = 0; i < KB_CHUNK; i++) total[r] += w[i] * x[i];
      }
    }
    sum_up(args, pixel, total);
  }
}

void kb_gemm_f32_scalar(const kb_gemm_args* args) {
  for (int pixel = 0; pixel < args->pixels; pixel++) {
    const float* x = (const void*)(args->inputs + (size_t)pixel * args->stride);
    const float* w = args->weights;
    float total[KB_TILE_F32] = {0};
    for (int k = 0; k < args->chunks; k++, w += KB_TILE_F32) {
      for (int r = 0; r < KB_TILE_F32; r++) total[r] += w[r] * x[k];
    }
    float* sums = (float*)args->sums + (size_t)pixel * KB_TILE_F32;
    for (int r = 0; r < KB_TILE_F32; r++) sums[r] = total[r];
  }
}
