/* Weights of depthwise layers on whole numbers, taken from a blob. */
#include <stdlib.h>

#include "channel.h"
#include "depthwise_layer.h"
#include "whole.h"

enum {
  kMostTaps = 257, /* 257 * 255 * 32767 < 2^31 */
  kSlab = 128      /* channels, about */
};

typedef struct {
  const kb_blob* blob;
  const kb_input* input;
  const kb_channel* channels;
  kb_dw_layer* layer;
  uint16_t* numbers; /* [taps] */
  kb_error error;
} packer;

static int has_outside(const kb_blob* blob) {
  int64_t outside = blob->padding == KB_SAME;
  for (int axis = 0; axis < 2; axis++)
    outside |= blob->pad_before[axis] | blob->pad_after[axis] | (blob->input_dilation[axis] - 1);
  return outside != 0;
}

/* The level whose value is exactly 0; -1 if there is none. */
static int zero_level(const kb_input* input) {
  for (int level = 0; level <= input->bytes.most; level++) {
    if (input->offset + input->unit * level == 0) return level;
  }
  return -1;
}

static int fits(const kb_blob* blob, const kb_input* input) {
  if (blob->input_kind == KB_INPUT_FLOAT || blob->encoding == KB_FLOATS) return 0;
  if (!input->linear || input->bytes.count != 1) return 0;
  if (blob->row > kMostTaps || blob->section[KB_CODES].bytes == 0) return 0;
  return zero_level(input) >= 0 || !has_outside(blob);
}

static int channels_fit(const kb_blob* blob, const kb_channel* channels, int* has_offset) {
  for (int64_t o = 0; o < blob->out; o++) {
    const kb_channel* channel = &channels[o];
    if (!channel->width) continue;
    /* Numbers less the zero, from -zero to top - zero. */
    if (!channel->linear || channel->zero > -INT16_MIN || channel->zero < channel->top - INT16_MAX)
      return 0;
    *has_offset |= channel->origin != 0;
  }
  return 1;
}

static void* take(kb_dw_layer* layer, size_t count, size_t size) {
  void* memory = count <= SIZE_MAX / 4 / size ? kb_alloc(count, size) : NULL;
  if (memory) layer->bytes += (count * size + 63) / 64 * 64;
  return memory;
}

static int allocate(packer* p) {
  kb_dw_layer* layer = p->layer;
  const size_t out = (size_t)p->blob->out, taps = (size_t)p->blob->row;
  int failed = 0;
  for (int i = 0; i < layer->parts; i++)
    failed |= !(layer->weights[i] = take(layer, out * taps, sizeof *layer->weights[i]));
  if (layer->parts > 1)
    failed |= !(layer->coefficients = take(layer, 2 * out, sizeof *layer->coefficients));
  if (layer->is_whole) {
    failed |= !(layer->whole_scales = take(layer, out, sizeof *layer->whole_scales));
    failed |= !(layer->biases = take(layer, out, sizeof *layer->biases));
    if (p->input->offset != 0)
      failed |= !(layer->starts = take(layer, out, sizeof *layer->starts));
  } else {
    failed |= !(layer->scales = take(layer, out, sizeof *layer->scales));
    failed |= !(layer->base = take(layer, out, sizeof *layer->base));
  }
  p->numbers = kb_alloc(taps, sizeof *p->numbers);
  return failed || !p->numbers;
}

static double parameter(const kb_blob* blob, int section, int64_t channel, double otherwise) {
  return blob->section[section].bytes ? (double)kb_blob_f32(blob, section, channel) : otherwise;
}

/* Where number n of a channel is, of those that are [n][out]. */
typedef struct {
  size_t at, step;
} place;

static place place_of(const kb_dw_layer* layer, int64_t channel, int rows) {
  int slab = 0;
  while (kb_dw_first(layer, slab + 1) <= channel) slab++;
  const size_t first = (size_t)kb_dw_first(layer, slab);
  const size_t width = (size_t)kb_dw_first(layer, slab + 1) - first;
  return (place){first * (size_t)rows + (size_t)channel - first, width};
}

/* Weights in steps or half steps, and what the input's offset adds to their sum. */
static int pack_whole(const packer* p, const kb_channel* channel) {
  kb_dw_layer* layer = p->layer;
  const size_t o = (size_t)channel->index;
  const place at = place_of(layer, channel->index, layer->tap_count);
  const kb_ratio input = kb_input_ratio(p->input);
  layer->biases[o] = (float)parameter(p->blob, KB_BIAS, channel->index, 0);
  if (!channel->width) return 0;
  if (kb_channel_numbers(p->blob, channel, p->numbers, p->error)) return -1;
  const kb_ratio ratio = kb_channel_ratio(channel);
  int32_t total = 0;
  for (int tap = 0; tap < layer->tap_count; tap++) {
    const int weight = ratio.parts * (p->numbers[tap] - channel->zero) + ratio.steps;
    layer->weights[0][at.at + (size_t)tap * at.step] = (int16_t)weight;
    total += weight;
  }
  const double scale = kb_whole_scale(p->blob, p->input, channel);
  layer->whole_scales[o] = (float)(scale / (input.parts * ratio.parts));
  if (layer->starts) layer->starts[o] = input.steps * total;
  return 0;
}

static int pack_channel(const packer* p, const kb_channel* channel) {
  kb_dw_layer* layer = p->layer;
  const size_t o = (size_t)channel->index;
  const place weights = place_of(layer, channel->index, layer->tap_count);
  const double multiplier = parameter(p->blob, KB_MULTIPLIER, channel->index, 1);
  const double unit = multiplier * p->input->unit;
  double sum = 0;
  if (channel->width) {
    if (kb_channel_numbers(p->blob, channel, p->numbers, p->error)) return -1;
    int64_t total = 0;
    for (int tap = 0; tap < layer->tap_count; tap++) {
      const int weight = p->numbers[tap] - channel->zero;
      const size_t at = weights.at + (size_t)tap * weights.step;
      layer->weights[0][at] = (int16_t)weight;
      if (layer->parts > 1) layer->weights[1][at] = 1;
      total += weight;
    }
    sum = channel->origin * layer->tap_count + channel->scale * (double)total;
  }
  layer->base[o] = parameter(p->blob, KB_BIAS, channel->index, 0);
  if (p->input->offset != 0) layer->base[o] += multiplier * p->input->offset * sum;
  layer->scales[o] = layer->parts > 1 ? unit : unit * channel->scale;
  if (layer->parts > 1) {
    const place at = place_of(layer, channel->index, 2);
    layer->coefficients[at.at] = channel->scale;
    layer->coefficients[at.at + at.step] = channel->origin;
  }
  return 0;
}

/* Whether no partial sum of a channel leaves int16. */
static int fits16(const int16_t* weights, int taps, int channels, int most) {
  for (int c = 0; c < channels; c++) {
    int64_t total = 0;
    for (int tap = 0; tap < taps; tap++)
      total += abs(weights[(size_t)tap * (size_t)channels + (size_t)c]);
    if (total * most > INT16_MAX) return 0;
  }
  return 1;
}

static int cut_part(const packer* p, int part, int together) {
  kb_dw_layer* layer = p->layer;
  const int taps = layer->tap_count, most = p->input->bytes.most;
  layer->fits16[part] = 1;
  if (together) {
    layer->digits[part] = take(layer, (size_t)layer->slabs, sizeof *layer->digits[part]);
    if (!layer->digits[part]) return -1;
  }
  for (int slab = 0; slab < layer->slabs; slab++) {
    const int first = kb_dw_first(layer, slab), width = kb_dw_first(layer, slab + 1) - first;
    const int16_t* weights = layer->weights[part] + (size_t)first * (size_t)taps;
    layer->fits16[part] &= fits16(weights, taps, width, most);
    if (!together) continue;
    kb_depthwise_digits* digits = &layer->digits[part][slab];
    if (kb_depthwise_cut(digits, together, weights, taps, width, most)) return -1;
    layer->bytes += kb_depthwise_memory(digits, taps, width);
  }
  return 0;
}

static int cut(const packer* p, const kb_kernels* kernels) {
  for (int part = 0; part < p->layer->parts; part++) {
    if (cut_part(p, part, kb_depthwise_together(kernels->isa))) return -1;
  }
  return 0;
}

static int pack(packer* p, const kb_kernels* kernels) {
  if (allocate(p)) return kb_fail(p->error, "out of memory");
  for (int64_t o = 0; o < p->blob->out; o++) {
    if ((p->layer->is_whole ? pack_whole : pack_channel)(p, &p->channels[o])) return -1;
  }
  return cut(p, kernels) ? kb_fail(p->error, "out of memory") : 0;
}

int kb_dw_create(const kb_blob* blob, const kb_input* input, const kb_kernels* kernels,
                 kb_dw_layer* layer, kb_error error) {
  if (!fits(blob, input)) return 0;
  kb_channel* channels = kb_channels(blob);
  if (!channels) return kb_fail(error, "out of memory");
  packer p = {.blob = blob, .input = input, .channels = channels, .layer = layer, .error = error};
  const int is_whole = kb_is_whole(blob, input, channels);
  int has_offset = 0, failed = 0;
  if (is_whole || channels_fit(blob, channels, &has_offset)) {
    *layer = (kb_dw_layer){.parts = is_whole ? 1 : 1 + has_offset,
                           .is_whole = is_whole,
                           .shift = is_whole ? kb_input_ratio(input).parts - 1 : 0,
                           .channels = (int)blob->groups,
                           .repeats = (int)(blob->out / blob->groups),
                           .slabs = blob->out > kSlab ? (int)(blob->out / kSlab) : 1,
                           .tap_count = (int)blob->row,
                           .outside = zero_level(input) < 0 ? 0 : zero_level(input),
                           .low = blob->act_min,
                           .high = blob->act_max};
    failed = pack(&p, kernels);
  }
  free(channels);
  free(p.numbers);
  return failed;
}

void kb_dw_destroy(kb_dw_layer* layer) {
  for (int i = 0; i < 2; i++) {
    free(layer->weights[i]);
    for (int slab = 0; layer->digits[i] && slab < layer->slabs; slab++)
      kb_depthwise_destroy(&layer->digits[i][slab]);
    free(layer->digits[i]);
  }
  free(layer->coefficients);
  free(layer->scales);
  free(layer->base);
  free(layer->starts);
  free(layer->whole_scales);
  free(layer->biases);
  *layer = (kb_dw_layer){0};
}
