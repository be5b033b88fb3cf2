/* A reader of flatbuffers that checks every offset against the length of the file, and loads
 * byte by byte, so that the file may be at any address.
 *
 * Vectors must not share bytes: all that are read may together be as long as the file. So what a
 * file makes us do is bounded by its length, though offsets may lead to one place many times.
 *
 * Errors stick: after the first, `problem` is set and every function returns nothing (0, an empty
 * vector), so that callers need to look at it only before they use what they read. */
#ifndef KERASBITS_FLATBUFFER_READER_H
#define KERASBITS_FLATBUFFER_READER_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
  const uint8_t* data;
  size_t bytes;
  size_t unread;       /* bytes that vectors may still have; starts as `bytes` */
  const char* problem; /* what is wrong at byte `problem_at`, or NULL */
  size_t problem_at;
} kb_reader;

typedef struct {
  size_t at, bytes;           /* of the table */
  size_t vtable, vtable_bytes;
} kb_fb_table;

/* `count` elements starting at byte `at`; at 0 if the field is absent. */
typedef struct {
  size_t at;
  uint32_t count;
} kb_fb_vector;

/* The table that a file starts with. */
kb_fb_table kb_fb_root(kb_reader* reader);

/* Byte where the scalar of a field is, which has `size` bytes; 0 if it is absent. */
size_t kb_fb_field(kb_reader* reader, const kb_fb_table* table, int slot, size_t size);

/* The scalar of a field, or `otherwise` if it is absent. */
uint32_t kb_fb_u8(kb_reader* reader, const kb_fb_table* table, int slot, uint32_t otherwise);
uint32_t kb_fb_u16(kb_reader* reader, const kb_fb_table* table, int slot, uint32_t otherwise);
uint32_t kb_fb_u32(kb_reader* reader, const kb_fb_table* table, int slot, uint32_t otherwise);

/* The vector of a field, whose elements have `size` bytes. */
kb_fb_vector kb_fb_vector_of(kb_reader* reader, const kb_fb_table* table, int slot, size_t size);

/* A string: a vector of bytes that a zero byte follows. */
kb_fb_vector kb_fb_string_of(kb_reader* reader, const kb_fb_table* table, int slot);

/* Element `i` of a vector of tables, or of u32. i < count. */
kb_fb_table kb_fb_table_at(kb_reader* reader, kb_fb_vector vector, uint32_t i);
uint32_t kb_fb_u32_at(const kb_reader* reader, kb_fb_vector vector, uint32_t i);

#endif
