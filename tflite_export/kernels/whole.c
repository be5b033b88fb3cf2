#include "whole.h"

#include <math.h>

/* Twice the value in steps is a whole number of at most 26 bits, so its product with a step, which is
 * a float or twice one, is exact. */
static kb_ratio ratio_of(double value, double step) {
  if (value == 0) return (kb_ratio){1, 0};
  const double halves = step != 0 ? rint(2 * value / step) : 0;
  if (!(fabs(halves) < 2.0 * KB_MAX_ZERO) || halves * step != 2 * value) return (kb_ratio){0};
  const int32_t steps = (int32_t)halves;
  return steps % 2 ? (kb_ratio){2, steps} : (kb_ratio){1, steps / 2};
}

kb_ratio kb_channel_ratio(const kb_channel* channel) {
  return ratio_of(channel->origin, channel->scale);
}

/* The offset of a uniform grid may be rounded, that of the others is not. */
kb_ratio kb_input_ratio(const kb_input* input) {
  if (!input->linear) return (kb_ratio){0};
  if (input->kind != KB_INPUT_UNIFORM) return ratio_of(input->offset, input->unit);
  kb_ratio ratio = ratio_of(input->origin, input->unit);
  ratio.steps -= ratio.parts * input->zero;
  return ratio;
}

double kb_whole_scale(const kb_blob* blob, const kb_input* input, const kb_channel* channel) {
  double multiplier = 1;
  if (blob->section[KB_MULTIPLIER].bytes)
    multiplier = (double)kb_blob_f32(blob, KB_MULTIPLIER, channel->index);
  return multiplier * input->unit * channel->scale;
}

static double larger(double a, double b) { return fabs(a) > fabs(b) ? fabs(a) : fabs(b); }

/* Largest magnitude of parts * (number + offset) for numbers from 0 to top. */
static double most_of(int parts, double offset, double top) {
  return parts * larger(offset, offset + top);
}

static double most_input(const kb_input* input, kb_ratio ratio) {
  double top = (1 << input->bits) - 1;
  if (input->kind == KB_INPUT_TABLE)
    top = (1 + input->is_signed) * (double)input->table_levels[input->length - 1];
  return most_of(ratio.parts, (double)ratio.steps / ratio.parts, top);
}

/* Largest magnitude of m times a weight, in steps; -1 if it is no whole number. */
static double most_weight(const kb_channel* channel) {
  const kb_ratio ratio = kb_channel_ratio(channel);
  if (!channel->linear || !ratio.parts) return -1;
  const double offset = (double)ratio.steps / ratio.parts - channel->zero;
  return most_of(ratio.parts, offset, channel->top);
}

static int is_normal(double scale) {
  return scale == 0 || (fabs(scale) >= 0x1p-100 && fabs(scale) <= 0x1p100);
}

/* Some forms have twice the total that a channel's own parts ask for, so it is to be below 2^30. */
int kb_is_whole(const kb_blob* blob, const kb_input* input, const kb_channel* channels) {
  if (blob->input_kind == KB_INPUT_FLOAT || blob->encoding == KB_FLOATS) return 0;
  const kb_ratio inputs = kb_input_ratio(input);
  if (!inputs.parts) return 0;
  double most = 0;
  for (int64_t o = 0; o < blob->out; o++) {
    const kb_channel* channel = &channels[o];
    if (!channel->width) continue;
    const double weight = most_weight(channel);
    if (weight < 0 || !is_normal(kb_whole_scale(blob, input, channel))) return 0;
    if (weight > most) most = weight;
  }
  if (blob->op == KB_DEPTHWISE && most > INT16_MAX) return 0;
  return most * (double)blob->row * most_input(input, inputs) < 0x1p30;
}
