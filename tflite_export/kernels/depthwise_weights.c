/* Weights of depthwise layers on whole numbers, taken from a blob. */
#include <stdlib.h>

#include "channel.h"
#include "depthwise_layer.h"

enum { kMostTaps = 257 }; /* 257 * 255 * 32767 < 2^31 */

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
  failed |= !(layer->scales = take(layer, out, sizeof *layer->scales));
  failed |= !(layer->base = take(layer, out, sizeof *layer->base));
  p->numbers = kb_alloc(taps, sizeof *p->numbers);
  return failed || !p->numbers;
}

static double parameter(const kb_blob* blob, int section, int64_t channel, double otherwise) {
  return blob->section[section].bytes ? (double)kb_blob_f32(blob, section, channel) : otherwise;
}

static int pack_channel(const packer* p, const kb_channel* channel) {
  kb_dw_layer* layer = p->layer;
  const size_t out = (size_t)p->blob->out, o = (size_t)channel->index;
  const double multiplier = parameter(p->blob, KB_MULTIPLIER, channel->index, 1);
  const double unit = multiplier * p->input->unit;
  double sum = 0;
  if (channel->width) {
    if (kb_channel_numbers(p->blob, channel, p->numbers, p->error)) return -1;
    int64_t total = 0;
    for (int tap = 0; tap < layer->tap_count; tap++) {
      const int weight = p->numbers[tap] - channel->zero;
      layer->weights[0][(size_t)tap * out + o] = (int16_t)weight;
      if (layer->parts > 1) layer->weights[1][(size_t)tap * out + o] = 1;
      total += weight;
    }
    sum = channel->origin * layer->tap_count + channel->scale * (double)total;
  }
  layer->base[o] = parameter(p->blob, KB_BIAS, channel->index, 0);
  if (p->input->offset != 0) layer->base[o] += multiplier * p->input->offset * sum;
  layer->scales[o] = layer->parts > 1 ? unit : unit * channel->scale;
  if (layer->parts > 1) {
    layer->coefficients[o] = channel->scale;
    layer->coefficients[out + o] = channel->origin;
  }
  return 0;
}

/* Whether no partial sum of a channel leaves int16. */
static int fits16(const kb_dw_layer* layer, const int16_t* weights, size_t out, int most) {
  for (size_t o = 0; o < out; o++) {
    int64_t total = 0;
    for (int tap = 0; tap < layer->tap_count; tap++)
      total += abs(weights[(size_t)tap * out + o]);
    if (total * most > INT16_MAX) return 0;
  }
  return 1;
}

static int cut(const packer* p, const kb_kernels* kernels) {
  kb_dw_layer* layer = p->layer;
  const int out = (int)p->blob->out, most = p->input->bytes.most;
  const int together = kb_depthwise_together(kernels->isa);
  for (int i = 0; i < layer->parts; i++) {
    layer->fits16[i] = fits16(layer, layer->weights[i], (size_t)out, most);
    if (!together) continue;
    if (kb_depthwise_cut(&layer->digits[i], together, layer->weights[i], layer->tap_count, out,
                         most))
      return -1;
    layer->bytes += kb_depthwise_memory(&layer->digits[i], layer->tap_count, out);
  }
  return 0;
}

static int pack(packer* p, const kb_kernels* kernels) {
  if (allocate(p)) return kb_fail(p->error, "out of memory");
  for (int64_t o = 0; o < p->blob->out; o++) {
    if (pack_channel(p, &p->channels[o])) return -1;
  }
  return cut(p, kernels) ? kb_fail(p->error, "out of memory") : 0;
}

int kb_dw_create(const kb_blob* blob, const kb_input* input, const kb_kernels* kernels,
                 kb_dw_layer* layer, kb_error error) {
  if (!fits(blob, input)) return 0;
  kb_channel* channels = kb_channels(blob);
  if (!channels) return kb_fail(error, "out of memory");
  packer p = {.blob = blob, .input = input, .channels = channels, .layer = layer, .error = error};
  int has_offset = 0, failed = 0;
  if (channels_fit(blob, channels, &has_offset)) {
    *layer = (kb_dw_layer){.parts = 1 + has_offset,
                           .channels = (int)blob->groups,
                           .repeats = (int)(blob->out / blob->groups),
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
    kb_depthwise_destroy(&layer->digits[i]);
  }
  free(layer->coefficients);
  free(layer->scales);
  free(layer->base);
  *layer = (kb_dw_layer){0};
}
