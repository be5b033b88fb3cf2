/* Tables of sums of inputs, and weights of one bit that are looked up in them, in plain C: the law
 * for the other instruction sets. The product works for any number of rows. */
#include "kernels.h"

void kb_sum_tables_scalar(const uint8_t* levels, size_t count, uint8_t* image) {
  const size_t groups = (count + 31) / 32 * 8;
  for (size_t group = 0; group < groups; group++, image += KB_TABLE_BYTES) {
    for (int set = 0; set < 16; set++) {
      int sum = 0;
      for (size_t j = 0; j < 4 && 4 * group + j < count; j++)
        sum += set >> j & 1 ? levels[4 * group + j] : 0;
      image[set] = (uint8_t)(sum & 31);
      image[16 + set] = (uint8_t)(sum >> 5);
    }
  }
}

static int32_t look_up(const uint8_t* table, int set) { return table[set] + 32 * table[16 + set]; }

void kb_gemm_t1_scalar(const kb_gemm_args* args) {
  for (int p = 0; p < args->count; p++) {
    int32_t* sums = (int32_t*)args->sums + (size_t)p * (size_t)args->rows;
    const uint8_t* w = args->weights;
    memset(sums, 0, (size_t)args->rows * sizeof *sums);
    for (int tap = 0; tap < args->tap_count; tap++) {
      const uint8_t* tables = args->pixels[p] + args->taps[tap];
      for (int i = 0; i < 4 * args->units; i++, tables += 2 * KB_TABLE_BYTES) {
        for (int r = 0; r < args->rows; r++, w++)
          sums[r] += look_up(tables, *w & 15) + look_up(tables + KB_TABLE_BYTES, *w >> 4);
      }
    }
  }
}
