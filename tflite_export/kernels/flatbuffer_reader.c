#include "flatbuffer_reader.h"

enum { kIdentifierBytes = 4, kOffsetBytes = 4, kVtableHead = 4, kSlotBytes = 2 };

static void fail(kb_reader* reader, size_t at, const char* problem) {
  if (reader->problem) return;
  reader->problem = problem;
  reader->problem_at = at;
}

/* Whether `count` elements of `size` bytes from `at` on are inside of the file. */
static int inside(kb_reader* reader, size_t at, size_t count, size_t size) {
  if (reader->problem) return 0;
  if (at <= reader->bytes && count <= (reader->bytes - at) / size) return 1;
  fail(reader, at, "expected an offset inside of the file");
  return 0;
}

static uint32_t load_u16(const uint8_t* p) { return p[0] | (uint32_t)p[1] << 8; }

static uint32_t load_u32(const uint8_t* p) { return load_u16(p) | load_u16(p + 2) << 16; }

/* Where the offset at byte `at`, which was checked to be inside, leads to; 0 after an error. */
static size_t follow(kb_reader* reader, size_t at) {
  uint32_t offset = load_u32(reader->data + at);
  if (offset >= kOffsetBytes && offset < reader->bytes - at) return at + offset;
  fail(reader, at, "expected an offset that leads forward, into the file");
  return 0;
}

static kb_fb_table table_at(kb_reader* reader, size_t at) {
  kb_fb_table table = {0};
  if (!inside(reader, at, 1, kOffsetBytes)) return table;
  /* The table says how far before it its vtable is; vtables may also lie behind. */
  int64_t back = (int32_t)load_u32(reader->data + at);
  int64_t vtable = (int64_t)at - back;
  if (vtable < 0 || !inside(reader, (size_t)vtable, 1, kVtableHead)) {
    fail(reader, at, "expected a vtable inside of the file");
    return table;
  }
  table.vtable = (size_t)vtable;
  table.vtable_bytes = load_u16(reader->data + vtable);
  table.bytes = load_u16(reader->data + vtable + kSlotBytes);
  table.at = at;
  if (table.vtable_bytes < kVtableHead || table.vtable_bytes % kSlotBytes ||
      table.bytes < kOffsetBytes)
    fail(reader, table.vtable, "expected a vtable of whole slots and a table that is not empty");
  if (!inside(reader, table.vtable, table.vtable_bytes, 1) || !inside(reader, at, table.bytes, 1))
    return (kb_fb_table){0};
  return table;
}

kb_fb_table kb_fb_root(kb_reader* reader) {
  if (!inside(reader, 0, kOffsetBytes + kIdentifierBytes, 1)) return (kb_fb_table){0};
  return table_at(reader, follow(reader, 0));
}

size_t kb_fb_field(kb_reader* reader, const kb_fb_table* table, int slot, size_t size) {
  size_t entry = kVtableHead + kSlotBytes * (size_t)slot;
  if (reader->problem || entry + kSlotBytes > table->vtable_bytes) return 0;
  size_t offset = load_u16(reader->data + table->vtable + entry);
  if (!offset) return 0;
  if (offset >= kOffsetBytes && offset + size <= table->bytes) return table->at + offset;
  fail(reader, table->vtable + entry, "expected a field inside of its table");
  return 0;
}

uint32_t kb_fb_u8(kb_reader* reader, const kb_fb_table* table, int slot, uint32_t otherwise) {
  size_t at = kb_fb_field(reader, table, slot, 1);
  return at ? reader->data[at] : otherwise;
}

uint32_t kb_fb_u16(kb_reader* reader, const kb_fb_table* table, int slot, uint32_t otherwise) {
  size_t at = kb_fb_field(reader, table, slot, 2);
  return at ? load_u16(reader->data + at) : otherwise;
}

uint32_t kb_fb_u32(kb_reader* reader, const kb_fb_table* table, int slot, uint32_t otherwise) {
  size_t at = kb_fb_field(reader, table, slot, 4);
  return at ? load_u32(reader->data + at) : otherwise;
}

kb_fb_vector kb_fb_vector_of(kb_reader* reader, const kb_fb_table* table, int slot, size_t size) {
  size_t at = kb_fb_field(reader, table, slot, kOffsetBytes);
  if (!at) return (kb_fb_vector){0};
  size_t start = follow(reader, at);
  if (!inside(reader, start, 1, kOffsetBytes)) return (kb_fb_vector){0};
  uint32_t count = load_u32(reader->data + start);
  if (!inside(reader, start + kOffsetBytes, count, size)) return (kb_fb_vector){0};
  if (count * size > reader->unread) {
    fail(reader, start, "expected vectors that share no bytes");
    return (kb_fb_vector){0};
  }
  reader->unread -= count * size;
  return (kb_fb_vector){start + kOffsetBytes, count};
}

kb_fb_vector kb_fb_string_of(kb_reader* reader, const kb_fb_table* table, int slot) {
  kb_fb_vector text = kb_fb_vector_of(reader, table, slot, 1);
  if (!text.at || !inside(reader, text.at + text.count, 1, 1)) return (kb_fb_vector){0};
  for (uint32_t i = 0; i < text.count; i++) {
    if (!reader->data[text.at + i]) fail(reader, text.at + i, "expected a string without zeros");
  }
  if (reader->data[text.at + text.count])
    fail(reader, text.at + text.count, "expected a zero byte behind a string");
  return reader->problem ? (kb_fb_vector){0} : text;
}

kb_fb_table kb_fb_table_at(kb_reader* reader, kb_fb_vector vector, uint32_t i) {
  if (reader->problem) return (kb_fb_table){0};
  size_t at = follow(reader, vector.at + kOffsetBytes * (size_t)i);
  return reader->problem ? (kb_fb_table){0} : table_at(reader, at);
}

uint32_t kb_fb_u32_at(const kb_reader* reader, kb_fb_vector vector, uint32_t i) {
  return load_u32(reader->data + vector.at + 4 * (size_t)i);
}
