/* Choice of an instruction set. Decided anew for each op: there is no global state. */
#include <stdlib.h>
#include <string.h>

#include "kb.h"
#include "kernels.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

static const char* const kIsaNames[KB_ISAS] = {"scalar", "avx2", "avx512", "neon",
                                                "neondot", "neoni8mm"};

#if defined(__x86_64__)
static int has_extension(kb_isa_id isa) {
  __builtin_cpu_init();
  if (isa != KB_ISA_AVX2 && isa != KB_ISA_AVX512) return 0;
  if (!__builtin_cpu_supports("avx2")) return 0;
  return isa == KB_ISA_AVX2 ||
         (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
          __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vpopcntdq") &&
          __builtin_cpu_supports("avx512bitalg"));
}
#elif defined(__aarch64__)
#if defined(__APPLE__)
static int has_feature(const char* name) {
  int found = 0;
  size_t size = sizeof found;
  return !sysctlbyname(name, &found, &size, NULL, 0) && found;
}
#endif

static int has_dot_product(void) {
#if defined(__ARM_FEATURE_DOTPROD)
  return 1; /* this very file was compiled for it */
#elif defined(__linux__)
  return (getauxval(AT_HWCAP) >> 20 & 1) != 0; /* HWCAP_ASIMDDP, which old headers lack */
#elif defined(__APPLE__)
  return has_feature("hw.optional.arm.FEAT_DotProd");
#else
  return 0;
#endif
}

static int has_matrix_product(void) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
  return 1;
#elif defined(__linux__)
  return (getauxval(AT_HWCAP2) >> 13 & 1) != 0; /* HWCAP2_I8MM */
#elif defined(__APPLE__)
  return has_feature("hw.optional.arm.FEAT_I8MM");
#else
  return 0;
#endif
}

static int has_extension(kb_isa_id isa) {
  if (isa == KB_ISA_NEON) return 1;
  if (isa == KB_ISA_NEONI8MM) return has_dot_product() && has_matrix_product();
  return isa == KB_ISA_NEONDOT && has_dot_product();
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

/* Whether an instruction set serves a table for `isa` better than what the table has. All that are
 * compiled here are of one family, so the order of the enum is that from plain to best. */
static int serves(kb_isa_id candidate, kb_isa_id isa, int present, kb_isa_id present_isa) {
  return candidate <= isa && (!present || candidate >= present_isa);
}

static void offer_gemm(kb_kernels* table, kb_gemm gemm, kb_form form, kb_isa_id isa, int rows) {
  if (!serves(isa, table->isa, table->gemm[form] != NULL, table->gemm_isa[form])) return;
  table->gemm[form] = gemm;
  table->gemm_isa[form] = isa;
  table->rows[form] = rows;
}

void kb_kernels_of(kb_isa_id isa, kb_kernels* kernels) {
  kb_isa_id at[8] = {KB_ISA_SCALAR}; /* where each function comes from */
  *kernels = (kb_kernels){.isa = isa};
#define OFFER(place, name, from, field)                               \
  if (serves(from, isa, kernels->field != NULL, at[place])) {         \
    at[place] = from;                                                 \
    kernels->field = name;                                            \
  }
#define KB_GEMM(name, form, from, rows) offer_gemm(kernels, name, form, from, rows);
#define KB_LEVELS(name, from) OFFER(0, name, from, levels)
#define KB_FINISH(name, from) OFFER(1, name, from, finish)
#define KB_DEPTHWISE(name, from) OFFER(2, name, from, depthwise)
#define KB_PLANES(name, from, unit_bytes) OFFER(3, name, from, put_planes)
#define KB_SUM_TABLES(name, from) OFFER(5, name, from, sum_tables)
#define KB_FINISH_WHOLE(name, from) OFFER(6, name, from, finish_whole)
#define KB_SEARCH(name, from) OFFER(7, name, from, search)
#define KB_PACK_BITS(name, from, unit_bytes)                        \
  if (serves(from, isa, kernels->pack_bits != NULL, at[4]))         \
    kernels->bits_unit_bytes = unit_bytes;                          \
  OFFER(4, name, from, pack_bits)
#include "kernels.inc"
#undef OFFER
}

int kb_select_kernels(kb_kernels* kernels, kb_error error) {
  const char* forced = forced_isa();
  int chosen = -1;
  for (int isa = 0; isa < KB_ISAS; isa++) {
    if (kb_isa_supported((kb_isa_id)isa) && (!forced || !strcmp(forced, kIsaNames[isa])))
      chosen = isa;
  }
  if (chosen < 0) return refuse(forced, error);
  kb_kernels_of((kb_isa_id)chosen, kernels);
  return 0;
}

const char* kb_isa(void) {
  kb_kernels kernels;
  kb_error quiet = {NULL, 0};
  return kb_select_kernels(&kernels, quiet) ? "unknown" : kIsaNames[kernels.isa];
}
