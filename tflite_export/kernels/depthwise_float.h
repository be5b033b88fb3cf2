/* Depthwise layers in floats: for inputs and weights that are no small whole numbers. */
#ifndef KERASBITS_DEPTHWISE_FLOAT_H
#define KERASBITS_DEPTHWISE_FLOAT_H

#include "op.h"

/* Run a plan whose KB_IMAGE_F32 has room for the values of one image of the batch. */
void kb_depthwise_float(const kb_op* op, const kb_plan* plan, const float* x, float* y);

#endif
