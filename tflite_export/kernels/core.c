#include "core.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int kb_fail(kb_error error, const char* format, ...) {
  if (error.text && error.size) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error.text, error.size, format, arguments);
    va_end(arguments);
  }
  return -1;
}

void* kb_alloc(size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2) return NULL;
  bytes = bytes ? (bytes + 63) / 64 * 64 : 64;
  void* memory = aligned_alloc(64, bytes);
  return memory ? memset(memory, 0, bytes) : NULL;
}
