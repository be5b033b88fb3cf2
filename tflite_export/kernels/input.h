/* Inputs: float -> code -> level -> the bytes or bits that kernels take.
 *
 * A level is an unsigned number of at most 16 bits that is linear in the value, or, for grids of
 * planes, the code. It is cut into terms, so that
 *     value = offset + sum_t scale_t * ((level >> shift_t) & mask_t) */
#ifndef KERASBITS_INPUT_H
#define KERASBITS_INPUT_H

#include "blob.h"

typedef struct {
  int shift;
  unsigned mask;
  double scale;
} kb_term;

typedef struct {
  int count;
  kb_term term[KB_MAX_BITS];
} kb_terms;

typedef struct {
  int kind, bits, is_signed, length;
  float lo, hi, origin, step;
  int32_t zero;
  float* borders;        /* table: midpoints; planes: scales */
  int32_t* table_levels; /* table: magnitudes */
  double offset;
  kb_terms bytes; /* terms of up to 8 bits, for S8 and S16 */
  kb_terms planes; /* terms of one bit, for BITS */
} kb_input;

int kb_input_create(const kb_blob* blob, kb_input* input, kb_error error);
void kb_input_destroy(kb_input* input);

/* Codes of a grid that is not float. NaN has code 0. */
void kb_input_codes(const kb_input* input, const float* x, size_t count, uint16_t* codes);

/* Decoded values, float32. Float grids keep NaN. */
void kb_input_values(const kb_input* input, const float* x, size_t count, float* values,
                     uint16_t* codes);

/* Where the image of an input is, and how large its pixels are: [term][group][pixel]. */
typedef struct {
  uint8_t* data;
  size_t pixel_bytes; /* distance of two pixels */
  size_t pixels;
} kb_image;

/* Terms in a form: 1 for floats. */
int kb_input_terms(const kb_input* input, kb_form form);

/* Bytes that the channels of one pixel take in a form. */
size_t kb_input_pixel_bytes(kb_form form, size_t channels);

/* Fill the image from x[pixels][groups * channels]. `codes` has room for one pixel. */
void kb_input_image(const kb_input* input, kb_form form, const float* x, size_t groups,
                    size_t channels, const kb_image* image, uint16_t* codes);

#endif
