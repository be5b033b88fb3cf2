#include "embedding.h"

#include <stdlib.h>

#include "channel.h"

enum { kSome = 64 }; /* codes at a time */

/* Where the elements of a channel start among all those of its width. */
static int64_t start_of(const kb_blob* blob, const kb_embedding* embedding, int64_t channel) {
  return (embedding->rank ? embedding->rank[channel] : channel) * blob->row;
}

static int check_codes(const kb_blob* blob, const kb_embedding* embedding, kb_error error) {
  uint16_t codes[kSome];
  if (blob->encoding != KB_TABLE) return 0;
  for (int64_t o = 0; o < blob->out; o++) {
    const int width = kb_blob_width(blob, o);
    const int64_t start = start_of(blob, embedding, o);
    for (int64_t k = 0; width && k < blob->row; k += kSome) {
      int64_t some = blob->row - k < kSome ? blob->row - k : kSome;
      kb_blob_codes(blob, width, start + k, some, codes);
      if (kb_channel_check(blob, o, codes, some, error)) return -1;
    }
  }
  return 0;
}

static int set_ranks(const kb_blob* blob, kb_embedding* embedding) {
  uint32_t count[256] = {0};
  if (!blob->section[KB_CHANNEL_BITS].bytes) return 0;
  embedding->rank = kb_alloc((size_t)blob->out, sizeof *embedding->rank);
  for (int64_t o = 0; embedding->rank && o < blob->out; o++)
    embedding->rank[o] = count[kb_blob_width(blob, o)]++;
  return embedding->rank ? 0 : -1;
}

int kb_embedding_create(const void* data, size_t bytes, kb_blob* blob, kb_embedding* embedding,
                        kb_error error) {
  const uint8_t* from = data;
  embedding->copy = kb_alloc(1, bytes);
  if (!embedding->copy || set_ranks(blob, embedding)) return kb_fail(error, "out of memory");
  memcpy(embedding->copy, from, bytes);
  for (int i = 0; i < KB_SECTIONS; i++)
    blob->section[i].data = embedding->copy + (blob->section[i].data - from);
  return check_codes(blob, embedding, error);
}

void kb_embedding_destroy(kb_embedding* embedding) {
  free(embedding->copy);
  free(embedding->rank);
  *embedding = (kb_embedding){0};
}

/* Elements first .. first + count - 1 of a channel. */
static void decode(const kb_blob* blob, const kb_embedding* embedding, int64_t channel,
                   int64_t first, int64_t count, float* y) {
  const int width = kb_blob_width(blob, channel);
  const int64_t start = start_of(blob, embedding, channel) + first;
  uint16_t codes[kSome];
  if (width == 0) {
    memset(y, 0, (size_t)count * sizeof *y);
    return;
  }
  if (blob->encoding == KB_FLOATS) {
    for (int64_t k = 0; k < count; k++) y[k] = kb_blob_f32(blob, KB_CODES, start + k);
    return;
  }
  for (int64_t k = 0; k < count; k += kSome) {
    int64_t some = count - k < kSome ? count - k : kSome;
    kb_blob_codes(blob, width, start + k, some, codes);
    kb_channel_decode(blob, channel, codes, some, y + k);
  }
}

void kb_embedding_row(const kb_blob* blob, const kb_embedding* embedding, int64_t id, float* y) {
  if (blob->axis == 0) {
    decode(blob, embedding, id, 0, blob->in, y);
    return;
  }
  for (int64_t column = 0; column < blob->out; column++)
    decode(blob, embedding, column, id, 1, y + column);
}
