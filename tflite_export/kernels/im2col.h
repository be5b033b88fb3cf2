/* Where a convolution looks, and its patches as rows. */
#ifndef KERASBITS_IM2COL_H
#define KERASBITS_IM2COL_H

#include <stddef.h>
#include <stdint.h>

/* Pairs are (rows, columns). Pixels of the input are `input_dilation` apart, with zeros between. */
typedef struct {
  int64_t in[2], out[2], kernel[2], stride[2], dilation[2], input_dilation[2], pad[2];
  int64_t step[2]; /* of all taps, those on a pixel follow each other at this distance */
} kb_window;

/* Size of an input with the zeros between its pixels. */
static inline int64_t kb_widened(int64_t in, int64_t input_dilation) {
  return in ? (in - 1) * input_dilation + 1 : 0;
}

/* Row or column of the widened input that a tap of an output pixel meets. */
static inline int64_t kb_window_at(const kb_window* window, int axis, int64_t out, int64_t tap) {
  return out * window->stride[axis] - window->pad[axis] + tap * window->dilation[axis];
}

/* The taps of one output pixel that meet a pixel of the image: first, first + step, .. < end. */
typedef struct {
  int64_t first[2], end[2];
} kb_taps;

kb_taps kb_window_taps(const kb_window* window, int64_t row, int64_t column);

/* Patches of the output pixels first .. first + count - 1 of one image [in][in][pixel_bytes], as
 * rows [kernel][kernel][pixel_bytes] that are `stride` bytes apart. Taps outside are zero bytes. */
void kb_im2col(const kb_window* window, const uint8_t* image, size_t pixel_bytes, int64_t first,
               int64_t count, uint8_t* columns, size_t stride);

#endif
