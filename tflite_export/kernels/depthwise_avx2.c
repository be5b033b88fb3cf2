/* Depthwise kernels with AVX2: pairs of taps, 32 channels at a time.
 *
 * The bytes of two taps are interleaved and multiplied with pairs of int8 digits. For 64 products,
 * one digit takes 2 unpacks, 2 multiplications and 2 additions, a second one 4 more; int16 weights
 * with vpmaddwd take 16 in all, and those that are as large take 20 here. */
#include "depthwise.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define KB_INLINE static inline __attribute__((always_inline))

/* One block of channels: what is the same for all pixels. */
typedef struct {
  const uint8_t* pixel;
  const int8_t *high, *low;
  const ptrdiff_t* taps;
  size_t step;
  int tap_count;
} block;

/* int16 sums of a pixel; [half] as the digits lie. */
typedef struct {
  __m256i high[2], low[2];
} sums16;

KB_INLINE __m256i load(const void* from) { return _mm256_loadu_si256(from); }

KB_INLINE void add_pair(const block* b, const uint8_t* pixel, int pair, int digits, sums16* sums) {
  const int second = 2 * pair + 1 < b->tap_count ? 2 * pair + 1 : 2 * pair; /* or weights of 0 */
  const __m256i x = load(pixel + b->taps[2 * pair]), y = load(pixel + b->taps[second]);
  const __m256i both[2] = {_mm256_unpacklo_epi8(x, y), _mm256_unpackhi_epi8(x, y)};
  for (int half = 0; half < 2; half++) {
    const size_t at = (size_t)(2 * pair + half) * 32;
    const __m256i low = _mm256_maddubs_epi16(both[half], load(b->low + at));
    sums->low[half] = _mm256_add_epi16(sums->low[half], low);
    if (digits == 1) continue;
    const __m256i high = _mm256_maddubs_epi16(both[half], load(b->high + at));
    sums->high[half] = _mm256_add_epi16(sums->high[half], high);
  }
}

KB_INLINE void put(int32_t* to, __m256i sums, int add) {
  if (add) sums = _mm256_add_epi32(sums, load(to));
  _mm256_storeu_si256((__m256i*)(void*)to, sums);
}

/* 16 * high + low of a half, to int32: its lanes belong 16 channels apart. */
KB_INLINE void widen_half(const sums16* sums, int half, int digits, int add, int32_t* to) {
  const __m256i low = sums->low[half], high = sums->high[half];
  __m256i first, second; /* 8 channels each */
  if (digits == 1) {
    first = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(low));
    second = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(low, 1));
  } else {
    const __m256i scale = _mm256_set1_epi32(16 << 16 | 1);
    const __m256i a = _mm256_madd_epi16(_mm256_unpacklo_epi16(low, high), scale);
    const __m256i c = _mm256_madd_epi16(_mm256_unpackhi_epi16(low, high), scale);
    first = _mm256_permute2x128_si256(a, c, 0x20);
    second = _mm256_permute2x128_si256(a, c, 0x31);
  }
  put(to + 8 * half, first, add);
  put(to + 16 + 8 * half, second, add);
}

/* Some pairs of taps of one or two pixels. */
KB_INLINE void take_pairs(const block* b, const uint8_t* pixel, int first, int pairs, int digits,
                          int two, int32_t* to, size_t to_step) {
  sums16 sums[2] = {0};
  for (int pair = first; pair < first + pairs; pair++) {
    add_pair(b, pixel, pair, digits, &sums[0]);
    if (two) add_pair(b, pixel + b->step, pair, digits, &sums[1]);
  }
  for (int half = 0; half < 2; half++) {
    widen_half(&sums[0], half, digits, first > 0, to);
    if (two) widen_half(&sums[1], half, digits, first > 0, to + to_step);
  }
}

/* Two digits add up KB_DW_SPAN pairs at a time; one digit fits int16 whatever their number. */
KB_INLINE void take_taps(const block* b, const uint8_t* pixel, int pairs, int digits, int two,
                         int32_t* to, size_t to_step) {
  const int span = digits == 1 ? pairs : KB_DW_SPAN;
  for (int first = 0; first < pairs; first += span)
    take_pairs(b, pixel, first, pairs - first < span ? pairs - first : span, digits, two, to,
               to_step);
}

/* Two pixels of two digits at once would need more registers than there are. */
KB_INLINE void take_pixels(const block* b, int count, int pairs, int digits, int32_t* to,
                           size_t to_step) {
  const uint8_t* pixel = b->pixel;
  int p = 0;
  for (; digits == 1 && p + 2 <= count; p += 2, pixel += 2 * b->step, to += 2 * to_step)
    take_taps(b, pixel, pairs, digits, 1, to, to_step);
  for (; p < count; p++, pixel += b->step, to += to_step)
    take_taps(b, pixel, pairs, digits, 0, to, to_step);
}

/* Kernels of 3 x 3 get code of their own, whose loops the compiler unrolls. */
static void take_digits(const block* b, int count, int digits, int32_t* to, size_t to_step) {
  const int pairs = b->tap_count / 2 + b->tap_count % 2;
  if (b->tap_count == 9) {
    block nine = *b;
    nine.tap_count = 9;
    if (digits == 1)
      take_pixels(&nine, count, 5, 1, to, to_step);
    else
      take_pixels(&nine, count, 5, 2, to, to_step);
  } else if (digits == 1) {
    take_pixels(b, count, pairs, 1, to, to_step);
  } else {
    take_pixels(b, count, pairs, 2, to, to_step);
  }
}

/* int16 weights of any size: sums[c] for 16 channels. */
KB_INLINE void take_words(const uint8_t* pixel, const ptrdiff_t* taps, int tap_count,
                          const int16_t* weights, size_t channels, int32_t* to) {
  __m256i low = _mm256_setzero_si256(), high = low; /* channels 0-3, 8-11 and 4-7, 12-15 */
  for (int tap = 0; tap < tap_count; tap += 2) {
    const int more = tap + 1 < tap_count;
    const __m128i bytes = _mm_loadu_si128((const void*)(pixel + taps[tap]));
    const __m128i next = _mm_loadu_si128((const void*)(pixel + taps[tap + more]));
    const __m256i x = _mm256_cvtepu8_epi16(bytes), y = _mm256_cvtepu8_epi16(next);
    const int16_t* at = weights + (size_t)tap * channels;
    const __m256i v = load(at), w = more ? load(at + channels) : _mm256_setzero_si256();
    low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(x, y),
                                                  _mm256_unpacklo_epi16(v, w)));
    high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(x, y),
                                                    _mm256_unpackhi_epi16(v, w)));
  }
  put(to, _mm256_permute2x128_si256(low, high, 0x20), 0);
  put(to + 8, _mm256_permute2x128_si256(low, high, 0x31), 0);
}

static void words(const kb_depthwise_args* args, int first, int end) {
  const size_t channels = (size_t)args->channels;
  for (int p = 0; p < args->count; p++) {
    const uint8_t* pixel = args->pixel + (size_t)p * args->pixel_step;
    int32_t* to = args->sums + (size_t)p * channels;
    int c = first;
    for (; c + 16 <= end; c += 16)
      take_words(pixel + c, args->taps, args->tap_count, args->weights + c, channels, to + c);
    if (c < end && end >= 16) { /* what overlaps is computed again */
      c = end - 16;
      take_words(pixel + c, args->taps, args->tap_count, args->weights + c, channels, to + c);
      continue;
    }
    for (; c < end; c++) {
      to[c] = 0;
      for (int tap = 0; tap < args->tap_count; tap++)
        to[c] += args->weights[(size_t)tap * channels + (size_t)c] * pixel[args->taps[tap] + c];
    }
  }
}

/* A layer of less than one block: whole blocks beside, of which the first channels are kept. */
static void narrow(const kb_depthwise_args* args, const block* b, int digits) {
  enum { kSome = 16 };
  int32_t sums[kSome * KB_DW_BLOCK];
  const size_t channels = (size_t)args->channels;
  block some = *b;
  for (int p = 0; p < args->count; p += kSome, some.pixel += kSome * some.step) {
    const int count = args->count - p < kSome ? args->count - p : kSome;
    take_digits(&some, count, digits, sums, KB_DW_BLOCK);
    for (int i = 0; i < count; i++)
      memcpy(args->sums + (size_t)(p + i) * channels, sums + i * KB_DW_BLOCK, channels * 4);
  }
}

void kb_depthwise_avx2(const kb_depthwise_args* args) {
  const kb_depthwise_digits* digits = args->digits;
  const int channels = args->channels;
  if (!digits || digits->together != 2) {
    words(args, 0, channels);
    return;
  }
  const size_t digit = kb_depthwise_bytes(2, args->tap_count);
  for (int i = 0; i < kb_depthwise_blocks(channels); i++) {
    const int first = kb_depthwise_first(channels, i), count = digits->counts[i];
    const int8_t* high = digits->bytes + (size_t)i * 2 * digit;
    const block b = {args->pixel + first, high,            high + digit,
                     args->taps,          args->pixel_step, args->tap_count};
    if (!count)
      words(args, first, channels < first + KB_DW_BLOCK ? channels : first + KB_DW_BLOCK);
    else if (channels < KB_DW_BLOCK)
      narrow(args, &b, count);
    else
      take_digits(&b, args->count, count, args->sums + first, (size_t)channels);
  }
}
#endif
