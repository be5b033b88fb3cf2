/* Packed codes of weights for AVX2, for layers of few pixels whose weights come from beyond the
 * second-level cache: they stay packed up to the registers. A vector holds one unit of 8 rows.
 * A nibble holds 4, 2 or 1 codes: for each of them vpshufb in a table of 16 turns the nibble into
 * its level, which costs no more than a shift and a mask.
 *
 * vpmaddubsw adds two products to an int16. `steps` of these pairs fit; a unit of P1, P2, P4 has 8,
 * 4, 2 of them for each row. Where not even one unit fits, the two products of a pair are taken
 * apart: one, of at most 255 * 128, fits.
 *
 * Of 32 bytes of weights and one pixel, in operations: P4 3 for the nibbles, 2 vpshufb, 2
 * vpmaddubsw, 2 additions: 9 for 64 products; P2 15 for 128; P1 27 for 256. */
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

void kb_gemm_p4_avx2(const kb_gemm_args* args) { multiply(args, 4); }
#endif
