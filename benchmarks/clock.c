/* Additions that wait for each other: one takes one cycle on the processors we know, so their time
 * is that of the core's clock. */
#include <stdint.h>

/* `count` additions, 16 an iteration, so that the loop's own work hides behind them. */
uint64_t chain(uint64_t count);

#if defined(__x86_64__) || defined(__i386__)
#define ADD "add $1, %0\n\t"
#elif defined(__aarch64__) || defined(__arm__)
#define ADD "add %0, %0, #1\n\t"
#else
#error "no chain of additions for this processor"
#endif
#define ADD4 ADD ADD ADD ADD

uint64_t chain(uint64_t count) {
  uintptr_t x = 0;
  for (uint64_t i = 0; i < count; i += 16) __asm__ volatile(ADD4 ADD4 ADD4 ADD4 : "+r"(x));
  return x;
}
