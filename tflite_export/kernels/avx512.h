/* What the files for AVX-512 share. Included by them only: nothing here may run before the
 * dispatcher has asked the processor. */
#ifndef KERASBITS_AVX512_H
#define KERASBITS_AVX512_H

#include <immintrin.h>

#include "kernels.h"

/* The short loops over the vectors and pixels of a tile must vanish, so that a tile stays in
 * registers. (Where each access is checked nothing does, and clang takes minutes over it.) */
#if defined(__clang__)
#if __has_feature(address_sanitizer)
#define KB_UNROLL
#else
#define KB_UNROLL _Pragma("clang loop unroll(full)")
#endif
#else
#define KB_UNROLL _Pragma("GCC unroll 16")
#endif

#define KB_INLINE static inline __attribute__((always_inline))

/* Keeps a vector in a register where the compiler would load it again for each use. */
#define KB_KEEP(vector) __asm__("" : "+v"(vector))

/* Eight copies of a word, by the load unit alone: compilers go through a general register if they
 * need the word there, too, and that takes a slot of the vector units. */
KB_INLINE __m512i kb_spread_word(const uint8_t* word) {
  __m512i spread;
  __asm__("vpbroadcastq %1, %0" : "=v"(spread) : "m"(*(const uint8_t(*)[8])word));
  return spread;
}

KB_INLINE __m512i kb_xor_word(__m512i a, const uint8_t* word) {
  __m512i result;
  __asm__("vpxorq %2%{1to8%}, %1, %0" : "=v"(result) : "v"(a), "m"(*(const uint8_t(*)[8])word));
  return result;
}

KB_INLINE uint64_t kb_load_word(const uint8_t* word) {
  uint64_t value;
  memcpy(&value, word, sizeof value);
  return value;
}

#endif
