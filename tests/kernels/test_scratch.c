/* A run sees nothing of what earlier runs left in its scratch memory: an op that goes from shape to
 * shape finds the same bits again. The library of the C tests fills the memory with something new
 * whenever the shape changes (KB_POISON), so that what is read before it is written shows.
 * More blobs may be named on the command line. */
#include <stdio.h>
#include <stdlib.h>

#include "blobs_for_tests.h"
#include "op.h"
#include "ops.h"
#include "random_for_tests.h"

enum { kShapes = 5, kLargest = 1 << 20 };

static const int32_t sizes[kShapes][3] = {{1, 9, 13}, {2, 4, 5}, {1, 7, 11}, {1, 3, 4}, {1, 3, 29}};

static int failures;

static void expect(int condition, const char* blob, const char* what) {
  if (condition) return;
  printf("%s: expected %s\n", blob, what);
  failures++;
}

typedef struct {
  int32_t dims[4];
  int rank;
  size_t inputs, outputs;
  float *x, *y;
} sample;

/* Inputs of a shape and their outputs in a first run; 0 if the op does not take the shape. */
static int first_run(kb_op* op, const int32_t* size, sample* s) {
  const int dense = op->geometry.op == KB_DENSE;
  const int32_t channels = (int32_t)(op->geometry.in * op->geometry.groups);
  int32_t out[KB_MAX_RANK];
  char text[128];
  int out_rank;
  *s = (sample){.dims = {size[0], size[1], size[2], channels}, .rank = 4, .inputs = 1, .outputs = 1};
  if (dense) {
    s->rank = 2;
    s->dims[0] = size[2];
    s->dims[1] = channels;
  }
  if (kb_op_output_shape(op, s->dims, s->rank, out, &out_rank, text, sizeof text)) return 0;
  for (int i = 0; i < s->rank; i++) s->inputs *= (size_t)s->dims[i];
  for (int i = 0; i < out_rank; i++) s->outputs *= (size_t)out[i];
  s->x = malloc(s->inputs * sizeof *s->x + 1);
  s->y = malloc(s->outputs * sizeof *s->y + 1);
  for (size_t i = 0; i < s->inputs; i++) s->x[i] = (float)between(-999, 999) / 300.0f;
  return !kb_op_run(op, s->x, s->dims, s->rank, s->y, text, sizeof text);
}

static int same_again(kb_op* op, const sample* s) {
  char text[128];
  float* y = malloc(s->outputs * sizeof *y + 1);
  const int failed = kb_op_run(op, s->x, s->dims, s->rank, y, text, sizeof text);
  const int same = !failed && !memcmp(y, s->y, s->outputs * sizeof *y);
  free(y);
  return same;
}

static void check_op(kb_op* op, const char* blob) {
  sample samples[kShapes];
  char text[128];
  for (int i = 0; i < kShapes; i++) {
    if (first_run(op, sizes[i], &samples[i])) continue;
    free(samples[i].x);
    free(samples[i].y);
    samples[i] = (sample){0};
  }
  for (int threads = 1; threads <= 2; threads++) {
    expect(!kb_op_set_threads(op, threads, text, sizeof text), blob, "threads");
    for (int trial = 0; trial < 3 * kShapes; trial++) {
      const sample* s = &samples[trial % 3 ? between(0, kShapes - 1) : 0];
      if (s->x) expect(same_again(op, s), blob, "the bits of the first run");
    }
  }
  for (int i = 0; i < kShapes; i++) {
    free(samples[i].x);
    free(samples[i].y);
  }
}

/* Memory that others use is spoiled before each run of this library. Tables are, and then filled,
 * when a shape comes that is not the last one: not for a run of the same one. */
static void check_lent(kb_op* op, const char* blob) {
#ifdef KB_POISON
  sample s, other;
  if (!first_run(op, sizes[0], &s)) return;
  uint8_t* own = op->scratch;
  const size_t bytes = op->scratch_bytes;
  kb_packed_lend(op, own, bytes);
  for (int i = 0; i < 3; i++) {
    const uint8_t before = op->poison;
    expect(same_again(op, &s), blob, "the same bits in lent memory");
    expect((uint8_t)(op->poison - before) == 0x55, blob, "tables that outlive a run");
  }
  expect(!op->table_bytes == (op->geometry.op == KB_DEPTHWISE), blob, "tables if not depthwise");
  const uint8_t before = op->poison;
  if (first_run(op, sizes[3], &other) && op->scratch == own) /* a smaller shape */
    expect((uint8_t)(op->poison - before) == 2 * 0x55, blob, "tables of another shape");
  op->is_lent = 0; /* it was its own memory */
  free(s.x), free(s.y), free(other.x), free(other.y);
#else
  (void)op, (void)blob;
#endif
}

static void check_blob(const uint8_t* data, size_t bytes, const char* name) {
  char text[128] = "";
  kb_op* op;
  const int failed = kb_op_create(data, bytes, &op, text, sizeof text);
  expect(!failed, name, "a sound blob");
  if (!failed && !kb_op_takes_ids(op)) {
    check_lent(op, name);
    check_op(op, name);
  }
  kb_op_free(op);
}

static void check_file(const char* path) {
  FILE* file = fopen(path, "rb");
  uint8_t* data = malloc(kLargest);
  const size_t bytes = file ? fread(data, 1, kLargest, file) : 0;
  check_blob(data, bytes, path);
  if (file) fclose(file);
  free(data);
}

int main(int count, char** paths) {
  for (int which = 0; which < TEST_BLOBS; which++) {
    test_blob blob;
    make_test_blob(which, &blob);
    check_blob(blob.data, blob.bytes, "a blob of the tests");
  }
  for (int i = 1; i < count; i++) check_file(paths[i]);
  printf("%-24s %s\n", "scratch", failures ? "WRONG" : "ok");
  return failures > 0;
}
