/* Layers give the same bits with any number of threads. Built with the thread sanitizer,
 *   make check CHECKED="-O1 -g -fsanitize=thread" BUILD=/tmp/races
 * this also finds races of the engine. */
#include <stdio.h>
#include <stdlib.h>

#include <math.h>

#include "add.h"
#include "blobs_for_tests.h"
#include "kbits_for_tests.h"
#include "kb_model.h"
#include "op.h"
#include "ops.h"

enum { kElements = 1 << 16 };

static int failures;

static void expect(int condition, const char* what) {
  if (condition) return;
  printf("expected: %s\n", what);
  failures++;
}

static void fill(float* x) {
  for (int i = 0; i < kElements; i++) x[i] = (float)(i % 41) / 9.0f - 2.0f;
}

/* A layer on two images of 23 x 17, or on 300 rows. */
static void run_layer(const test_blob* blob) {
  static float x[kElements], one[kElements], several[kElements];
  static const int threads[] = {2, 5, 1, 3};
  char text[128] = "";
  kb_op* op;
  expect(!kb_op_create(blob->data, blob->bytes, &op, text, sizeof text), "an op");
  expect(op->geometry.op != KB_DEPTHWISE || op->geometry.out != 40 || op->depthwise.parts,
         "whole numbers in the layer of 40 channels");
  const int32_t channels = (int32_t)(op->geometry.in * op->geometry.groups);
  const int dense = op->geometry.op == KB_DENSE, rank = dense ? 2 : 4;
  const int32_t dims[4] = {dense ? 300 : 2, dense ? channels : 23, 17, channels};
  fill(x);
  if (kb_op_takes_ids(op)) {
    kb_op_free(op);
    return;
  }
  expect(!kb_op_run(op, x, dims, rank, one, text, sizeof text), "a run");
  for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
    expect(!kb_op_set_threads(op, threads[i], text, sizeof text), "threads");
    expect(kb_pool_threads(op->pool) <= threads[i], "no more threads than wanted");
    for (int again = 0; again < 3; again++) {
      memset(several, 0xaa, sizeof several);
      expect(!kb_op_run(op, x, dims, rank, several, text, sizeof text), "a run of several threads");
      int32_t out[KB_MAX_RANK];
      int out_rank;
      size_t count = 1;
      kb_op_output_shape(op, dims, rank, out, &out_rank, text, sizeof text);
      for (int axis = 0; axis < out_rank; axis++) count *= (size_t)out[axis];
      expect(!memcmp(one, several, count * sizeof *one), "the same of one and several threads");
    }
  }
  const int32_t nothing[4] = {2, 0, dense ? channels : 17, channels};
  expect(!kb_op_set_threads(op, 2, text, sizeof text), "threads");
  const int fails = kb_op_run(op, x, nothing + dense, rank, one, text, sizeof text);
  expect(!fails || strstr(text, "kernel"), "a run of nothing, unless the kernel does not fit");
  expect(kb_op_set_threads(op, 0, text, sizeof text) && strstr(text, "got 0"), "no 0 threads");
  kb_op_free(op);
}

static void run_model(const test_file* file) {
  float x[60], one[2][60], several[2][60];
  const void* inputs[] = {x};
  void *first[] = {one[0], one[1]}, *second[] = {several[0], several[1]};
  char text[128] = "";
  kb_model* model;
  for (int i = 0; i < 60; i++) x[i] = (float)(i % 7) - 3;
  expect(!kb_model_open(file->data, file->bytes, 0, &model, text, sizeof text), "a model");
  const size_t memory = kb_model_memory(model);
  expect(!kb_model_run(model, inputs, first, text, sizeof text), "a run of a model");
  expect(!kb_model_set_threads(model, 3, text, sizeof text), "threads of a model");
  expect(kb_model_memory(model) >= memory, "memory for threads");
  expect(!kb_model_run(model, inputs, second, text, sizeof text), "a run of several threads");
  expect(!memcmp(one[0], several[0], 3 * sizeof(float)) &&
             !memcmp(one[1], several[1], sizeof one[1]),
         "the same of one and several threads");
  expect(!kb_model_set_threads(model, 1, text, sizeof text), "one thread again");
  expect(kb_model_memory(model) == memory, "no memory for threads");
  expect(!kb_model_run(model, inputs, second, text, sizeof text), "a run of one thread again");
  expect(kb_model_set_threads(model, 257, text, sizeof text) && strstr(text, "got 257"),
         "no 257 threads");
  expect(!kb_model_run(model, inputs, second, text, sizeof text), "a run after an error");
  kb_model_close(model);
}

/* 40 channels of 4 bits, inputs of 8 bits whose level 0 is 0. */
static void make_depthwise(test_blob* blob) {
  static const int kernel[3] = {3, 3, 1};
  start(blob, KB_DEPTHWISE, KB_UNIFORM, 40, kernel, 4);
  add_floats(blob, KB_SCALE, 1, 0.5f);
  add_section(blob, KB_ZERO, "\7\0\0\0", 4);
  set_input(blob, KB_INPUT_UNIFORM, 8, 0);
  put_f32(blob->data + 76, 0.0f);
  finish(blob);
}

/* The sum of two tensors against its own words, with what a clamp must not lose. */
static void add_tensors(void) {
  enum { kMost = 9000 };
  static const int counts[] = {0, 1, 15, 2047, 2048, 2049, 5000, kMost}, threads[] = {1, 2, 5};
  static const float odd[] = {NAN, INFINITY, -INFINITY, -0.0f, 0.0f, 3e38f, 1e-40f, -3e38f};
  static float a[kMost], b[kMost], y[kMost + 1];
  for (int i = 0; i < kMost; i++) {
    a[i] = i % 5 ? (float)(i % 83) / 7.0f - 6.0f : odd[i / 5 % 8];
    b[i] = i % 7 ? (float)(i % 61) / 3.0f - 10.0f : odd[i / 7 / 8 % 8];
  }
  for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
    kb_pool* pool;
    expect(!kb_pool_create(threads[t], &pool, (kb_error){NULL, 0}), "a pool");
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
      for (int clamp = 0; clamp < 3; clamp++) {
        const float low = clamp ? 0.0f : -INFINITY, high = clamp == 2 ? 6.0f : INFINITY;
        y[counts[c]] = 77;
        kb_add(pool, a, b, y, counts[c], low, high);
        for (int i = 0; i < counts[c]; i++) {
          const float sum = a[i] + b[i], right = sum < low ? low : sum > high ? high : sum;
          expect(right != right ? y[i] != y[i] : !memcmp(&right, &y[i], sizeof right), "a sum");
        }
        expect(y[counts[c]] == 77, "nothing behind the sums");
      }
    }
    kb_pool_destroy(pool);
  }
}

/* Pooling of two images, once by lines and once by windows. */
static void pool_images(uint32_t op, int32_t channels) {
  static float x[kElements], one[kElements], several[kElements];
  const int32_t width = 24, out = 12;
  kb_tensor from = {.info = {.rank = 4, .dims = {2, width, width, channels}}, .data = x};
  kb_tensor to = {.info = {.rank = 4, .dims = {2, out, out, channels}}, .data = one};
  const kb_tensor* inputs[] = {&from};
  kb_node node = {.operation = kb_operation_of(op), .op = op, .x = inputs, .y = &to, .int_count = 8,
                  .ints = {3, 3, 2, 2, 1, 0, 1, 0}};
  const kb_error quiet = {NULL, 0};
  fill(x);
  from.count = 2 * width * width * channels;
  to.count = 2 * out * out * channels;
  expect(from.count <= kElements && from.count >= KB_SHARED_VALUES, "images that are shared");
  expect(!kb_check_pool(&node, quiet) && !kb_run_pool(&node, quiet), "pooling");
  expect(!kb_pool_create(3, &node.pool, quiet), "threads");
  to.data = several;
  for (int again = 0; again < 50; again++) { /* threads take a while to come */
    memset(several, 0xaa, (size_t)to.count * sizeof *several);
    expect(!kb_run_pool(&node, quiet), "pooling by several threads");
    expect(!memcmp(one, several, (size_t)to.count * sizeof *one), "the same of one and several");
  }
  kb_pool_destroy(node.pool);
}

int main(void) {
  static test_file file;
  test_blob depthwise;
  make_depthwise(&depthwise);
  run_layer(&depthwise);
  for (int which = 0; which < TEST_BLOBS; which++) {
    test_blob blob;
    make_test_blob(which, &blob);
    run_layer(&blob);
  }
  add_tensors();
  for (int32_t channels = 5; channels <= 20; channels += 15) {
    pool_images(KB_OP_MAX_POOL, channels);
    pool_images(KB_OP_AVERAGE_POOL, channels);
  }
  make_test_file(&file);
  run_model(&file);
  printf("%-24s %s\n", "threads", failures ? "WRONG" : "ok");
  return failures > 0;
}
