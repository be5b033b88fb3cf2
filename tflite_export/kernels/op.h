/* Inside of a kb_op, and the plan of a run for one input shape. */
#ifndef KERASBITS_OP_H
#define KERASBITS_OP_H

#include "embedding.h"
#include "im2col.h"
#include "kb.h"
#include "weights.h"

struct kb_op {
  kb_blob geometry; /* without sections, but for an embedding */
  kb_embedding embedding;
  kb_input input;
  kb_weights weights;
  kb_kernels kernels;
  double* multiplier; /* [out] */
  double* bias;       /* [out] */
  int uses[KB_FORMS]; /* forms that have rows */
  uint8_t* scratch;
  size_t scratch_bytes;
};

/* Sizes for one input shape, and where in the scratch memory things lie (offsets in bytes).
 * One image of the batch is taken at a time, and `block` output pixels of it. */
typedef struct {
  kb_window window;
  int64_t images, in_pixels, out_pixels, block;
  int direct; /* the image itself serves as patches */
  int rank;
  int32_t dims[KB_MAX_RANK];       /* of the output, as the rank */
  size_t pixel_bytes[KB_FORMS];    /* distance of two pixels in an image */
  size_t stride[KB_FORMS];         /* distance of two patches */
  size_t image[KB_FORMS];
  size_t codes, columns, sums, totals, input_sums, results, borders;
  size_t bytes; /* of all */
} kb_plan;

int kb_plan_shape(const kb_op* op, const int32_t* dims, int rank, kb_plan* plan, kb_error error);
int kb_plan_memory(const kb_op* op, kb_plan* plan, kb_error error);

/* Run a plan in op->scratch, which is large enough. */
void kb_execute(const kb_op* op, const kb_plan* plan, const float* x, float* y);

#endif
