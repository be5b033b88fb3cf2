/* Inputs: float -> code -> level -> the bytes or bits that kernels take.
 *
 * A level is an unsigned number of at most 16 bits. It is linear in the value, or, for grids of
 * planes whose scales are not powers of two, it is the code. It is cut into terms, so that
 *     value = offset + unit * sum_t factor_t * ((level >> shift_t) & mask_t)
 * with whole factors if the level is linear. */
#ifndef KERASBITS_INPUT_H
#define KERASBITS_INPUT_H

#include "blob.h"
#include "kernels.h"

typedef struct {
  int shift;
  unsigned mask;
  double factor;
} kb_term;

typedef struct {
  int count, most; /* largest value that a term takes */
  kb_term term[KB_MAX_BITS];
} kb_terms;

typedef struct {
  int kind, bits, is_signed, length;
  float lo, hi, origin, step;
  int32_t zero;
  float* borders;        /* table: midpoints; planes: scales */
  int32_t* table_levels; /* table: magnitudes */
  int linear;    /* whether levels are linear in the value */
  int level_bits; /* of a level */
  double offset, unit;
  kb_terms bytes;  /* terms of up to 8 bits */
  kb_terms planes; /* terms of one bit */
  kb_steps* steps; /* of the low bytes of levels, and of the high ones if there are any; NULL for
                      uniform grids and where codes are more than 256 */
} kb_input;

int kb_input_create(const kb_blob* blob, kb_input* input, kb_error error);
void kb_input_destroy(kb_input* input);

/* Set `steps`; fails if there is no memory. */
int kb_input_find_steps(kb_input* input);

/* The level of a code. */
uint16_t kb_input_level(const kb_input* input, int code);

/* Codes of a grid that is not float. NaN has code 0. */
void kb_input_codes(const kb_input* input, const float* x, size_t count, uint16_t* codes);

/* Decoded values, float32. Float grids keep NaN. */
void kb_input_values(const kb_input* input, const float* x, size_t count, float* values,
                     uint16_t* codes);

/* Levels of a grid that is not float, as bytes: the low ones, and, if levels have more than 8 bits,
 * the high ones. `codes` has room for `count`. */
void kb_input_levels(const kb_input* input, const kb_kernels* kernels, const float* x, size_t count,
                     uint16_t* codes, uint8_t* low, uint8_t* high);

#endif
