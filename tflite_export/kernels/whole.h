/* Layers whose sums are whole numbers, which are scaled in float32.
 *
 * Where offsets are whole or half steps, weights and inputs are whole numbers too, in half steps:
 *     weight = scale * (number - zero + a / m),   input = unit * (level + b / n),   m, n = 1 or 2
 * and so is m * n times the sum of products that belongs to an output. Such a total T is exact in
 * any form and however a layer is cut. If all of a layer are less than 2^30 in magnitude,
 *     y = clamp((float)T * (float)(multiplier * unit * scale / (m * n)) + bias)
 * has three roundings before the last one: it is within 3 * 2^-24 of the magnitude of T's product,
 * and 2^-24 of its own, which the clamp leaves as it is. Nothing that cancels has been rounded, for
 * offsets are within T and the bias is a float. Twice T, which some forms have, fits int32 as well,
 * and halving a scale changes no bit of the result. */
#ifndef KERASBITS_WHOLE_H
#define KERASBITS_WHOLE_H

#include "channel.h"
#include "input.h"

/* steps / parts, where parts is 1 or 2; 0 if a number is none of these. */
typedef struct {
  int parts;
  int32_t steps;
} kb_ratio;

/* The offset of inputs in steps of their unit: b / n. */
kb_ratio kb_input_ratio(const kb_input* input);

/* The offset of a channel's weights in steps of its scale: a / m, without the zero. */
kb_ratio kb_channel_ratio(const kb_channel* channel);

/* Whether all totals of a layer are whole and fit, its scales are normal floats, and, of a depthwise
 * layer, its weights and inputs are what its kernels take. By the blob alone: it is the same on all
 * machines. */
int kb_is_whole(const kb_blob* blob, const kb_input* input, const kb_channel* channels);

/* The scale of a channel's sums, of products of levels and numbers. */
double kb_whole_scale(const kb_blob* blob, const kb_input* input, const kb_channel* channel);

/* The level whose value is exactly 0; -1 if there is none. */
int kb_zero_level(const kb_input* input);

#endif
