/* Where a convolution looks, and its patches as rows. */
#ifndef KERASBITS_IM2COL_H
#define KERASBITS_IM2COL_H

#include <stddef.h>
#include <stdint.h>

/* Pairs are (rows, columns). */
typedef struct {
  int64_t in[2], out[2], kernel[2], stride[2], dilation[2], pad[2];
} kb_window;

/* The taps of one output pixel that lie inside the image: first <= tap < end. */
typedef struct {
  int64_t first[2], end[2];
} kb_taps;

kb_taps kb_window_taps(const kb_window* window, int64_t row, int64_t column);

/* Patches of the output pixels first .. first + count - 1 of one image [in][in][pixel_bytes], as
 * rows [kernel][kernel][pixel_bytes] that are `stride` bytes apart. Taps outside are zero bytes. */
void kb_im2col(const kb_window* window, const uint8_t* image, size_t pixel_bytes, int64_t first,
               int64_t count, uint8_t* columns, size_t stride);

#endif
