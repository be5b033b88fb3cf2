/* Pixels of an input on their way to the images that kernels read. */
#ifndef KERASBITS_IMAGE_H
#define KERASBITS_IMAGE_H

#include "op.h"

/* Some pixels of one row of the input, at work. */
typedef struct {
  const kb_op* op;
  const kb_plan* plan;
  int64_t row, column;
  int64_t count;
  const float* x;     /* [count][groups][in] */
  uint8_t *low, *high; /* levels of them */
  uint16_t* codes;
} kb_strip;

static inline size_t kb_channels_of(const kb_strip* strip) {
  return (size_t)strip->op->geometry.in;
}

static inline size_t kb_groups_of(const kb_strip* strip) {
  return (size_t)strip->op->geometry.groups;
}

/* Where a pixel of the strip is, and how far the next one. As many as `visible` are in the image:
 * rows and columns that no window reaches are not. */
typedef struct {
  uint8_t* first;
  size_t step;
  int64_t visible;
} kb_place;

kb_place kb_place_of(const kb_strip* strip, const kb_image* image, size_t term, size_t group);

/* Where the sums of the inputs of the strip's pixels go. */
double* kb_sums_of(const kb_strip* strip, size_t group);

/* Whether the input is planes that nobody needs as levels. */
int kb_only_planes(const kb_op* op, const kb_plan* plan);

/* Planes of the strip's floats to the image of bits, and the sums of inputs if they are needed. */
void kb_fill_planes(const kb_strip* strip);

/* Levels of the strip to the image of bits; or as they are, if windows are packed. */
void kb_fill_bits(const kb_strip* strip);

#endif
