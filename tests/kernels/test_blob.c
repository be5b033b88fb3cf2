/* Broken blobs must be refused or run, never more: for each blob, every truncation and many changed
 * bytes with the checksum made right again, at any address. Also: kb_op_run allocates nothing after
 * kb_op_reserve.
 * More blobs may be named on the command line. */
#include <stdio.h>
#include <stdlib.h>

#include "blobs_for_tests.h"
#include "op.h"

enum { kElements = 1 << 16, kMasks = 3 };

static int failures;

static void expect(int condition, const char* what) {
  if (condition) return;
  printf("expected: %s\n", what);
  failures++;
}

/* Look up some rows, and one row that is not there. */
static void run_ids(kb_op* op) {
  static float y[kElements];
  const int64_t rows = kb_embedding_rows(&op->geometry);
  const int32_t count = 5, last = (int32_t)(rows - 1);
  int32_t ids[5] = {0, last, last / 2, 0, last};
  char text[128] = "";
  if (kb_embedding_columns(&op->geometry) > kElements / count) return;
  expect(!kb_op_run_ids(op, ids, &count, 1, y, text, sizeof text), "rows of an embedding");
  ids[3] = last == INT32_MAX ? -1 : last + 1;
  expect(kb_op_run_ids(op, ids, &count, 1, y, text, sizeof text), "an id without a row");
  ids[3] = -1;
  expect(kb_op_run_ids(op, ids, &count, 1, y, text, sizeof text), "a negative id");
  expect(kb_op_run(op, y, &count, 1, y, text, sizeof text), "no floats as ids");
}

/* Run an op on a small input of its liking; 0 if it cannot be small. */
static int run_small(kb_op* op) {
  static float x[kElements], y[kElements];
  int64_t channels = op->geometry.in * op->geometry.groups;
  int dense = op->geometry.op == KB_DENSE;
  int32_t dims[4] = {dense ? 3 : 2, dense ? (int32_t)channels : 4, 5, (int32_t)channels};
  int rank = dense ? 2 : 4, out_rank;
  int32_t out[KB_MAX_RANK];
  char text[128] = "";
  if (channels > kElements / 40 || op->geometry.out > kElements / 40) return 0;
  if (kb_op_output_shape(op, dims, rank, out, &out_rank, text, sizeof text)) {
    expect(strlen(text) > 0, "a message about the shape");
    return 0;
  }
  int64_t count = 1;
  for (int i = 0; i < out_rank; i++) count *= count > kElements ? 1 : out[i];
  if (count > kElements) return 0;
  for (int i = 0; i < kElements; i++) x[i] = (float)(i % 37) / 9.0f - 2.0f;
  x[0] = x[1] / 0.0f;
  x[2] = x[0] - x[0];
  if (kb_op_reserve(op, dims, rank, text, sizeof text)) return 0;
  expect(kb_op_run_ids(op, NULL, dims, rank, y, text, sizeof text), "no ids as floats");
  const uint8_t* scratch = op->scratch;
  const size_t bytes = op->scratch_bytes;
  expect(!kb_op_run(op, x, dims, rank, y, text, sizeof text), "a run after a reserve");
  expect(op->scratch == scratch && op->scratch_bytes == bytes, "no allocation in a run");
  return 1;
}

/* 1 if accepted. The copy ends with the blob, so that the sanitizer sees any overrun, and starts at
 * an odd address. */
static int try_blob(const uint8_t* data, size_t bytes) {
  char text[128] = "";
  uint8_t* copy = malloc(bytes + 1);
  kb_op* op;
  memcpy(copy + 1, data, bytes);
  int failed = kb_op_create(copy + 1, bytes, &op, text, sizeof text);
  free(copy);
  if (failed) {
    expect(!op && strlen(text) > 0, "a message and no op from a broken blob");
    return 0;
  }
  if (kb_op_takes_ids(op))
    run_ids(op);
  else
    run_small(op);
  kb_op_free(op);
  return 1;
}

static void attack(uint8_t* data, size_t bytes) {
  static const uint8_t masks[kMasks] = {0x01, 0x80, 0xFE};
  expect(try_blob(data, bytes), "a sound blob is accepted");
  for (size_t size = 0; size < bytes; size += size < 128 ? 1 : 8)
    expect(!try_blob(data, size), "a truncated blob is refused");
  size_t step = bytes > 4096 ? bytes / 2048 : 1;
  for (size_t at = 0; at < bytes; at += at < 128 ? 1 : step) {
    for (int m = 0; m < kMasks; m++) {
      data[at] ^= masks[m];
      if (at < 8 || at >= 12) expect(!try_blob(data, bytes), "a wrong checksum is refused");
      uint8_t checksum[4];
      memcpy(checksum, data + 8, 4);
      seal(data, bytes);
      try_blob(data, bytes);
      memcpy(data + 8, checksum, 4);
      data[at] ^= masks[m];
    }
  }
}

/* Sizes whose products fit the sections again once they are cut to 32 bits. */
static void attack_sizes(uint8_t* data, size_t bytes) {
  for (int at = 12; at < 24; at += 4) {
    const uint32_t value = kb_load_u32(data + at);
    for (int shift = 24; shift < 32; shift++) {
      put_u32(data + at, value + (1u << shift));
      seal(data, bytes);
      expect(!try_blob(data, bytes), "sizes beyond the sections are refused");
    }
    put_u32(data + at, value);
  }
  seal(data, bytes);
}

static void attack_file(const char* path) {
  FILE* file = fopen(path, "rb");
  uint8_t* data = calloc(1, 1 << 20);
  size_t bytes = file ? fread(data, 1, 1 << 20, file) : 0;
  expect(bytes > 0, path);
  if (bytes) attack(data, bytes);
  if (file) fclose(file);
  free(data);
}

/* 2^32 pixels are none once they are cut to 32 bits. */
static void large_image(void) {
  static const int32_t dims[4] = {1, 65536, 65536, 4};
  char text[128] = "";
  test_blob blob;
  kb_op* op;
  if (sizeof(size_t) > 4) return; /* there may be memory for them */
  make_test_blob(1, &blob);
  expect(!kb_op_create(blob.data, blob.bytes, &op, text, sizeof text), "a sound blob is accepted");
  expect(kb_op_reserve(op, dims, 4, text, sizeof text), "no memory for 2^32 pixels");
  kb_op_free(op);
}

int main(int count, char** paths) {
  for (int which = 0; which < TEST_BLOBS; which++) {
    test_blob blob;
    make_test_blob(which, &blob);
    attack(blob.data, blob.bytes);
    attack_sizes(blob.data, blob.bytes);
  }
  large_image();
  for (int i = 1; i < count; i++) attack_file(paths[i]);
  printf("%-24s %s\n", "blobs", failures ? "WRONG" : "ok");
  return failures > 0;
}
