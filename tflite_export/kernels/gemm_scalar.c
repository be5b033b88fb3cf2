/* The products in plain C: the law that the other kernels are compared with, bit by bit. Each
 * works for any number of rows. */
#include "kernels.h"

static uint64_t load_word(const uint8_t* p) {
  uint64_t word;
  memcpy(&word, p, sizeof word);
  return word;
}

/* Inputs and weights of 4 channels a byte. */
static void multiply_nibbles(const kb_gemm_args* args) {
  for (int p = 0; p < args->count; p++) {
    int32_t* sums = (int32_t*)args->sums + (size_t)p * (size_t)args->rows;
    const uint8_t* w = args->weights;
    memset(sums, 0, (size_t)args->rows * sizeof *sums);
    for (int tap = 0; tap < args->tap_count; tap++) {
      const uint8_t* x = args->pixels[p] + args->taps[tap];
      for (int i = 0; i < 16 * args->units; i++)
        for (int r = 0; r < args->rows; r++) sums[r] += __builtin_popcount(x[i] >> 4 & *w++);
    }
  }
}

void kb_gemm_bits_scalar(const kb_gemm_args* args) {
  if (args->unit_bytes == 16) {
    multiply_nibbles(args);
    return;
  }
  for (int p = 0; p < args->count; p++) {
    int32_t* sums = (int32_t*)args->sums + (size_t)p * (size_t)args->rows;
    const uint8_t* w = args->weights;
    memset(sums, 0, (size_t)args->rows * sizeof *sums);
    for (int tap = 0; tap < args->tap_count; tap++) {
      const uint8_t* x = args->pixels[p] + args->taps[tap];
      for (int unit = 0; unit < args->units; unit++, x += 8) {
        const uint64_t input = load_word(x);
        for (int r = 0; r < args->rows; r++, w += 8)
          sums[r] += __builtin_popcountll(input & load_word(w));
      }
    }
  }
}

void kb_gemm_s8_scalar(const kb_gemm_args* args) {
  for (int p = 0; p < args->count; p++) {
    int32_t* sums = (int32_t*)args->sums + (size_t)p * (size_t)args->rows;
    const int8_t* w = args->weights;
    memset(sums, 0, (size_t)args->rows * sizeof *sums);
    for (int tap = 0; tap < args->tap_count; tap++) {
      const uint8_t* x = args->pixels[p] + args->taps[tap];
      for (int unit = 0; unit < args->units; unit++, x += 4) {
        for (int r = 0; r < args->rows; r++, w += 4)
          sums[r] += w[0] * x[0] + w[1] * x[1] + w[2] * x[2] + w[3] * x[3];
      }
    }
  }
}

void kb_gemm_s16_scalar(const kb_gemm_args* args) {
  for (int p = 0; p < args->count; p++) {
    int32_t* sums = (int32_t*)args->sums + (size_t)p * (size_t)args->rows;
    const uint8_t* w = args->weights;
    memset(sums, 0, (size_t)args->rows * sizeof *sums);
    for (int tap = 0; tap < args->tap_count; tap++) {
      const uint8_t* x = args->pixels[p] + args->taps[tap];
      for (int unit = 0; unit < args->units; unit++, x += 4) {
        int16_t input[2], weight[2];
        memcpy(input, x, sizeof input);
        for (int r = 0; r < args->rows; r++, w += 4) {
          memcpy(weight, w, sizeof weight);
          sums[r] += weight[0] * input[0] + weight[1] * input[1];
        }
      }
    }
  }
}

void kb_gemm_f32_scalar(const kb_gemm_args* args) {
  for (int p = 0; p < args->count; p++) {
    float* sums = (float*)args->sums + (size_t)p * (size_t)args->rows;
    const uint8_t* w = args->weights;
    memset(sums, 0, (size_t)args->rows * sizeof *sums);
    for (int tap = 0; tap < args->tap_count; tap++) {
      const uint8_t* x = args->pixels[p] + args->taps[tap];
      for (int unit = 0; unit < args->units; unit++, x += 4) {
        float input, weight;
        memcpy(&input, x, sizeof input);
        for (int r = 0; r < args->rows; r++, w += 4) {
          memcpy(&weight, w, sizeof weight);
          sums[r] += weight * input;
        }
      }
    }
  }
}
