/* What all parts of the library share: errors and memory. */
#ifndef KERASBITS_CORE_H
#define KERASBITS_CORE_H

#include <float.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __FAST_MATH__
#error "expected exact float arithmetic; -ffast-math changes results"
#endif
/* 16 is the same as 0 for float and double; x87 (2) rounds differently. */
_Static_assert(FLT_EVAL_METHOD == 0 || FLT_EVAL_METHOD == 16,
               "expected float arithmetic in float (on 32-bit x86: -msse2 -mfpmath=sse)");

/* Blobs, and the units of codes and bits that kernels load as words, have the lowest byte first. */
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "expected a little-endian machine"
#endif

/* Arguments are checked against the format, but for newlib, where an int32_t is a long (as wide as
 * an int) and each %d would need a cast. */
#if defined(__NEWLIB__)
#define KB_PRINTF(format_at, first)
#else
#define KB_PRINTF(format_at, first) __attribute__((format(printf, format_at, first)))
#endif

/* Where a message goes; `text` may be NULL. */
typedef struct {
  char* text;
  size_t size;
} kb_error;

/* Write a message; returns -1, so that a caller can return it. */
int kb_fail(kb_error error, const char* format, ...) KB_PRINTF(2, 3);

/* Zeroed memory on a 64-byte border, NULL if there is none. Release it with free(). */
void* kb_alloc(size_t count, size_t size);

/* What kb_alloc takes for so many bytes. */
static inline size_t kb_room(size_t bytes) { return bytes ? (bytes + 63) / 64 * 64 : 64; }

#endif
