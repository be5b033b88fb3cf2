/* Bits x bits by look-ups. The 4 inputs of a byte choose one of 16 tables; that table, in a vector,
 * is looked up with the weights of 32 rows at once: entry w is the number of bits of inputs & w.
 * So 128 products cost one vpshufb and one vpaddb; to mask and to count nibbles takes three.
 * Measured on Zen 4: 180 products a cycle, where registers alone allow 210, and 140 by masks. */
#if defined(__x86_64__)
#include "avx2.h"

enum {
  kRows = 64,
  kVector = 32,      /* rows of a vector */
  kPixels = 5,       /* of a tile: 10 sums, 2 vectors of weights and a table are in registers */
  kByteUnits = 3,    /* 3 units add at most 3 * 16 * 4 = 192 to a byte */
  kShortUnits = 1020 /* 1020 units and 3 more add at most 1023 * 64 = 65472 to 16 bits */
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
KB_INLINE void add_bytes(const uint8_t* const* x, const uint8_t* w, int pixels, int vectors,
                         __m256i sums[][2]) {
  KB_UNROLL for (int i = 0; i < 4; i++) {
    __m256i weights[2];
    KB_UNROLL for (int v = 0; v < vectors; v++) weights[v] = kb_load(w + i * kRows + v * kVector);
    KB_UNROLL for (int p = 0; p < pixels; p++) {
      const __m128i* entries = (const __m128i*)(const void*)(kTables + x[p][i]);
      const __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128(entries));
      KB_UNROLL for (int v = 0; v < vectors; v++) {
        sums[p][v] = _mm256_add_epi8(sums[p][v], _mm256_shuffle_epi8(table, weights[v]));
        KB_IN_ORDER(sums[p][v]);
      }
    }
  }
}

/* Bytes of the even rows of a vector, and of the odd ones, as 16 bits. */
KB_INLINE __m256i even_rows(__m256i bytes) {
  return _mm256_and_si256(bytes, _mm256_set1_epi16(255));
}

KB_INLINE __m256i odd_rows(__m256i bytes) { return _mm256_srli_epi16(bytes, 8); }

/* Bytes to sums of 16 bits, the first time or in addition. Those stay in memory till now, as the
 * registers are for the bytes. */
KB_INLINE void widen_bytes(int pixels, int vectors, __m256i bytes[][2], __m256i* shorts, int more) {
  __asm__ volatile("" : : : "memory");
  KB_UNROLL for (int i = 0; i < pixels * vectors; i++) {
    __m256i* byte = &bytes[i / vectors][i % vectors];
    const __m256i even = even_rows(*byte), odd = odd_rows(*byte);
    shorts[2 * i] = more ? _mm256_add_epi16(shorts[2 * i], even) : even;
    shorts[2 * i + 1] = more ? _mm256_add_epi16(shorts[2 * i + 1], odd) : odd;
    *byte = _mm256_setzero_si256();
  }
}

KB_INLINE void store_8(int32_t* sums, __m128i shorts, int more) {
  const __m256i wide = _mm256_cvtepu16_epi32(shorts);
  kb_store(sums, more ? _mm256_add_epi32(kb_load(sums), wide) : wide);
}

/* Bytes, and shorts if there are any, to int32, the first time or in addition. */
KB_INLINE void widen_all(int pixels, int vectors, __m256i bytes[][2], const __m256i* shorts,
                         int has_shorts, int32_t* sums, int more) {
  __asm__ volatile("" : : : "memory");
  KB_UNROLL for (int i = 0; i < pixels * vectors; i++) {
    __m256i* byte = &bytes[i / vectors][i % vectors];
    int32_t* to = sums + i / vectors * kRows + i % vectors * kVector;
    __m256i even = even_rows(*byte), odd = odd_rows(*byte);
    if (has_shorts) {
      even = _mm256_add_epi16(even, shorts[2 * i]);
      odd = _mm256_add_epi16(odd, shorts[2 * i + 1]);
    }
    const __m256i low = _mm256_unpacklo_epi16(even, odd);
    const __m256i high = _mm256_unpackhi_epi16(even, odd);
    store_8(to, _mm256_castsi256_si128(low), more);
    store_8(to + 8, _mm256_castsi256_si128(high), more);
    store_8(to + 16, _mm256_extracti128_si256(low, 1), more);
    store_8(to + 24, _mm256_extracti128_si256(high, 1), more);
    *byte = _mm256_setzero_si256();
  }
}

KB_INLINE void multiply(const kb_gemm_args* args, int first, int pixels, int vectors) {
  int32_t* sums = (int32_t*)args->sums + (size_t)first * kRows;
  const uint8_t* w = args->weights;
  __m256i bytes[kPixels][2], held[4 * kPixels], *shorts = held;
  __asm__("" : "+r"(shorts)); /* some memory, for all the compiler knows */
  int in_bytes = 0, in_shorts = 0, more = 0; /* units */
  KB_UNROLL for (int i = 0; i < pixels * vectors; i++)
    bytes[i / vectors][i % vectors] = _mm256_setzero_si256();
  for (int tap = 0; tap < args->tap_count; tap++) {
    const uint8_t* x[kPixels];
    KB_UNROLL for (int p = 0; p < pixels; p++) x[p] = args->pixels[first + p] + args->taps[tap];
    for (int unit = 0; unit < args->units; unit++, in_bytes++) {
      if (in_bytes == kByteUnits && in_shorts < kShortUnits) {
        widen_bytes(pixels, vectors, bytes, shorts, in_shorts > 0);
        in_shorts += kByteUnits;
        in_bytes = 0;
      } else if (in_bytes == kByteUnits) {
        widen_all(pixels, vectors, bytes, shorts, 1, sums, more);
        in_shorts = in_bytes = 0;
        more = 1;
      }
      for (int i = 0; i < 4; i++, w += 4 * kRows) {
        add_bytes(x, w, pixels, vectors, bytes);
        KB_UNROLL for (int p = 0; p < pixels; p++) x[p] += 4;
      }
    }
  }
  widen_all(pixels, vectors, bytes, shorts, in_shorts > 0, sums, more);
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
