/* Sums of two float tensors of one shape, with a clamp. */
#ifndef KERASBITS_ADD_H
#define KERASBITS_ADD_H

#include "pool.h"

/* y = clamp(a + b, low, high) in memory apart from a and b; low <= high. NaN stays NaN. Threads of the
 * pool share the work where that pays. */
void kb_add(kb_pool* pool, const float* a, const float* b, float* y, int64_t count, float low,
            float high);

#endif
