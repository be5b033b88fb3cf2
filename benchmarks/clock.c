/* The clock of the core for Python: `count` additions that take a cycle each. */
#include "cycles.h"

uint64_t chain(uint64_t count);

uint64_t chain(uint64_t count) { return chained_additions(count); }
