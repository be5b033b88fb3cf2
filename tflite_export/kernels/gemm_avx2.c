/* The kernels for AVX2. The only file that is compiled with -mavx2; nothing here may run before
 * the dispatcher has asked the processor. */
#if defined(__x86_64__)
#include <assert.h>
#include <immintrin.h>

#include "core.h"

typedef __m256i v;

static inline v load(const void* p) { return _mm256_loadu_si256(p); }

/* Sums of the eight int32 of each of four vectors. */
static inline __m128i reduce(v a, v b, v c, v d) {
  v sums = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
  return _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
}

static inline void store_sums(const kb_gemm_args* args, int pixel, const v* total) {
  __m128i sums = reduce(total[0], total[1], total[2], total[3]);
  _mm_storeu_si128((__m128i*)((int32_t*)args->sums + (size_t)pixel * KB_TILE), sums);
}

static inline v popcount_bytes(v bits) {
  const v counts = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1,
                                    2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const v low = _mm256_set1_epi8(15);
  v high = _mm256_and_si256(_mm256_srli_epi16(bits, 4), low);
  return _mm256_add_epi8(_mm256_shuffle_epi8(counts, _mm256_and_si256(bits, low)),
                         _mm256_shuffle_epi8(counts, high));
}

void kb_gemm_bits_avx2(const kb_gemm_args* args) {
  enum { kFlush = 31 }; /* 31 chunks of at most 8 a byte fit a byte */
  const v zero = _mm256_setzero_si256();
  for (int pixel = 0; pixel < args->pixels; pixel++) {
    const uint8_t* x = args->inputs + (size_t)pixel * args->stride;
    const uint8_t* w = args->weights;
    v total[KB_TILE] = {zero, zero, zero, zero};
    for (int left = args->chunks; left > 0; left -= kFlush) {
      v bytes[KB_TILE] = {zero, zero, zero, zero};
      int run = left < kFlush ? left : kFlush;
      for (int chunk = 0; chunk < run; chunk++, x += KB_CHUNK, w += KB_TILE * KB_CHUNK) {
        v input = load(x);
        for (int r = 0; r < KB_TILE; r++) {
          v both = _mm256_and_si256(input, load(w + r * KB_CHUNK));
          bytes[r] = _mm256_add_epi8(bytes[r], popcount_bytes(both));
        }
      }
      for (int r = 0; r < KB_TILE; r++)
        total[r] = _mm256_add_epi64(total[r], _mm256_sad_epu8(bytes[r], zero));
    }
    store_sums(args, pixel, total);
  }
}

/* Some pixels at a time. Products of small weights are added as int16 for `steps` chunks, as long
 * as they are sure to fit, and widened then. */
static inline __attribute__((always_inline)) void s8_pixels(const kb_gemm_args* args, int pixel,
                                                            const int pixels, int steps) {
  const v zero = _mm256_setzero_si256(), ones = _mm256_set1_epi16(1);
  const uint8_t* x = args->inputs + (size_t)pixel * args->stride;
  const int8_t* w = args->weights;
  v total[2][KB_TILE];
  for (int p = 0; p < pixels; p++)
    for (int r = 0; r < KB_TILE; r++) total[p][r] = zero;
  for (int left = args->chunks; left > 0; left -= steps) {
    v part[2][KB_TILE];
    for (int p = 0; p < pixels; p++)
      for (int r = 0; r < KB_TILE; r++) part[p][r] = zero;
    int run = left < steps ? left : steps;
    for (int chunk = 0; chunk < run; chunk++, x += KB_CHUNK, w += KB_TILE * KB_CHUNK) {
      for (int r = 0; r < KB_TILE; r++) {
        v weight = load(w + r * KB_CHUNK);
        for (int p = 0; p < pixels; p++) {
          v products = _mm256_maddubs_epi16(load(x + (size_t)p * args->stride), weight);
          part[p][r] = _mm256_add_epi16(part[p][r], products);
        }
      }
    }
    for (int p = 0; p < pixels; p++)
      for (int r = 0; r < KB_TILE; r++)
        total[p][r] = _mm256_add_epi32(total[p][r], _mm256_madd_epi16(part[p][r], ones));
  }
  for (int p = 0; p < pixels; p++) store_sums(args, pixel + p, total[p]);
}

void kb_gemm_s8_avx2(const kb_gemm_args* args) {
  assert(args->max_weight <= KB_MAX_S8);
  int steps = INT16_MAX / (2 * KB_MAX_INPUT * args->max_weight), pixel = 0;
  for (; pixel + 2 <= args->pixels; pixel += 2) {
    if (steps == 1)
      s8_pixels(args, pixel, 2, 1);
    else
      s8_pixels(args, pixel, 2, steps);
  }
  if (pixel < args->pixels) s8_pixels(args, pixel, 1, steps);
}

static inline __attribute__((always_inline)) void s16_pixels(const kb_gemm_args* args, int pixel,
                                                             const int pixels) {
  const uint8_t* x = args->inputs + (size_t)pixel * args->stride;
  const int16_t* w = args->weights;
  v total[2][KB_TILE];
  for (int p = 0; p < pixels; p++)
    for (int r = 0; r < KB_TILE; r++) total[p][r] = _mm256_setzero_si256();
  for (int chunk = 0; chunk < args->chunks; chunk++, x += KB_CHUNK, w += KB_TILE * KB_CHUNK) {
    for (int half = 0; half < 2; half++) {
      v input[2];
      for (int p = 0; p < pixels; p++) {
        const void* bytes = x + (size_t)p * args->stride + 16 * half;
        input[p] = _mm256_cvtepu8_epi16(_mm_loadu_si128(bytes));
      }
      for (int r = 0; r < KB_TILE; r++) {
        v weight = load(w + r * KB_CHUNK + 16 * half);
        for (int p = 0; p < pixels; p++)
          total[p][r] = _mm256_add_epi32(total[p][r], _mm256_madd_epi16(input[p], weight));
      }
    }
  }
  for (int p = 0; p < pixels; p++) store_sums(args, pixel + p, total[p]);
}

void kb_gemm_s16_avx2(const kb_gemm_args* args) {
  int pixel = 0;
  for (; pixel + 2 <= args->pixels; pixel += 2) s16_pixels(args, pixel, 2);
  if (pixel < args->pixels) s16_pixels(args, pixel, 1);
}

static inline __attribute__((always_inline)) void f32_pixels(const kb_gemm_args* args, int pixel,
                                                             const int pixels) {
  const uint8_t* x = args->inputs + (size_t)pixel * args->stride;
  const float* w = args->weights;
  __m256 total[4];
  for (int p = 0; p < pixels; p++) total[p] = _mm256_setzero_ps();
  for (int k = 0; k < args->chunks; k++, w += KB_TILE_F32) {
    __m256 weight = _mm256_loadu_ps(w);
    for (int p = 0; p < pixels; p++) {
      const float* input = (const void*)(x + (size_t)p * args->stride);
      total[p] = _mm256_add_ps(total[p], _mm256_mul_ps(weight, _mm256_set1_ps(input[k])));
    }
  }
  for (int p = 0; p < pixels; p++)
    _mm256_storeu_ps((float*)args->sums + (size_t)(pixel + p) * KB_TILE_F32, total[p]);
}

void kb_gemm_f32_avx2(const kb_gemm_args* args) {
  int pixel = 0;
  for (; pixel + 4 <= args->pixels; pixel += 4) f32_pixels(args, pixel, 4);
  for (; pixel < args->pixels; pixel++) f32_pixels(args, pixel, 1);
}
#endif
