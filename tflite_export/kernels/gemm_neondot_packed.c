/* Codes of weights for NEON with dot products: a vector holds one unit of four rows, and shifts and
 * masks leave codes in the order that udot takes with the inputs of one lane.
 *
 * P2 and P4 look codes up as levels + 128, which are unsigned as the inputs are:
 *     sum level * x = sum (level + 128) * x - 128 * sum x
 * P1 multiplies by 255 for a code of 1, the mask that a comparison leaves:
 *     sum level * x = levels[0] * sum x + (levels[1] - levels[0]) * sum code * x
 * All of it is modulo 2^32, where 255 has an inverse; the result fits int32. */
#if defined(__aarch64__)
#if !defined(__ARM_FEATURE_DOTPROD)
#error "expected the compiler flag -march=armv8.2-a+dotprod for this file"
#endif
#include <arm_neon.h>

#include "kernels.h"

enum {
  kRows = 16,
  kVectors = kRows / 4,
  kPixels = 2,
  kTile = kRows * 4 /* bytes of a unit */
};

/* Of two pixels, or of every other lane of one: no addition has to wait for the one before. */
typedef struct {
  uint32x4_t of[kVectors][2];
} totals;

/* The sum of all inputs of a pixel. A unit of P4 has 8, those of others 16 or 32. */
static uint32_t sum_inputs(const kb_gemm_args* args, int pixel, int channels) {
  const int bytes = args->units * channels;
  uint32x4_t wide = vdupq_n_u32(0);
  uint32x2_t half = vdup_n_u32(0);
  for (int tap = 0; tap < args->tap_count; tap++) {
    const uint8_t* x = args->pixels[pixel] + args->taps[tap];
    for (int i = 0; i + 16 <= bytes; i += 16)
      wide = vdotq_u32(wide, vld1q_u8(x + i), vdupq_n_u8(1));
    if (bytes % 16) half = vdot_u32(half, vld1_u8(x + bytes - 8), vdup_n_u8(1));
  }
  return vaddvq_u32(wide) + vaddv_u32(half);
}

/* Adds the products of four codes or levels and one lane, a constant, of the inputs. */
#define ADD_LANE(weights, lane)                                            \
  {                                                                        \
    const uint8x16_t factors = (weights);                                  \
    if (pixels == 1)                                                       \
      t[(lane) % 2] = vdotq_laneq_u32(t[(lane) % 2], factors, x[0], lane); \
    else                                                                   \
      for (int p = 0; p < pixels; p++)                                     \
        t[p] = vdotq_laneq_u32(t[p], factors, x[p], lane);                 \
  }

/* 16 channels of P1: bits `first` to `first + 3` of each byte. */
static inline __attribute__((always_inline)) void add_p1(const uint8_t* w, const uint8x16_t* x,
                                                         const int first, const int pixels,
                                                         totals* sum) {
  for (int v = 0; v < kVectors; v++) {
    uint32x4_t* t = sum->of[v];
    const uint8x16_t bits = vld1q_u8(w + 16 * v);
    ADD_LANE(vtstq_u8(bits, vdupq_n_u8((uint8_t)(1 << first))), 0)
    ADD_LANE(vtstq_u8(bits, vdupq_n_u8((uint8_t)(2 << first))), 1)
    ADD_LANE(vtstq_u8(bits, vdupq_n_u8((uint8_t)(4 << first))), 2)
    ADD_LANE(vtstq_u8(bits, vdupq_n_u8((uint8_t)(8 << first))), 3)
  }
}

/* table[0] has the level of code c at place c, table[1] at place 4 c, so that every other code
 * needs no shift. */
static inline __attribute__((always_inline)) void add_p2(const uint8_t* w, const uint8x16_t* x,
                                                         const uint8x16_t* table, const int pixels,
                                                         totals* sum) {
  const uint8x16_t three = vdupq_n_u8(3), twelve = vdupq_n_u8(12);
  for (int v = 0; v < kVectors; v++) {
    uint32x4_t* t = sum->of[v];
    const uint8x16_t low = vld1q_u8(w + 16 * v), high = vshrq_n_u8(low, 4);
    ADD_LANE(vqtbl1q_u8(table[0], vandq_u8(low, three)), 0)
    ADD_LANE(vqtbl1q_u8(table[1], vandq_u8(low, twelve)), 1)
    ADD_LANE(vqtbl1q_u8(table[0], vandq_u8(high, three)), 2)
    ADD_LANE(vqtbl1q_u8(table[1], vandq_u8(high, twelve)), 3)
  }
}

static inline __attribute__((always_inline)) void add_p4(const uint8_t* w, const uint8x16_t* x,
                                                         const uint8x16_t* table, const int pixels,
                                                         totals* sum) {
  for (int v = 0; v < kVectors; v++) {
    uint32x4_t* t = sum->of[v];
    const uint8x16_t codes = vld1q_u8(w + 16 * v);
    ADD_LANE(vqtbl1q_u8(table[0], vandq_u8(codes, vdupq_n_u8(15))), 0)
    ADD_LANE(vqtbl1q_u8(table[0], vshrq_n_u8(codes, 4)), 1)
  }
}

static inline __attribute__((always_inline)) void load_inputs(const uint8_t* const* x, size_t at,
                                                              const int pixels,
                                                              uint8x16_t* inputs) {
  for (int p = 0; p < pixels; p++) inputs[p] = vld1q_u8(x[p] + at);
}

/* One unit, with inputs from byte `at` of each window. */
static inline __attribute__((always_inline)) void add_unit(const kb_form form, const uint8_t* w,
                                                           const uint8_t* const* x, size_t at,
                                                           const uint8x16_t* table,
                                                           const int pixels, totals* sum) {
  uint8x16_t inputs[kPixels];
  load_inputs(x, at, pixels, inputs);
  if (form == KB_FORM_P1) {
    add_p1(w, inputs, 0, pixels, sum);
    load_inputs(x, at + 16, pixels, inputs);
    add_p1(w, inputs, 4, pixels, sum);
  } else if (form == KB_FORM_P2) {
    add_p2(w, inputs, table, pixels, sum);
  } else {
    add_p4(w, inputs, table, pixels, sum);
  }
}

/* From what was added up to the sums. The inverse of 255 is -0x01010101, as 255 * 0x01010101 is
 * 2^32 - 1. */
static inline uint32x4_t corrected(const kb_form form, const int8_t* levels, uint32x4_t total,
                                   uint32_t inputs) {
  if (form != KB_FORM_P1) return vsubq_u32(total, vdupq_n_u32(inputs << 7));
  const uint32_t scale = (uint32_t)(levels[0] - levels[1]) * 0x01010101u;
  return vmlaq_n_u32(vdupq_n_u32((uint32_t)levels[0] * inputs), total, scale);
}

static inline __attribute__((always_inline)) void some_pixels(const kb_gemm_args* args,
                                                              const kb_form form,
                                                              const uint8x16_t* table, int first,
                                                              const int pixels) {
  const size_t channels = form == KB_FORM_P1 ? 32 : form == KB_FORM_P2 ? 16 : 8;
  const uint8_t* w = args->weights;
  totals sum;
  for (int v = 0; v < kVectors; v++) sum.of[v][0] = sum.of[v][1] = vdupq_n_u32(0);
  for (int tap = 0; tap < args->tap_count; tap++) {
    const uint8_t* x[kPixels];
    for (int p = 0; p < pixels; p++) x[p] = args->pixels[first + p] + args->taps[tap];
    for (int unit = 0; unit < args->units; unit++, w += kTile)
      add_unit(form, w, x, (size_t)unit * channels, table, pixels, &sum);
  }
  for (int p = 0; p < pixels; p++) {
    const uint32_t inputs = sum_inputs(args, first + p, (int)channels);
    uint32_t* sums = (uint32_t*)args->sums + (size_t)(first + p) * kRows;
    for (int v = 0; v < kVectors; v++) {
      const uint32x4_t total =
          pixels == 1 ? vaddq_u32(sum.of[v][0], sum.of[v][1]) : sum.of[v][p];
      vst1q_u32(sums + 4 * v, corrected(form, args->levels, total, inputs));
    }
  }
}

static inline __attribute__((always_inline)) void all_pixels(const kb_gemm_args* args,
                                                             const kb_form form) {
  const int codes = form == KB_FORM_P4 ? 16 : 4;
  uint8_t levels[2][16] = {{0}};
  uint8x16_t table[2];
  if (form != KB_FORM_P1) {
    for (int code = 0; code < codes; code++)
      levels[0][code] = levels[1][4 * code % 16] = (uint8_t)(args->levels[code] + 128);
    table[0] = vld1q_u8(levels[0]);
    table[1] = vld1q_u8(levels[1]);
  }
  int pixel = 0;
  for (; pixel + kPixels <= args->count; pixel += kPixels)
    some_pixels(args, form, table, pixel, kPixels);
  if (pixel < args->count) some_pixels(args, form, table, pixel, 1);
}

void kb_gemm_p1_neondot(const kb_gemm_args* args) { all_pixels(args, KB_FORM_P1); }

void kb_gemm_p2_neondot(const kb_gemm_args* args) { all_pixels(args, KB_FORM_P2); }

void kb_gemm_p4_neondot(const kb_gemm_args* args) { all_pixels(args, KB_FORM_P4); }
#endif
