/* What one core does in registers, in MAC per cycle, for each idea of a kernel: tiles of channels,
 * inputs broadcast, all operands in the first cache, no packing and no finish: the roof above what the
 * library reaches with the same idea, as far as a compiler schedules it well.
 *
 *   ./roofline ROUNDS     a line for each idea: isa, name, quartiles of the MAC per cycle (tabs)
 *
 * The ideas take turns. The clock is measured next to each by additions that wait for each other.
 * The sums are not looked at: an empty instruction takes them, so that the compiler keeps them.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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
#define ROUNDS 1000

static double now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Cycles a second. */
static double hertz(void) {
  const int count = 200000;
  uint64_t x = 0;
  const double start = now(CLOCK_MONOTONIC);
  for (int i = 0; i < count; i += 4)
    __asm__ volatile("add $1, %0\n\tadd $1, %0\n\tadd $1, %0\n\tadd $1, %0" : "+r"(x));
  return count / (now(CLOCK_MONOTONIC) - start);
}

/* Of a burst that had the core for itself; of the last one if none did. */
static double macs_per_cycle(double (*run)(void)) {
  double found = 0, seconds, share = 0;
  for (int tries = 0; tries < 8 && share < 0.95; ++tries) {
    double macs = 0;
    run();
    const double cpu = now(CLOCK_PROCESS_CPUTIME_ID), start = now(CLOCK_MONOTONIC);
    const double before = hertz(), begin = now(CLOCK_MONOTONIC);
    do {
      macs += run();
      seconds = now(CLOCK_MONOTONIC) - begin;
    } while (seconds < 1e-3);
    const double cycles = hertz();
    share = (now(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (now(CLOCK_MONOTONIC) - start);
    found = macs / seconds / (before > cycles ? before : cycles);
  }
  return found;
}

static int rising(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

int main(int count, char** words_given) {
  static double found[IDEAS][ROUNDS];
  int rounds = count > 1 ? atoi(words_given[1]) : 50;
  rounds = rounds < 1 ? 1 : rounds > ROUNDS ? ROUNDS : rounds;
  for (size_t i = 0; i < sizeof weights; ++i) weights[i] = (uint8_t)(i * 7 % 61);
  for (size_t i = 0; i < sizeof inputs; ++i) inputs[i] = (uint8_t)(i * 5 % 59);
  EACH(r, rounds) EACH(i, IDEAS) if (ideas[i].here()) found[i][r] = macs_per_cycle(ideas[i].run);
  EACH(i, IDEAS) {
    if (!ideas[i].here()) continue;
    qsort(found[i], (size_t)rounds, sizeof(double), rising);
    printf("%s\t%s\t%.2f\t%.2f\t%.2f\n", ideas[i].isa, ideas[i].name, found[i][rounds / 4],
           found[i][rounds / 2], found[i][3 * rounds / 4]);
  }
}
#else
/* Only x86-64 has been written: no lines. */
int main(void) { return 0; }
#endif
