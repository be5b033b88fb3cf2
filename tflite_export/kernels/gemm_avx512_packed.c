/* Packed codes of weights for AVX-512, for layers of few pixels whose weights come from beyond the
 * second-level cache: they stay packed up to the registers. A vector holds one unit of 16 rows; the
 * low and the high nibble of a byte are taken apart, so that one shift serves all fields.
 *
 * Evenly spaced levels need no look-up, only a mask:
 *     sum levels[code] * x = levels[0] * sum x + (levels[1] - levels[0]) * sum code * x
 * Fields that do not start at bit 0 have totals of their own, too large by a power of two. Those of
 * a block fit uint32, so that a shift takes it off. All else is modulo 2^32; the result fits int32.
 *
 * Of 64 bytes of weights and one pixel, in operations: P1 8 masks, 8 vpdpbusd and a shift for 512
 * products; P2 4, 4 and 1 for 256; P4 2, 2 and 1 for 128; Zen 4 starts two a cycle, but one
 * vpdpbusd. Levels that are not evenly spaced take one vpshufb a field more. */
#if defined(__x86_64__)
#include "avx512.h"

typedef __m512i v;

enum {
  kVectors = 4, /* of a tile */
  kRows = 16 * kVectors,
  kBlock = 1 << 14 /* units; of each, a total of P1 has 8 codes: 2^17 * 255 * 8 < 2^32 */
};

/* By fields of a nibble, and for the one of P4 by nibbles: no sum waits for the one before. */
typedef struct {
  v of[4][kVectors];
} totals;

KB_INLINE v spread(const uint8_t* x) {
  int32_t unit;
  memcpy(&unit, x, sizeof unit);
  return _mm512_set1_epi32(unit);
}

/* What to look up nibbles in, or to mask them with, for each field. */
static void fill_tables(const int8_t* levels, int bits, int even, v* tables) {
  const int mask = (1 << bits) - 1;
  for (int field = 0; field < 4 / bits; field++) {
    int8_t table[16];
    for (int nibble = 0; nibble < 16; nibble++) {
      const int8_t level = levels[nibble >> (bits * field) & mask];
      table[nibble] = even ? (int8_t)(mask << (bits * field)) : level;
    }
    int32_t words[4];
    memcpy(words, table, sizeof words);
    tables[field] = _mm512_broadcast_i32x4(_mm_setr_epi32(words[0], words[1], words[2], words[3]));
  }
}

KB_INLINE void add_unit(const uint8_t* w, const uint8_t* x, const v* tables, const int bits,
                        const int even, totals* sum) {
  const int fields = 4 / bits;
  KB_UNROLL
  for (int i = 0; i < kVectors; i++) {
    const v codes = _mm512_loadu_si512(w + 64 * i);
    KB_UNROLL
    for (int nibble = 0; nibble < 2; nibble++) {
      v part = nibble ? _mm512_srli_epi16(codes, 4) : codes;
      if (!even) part = _mm512_and_si512(part, _mm512_set1_epi8(15));
      KB_UNROLL
      for (int field = 0; field < fields; field++) {
        v weight = even ? _mm512_and_si512(part, tables[field])
                        : _mm512_shuffle_epi8(tables[field], part);
        v* total = &sum->of[fields == 1 ? nibble : field][i];
        *total = _mm512_dpbusd_epi32(*total, spread(x + 4 * (nibble * fields + field)), weight);
      }
    }
  }
}

/* Adds the totals of a block to the sums of a tile. */
KB_INLINE void finish_block(const totals* sum, const int bits, const int even, v* result) {
  const int count = bits == 1 ? 4 : 2;
  KB_UNROLL
  for (int i = 0; i < kVectors; i++) {
    KB_UNROLL
    for (int t = 0; t < count; t++) {
      const int shift = even && bits < 4 ? bits * t : 0;
      result[i] = _mm512_add_epi32(result[i], _mm512_srli_epi32(sum->of[t][i], (unsigned)shift));
    }
  }
}

KB_INLINE void add_tap(const uint8_t* w, const uint8_t* x, int units, const v* tables,
                       const int bits, const int even, v* result) {
  for (int first = 0; first < units; first += kBlock) {
    const int count = units - first < kBlock ? units - first : kBlock;
    totals sum;
    KB_UNROLL
    for (int t = 0; t < 4; t++) {
      KB_UNROLL
      for (int i = 0; i < kVectors; i++) sum.of[t][i] = _mm512_setzero_si512();
    }
    for (int unit = 0; unit < count; unit++, w += 4 * kRows, x += 32 / bits)
      add_unit(w, x, tables, bits, even, &sum);
    finish_block(&sum, bits, even, result);
  }
}

/* The sum of the inputs of all taps, modulo 2^32. */
static uint32_t sum_inputs(const kb_gemm_args* args, int pixel, int channels) {
  const ptrdiff_t bytes = (ptrdiff_t)args->units * channels;
  v total = _mm512_setzero_si512();
  for (int tap = 0; tap < args->tap_count; tap++) {
    const uint8_t* x = args->pixels[pixel] + args->taps[tap];
    for (ptrdiff_t at = 0; at < bytes; at += 64) {
      const __mmask64 there = bytes - at >= 64 ? ~0ull : (1ull << (bytes - at)) - 1;
      total = _mm512_dpbusd_epi32(total, _mm512_maskz_loadu_epi8(there, x + at),
                                  _mm512_set1_epi8(1));
    }
  }
  return (uint32_t)_mm512_reduce_add_epi32(total);
}

KB_INLINE void multiply(const kb_gemm_args* args, const int bits, const int even) {
  v tables[4];
  fill_tables(args->levels, bits, even, tables);
  const int first = args->levels[0], step = args->levels[1] - args->levels[0];
  const ptrdiff_t of_tap = (ptrdiff_t)args->units * 4 * kRows;
  for (int p = 0; p < args->count; p++) {
    const uint8_t* w = args->weights;
    int32_t* sums = (int32_t*)args->sums + (size_t)p * kRows;
    v result[kVectors];
    for (int i = 0; i < kVectors; i++) result[i] = _mm512_setzero_si512();
    for (int tap = 0; tap < args->tap_count; tap++, w += of_tap)
      add_tap(w, args->pixels[p] + args->taps[tap], args->units, tables, bits, even, result);
    const uint32_t base = even && first ? (uint32_t)first * sum_inputs(args, p, 32 / bits) : 0;
    for (int i = 0; i < kVectors; i++) {
      if (even) result[i] = _mm512_mullo_epi32(result[i], _mm512_set1_epi32(step));
      result[i] = _mm512_add_epi32(result[i], _mm512_set1_epi32((int32_t)base));
      _mm512_storeu_si512(sums + 16 * i, result[i]);
    }
  }
}

static int evenly_spaced(const int8_t* levels, int count) {
  const int step = levels[1] - levels[0];
  for (int i = 2; i < count; i++) {
    if (levels[i] - levels[i - 1] != step) return 0;
  }
  return 1;
}

void kb_gemm_p1_avx512(const kb_gemm_args* args) { multiply(args, 1, 1); }

void kb_gemm_p2_avx512(const kb_gemm_args* args) {
  if (evenly_spaced(args->levels, 4))
    multiply(args, 2, 1);
  else
    multiply(args, 2, 0);
}

void kb_gemm_p4_avx512(const kb_gemm_args* args) {
  if (evenly_spaced(args->levels, 16))
    multiply(args, 4, 1);
  else
    multiply(args, 4, 0);
}
#endif
