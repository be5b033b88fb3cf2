/* int16 x int16 by vpmaddwd, and float x float, of the same shape. The largest product of S16 is
 * 255 * 32767, two of them fit int32. */
#if defined(__x86_64__)
#include "avx2.h"

enum { kRows = 16, kPixels = 6 /* 12 sums, 2 vectors of weights and 1 input are in registers */ };

KB_INLINE __m256i add_product(__m256i sum, __m256i weights, __m256i inputs, int is_float) {
  if (!is_float) return _mm256_add_epi32(sum, _mm256_madd_epi16(weights, inputs));
  const __m256 w = _mm256_castsi256_ps(weights), x = _mm256_castsi256_ps(inputs);
  return _mm256_castps_si256(_mm256_add_ps(_mm256_castsi256_ps(sum), _mm256_mul_ps(w, x)));
}

KB_INLINE void multiply(const kb_gemm_args* args, int first, int pixels, int is_float) {
  int32_t* to = (int32_t*)args->sums + (size_t)first * kRows;
  const uint8_t* w = args->weights;
  const ptrdiff_t end = 4 * (ptrdiff_t)args->units;
  __m256i sums[kPixels][2];
  KB_UNROLL for (int i = 0; i < 2 * pixels; i++) sums[i / 2][i % 2] = _mm256_setzero_si256();
  for (int tap = 0; tap < args->tap_count; tap++) {
    const uint8_t* x[kPixels];
    KB_UNROLL for (int p = 0; p < pixels; p++) x[p] = args->pixels[first + p] + args->taps[tap];
    for (ptrdiff_t at = 0; at < end; at += 4, w += 64) {
      const __m256i weights[2] = {kb_load(w), kb_load(w + 32)};
      KB_UNROLL for (int p = 0; p < pixels; p++) {
        const __m256i inputs = kb_broadcast(x[p] + at);
        KB_UNROLL for (int v = 0; v < 2; v++) {
          sums[p][v] = add_product(sums[p][v], weights[v], inputs, is_float);
          KB_IN_ORDER(sums[p][v]);
        }
      }
    }
  }
  KB_UNROLL for (int i = 0; i < 2 * pixels; i++) kb_store(to + 8 * i, sums[i / 2][i % 2]);
}

KB_INLINE void multiply_all(const kb_gemm_args* args, int is_float) {
  int p = 0;
  for (; p + kPixels <= args->count; p += kPixels) multiply(args, p, kPixels, is_float);
  for (; p + 3 <= args->count; p += 3) multiply(args, p, 3, is_float);
  for (; p < args->count; p++) multiply(args, p, 1, is_float);
}

void kb_gemm_s16_avx2(const kb_gemm_args* args) { multiply_all(args, 0); }

void kb_gemm_f32_avx2(const kb_gemm_args* args) { multiply_all(args, 1); }
#endif
