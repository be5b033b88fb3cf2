/* Bits x bits by look-ups. The 4 inputs of a byte choose one of 16 tables; that table, in a vector,
 * is looked up with the weights of 32 rows at once: entry w is the number of bits of inputs & w.
 * So 128 products cost one vpshufb and one vpaddb, where AND and counting cost 3 of each pair. */
#if defined(__x86_64__)
#include "avx2.h"

enum {
  kRows = 64,
  kVector = 32,      /* rows of a vector */
  kPixels = 5,       /* of a tile: 10 sums, 2 vectors of weights and a table are in registers */
  kByteUnits = 3,    /* 3 units add at most 3 * 16 * 4 = 192 to a byte */
  kShortUnits = 1020 /* 1020 units add at most 1020 * 64 = 65280 to 16 bits; a multiple of 3 */
};

#define COUNT(inputs, weights) ((inputs & weights) % 2 + (inputs & weights) / 2 % 2 + \
                                (inputs & weights) / 4 % 2 + (inputs & weights) / 8)
#define TABLE(n)                                                                       \
  COUNT(n, 0), COUNT(n, 1), COUNT(n, 2), COUNT(n, 3), COUNT(n, 4), COUNT(n, 5),        \
      COUNT(n, 6), COUNT(n, 7), COUNT(n, 8), COUNT(n, 9), COUNT(n, 10), COUNT(n, 11),  \
      COUNT(n, 12), COUNT(n, 13), COUNT(n, 14), COUNT(n, 15)
static const _Alignas(64) uint8_t kTables[256] = {
    TABLE(0), TABLE(1), TABLE(2),  TABLE(3),  TABLE(4),  TABLE(5),  TABLE(6),  TABLE(7),
    TABLE(8), TABLE(9), TABLE(10), TABLE(11), TABLE(12), TABLE(13), TABLE(14), TABLE(15)};

/* 4 of the 16 bytes of a unit: nothing but this loop takes time. */
KB_INLINE void add_bytes(const uint8_t* const* x, size_t at, const uint8_t* w, int pixels,
                         int vectors, __m256i sums[][2]) {
  KB_UNROLL for (int i = 0; i < 4; i++) {
    __m256i weights[2];
    KB_UNROLL for (int v = 0; v < vectors; v++) weights[v] = kb_load(w + i * kRows + v * kVector);
    KB_UNROLL for (int p = 0; p < pixels; p++) {
      const __m128i* entries = (const __m128i*)(const void*)(kTables + x[p][at + (size_t)i]);
      const __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128(entries));
      KB_UNROLL for (int v = 0; v < vectors; v++) {
        sums[p][v] = _mm256_add_epi8(sums[p][v], _mm256_shuffle_epi8(table, weights[v]));
        KB_IN_ORDER(sums[p][v]);
      }
    }
  }
}

/* Bytes to sums of 16 bits: rows 0, 2, 4, ... and rows 1, 3, 5, ... of the vector. */
KB_INLINE void widen_bytes(int pixels, int vectors, __m256i bytes[][2], __m256i* shorts) {
  const __m256i even = _mm256_set1_epi16(255);
  __asm__ volatile("" : : : "memory"); /* registers are for bytes: shorts stay in memory till now */
  KB_UNROLL for (int i = 0; i < pixels * vectors; i++) {
    __m256i* byte = &bytes[i / vectors][i % vectors];
    shorts[2 * i] = _mm256_add_epi16(shorts[2 * i], _mm256_and_si256(*byte, even));
    shorts[2 * i + 1] = _mm256_add_epi16(shorts[2 * i + 1], _mm256_srli_epi16(*byte, 8));
    *byte = _mm256_setzero_si256();
  }
}

KB_INLINE void store_8(int32_t* sums, __m128i shorts, int more) {
  const __m256i wide = _mm256_cvtepu16_epi32(shorts);
  kb_store(sums, more ? _mm256_add_epi32(kb_load(sums), wide) : wide);
}

/* Sums of 16 bits to int32, the first time or in addition. */
KB_INLINE void widen_shorts(int pixels, int vectors, __m256i* shorts, int32_t* sums, int more) {
  KB_UNROLL for (int i = 0; i < pixels * vectors; i++) {
    int32_t* to = sums + i / vectors * kRows + i % vectors * kVector;
    const __m256i low = _mm256_unpacklo_epi16(shorts[2 * i], shorts[2 * i + 1]);
    const __m256i high = _mm256_unpackhi_epi16(shorts[2 * i], shorts[2 * i + 1]);
    store_8(to, _mm256_castsi256_si128(low), more);
    store_8(to + 8, _mm256_castsi256_si128(high), more);
    store_8(to + 16, _mm256_extracti128_si256(low, 1), more);
    store_8(to + 24, _mm256_extracti128_si256(high, 1), more);
    shorts[2 * i] = shorts[2 * i + 1] = _mm256_setzero_si256();
  }
}

KB_INLINE void multiply(const kb_gemm_args* args, int first, int pixels, int vectors) {
  int32_t* sums = (int32_t*)args->sums + (size_t)first * kRows;
  const uint8_t* w = args->weights;
  __m256i bytes[kPixels][2], held[4 * kPixels], *shorts = held;
  __asm__("" : "+r"(shorts)); /* some memory, for all the compiler knows */
  int in_bytes = 0, in_shorts = 0, more = 0;
  KB_UNROLL for (int i = 0; i < pixels * vectors; i++) {
    bytes[i / vectors][i % vectors] = _mm256_setzero_si256();
    shorts[2 * i] = shorts[2 * i + 1] = _mm256_setzero_si256();
  }
  for (int tap = 0; tap < args->tap_count; tap++) {
    const uint8_t* x[kPixels];
    KB_UNROLL for (int p = 0; p < pixels; p++) x[p] = args->pixels[first + p] + args->taps[tap];
    for (int unit = 0; unit < args->units; unit++) {
      for (int i = 0; i < 4; i++, w += 4 * kRows) {
        add_bytes(x, 0, w, pixels, vectors, bytes);
        KB_UNROLL for (int p = 0; p < pixels; p++) x[p] += 4;
      }
      if (++in_bytes < kByteUnits) continue;
      widen_bytes(pixels, vectors, bytes, shorts);
      in_bytes = 0;
      if ((in_shorts += kByteUnits) < kShortUnits) continue;
      widen_shorts(pixels, vectors, shorts, sums, more);
      in_shorts = 0;
      more = 1;
    }
  }
  widen_bytes(pixels, vectors, bytes, shorts);
  widen_shorts(pixels, vectors, shorts, sums, more);
}

/* A function each, since compilers run out of registers if all are one. */
#define MULTIPLY(pixels, vectors)                                                              \
  static __attribute__((noinline)) void multiply_##pixels##_##vectors(const kb_gemm_args* args, \
                                                                      int first) {             \
    multiply(args, first, pixels, vectors);                                                    \
  }
MULTIPLY(1, 1) MULTIPLY(2, 1) MULTIPLY(3, 1) MULTIPLY(4, 1) MULTIPLY(5, 1)
MULTIPLY(1, 2) MULTIPLY(2, 2) MULTIPLY(3, 2) MULTIPLY(4, 2) MULTIPLY(5, 2)

void kb_gemm_bits_avx2(const kb_gemm_args* args) {
  typedef void (*tile)(const kb_gemm_args*, int);
  static const tile kTiles[2][kPixels] = {
      {multiply_1_1, multiply_2_1, multiply_3_1, multiply_4_1, multiply_5_1},
      {multiply_1_2, multiply_2_2, multiply_3_2, multiply_4_2, multiply_5_2}};
  const tile* tiles = kTiles[args->used > kVector];
  for (int p = 0; p < args->count; p += kPixels) {
    const int left = args->count - p;
    tiles[(left < kPixels ? left : kPixels) - 1](args, p);
  }
}
#endif
