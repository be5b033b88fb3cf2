/* What all parts of the library share: errors, memory, and the contract of the kernels. */
#ifndef KERASBITS_CORE_H
#define KERASBITS_CORE_H

#include <float.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __FAST_MATH__
#error "expected exact float arithmetic; -ffast-math changes results"
#endif
/* 16 is the same as 0 for float and double; x87 (2) rounds differently. */
_Static_assert(FLT_EVAL_METHOD == 0 || FLT_EVAL_METHOD == 16,
               "expected float arithmetic in float (on 32-bit x86: -msse2 -mfpmath=sse)");

/* Arguments are checked against the format, but for newlib, where an int32_t is a long (as wide as
 * an int) and each %d would need a cast. */
#if defined(__NEWLIB__)
#define KB_PRINTF(format_at, first)
#else
#define KB_PRINTF(format_at, first) __attribute__((format(printf, format_at, first)))
#endif

/* Where a message goes; `text` may be NULL. */
typedef struct {
  char* text;
  size_t size;
} kb_error;

/* Write a message; returns -1, so that a caller can return it. */
int kb_fail(kb_error error, const char* format, ...) KB_PRINTF(2, 3);

/* Zeroed memory on a 64-byte border, NULL if there is none. Release it with free(). */
void* kb_alloc(size_t count, size_t size);

/* The form in which weights and inputs meet. Inputs are rows of bytes that belong to one output
 * pixel, each row a whole number of chunks of 32 bytes:
 *   BITS  bits x bits: sum of ANDed bits
 *   S8    int8 weights of at most 64 in magnitude x uint8 inputs
 *   S16   int16 weights x uint8 inputs
 *   F32   float x float; a chunk is one element
 * Order matters: sums of one output are added in it. */
typedef enum { KB_FORM_BITS, KB_FORM_S8, KB_FORM_S16, KB_FORM_F32, KB_FORMS } kb_form;

enum {
  KB_CHUNK = 32,      /* input bytes that a kernel takes at a time */
  KB_TILE = 4,        /* weight rows of a tile */
  KB_TILE_F32 = 8,    /* the same for floats */
  KB_MAX_INPUT = 255, /* largest byte of an input */
  KB_MAX_S8 = 64      /* 2 * 255 * 64 fits int16, so vpmaddubsw does not saturate */
};

static inline int kb_tile_rows(kb_form form) {
  return form == KB_FORM_F32 ? KB_TILE_F32 : KB_TILE;
}

/* One tile of weight rows times some input rows:
 *   sums[pixel][row] = sum_k weights[row][k] * inputs[pixel][k]
 * weights  [chunks][KB_TILE][KB_CHUNK] int8 or int16, or bits as [chunks][KB_TILE][32 bytes], or
 *          [chunks][KB_TILE_F32] floats
 * inputs   rows of `chunks` chunks, `stride` bytes apart
 * sums     int32 (float for F32). The caller splits rows so that integer sums fit int32:
 *          32 * chunks * 255 * max_weight < 2^31
 * max_weight  largest magnitude of a weight
 * Floats are added in the order of k, one rounding a step, without fused multiply-add. */
typedef struct {
  const void* weights;
  const uint8_t* inputs;
  size_t stride;
  int pixels;
  int chunks;
  int max_weight;
  void* sums;
} kb_gemm_args;

typedef void (*kb_gemm)(const kb_gemm_args* args);

/* From plain to best, of one processor family each. */
typedef enum {
  KB_ISA_SCALAR,
  KB_ISA_AVX2,
  KB_ISA_NEON,
  KB_ISA_NEONDOT,
  KB_ISAS
} kb_isa_id;

typedef struct {
  kb_isa_id isa;
  kb_gemm gemm[KB_FORMS];
} kb_kernels;

/* The kernels of the best instruction set here, or of the one that KERASBITS_ISA names. */
int kb_select_kernels(kb_kernels* kernels, kb_error error);

/* Whether this machine can run an instruction set. */
int kb_isa_supported(kb_isa_id isa);

#define KB_KERNEL(name, form, isa) void name(const kb_gemm_args* args);
#include "kernels.inc"
#undef KB_KERNEL

#endif
