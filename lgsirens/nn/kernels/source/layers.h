/* One dense layer on a block of SAMPLES samples that stays in cache.

   Features are kept feature by feature, `[features][SAMPLES]`, and after the last one stands a row of ones: a bias is a
   weight of that. Forward, both gradients, and SOAP are one and the same product. */
#ifndef LAYERS_H
#define LAYERS_H

#include "lanes.h"

enum { SAMPLES = 64, VECS = SAMPLES / LANES };

/* What registers hold of a product: 16, or 32 with AVX-512. */
#if LANES == 16
enum { TILE_ROWS = 7, TILE_VECS = 4 };
#else
enum { TILE_ROWS = 6, TILE_VECS = 2 };
#endif

typedef struct {
    int in, out;
    float factor; /* of weights and biases, w0 or 1 */
    float *weight; /* [out][in + 1], times the factor */
    vec *gradient; /* [out][padded(in + 1)], of these */
} Layer;

/* Vectors that hold so many numbers. */
INLINE int vecs_of(int numbers) { return (numbers + LANES - 1) / LANES; }

/* A tile of a product, in registers; `rows` and `vecs` are constants where it is inlined. */
INLINE void product_tile(int rows, int vecs, int depth, const float *a, long a_row, long a_step, const vec *b,
                         long b_step, vec *c, long c_row, const vec *start) {
    vec sums[TILE_ROWS][TILE_VECS];
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int v = 0; v < vecs; v++) sums[i][v] = start ? start[i * c_row + v] : (vec){0};
    }
    for (int k = 0; k < depth; k++, a += a_step, b += b_step) {
        UNROLL
        for (int i = 0; i < rows; i++) {
            vec factor = splat(a[i * a_row]);
            UNROLL
            for (int v = 0; v < vecs; v++) sums[i][v] += factor * b[v];
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int v = 0; v < vecs; v++) c[i * c_row + v] = sums[i][v];
    }
}

/* A tile of at most TILE_ROWS rows and TILE_VECS vectors: one copy of the code for each shape. */
static void product_of_tile(int rows, int vecs, int depth, const float *a, long a_row, long a_step, const vec *b,
                            long b_step, vec *c, long c_row, const vec *start) {
#define SHAPE(r, v) \
    if (r <= TILE_ROWS && v <= TILE_VECS && rows == r && vecs == v) \
        return product_tile(r, v, depth, a, a_row, a_step, b, b_step, c, c_row, start);
#define SHAPES(r) SHAPE(r, 1) SHAPE(r, 2) SHAPE(r, 3) SHAPE(r, 4)
    SHAPES(1) SHAPES(2) SHAPES(3) SHAPES(4) SHAPES(5) SHAPES(6) SHAPES(7)
}

/* C = A B, or C = S + A B, for A `[rows][depth]` at any strides, and B, C and S in rows of `vecs` vectors.

   Each number of C is one sum over k in order, however the product is tiled. */
static void product(int rows, int vecs, int depth, const float *a, long a_row, long a_step, const vec *b, long b_step,
                    vec *c, long c_row, const vec *start) {
    int tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int v = 0; v < vecs; v += TILE_VECS) {
        int wide = vecs - v < TILE_VECS ? vecs - v : TILE_VECS;
        for (int t = 0; t < tiles; t++) {
            int first = rows * t / tiles, high = rows * (t + 1) / tiles - first;
            long corner = first * c_row + v;
            product_of_tile(high, wide, depth, a + first * a_row, a_row, a_step, b + v, b_step, c + corner, c_row,
                            start ? start + corner : 0);
        }
    }
}

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

/* Features `[features][SAMPLES]` as `[SAMPLES][padded(features)]`. */
static void transposed(int features, const vec *from, vec *to) {
    int vecs = vecs_of(features);
    for (int f = 0; f < vecs; f++) {
        int there = features - f * LANES < LANES ? features - f * LANES : LANES;
        for (int v = 0; v < VECS; v++) {
            vec rows[LANES];
            UNROLL
            for (int i = 0; i < LANES; i++) rows[i] = i < there ? from[(f * LANES + i) * VECS + v] : (vec){0};
            transpose(rows);
            UNROLL
            for (int i = 0; i < LANES; i++) to[(v * LANES + i) * vecs + f] = rows[i];
        }
    }
}

/* Add the gradient of the weights: that of the outputs `[out][SAMPLES]` times the inputs, ones included. */
INLINE void layer_backward_weight(Layer *layer, const vec *output_gradient, const vec *in, vec *room) {
    int vecs = vecs_of(layer->in + 1);
    transposed(layer->in + 1, in, room);
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
