/* Floats to levels, bits of levels and signs for NEON. */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "kernels.h"

enum { kLevels = 16, kUnit = 64 };

/* Four numbers, rounded to whole ones but without the zero point. The maximum and the minimum of
 * the clip keep NaN, which then is less than `low` as vmaxnm takes the number; 0 and -0 have the
 * same level. */
static inline int32x4_t round_four(const kb_grid* grid, const float* x, float32x4_t low,
                                   float32x4_t high) {
  float32x4_t t = vmaxq_f32(vld1q_f32(x), vdupq_n_f32(grid->lo));
  t = vsubq_f32(vminq_f32(t, vdupq_n_f32(grid->hi)), vdupq_n_f32(grid->origin));
  t = vmaxnmq_f32(vdivq_f32(t, vdupq_n_f32(grid->step)), low);
  return vcvtnq_s32_f32(vminq_f32(t, high));
}

/* The low halves of all lanes: a level fits the lowest byte. */
static inline int16x8_t narrow(int32x4_t a, int32x4_t b) {
  return vuzp1q_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
}

static inline void sixteen_levels(const kb_grid* grid, const float* x, uint8_t* levels) {
  const float32x4_t low = vdupq_n_f32((float)-grid->zero);
  const float32x4_t high = vdupq_n_f32((float)(grid->top - grid->zero));
  int32x4_t fours[4];
  for (int i = 0; i < 4; i++) fours[i] = round_four(grid, x + 4 * i, low, high);
  const int16x8_t a = narrow(fours[0], fours[1]), b = narrow(fours[2], fours[3]);
  const uint8x16_t bytes = vuzp1q_u8(vreinterpretq_u8_s16(a), vreinterpretq_u8_s16(b));
  vst1q_u8(levels, vaddq_u8(bytes, vdupq_n_u8((uint8_t)grid->zero))); /* modulo 256 */
}

void kb_levels_neon(const kb_grid* grid, const float* x, size_t count, uint8_t* levels) {
  for (; count >= kLevels; count -= kLevels, x += kLevels, levels += kLevels)
    sixteen_levels(grid, x, levels);
  if (!count) return;
  float rest[kLevels] = {0};
  uint8_t out[kLevels];
  memcpy(rest, x, count * sizeof *x);
  sixteen_levels(grid, rest, out);
  memcpy(levels, out, count);
}

/* 64 bytes of 0 or 255 as bits, the first in the lowest: pairs are added three times. */
static inline void store_bits(const uint8x16_t* set, uint8_t* image) {
  const uint8x16_t place = vreinterpretq_u8_u64(vdupq_n_u64(UINT64_C(0x8040201008040201)));
  const uint8x16_t low = vpaddq_u8(vandq_u8(set[0], place), vandq_u8(set[1], place));
  const uint8x16_t high = vpaddq_u8(vandq_u8(set[2], place), vandq_u8(set[3], place));
  const uint8x16_t quarters = vpaddq_u8(low, high);
  vst1_u8(image, vget_low_u8(vpaddq_u8(quarters, quarters)));
}

static inline void pack_unit(const uint8_t* levels, uint8x16_t bit, uint8_t* image) {
  uint8x16_t set[4];
  for (int i = 0; i < 4; i++) set[i] = vtstq_u8(vld1q_u8(levels + 16 * i), bit);
  store_bits(set, image);
}

void kb_pack_bits_neon(const uint8_t* levels, size_t count, int shift, uint8_t* image) {
  const uint8x16_t bit = vdupq_n_u8((uint8_t)(1 << shift));
  for (; count >= kUnit; count -= kUnit, levels += kUnit, image += 8) pack_unit(levels, bit, image);
  if (!count) return;
  uint8_t rest[kUnit] = {0};
  memcpy(rest, levels, count);
  pack_unit(rest, bit, image);
}

static inline uint16x8_t signs_of(const float* x, float32x4_t lo, float32x4_t hi) {
  const float32x4_t a = vminq_f32(vmaxq_f32(vld1q_f32(x), lo), hi);
  const float32x4_t b = vminq_f32(vmaxq_f32(vld1q_f32(x + 4), lo), hi);
  return vuzp1q_u16(vreinterpretq_u16_u32(vcgezq_f32(a)), vreinterpretq_u16_u32(vcgezq_f32(b)));
}

static inline void signs_of_unit(const float* x, float32x4_t lo, float32x4_t hi, uint8_t* image) {
  uint8x16_t set[4];
  for (int i = 0; i < 4; i++)
    set[i] = vuzp1q_u8(vreinterpretq_u8_u16(signs_of(x + 16 * i, lo, hi)),
                       vreinterpretq_u8_u16(signs_of(x + 16 * i + 8, lo, hi)));
  store_bits(set, image);
}

/* Behind the last number is NaN, which is not >= 0 whatever the clip is. */
void kb_signs_neon(float lo, float hi, const float* x, size_t count, uint8_t* image) {
  const float32x4_t low = vdupq_n_f32(lo), high = vdupq_n_f32(hi);
  for (; count >= kUnit; count -= kUnit, x += kUnit, image += 8) signs_of_unit(x, low, high, image);
  if (!count) return;
  float rest[kUnit];
  for (size_t i = 0; i < kUnit; i++) rest[i] = i < count ? x[i] : __builtin_nanf("");
  signs_of_unit(rest, low, high, image);
}
#endif
