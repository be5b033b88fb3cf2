/* Weights, taken from a blob and repacked for the kernels.
 *
 * Every channel is written as
 *     w[k] = offset + sum_r scale_r * row_r[k]
 * with rows of whole numbers: one row for evenly spaced levels, else one row of bits a plane.
 * Rows of the same form are packed in tiles. The offset is multiplied with the sum of the inputs,
 * which a row of ones delivers. */
#ifndef KERASBITS_WEIGHTS_H
#define KERASBITS_WEIGHTS_H

#include "input.h"

enum { KB_SUM_OF_INPUTS = -1 };

typedef struct {
  int64_t channel; /* or KB_SUM_OF_INPUTS */
  double scale;
} kb_row;

/* Rows of one form and group. */
typedef struct {
  int64_t rows;
  kb_row* row;
  uint8_t* tiles;
  size_t tile_bytes;
  int64_t chunks;       /* of a row */
  int64_t block_chunks; /* chunks whose sums are sure to fit int32 */
  int max_weight;
} kb_panel;

typedef struct {
  int64_t groups, out;
  kb_panel* panels; /* [groups][KB_FORMS] */
  double* offset;   /* [out] */
  double* tap_sum;  /* [out][taps] sum of the decoded weights of a tap, NULL if nobody needs it */
  float* depthwise; /* [taps][out] decoded weights of a depthwise layer, else NULL */
} kb_weights;

int kb_weights_create(const kb_blob* blob, const kb_input* input, kb_weights* weights,
                      kb_error error);
void kb_weights_destroy(kb_weights* weights);

#endif
