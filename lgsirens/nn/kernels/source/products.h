/* Products of small matrices in vectors, and their transposes. */
#ifndef PRODUCTS_H
#define PRODUCTS_H

#include "lanes.h"

/* What registers hold of a product: 16, or 32 with AVX-512. */
#if LANES == 16
enum { TILE_ROWS = 7, TILE_VECS = 4 };
#else
enum { TILE_ROWS = 6, TILE_VECS = 2 };
#endif

/* Vectors that hold so many numbers. */
INLINE int vecs_of(int numbers) { return (numbers + LANES - 1) / LANES; }

/* A tile of a product, in registers; `rows` and `vecs` are constants where it is inlined. */
INLINE void product_tile(int rows, int vecs, int depth, const float *a, long a_row, long a_step, const vec *b,
                         long b_step, vec *c, long c_row, const vec *start) {
    vec sums[TILE_ROWS][TILE_VECS];
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int v = 0; v < vecs; v++) sums[i][v] = (vec){0};
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
        for (int v = 0; v < vecs; v++) c[i * c_row + v] = start ? start[i * c_row + v] + sums[i][v] : sums[i][v];
    }
}

/* A tile of at most TILE_ROWS rows and TILE_VECS vectors: one copy of the code for each shape. */
static void product_of_tile(int rows, int vecs, int depth, const float *a, long a_row, long a_step, const vec *b,
                            long b_step, vec *c, long c_row, const vec *start) {
#define SHAPE(r, v) \
    case 8 * r + v: \
        if (r <= TILE_ROWS && v <= TILE_VECS) product_tile(r, v, depth, a, a_row, a_step, b, b_step, c, c_row, start); \
        return;
#define SHAPES(r) SHAPE(r, 1) SHAPE(r, 2) SHAPE(r, 3) SHAPE(r, 4)
    switch (8 * rows + vecs) { SHAPES(1) SHAPES(2) SHAPES(3) SHAPES(4) SHAPES(5) SHAPES(6) SHAPES(7) }
}

/* C = A B, or C = S + A B, for A `[rows][depth]` at any strides, and B, C and S in rows of `vecs` vectors.

   Each number of C is one sum over k in order, however the product is tiled, and S is added last: where many products
   add up, rounding grows with their number, not with that of all terms. */
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

/* A matrix of padded rows, of `from_vecs` vectors each, as that of its columns. */
static void transpose_matrix(int rows, int columns, const vec *from, long from_vecs, vec *to, long to_vecs) {
    for (int r = 0; r < vecs_of(rows); r++) {
        int there = rows - r * LANES < LANES ? rows - r * LANES : LANES;
        for (int c = 0; c < vecs_of(columns); c++) {
            int wanted = columns - c * LANES < LANES ? columns - c * LANES : LANES;
            vec square[LANES];
            UNROLL
            for (int i = 0; i < LANES; i++) square[i] = i < there ? from[(r * LANES + i) * from_vecs + c] : (vec){0};
            transpose(square);
            if (wanted == LANES) {
                UNROLL
                for (int i = 0; i < LANES; i++) to[(c * LANES + i) * to_vecs + r] = square[i];
            } else {
                for (int i = 0; i < wanted; i++) to[(c * LANES + i) * to_vecs + r] = square[i];
            }
        }
    }
}

#endif
