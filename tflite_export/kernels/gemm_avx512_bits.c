/* Bits times bits for AVX-512 with VPOPCNTDQ. A vector holds one word, 64 channels, of each of
 * eight rows; a tile is four of them. Zen 4 does two of these operations a cycle.
 *
 * Plainly, a word costs three operations for eight rows: and, count, add. Two words at once cost
 * four. Let A1 = ~(x1 ^ w1), A2 = ~(x2 ^ w2) be where inputs and weights agree, d = x1 ^ x2 and
 * e = w1 ^ w2. A full adder of A1, A2 and d has the sum bit A1 ^ A2 ^ d = e, which belongs to the
 * weights alone, so only its carry F has to be counted: |A1| + |A2| + |d| = 2 |F| + |e|. Since
 * 2 |x & w| = |A| - 64 + |x| + |w| for a word, and |x1| + |x2| - |d| = 2 |x1 & x2|,
 *     |x1 & w1| + |x2 & w2| = |F| + |x1 & x2| + |w1 | w2| - 64
 * F = (d ^ e) ? d : A1 is one ternary operation on x1 ^ w1, d and e. The integer units count
 * x1 & x2 meanwhile, and the rest, like e, is found once for all pixels of a call. */
#if defined(__x86_64__)
#include "avx512.h"

typedef __m512i v;

enum {
  kVectors = 4,
  kRows = 8 * kVectors,
  kRowBytes = 8 * kRows, /* of one word of a tile */
  kPixels = 4,    /* at a time: 16 vectors of sums, 8 of weights, some of inputs */
  kPairs = 48,    /* of words in a panel: 24 KB, which leaves room for inputs in the first cache */
  kFewPixels = 8, /* too few for a panel to be worth its making */
  kFewWords = 2,
  kCarry = 0x4d   /* (d ^ e) ? d : ~a, a being the first operand */
};

/* Some words of a tile, made ready for all pixels of a call. */
typedef struct {
  v weights[kPairs][2][kVectors]; /* w1, e */
  v start[kVectors];              /* sum of |w1 | w2| - 64 */
  ptrdiff_t offsets[kPairs][2];   /* of x1, x2 in the windows */
  int pairs, odd;                 /* odd: a last word without another */
  int add;                        /* to what sums hold already */
} panel;

KB_INLINE v load(const void* p) { return _mm512_loadu_si512(p); }

static void set_offsets(panel* panel, const kb_gemm_args* args, int first, int words) {
  for (int i = 0; i < words; i++) {
    int tap = (first + i) / args->units, unit = (first + i) % args->units;
    panel->offsets[i / 2][i % 2] = args->taps[tap] + 8 * (ptrdiff_t)unit;
  }
}

/* A panel of `words` words from the word `first` on. */
static void make_panel(panel* panel, const kb_gemm_args* args, int first, int words,
                       int vectors) {
  const uint8_t* weights = (const uint8_t*)args->weights + (size_t)first * kRowBytes;
  panel->add = first > 0;
  panel->pairs = words / 2;
  panel->odd = words % 2;
  set_offsets(panel, args, first, words);
  for (int k = 0; k < vectors; k++, weights += 64) {
    v start = _mm512_set1_epi64(-64 * (long long)panel->pairs);
    const uint8_t* word = weights;
    for (int i = 0; i < panel->pairs; i++, word += 2 * kRowBytes) {
      v w1 = load(word), w2 = load(word + kRowBytes);
      panel->weights[i][0][k] = w1;
      panel->weights[i][1][k] = _mm512_xor_si512(w1, w2);
      start = _mm512_add_epi64(start, _mm512_popcnt_epi64(_mm512_or_si512(w1, w2)));
    }
    if (panel->odd) panel->weights[panel->pairs][0][k] = load(word);
    panel->start[k] = start;
  }
}

/* Sums of one pixel as int32, to which `more` is added. */
KB_INLINE void store_sums(const v* total, const int vectors, v more, int32_t* sums, int add) {
  const v low_halves = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  KB_UNROLL
  for (int k = 0; k < vectors; k += 2, sums += 16) {
    v sum = _mm512_permutex2var_epi32(total[k], low_halves, total[k + 1]);
    sum = _mm512_add_epi32(sum, more);
    if (add) sum = _mm512_add_epi32(sum, load(sums));
    _mm512_storeu_si512(sums, sum);
  }
}

KB_INLINE void add_pair(v* total, const int vectors, const uint8_t* x1, const uint8_t* x2,
                        const v* w, const v* e) {
  v x = kb_spread_word(x1), d = kb_xor_word(x, x2);
  KB_UNROLL
  for (int k = 0; k < vectors; k++) {
    v carry = _mm512_ternarylogic_epi64(_mm512_xor_si512(x, w[k]), d, e[k], kCarry);
    total[k] = _mm512_add_epi64(total[k], _mm512_popcnt_epi64(carry));
  }
}

KB_INLINE void add_word(v* total, const int vectors, const uint8_t* word, const v* w) {
  v x = kb_spread_word(word);
  KB_UNROLL
  for (int k = 0; k < vectors; k++) {
    v both = _mm512_and_si512(x, load(w + k));
    total[k] = _mm512_add_epi64(total[k], _mm512_popcnt_epi64(both));
  }
}

KB_INLINE void panel_pixels(const panel* panel, const int vectors, const uint8_t* const* pixels,
                            const int count, int32_t* sums) {
  v total[kPixels][kVectors];
  const uint8_t* x[kPixels];
  uint64_t both[kPixels];
  KB_UNROLL
  for (int p = 0; p < count; p++) {
    x[p] = pixels[p];
    both[p] = 0;
    KB_UNROLL
    for (int k = 0; k < vectors; k++) total[p][k] = panel->start[k];
  }
  for (int i = 0; i < panel->pairs; i++) {
    const ptrdiff_t at1 = panel->offsets[i][0], at2 = panel->offsets[i][1];
    v w[kVectors], e[kVectors];
    KB_UNROLL
    for (int k = 0; k < vectors; k++) {
      w[k] = panel->weights[i][0][k];
      e[k] = panel->weights[i][1][k];
      KB_KEEP(w[k]);
      KB_KEEP(e[k]);
    }
    KB_UNROLL
    for (int p = 0; p < count; p++) {
      add_pair(total[p], vectors, x[p] + at1, x[p] + at2, w, e);
      uint64_t in_both = kb_load_word(x[p] + at1) & kb_load_word(x[p] + at2);
      both[p] += (uint64_t)__builtin_popcountll(in_both);
    }
  }
  KB_UNROLL
  for (int p = 0; p < count; p++) {
    if (panel->odd)
      add_word(total[p], vectors, x[p] + panel->offsets[panel->pairs][0],
               panel->weights[panel->pairs][0]);
    store_sums(total[p], vectors, _mm512_set1_epi32((int)both[p]), sums + p * kRows, panel->add);
  }
}

/* All pixels, with one panel after the other, cut as evenly as pairs allow. */
KB_INLINE void multiply_panels(const kb_gemm_args* args, int words, const int vectors) {
  panel panel;
  const int panels = (words + 2 * kPairs - 1) / (2 * kPairs);
  const int most = (words + 2 * panels - 1) / (2 * panels) * 2;
  for (int first = 0; first < words; first += most) {
    make_panel(&panel, args, first, words - first < most ? words - first : most, vectors);
    int32_t* sums = args->sums;
    int pixel = 0;
    for (; pixel + kPixels <= args->count; pixel += kPixels)
      panel_pixels(&panel, vectors, args->pixels + pixel, kPixels, sums + pixel * kRows);
    for (; pixel < args->count; pixel++)
      panel_pixels(&panel, vectors, args->pixels + pixel, 1, sums + pixel * kRows);
  }
}

KB_INLINE void plain_pixels(const kb_gemm_args* args, int pixel, const int count,
                            const int vectors) {
  const uint8_t* word = args->weights;
  v total[kPixels][kVectors];
  KB_UNROLL
  for (int p = 0; p < count; p++) {
    KB_UNROLL
    for (int k = 0; k < vectors; k++) total[p][k] = _mm512_setzero_si512();
  }
  for (int tap = 0; tap < args->tap_count; tap++) {
    for (int unit = 0; unit < args->units; unit++, word += kRowBytes) {
      const ptrdiff_t at = args->taps[tap] + 8 * (ptrdiff_t)unit;
      KB_UNROLL
      for (int p = 0; p < count; p++)
        add_word(total[p], vectors, args->pixels[pixel + p] + at, (const v*)(const void*)word);
    }
  }
  KB_UNROLL
  for (int p = 0; p < count; p++)
    store_sums(total[p], vectors, _mm512_setzero_si512(),
               (int32_t*)args->sums + (pixel + p) * kRows, 0);
}

KB_INLINE void multiply(const kb_gemm_args* args, const int vectors) {
  const int words = args->tap_count * args->units;
  int pixel = 0;
  if (args->count >= kFewPixels && words > kFewWords) {
    multiply_panels(args, words, vectors);
    return;
  }
  for (; pixel + kPixels <= args->count; pixel += kPixels)
    plain_pixels(args, pixel, kPixels, vectors);
  for (; pixel < args->count; pixel++) plain_pixels(args, pixel, 1, vectors);
}

void kb_gemm_bits_avx512(const kb_gemm_args* args) {
  if (args->used <= kRows / 2)
    multiply(args, kVectors / 2);
  else
    multiply(args, kVectors);
}
#endif
