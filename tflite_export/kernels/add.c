/* The sum at the end of a residual block. What it adds has just been written by the threads that
 * share it, mostly each its half, so they share this, too: alone, one would have to fetch what is in
 * the caches of the others. */
#include "add.h"

enum {
  kFewest = 2048, /* sums that two threads do sooner than one */
  kMost = 1 << 28 /* items */
};

typedef struct {
  const float *a, *b;
  float* y;
  int64_t count, each;
  float low, high;
} kb_sum;

/* Two comparisons that are a maximum and a minimum of vectors: they keep NaN, and -0 at a bound 0. */
static void add_item(void* context, int item, int worker) {
  const kb_sum* sum = context;
  const int64_t first = item * sum->each, left = sum->count - first;
  const int64_t count = left < sum->each ? left : sum->each;
  const float *restrict a = sum->a + first, *restrict b = sum->b + first;
  const float low = sum->low, high = sum->high;
  float* restrict y = sum->y + first;
  (void)worker;
  for (int64_t i = 0; i < count; i++) {
    float value = a[i] + b[i];
    value = value < low ? low : value;
    y[i] = value > high ? high : value;
  }
}

void kb_add(kb_pool* pool, const float* a, const float* b, float* y, int64_t count, float low,
            float high) {
  kb_sum sum = {a, b, y, count, count, low, high};
  const int64_t items = count < kFewest ? 1 : kb_pool_threads(pool);
  sum.each = ((count + items - 1) / items + 15) / 16 * 16; /* whole cache lines */
  if (sum.each < count / kMost + 1) sum.each = count / kMost + 1;
  kb_parallel(items > 1 ? pool : NULL, (int)((count + sum.each - 1) / sum.each), add_item, &sum);
}
