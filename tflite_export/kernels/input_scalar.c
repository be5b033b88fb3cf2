/* Floats to levels and to bits in plain C: the law for the other instruction sets. */
#include <math.h>

#include "kernels.h"

static float clip(float x, float lo, float hi) { return x < lo ? lo : x > hi ? hi : x; }

/* clip(rint(t) + zero, 0, top) = rint(clip(t, -zero, top - zero)) + zero, since the bounds are
 * whole numbers of at most 2^24 in magnitude, which float32 has. The comparisons send NaN to level 0. */
void kb_levels_scalar(const kb_grid* grid, const float* x, size_t count, uint8_t* levels) {
  const float low = (float)-grid->zero, high = (float)(grid->top - grid->zero);
  const float lo = grid->lo, hi = grid->hi, origin = grid->origin, step = grid->step;
  const int32_t zero = grid->zero;
  const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to whole numbers, ties even */
  if (fabsf(low) > 4194304.0f || fabsf(high) > 4194304.0f) {
    for (size_t i = 0; i < count; i++) {
      float t = (clip(x[i], lo, hi) - origin) / step;
      t = t > low ? t : low;
      levels[i] = (uint8_t)(lrintf(t < high ? t : high) + zero);
    }
    return;
  }
  for (size_t i = 0; i < count; i++) {
    float t = (clip(x[i], lo, hi) - origin) / step;
    t = t > low ? t : low;
    t = t < high ? t : high;
    levels[i] = (uint8_t)((int32_t)((t + shift) - shift) + zero);
  }
}

/* Eight bytes of 0 or 1 as the bits of one byte, the first in the lowest: the product brings each
 * to its own bit of the top byte, and no two meet anywhere below it. */
static unsigned gather_bits(uint64_t bytes) {
  return (unsigned)(bytes * UINT64_C(0x0102040810204080) >> 56);
}

static uint64_t first_bits(const uint8_t* levels, size_t count, int shift) {
  uint64_t bytes = 0;
  for (size_t b = 0; b < count; b++) bytes |= (uint64_t)(levels[b] >> shift & 1) << 8 * b;
  return bytes;
}

void kb_pack_bits_scalar(const uint8_t* levels, size_t count, int shift, uint8_t* image) {
  const size_t whole = count / 8, bytes = (count + 63) / 64 * 8;
  for (size_t i = 0; i < whole; i++)
    image[i] = (uint8_t)gather_bits(first_bits(levels + 8 * i, 8, shift));
  memset(image + whole, 0, bytes - whole);
  if (count % 8)
    image[whole] = (uint8_t)gather_bits(first_bits(levels + 8 * whole, count % 8, shift));
}

void kb_planes_scalar(const kb_planes* planes, const float* x, size_t count,
                      uint8_t* const* images) {
  enum { kUnit = 64 };
  for (size_t first = 0; first < count; first += kUnit) {
    const size_t some = count - first < kUnit ? count - first : kUnit;
    float rest[kUnit];
    uint8_t bits[kUnit];
    for (size_t i = 0; i < some; i++) rest[i] = clip(x[first + i], planes->lo, planes->hi);
    for (int p = 0; p < planes->count; p++) {
      const float up = planes->scales[p], down = -up;
      for (size_t i = 0; i < some; i++) bits[i] = rest[i] >= 0;
      for (size_t i = 0; i < some; i++) rest[i] -= rest[i] >= 0 ? up : down;
      kb_pack_bits_scalar(bits, some, 0, images[p] + first / 8);
    }
  }
}

/* Some searches side by side, as each waits for its own comparisons. */
void kb_search_scalar(const kb_steps* steps, const float* x, size_t count, uint8_t* levels) {
  enum { kSome = 8 };
  for (size_t first = 0; first < count; first += kSome) {
    const size_t some = count - first < kSome ? count - first : kSome;
    unsigned at[kSome];
    for (size_t i = 0; i < some; i++) at[i] = 1;
    for (int d = 0; d < steps->depth; d++)
      for (size_t i = 0; i < some; i++)
        at[i] = 2 * at[i] + (x[first + i] >= steps->borders[at[i]]);
    for (size_t i = 0; i < some; i++)
      levels[first + i] = steps->levels[at[i] - (1u << steps->depth)];
  }
}
