/* What one core does in registers, in MAC per cycle, for each idea of a kernel: tiles of channels,
 * inputs broadcast, all operands in the first cache, no packing and no finish: the roof above what the
 * library reaches with the same idea, as far as a compiler schedules it well.
 *
 *   ./roofline ROUNDS     a line for each idea: isa, name, quartiles of the MAC per cycle (tabs)
 *
 * The ideas take turns.
 * The sums are not looked at: an empty instruction takes them, so that the compiler keeps them.
 */
#include "cycles.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vpopcntdq")))
#define UNITS 64  /* steps along the inputs of an output */
#define REPEAT 64 /* tiles in a call */
#define KEEP(x) __asm__ volatile("" ::"v"(x) : "memory")

/* Not static, so that the compiler must take them for changed by KEEP. */
uint8_t weights[4 * UNITS * 64] __attribute__((aligned(64)));
uint8_t inputs[16 * UNITS * 8] __attribute__((aligned(64)));
uint8_t offsets[5 * UNITS]; /* of tables of 16 bytes */

static int64_t input64(int pixel, int k) {
  int64_t x;
  memcpy(&x, inputs + 8 * (pixel * UNITS + k), sizeof x);
  return x;
}

static int32_t input32(int pixel, int k) {
  int32_t x;
  memcpy(&x, inputs + 4 * (pixel * UNITS + k), sizeof x);
  return x;
}

#define W256(i) _mm256_load_si256((const __m256i*)weights + (i))
#define W512(i) _mm512_load_si512((const __m512i*)weights + (i))
#define EACH(i, n) for (int i = 0; i < (n); ++i)

AVX2 static inline __m256i table_of_counts(void) {
  return _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1,
                          2, 2, 3, 2, 3, 3, 4);
}

/* 1 x 1 bit. The inputs are split into nibbles beforehand, so that one shift of the weights serves
 * all pixels. A byte grows by 8 a step and is widened after 31 steps. */
AVX2 static double bits_nibbles(void) {
  const __m256i table = table_of_counts(), zero = _mm256_setzero_si256();
  EACH(r, REPEAT) {
    __m256i sums[4], wide[4] = {zero, zero, zero, zero};
    for (int k = 0, end; k < UNITS; k = end) {
      end = k + 31 < UNITS ? k + 31 : UNITS;
      EACH(p, 4) sums[p] = zero;
      for (int i = k; i < end; ++i) {
        const __m256i low = W256(i), high = _mm256_srli_epi16(low, 4);
        EACH(p, 4) {
          const __m256i a = _mm256_and_si256(low, _mm256_set1_epi64x(input64(p, i)));
          const __m256i b = _mm256_and_si256(high, _mm256_set1_epi64x(input64(4 + p, i)));
          sums[p] = _mm256_add_epi8(sums[p], _mm256_shuffle_epi8(table, a));
          sums[p] = _mm256_add_epi8(sums[p], _mm256_shuffle_epi8(table, b));
        }
      }
      EACH(p, 4) wide[p] = _mm256_add_epi64(wide[p], _mm256_sad_epu8(sums[p], zero));
    }
    EACH(p, 4) KEEP(wide[p]);
  }
  return REPEAT * 4.0 * UNITS * 256;
}

/* 1 x 1 bit on whole bytes: a shift and two masks for every pixel. */
AVX2 static double bits_xor(void) {
  const __m256i table = table_of_counts(), zero = _mm256_setzero_si256();
  const __m256i low = _mm256_set1_epi8(15);
  EACH(r, REPEAT) {
    __m256i sums[4], wide[4] = {zero, zero, zero, zero};
    for (int k = 0, end; k < UNITS; k = end) {
      end = k + 31 < UNITS ? k + 31 : UNITS;
      EACH(p, 4) sums[p] = zero;
      for (int i = k; i < end; ++i) {
        const __m256i w = W256(i);
        EACH(p, 4) {
          const __m256i x = _mm256_xor_si256(w, _mm256_set1_epi64x(input64(p, i)));
          const __m256i high = _mm256_and_si256(_mm256_srli_epi16(x, 4), low);
          const __m256i n = _mm256_shuffle_epi8(table, _mm256_and_si256(x, low));
          sums[p] = _mm256_add_epi8(sums[p], _mm256_add_epi8(n, _mm256_shuffle_epi8(table, high)));
        }
      }
      EACH(p, 4) wide[p] = _mm256_add_epi64(wide[p], _mm256_sad_epu8(sums[p], zero));
    }
    EACH(p, 4) KEEP(wide[p]);
  }
  return REPEAT * 4.0 * UNITS * 256;
}

/* 1 x 1 bit: four inputs choose one of 16 tables, which is looked up with the weights of 64 rows.
 * Sums of bytes, without widening them. */
AVX2 static double bits_tables(void) {
  static uint8_t tables[256] __attribute__((aligned(16)));
  EACH(r, REPEAT) {
    __m256i sums[5][2];
    EACH(i, 10) sums[i / 2][i % 2] = _mm256_setzero_si256();
    EACH(k, UNITS) {
      const __m256i w0 = W256(2 * k), w1 = W256(2 * k + 1);
      EACH(p, 5) {
        const uint8_t* chosen = tables + offsets[p * UNITS + k];
        const __m256i t = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i*)chosen));
        sums[p][0] = _mm256_add_epi8(sums[p][0], _mm256_shuffle_epi8(t, w0));
        sums[p][1] = _mm256_add_epi8(sums[p][1], _mm256_shuffle_epi8(t, w1));
      }
    }
    EACH(i, 10) KEEP(sums[i / 2][i % 2]);
  }
  return REPEAT * 10.0 * UNITS * 128;
}

/* Bytes: sums of two products in 16 bits, widened to 32 bits after `steps` steps. */
AVX2 static inline __attribute__((always_inline)) double bytes(const int steps) {
  const __m256i ones = _mm256_set1_epi16(1), zero = _mm256_setzero_si256();
  EACH(r, REPEAT) {
    __m256i wide[8];
    EACH(i, 8) wide[i] = zero;
    for (int k = 0; k < UNITS; k += steps) {
      __m256i sums[8];
      EACH(i, 8) sums[i] = zero;
      EACH(s, steps) {
        const __m256i w0 = W256(2 * (k + s)), w1 = W256(2 * (k + s) + 1);
        EACH(p, 4) {
          const __m256i x = _mm256_set1_epi32(input32(p, k + s));
          sums[2 * p] = _mm256_add_epi16(sums[2 * p], _mm256_maddubs_epi16(x, w0));
          sums[2 * p + 1] = _mm256_add_epi16(sums[2 * p + 1], _mm256_maddubs_epi16(x, w1));
        }
      }
      EACH(i, 8) wide[i] = _mm256_add_epi32(wide[i], _mm256_madd_epi16(sums[i], ones));
    }
    EACH(i, 8) KEEP(wide[i]);
  }
  return REPEAT * 8.0 * UNITS * 32;
}

AVX2 static double bytes_wide(void) { return bytes(1); }
AVX2 static double bytes_narrow(void) { return bytes(16); }

/* Bytes spread to 16 bits: exact for any numbers of 8 bits. */
AVX2 static double words(void) {
  EACH(r, REPEAT) {
    __m256i sums[8];
    EACH(i, 8) sums[i] = _mm256_setzero_si256();
    EACH(k, UNITS) {
      const __m256i w0 = W256(2 * k), w1 = W256(2 * k + 1);
      EACH(p, 4) {
        const __m256i x = _mm256_set1_epi32(input32(p, k));
        sums[2 * p] = _mm256_add_epi32(sums[2 * p], _mm256_madd_epi16(x, w0));
        sums[2 * p + 1] = _mm256_add_epi32(sums[2 * p + 1], _mm256_madd_epi16(x, w1));
      }
    }
    EACH(i, 8) KEEP(sums[i]);
  }
  return REPEAT * 8.0 * UNITS * 16;
}

AVX2 static double floats(void) {
  const float *w = (const float*)weights, *x = (const float*)inputs;
  EACH(r, REPEAT) {
    __m256 sums[12]; /* more than the latency of an addition times two a cycle */
    EACH(i, 12) sums[i] = _mm256_setzero_ps();
    EACH(k, UNITS) {
      const __m256 w0 = _mm256_load_ps(w + 16 * k), w1 = _mm256_load_ps(w + 16 * k + 8);
      EACH(p, 6) {
        const __m256 input = _mm256_broadcast_ss(x + p * UNITS + k);
        sums[2 * p] = _mm256_fmadd_ps(input, w0, sums[2 * p]);
        sums[2 * p + 1] = _mm256_fmadd_ps(input, w1, sums[2 * p + 1]);
      }
    }
    EACH(i, 12) KEEP(sums[i]);
  }
  return REPEAT * 12.0 * UNITS * 8;
}

AVX512 static double popcount(void) {
  EACH(r, REPEAT) {
    __m512i sums[8];
    EACH(p, 8) sums[p] = _mm512_setzero_si512();
    EACH(k, UNITS) {
      const __m512i w = W512(k);
      EACH(p, 8) {
        const __m512i x = _mm512_and_si512(w, _mm512_set1_epi64(input64(p, k)));
        sums[p] = _mm512_add_epi64(sums[p], _mm512_popcnt_epi64(x));
      }
    }
    EACH(p, 8) KEEP(sums[p]);
  }
  return REPEAT * 8.0 * UNITS * 512;
}

/* Two products are added to a vector of single bits; only the carries, worth 2 each, are counted.
 * 0x78 is a ^ (b & c), 0x5c is a ? ~c : b. */
AVX512 static double popcount_carries(void) {
  EACH(r, REPEAT) {
    __m512i sums[8], ones[8];
    EACH(p, 8) sums[p] = ones[p] = _mm512_setzero_si512();
    for (int k = 0; k < UNITS; k += 2) {
      const __m512i w0 = W512(k), w1 = W512(k + 1);
      EACH(p, 8) {
        const __m512i x0 = _mm512_set1_epi64(input64(p, k));
        const __m512i x1 = _mm512_set1_epi64(input64(p, k + 1));
        const __m512i half = _mm512_ternarylogic_epi64(ones[p], x0, w0, 0x78);
        const __m512i one = _mm512_ternarylogic_epi64(half, x1, w1, 0x78);
        const __m512i carries = _mm512_ternarylogic_epi64(half, ones[p], one, 0x5c);
        sums[p] = _mm512_add_epi64(sums[p], _mm512_popcnt_epi64(carries));
        ones[p] = one;
      }
    }
    EACH(p, 8) KEEP(sums[p]);
    EACH(p, 8) KEEP(ones[p]);
  }
  return REPEAT * 8.0 * UNITS * 512;
}

AVX512 static double dot_products(void) {
  EACH(r, REPEAT) {
    __m512i sums[16];
    EACH(i, 16) sums[i] = _mm512_setzero_si512();
    EACH(k, UNITS) {
      const __m512i w0 = W512(2 * k), w1 = W512(2 * k + 1);
      EACH(p, 8) {
        const __m512i x = _mm512_set1_epi32(input32(p, k));
        sums[2 * p] = _mm512_dpbusd_epi32(sums[2 * p], x, w0);
        sums[2 * p + 1] = _mm512_dpbusd_epi32(sums[2 * p + 1], x, w1);
      }
    }
    EACH(i, 16) KEEP(sums[i]);
  }
  return REPEAT * 16.0 * UNITS * 64;
}

static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

static int has_avx512(void) {
  return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") &&
         __builtin_cpu_supports("avx512vpopcntdq");
}

static const struct {
  const char *isa, *name;
  double (*run)(void);
  int (*here)(void);
} ideas[] = {
    {"avx2", "vpshufb of chosen tables", bits_tables, has_avx2},
    {"avx2", "and + vpshufb, nibbles", bits_nibbles, has_avx2},
    {"avx2", "xor + vpshufb", bits_xor, has_avx2},
    {"avx2", "vpmaddubsw, 16-bit sums", bytes_narrow, has_avx2},
    {"avx2", "vpmaddubsw + vpmaddwd", bytes_wide, has_avx2},
    {"avx2", "vpmaddwd", words, has_avx2},
    {"avx2", "vfmadd", floats, has_avx2},
    {"avx512", "vpandq + vpopcntq", popcount, has_avx512},
    {"avx512", "vpternlogq carry + vpopcntq", popcount_carries, has_avx512},
    {"avx512", "vpdpbusd", dot_products, has_avx512},
};
#define IDEAS (int)(sizeof ideas / sizeof *ideas)

static double run_idea(const void* idea) { return ideas[*(const int*)idea].run(); }

int main(int count, char** given) {
  static double found[IDEAS][MOST_ROUNDS];
  const int rounds = rounds_of(count, given);
  for (size_t i = 0; i < sizeof weights; ++i) weights[i] = (uint8_t)(i * 7 % 61);
  for (size_t i = 0; i < sizeof inputs; ++i) inputs[i] = (uint8_t)(i * 5 % 59);
  for (size_t i = 0; i < sizeof offsets; ++i) offsets[i] = (uint8_t)(i * 5 << 4);
  EACH(r, rounds) EACH(i, IDEAS) if (ideas[i].here()) found[i][r] = work_per_cycle(run_idea, &i);
  EACH(i, IDEAS) {
    if (ideas[i].here()) print_quartiles(ideas[i].isa, ideas[i].name, found[i], rounds);
  }
}
#else
/* Only x86-64 has been written: no lines. */
int main(void) { return 0; }
#endif
