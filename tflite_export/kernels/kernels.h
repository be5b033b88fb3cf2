/* The contract of the kernels: what each function of an instruction set computes, and from what.
 *
 * A tile holds `rows` output channels, a constant of each kernel. Inputs are broadcast to them, so
 * no sum runs across a vector. Inputs lie once per tensor in an image whose padding is written out
 * as zero bytes. The channels of one pixel are cut into units:
 *
 *   form  an input unit                            a weight unit, for each row of the tile
 *   BITS  64 channels: 8 bytes or 16, see below    64 channels: as many bytes
 *   S8    4 channels: 4 uint8                      4 int8, of at most 128 in magnitude
 *   S16   2 channels: 2 int16 in [0, 255]          2 int16
 *   F32   1 channel: 1 float                       1 float
 *   P1    32 channels: 32 uint8                    byte b = sum_j code[4 j + b] << j
 *   P2    16 channels: 16 uint8                    byte b = sum_j code[4 j + b] << 2 j
 *   P4    8 channels: 8 uint8                      byte b = code[b] | code[4 + b] << 4
 *   T1    32 channels: 8 tables, see below         byte b = sum_j bit[8 b + j] << j
 *
 * P1, P2 and P4 keep the codes of weights; a weight is levels[code]. They are for layers whose
 * weights are too many for the caches. So is T1, for weights of 0 and 1: for each four channels the
 * image has the sums of all 16 subsets of their inputs, where bit j of a subset's number is the
 * j-th of the four: the 16 sums modulo 32, then the 16 sums divided by 32.
 *
 * Bit c of a BITS unit is bit c % 8 of byte c / 8. Instruction sets that look up nibbles take 16
 * bytes instead, of 4 channels each: in an input unit bit c is bit 4 + c % 4 of byte c / 4, so that
 * the byte is the offset of a table of 16 bytes; in a weight unit it is bit c % 4 of a byte.
 *
 * A weight tile is [tap][unit][rows][weight unit], for units of nibbles [tap][unit][16][rows] and
 * for T1 [tap][unit][4][rows]. Image and weights may be read, but not written, up to KB_SLACK - 1
 * bytes behind their end; what lies there may be anything. So may the input's bytes in the last unit
 * of a tap that are of no channel, for their weights are 0. But those of BITS are 0 up to the end of
 * the unit, as kernels may take a byte for the offset of a table; those of P1, P2 and P4, where 0 is a
 * code as others are; and those of T1, where it is a place in a table. Pointers need no alignment
 * beyond that of a byte. */
#ifndef KERASBITS_KERNELS_H
#define KERASBITS_KERNELS_H

#include "core.h"

typedef enum {
  KB_FORM_BITS,
  KB_FORM_S8,
  KB_FORM_S16,
  KB_FORM_F32,
  KB_FORM_P1,
  KB_FORM_P2,
  KB_FORM_P4,
  KB_FORM_T1,
  KB_FORMS
} kb_form;

enum {
  KB_SLACK = 64,       /* bytes behind images and weights that kernels may read */
  KB_MAX_ROWS = 64,    /* of a tile */
  KB_TABLE_BYTES = 32, /* of T1, for four channels */
  KB_MAX_INPUT = 255,  /* largest byte of an input */
  KB_MAX_S8 = 128      /* largest magnitude of an int8 weight */
};

/* Channels, and bytes of a row's weights, in one unit. */
static inline int kb_unit_channels(kb_form form) {
  static const uint8_t channels[KB_FORMS] = {64, 4, 2, 1, 32, 16, 8, 32};
  return channels[form];
}

static inline int kb_unit_weight_bytes(kb_form form, int bits_unit_bytes) {
  return form == KB_FORM_BITS ? bits_unit_bytes : 4;
}

/* Bytes of an input unit; those of BITS depend on the instruction set. */
static inline int kb_unit_input_bytes(kb_form form, int bits_unit_bytes) {
  if (form == KB_FORM_T1) return 8 * KB_TABLE_BYTES;
  return form == KB_FORM_BITS ? bits_unit_bytes : form < KB_FORM_P1 ? 4 : kb_unit_channels(form);
}

/* Set the bit of channel c (of 64) of a row, in the unit of BITS weights of a tile of `rows`. */
static inline void kb_put_weight_bit(uint8_t* unit, int unit_bytes, int rows, int row, int c) {
  if (unit_bytes == 8)
    unit[row * 8 + c / 8] |= (uint8_t)(1u << c % 8);
  else
    unit[c / 4 * rows + row] |= (uint8_t)(1u << c % 4);
}

/* The same for channel c (of 32) of T1. */
static inline void kb_put_table_bit(uint8_t* unit, int rows, int row, int c) {
  unit[c / 8 * rows + row] |= (uint8_t)(1u << c % 8);
}

/* sums[p][r] = sum over taps, units and their elements of weight * input
 * Integer sums are exact: the caller splits them so that int32 suffices. Floats are added in the
 * order of taps and units, one rounding a step, without fused multiply-add. */
typedef struct {
  const uint8_t* const* pixels; /* [count] first byte of the window of each output pixel */
  const ptrdiff_t* taps;        /* [tap_count] offsets in bytes from there */
  const void* weights;          /* one tile */
  const int8_t* levels;         /* P1, P2, P4: 2, 4 or 16 of them */
  void* sums;                   /* int32, or float for F32: [count][rows]; overwritten */
  int count, tap_count, units;  /* units of one tap */
  int rows;                     /* the kernel's own constant; any number for the scalar kernels */
  int used;                     /* rows that are wanted; the other sums may stay unset */
  int unit_bytes;               /* BITS: 8 or 16, the instruction set's own */
  int steps; /* S8, P1, P2, P4: as many units as keep all pairs of products in int16:
                32767 / (2 * largest input * largest weight), 0 if not even one */
} kb_gemm_args;

typedef void (*kb_gemm)(const kb_gemm_args* args);

/* A uniform grid of at most 8 bits, in float32:
 *     level = clip(rint((clip(x, lo, hi) - origin) / step) + zero, 0, top)
 * with ties to even; NaN has level 0. */
typedef struct {
  float lo, hi, origin, step;
  int32_t zero, top;
} kb_grid;

typedef void (*kb_levels)(const kb_grid* grid, const float* x, size_t count, uint8_t* levels);

/* Bit `shift` of each level, as ceil(count / 64) units of BITS; bits behind the last are 0. */
typedef void (*kb_pack_bits)(const uint8_t* levels, size_t count, int shift, uint8_t* image);

/* Tables of T1 for `count` levels, in ceil(count / 32) units; those behind the last are 0. */
typedef void (*kb_sum_tables)(const uint8_t* levels, size_t count, uint8_t* image);

/* Signs of residuals: r = clip(x, lo, hi); then for each plane p its bit is r >= 0, and
 *     r = r - (bit ? scales[p] : -scales[p])
 * in float32. NaN has no bits. */
typedef struct {
  float lo, hi;
  int count; /* at least 1 */
  const float* scales;
} kb_planes;

/* The bits of plane p in images[p], as units of BITS; bits behind the last are 0. */
typedef void (*kb_put_planes)(const kb_planes* planes, const float* x, size_t count,
                              uint8_t* const* images);

/* Steps: levels[n], n the number of borders that x reaches. They are searched in `depth` comparisons,
 * which is 4 to 8: i = 1; i = 2 i + (x >= borders[i]) so often; n = i - 2^depth. Borders that are NaN
 * are reached by no x, and NaN reaches none. */
typedef struct {
  int depth;
  float borders[256];
  uint8_t levels[256];
} kb_steps;

typedef void (*kb_search)(const kb_steps* steps, const float* x, size_t count, uint8_t* levels);

/* y[p][r] = clamp((float)((sum_i coefficient[i][r] * sum[i][p][r]
 *                          + input_weight[r] * input_sum[p]) * scale[r] + base[p][r]), low, high)
 * in double, from left to right, each product and each sum rounded, the first product not added to
 * 0. For evenly spaced levels all but scale and base are whole numbers below 2^53, so the result
 * does not depend on how the layer was cut into parts. clamp(v) is v < low ? low : v > high ? high
 * : v. */
typedef struct {
  const void* sums;            /* part i lies i * part_stride bytes behind: [count][rows] */
  size_t part_stride;
  int parts, is_float;         /* at least one part */
  const double* coefficients;  /* [parts][rows], or NULL if there is one part and all are 1 */
  const double* input_weights; /* [rows], or NULL if that term is left out */
  const double* input_sums;    /* [count] */
  const double* scales;        /* [rows] */
  const void* const* base;     /* [count] pointers to double [rows] */
  float low, high;
  int count, rows, used;       /* the first `used` of the rows are written */
  float* y;
  size_t y_stride;             /* floats between two pixels */
} kb_finish_args;

typedef void (*kb_finish)(const kb_finish_args* args);

/* Outputs of layers whose sums are whole numbers (whole.h), in float32:
 *     total[p][r] = starts[p][r] + sum_i 2^shifts[i] * sum[i][p][r]
 *                   + input_weights[r] * input_sums[p]
 *     y[p][r] = clamp((float)total[p][r] * scales[r] + biases[r], low, high)
 * The total is found modulo 2^32, so that its terms may be added in any order and be as large as
 * they like: it is exact because the totals of the layer fit int32. It is rounded to the nearest
 * float, with ties to even, and so are product and sum, each apart. The clamp is the one above. */
typedef struct {
  const int32_t* sums;          /* part i lies i * part_stride bytes behind: [count][rows] */
  size_t part_stride;
  int parts;                    /* at least one */
  const int32_t* shifts;        /* [parts], of 0 to 31; NULL if there is one part and it is 0 */
  const int32_t* input_weights; /* [rows], or NULL if that term is left out */
  const int32_t* input_sums;    /* [count] */
  const void* const* starts;    /* [count] pointers to int32_t [rows], or NULL if all are 0 */
  const float *scales, *biases; /* [rows] */
  float low, high;
  int count, rows, used;        /* the first `used` of the rows are written */
  float* y;
  size_t y_stride;              /* floats between two pixels */
} kb_finish_whole_args;

typedef void (*kb_finish_whole)(const kb_finish_whole_args* args);

/* sums[p][c] = sum over taps of weights[tap][c] * image byte c of that tap
 * The window of pixel p starts at `pixel + p * pixel_step`. */
typedef struct {
  const uint8_t* pixel;
  size_t pixel_step;
  const ptrdiff_t* taps; /* [tap_count] offsets in bytes */
  int count, tap_count, channels;
  const int16_t* weights; /* [tap_count][channels] */
  int fits16;             /* whether all partial sums fit int16 */
  const struct kb_depthwise_digits* digits; /* the same weights for x86, or NULL (depthwise.h) */
  int32_t* sums;                            /* [count][channels] */
} kb_depthwise_args;

typedef void (*kb_depthwise)(const kb_depthwise_args* args);

/* From plain to best, of one processor family each. AVX512 stands for F, BW, VL, DQ, VNNI,
 * VPOPCNTDQ and BITALG together. */
typedef enum {
  KB_ISA_SCALAR,
  KB_ISA_AVX2,
  KB_ISA_AVX512,
  KB_ISA_NEON,
  KB_ISA_NEONDOT,
  KB_ISA_NEONI8MM,
  KB_ISAS
} kb_isa_id;

/* The functions of one instruction set; what it lacks comes from the plainer ones of its family.
 * One that has a kernel for BITS has pack_bits and put_planes of the same units, too. */
typedef struct {
  kb_isa_id isa;
  kb_gemm gemm[KB_FORMS];
  int rows[KB_FORMS];            /* of a tile */
  kb_isa_id gemm_isa[KB_FORMS];  /* where the kernel comes from */
  int bits_unit_bytes;           /* of an input unit of BITS */
  kb_levels levels;
  kb_pack_bits pack_bits;
  kb_sum_tables sum_tables;
  kb_put_planes put_planes;
  kb_search search;
  kb_finish finish;
  kb_finish_whole finish_whole;
  kb_depthwise depthwise;
} kb_kernels;

/* The kernels of the best instruction set here, or of the one that KERASBITS_ISA names. */
int kb_select_kernels(kb_kernels* kernels, kb_error error);

/* The kernels of an instruction set that this machine supports. */
void kb_kernels_of(kb_isa_id isa, kb_kernels* kernels);

/* Whether this machine can run an instruction set. */
int kb_isa_supported(kb_isa_id isa);

#define KB_GEMM(name, form, isa, rows) void name(const kb_gemm_args* args);
#define KB_LEVELS(name, isa) \
  void name(const kb_grid* grid, const float* x, size_t count, uint8_t* levels);
#define KB_PACK_BITS(name, isa, unit_bytes) \
  void name(const uint8_t* levels, size_t count, int shift, uint8_t* image);
#define KB_SUM_TABLES(name, isa) \
  void name(const uint8_t* levels, size_t count, uint8_t* image);
#define KB_PLANES(name, isa, unit_bytes) \
  void name(const kb_planes* planes, const float* x, size_t count, uint8_t* const* images);
#define KB_SEARCH(name, isa) \
  void name(const kb_steps* steps, const float* x, size_t count, uint8_t* levels);
#define KB_FINISH(name, isa) void name(const kb_finish_args* args);
#define KB_FINISH_WHOLE(name, isa) void name(const kb_finish_whole_args* args);
#define KB_DEPTHWISE(name, isa) void name(const kb_depthwise_args* args);
#include "kernels.inc"

#endif
