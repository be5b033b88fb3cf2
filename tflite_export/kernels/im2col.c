#include "im2col.h"

#include <string.h>

/* The first tap that meets a pixel, `end` if there is none: beyond one step they repeat. */
static int64_t first_on_pixel(const kb_window* window, int axis, int64_t start, int64_t first,
                              int64_t end) {
  int64_t last = first + window->step[axis] < end ? first + window->step[axis] : end;
  for (int64_t tap = first; tap < last; tap++) {
    if ((start + tap * window->dilation[axis]) % window->input_dilation[axis] == 0) return tap;
  }
  return end;
}

kb_taps kb_window_taps(const kb_window* window, int64_t row, int64_t column) {
  kb_taps taps;
  const int64_t at[2] = {row, column};
  for (int axis = 0; axis < 2; axis++) {
    int64_t dilation = window->dilation[axis];
    int64_t start = kb_window_at(window, axis, at[axis], 0);
    int64_t room = kb_widened(window->in[axis], window->input_dilation[axis]) - start;
    int64_t first = start < 0 ? (-start + dilation - 1) / dilation : 0;
    int64_t end = room > 0 ? (room + dilation - 1) / dilation : 0;
    if (end > window->kernel[axis]) end = window->kernel[axis];
    if (first < end && window->input_dilation[axis] > 1)
      first = first_on_pixel(window, axis, start, first, end);
    taps.first[axis] = first < end ? first : end;
    taps.end[axis] = end;
  }
  return taps;
}

/* One row of taps, of which some meet pixels of the row `source`. */
static void copy_row(const kb_window* window, const uint8_t* source, size_t pixel_bytes,
                     int64_t column, const kb_taps* taps, uint8_t* out) {
  const size_t line = (size_t)window->kernel[1] * pixel_bytes;
  if (window->dilation[1] == 1 && window->input_dilation[1] == 1) {
    size_t before = (size_t)taps->first[1] * pixel_bytes;
    size_t inside = (size_t)taps->end[1] * pixel_bytes;
    memset(out, 0, before);
    memcpy(out + before, source + (size_t)kb_window_at(window, 1, column, taps->first[1]) *
           pixel_bytes, inside - before);
    memset(out + inside, 0, line - inside);
    return;
  }
  memset(out, 0, line);
  for (int64_t kx = taps->first[1]; kx < taps->end[1]; kx += window->step[1]) {
    int64_t x = kb_window_at(window, 1, column, kx) / window->input_dilation[1];
    memcpy(out + (size_t)kx * pixel_bytes, source + (size_t)x * pixel_bytes, pixel_bytes);
  }
}

static void copy_patch(const kb_window* window, const uint8_t* image, size_t pixel_bytes,
                       int64_t row, int64_t column, uint8_t* out) {
  const kb_taps taps = kb_window_taps(window, row, column);
  const size_t line = (size_t)window->kernel[1] * pixel_bytes;
  int64_t next = taps.first[1] < taps.end[1] ? taps.first[0] : taps.end[0];
  for (int64_t ky = 0; ky < window->kernel[0]; ky++, out += line) {
    if (ky != next || ky >= taps.end[0]) {
      memset(out, 0, line);
      continue;
    }
    next += window->step[0];
    int64_t y = kb_window_at(window, 0, row, ky) / window->input_dilation[0];
    copy_row(window, image + (size_t)(y * window->in[1]) * pixel_bytes, pixel_bytes, column, &taps,
             out);
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
