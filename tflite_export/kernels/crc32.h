/* CRC-32 with the polynomial of zlib. */
#ifndef KERASBITS_CRC32_H
#define KERASBITS_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Of `bytes` bytes, in which the four bytes at `hole`, where the checksum itself is kept, count
 * as 0; hole <= bytes - 4. */
uint32_t kb_crc32_around(const uint8_t* data, size_t bytes, size_t hole);

#endif
