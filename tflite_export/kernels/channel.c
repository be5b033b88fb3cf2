#include "channel.h"

#include <math.h>

static float param(const kb_blob* blob, int section, int rows, int row, int64_t channel) {
  const uint8_t* p = kb_blob_param(blob, section, rows, row, channel);
  return p ? kb_load_f32(p) : 0;
}

static float plane_scale(const kb_blob* blob, int64_t channel, int p) {
  return param(blob, KB_SCALE, blob->weight_bits, p, channel);
}

static int zero_of(const kb_blob* blob, int64_t channel) {
  const uint8_t* p = kb_blob_param(blob, KB_ZERO, 1, 0, channel);
  return p ? kb_load_i32(p) : 0;
}

static void describe_planes(const kb_blob* blob, kb_channel* channel) {
  channel->planes = channel->width;
  channel->top = (1 << channel->width) - 1;
  channel->origin = param(blob, KB_OFFSET, 1, 0, channel->index);
  channel->scale = plane_scale(blob, channel->index, 0);
  channel->linear = 1;
  for (int p = 1; p < channel->width; p++)
    channel->linear &= plane_scale(blob, channel->index, p) == ldexp(channel->scale, p);
}

static void describe_table(const kb_blob* blob, kb_channel* channel, int low, int high) {
  channel->linear = 1;
  channel->top = high - low;
  while (channel->top >> channel->planes) channel->planes++;
  channel->scale = param(blob, KB_SCALE, 1, 0, channel->index);
  channel->zero = -low;
}

static void describe_uniform(const kb_blob* blob, kb_channel* channel) {
  channel->linear = 1;
  channel->planes = channel->width;
  channel->top = (1 << channel->width) - 1;
  channel->origin = param(blob, KB_OFFSET, 1, 0, channel->index);
  channel->scale = param(blob, KB_SCALE, 1, 0, channel->index);
  channel->zero = zero_of(blob, channel->index);
}

static void level_range(const kb_blob* blob, int* low, int* high) {
  *low = INT16_MAX;
  *high = INT16_MIN;
  for (int i = 0; i < blob->table_length; i++) {
    int level = kb_blob_i16(blob, KB_LEVELS, i);
    if (level < *low) *low = level;
    if (level > *high) *high = level;
  }
}

kb_channel* kb_channels(const kb_blob* blob) {
  int64_t rank[256] = {0};
  int low, high;
  level_range(blob, &low, &high);
  kb_channel* channels = kb_alloc((size_t)blob->out, sizeof *channels);
  for (int64_t o = 0; channels && o < blob->out; o++) {
    int width = kb_blob_width(blob, o);
    channels[o] = (kb_channel){.index = o, .width = width, .rank = rank[width]++};
    if (width == 0 || blob->encoding == KB_FLOATS) continue;
    if (blob->encoding == KB_PLANES)
      describe_planes(blob, &channels[o]);
    else if (blob->encoding == KB_TABLE)
      describe_table(blob, &channels[o], low, high);
    else
      describe_uniform(blob, &channels[o]);
  }
  return channels;
}

int kb_channel_check(const kb_blob* blob, int64_t channel, const uint16_t* codes, int64_t count,
                     kb_error error) {
  for (int64_t k = 0; blob->encoding == KB_TABLE && k < count; k++) {
    if (codes[k] >= blob->table_length)
      return kb_fail(error, "blob, section codes: expected codes below %d, got %d in channel %lld",
                     blob->table_length, codes[k], (long long)channel);
  }
  return 0;
}

int kb_channel_codes(const kb_blob* blob, const kb_channel* channel, uint16_t* codes,
                     kb_error error) {
  kb_blob_codes(blob, channel->width, channel->rank * blob->row, blob->row, codes);
  return kb_channel_check(blob, channel->index, codes, blob->row, error);
}

int kb_channel_numbers(const kb_blob* blob, const kb_channel* channel, uint16_t* numbers,
                       kb_error error) {
  if (kb_channel_codes(blob, channel, numbers, error)) return -1;
  for (int64_t k = 0; blob->encoding == KB_TABLE && k < blob->row; k++)
    numbers[k] = (uint16_t)(kb_blob_i16(blob, KB_LEVELS, numbers[k]) + channel->zero);
  return 0;
}

double kb_channel_plane_scale(const kb_blob* blob, const kb_channel* channel, int p) {
  if (channel->linear) return ldexp(channel->scale, p);
  return plane_scale(blob, channel->index, p);
}

static void decode_planes(const kb_blob* blob, int64_t channel, const uint16_t* codes,
                          int64_t count, float* values) {
  const float offset = param(blob, KB_OFFSET, 1, 0, channel);
  for (int64_t k = 0; k < count; k++) values[k] = offset;
  for (int p = 0; p < blob->weight_bits; p++) {
    const float scale = plane_scale(blob, channel, p);
    for (int64_t k = 0; k < count; k++) values[k] += codes[k] >> p & 1 ? scale : 0;
  }
}

void kb_channel_decode(const kb_blob* blob, int64_t channel, const uint16_t* codes, int64_t count,
                       float* values) {
  if (blob->encoding == KB_PLANES) {
    decode_planes(blob, channel, codes, count, values);
    return;
  }
  const float scale = param(blob, KB_SCALE, 1, 0, channel);
  if (blob->encoding == KB_TABLE) {
    for (int64_t k = 0; k < count; k++)
      values[k] = scale * (float)kb_blob_i16(blob, KB_LEVELS, codes[k]);
    return;
  }
  const float origin = param(blob, KB_OFFSET, 1, 0, channel);
  const int zero = zero_of(blob, channel);
  for (int64_t k = 0; k < count; k++) values[k] = origin + scale * (float)(codes[k] - zero);
}

int kb_channel_values(const kb_blob* blob, const kb_channel* channel, float* values,
                      uint16_t* numbers, kb_error error) {
  memset(values, 0, (size_t)blob->row * sizeof *values);
  if (channel->width == 0) return 0;
  if (blob->encoding == KB_FLOATS) {
    for (int64_t k = 0; k < blob->row; k++)
      values[k] = kb_blob_f32(blob, KB_CODES, channel->rank * blob->row + k);
    return 0;
  }
  if (kb_channel_codes(blob, channel, numbers, error)) return -1;
  kb_channel_decode(blob, channel->index, numbers, blob->row, values);
  return 0;
}
