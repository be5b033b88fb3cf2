#include "channel.h"

#include <math.h>

static int64_t at(const kb_blob* blob, int64_t channel) { return blob->per_channel ? channel : 0; }

static float plane_scale(const kb_blob* blob, int64_t channel, int p) {
  int64_t width = blob->per_channel ? blob->out : 1;
  return kb_blob_f32(blob, KB_SCALE, p * width + at(blob, channel));
}

static void describe_planes(const kb_blob* blob, kb_channel* channel) {
  channel->planes = channel->width;
  channel->top = (1 << channel->width) - 1;
  channel->origin = kb_blob_f32(blob, KB_OFFSET, at(blob, channel->index));
  channel->scale = plane_scale(blob, channel->index, 0);
  channel->linear = 1;
  for (int p = 1; p < channel->width; p++)
    channel->linear &= plane_scale(blob, channel->index, p) == ldexp(channel->scale, p);
}

static void describe_table(const kb_blob* blob, kb_channel* channel, int low, int high) {
  channel->linear = 1;
  channel->top = high - low;
  while (channel->top >> channel->planes) channel->planes++;
  channel->scale = kb_blob_f32(blob, KB_SCALE, at(blob, channel->index));
  channel->zero = -low;
}

static void describe_uniform(const kb_blob* blob, kb_channel* channel) {
  int64_t i = at(blob, channel->index);
  channel->linear = 1;
  channel->planes = channel->width;
  channel->top = (1 << channel->width) - 1;
  channel->origin = kb_blob_f32(blob, KB_OFFSET, i);
  channel->scale = kb_blob_f32(blob, KB_SCALE, i);
  channel->zero = kb_load_i32(blob->section[KB_ZERO].data + 4 * i);
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
    int width = blob->section[KB_CHANNEL_BITS].data[o];
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

int kb_channel_numbers(const kb_blob* blob, const kb_channel* channel, uint16_t* numbers,
                       kb_error error) {
  kb_blob_codes(blob, channel->width, channel->rank, numbers);
  if (blob->encoding != KB_TABLE) return 0;
  for (int64_t k = 0; k < blob->row; k++) {
    if (numbers[k] >= blob->table_length)
      return kb_fail(error, "blob, section codes: expected codes below %d, got %d in channel %lld",
                     blob->table_length, numbers[k], (long long)channel->index);
    numbers[k] = (uint16_t)(kb_blob_i16(blob, KB_LEVELS, numbers[k]) + channel->zero);
  }
  return 0;
}

double kb_channel_plane_scale(const kb_blob* blob, const kb_channel* channel, int p) {
  if (channel->linear) return ldexp(channel->scale, p);
  return plane_scale(blob, channel->index, p);
}

static float value_of(const kb_blob* blob, const kb_channel* channel, int number) {
  float origin = (float)channel->origin, scale = (float)channel->scale;
  if (blob->encoding == KB_TABLE) return scale * (float)(number - channel->zero);
  if (blob->encoding == KB_UNIFORM) return origin + scale * (float)(number - channel->zero);
  float total = origin;
  for (int p = 0; p < channel->planes; p++) {
    if (number >> p & 1) total += plane_scale(blob, channel->index, p);
  }
  return total;
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
  if (kb_channel_numbers(blob, channel, numbers, error)) return -1;
  for (int64_t k = 0; k < blob->row; k++) values[k] = value_of(blob, channel, numbers[k]);
  return 0;
}
