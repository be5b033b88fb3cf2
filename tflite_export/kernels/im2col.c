#include "im2col.h"

#include <string.h>

kb_taps kb_window_taps(const kb_window* window, int64_t row, int64_t column) {
  kb_taps taps;
  const int64_t at[2] = {row, column};
  for (int axis = 0; axis < 2; axis++) {
    int64_t dilation = window->dilation[axis];
    int64_t start = at[axis] * window->stride[axis] - window->pad[axis];
    int64_t room = window->in[axis] - start;
    int64_t first = start < 0 ? (-start + dilation - 1) / dilation : 0;
    int64_t end = room > 0 ? (room + dilation - 1) / dilation : 0;
    if (end > window->kernel[axis]) end = window->kernel[axis];
    taps.first[axis] = first < end ? first : end;
    taps.end[axis] = end;
  }
  return taps;
}

static void copy_patch(const kb_window* window, const uint8_t* image, size_t pixel_bytes,
                       int64_t row, int64_t column, uint8_t* out) {
  const kb_taps taps = kb_window_taps(window, row, column);
  const int64_t x = column * window->stride[1] - window->pad[1];
  const size_t line = (size_t)window->kernel[1] * pixel_bytes;
  for (int64_t ky = 0; ky < window->kernel[0]; ky++, out += line) {
    if (ky < taps.first[0] || ky >= taps.end[0] || taps.first[1] == taps.end[1]) {
      memset(out, 0, line);
      continue;
    }
    int64_t y = row * window->stride[0] - window->pad[0] + ky * window->dilation[0];
    const uint8_t* source = image + (size_t)(y * window->in[1]) * pixel_bytes;
    size_t before = (size_t)taps.first[1] * pixel_bytes, inside = (size_t)taps.end[1] * pixel_bytes;
    memset(out, 0, before);
    memset(out + inside, 0, line - inside);
    if (window->dilation[1] == 1) {
      memcpy(out + before, source + (size_t)(x + taps.first[1]) * pixel_bytes, inside - before);
      continue;
    }
    for (int64_t kx = taps.first[1]; kx < taps.end[1]; kx++)
      memcpy(out + (size_t)kx * pixel_bytes,
             source + (size_t)(x + kx * window->dilation[1]) * pixel_bytes, pixel_bytes);
  }
}

void kb_im2col(const kb_window* window, const uint8_t* image, size_t pixel_bytes, int64_t first,
               int64_t count, uint8_t* columns, size_t stride) {
  for (int64_t i = 0; i < count; i++) {
    int64_t pixel = first + i;
    copy_patch(window, image, pixel_bytes, pixel / window->out[1], pixel % window->out[1],
               columns + (size_t)i * stride);
  }
}
