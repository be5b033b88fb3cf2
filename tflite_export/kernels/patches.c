/* Windows of output pixels, copied to rows. */
#include "op.h"

/* Copy count bytes in pieces of 16: up to 15 bytes more are read, and written behind the end, where
 * the next copy goes or slack is. */
static void copy_loosely(uint8_t* to, const uint8_t* from, size_t count) {
  for (size_t i = 0; i < count; i += 16) memcpy(to + i, from + i, 16);
}

/* The window at `first` in an image with its zeros, tap by tap. */
static void copy_window(const kb_window* window, const kb_image* image, const uint8_t* first,
                        uint8_t* to) {
  const size_t pixel = image->pixel_bytes;
  const size_t line = (size_t)window->kernel[1] * pixel;
  const size_t down = (size_t)(window->dilation[0] * image->size[1]) * pixel;
  for (int64_t ky = 0; ky < window->kernel[0]; ky++, first += down) {
    if (window->dilation[1] == 1) {
      copy_loosely(to, first, line);
      to += line;
      continue;
    }
    const uint8_t* tap = first;
    for (int64_t kx = 0; kx < window->kernel[1]; kx++, to += pixel) {
      copy_loosely(to, tap, pixel);
      tap += (size_t)window->dilation[1] * pixel;
    }
  }
}

/* The same for rows of a window that fit 16 bytes. */
static void copy_narrow(const kb_window* window, const kb_image* image, const uint8_t* first,
                        uint8_t* to) {
  const size_t line = (size_t)window->kernel[1] * image->pixel_bytes;
  const size_t down = (size_t)(window->dilation[0] * image->size[1]) * image->pixel_bytes;
  for (int64_t ky = 0; ky < window->kernel[0]; ky++, first += down, to += line)
    memcpy(to, first, 16);
}

/* The windows of `count` output pixels from `first` on, in one plane of an image, `step` bytes apart. */
static void gather(const kb_plan* plan, const kb_image* image, const uint8_t* plane, int64_t first,
                   int count, uint8_t* to, size_t step) {
  const kb_window* window = &plan->window;
  if (image->bare) {
    kb_im2col(window, plane, image->pixel_bytes, first, count, to, step);
    return;
  }
  const int narrow =
      window->dilation[1] == 1 && (size_t)window->kernel[1] * image->pixel_bytes <= 16;
  const size_t right = (size_t)window->stride[1] * image->pixel_bytes;
  const size_t down = (size_t)(window->stride[0] * image->size[1]) * image->pixel_bytes;
  int64_t column = first % window->out[1];
  const uint8_t* row = plane + (size_t)(first / window->out[1]) * down;
  const uint8_t* from = row + (size_t)column * right;
  for (int p = 0; p < count; p++, to += step) {
    (narrow ? copy_narrow : copy_window)(window, image, from, to);
    from += right;
    if (++column < window->out[1]) continue;
    column = 0;
    from = row += down;
  }
}

static const uint8_t* plane_of(const kb_op* op, const kb_image* image, int term, int64_t group) {
  const uint8_t* planes = kb_shared(op, image->at);
  return planes + (size_t)(term * op->geometry.groups + group) * image->plane_bytes;
}

/* Levels of the window, then their bits. */
static void gather_bits(const kb_op* op, const kb_plan* plan, int64_t group, int64_t first,
                        int count, int worker) {
  const kb_image* image = &plan->image[KB_IMAGE_BITS];
  const kb_terms* planes = &op->input.planes;
  const size_t row = (size_t)op->geometry.row;
  uint8_t* levels = kb_own(op, plan, worker, plan->patch_levels);
  uint8_t* patches = kb_own(op, plan, worker, plan->patches[KB_IMAGE_BITS]);
  for (int p = 0; p < count; p++) {
    for (int half = 0; half < image->terms; half++) {
      gather(plan, image, plane_of(op, image, half, group), first + p, 1, levels, 0);
      for (int t = 0; t < planes->count; t++) {
        const int shift = planes->term[t].shift;
        if (shift / 8 != half) continue;
        op->kernels.pack_bits(levels, row, shift % 8,
                              patches + (size_t)(t * plan->block + p) * image->patch_bytes);
      }
    }
  }
}

void kb_gather_patches(const kb_op* op, const kb_plan* plan, kb_image_kind kind, int64_t group,
                       int64_t first, int count, int worker) {
  const kb_image* image = &plan->image[kind];
  if (kind == KB_IMAGE_BITS && !kb_packs_pixels(&op->weights.layout[kind], &op->geometry)) {
    gather_bits(op, plan, group, first, count, worker);
    return;
  }
  uint8_t* patches = kb_own(op, plan, worker, plan->patches[kind]);
  /* The last unit may be longer than the window, and kernels of bits want nothing but bits there. */
  const size_t window =
      (size_t)(plan->window.kernel[0] * plan->window.kernel[1]) * image->pixel_bytes;
  for (int t = 0; t < image->patch_terms; t++) {
    uint8_t* to = patches + (size_t)(t * plan->block) * image->patch_bytes;
    gather(plan, image, plane_of(op, image, t, group), first, count, to, image->patch_bytes);
    for (int p = 0; kind == KB_IMAGE_BITS && p < count && window < image->patch_bytes; p++)
      memset(to + (size_t)p * image->patch_bytes + window, 0, image->patch_bytes - window);
  }
}
