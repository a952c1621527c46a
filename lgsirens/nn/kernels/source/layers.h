/* One dense layer on a block of SAMPLES samples that stays in cache.

   Features are kept feature by feature, `[features][SAMPLES]`, and after the last one stands a row of ones: a bias is a
   weight of that. Forward and both gradients are one and the same product. */
#ifndef LAYERS_H
#define LAYERS_H

#include "products.h"

enum { SAMPLES = 64, VECS = SAMPLES / LANES };

typedef struct {
    int in, out;
    float factor; /* of weights and biases, w0 or 1 */
    float *weight; /* [out][in + 1], times the factor */
    vec *gradient; /* [out][padded(in + 1)], of these */
} Layer;

/* Weights `[out]` rows of `weight_row`, the first `in` of each, and biases `[out]` as one matrix, times the factor. */
static void layer_pack(Layer *layer, const float *weight, long weight_row, const float *bias) {
    long in = layer->in;
    for (long j = 0; j < layer->out; j++) {
        for (long i = 0; i < in; i++) layer->weight[j * (in + 1) + i] = layer->factor * weight[j * weight_row + i];
        layer->weight[j * (in + 1) + in] = bias ? layer->factor * bias[j] : 0;
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

static void sines(int features, vec *z_and_cosine, vec *sine) {
    for (int i = 0; i < features * VECS; i++) sine_and_cosine(z_and_cosine[i], sine + i, z_and_cosine + i);
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
