/* run_blob CASES OUTPUTS: runs layers through the public C API and writes their outputs one after
 * the other, for a comparison of machines. A case is, in 32-bit words,
 *     bytes of the blob, rank, dims[rank], the blob, the inputs (float32, or int32 ids)
 * Prints the instruction set in use. */
#include <stdio.h>
#include <stdlib.h>

#include "kb.h"

enum { kTextBytes = 256 };

static void* read_words(FILE* file, size_t words) {
  void* data = malloc(words ? 4 * words : 1);
  if (data && fread(data, 4, words, file) == words) return data;
  fprintf(stderr, "run_blob: expected %zu more words\n", words);
  exit(1);
}

static size_t product(const int32_t* dims, int rank) {
  size_t count = 1;
  for (int i = 0; i < rank; i++) count *= (size_t)dims[i];
  return count;
}

static int run(kb_op* op, const void* x, const int32_t* dims, int rank, FILE* out, char* text) {
  int32_t shape[KB_MAX_RANK];
  int out_rank;
  if (kb_op_output_shape(op, dims, rank, shape, &out_rank, text, kTextBytes)) return -1;
  size_t count = product(shape, out_rank);
  float* y = malloc(count ? 4 * count : 1);
  int failed = kb_op_takes_ids(op) ? kb_op_run_ids(op, x, dims, rank, y, text, kTextBytes)
                                   : kb_op_run(op, x, dims, rank, y, text, kTextBytes);
  if (!failed) fwrite(y, 4, count, out);
  free(y);
  return failed;
}

static void run_case(const uint32_t* header, FILE* in, FILE* out) {
  const int rank = (int)header[1];
  char text[kTextBytes];
  kb_op* op;
  int32_t* dims = read_words(in, (size_t)rank);
  void* blob = read_words(in, header[0] / 4);
  void* x = read_words(in, product(dims, rank));
  if (kb_op_create(blob, header[0], &op, text, sizeof text) || run(op, x, dims, rank, out, text)) {
    fprintf(stderr, "run_blob: %s\n", text);
    exit(1);
  }
  kb_op_free(op);
  free(dims);
  free(blob);
  free(x);
}

int main(int count, char** paths) {
  FILE* in = count == 3 ? fopen(paths[1], "rb") : NULL;
  FILE* out = in ? fopen(paths[2], "wb") : NULL;
  uint32_t header[2];
  if (!out) {
    fprintf(stderr, "usage: run_blob CASES OUTPUTS\n");
    return 2;
  }
  while (fread(header, 4, 2, in) == 2) run_case(header, in, out);
  puts(kb_isa());
  return fclose(in) || fclose(out);
}
