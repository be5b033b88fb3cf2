/* int8 x uint8: vpmaddubsw multiplies 4 broadcast inputs with the weights of 8 rows and adds pairs
 * of products, which saturates beyond int16. `steps` units stay within it; so many are added in
 * int16 before vpmaddwd brings them to int32. Both multipliers run at 2 a cycle, so a pair of
 * them for each unit, the usual way, is half as fast. */
#if defined(__x86_64__)
#include "avx2.h"

enum {
  kRows = 16,
  kPixels = 6, /* of a tile */
  kTogether = 3 /* of them at once: 6 sums of pairs and 6 of int32, 2 vectors of weights, 1 input */
};

/* sums += products of `units` units, which fit int16, for 8 rows a vector. */
KB_INLINE void add_units(const uint8_t* const* x, ptrdiff_t at, const int8_t* w, int pixels,
                         int vectors,
                         int units, __m256i sums[][2]) {
  __m256i pairs[kTogether][2];
  KB_UNROLL for (int i = 0; i < 2 * pixels; i++) pairs[i / 2][i % 2] = _mm256_setzero_si256();
  KB_UNROLL for (int k = 0; k < units; k++) {
    const __m256i weights[2] = {kb_load(w + 64 * k), kb_load(w + 64 * k + 32)};
    KB_UNROLL for (int p = 0; p < pixels; p++) {
      const __m256i inputs = kb_broadcast(x[p] + at + 4 * k);
      KB_UNROLL for (int v = 0; v < vectors; v++) {
        const __m256i products = _mm256_maddubs_epi16(inputs, weights[v]);
        pairs[p][v] = k ? _mm256_add_epi16(pairs[p][v], products) : products;
        KB_IN_ORDER(pairs[p][v]);
      }
    }
  }
  KB_UNROLL for (int i = 0; i < vectors * pixels; i++) {
    __m256i* sum = &sums[i / vectors][i % vectors];
    const __m256i fours =
        _mm256_madd_epi16(pairs[i / vectors][i % vectors], _mm256_set1_epi16(1));
    *sum = _mm256_add_epi32(*sum, fours);
    KB_IN_ORDER(*sum);
  }
}

/* Two bytes of weights and of inputs as int16 each, where not even one unit fits: vpmaddwd takes
 * the even and the odd ones apart. */
KB_INLINE void add_wide(const uint8_t* const* x, ptrdiff_t at, const int8_t* w, int pixels,
                        __m256i sums[][2]) {
  __m256i even[2], odd[2];
  KB_UNROLL for (int v = 0; v < 2; v++) {
    const __m256i weights = kb_load(w + 32 * v);
    even[v] = _mm256_srai_epi16(_mm256_slli_epi16(weights, 8), 8);
    odd[v] = _mm256_srai_epi16(weights, 8);
  }
  KB_UNROLL for (int p = 0; p < pixels; p++) {
    const __m256i inputs = kb_broadcast(x[p] + at);
    const __m256i even_inputs = _mm256_and_si256(inputs, _mm256_set1_epi16(255));
    const __m256i odd_inputs = _mm256_srli_epi16(inputs, 8);
    KB_UNROLL for (int v = 0; v < 2; v++) {
      sums[p][v] = _mm256_add_epi32(sums[p][v], _mm256_madd_epi16(even_inputs, even[v]));
      sums[p][v] = _mm256_add_epi32(sums[p][v], _mm256_madd_epi16(odd_inputs, odd[v]));
      KB_IN_ORDER(sums[p][v]);
    }
  }
}

/* `steps` is a constant: 8, 4, 2, 1, or 0 for the wide way. */
KB_INLINE void add_tap(const uint8_t* const* x, const int8_t* w, int units, int pixels,
                       int vectors, int steps, __m256i sums[][2]) {
  int u = 0;
  for (; steps && u + steps <= units; u += steps, w += 64 * steps) {
    KB_UNROLL for (int p = 0; p < pixels; p += kTogether) {
      const int some = pixels - p < kTogether ? pixels - p : kTogether;
      add_units(x + p, 4 * (ptrdiff_t)u, w, some, vectors, steps, sums + p);
    }
  }
  for (; u < units; u++, w += 64) {
    if (!steps) add_wide(x, 4 * (ptrdiff_t)u, w, pixels, sums);
    KB_UNROLL for (int p = 0; steps && p < pixels; p += kTogether) {
      const int some = pixels - p < kTogether ? pixels - p : kTogether;
      add_units(x + p, 4 * (ptrdiff_t)u, w, some, vectors, 1, sums + p);
    }
  }
}

KB_INLINE void multiply(const kb_gemm_args* args, int first, int pixels, int vectors, int steps) {
  int32_t* to = (int32_t*)args->sums + (size_t)first * kRows;
  const int8_t* w = args->weights;
  __m256i sums[kPixels][2];
  KB_UNROLL for (int i = 0; i < 2 * pixels; i++) sums[i / 2][i % 2] = _mm256_setzero_si256();
  for (int tap = 0; tap < args->tap_count; tap++, w += 64 * (ptrdiff_t)args->units) {
    const uint8_t* x[kPixels];
    KB_UNROLL for (int p = 0; p < pixels; p++) x[p] = args->pixels[first + p] + args->taps[tap];
    add_tap(x, w, args->units, pixels, vectors, steps, sums);
  }
  KB_UNROLL for (int p = 0; p < pixels; p++) {
    KB_UNROLL for (int v = 0; v < vectors; v++) kb_store(to + kRows * p + 8 * v, sums[p][v]);
  }
}

/* One pixel, where not even one unit fits: the inputs are cut into nibbles. Pairs of products are
 * at most 2 * 15 * 128 in magnitude, so those of 8 units fit int16. Of 32 bytes of weights, in
 * operations: 2 vpmaddubsw and 2 additions, and for 8 times as many 2 vpmaddwd and 2 additions: 28
 * products a cycle, where the wide way with its weights to widen has 21. */
enum { kGroup = 8, kCut = 32 /* groups at a time, whose nibbles stay in the first-level cache */ };

/* Of each 32 inputs the low nibbles, then the high ones. */
static void cut_inputs(const uint8_t* x, int groups, uint8_t* nibbles) {
  const __m256i mask = _mm256_set1_epi8(15);
  for (int i = 0; i < groups; i++, x += 32, nibbles += 64) {
    const __m256i inputs = kb_load(x);
    kb_store(nibbles, _mm256_and_si256(inputs, mask));
    kb_store(nibbles + 32, _mm256_and_si256(_mm256_srli_epi16(inputs, 4), mask));
  }
}

/* `units` is at most kGroup. */
KB_INLINE void add_group(const uint8_t* nibbles, const int8_t* w, const int units,
                         __m256i sums[2]) {
  __m256i low[2], high[2];
  KB_UNROLL for (int v = 0; v < 2; v++) low[v] = high[v] = _mm256_setzero_si256();
  KB_UNROLL for (int k = 0; k < units; k++, w += 64) {
    const __m256i of_low = kb_broadcast(nibbles + 4 * k);
    const __m256i of_high = kb_broadcast(nibbles + 32 + 4 * k);
    KB_UNROLL for (int v = 0; v < 2; v++) {
      __m256i weights = kb_load(w + 32 * v);
      KB_IN_ORDER(weights); /* one load for both */
      low[v] = _mm256_add_epi16(low[v], _mm256_maddubs_epi16(of_low, weights));
      high[v] = _mm256_add_epi16(high[v], _mm256_maddubs_epi16(of_high, weights));
      KB_IN_ORDER(low[v]);
      KB_IN_ORDER(high[v]);
    }
  }
  KB_UNROLL for (int v = 0; v < 2; v++) {
    const __m256i ones = _mm256_madd_epi16(low[v], _mm256_set1_epi16(1));
    const __m256i sixteens = _mm256_madd_epi16(high[v], _mm256_set1_epi16(16));
    sums[v] = _mm256_add_epi32(sums[v], _mm256_add_epi32(ones, sixteens));
  }
}

static void multiply_one(const kb_gemm_args* args, int pixel) {
  int32_t* to = (int32_t*)args->sums + (size_t)pixel * kRows;
  const int8_t* w = args->weights;
  __m256i sums[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int tap = 0; tap < args->tap_count; tap++) {
    const uint8_t* x = args->pixels[pixel] + args->taps[tap];
    for (int left = args->units; left > 0; x += 32 * kCut) {
      uint8_t nibbles[64 * kCut];
      const int units = left < kGroup * kCut ? left : kGroup * kCut;
      const uint8_t* of_group = nibbles;
      cut_inputs(x, (units + kGroup - 1) / kGroup, nibbles);
      left -= units;
      int u = 0;
      for (; u + kGroup <= units; u += kGroup, w += 64 * kGroup, of_group += 64)
        add_group(of_group, w, kGroup, sums);
      for (; u < units; u++, w += 64, of_group += 4) add_group(of_group, w, 1, sums);
    }
  }
  for (int v = 0; v < 2; v++) kb_store(to + 8 * v, sums[v]);
}

/* Of a tile with up to 8 rows in use one vector is enough. */
KB_INLINE void multiply_all(const kb_gemm_args* args, int vectors, int steps) {
  const int pixels = steps ? kPixels : 5; /* as many as leave registers */
  int p = 0;
  for (; p + pixels <= args->count; p += pixels) multiply(args, p, pixels, vectors, steps);
  for (; p + 3 <= args->count; p += 3) multiply(args, p, 3, vectors, steps);
  if (p + 2 <= args->count) multiply(args, p, 2, vectors, steps), p += 2;
  if (p == args->count) return;
  if (steps)
    multiply(args, p, 1, vectors, steps);
  else
    multiply_one(args, p);
}

void kb_gemm_s8_avx2(const kb_gemm_args* args) {
  const int steps = args->steps < args->units ? args->steps : args->units;
  const int few = args->used <= 8;
  if (steps >= 8)
    few ? multiply_all(args, 1, 8) : multiply_all(args, 2, 8);
  else if (steps >= 4)
    few ? multiply_all(args, 1, 4) : multiply_all(args, 2, 4);
  else if (steps >= 2)
    few ? multiply_all(args, 1, 2) : multiply_all(args, 2, 2);
  else if (steps == 1)
    few ? multiply_all(args, 1, 1) : multiply_all(args, 2, 1);
  else
    multiply_all(args, 2, 0);
}
#endif
