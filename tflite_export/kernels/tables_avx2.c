/* Weights of one bit for AVX2 by looking up the sums of four inputs: a byte of a vector is a row,
 * and vpshufb finds what four channels add to 32 rows.
 *
 * A sum of four inputs is up to 1020 = 31 * 32 + 28, and its low five bits and the rest are found
 * apart: the eight of a unit add up to at most 248 in a byte. Then bytes are widened: a 16-bit sum
 * of the pairs as they are and one of the odd bytes alone, from which the even ones follow modulo
 * 2^16. 264 units would fit.
 *
 * Of 32 bytes of weights, in operations: 3 for the nibbles, 4 vpshufb, 3.5 additions, 1.5 to widen:
 * 12 for 256 products, 85 a cycle where four start in one. */
#if defined(__x86_64__)
#include "avx2.h"

typedef __m256i v;

enum { kVectors = 2, kRows = 32 * kVectors, kBlock = 256 /* units whose sums fit 16 bits */ };

/* Of each 32 rows: the low five bits of sums and the rest, of pairs of bytes and of odd ones. */
typedef struct {
  v low[kVectors], low_odd[kVectors], high[kVectors], high_odd[kVectors];
} totals;

KB_INLINE v table(const uint8_t* p) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)(const void*)p));
}

/* The sums of one table of each row. `first`: there is nothing to add to yet. */
KB_INLINE void look_up(const uint8_t* tables, const v* nibbles, const int first, v* low, v* high) {
  const v of_low = table(tables), of_high = table(tables + 16);
  KB_UNROLL
  for (int i = 0; i < kVectors; i++) {
    const v low_sum = _mm256_shuffle_epi8(of_low, nibbles[i]);
    const v high_sum = _mm256_shuffle_epi8(of_high, nibbles[i]);
    low[i] = first ? low_sum : _mm256_add_epi8(low[i], low_sum);
    high[i] = first ? high_sum : _mm256_add_epi8(high[i], high_sum);
    KB_IN_ORDER(low[i]);
    KB_IN_ORDER(high[i]);
  }
}

/* Adds the bytes of a unit, in order: else compilers move totals from register to register. */
KB_INLINE void widen(const v* bytes, v* pairs, v* odd) {
  KB_UNROLL
  for (int i = 0; i < kVectors; i++) {
    pairs[i] = _mm256_add_epi16(pairs[i], bytes[i]);
    odd[i] = _mm256_add_epi16(odd[i], _mm256_srli_epi16(bytes[i], 8));
    KB_IN_ORDER(pairs[i]);
    KB_IN_ORDER(odd[i]);
  }
}

KB_INLINE void add_unit(const uint8_t* w, const uint8_t* tables, totals* total) {
  const v mask = _mm256_set1_epi8(15);
  v low[kVectors], high[kVectors];
  KB_UNROLL
  for (int b = 0; b < 4; b++, w += kRows, tables += 2 * KB_TABLE_BYTES) {
    v first[kVectors], second[kVectors];
    KB_UNROLL
    for (int i = 0; i < kVectors; i++) {
      v bits = kb_load(w + 32 * i);
      KB_IN_ORDER(bits); /* one load for both nibbles */
      first[i] = _mm256_and_si256(bits, mask);
      second[i] = _mm256_and_si256(_mm256_srli_epi16(bits, 4), mask);
      KB_IN_ORDER(first[i]);
      KB_IN_ORDER(second[i]);
    }
    look_up(tables, first, b == 0, low, high);
    look_up(tables + KB_TABLE_BYTES, second, 0, low, high);
  }
  widen(low, total->low, total->low_odd);
  widen(high, total->high, total->high_odd);
}

/* Eight rows: low + 32 high. */
KB_INLINE void add_eight(__m128i low, __m128i high, int32_t* sums) {
  const v sum = _mm256_add_epi32(_mm256_cvtepu16_epi32(low),
                                 _mm256_slli_epi32(_mm256_cvtepu16_epi32(high), 5));
  kb_store(sums, _mm256_add_epi32(kb_load(sums), sum));
}

/* Adds the totals of 32 rows: rows 0 to 7 and 16 to 23 come from the low halves of lanes. */
static void add_sums(v low, v low_odd, v high, v high_odd, int32_t* sums) {
  const v low_even = _mm256_sub_epi16(low, _mm256_slli_epi16(low_odd, 8));
  const v high_even = _mm256_sub_epi16(high, _mm256_slli_epi16(high_odd, 8));
  const v lows[2] = {_mm256_unpacklo_epi16(low_even, low_odd),
                     _mm256_unpackhi_epi16(low_even, low_odd)};
  const v highs[2] = {_mm256_unpacklo_epi16(high_even, high_odd),
                      _mm256_unpackhi_epi16(high_even, high_odd)};
  for (int half = 0; half < 2; half++) {
    add_eight(_mm256_castsi256_si128(lows[half]), _mm256_castsi256_si128(highs[half]),
              sums + 8 * half);
    add_eight(_mm256_extracti128_si256(lows[half], 1), _mm256_extracti128_si256(highs[half], 1),
              sums + 16 + 8 * half);
  }
}

/* Up to kBlock units. */
static void add_block(const uint8_t* w, const uint8_t* tables, int units, int32_t* sums) {
  totals total;
  KB_UNROLL
  for (int i = 0; i < kVectors; i++)
    total.low[i] = total.low_odd[i] = total.high[i] = total.high_odd[i] = _mm256_setzero_si256();
  for (; units; units--, w += 4 * kRows, tables += 8 * KB_TABLE_BYTES) add_unit(w, tables, &total);
  KB_UNROLL
  for (int i = 0; i < kVectors; i++)
    add_sums(total.low[i], total.low_odd[i], total.high[i], total.high_odd[i], sums + 32 * i);
}

void kb_gemm_t1_avx2(const kb_gemm_args* args) {
  for (int p = 0; p < args->count; p++) {
    int32_t* sums = (int32_t*)args->sums + (size_t)p * kRows;
    const uint8_t* w = args->weights;
    memset(sums, 0, kRows * sizeof *sums);
    for (int tap = 0; tap < args->tap_count; tap++) {
      const uint8_t* tables = args->pixels[p] + args->taps[tap];
      for (int left = args->units, units; left; left -= units) {
        units = left < kBlock ? left : kBlock;
        add_block(w, tables, units, sums);
        w += 4 * kRows * units, tables += 8 * KB_TABLE_BYTES * units;
      }
    }
  }
}

/* The sums of 16 subsets of four inputs: vpmaddubsw by 0 and 1 and vphaddw, which takes subsets 0
 * to 3 and 8 to 11 from its first operand. */
KB_INLINE v sum_subsets(const uint8_t* levels, v first, v second) {
  const v inputs = kb_broadcast(levels);
  return _mm256_hadd_epi16(_mm256_maddubs_epi16(inputs, first),
                           _mm256_maddubs_epi16(inputs, second));
}

static void put_unit(const uint8_t* levels, v first, v second, uint8_t* image) {
  for (int group = 0; group < 8; group++) {
    const v sums = sum_subsets(levels + 4 * group, first, second);
    const v low = _mm256_and_si256(sums, _mm256_set1_epi16(31)), high = _mm256_srli_epi16(sums, 5);
    const v both = _mm256_packus_epi16(low, high); /* of the low halves, then of the high ones */
    kb_store(image + KB_TABLE_BYTES * group, _mm256_permute4x64_epi64(both, 0xd8));
  }
}

void kb_sum_tables_avx2(const uint8_t* levels, size_t count, uint8_t* image) {
  int8_t subsets[2][32];
  for (int i = 0; i < 32; i++) {
    const int set = i / 4 % 4 + i / 16 * 8;
    subsets[0][i] = (int8_t)(set >> i % 4 & 1);
    subsets[1][i] = (int8_t)((set + 4) >> i % 4 & 1);
  }
  const v first = kb_load(subsets[0]), second = kb_load(subsets[1]);
  const size_t whole = count / 32;
  for (size_t unit = 0; unit < whole; unit++)
    put_unit(levels + 32 * unit, first, second, image + 8 * KB_TABLE_BYTES * unit);
  if (count % 32 == 0) return;
  uint8_t last[32] = {0};
  memcpy(last, levels + 32 * whole, count % 32);
  put_unit(last, first, second, image + 8 * KB_TABLE_BYTES * whole);
}
#endif
