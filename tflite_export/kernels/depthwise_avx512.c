/* Depthwise kernels with AVX-512 VNNI: four taps, 32 channels at a time, int32 sums.
 *
 * The bytes of four taps are interleaved in two steps, and vpdpbusd multiplies and adds: 12
 * instructions for 128 products. Vectors have 256 bits, as the digits' order wants; wider ones
 * would not be faster where each takes two turns, as on Zen 4. */
#include "depthwise.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define KB_INLINE static inline __attribute__((always_inline))

/* One block of channels: what is the same for all pixels. */
typedef struct {
  const uint8_t* pixel;
  const int8_t* weights;
  const ptrdiff_t* taps;
  size_t step;
  int tap_count;
} block;

KB_INLINE __m256i load(const void* from) { return _mm256_loadu_si256(from); }

/* Taps behind the last have weights of 0: any byte will do. */
KB_INLINE ptrdiff_t tap_at(const block* b, int tap) {
  return b->taps[tap < b->tap_count ? tap : b->tap_count - 1];
}

KB_INLINE void add_group(const block* b, const uint8_t* pixel, int group, __m256i sums[4]) {
  const __m256i s = load(pixel + tap_at(b, 4 * group)), t = load(pixel + tap_at(b, 4 * group + 1));
  const __m256i u = load(pixel + tap_at(b, 4 * group + 2));
  const __m256i v = load(pixel + tap_at(b, 4 * group + 3));
  const __m256i st[2] = {_mm256_unpacklo_epi8(s, t), _mm256_unpackhi_epi8(s, t)};
  const __m256i uv[2] = {_mm256_unpacklo_epi8(u, v), _mm256_unpackhi_epi8(u, v)};
  const int8_t* weights = b->weights + (size_t)group * 4 * KB_DW_BLOCK;
  for (int part = 0; part < 4; part++) {
    const __m256i x = part % 2 ? _mm256_unpackhi_epi16(st[part / 2], uv[part / 2])
                               : _mm256_unpacklo_epi16(st[part / 2], uv[part / 2]);
    sums[part] = _mm256_dpbusd_epi32(sums[part], x, load(weights + 32 * part));
  }
}

/* Part h holds channels 4 h to 4 h + 3 and 16 + 4 h to 16 + 4 h + 3. */
KB_INLINE void put(const __m256i sums[4], int32_t* to) {
  for (int i = 0; i < 4; i += 2) {
    const __m256i first = _mm256_permute2x128_si256(sums[i], sums[i + 1], 0x20);
    const __m256i second = _mm256_permute2x128_si256(sums[i], sums[i + 1], 0x31);
    _mm256_storeu_si256((__m256i*)(void*)(to + 4 * i), first);
    _mm256_storeu_si256((__m256i*)(void*)(to + 16 + 4 * i), second);
  }
}

/* Two pixels at a time, so that weights are loaded once for both. */
KB_INLINE void take_pixels(const block* b, int count, int groups, int32_t* to, size_t to_step) {
  const uint8_t* pixel = b->pixel;
  for (int p = 0; p < count; p += 2, pixel += 2 * b->step, to += 2 * to_step) {
    const int two = p + 1 < count;
    __m256i sums[2][4] = {0};
    for (int group = 0; group < groups; group++) {
      add_group(b, pixel, group, sums[0]);
      if (two) add_group(b, pixel + b->step, group, sums[1]);
    }
    put(sums[0], to);
    if (two) put(sums[1], to + to_step);
  }
}

/* Kernels of 3 x 3 get code of their own, whose loops the compiler unrolls. */
static void take_block(const block* b, int count, int32_t* to, size_t to_step) {
  if (b->tap_count == 9) {
    block nine = *b;
    nine.tap_count = 9;
    take_pixels(&nine, count, 3, to, to_step);
  } else {
    take_pixels(b, count, (b->tap_count + 3) / 4, to, to_step);
  }
}

/* A layer of less than one block: whole blocks beside, of which the first channels are kept. */
static void narrow(const kb_depthwise_args* args, const block* b) {
  enum { kSome = 16 };
  int32_t sums[kSome * KB_DW_BLOCK];
  const size_t channels = (size_t)args->channels;
  block some = *b;
  for (int p = 0; p < args->count; p += kSome, some.pixel += kSome * some.step) {
    const int count = args->count - p < kSome ? args->count - p : kSome;
    take_block(&some, count, sums, KB_DW_BLOCK);
    for (int i = 0; i < count; i++)
      memcpy(args->sums + (size_t)(p + i) * channels, sums + i * KB_DW_BLOCK, channels * 4);
  }
}

/* int16 weights of any size, 16 channels at a time. */
static void words(const kb_depthwise_args* args, int first, int end) {
  const size_t channels = (size_t)args->channels;
  for (int p = 0; p < args->count; p++) {
    const uint8_t* pixel = args->pixel + (size_t)p * args->pixel_step;
    int32_t* to = args->sums + (size_t)p * channels;
    for (int c = first; c < end; c += 16) {
      const __mmask16 mask = (__mmask16)(end - c < 16 ? (1u << (end - c)) - 1 : 0xffff);
      __m512i sums = _mm512_setzero_si512();
      for (int tap = 0; tap < args->tap_count; tap++) {
        const __m128i bytes = _mm_maskz_loadu_epi8(mask, pixel + args->taps[tap] + c);
        const int16_t* at = args->weights + (size_t)tap * channels + (size_t)c;
        /* The upper halves of x are 0, so that vpmaddwd is a product of 32 bits. */
        const __m512i x = _mm512_cvtepu8_epi32(bytes);
        const __m512i w = _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, at));
        sums = _mm512_add_epi32(sums, _mm512_madd_epi16(x, w));
      }
      _mm512_mask_storeu_epi32(to + c, mask, sums);
    }
  }
}

void kb_depthwise_avx512(const kb_depthwise_args* args) {
  const kb_depthwise_digits* digits = args->digits;
  const int channels = args->channels;
  if (!digits || digits->together != 4) {
    words(args, 0, channels);
    return;
  }
  const size_t digit = kb_depthwise_bytes(4, args->tap_count);
  for (int i = 0; i < kb_depthwise_blocks(channels); i++) {
    const int first = kb_depthwise_first(channels, i);
    const int8_t* low = digits->bytes + (size_t)i * 2 * digit + digit;
    const block b = {args->pixel + first, low, args->taps, args->pixel_step, args->tap_count};
    if (!digits->counts[i])
      words(args, first, channels < first + KB_DW_BLOCK ? channels : first + KB_DW_BLOCK);
    else if (channels < KB_DW_BLOCK)
      narrow(args, &b);
    else
      take_block(&b, args->count, args->sums + first, (size_t)channels);
  }
}
#endif
