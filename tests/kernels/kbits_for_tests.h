/* A .kbits file written by hand in C, so that the C tests need no Python: tables are put one after
 * the other, each behind its vtable, and their offsets are set when what they lead to is there. */
#ifndef KERASBITS_KBITS_FOR_TESTS_H
#define KERASBITS_KBITS_FOR_TESTS_H

#include "blobs_for_tests.h"

enum { FILE_ROOM = 1 << 14, MOST_SLOTS = 8 };

typedef struct {
  uint8_t data[FILE_ROOM];
  uint32_t bytes;
} test_file;

static void align_file(test_file* f, uint32_t to) { f->bytes = (f->bytes + to - 1) / to * to; }

/* A table whose slots all have four bytes; returns where it is. Slot i is at the table + 4 + 4i. */
static uint32_t add_table(test_file* f, uint32_t slots) {
  align_file(f, 4);
  uint8_t* vtable = f->data + f->bytes;
  const uint32_t vtable_bytes = (4 + 2 * slots + 3) / 4 * 4;
  vtable[0] = (uint8_t)(4 + 2 * slots);
  vtable[2] = (uint8_t)(4 + 4 * slots);
  for (uint32_t i = 0; i < slots; i++) vtable[4 + 2 * i] = (uint8_t)(4 + 4 * i);
  f->bytes += vtable_bytes;
  const uint32_t at = f->bytes;
  put_u32(f->data + at, vtable_bytes);
  f->bytes += 4 + 4 * slots;
  return at;
}

static void set_slot(test_file* f, uint32_t table, uint32_t slot, uint32_t value) {
  put_u32(f->data + table + 4 + 4 * slot, value);
}

/* A field that leads to the end of the file. */
static void lead_here(test_file* f, uint32_t from) { put_u32(f->data + from, f->bytes - from); }

/* A vector of `count` elements in `bytes` bytes, on a border; a zero byte behind it ends strings. */
static void add_vector(test_file* f, uint32_t table, uint32_t slot, const void* data,
                       uint32_t count, uint32_t bytes, uint32_t border) {
  while ((f->bytes + 4) % border) f->bytes++;
  lead_here(f, table + 4 + 4 * slot);
  put_u32(f->data + f->bytes, count);
  memcpy(f->data + f->bytes + 4, data, bytes);
  f->bytes += 4 + bytes + 1;
  align_file(f, 4);
}

static void add_bytes(test_file* f, uint32_t table, uint32_t slot, const void* data,
                      uint32_t bytes, uint32_t border) {
  add_vector(f, table, slot, data, bytes, bytes, border);
}

static void add_words(test_file* f, uint32_t table, uint32_t slot, const int32_t* words,
                      uint32_t count) {
  uint8_t raw[64 * 4];
  for (uint32_t i = 0; i < count; i++) put_u32(raw + 4 * i, (uint32_t)words[i]);
  add_vector(f, table, slot, raw, count, 4 * count, 4);
}

/* A vector of `count` tables that are added next; returns where their offsets go. */
static uint32_t add_list(test_file* f, uint32_t table, uint32_t slot, uint32_t count) {
  align_file(f, 4);
  lead_here(f, table + 4 + 4 * slot);
  put_u32(f->data + f->bytes, count);
  const uint32_t first = f->bytes + 4;
  f->bytes += 4 + 4 * count;
  return first;
}

static void lead_to(test_file* f, uint32_t from, uint32_t table) {
  put_u32(f->data + from, table - from);
}

static void add_tensor(test_file* f, uint32_t from, const int32_t* shape, uint32_t rank,
                       const char* name, const void* data, uint32_t bytes) {
  const uint32_t table = add_table(f, data ? 4 : 3);
  lead_to(f, from, table);
  add_words(f, table, 0, shape, rank);
  set_slot(f, table, 1, 0);
  add_bytes(f, table, 2, name, (uint32_t)strlen(name), 4);
  if (data) add_bytes(f, table, 3, data, bytes, 4);
}

static void add_node(test_file* f, uint32_t from, int32_t op, const int32_t* inputs,
                     uint32_t count, uint32_t output, const int32_t* ints, uint32_t int_count) {
  const uint32_t table = add_table(f, int_count ? 5 : 4);
  lead_to(f, from, table);
  set_slot(f, table, 0, (uint32_t)op);
  set_slot(f, table, 1, 0);
  add_words(f, table, 2, inputs, count);
  set_slot(f, table, 3, output);
  if (int_count) add_words(f, table, 4, ints, int_count);
}

/* Where the checksum of such a file is, and setting it. */
static void seal_file(uint8_t* data, uint32_t bytes, uint32_t at) {
  put_u32(data + at, 0);
  put_u32(data + at, test_crc32(data, bytes));
}

/* x [1, 4, 5, 3], convolved with the blob of planes to [1, h, w, 3], plus a constant, transposed,
 * and its mean over rows and columns; outputs are the mean and the transposed sum. */
static uint32_t make_test_file(test_file* f) {
  static const int32_t image[] = {1, 4, 5, 3}, turned[] = {1, 3, 4, 5}, channels[] = {3};
  static const int32_t mean[] = {1, 3}, order[] = {0, 3, 1, 2}, axes[] = {2, 3};
  static const int32_t ends[][2] = {{0}, {1, 2}, {3}, {4}};
  static const int32_t outputs[] = {5, 4};
  test_blob blob;
  uint8_t added[12];
  memset(f, 0, sizeof *f);
  make_test_blob(2, &blob);
  for (int i = 0; i < 3; i++) put_f32(added + 4 * i, (float)i - 0.5f);
  f->bytes = 8;
  memcpy(f->data + 4, "KBMF", 4);
  const uint32_t root = add_table(f, 7);
  lead_to(f, 0, root);
  set_slot(f, root, 0, 1);
  uint32_t list = add_list(f, root, 2, 6);
  add_tensor(f, list, image, 4, "image", NULL, 0);
  add_tensor(f, list + 4, image, 4, "", NULL, 0);
  add_tensor(f, list + 8, channels, 1, "", added, sizeof added);
  add_tensor(f, list + 12, image, 4, "", NULL, 0);
  add_tensor(f, list + 16, turned, 4, "turned", NULL, 0);
  add_tensor(f, list + 20, mean, 2, "mean", NULL, 0);
  list = add_list(f, root, 3, 1);
  const uint32_t packed = add_table(f, 2);
  lead_to(f, list, packed);
  add_bytes(f, packed, 0, "conv", 4, 4);
  add_bytes(f, packed, 1, blob.data, (uint32_t)blob.bytes, 64);
  list = add_list(f, root, 4, 4);
  add_node(f, list, 0, ends[0], 1, 1, NULL, 0);
  add_node(f, list + 4, 1, ends[1], 2, 3, NULL, 0);
  add_node(f, list + 8, 40, ends[2], 1, 4, order, 4);
  add_node(f, list + 12, 32, ends[3], 1, 5, axes, 2);
  add_words(f, root, 5, ends[0], 1);
  add_words(f, root, 6, outputs, 2);
  seal_file(f->data, f->bytes, root + 8);
  return root + 8;
}

#endif
