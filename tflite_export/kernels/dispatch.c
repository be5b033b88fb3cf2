/* Choice of an instruction set. Decided anew for each op: there is no global state. */
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "kb.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

static const char* const kIsaNames[KB_ISAS] = {"scalar", "avx2", "neon", "neondot"};

static const struct {
  kb_gemm gemm;
  kb_form form;
  kb_isa_id isa;
} kKernels[] = {
#define KB_KERNEL(name, form, isa) {name, form, isa},
#include "kernels.inc"
#undef KB_KERNEL
};

#if defined(__x86_64__)
static int has_extension(kb_isa_id isa) {
  __builtin_cpu_init();
  return isa == KB_ISA_AVX2 && __builtin_cpu_supports("avx2");
}
#elif defined(__aarch64__)
static int has_dot_product(void) {
#if defined(__ARM_FEATURE_DOTPROD)
  return 1; /* this very file was compiled for it */
#elif defined(__linux__)
  return (getauxval(AT_HWCAP) >> 20 & 1) != 0; /* HWCAP_ASIMDDP, which old headers lack */
#elif defined(__APPLE__)
  int found = 0;
  size_t size = sizeof found;
  return !sysctlbyname("hw.optional.arm.FEAT_DotProd", &found, &size, NULL, 0) && found;
#else
  return 0;
#endif
}

static int has_extension(kb_isa_id isa) {
  return isa == KB_ISA_NEON || (isa == KB_ISA_NEONDOT && has_dot_product());
}
#else
static int has_extension(kb_isa_id isa) {
  (void)isa;
  return 0;
}
#endif

int kb_isa_supported(kb_isa_id isa) { return isa == KB_ISA_SCALAR || has_extension(isa); }

/* The instruction set that the user asks for, NULL if none. Boards have no environment. */
static const char* forced_isa(void) {
#if defined(__unix__) || defined(__APPLE__)
  const char* name = getenv("KERASBITS_ISA");
  return name && *name ? name : NULL;
#else
  return NULL;
#endif
}

static int refuse(const char* forced, kb_error error) {
  char known[64] = "scalar";
  for (int isa = KB_ISA_SCALAR + 1; isa < KB_ISAS; isa++) {
    if (kb_isa_supported((kb_isa_id)isa)) strcat(strcat(known, ", "), kIsaNames[isa]);
  }
  return kb_fail(error, "KERASBITS_ISA: expected an instruction set of this machine (%s), got %s",
                 known, forced);
}

int kb_select_kernels(kb_kernels* kernels, kb_error error) {
  const char* forced = forced_isa();
  int chosen = -1;
  for (int isa = 0; isa < KB_ISAS; isa++) {
    if (kb_isa_supported((kb_isa_id)isa) && (!forced || !strcmp(forced, kIsaNames[isa])))
      chosen = isa;
  }
  if (chosen < 0) return refuse(forced, error);
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
