/* The header of a blob as a struct, and access to its sections. See docs/blob_format.md. */
#ifndef KERASBITS_BLOB_H
#define KERASBITS_BLOB_H

#include <string.h>

#include "core.h"

enum { KB_DENSE, KB_CONV2D, KB_DEPTHWISE, KB_EMBEDDING };
enum { KB_UNIFORM, KB_PLANES, KB_TABLE, KB_FLOATS };
enum { KB_INPUT_FLOAT, KB_INPUT_UNIFORM, KB_INPUT_TABLE, KB_INPUT_PLANES };
enum { KB_VALID, KB_SAME, KB_EXPLICIT };
enum {
  KB_CHANNEL_BITS,
  KB_CODES,
  KB_SCALE,
  KB_OFFSET,
  KB_ZERO,
  KB_LEVELS,
  KB_MULTIPLIER,
  KB_BIAS,
  KB_INPUT_LEVELS,
  KB_INPUT_BORDERS,
  KB_SECTIONS
};
enum { KB_MAX_BITS = 16, KB_FLOAT_BITS = 32, KB_MAX_ZERO = (1 << 24) - (1 << 16) };

typedef struct {
  const uint8_t* data;
  size_t bytes;
} kb_section;

/* Pairs are (rows, columns). An embedding has `out` channels of `in` elements: if `axis` is 0 the
 * channels are the rows that ids name, if 1 they are the columns. */
typedef struct {
  int op, encoding, axis;
  int64_t out, in, groups, row; /* row: elements of a row, K */
  int64_t kernel[2], stride[2], dilation[2], input_dilation[2];
  int padding;
  int64_t pad_before[2], pad_after[2];
  float act_min, act_max;
  int weight_bits, table_length;
  int input_kind, input_bits, input_signed, input_length;
  float input_lo, input_hi, input_origin, input_step;
  int32_t input_zero;
  kb_section section[KB_SECTIONS];
  size_t stream_at[KB_MAX_BITS + 1];    /* where the streams of a width start in the codes */
  size_t stream_bytes[KB_MAX_BITS + 1]; /* bytes of one stream of a width */
} kb_blob;

/* Check every byte that has a rule, and fill `blob`, which points into `data`. */
int kb_blob_read(const void* data, size_t bytes, kb_blob* blob, kb_error error);

/* Whether a section has the expected size. Sizes by the header are 64 bits wide: a size_t may have
 * 32. */
int kb_blob_check_bytes(const kb_blob* blob, int section, uint64_t expected, kb_error error);

/* Check channel bits and codes, and find the streams. The sections have been found. */
int kb_blob_find_codes(kb_blob* blob, kb_error error);

/* Codes first .. first + count - 1 among all codes of rows of this width. */
void kb_blob_codes(const kb_blob* blob, int width, int64_t first, int64_t count, uint16_t* codes);

/* Little-endian loads that need no alignment. */
static inline uint32_t kb_load_u32(const uint8_t* p) {
  return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline float kb_load_f32(const uint8_t* p) {
  uint32_t bits = kb_load_u32(p);
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline int32_t kb_load_i32(const uint8_t* p) {
  uint32_t bits = kb_load_u32(p);
  int32_t value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline int kb_load_i16(const uint8_t* p) {
  int value = p[0] | p[1] << 8;
  return value < 32768 ? value : value - 65536;
}

/* Element `i` of a section. */
static inline float kb_blob_f32(const kb_blob* blob, int section, int64_t i) {
  return kb_load_f32(blob->section[section].data + 4 * i);
}

static inline int kb_blob_i16(const kb_blob* blob, int section, int64_t i) {
  return kb_load_i16(blob->section[section].data + 2 * i);
}

/* Bits of a channel. */
static inline int kb_blob_width(const kb_blob* blob, int64_t channel) {
  const kb_section* bits = &blob->section[KB_CHANNEL_BITS];
  return bits->bytes ? bits->data[channel] : blob->weight_bits;
}

/* Where the parameter of a channel is in a section of `rows` rows of 1 or `out` entries of four
 * bytes; NULL in a section that is absent because all are 0. */
static inline const uint8_t* kb_blob_param(const kb_blob* blob, int section, int rows, int row,
                                           int64_t channel) {
  const kb_section* s = &blob->section[section];
  if (!s->bytes) return NULL;
  const int shared = s->bytes == 4 * (size_t)rows;
  return s->data + 4 * (shared ? row : row * blob->out + channel);
}

#endif
