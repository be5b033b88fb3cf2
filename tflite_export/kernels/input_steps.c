/* Grids without a law of their own for instruction sets, as steps: the level of a number grows with
 * it, so that borders between levels are all there is to know of the grid. A border is the least
 * float of its code, found by bisection with the law itself, and thus exact. */
#include <math.h>

#include "input.h"

enum { kMostCodes = 256, kLeastDepth = 4, kInfinity = 0x7f800000 /* bits of it */ };

/* The floats from -inf to inf by a number that rises with them. */
static float float_at(int64_t place) {
  const uint32_t bits = place < 0 ? 0x80000000u | (uint32_t)-place : (uint32_t)place;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static int reaches(const kb_input* input, int64_t place, int code) {
  const float x = float_at(place);
  uint16_t found;
  kb_input_codes(input, &x, 1, &found);
  return found >= code;
}

/* The least number that has a code, or a higher one; NaN if none has. */
static float least_of(const kb_input* input, int code) {
  int64_t low = -(int64_t)kInfinity, high = kInfinity;
  if (!reaches(input, high, code)) return NAN;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (reaches(input, middle, code))
      high = middle;
    else
      low = middle + 1;
  }
  return float_at(low);
}

/* Borders in the order of a search: those of depth s, from left to right, are s halvings down. */
static void plant(const float* borders, int count, kb_steps* steps) {
  for (int s = 0; s < steps->depth; s++) {
    for (int p = 0; p < 1 << s; p++) {
      const int at = ((2 * p + 1) << (steps->depth - 1 - s)) - 1;
      steps->borders[(1 << s) + p] = at < count ? borders[at] : NAN;
    }
  }
}

static int code_count(const kb_input* input) {
  if (input->kind == KB_INPUT_TABLE)
    return input->is_signed ? 2 * input->length - 1 : input->length;
  return input->kind == KB_INPUT_PLANES ? 1 << input->bits : 0;
}

int kb_input_find_steps(kb_input* input) {
  const int codes = code_count(input), bytes = (input->level_bits + 7) / 8;
  float borders[kMostCodes];
  if (codes < 1 || codes > kMostCodes) return 0;
  input->steps = kb_alloc((size_t)bytes, sizeof *input->steps);
  if (!input->steps) return -1;
  for (int code = 1; code < codes; code++) borders[code - 1] = least_of(input, code);
  for (int b = 0; b < bytes; b++) {
    kb_steps* steps = &input->steps[b];
    steps->depth = kLeastDepth;
    while (1 << steps->depth < codes) steps->depth++;
    plant(borders, codes - 1, steps);
    for (int code = 0; code < codes; code++)
      steps->levels[code] = (uint8_t)(kb_input_level(input, code) >> 8 * b);
  }
  return 0;
}
