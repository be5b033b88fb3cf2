/* Every kernel of kernels.inc that this machine can run, against the definition in core.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

static uint64_t state = 88172645463325252u;

static uint32_t draw(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 16);
}

static double bits_in_common(const uint8_t* a, const uint8_t* b) {
  int count = 0;
  for (int i = 0; i < KB_CHUNK; i++) {
    for (int bit = 0; bit < 8; bit++) count += (a[i] & b[i]) >> bit & 1;
  }
  return count;
}

/* Sum of one row and pixel; floats in the order of k, in float. */
static double definition(const kb_gemm_args* args, kb_form form, int pixel, int row) {
  const uint8_t* x = args->inputs + (size_t)pixel * args->stride;
  const uint8_t* w = args->weights;
  float total = 0;
  double sum = 0;
  for (int chunk = 0; chunk < args->chunks; chunk++) {
    size_t at = ((size_t)chunk * KB_TILE + (size_t)row) * KB_CHUNK;
    if (form == KB_FORM_F32) {
      total += ((const float*)(const void*)w)[chunk * KB_TILE_F32 + row] *
               ((const float*)(const void*)x)[chunk];
      continue;
    }
    if (form == KB_FORM_BITS) sum += bits_in_common(x + chunk * KB_CHUNK, w + at);
    for (int i = 0; form != KB_FORM_BITS && i < KB_CHUNK; i++) {
      size_t k = at + (size_t)i;
      int weight = form == KB_FORM_S8 ? ((const int8_t*)w)[k] : ((const int16_t*)(const void*)w)[k];
      sum += (double)weight * x[chunk * KB_CHUNK + i];
    }
  }
  return form == KB_FORM_F32 ? (double)total : sum;
}

/* Random, or everything at an end of its range. Inputs of 0 are the largest for a kernel that takes
 * them as x - 128. */
typedef enum { RANDOM, INPUTS_255, INPUTS_0 } draws;

/* Weights have a magnitude up to `most`. */
static void fill(kb_gemm_args* args, kb_form form, uint8_t* weights, uint8_t* inputs, int most,
                 draws how) {
  const int extreme = how != RANDOM;
  size_t count = (size_t)args->chunks * KB_TILE * KB_CHUNK;
  size_t bytes = args->stride * (size_t)args->pixels;
  for (size_t i = 0; form != KB_FORM_F32 && i < bytes; i++)
    inputs[i] = (uint8_t)(how == RANDOM ? draw() : how == INPUTS_255 ? 255 : 0);
  for (size_t i = 0; form == KB_FORM_F32 && i < bytes / 4; i++)
    ((float*)(void*)inputs)[i] = (float)(int32_t)draw() / 1e9f;
  for (size_t i = 0; i < count; i++) {
    int weight = extreme ? -most : (int)(draw() % (2u * (unsigned)most + 1)) - most;
    if (form == KB_FORM_BITS) weights[i] = (uint8_t)(extreme ? 255 : draw());
    if (form == KB_FORM_S8) ((int8_t*)weights)[i] = (int8_t)weight;
    if (form == KB_FORM_S16) ((int16_t*)(void*)weights)[i] = (int16_t)weight;
  }
  for (int i = 0; form == KB_FORM_F32 && i < args->chunks * KB_TILE_F32; i++)
    ((float*)(void*)weights)[i] = (float)(int32_t)draw() / 1e9f;
  args->weights = weights;
  args->inputs = inputs;
  args->max_weight = most;
}

static int check(const char* name, kb_gemm gemm, kb_form form, int chunks, int pixels, int most,
                 draws how) {
  const int rows = kb_tile_rows(form);
  const size_t row_bytes = (size_t)chunks * (form == KB_FORM_F32 ? sizeof(float) : KB_CHUNK);
  kb_gemm_args args = {.chunks = chunks, .pixels = pixels};
  args.stride = (row_bytes + KB_CHUNK - 1) / KB_CHUNK * KB_CHUNK + KB_CHUNK * (draw() % 2);
  uint8_t* weights = kb_alloc((size_t)chunks * KB_TILE * KB_CHUNK, sizeof(int16_t));
  uint8_t* inputs = kb_alloc((size_t)pixels, args.stride);
  /* Exactly as long as the contract says, so that the sanitizer sees an overrun. */
  int32_t* sums = malloc((size_t)(pixels * rows) * sizeof *sums);
  fill(&args, form, weights, inputs, most, how);
  args.sums = sums;
  gemm(&args);
  int wrong = 0;
  for (int pixel = 0; pixel < pixels; pixel++) {
    for (int row = 0; row < rows; row++) {
      int at = pixel * rows + row;
      double got = form == KB_FORM_F32 ? (double)((float*)(void*)sums)[at] : (double)sums[at];
      if (got != definition(&args, form, pixel, row) && !wrong++)
        printf("%s: chunks %d, pixels %d, weights up to %d: expected %.9g, got %.9g\n", name,
               chunks, pixels, most, definition(&args, form, pixel, row), got);
    }
  }
  free(weights);
  free(inputs);
  free(sums);
  return wrong > 0;
}

static int check_sizes(const char* name, kb_gemm gemm, kb_form form) {
  static const int chunks[] = {1, 2, 3, 7, 15, 16, 31, 32, 63, 72, 100};
  static const int s8[] = {1, 2, 7, 8, 31, 33, 63, KB_MAX_S8}, s16[] = {1, 128, 1000, 32767};
  const int bounds = form == KB_FORM_S8 ? 8 : form == KB_FORM_S16 ? 4 : 1;
  int wrong = 0;
  for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++) {
    for (int b = 0; b < bounds; b++) {
      int most = form == KB_FORM_S8 ? s8[b] : form == KB_FORM_S16 ? s16[b] : 1;
      int room = (int)(INT32_MAX / ((int64_t)KB_CHUNK * KB_MAX_INPUT * most));
      int count = form == KB_FORM_S16 && chunks[c] > room ? room : chunks[c];
      for (int pixels = 1; pixels <= 9; pixels++)
        wrong += check(name, gemm, form, count, pixels, most, RANDOM);
      /* Kernels take one, two or four pixels at a time. */
      wrong += check(name, gemm, form, count, 7, most, INPUTS_255);
      wrong += check(name, gemm, form, count, 7, most, INPUTS_0);
    }
  }
  printf("%-24s %s\n", name, wrong ? "WRONG" : "ok");
  return wrong;
}

int main(void) {
  int wrong = 0;
#define KB_KERNEL(name, form, isa) \
  if (kb_isa_supported(isa)) wrong += check_sizes(#name, name, form);
#include "kernels.inc"
#undef KB_KERNEL
  return wrong > 0;
}
