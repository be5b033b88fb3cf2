/* Choice of an instruction set. Decided anew for each op: there is no global state. */
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "kb.h"

static const char* const kIsaNames[KB_ISAS] = {"scalar", "avx2"};

static const struct {
  kb_gemm gemm;
  kb_form form;
  kb_isa_id isa;
} kKernels[] = {
#define KB_KERNEL(name, form, isa) {name, form, isa},
#include "kernels.inc"
#undef KB_KERNEL
};

int kb_isa_supported(kb_isa_id isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return isa == KB_ISA_SCALAR || (isa == KB_ISA_AVX2 && __builtin_cpu_supports("avx2"));
#else
  return isa == KB_ISA_SCALAR;
#endif
}

int kb_select_kernels(kb_kernels* kernels, kb_error error) {
  const char* forced = getenv("KERASBITS_ISA");
  if (forced && !*forced) forced = NULL;
  int chosen = -1;
  for (int isa = 0; isa < KB_ISAS; isa++) {
    if (kb_isa_supported((kb_isa_id)isa) && (!forced || !strcmp(forced, kIsaNames[isa])))
      chosen = isa;
  }
  if (chosen < 0) {
    return kb_fail(error, "KERASBITS_ISA: expected an instruction set of this machine (scalar%s), "
                   "got %s", kb_isa_supported(KB_ISA_AVX2) ? ", avx2" : "", forced);
  }
  kernels->isa = (kb_isa_id)chosen;
  for (size_t i = 0; i < sizeof kKernels / sizeof *kKernels; i++) {
    if (kKernels[i].isa <= kernels->isa) kernels->gemm[kKernels[i].form] = kKernels[i].gemm;
  }
  return 0;
}

const char* kb_isa(void) {
  kb_kernels kernels;
  kb_error quiet = {NULL, 0};
  return kb_select_kernels(&kernels, quiet) ? "unknown" : kIsaNames[kernels.isa];
}
