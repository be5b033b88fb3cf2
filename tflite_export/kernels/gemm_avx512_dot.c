/* Inputs in units of four bytes for AVX-512: four uint8 by int8, two int16 by int16, one float. A
 * vector holds one unit of each of 16 rows, and a tile has two of them; each input is broadcast
 * once, by the load unit. Zen 4 starts one of these products a cycle and ends it four cycles later,
 * so that four to sixteen sums at a time keep it busy: 64 multiply-adds a cycle for int8, 32 for
 * int16, 16 for floats.
 *
 * vpdpbusd and vpdpwssd add four or two products to an int32 without saturating between: exact, as
 * the caller splits sums so that they fit. */
#if defined(__x86_64__)
#include "avx512.h"

typedef __m512i v;
typedef v (*multiply_add)(v total, v input, v weight);

enum { kVectors = 2, kRows = 16 * kVectors, kRowBytes = 4 * kRows, kPixels = 8 };

KB_INLINE v add_s8(v total, v input, v weight) {
  return _mm512_dpbusd_epi32(total, input, weight);
}

KB_INLINE v add_s16(v total, v input, v weight) {
  return _mm512_dpwssd_epi32(total, input, weight);
}

/* A product and a sum, each rounded; the compiler must not contract them (-ffp-contract=off). */
KB_INLINE v add_f32(v total, v input, v weight) {
  __m512 product = _mm512_mul_ps(_mm512_castsi512_ps(input), _mm512_castsi512_ps(weight));
  return _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(total), product));
}

KB_INLINE v spread_unit(const uint8_t* unit) {
  int32_t value;
  memcpy(&value, unit, sizeof value);
  return _mm512_set1_epi32(value);
}

KB_INLINE void some_pixels(const kb_gemm_args* args, int pixel, const int count,
                           const int vectors, multiply_add add) {
  const uint8_t* weight = args->weights;
  v total[kPixels][kVectors];
  KB_UNROLL
  for (int p = 0; p < count; p++) {
    KB_UNROLL
    for (int k = 0; k < vectors; k++) total[p][k] = _mm512_setzero_si512();
  }
  for (int tap = 0; tap < args->tap_count; tap++) {
    const uint8_t* x[kPixels];
    KB_UNROLL
    for (int p = 0; p < count; p++) x[p] = args->pixels[pixel + p] + args->taps[tap];
    for (ptrdiff_t at = 0; at < 4 * (ptrdiff_t)args->units; at += 4, weight += kRowBytes) {
      v w[kVectors];
      KB_UNROLL
      for (int k = 0; k < vectors; k++) w[k] = _mm512_loadu_si512(weight + 64 * k);
      KB_UNROLL
      for (int p = 0; p < count; p++) {
        v input = spread_unit(x[p] + at);
        KB_KEEP(input);
        KB_UNROLL
        for (int k = 0; k < vectors; k++) total[p][k] = add(total[p][k], input, w[k]);
      }
    }
  }
  uint8_t* sums = (uint8_t*)args->sums + (size_t)pixel * kRowBytes;
  KB_UNROLL
  for (int p = 0; p < count; p++) {
    KB_UNROLL
    for (int k = 0; k < vectors; k++)
      _mm512_storeu_si512(sums + p * kRowBytes + 64 * k, total[p][k]);
  }
}

/* Groups of nearly the same size, since a last one of a single pixel would wait for each sum. */
KB_INLINE void all_pixels(const kb_gemm_args* args, const int vectors, multiply_add add) {
  int groups = (args->count + kPixels - 1) / kPixels;
  for (int pixel = 0; groups > 0; groups--) {
    const int some = (args->count - pixel + groups - 1) / groups;
    switch (some) {
      case 8: some_pixels(args, pixel, 8, vectors, add); break;
      case 7: some_pixels(args, pixel, 7, vectors, add); break;
      case 6: some_pixels(args, pixel, 6, vectors, add); break;
      case 5: some_pixels(args, pixel, 5, vectors, add); break;
      case 4: some_pixels(args, pixel, 4, vectors, add); break;
      case 3: some_pixels(args, pixel, 3, vectors, add); break;
      case 2: some_pixels(args, pixel, 2, vectors, add); break;
      default: some_pixels(args, pixel, 1, vectors, add);
    }
    pixel += some;
  }
}

KB_INLINE void used_rows(const kb_gemm_args* args, multiply_add add) {
  if (args->used <= kRows / 2)
    all_pixels(args, 1, add);
  else
    all_pixels(args, 2, add);
}

void kb_gemm_s8_avx512(const kb_gemm_args* args) { used_rows(args, add_s8); }

void kb_gemm_s16_avx512(const kb_gemm_args* args) { used_rows(args, add_s16); }

void kb_gemm_f32_avx512(const kb_gemm_args* args) { used_rows(args, add_f32); }
#endif
