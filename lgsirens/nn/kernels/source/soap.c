/* SOAP (Vyas et al. 2024) on small matrices, each of which stays in cache from its gradient to its step. */
#include "soap.h"

#include <math.h>

#include "products.h"

/* A matrix whose rows are padded with zeros to whole vectors. */
typedef struct {
    int rows, columns;
    vec *at;
} Matrix;

static Matrix take(vec **at, int rows, int columns) {
    Matrix matrix = {rows, columns, *at};
    *at += (long)rows * vecs_of(columns);
    return matrix;
}

static float *row(Matrix matrix, int i) { return (float *)(matrix.at + (long)i * vecs_of(matrix.columns)); }

static int size(Matrix matrix) { return matrix.rows * vecs_of(matrix.columns); } /* in vectors */

/* The lanes that columns from `first` on have in a vector. */
INLINE vint lanes_of(int first, int columns) {
    vint number;
    for (int i = 0; i < LANES; i++) number[i] = first + i;
    return number < columns;
}

/* Rows are read and written as whole vectors where these do not reach beyond the last row. */
static void read(Matrix to, const float *from) {
    int vecs = vecs_of(to.columns), all = to.rows * to.columns;
    vint mask = lanes_of((vecs - 1) * LANES, to.columns);
    for (int i = 0; i < to.rows; i++, from += to.columns) {
        vec *at = to.at + (long)i * vecs;
        if (i * to.columns + vecs * LANES <= all) {
            for (int v = 0; v < vecs; v++) at[v] = load(from + v * LANES);
            at[vecs - 1] = (vec)((vint)at[vecs - 1] & mask);
        } else {
            at[vecs - 1] = (vec){0};
            memcpy(at, from, 4 * (size_t)to.columns);
        }
    }
}

static void write(Matrix from, float *to) {
    int vecs = vecs_of(from.columns), all = from.rows * from.columns;
    for (int i = 0; i < from.rows; i++, to += from.columns) {
        const vec *at = from.at + (long)i * vecs;
        if (i * from.columns + vecs * LANES <= all) {
            for (int v = 0; v < vecs; v++) memcpy(to + v * LANES, at + v, sizeof(vec));
        } else {
            memcpy(to, at, 4 * (size_t)from.columns);
        }
    }
}

static void turn(Matrix from, Matrix to) {
    transpose_matrix(from.rows, from.columns, from.at, vecs_of(from.columns), to.at, vecs_of(to.columns));
}

static void multiply(Matrix a, Matrix b, Matrix c) {
    product(a.rows, vecs_of(b.columns), a.columns, (float *)a.at, vecs_of(a.columns) * LANES, 1, b.at,
            vecs_of(b.columns), c.at, vecs_of(c.columns), 0);
}

/* A^T B */
static void multiply_turned(Matrix a, Matrix b, Matrix c) {
    product(a.columns, vecs_of(b.columns), a.rows, (float *)a.at, 1, vecs_of(a.columns) * LANES, b.at,
            vecs_of(b.columns), c.at, vecs_of(c.columns), 0);
}

/* Make the columns orthonormal, first to last (modified Gram-Schmidt; three times, so that nearly dependent ones come
   out so, too). `factors` has room for a row. */
INLINE void orthonormalise(Matrix matrix, int vecs, vec *factors) {
    for (int turn = 0; turn < 3 * matrix.columns; turn++) {
        int i = turn % matrix.columns;
        for (int v = 0; v < vecs; v++) factors[v] = (vec){0};
        for (int k = 0; k < matrix.rows; k++) {
            vec mine = splat(((float *)(matrix.at + (long)k * vecs))[i]);
            for (int v = 0; v < vecs; v++) factors[v] += mine * matrix.at[(long)k * vecs + v];
        }
        float square = ((float *)factors)[i];
        if (!(square > 1e-30f)) { /* nothing is left of it: any direction will do */
            for (int k = 0; k < matrix.rows; k++) row(matrix, k)[i] = k == (turn / matrix.columns + i) % matrix.rows;
            continue;
        }
        for (int v = 0; v < vecs; v++) /* those after it lose what they have of it */
            factors[v] = (vec)((vint)(factors[v] / square) & ~lanes_of(v * LANES, i + 1));
        ((float *)factors)[i] = 1 - 1 / sqrtf(square);
        for (int k = 0; k < matrix.rows; k++) {
            vec mine = splat(((float *)(matrix.at + (long)k * vecs))[i]);
            for (int v = 0; v < vecs; v++) matrix.at[(long)k * vecs + v] -= mine * factors[v];
        }
    }
}

/* One power iteration towards the eigenvectors of a product, which is scaled to the size of 1. */
static void renew(Matrix product, Matrix basis, Matrix scaled, Matrix turned) {
    float trace = 0;
    for (int i = 0; i < product.rows; i++) trace += row(product, i)[i];
    float scale = 1 / fmaxf(trace / (float)product.rows, 1e-38f);
    for (int v = 0; v < size(product); v++) scaled.at[v] = product.at[v] * scale;
    for (int i = 0; i < product.rows; i++) row(scaled, i)[i] += 1e-6f;
    multiply(scaled, basis, turned);
    int vecs = vecs_of(product.columns);
    if (vecs == 1) orthonormalise(turned, 1, scaled.at);
    else orthonormalise(turned, vecs, scaled.at);
    memcpy(basis.at, turned.at, (size_t)size(basis) * sizeof(vec));
}

typedef struct {
    Matrix gradient, turned, seen, mean, square, weight, half, products[2], bases[2], room[2];
} Room;

static vec *lay_out(const Matrices *m, vec *at, Room *room) {
    int sides[2] = {m->out, m->in}, largest = m->out > m->in ? m->out : m->in;
    room->gradient = take(&at, m->out, m->in), room->turned = take(&at, m->in, m->out);
    Matrix *others[] = {&room->seen, &room->mean, &room->square, &room->weight, &room->half};
    for (int i = 0; i < 5; i++) *others[i] = take(&at, m->out, m->in);
    for (int side = 0; side < 2; side++) {
        room->products[side] = take(&at, sides[side], sides[side]);
        room->bases[side] = take(&at, sides[side], sides[side]);
        room->room[side] = take(&at, largest, largest);
    }
    return at;
}

int64_t soap_matrices_size(void) { return sizeof(Matrices); }

int64_t soap_step_size(void) { return sizeof(Step); }

int64_t soap_workspace(const Matrices *matrices) {
    Room room;
    return (char *)lay_out(matrices, (vec *)64, &room) - (char *)64;
}

/* Q_l^T A Q_r */
static void as_bases_see(Matrix a, const Room *room, Matrix seen) {
    multiply(a, room->bases[1], room->half);
    multiply_turned(room->bases[0], room->half, seen);
}

/* Averages of G G^T and G^T G, and now and then their eigenbases. */
static void update_bases(const Matrices *m, const Step *step, Room *room, int64_t place) {
    int sides[2] = {m->out, m->in};
    for (int side = 0; side < 2; side++) {
        int wide = sides[side];
        long at = place * wide * wide;
        Matrix average = room->products[side], fresh = {wide, wide, room->room[0].at};
        if (side == 0) multiply(room->gradient, room->turned, fresh);
        else multiply_turned(room->gradient, room->gradient, fresh);
        read(average, m->products[side] + at), read(room->bases[side], m->bases[side] + at);
        for (int v = 0; v < size(average); v++)
            average.at[v] += (fresh.at[v] - average.at[v]) * (1 - step->beta);
        write(average, m->products[side] + at);
        if (!step->renews) continue;
        renew(average, room->bases[side], fresh, (Matrix){wide, wide, room->room[1].at});
        write(room->bases[side], m->bases[side] + at);
    }
}

INLINE vec roots(vec of) {
    for (int i = 0; i < LANES; i++) of[i] = sqrtf(of[i]);
    return of;
}

static void step_matrices(const Matrices *m, const Step *step, int64_t first, int64_t last, void *memory) {
    Room room;
    lay_out(m, memory, &room);
    int turns = m->products[0] != 0, all = size(room.gradient);
    for (int64_t at = first * m->stride, place = first; place < last; place++, at += m->stride) {
        read(room.gradient, m->gradient + at), read(room.mean, m->mean + at), read(room.square, m->square + at);
        for (int v = 0; v < all; v++) room.mean.at[v] += (room.gradient.at[v] - room.mean.at[v]) * (1 - step->beta);
        write(room.mean, m->mean + at);
        Matrix seen = room.gradient, change = room.mean;
        if (turns) {
            turn(room.gradient, room.turned);
            update_bases(m, step, &room, place);
            seen = room.seen, change = room.gradient;
            as_bases_see(room.gradient, &room, seen);
            as_bases_see(room.mean, &room, change);
        }
        vec total = {0};
        for (int v = 0; v < all; v++) {
            room.square.at[v] = step->beta * room.square.at[v] + (1 - step->beta) * seen.at[v] * seen.at[v];
            total += room.square.at[v];
        }
        write(room.square, m->square + at);
        float least = sqrtf(sum(total) / (float)(m->out * m->in)) * step->epsilon + 1e-30f;
        for (int v = 0; v < all; v++) change.at[v] /= roots(room.square.at[v]) + least;
        if (turns) { /* and back: Q_l C Q_r^T */
            Matrix turned = {m->in, m->in, room.room[0].at};
            multiply(room.bases[0], change, room.half);
            turn(room.bases[1], turned);
            multiply(room.half, turned, room.seen);
            change = room.seen;
        }
        read(room.weight, m->weight + at);
        for (int v = 0; v < all; v++) room.weight.at[v] -= step->rate * change.at[v];
        write(room.weight, m->weight + at);
    }
}

void soap_step(const Matrices *layers, int64_t number, const Step *step, int64_t thread, int64_t threads,
               void *memory) {
    for (int64_t k = 0; k < number; k++) {
        int64_t count = layers[k].count, first = count * thread / threads, last = count * (thread + 1) / threads;
        /* Of layers of fewer matrices, a weight and its bias, each thread takes some whole. */
        if (count < threads) first = 0, last = k / 2 % threads == thread ? count : 0;
        step_matrices(layers + k, step, first, last, memory);
    }
}
