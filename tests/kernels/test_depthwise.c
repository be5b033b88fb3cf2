/* Every depthwise kernel of kernels.inc that this machine can run, against sums in 64 bits. */
#include <stdio.h>
#include <stdlib.h>

#include "depthwise.h"
#include "random_for_tests.h"

enum { kMostTaps = 36 };

/* Random, or everything at an end of its range. */
typedef enum { RANDOM, LEAST, MOST } draws;

typedef struct {
  const char* name;
  kb_depthwise run;
  kb_isa_id isa;
  int channels, tap_count, count, stride, least, most, max_input;
  draws how;
} set_up;

static int weight_of(const set_up* s) {
  if (s->how != RANDOM) return s->how == LEAST ? s->least : s->most;
  return s->least + (int)(draw() % (unsigned)(s->most - s->least + 1));
}

/* Taps one pixel apart, from the last to the first. */
static void set_taps(const set_up* s, ptrdiff_t* taps) {
  for (int i = 0; i < s->tap_count; i++) taps[s->tap_count - 1 - i] = (ptrdiff_t)i * s->channels;
}

static int compare(const set_up* s, const kb_depthwise_args* args) {
  for (int p = 0; p < s->count; p++) {
    for (int c = 0; c < s->channels; c++) {
      int64_t sum = 0;
      for (int t = 0; t < s->tap_count; t++)
        sum += (int64_t)args->weights[t * s->channels + c] *
               args->pixel[(size_t)p * args->pixel_step + (size_t)args->taps[t] + (size_t)c];
      if (sum == args->sums[p * s->channels + c]) continue;
      printf("%s: %d channels, %d taps, %d pixels, weights in [%d, %d]: expected %lld, got %d\n",
             s->name, s->channels, s->tap_count, s->count, s->least, s->most, (long long)sum,
             (int)args->sums[p * s->channels + c]);
      return 1;
    }
  }
  return 0;
}

static int check(const set_up* s) {
  const size_t pixels = (size_t)(s->count * s->stride + s->tap_count);
  const size_t weight_count = (size_t)(s->tap_count * s->channels);
  ptrdiff_t taps[kMostTaps];
  /* Exactly as long as the contract says, so that the sanitizer sees an overrun. */
  uint8_t* image = malloc(pixels * (size_t)s->channels + KB_SLACK);
  int16_t* weights = malloc(weight_count * sizeof *weights);
  int32_t* sums = malloc((size_t)(s->count * s->channels) * sizeof *sums);
  for (size_t i = 0; i < pixels * (size_t)s->channels + KB_SLACK; i++)
    image[i] = (uint8_t)(s->how == RANDOM ? (int)(draw() >> 8) % (s->max_input + 1) : s->max_input);
  for (size_t i = 0; i < weight_count; i++) weights[i] = (int16_t)weight_of(s);
  set_taps(s, taps);
  kb_depthwise_digits digits = {0};
  kb_depthwise_args args = {.pixel = image,
                            .pixel_step = (size_t)(s->stride * s->channels),
                            .taps = taps,
                            .count = s->count,
                            .tap_count = s->tap_count,
                            .channels = s->channels,
                            .weights = weights,
                            .sums = sums};
  const int largest = s->most > -s->least ? s->most : -s->least;
  args.fits16 = largest * s->max_input * s->tap_count <= INT16_MAX;
  const int together = kb_depthwise_together(s->isa);
  int wrong = 0;
  if (together) {
    s->run(&args); /* with int16 weights only */
    wrong += compare(s, &args);
    wrong += kb_depthwise_cut(&digits, together, weights, s->tap_count, s->channels, s->max_input);
    args.digits = &digits;
  }
  s->run(&args);
  wrong += compare(s, &args);
  kb_depthwise_destroy(&digits);
  free(image);
  free(weights);
  free(sums);
  return wrong > 0;
}

static int check_kernel(const char* name, kb_depthwise run, kb_isa_id isa) {
  static const int channels[] = {1, 3, 8, 15, 16, 17, 31, 32, 33, 48, 64, 100};
  static const int taps[] = {1, 2, 3, 4, 9, 15, 16, 17, 18, 25, 33};
  static const struct {
    int least, most, max_input;
  } ranges[] = {{-1, 1, 255},     {-14, 14, 255},   {-128, 127, 255}, {-127, 127, 15},
                {-136, 135, 255}, {-137, 100, 255}, {-100, 136, 255}, {-32768, 32767, 255}};
  int wrong = 0, runs = 0;
  for (size_t c = 0; c < sizeof channels / sizeof *channels; c++) {
    for (size_t t = 0; t < sizeof taps / sizeof *taps; t++) {
      for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++, runs++) {
        set_up s = {name, run, isa, channels[c], taps[t], 1 + runs % 7, 1 + runs % 2,
                    ranges[r].least, ranges[r].most, ranges[r].max_input, RANDOM};
        for (; s.how <= MOST; s.how++) wrong += check(&s);
      }
    }
  }
  printf("%-24s %s\n", name, wrong ? "WRONG" : "ok");
  return wrong;
}

int main(void) {
  int wrong = 0;
#define KB_DEPTHWISE(name, isa) \
  if (kb_isa_supported(isa)) wrong += check_kernel(#name, name, isa);
#include "kernels.inc"
  return wrong > 0;
}
