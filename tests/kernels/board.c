/* Start of a program on an emulated board with a Cortex-M7 (mps2-an500), which has neither an
 * operating system nor TFLite: the vector table, and the unit for floats switched on. */
#include <stdint.h>

extern void _start(void); /* newlib */

static void reset(void) {
  volatile uint32_t* access = (volatile uint32_t*)0xE000ED88; /* to coprocessors */
  *access |= 0xFu << 20;
  __asm__ volatile("dsb\n isb");
  _start();
}

static void fault(void) {
  for (;;) __asm__ volatile("bkpt 0");
}

/* The top of the stack, and what to call on reset, NMI and the faults. */
__attribute__((section(".vectors"), used)) static const void* const vectors[16] = {
    (void*)0x20400000, (void*)reset, (void*)fault, (void*)fault,
    (void*)fault,      (void*)fault, (void*)fault,
};
