/* RESIZE_BILINEAR of NHWC images. */
#include <math.h>

#include "ops.h"

int kb_check_bilinear(const kb_node* node, kb_error error) {
  return kb_check_view(node, error); /* the same rules as for RESIZE_NEAREST */
}

/* Two neighbours and the weight of the second. */
typedef struct {
  int64_t low, high;
  float weight;
} blend;

static blend between(const kb_node* node, int axis, int32_t at) {
  const int64_t in = node->x[0]->info.dims[axis], out = node->y->info.dims[axis];
  const int corners = node->ints[0], centers = node->ints[1];
  const float scale = corners && out > 1 ? (float)(in - 1) / (float)(out - 1)
                                         : (float)in / (float)out;
  const float place = centers ? ((float)at + 0.5f) * scale - 0.5f : (float)at * scale;
  const int64_t low = (int64_t)floorf(place), high = (int64_t)ceilf(place);
  return (blend){low < 0 ? 0 : low < in ? low : in - 1, high < 0 ? 0 : high < in ? high : in - 1,
                 place - floorf(place)};
}

int kb_run_bilinear(const kb_node* node, kb_error error) {
  const int32_t *in = node->x[0]->info.dims, *out = node->y->info.dims;
  const int64_t channels = in[3], line = in[2] * channels;
  const float* image = kb_floats(node->x[0]);
  float* y = kb_results(node);
  (void)error;
  for (int32_t n = 0; n < out[0]; n++, image += in[1] * line) {
    for (int32_t r = 0; r < out[1]; r++) {
      const blend rows = between(node, 1, r);
      for (int32_t c = 0; c < out[2]; c++) {
        const blend columns = between(node, 2, c);
        const float *low = image + rows.low * line, *high = image + rows.high * line;
        for (int64_t k = 0; k < channels; k++) {
          const int64_t left = columns.low * channels + k, right = columns.high * channels + k;
          const float top = low[left] + (low[right] - low[left]) * columns.weight;
          const float bottom = high[left] + (high[right] - high[left]) * columns.weight;
          *y++ = top + (bottom - top) * rows.weight;
        }
      }
    }
  }
  return 0;
}
