/* Broken .kbits files must be refused or run, never more: every truncation, and many changed bytes
 * with the checksum made right again. Also: a run allocates nothing, and the memory that a model
 * says it holds is what it allocated. More files may be named on the command line. */
#include <stdio.h>
#include <stdlib.h>

#include "flatbuffer_reader.h"
#include "kb_model.h"
#include "kbits_for_tests.h"

enum { kMasks = 5, kBlocks = 1 << 16, kMostMemory = 1 << 24, kMostBlock = 1 << 22, kFileRoom = 1 << 20, kEnds = 16 };

static int failures;

static void expect(int condition, const char* what) {
  if (condition) return;
  printf("expected: %s\n", what);
  failures++;
}

static size_t held, allocations;

#ifdef COUNTS_ALLOCATIONS
/* What the library holds: the linker sends its calls here. */
static struct {
  void* at;
  size_t bytes;
} blocks[kBlocks];
static size_t block_count;
static size_t refused; /* the allocation with this number, from 1 on, fails */

/* Whether an allocation fails: as told, or because no machine has to have so much memory. */
static int fails(size_t bytes) { return allocations + 1 == refused || bytes > kMostBlock; }

static void* took(void* at, size_t bytes) {
  if (!at) return NULL;
  if (block_count == kBlocks) abort();
  blocks[block_count].at = at;
  blocks[block_count++].bytes = bytes;
  held += bytes;
  allocations++;
  return at;
}

void* __real_malloc(size_t bytes);
void* __real_calloc(size_t count, size_t bytes);
void* __real_aligned_alloc(size_t border, size_t bytes);
void* __real_memalign(size_t border, size_t bytes);
int __real_posix_memalign(void** at, size_t border, size_t bytes);
void __real_free(void* at);
void* __wrap_malloc(size_t bytes);
void* __wrap_calloc(size_t count, size_t bytes);
void* __wrap_realloc(void* at, size_t bytes);
void* __wrap_aligned_alloc(size_t border, size_t bytes);
void* __wrap_memalign(size_t border, size_t bytes);
int __wrap_posix_memalign(void** at, size_t border, size_t bytes);
void __wrap_free(void* at);

void* __wrap_malloc(size_t bytes) {
  return fails(bytes) ? NULL : took(__real_malloc(bytes), bytes);
}

void* __wrap_calloc(size_t count, size_t bytes) {
  return fails(count * bytes) ? NULL : took(__real_calloc(count, bytes), count * bytes);
}

void* __wrap_realloc(void* at, size_t bytes) {
  (void)at, (void)bytes;
  abort(); /* the library has no use for it */
}

void* __wrap_aligned_alloc(size_t border, size_t bytes) {
  return fails(bytes) ? NULL : took(__real_aligned_alloc(border, bytes), bytes);
}

void* __wrap_memalign(size_t border, size_t bytes) {
  return fails(bytes) ? NULL : took(__real_memalign(border, bytes), bytes);
}

int __wrap_posix_memalign(void** at, size_t border, size_t bytes) {
  int failed = fails(bytes) ? 12 : __real_posix_memalign(at, border, bytes);
  if (!failed) took(*at, bytes);
  return failed;
}

void __wrap_free(void* at) {
  for (size_t i = block_count; at && i-- > 0;) {
    if (blocks[i].at != at) continue;
    held -= blocks[i].bytes;
    blocks[i] = blocks[--block_count];
    break;
  }
  __real_free(at);
}
#endif

/* Values for an input: of all kinds as floats, some ids that are too large. */
static void fill(const kb_tensor_info* info, void* values) {
  for (size_t i = 0; i < info->bytes / 4; i++) {
    float value = i % 91 == 90 ? 1e30f : (float)(i % 37) / 9.0f - 2.0f;
    int32_t id = i % 91 == 90 ? INT32_MIN : (int32_t)(i % 3);
    memcpy((uint8_t*)values + 4 * i, info->type == KB_INT32 ? (void*)&id : (void*)&value, 4);
  }
}

/* The results must be the same, and nothing may be allocated. */
static void run_twice(kb_model* model, void* const* inputs, void* outputs[2][kEnds]) {
  char text[128] = "";
  int failed[2];
  kb_tensor_info info;
  const size_t before = allocations;
  for (int i = 0; i < 2; i++)
    failed[i] = kb_model_run(model, (const void* const*)inputs, outputs[i], text, sizeof text);
  expect(allocations == before, "no allocation in a run");
  expect(failed[0] == failed[1] && (!failed[0] || strlen(text) > 0), "runs alike, or a message");
  for (int i = 0; i < kb_model_outputs(model) && !failed[0]; i++) {
    kb_model_output(model, i, &info, text, sizeof text);
    expect(!memcmp(outputs[0][i], outputs[1][i], info.bytes), "the same results twice");
  }
}

/* Run a model on memory that fits its inputs and outputs exactly, unless they are large. */
static void run(kb_model* model) {
  void *inputs[kEnds] = {0}, *outputs[2][kEnds] = {{0}};
  const int ins = kb_model_inputs(model), outs = kb_model_outputs(model);
  kb_tensor_info info;
  char text[128] = "";
  if (ins > kEnds || outs > kEnds) return;
  int small = 1;
  for (int i = 0; i < ins; i++) {
    expect(!kb_model_input(model, i, &info, text, sizeof text), "an input");
    inputs[i] = malloc(info.bytes);
    if (inputs[i]) fill(&info, inputs[i]);
    small &= inputs[i] != NULL;
  }
  for (int i = 0; i < 2 * outs; i++) {
    expect(!kb_model_output(model, i % outs, &info, text, sizeof text), "an output");
    outputs[i / outs][i % outs] = malloc(info.bytes);
    small &= outputs[i / outs][i % outs] != NULL;
  }
  if (small) run_twice(model, inputs, outputs);
  for (int i = 0; i < kEnds; i++) free(inputs[i]), free(outputs[0][i]), free(outputs[1][i]);
}

/* 1 if accepted. The copy is as long as the file, so that the sanitizer sees any overrun, and gone
 * before the model runs. */
static int try_file(const uint8_t* data, size_t bytes, unsigned flags) {
  char text[256] = "";
  const size_t before = held;
  uint8_t* copy = malloc(bytes + 1);
  kb_model* model;
  memcpy(copy + 1, data, bytes); /* at an odd address */
  int failed = kb_model_open(copy + 1, bytes, flags, &model, text, sizeof text);
  free(copy);
  if (failed) {
    expect(!model && strlen(text) > 0, "a message and no model from a broken file");
  } else {
    expect(held == before || held - before == kb_model_memory(model),
           "the memory that the model says it holds");
#ifdef COUNTS_ALLOCATIONS
    expect(held > before, "memory that is counted");
#endif
    if (kb_model_memory(model) < kMostMemory) run(model);
    kb_model_close(model);
  }
  expect(held == before, "no memory held behind");
  return !failed;
}

/* Where a reader would look for the checksum; 0 if nowhere. */
static size_t checksum_at(const uint8_t* data, size_t bytes) {
  kb_reader reader = {.data = data, .bytes = bytes, .unread = bytes};
  kb_fb_table root = kb_fb_root(&reader);
  return kb_fb_field(&reader, &root, 1, 4);
}

static void attack(uint8_t* data, size_t bytes) {
  static const uint8_t masks[kMasks] = {0x01, 0x02, 0x04, 0x80, 0xFE};
  const size_t hole = checksum_at(data, bytes);
  expect(try_file(data, bytes, 0), "a sound file is accepted");
  expect(try_file(data, bytes, KB_KEEP_TENSORS), "a sound file is accepted, keeping tensors");
  expect(!try_file(data, bytes, 2), "unknown flags are refused");
  const size_t step = bytes > 8192 ? bytes / 4096 : 1;
  for (size_t size = 0; size < bytes; size += size < 64 ? 1 : 16 * step)
    expect(!try_file(data, size, 0), "a truncated file is refused");
  for (size_t at = 0; at < bytes; at += step) {
    for (int m = 0; m < kMasks; m++) {
      data[at] ^= masks[m];
      if (m == 0 && (at < hole || at >= hole + 4))
        expect(!try_file(data, bytes, 0), "a wrong checksum is refused");
      size_t place = checksum_at(data, bytes);
      uint8_t before[4];
      if (place) {
        memcpy(before, data + place, 4);
        seal_file(data, bytes, place);
        try_file(data, bytes, m % 2 ? KB_KEEP_TENSORS : 0);
        memcpy(data + place, before, 4);
      }
      data[at] ^= masks[m];
    }
  }
  expect(try_file(data, bytes, 0), "the file is as it was");
}

static void attack_file(const char* path) {
  FILE* file = fopen(path, "rb");
  uint8_t* data = malloc(kFileRoom);
  size_t bytes = file ? fread(data, 1, kFileRoom, file) : 0;
  expect(bytes > 0, path);
  if (bytes) attack(data, bytes);
  if (file) fclose(file);
  free(data);
}

/* Without memory there is a message and nothing left behind, whichever allocation fails. */
static void starve(const uint8_t* data, size_t bytes) {
#ifdef COUNTS_ALLOCATIONS
  const size_t before = held;
  kb_model* model;
  char text[128];
  int failed = 1;
  for (size_t most = 1; failed; most++) {
    text[0] = 0;
    refused = allocations + most;
    failed = kb_model_open(data, bytes, 0, &model, text, sizeof text);
    expect(!failed || (!model && strstr(text, "memory")), "a message about memory");
    expect(!failed || held == before, "nothing left behind");
    expect(failed || most > 10, "more than ten allocations");
  }
  refused = 0;
  kb_model_close(model);
#else
  (void)data, (void)bytes;
#endif
}

/* The tensors of the test file after a run: the sum is the convolution plus the constant, and the
 * outputs are made of it. */
static void check_values(const uint8_t* data, size_t bytes) {
  float x[60], mean[3], turned[60], total[3] = {0};
  const void *inputs[] = {x}, *conv, *sum;
  void* outputs[] = {mean, turned};
  kb_tensor_info info;
  kb_model* model;
  for (int i = 0; i < 60; i++) x[i] = (float)(i % 7) - 3;
  expect(!kb_model_open(data, bytes, KB_KEEP_TENSORS, &model, NULL, 0), "an open model");
  expect(!kb_model_input(model, 0, &info, NULL, 0) && !strcmp(info.name, "image") &&
             info.rank == 4 && info.dims[2] == 5 && info.bytes == 240,
         "the name and shape of the input");
  expect(kb_model_input(model, 1, &info, NULL, 0) && kb_model_output(model, -1, &info, NULL, 0),
         "no second input, no output -1");
  expect(!kb_model_run(model, inputs, outputs, NULL, 0), "a run");
  expect(!kb_model_tensor(model, 1, &info, &conv, NULL, 0) &&
             !kb_model_tensor(model, 3, &info, &sum, NULL, 0) &&
             kb_model_tensor(model, 6, &info, &sum, NULL, 0),
         "tensors 1 and 3, and none of number 6");
  for (int i = 0; i < 60; i++) {
    const float value = ((const float*)sum)[i];
    expect(value == ((const float*)conv)[i] + ((float)(i % 3) - 0.5f), "the sum");
    expect(value == turned[i % 3 * 20 + i / 3], "the transposed sum");
    total[i % 3] += value / 20;
  }
  for (int i = 0; i < 3; i++)
    expect(mean[i] - total[i] < 1e-5f && total[i] - mean[i] < 1e-5f, "the mean");
  kb_model_close(model);
}

int main(int count, char** paths) {
  static test_file file;
  make_test_file(&file);
  check_values(file.data, file.bytes);
  starve(file.data, file.bytes);
  attack(file.data, file.bytes);
  for (int i = 1; i < count; i++) attack_file(paths[i]);
  printf("%-24s %s\n", "models", failures ? "WRONG" : "ok");
  return failures > 0;
}
