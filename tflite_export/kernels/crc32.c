#include "crc32.h"

static uint32_t add(uint32_t crc, const uint32_t* table, const uint8_t* data, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) crc = table[(crc ^ data[i]) & 255] ^ crc >> 8;
  return crc;
}

uint32_t kb_crc32_around(const uint8_t* data, size_t bytes, size_t hole) {
  static const uint8_t zeros[4];
  uint32_t table[256];
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    table[i] = crc;
  }
  uint32_t crc = add(~0u, table, data, hole);
  crc = add(crc, table, zeros, sizeof zeros);
  return ~add(crc, table, data + hole + 4, bytes - hole - 4);
}
