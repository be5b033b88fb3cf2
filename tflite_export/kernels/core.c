/* Before Android 9 and iOS 13 there was no aligned_alloc. */
#if defined(__unix__) || defined(__APPLE__)
#define HAS_POSIX_MEMALIGN
#define _POSIX_C_SOURCE 200112L
#endif
#include "core.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __NEWLIB__
#include <malloc.h>
#endif

int kb_fail(kb_error error, const char* format, ...) {
  if (error.text && error.size) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error.text, error.size, format, arguments);
    va_end(arguments);
  }
  return -1;
}

static void* on_border(size_t bytes) {
#ifdef HAS_POSIX_MEMALIGN
  void* memory;
  return posix_memalign(&memory, 64, bytes) ? NULL : memory;
#elif defined(__NEWLIB__)
  return memalign(64, bytes); /* its aligned_alloc needs what boards lack */
#else
  return aligned_alloc(64, bytes);
#endif
}

void* kb_alloc(size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2) return NULL;
  bytes = bytes ? (bytes + 63) / 64 * 64 : 64;
  void* memory = on_border(bytes);
  return memory ? memset(memory, 0, bytes) : NULL;
}
