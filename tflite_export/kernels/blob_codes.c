/* The codes of a blob: streams of bits of the channels of one width. */
#include "blob.h"

static int check_channel_bits(kb_blob* blob, int64_t* count, kb_error error) {
  const kb_section* bits = &blob->section[KB_CHANNEL_BITS];
  int widest = 0, widths = 0;
  if (!bits->bytes) count[widest = blob->weight_bits] = blob->out;
  for (size_t o = 0; o < bits->bytes; o++) {
    count[bits->data[o]]++;
    if (bits->data[o] > widest) widest = bits->data[o];
  }
  if (widest != blob->weight_bits)
    return kb_fail(error, "blob, byte 50: expected %d, the widest channel, got %d", widest,
                   blob->weight_bits);
  if (blob->encoding == KB_FLOATS && count[0] + count[KB_FLOAT_BITS] != blob->out)
    return kb_fail(error, "blob, section channel bits: expected 0 or %d, got others",
                   KB_FLOAT_BITS);
  for (int width = 1; width <= widest; width++) widths += count[width] > 0;
  if (blob->encoding != KB_UNIFORM && widths > 1)
    return kb_fail(error, "blob, section channel bits: expected one width, got %d", widths);
  return 0;
}

/* Find the streams of each width; no bit may be set behind the codes of a stream. */
static int find_streams(kb_blob* blob, const int64_t* count, kb_error error) {
  uint64_t at = 0;
  for (int width = 1; width <= KB_MAX_BITS; width++) {
    blob->stream_at[width] = (size_t)at;
    blob->stream_bytes[width] = (size_t)((count[width] * blob->row + 63) / 64 * 8);
    at += (uint64_t)width * blob->stream_bytes[width];
  }
  if (kb_blob_check_bytes(blob, KB_CODES, at, error)) return -1;
  for (int width = 1; width <= KB_MAX_BITS; width++) {
    const uint8_t* stream = blob->section[KB_CODES].data + blob->stream_at[width];
    int64_t used = count[width] * blob->row;
    for (int plane = 0; plane < width; plane++, stream += blob->stream_bytes[width]) {
      for (int64_t bit = used; bit < (int64_t)blob->stream_bytes[width] * 8; bit++) {
        if (stream[bit / 8] >> bit % 8 & 1)
          return kb_fail(error, "blob, section codes: expected zero bits behind the codes of "
                                "width %d, got 1", width);
      }
    }
  }
  return 0;
}

int kb_blob_find_codes(kb_blob* blob, kb_error error) {
  int64_t count[256] = {0};
  if (check_channel_bits(blob, count, error)) return -1;
  if (blob->encoding != KB_FLOATS) return find_streams(blob, count, error);
  const int64_t values = count[KB_FLOAT_BITS] * blob->row;
  return kb_blob_check_bytes(blob, KB_CODES, 4 * (uint64_t)values, error);
}

void kb_blob_codes(const kb_blob* blob, int width, int64_t first, int64_t count, uint16_t* codes) {
  memset(codes, 0, (size_t)count * sizeof *codes);
  const uint8_t* stream = blob->section[KB_CODES].data + blob->stream_at[width];
  for (int plane = 0; plane < width; plane++, stream += blob->stream_bytes[width]) {
    for (int64_t k = 0, bit = first; k < count; k++, bit++)
      codes[k] |= (uint16_t)((stream[bit / 8] >> bit % 8 & 1) << plane);
  }
}
