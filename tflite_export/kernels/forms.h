/* Which form is the fastest for a channel, and how its elements follow each other. */
#ifndef KERASBITS_FORMS_H
#define KERASBITS_FORMS_H

#include "channel.h"
#include "input.h"
#include "kernels.h"

/* What the kernels read as input: one image serves several forms. */
typedef enum {
  KB_IMAGE_BITS,
  KB_IMAGE_U8,
  KB_IMAGE_S16,
  KB_IMAGE_F32,
  KB_IMAGE_TABLES,
  KB_IMAGES
} kb_image_kind;

kb_image_kind kb_image_of(kb_form form);

/* The elements of a row: by taps, each padded to whole units; or, for few channels, as one tap that
 * holds the elements of all (`flat`). */
typedef struct {
  int used, flat;
  int64_t taps;
  int64_t channels; /* of a tap */
  int64_t units;    /* of a tap */
  int unit_bytes;   /* of an input unit */
  int unit_channels;
} kb_layout;

kb_layout kb_layout_of(const kb_blob* blob, kb_image_kind kind, const kb_kernels* kernels);

/* The form of a channel that is not dropped. */
kb_form kb_choose_form(const kb_blob* blob, const kb_input* input, const kb_kernels* kernels,
                       const kb_channel* channel);

/* About how many products a cycle. */
double kb_form_rate(const kb_kernels* kernels, kb_form form);

/* Rows of a channel in a form. */
int kb_channel_rows(const kb_channel* channel, kb_form form);

/* What to subtract from the numbers of a channel so that they fit int8, or int16 if they are too
 * many: the zero, if possible, since the offset vanishes with it. */
int kb_channel_shift(const kb_channel* channel);

/* Largest magnitude of a number less the shift. */
int kb_channel_most(const kb_channel* channel);

#endif
