/* Adam's step of numbers `first` to `last`, as PyTorch computes it. */
#include <math.h>
#include <stdint.h>

void adam_step(int64_t first, int64_t last, float *restrict weight, const float *restrict gradient,
               float *restrict mean, float *restrict square, float rate, float root) {
    for (int64_t i = first; i < last; i++) {
        mean[i] += (gradient[i] - mean[i]) * 0.1f;
        square[i] = 0.999f * square[i] + 0.001f * gradient[i] * gradient[i];
        weight[i] -= rate * mean[i] / (sqrtf(square[i]) / root + 1e-8f);
    }
}
