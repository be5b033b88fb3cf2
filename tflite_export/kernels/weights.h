/* Weights, taken from a blob and repacked for the kernels.
 *
 * Every channel is written as
 *     w[k] = offset + sum_p scale_p * row_p[k]
 * with rows of whole numbers: one row for evenly spaced levels, unless the layer is done in bits;
 * else one row of bits a plane. Channels of a group that are done in the same form are packed in
 * tiles, sorted so that those of one tile are alike. The offset, where there is one, is multiplied
 * with the sum of the inputs. */
#ifndef KERASBITS_WEIGHTS_H
#define KERASBITS_WEIGHTS_H

#include "forms.h"
#include "whole.h"

/* What makes outputs of a tile's sums in a layer on whole numbers. */
typedef struct {
  int32_t* shifts;        /* [terms][planes], NULL if there is one and it is 0 */
  int32_t* input_weights; /* [rows], NULL if all are 0 */
  float *scales, *biases; /* [rows] */
} kb_whole_rows;

/* As many channels as a kernel takes, of one group. The form KB_FORMS stands for channels that are
 * dropped. */
typedef struct {
  kb_form form;
  int64_t group, first; /* the first channel's place in the order of channels */
  int used, rows;       /* channels, and rows that there are for them */
  int contiguous;       /* whether the channels follow each other in the output */
  int planes;           /* rows of each channel, one behind the other in `weights` */
  int most;             /* largest magnitude of a weight */
  int64_t units;        /* of a tap */
  int8_t levels[16];    /* of P1, P2, P4 */
  uint8_t* weights;     /* [planes] tiles */
  size_t plane_bytes;
  double* coefficients;  /* [terms][planes][rows], NULL if there is one and it is 1 */
  double* input_weights; /* [rows], NULL if all are 0 */
  double* scales;        /* [rows] */
  kb_whole_rows whole;   /* instead of these three, where the layer is on whole numbers */
} kb_tile;

typedef struct {
  int64_t out;
  kb_layout layout[KB_IMAGES];
  int64_t tiles;
  kb_tile* tile;
  int64_t* order;       /* [out] channels in the order of the tiles */
  double* bias;         /* [out] in that order, with KB_MAX_ROWS zeros behind */
  double* tap_sums;     /* [taps][out] in that order: what a tap inside the image adds as its inputs
                           have an offset; NULL if they have none */
  int32_t* tap_starts;  /* that in a layer on whole numbers, as part of its totals */
  int is_whole;         /* whether the layer is one of these (whole.h) */
  int needs_input_sums; /* whether some tile has input_weights */
  uint8_t* packed;      /* all weights */
  double* numbers;      /* all coefficients, input weights and scales, */
  int32_t* words;       /* or all shifts, input weights, scales and biases */
  float* depthwise;     /* [taps][out] decoded weights of a depthwise layer, else NULL */
  double* multiplier;   /* [out] of a depthwise layer */
  size_t bytes;         /* allocated in all */
} kb_weights;

int kb_weights_create(const kb_blob* blob, const kb_input* input, const kb_kernels* kernels,
                      kb_weights* weights, kb_error error);
void kb_weights_destroy(kb_weights* weights);

/* Bytes of what outputs start from: a total of whole numbers, or base. */
static inline int64_t kb_base_bytes(const kb_weights* weights) {
  return weights->is_whole ? (int64_t)sizeof(int32_t) : (int64_t)sizeof(double);
}

/* Whether that depends on the taps that meet the input. */
static inline int kb_has_patterns(const kb_weights* weights) {
  return weights->tap_sums || weights->tap_starts;
}

/* Memory on the account of the weights. */
void* kb_weights_alloc(kb_weights* weights, size_t count, size_t size);

#endif
