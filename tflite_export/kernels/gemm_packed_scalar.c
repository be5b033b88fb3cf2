/* Packed codes of weights in plain C: the law for the other instruction sets. Works for any number
 * of rows. */
#include "kernels.h"

/* One unit of one row: 4 bytes, of codes of `bits` bits each, times as many inputs. */
static int32_t multiply_unit(const uint8_t* w, const uint8_t* x, const int8_t* levels, int bits) {
  const int fields = 8 / bits, mask = (1 << bits) - 1;
  int32_t sum = 0;
  for (int field = 0; field < fields; field++) {
    for (int b = 0; b < 4; b++)
      sum += levels[w[b] >> (bits * field) & mask] * x[4 * field + b];
  }
  return sum;
}

static void multiply(const kb_gemm_args* args, int bits) {
  for (int p = 0; p < args->count; p++) {
    int32_t* sums = (int32_t*)args->sums + (size_t)p * (size_t)args->rows;
    const uint8_t* w = args->weights;
    memset(sums, 0, (size_t)args->rows * sizeof *sums);
    for (int tap = 0; tap < args->tap_count; tap++) {
      const uint8_t* x = args->pixels[p] + args->taps[tap];
      for (int unit = 0; unit < args->units; unit++, x += 32 / bits) {
        for (int r = 0; r < args->rows; r++, w += 4)
          sums[r] += multiply_unit(w, x, args->levels, bits);
      }
    }
  }
}

void kb_gemm_p1_scalar(const kb_gemm_args* args) { multiply(args, 1); }

void kb_gemm_p2_scalar(const kb_gemm_args* args) { multiply(args, 2); }

void kb_gemm_p4_scalar(const kb_gemm_args* args) { multiply(args, 4); }
