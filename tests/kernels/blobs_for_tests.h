/* Blobs written by hand in C, so that the C tests need no Python. */
#ifndef KERASBITS_BLOBS_FOR_TESTS_H
#define KERASBITS_BLOBS_FOR_TESTS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { BLOB_ROOM = 2048 };

typedef struct {
  uint8_t data[BLOB_ROOM];
  size_t bytes;
} test_blob;

static void put_u32(uint8_t* p, uint32_t value) {
  for (int i = 0; i < 4; i++) p[i] = (uint8_t)(value >> 8 * i);
}

static void put_f32(uint8_t* p, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  put_u32(p, bits);
}

/* Bit by bit, unlike the table of the library. */
static uint32_t test_crc32(const uint8_t* p, size_t bytes) {
  uint32_t crc = ~0u;
  for (size_t i = 0; i < bytes; i++) {
    crc ^= p[i];
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return ~crc;
}

static void seal(uint8_t* p, size_t bytes) {
  put_u32(p + 8, 0);
  put_u32(p + 8, test_crc32(p, bytes));
}

static void add_section(test_blob* blob, int index, const void* data, size_t bytes) {
  put_u32(blob->data + 88 + 4 * index, (uint32_t)bytes);
  memcpy(blob->data + blob->bytes, data, bytes);
  blob->bytes += (bytes + 7) / 8 * 8;
}

static void add_floats(test_blob* blob, int index, int count, float first) {
  uint8_t data[256];
  for (int i = 0; i < count; i++) put_f32(data + 4 * i, first + 0.25f * (float)i);
  add_section(blob, index, data, 4 * (size_t)count);
}

/* O outputs of `width` bits, a kernel of kh x kw x in. Of floats (32) the second of
 * several is dropped. */
static void start(test_blob* blob, int op, int encoding, int out, const int* kernel, int width) {
  memset(blob, 0, sizeof *blob);
  blob->bytes = 128;
  uint8_t* p = blob->data;
  memcpy(p, "KBIT\x02", 5);
  p[6] = (uint8_t)op;
  p[7] = (uint8_t)encoding;
  put_u32(p + 12, (uint32_t)out);
  put_u32(p + 16, (uint32_t)kernel[2]);
  put_u32(p + 20, op == 2 ? (uint32_t)out : 1);
  p[24] = (uint8_t)kernel[0];
  p[26] = (uint8_t)kernel[1];
  for (int at = 28; at < 40; at += 2) p[at] = 1;
  p[48] = op == 1 || op == 2;
  put_f32(p + 60, op == 3 ? -INFINITY : -100.0f);
  put_f32(p + 64, op == 3 ? INFINITY : 100.0f);
  p[50] = (uint8_t)width;
  uint8_t bits[64], codes[512];
  memset(bits, width, sizeof bits);
  for (size_t i = 0; i < sizeof codes; i++) codes[i] = (uint8_t)(37 * i + 11);
  if (width > 16) bits[1] = 0;
  int dropped = width > 16 && out > 1;
  int row = kernel[0] * kernel[1] * kernel[2], count = row * (out - dropped);
  size_t stream = (size_t)(count + 63) / 64 * 8;
  for (int plane = 0; plane < width && width <= 16; plane++) {
    for (int i = count; i < (int)stream * 8; i++)
      codes[(size_t)plane * stream + (size_t)i / 8] &= (uint8_t)~(1u << i % 8);
  }
  if (width > 16) add_section(blob, 0, bits, (size_t)out);
  if (width <= 16)
    add_section(blob, 1, codes, stream * (size_t)width);
  else
    add_floats(blob, 1, count, -1.0f);
}

static void set_input(test_blob* blob, int kind, int bits, int length) {
  uint8_t* p = blob->data;
  p[51] = (uint8_t)kind;
  p[52] = (uint8_t)bits;
  p[56] = (uint8_t)length;
  put_f32(p + 68, p[6] == 3 ? -INFINITY : -2.0f);
  put_f32(p + 72, p[6] == 3 ? INFINITY : 2.0f);
  put_f32(p + 76, kind == 2 ? 1.5f : 0.125f);
  put_f32(p + 80, 0.0625f);
}

static void finish(test_blob* blob) {
  seal(blob->data, blob->bytes);
}

enum { TEST_BLOBS = 8 };

static void make_test_blob(int which, test_blob* blob) {
  static const int kernels[TEST_BLOBS][3] = {{1, 1, 19}, {3, 2, 4}, {2, 2, 3}, {3, 3, 1},
                                              {3, 2, 4},  {1, 1, 5}, {1, 1, 7}, {1, 1, 6}};
  if (which == 0) { /* dense, uniform weights of 3 bits without a zero, uniform inputs */
    start(blob, 0, 0, 5, kernels[0], 3);
    add_floats(blob, 2, 1, 0.5f);
    add_floats(blob, 3, 1, 0.1f);
    add_section(blob, 4, "\3\0\0\0", 4);
    add_floats(blob, 6, 5, -0.5f);
    add_floats(blob, 7, 5, 1.0f);
    set_input(blob, 1, 8, 0);
  } else if (which == 1) { /* convolution, table of 4 levels, table of 3 inputs */
    start(blob, 1, 2, 5, kernels[1], 2);
    blob->data[54] = 4;
    add_floats(blob, 2, 1, 0.5f);
    add_section(blob, 5, "\xFF\xFF\0\0\1\0\5\0", 8);
    add_section(blob, 8, "\0\0\1\0\4\0", 6);
    add_floats(blob, 9, 2, 0.25f);
    set_input(blob, 2, 3, 3);
    blob->data[53] = 1;
  } else if (which == 2) { /* convolution, 2 planes with scales per channel, 2 planes of inputs */
    start(blob, 1, 1, 3, kernels[2], 2);
    add_floats(blob, 2, 6, 0.3f);
    add_floats(blob, 3, 3, -0.2f);
    add_floats(blob, 9, 2, 0.4f);
    set_input(blob, 3, 2, 2);
  } else if (which == 3) { /* depthwise, floats */
    start(blob, 2, 3, 4, kernels[3], 32);
    set_input(blob, 0, 32, 0);
  } else if (which == 4) { /* convolution of a widened input, explicit padding */
    start(blob, 1, 0, 5, kernels[4], 4);
    blob->data[36] = 3;
    blob->data[38] = 2;
    blob->data[40] = blob->data[46] = 1;
    blob->data[48] = 2;
    add_floats(blob, 2, 5, 0.5f);
    add_floats(blob, 3, 1, 0.1f);
    set_input(blob, 1, 4, 0);
  } else if (which == 5) { /* embedding of 9 rows by rows, uniform */
    start(blob, 3, 0, 9, kernels[5], 3);
    add_floats(blob, 2, 9, 0.5f);
    add_section(blob, 4, "\3\0\0\0", 4);
    set_input(blob, 0, 32, 0);
  } else if (which == 6) { /* embedding of 7 rows by columns, table of 4 levels */
    start(blob, 3, 2, 3, kernels[6], 2);
    blob->data[49] = 1;
    blob->data[54] = 4;
    add_floats(blob, 2, 1, 0.5f);
    add_section(blob, 5, "\xFF\xFF\0\0\1\0\5\0", 8);
    set_input(blob, 0, 32, 0);
  } else { /* embedding of one row, floats */
    start(blob, 3, 3, 1, kernels[7], 32);
    set_input(blob, 0, 32, 0);
  }
  finish(blob);
}

#endif
