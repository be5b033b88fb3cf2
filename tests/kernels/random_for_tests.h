/* Random numbers that are the same on every machine (xorshift64). */
#ifndef KERASBITS_RANDOM_FOR_TESTS_H
#define KERASBITS_RANDOM_FOR_TESTS_H

#include <stdint.h>

static uint64_t state = 88172645463325252u;

static inline uint32_t draw(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 16);
}

/* A whole number from low to high. */
static inline int between(int low, int high) {
  return low + (int)(draw() % (unsigned)(high - low + 1));
}

#endif
