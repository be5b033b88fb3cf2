/* What the files of AVX2 share. */
#ifndef KERASBITS_AVX2_H
#define KERASBITS_AVX2_H

#include <immintrin.h>

#include "kernels.h"

/* Functions of a constant number of pixels, units or vectors: once inlined, their loops unroll and
 * their arrays are registers. */
#define KB_INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define KB_UNROLL _Pragma("clang loop unroll(full)")
#else
#define KB_UNROLL _Pragma("GCC unroll 16")
#endif

/* Compilers interleave independent chains until the registers no longer suffice. This stands for
 * no instruction, but keeps a value in a register, and the chains in the order of the code. */
#define KB_IN_ORDER(value) __asm__ volatile("" : "+x"(value))

KB_INLINE __m256i kb_load(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }

KB_INLINE void kb_store(void* p, __m256i value) { _mm256_storeu_si256((__m256i*)p, value); }

/* Four bytes, over and over. */
KB_INLINE __m256i kb_broadcast(const uint8_t* p) {
  int32_t word;
  memcpy(&word, p, sizeof word);
  return _mm256_set1_epi32(word);
}

#endif
