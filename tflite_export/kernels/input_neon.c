/* Floats to levels and to bits for NEON. */
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

/* The bits of a plane of 64 residuals, from which it is taken. */
static inline void take_plane(float32x4_t rest[16], float scale, uint8_t* image) {
  const float32x4_t up = vdupq_n_f32(scale), down = vdupq_n_f32(-scale);
  uint8x16_t set[4];
  for (int i = 0; i < 4; i++) {
    uint32x4_t fours[4];
    for (int j = 0; j < 4; j++) {
      fours[j] = vcgezq_f32(rest[4 * i + j]);
      rest[4 * i + j] = vsubq_f32(rest[4 * i + j], vbslq_f32(fours[j], up, down));
    }
    const uint16x8_t low = vuzp1q_u16(vreinterpretq_u16_u32(fours[0]),
                                      vreinterpretq_u16_u32(fours[1]));
    const uint16x8_t high = vuzp1q_u16(vreinterpretq_u16_u32(fours[2]),
                                       vreinterpretq_u16_u32(fours[3]));
    set[i] = vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
  }
  store_bits(set, image);
}

static inline void put_units(const kb_planes* planes, const float* x, size_t at,
                             uint8_t* const* images) {
  const float32x4_t lo = vdupq_n_f32(planes->lo), hi = vdupq_n_f32(planes->hi);
  float32x4_t rest[16];
  for (int i = 0; i < 16; i++) rest[i] = vminq_f32(vmaxq_f32(vld1q_f32(x + 4 * i), lo), hi);
  for (int p = 0; p < planes->count; p++) take_plane(rest, planes->scales[p], images[p] + at);
}

/* Behind the last number is NaN, which has no bits. */
void kb_planes_neon(const kb_planes* planes, const float* x, size_t count, uint8_t* const* images) {
  size_t at = 0;
  for (; count >= kUnit; count -= kUnit, x += kUnit, at += 8) put_units(planes, x, at, images);
  if (!count) return;
  float rest[kUnit];
  for (size_t i = 0; i < kUnit; i++) rest[i] = i < count ? x[i] : __builtin_nanf("");
  put_units(planes, rest, at, images);
}

/* Of 15 borders, in any order, as many as each of 16 numbers reaches. */
static inline void sixteen_steps(const kb_steps* steps, const float* x, uint8_t* levels) {
  int32x4_t reached[4];
  for (int i = 0; i < 4; i++) reached[i] = vdupq_n_s32(0);
  for (int b = 1; b < 16; b++) {
    const float32x4_t border = vdupq_n_f32(steps->borders[b]);
    for (int i = 0; i < 4; i++)
      reached[i] = vsubq_s32(reached[i],
                             vreinterpretq_s32_u32(vcgeq_f32(vld1q_f32(x + 4 * i), border)));
  }
  const int16x8_t a = narrow(reached[0], reached[1]), b = narrow(reached[2], reached[3]);
  const uint8x16_t index = vuzp1q_u8(vreinterpretq_u8_s16(a), vreinterpretq_u8_s16(b));
  vst1q_u8(levels, vqtbl1q_u8(vld1q_u8(steps->levels), index));
}

void kb_search_neon(const kb_steps* steps, const float* x, size_t count, uint8_t* levels) {
  if (steps->depth != 4) {
    kb_search_scalar(steps, x, count, levels);
    return;
  }
  for (; count >= kLevels; count -= kLevels, x += kLevels, levels += kLevels)
    sixteen_steps(steps, x, levels);
  if (!count) return;
  float rest[kLevels] = {0};
  uint8_t out[kLevels];
  memcpy(rest, x, count * sizeof *x);
  sixteen_steps(steps, rest, out);
  memcpy(levels, out, count);
}
#endif
