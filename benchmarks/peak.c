// Independent multiply-adds in registers: what no kernel can exceed.
#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#if defined(__x86_64__)
#define KEEP(v) "+v"(v)  // in a vector register: the compiler may not merge the rounds
#else
#define KEEP(v) "+w"(v)
#endif
#define CHAINS 12  // more than latency times ports, few enough for 16 registers

#define DEFINE_PEAK(type)                                                                \
  double peak_##type(long rounds) {                                                      \
    typedef type vec __attribute__((vector_size(BYTES)));                                \
    const vec zero = {0};                                                                \
    vec chain[CHAINS];                                                                   \
    const vec a = zero + (type)0.999, b = zero + (type)0.001;                            \
    _Pragma("GCC unroll 16") for (int c = 0; c < CHAINS; ++c) chain[c] = zero + (type)c; \
    for (long r = 0; r < rounds; ++r) {                                                  \
      _Pragma("GCC unroll 16") for (int c = 0; c < CHAINS; ++c) {                        \
        chain[c] = chain[c] * a + b;                                                     \
        __asm__ volatile("" : KEEP(chain[c]));                                           \
      }                                                                                  \
    }                                                                                    \
    volatile type keep = 0;                                                              \
    _Pragma("GCC unroll 16") for (int c = 0; c < CHAINS; ++c) keep += chain[c][0];       \
    return 2.0 * CHAINS * (BYTES / sizeof(type)) * (double)rounds;                       \
  }

DEFINE_PEAK(float)
DEFINE_PEAK(double)

#if defined(__AVX512BF16__)
#include <immintrin.h>

// Products of pairs, two to a lane. Its latency is longer than that of a multiply-add.
double peak_bfloat16(long rounds) {
  __m512 chain[2 * CHAINS];
  __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f803f80), b = (__m512bh)_mm512_set1_epi32(0x00803f80);
  __asm__ volatile("" : KEEP(a), KEEP(b));
  _Pragma("GCC unroll 24") for (int c = 0; c < 2 * CHAINS; ++c) chain[c] = _mm512_set1_ps((float)c);
  for (long r = 0; r < rounds; ++r) {
    _Pragma("GCC unroll 24") for (int c = 0; c < 2 * CHAINS; ++c) {
      chain[c] = _mm512_dpbf16_ps(chain[c], a, b);
      __asm__ volatile("" : KEEP(chain[c]));
    }
  }
  volatile float keep = 0;
  _Pragma("GCC unroll 24") for (int c = 0; c < 2 * CHAINS; ++c) keep += chain[c][0];
  return 2.0 * 2 * CHAINS * (BYTES / sizeof(short)) * (double)rounds;
}
#endif
