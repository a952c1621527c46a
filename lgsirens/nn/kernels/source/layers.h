/* One dense layer on a block of SAMPLES samples that stays in cache.

   Features are kept feature by feature, `[features][SAMPLES]`, and after the last one stands a row of ones: a bias is a
   weight of that. Forward and both gradients are one and the same product. */
#ifndef LAYERS_H
#define LAYERS_H

#include <math.h>

#include "products.h"

enum { SAMPLES = 64, VECS = SAMPLES / LANES };

typedef struct {
    int in, out;
    float factor; /* of weights and biases, w0 or 1 */
    float *weight; /* [out][in + 1], times the factor */
    vec *gradient; /* [out][padded(in + 1)], of these */
    float bound;   /* of the outputs if no input is beyond 1 */
} Layer;

/* Weights `[out]` rows of `weight_row`, the first `in` of each, and biases `[out]` as one matrix, times the factor. */
static void layer_pack(Layer *layer, const float *weight, long weight_row, const float *bias) {
    long in = layer->in;
    layer->bound = 0;
    for (long j = 0; j < layer->out; j++) {
        float *row = layer->weight + j * (in + 1), reached = 0;
        for (long i = 0; i < in; i++) row[i] = layer->factor * weight[j * weight_row + i];
        row[in] = bias ? layer->factor * bias[j] : 0;
        for (long i = 0; i <= in; i++) reached += fabsf(row[i]);
        if (!(reached <= layer->bound)) layer->bound = reached; /* NaN, too */
    }
}

/* The inverse for the gradient, which is added to what is there. */
static void layer_unpack_gradient(const Layer *layer, float *weight, long weight_row, float *bias) {
    long in = layer->in;
    for (long j = 0; j < layer->out; j++) {
        const float *from = (const float *)(layer->gradient + j * vecs_of(layer->in + 1));
        for (long i = 0; i < in; i++) weight[j * weight_row + i] += layer->factor * from[i];
        if (bias) bias[j] += layer->factor * from[in];
    }
}

INLINE void layer_forward(const Layer *layer, const vec *in, vec *out) {
    product(layer->out, VECS, layer->in + 1, layer->weight, layer->in + 1, 1, in, VECS, out, VECS, 0);
}

/* The same with numbers `[out][SAMPLES]` in place of the biases. */
INLINE void layer_forward_from(const Layer *layer, const vec *start, const vec *in, vec *out) {
    product(layer->out, VECS, layer->in, layer->weight, layer->in + 1, 1, in, VECS, out, VECS, start);
}

/* Add the gradient of the weights: that of the outputs `[out][SAMPLES]` times the inputs, ones included. */
INLINE void layer_backward_weight(Layer *layer, const vec *output_gradient, const vec *in, vec *room) {
    int vecs = vecs_of(layer->in + 1);
    transpose_matrix(layer->in + 1, SAMPLES, in, VECS, room, vecs);
    product(layer->out, vecs, SAMPLES, (const float *)output_gradient, SAMPLES, 1, room, vecs, layer->gradient, vecs,
            layer->gradient);
}

/* The gradient of the inputs, added to `start` if there is one. */
INLINE void layer_backward_input(const Layer *layer, const vec *output_gradient, vec *input_gradient,
                                 const vec *start) {
    product(layer->in, VECS, layer->out, layer->weight, 1, layer->in + 1, output_gradient, VECS, input_gradient, VECS,
            start);
}

/* Sines of `z`, which becomes their cosines where they are `wanted`. */
static void near_sines(int features, vec *z, vec *sine, int wanted) {
    vec unused;
    if (wanted) {
        for (int i = 0; i < features * VECS; i++) sine_and_cosine(z[i], sine + i, z + i);
    } else {
        for (int i = 0; i < features * VECS; i++) sine_and_cosine(z[i], sine + i, &unused);
    }
}

/* The same of arguments that may lie as far as `bound`: the C library has the farthest ones, each by itself, so that no
   sample depends on its neighbours. */
static void sines(int features, vec *z, vec *sine, int wanted, float bound) {
    if (bound < FARTHEST) return near_sines(features, z, sine, wanted);
    vint far = {0};
    for (int i = 0; i < features * VECS; i++) far |= (z[i] > FARTHEST) | (z[i] < -FARTHEST);
    int any = 0;
    for (int i = 0; i < LANES; i++) any |= far[i];
    if (!any) return near_sines(features, z, sine, wanted);
    for (int i = 0; i < features * VECS; i++) {
        vec x = z[i];
        sine_and_cosine(x, sine + i, z + i);
        for (int lane = 0; lane < LANES; lane++)
            if (fabsf(x[lane]) > FARTHEST) sine[i][lane] = sinf(x[lane]), z[i][lane] = cosf(x[lane]);
    }
}

static void scale_by(int features, vec *values, const vec *factors) {
    for (int i = 0; i < features * VECS; i++) values[i] *= factors[i];
}

INLINE void add_to(int features, vec *values, const vec *more) {
    for (int i = 0; i < features * VECS; i++) values[i] += more[i];
}

INLINE void fill_ones(vec *row) {
    for (int v = 0; v < VECS; v++) row[v] = splat(1);
}

#endif
