/* Adam's step of numbers `first` to `last`, as PyTorch computes it. */
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 16 };

/* One function for whole and for partial blocks: compilers fuse products and sums in vectors otherwise than in single
   numbers, and what becomes of a number must not depend on its place. */
static __attribute__((noinline)) void step_block(float *restrict weight, const float *restrict gradient,
                                                 float *restrict mean, float *restrict square, float rate,
                                                 float root) {
    for (int i = 0; i < LANES; i++) {
        mean[i] += (gradient[i] - mean[i]) * 0.1f;
        square[i] = 0.999f * square[i] + 0.001f * gradient[i] * gradient[i];
        weight[i] -= rate * mean[i] / (sqrtf(square[i]) / root + 1e-8f);
    }
}

void adam_step(int64_t first, int64_t last, float *restrict weight, const float *restrict gradient,
               float *restrict mean, float *restrict square, float rate, float root) {
    int64_t i = first;
    for (; i + LANES <= last; i += LANES)
        step_block(weight + i, gradient + i, mean + i, square + i, rate, root);
    float some[4][LANES] = {0};
    size_t left = (size_t)(last - i) * sizeof(float);
    memcpy(some[0], weight + i, left);
    memcpy(some[1], gradient + i, left);
    memcpy(some[2], mean + i, left);
    memcpy(some[3], square + i, left);
    step_block(some[0], some[1], some[2], some[3], rate, root);
    memcpy(weight + i, some[0], left);
    memcpy(mean + i, some[2], left);
    memcpy(square + i, some[3], left);
}
