/* Vectors of LANES floats by the vector extensions of GCC and Clang, and what a sine network needs of them.

   The source is compiled once per instruction set; LANES is what one register of it holds. */
#ifndef LANES_H
#define LANES_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define UNROLL _Pragma("GCC unroll 16")
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vint){__VA_ARGS__})
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t vint __attribute__((vector_size(4 * LANES)));

INLINE vec splat(float value) { return value - (vec){0}; }

INLINE vec load(const float *from) {
    vec v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE float sum(vec v) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

/* Sine and cosine, absolute error below 2e-7 for arguments up to 1e4.

   x = k pi + r, with pi in two parts where multiply and add are fused, else in three, of which the first two have so few
   digits that k times them is exact for all k below 2^13. Both polynomials are minimax fits over [-pi/2, pi/2], and both change their
   sign with an odd k. */
#define FARTHEST 16384.0f
INLINE void sine_and_cosine(vec x, vec *sine, vec *cosine) {
    /* Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits. */
    vec shifted = x * 0.31830988618379067f + 12582912.0f;
    vec k = shifted - 12582912.0f;
#ifdef __FMA__
    vec r = (x - k * 3.1415927410125732f) + k * 8.7422780e-8f;
#else
    vec r = ((x - k * 3.140625f) - k * 9.675025939941406e-4f) - k * 1.5099580252808664e-7f;
#endif
    vec r2 = r * r;
    vec s = (((2.59990291e-6f * r2 - 1.98065469e-4f) * r2 + 8.33301635e-3f) * r2 - 1.66666571e-1f) * (r2 * r) + r;
    vec c = ((((-2.60756597e-7f * r2 + 2.47618080e-5f) * r2 - 1.38884021e-3f) * r2 + 4.16666406e-2f) * r2 -
             4.99999995e-1f) * r2 + 1.0f;
    vint sign = (vint)shifted << 31;
    *sine = (vec)((vint)s ^ sign);
    *cosine = (vec)((vint)c ^ sign);
}

/* Transpose LANES vectors in place: each of log2(LANES) passes interleaves the first half with the second. */
INLINE void transpose(vec *rows) {
    UNROLL
    for (int pass = LANES; pass > 1; pass /= 2) {
        vec mixed[LANES];
        UNROLL
        for (int i = 0; i < LANES / 2; i++) {
            vec a = rows[i], b = rows[i + LANES / 2];
#if LANES == 16
            mixed[2 * i] = SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            mixed[2 * i + 1] = SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif LANES == 8
            mixed[2 * i] = SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
            mixed[2 * i + 1] = SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
            mixed[2 * i] = SHUFFLE(a, b, 0, 4, 1, 5);
            mixed[2 * i + 1] = SHUFFLE(a, b, 2, 6, 3, 7);
#endif
        }
        UNROLL
        for (int i = 0; i < LANES; i++) rows[i] = mixed[i];
    }
}

#endif
