/* Codes of weights for NEON: some units at a time become int8 weights in the nearest cache, which
 * the kernel for int8 takes. What comes from memory is the codes alone. */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernels.h"

enum {
  kRows = 8,
  kPixels = 4,
  kTile = kRows * 4, /* bytes of a unit, of codes as of int8 */
  kChunk = 64        /* units of int8 at a time: 2 KB */
};

/* A unit of codes becomes 32 / (bits of a code * 4) units of int8: byte b of a row has the codes of
 * channels b, 4 + b, ... from the lowest bits on. */
static void unpack_unit(const uint8_t* codes, int bits, int8x16_t levels, int8_t* weights) {
  const uint8x16_t mask = vdupq_n_u8((uint8_t)((1 << bits) - 1));
  for (int half = 0; half < kTile; half += 16) {
    const uint8x16_t packed = vld1q_u8(codes + half);
    for (int unit = 0; unit < 8 / bits; unit++) {
      const uint8x16_t shifted = vshlq_u8(packed, vdupq_n_s8((int8_t)(-unit * bits)));
      vst1q_s8(weights + unit * kTile + half, vqtbl1q_s8(levels, vandq_u8(shifted, mask)));
    }
  }
}

static void add_sums(const int32_t* part, int count, int32_t* sums) {
  for (int i = 0; i < count; i += 4)
    vst1q_s32(sums + i, vaddq_s32(vld1q_s32(sums + i), vld1q_s32(part + i)));
}

/* Units [first, first + units) of a tap, whose codes are at w. */
static inline void add_chunk(const kb_gemm_args* args, int tap, int first, int units,
                             const uint8_t* w, int bits, int8x16_t levels) {
  const int more = 8 / bits; /* units of int8 of one unit of codes */
  int8_t weights[kChunk * kTile];
  for (int unit = 0; unit < units; unit++)
    unpack_unit(w + (size_t)unit * kTile, bits, levels, weights + unit * more * kTile);
  const ptrdiff_t offset = args->taps[tap] + (ptrdiff_t)first * more * 4;
  for (int pixel = 0; pixel < args->count; pixel += kPixels) {
    int32_t part[kPixels * kRows];
    const int count = args->count - pixel < kPixels ? args->count - pixel : kPixels;
    kb_gemm_args s8 = *args;
    s8.pixels = args->pixels + pixel;
    s8.taps = &offset;
    s8.weights = weights;
    s8.sums = part;
    s8.count = count;
    s8.tap_count = 1;
    s8.units = units * more;
    kb_gemm_s8_neon(&s8);
    add_sums(part, count * kRows, (int32_t*)args->sums + (size_t)pixel * kRows);
  }
}

static inline __attribute__((always_inline)) void packed(const kb_gemm_args* args, const int bits) {
  const int chunk = kChunk * bits / 8;
  const uint8_t* w = args->weights;
  int8_t levels[16] = {0};
  memcpy(levels, args->levels, (size_t)1 << bits);
  const int8x16_t table = vld1q_s8(levels);
  memset(args->sums, 0, (size_t)args->count * kRows * sizeof(int32_t));
  for (int tap = 0; tap < args->tap_count; tap++) {
    for (int first = 0; first < args->units; first += chunk) {
      const int units = args->units - first < chunk ? args->units - first : chunk;
      add_chunk(args, tap, first, units, w, bits, table);
      w += (size_t)units * kTile;
    }
  }
}

void kb_gemm_p1_neon(const kb_gemm_args* args) { packed(args, 1); }

void kb_gemm_p2_neon(const kb_gemm_args* args) { packed(args, 2); }

void kb_gemm_p4_neon(const kb_gemm_args* args) { packed(args, 4); }
#endif
