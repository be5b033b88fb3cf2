/* Packed codes of weights for AVX2, for layers of few pixels whose weights come from beyond the
 * second-level cache: they stay packed up to the registers. A vector holds one unit of 8 rows.
 * A nibble holds 4, 2 or 1 codes: for each of them vpshufb in a table of 16 turns the nibble into
 * its level, which costs no more than a shift and a mask.
 *
 * vpmaddubsw adds two products to an int16. `steps` of these pairs fit; a unit of P1, P2, P4 has 8,
 * 4, 2 of them for each row. Where not even one unit fits, the two products of a pair are taken
 * apart: one, of at most 255 * 128, fits.
 *
 * Evenly spaced levels of P4 need no look-up:
 *     sum levels[code] * x = levels[0] * sum x + (levels[1] - levels[0]) * sum code * x
 *
 * Of 32 bytes of weights and one pixel, in operations: P4 3 for the nibbles, 2 vpshufb unless
 * levels are evenly spaced, 2 vpmaddubsw, 2 additions: 7 or 9 for 64 products; P2 15 for 128; P1 27
 * for 256. */
#if defined(__x86_64__)
#include "avx2.h"

typedef __m256i v;

enum { kVectors = 4, kRows = 8 * kVectors };

KB_INLINE v widen(v pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

/* The level of each field of a nibble, for all nibbles. */
static void fill_tables(const int8_t* levels, int bits, v* tables) {
  for (int field = 0; field < 4 / bits; field++) {
    int8_t table[16];
    for (int nibble = 0; nibble < 16; nibble++)
      table[nibble] = levels[nibble >> (bits * field) & ((1 << bits) - 1)];
    tables[field] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)(void*)table));
  }
}

/* One unit. Narrow: `total` is of int16; else of int32, and pairs are taken apart. */
KB_INLINE void add_unit(const uint8_t* w, const uint8_t* x, const v* tables, const int bits,
                        const int narrow, v* total) {
  const v nibbles = _mm256_set1_epi8(15), even = _mm256_set1_epi16(255);
  const int fields = 4 / bits, parts = 2 * fields;
  KB_UNROLL
  for (int i = 0; i < kVectors; i++) {
    const v codes = kb_load(w + 32 * i);
    KB_UNROLL
    for (int part = 0; part < parts; part++) {
      const int field = part % fields, high = part / fields;
      const v nibble = _mm256_and_si256(high ? _mm256_srli_epi16(codes, 4) : codes, nibbles);
      const v weight = _mm256_shuffle_epi8(tables[field], nibble);
      const v input = kb_broadcast(x + 4 * part);
      if (narrow) {
        total[i] = _mm256_add_epi16(total[i], _mm256_maddubs_epi16(input, weight));
      } else {
        v one = _mm256_maddubs_epi16(_mm256_and_si256(input, even), weight);
        v other = _mm256_maddubs_epi16(_mm256_andnot_si256(even, input), weight);
        total[i] = _mm256_add_epi32(total[i], _mm256_add_epi32(widen(one), widen(other)));
      }
      KB_IN_ORDER(total[i]);
    }
  }
}

/* `block` units at a time fit int16, or none. */
KB_INLINE void add_tap(const uint8_t* w, const uint8_t* x, int units, int block, const v* tables,
                       const int bits, v* result) {
  if (!block) {
    for (; units; units--, w += 4 * kRows, x += 32 / bits)
      add_unit(w, x, tables, bits, 0, result);
    return;
  }
  while (units) {
    v total[kVectors];
    int count = units < block ? units : block;
    units -= count;
    KB_UNROLL
    for (int i = 0; i < kVectors; i++) total[i] = _mm256_setzero_si256();
    for (; count; count--, w += 4 * kRows, x += 32 / bits) add_unit(w, x, tables, bits, 1, total);
    KB_UNROLL
    for (int i = 0; i < kVectors; i++) result[i] = _mm256_add_epi32(result[i], widen(total[i]));
  }
}

KB_INLINE void multiply(const kb_gemm_args* args, const int bits) {
  v tables[4];
  fill_tables(args->levels, bits, tables);
  const ptrdiff_t of_tap = (ptrdiff_t)args->units * 4 * kRows;
  for (int p = 0; p < args->count; p++) {
    const uint8_t* w = args->weights;
    int32_t* sums = (int32_t*)args->sums + (size_t)p * kRows;
    v result[kVectors];
    KB_UNROLL
    for (int i = 0; i < kVectors; i++) result[i] = _mm256_setzero_si256();
    for (int tap = 0; tap < args->tap_count; tap++, w += of_tap)
      add_tap(w, args->pixels[p] + args->taps[tap], args->units, args->steps * bits / 8, tables,
              bits, result);
    KB_UNROLL
    for (int i = 0; i < kVectors; i++) kb_store(sums + 8 * i, result[i]);
  }
}

void kb_gemm_p1_avx2(const kb_gemm_args* args) { multiply(args, 1); }

void kb_gemm_p2_avx2(const kb_gemm_args* args) { multiply(args, 2); }

/* 8 pairs of at most 2 * 255 * 15, less 2^15, fit int16. */
enum { kEvenUnits = 4, kEvenBias = INT16_MIN };

KB_INLINE void add_even(const uint8_t* w, const uint8_t* x, const int units, v* result) {
  v total[kVectors];
  KB_UNROLL
  for (int i = 0; i < kVectors; i++) total[i] = _mm256_set1_epi16(kEvenBias);
  KB_UNROLL
  for (int unit = 0; unit < units; unit++, w += 4 * kRows, x += 8) {
    const v mask = _mm256_set1_epi8(15), first = kb_broadcast(x), second = kb_broadcast(x + 4);
    KB_UNROLL
    for (int i = 0; i < kVectors; i++) {
      v codes = kb_load(w + 32 * i);
      KB_IN_ORDER(codes); /* one load for both nibbles */
      const v low = _mm256_maddubs_epi16(first, _mm256_and_si256(codes, mask));
      const v high = _mm256_and_si256(_mm256_srli_epi16(codes, 4), mask);
      total[i] = _mm256_add_epi16(total[i], low);
      total[i] = _mm256_add_epi16(total[i], _mm256_maddubs_epi16(second, high));
      KB_IN_ORDER(total[i]);
    }
  }
  KB_UNROLL
  for (int i = 0; i < kVectors; i++) result[i] = _mm256_add_epi32(result[i], widen(total[i]));
}

/* The sum of the inputs of all taps, modulo 2^32. */
static uint32_t sum_inputs(const kb_gemm_args* args, int pixel) {
  const ptrdiff_t bytes = 8 * (ptrdiff_t)args->units;
  uint32_t sum = 0, of[8];
  v total = _mm256_setzero_si256();
  for (int tap = 0; tap < args->tap_count; tap++) {
    const uint8_t* x = args->pixels[pixel] + args->taps[tap];
    ptrdiff_t i = 0;
    for (; i + 32 <= bytes; i += 32)
      total = _mm256_add_epi32(total, _mm256_sad_epu8(kb_load(x + i), _mm256_setzero_si256()));
    for (; i < bytes; i++) sum += x[i];
  }
  kb_store(of, total);
  return sum + of[0] + of[2] + of[4] + of[6];
}

/* P4 of evenly spaced levels. What is added of the bias and of levels[0] is modulo 2^32; the sums
 * themselves fit int32. */
static void multiply_even(const kb_gemm_args* args) {
  const int step = args->levels[1] - args->levels[0];
  const int blocks = args->units / kEvenUnits + args->units % kEvenUnits;
  const uint32_t bias = 2u * (uint32_t)kEvenBias * (uint32_t)blocks * (uint32_t)args->tap_count;
  for (int p = 0; p < args->count; p++) {
    const uint8_t* w = args->weights;
    const uint32_t base = (uint32_t)args->levels[0] * sum_inputs(args, p) - (uint32_t)step * bias;
    v result[kVectors];
    KB_UNROLL
    for (int i = 0; i < kVectors; i++) result[i] = _mm256_setzero_si256();
    for (int tap = 0; tap < args->tap_count; tap++) {
      const uint8_t* x = args->pixels[p] + args->taps[tap];
      int left = args->units;
      for (; left >= kEvenUnits; left -= kEvenUnits) {
        add_even(w, x, kEvenUnits, result);
        w += 4 * kRows * kEvenUnits, x += 8 * kEvenUnits;
      }
      for (; left; left--, w += 4 * kRows, x += 8) add_even(w, x, 1, result);
    }
    KB_UNROLL
    for (int i = 0; i < kVectors; i++) {
      const v scaled = _mm256_mullo_epi32(result[i], _mm256_set1_epi32(step));
      kb_store((int32_t*)args->sums + (size_t)p * kRows + 8 * i,
               _mm256_add_epi32(scaled, _mm256_set1_epi32((int32_t)base)));
    }
  }
}

static int evenly_spaced(const int8_t* levels) {
  for (int i = 2; i < 16; i++) {
    if (levels[i] - levels[i - 1] != levels[1] - levels[0]) return 0;
  }
  return 1;
}

void kb_gemm_p4_avx2(const kb_gemm_args* args) {
  if (evenly_spaced(args->levels))
    multiply_even(args);
  else
    multiply(args, 4);
}
#endif
