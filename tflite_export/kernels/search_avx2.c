/* Levels with borders of their own, by a search for eight numbers at a time.
 *
 * The first eight borders, of which three comparisons need seven, are in one register and the next
 * eight in another, and a permutation picks each number's own. So four comparisons, enough for 16
 * levels, are 14 operations for 8 numbers, where a comparison with each of 15 borders and a count
 * are 30. Beyond that borders are gathered from memory, at about a cycle for a number. */
#if defined(__x86_64__)
#include "avx2.h"

enum { kSome = 32, kInRegisters = 4 };

typedef struct {
  __m256 root, first, second; /* borders 1, 0 to 7, 8 to 15 */
} nodes;

/* Eight places in the search, after four comparisons: 16 to 31. */
KB_INLINE __m256i descend(const nodes* n, __m256 x) {
  __m256i at = _mm256_sub_epi32(_mm256_set1_epi32(2),
                                _mm256_castps_si256(_mm256_cmp_ps(x, n->root, _CMP_GE_OQ)));
  KB_UNROLL for (int d = 1; d < kInRegisters; d++) {
    const __m256 border = _mm256_permutevar8x32_ps(d < 3 ? n->first : n->second, at);
    const __m256 reached = _mm256_cmp_ps(x, border, _CMP_GE_OQ);
    at = _mm256_sub_epi32(_mm256_add_epi32(at, at), _mm256_castps_si256(reached));
  }
  return at;
}

KB_INLINE __m256i descend_further(const kb_steps* steps, __m256 x, __m256i at) {
  for (int d = kInRegisters; d < steps->depth; d++) {
    const __m256 border = _mm256_i32gather_ps(steps->borders, at, 4);
    const __m256 reached = _mm256_cmp_ps(x, border, _CMP_GE_OQ);
    at = _mm256_sub_epi32(_mm256_add_epi32(at, at), _mm256_castps_si256(reached));
  }
  return _mm256_sub_epi32(at, _mm256_set1_epi32(1 << steps->depth));
}

/* 32 small numbers to bytes. Packing works within halves of vectors; the permutation puts the fours
 * in order. */
KB_INLINE __m256i to_bytes(const __m256i at[4]) {
  const __m256i first = _mm256_packs_epi32(at[0], at[1]), second = _mm256_packs_epi32(at[2], at[3]);
  return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(first, second),
                                     _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* The low four bits of a place are the level's number. */
KB_INLINE void few_levels(const nodes* n, __m256i table, const float* x, uint8_t* levels) {
  __m256i at[4];
  KB_UNROLL for (int i = 0; i < 4; i++) at[i] = descend(n, _mm256_loadu_ps(x + 8 * i));
  kb_store(levels, _mm256_shuffle_epi8(table, to_bytes(at)));
}

KB_INLINE void many_levels(const kb_steps* steps, const nodes* n, const float* x, uint8_t* levels) {
  __m256i at[4];
  uint8_t numbers[kSome];
  KB_UNROLL for (int i = 0; i < 4; i++) {
    const __m256 eight = _mm256_loadu_ps(x + 8 * i);
    at[i] = descend_further(steps, eight, descend(n, eight));
  }
  kb_store(numbers, to_bytes(at));
  for (int i = 0; i < kSome; i++) levels[i] = steps->levels[numbers[i]];
}

void kb_search_avx2(const kb_steps* steps, const float* x, size_t count, uint8_t* levels) {
  const nodes n = {_mm256_set1_ps(steps->borders[1]), _mm256_loadu_ps(steps->borders),
                   _mm256_loadu_ps(steps->borders + 8)};
  const __m256i table =
      _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)(const void*)steps->levels));
  const int few = steps->depth == kInRegisters;
  for (; few && count >= kSome; count -= kSome, x += kSome, levels += kSome)
    few_levels(&n, table, x, levels);
  for (; count >= kSome; count -= kSome, x += kSome, levels += kSome)
    many_levels(steps, &n, x, levels);
  if (!count) return;
  float rest[kSome] = {0};
  uint8_t last[kSome];
  memcpy(rest, x, count * sizeof *rest);
  if (few)
    few_levels(&n, table, rest, last);
  else
    many_levels(steps, &n, rest, last);
  memcpy(levels, last, count);
}
#endif
