/* Forward and backward through all layers of a small block of samples while it sits in cache.

   Two parts that compose: the rows of partitions, and the shared network, whose contribution to a block comes from a
   table or is evaluated on the spot. */
#include "fused.h"
#include "layers.h"

enum { MOST_DEPTHS = 65 }; /* LARGEST_DEPTH of nn/siren.py, and the first layer */

/* One thread's room: layers, and the features of one block at every depth. */
typedef struct {
    Layer local[MOST_DEPTHS + 1], aggregation;        /* of one row; of local features */
    Layer global[MOST_DEPTHS], contribution[MOST_DEPTHS];
    vec *x, *x_local;                                 /* [dims + 1][SAMPLES], as all that a layer sees */
    vec *l[MOST_DEPTHS], *l_cos[MOST_DEPTHS];         /* sin and cos before the aggregation */
    vec *h[MOST_DEPTHS], *h_cos[MOST_DEPTHS];         /* after it */
    vec *g[MOST_DEPTHS], *g_cos[MOST_DEPTHS];
    vec *added[MOST_DEPTHS], *added_cos[MOST_DEPTHS]; /* what the shared network contributes, unless a table says it */
    vec *of_added[MOST_DEPTHS];                       /* the gradient of that */
    vec *d, *e, *transposed;
    vec *y, *target, *weight, *own;
} Room;

static void *take(uintptr_t *at, int64_t bytes) {
    uintptr_t here = *at;
    *at += (uintptr_t)(bytes + 63) & ~(uintptr_t)63;
    return (void *)here;
}

static vec *take_features(uintptr_t *at, int64_t features) { return take(at, features * SAMPLES * 4); }

static Layer take_layer(uintptr_t *at, int in, int out, float factor) {
    float *weight = take(at, 4 * (int64_t)out * (in + 1));
    return (Layer){in, out, factor, weight, take(at, (int64_t)out * vecs_of(in + 1) * (int64_t)sizeof(vec))};
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Lay out the room from an address on; returns where it ends. */
static uintptr_t lay_out(const Job *job, Room *room, uintptr_t at) {
    int width = job->width, wide = job->wide, widest = (int)larger(larger(width, wide), job->channels);
    for (int k = 0; k <= job->depths; k++) {
        int last = k == job->depths;
        room->local[k] = take_layer(&at, k ? width : job->dims, last ? job->channels : width, last ? 1 : job->w0);
    }
    /* Without gradients the features of two depths are all that is needed at a time. */
    int64_t kept = job->row_gradient ? job->depths : 2;
    for (int k = 0; k < job->depths; k++) {
        if (k >= kept) {
            room->l[k] = room->l[k - kept], room->l_cos[k] = room->l_cos[k - kept];
            room->h[k] = room->h[k - kept], room->h_cos[k] = room->h_cos[k - kept];
            room->g[k] = room->g[k - kept], room->g_cos[k] = room->g_cos[k - kept];
        } else {
            room->l[k] = take_features(&at, width + 1), room->l_cos[k] = take_features(&at, width);
            room->h[k] = room->l[k], room->h_cos[k] = room->l_cos[k];
            if (job->mode != LOCAL_ONLY) {
                room->h[k] = take_features(&at, width + 1), room->h_cos[k] = take_features(&at, width);
                room->g[k] = take_features(&at, wide + 1), room->g_cos[k] = take_features(&at, wide);
            }
        }
        if (job->mode == LOCAL_ONLY) continue;
        room->added[k] = take_features(&at, width), room->added_cos[k] = take_features(&at, width);
        room->of_added[k] = take_features(&at, width);
        room->global[k] = take_layer(&at, k ? wide : job->dims, wide, job->w0);
        room->contribution[k] =
            job->mode == FC && k ? room->contribution[0] : take_layer(&at, wide, width, job->w0);
    }
    if (job->mode == FC) room->aggregation = take_layer(&at, width, width, job->w0);
    room->x = take_features(&at, job->dims + 1), room->x_local = take_features(&at, job->dims + 1);
    room->d = take_features(&at, widest), room->e = take_features(&at, widest);
    room->transposed = take_features(&at, LANES * vecs_of((int)larger(widest, job->dims) + 1));
    room->y = take_features(&at, job->channels), room->target = take_features(&at, job->channels);
    room->weight = take_features(&at, 1), room->own = take_features(&at, 1);
    return at;
}

int64_t fused_job_size(void) { return sizeof(Job); }

int64_t fused_workspace(const Job *job) {
    Room room = {0};
    return (int64_t)lay_out(job, &room, 0);
}

static int64_t tensor(int64_t *offset, int64_t size) { return (*offset += size) - size; }

static void clear(Layer *layer) {
    memset(layer->gradient, 0, (size_t)layer->out * (size_t)vecs_of(layer->in + 1) * sizeof(vec));
}

/* The shared tensors into their layers, or what has been added to the gradients of those out of them. */
static void shared_layers(const Job *job, Room *room, float *gradient) {
    int64_t at = 0, width = job->width, wide = job->wide;
    const float *shared = job->shared;
    for (int k = 0; k < job->depths; k++) {
        Layer *layer = &room->global[k];
        int64_t weight = tensor(&at, wide * layer->in), bias = tensor(&at, wide);
        if (gradient) layer_unpack_gradient(layer, gradient + weight, layer->in, gradient + bias);
        else layer_pack(layer, shared + weight, layer->in, shared + bias), clear(layer);
    }
    if (job->mode == FC) { /* one layer: weights of the local features, then those of the shared ones */
        int64_t weight = tensor(&at, width * (width + wide)), bias = tensor(&at, width);
        Layer *of_l = &room->aggregation, *of_g = &room->contribution[0];
        if (gradient) {
            layer_unpack_gradient(of_l, gradient + weight, width + wide, 0);
            layer_unpack_gradient(of_g, gradient + weight + width, width + wide, gradient + bias);
        } else {
            layer_pack(of_l, shared + weight, width + wide, 0), clear(of_l);
            layer_pack(of_g, shared + weight + width, width + wide, shared + bias), clear(of_g);
        }
        for (int k = 1; k < job->depths; k++) room->contribution[k] = *of_g;
        return;
    }
    for (int k = 0; k < job->depths; k++) {
        Layer *layer = &room->contribution[k];
        int64_t weight = tensor(&at, width * wide), bias = tensor(&at, width);
        if (gradient) layer_unpack_gradient(layer, gradient + weight, wide, gradient + bias);
        else layer_pack(layer, shared + weight, wide, shared + bias), clear(layer);
    }
}

static void row_layers(const Job *job, Room *room, const float *row, float *gradient) {
    int64_t at = 0;
    for (int k = 0; k <= job->depths; k++) {
        Layer *layer = &room->local[k];
        int64_t weight = tensor(&at, (int64_t)layer->out * layer->in), bias = tensor(&at, layer->out);
        if (gradient) layer_unpack_gradient(layer, gradient + weight, layer->in, gradient + bias);
        else layer_pack(layer, row + weight, layer->in, row + bias), clear(layer);
    }
}

static int64_t row_size(const Job *job) {
    int64_t width = job->width;
    return width * (job->dims + 1) + (job->depths - 1) * width * (width + 1) + job->channels * (width + 1);
}

static void begin(const Job *job, Room *room, void *memory) {
    lay_out(job, room, (uintptr_t)memory);
    fill_ones(room->x + job->dims * VECS), fill_ones(room->x_local + job->dims * VECS);
    for (int k = 0; k < job->depths; k++) {
        fill_ones(room->l[k] + job->width * VECS), fill_ones(room->h[k] + job->width * VECS);
        if (job->mode != LOCAL_ONLY) fill_ones(room->g[k] + job->wide * VECS);
    }
    if (job->shared) shared_layers(job, room, 0);
}

/* Samples `[count][features]` as `[features][SAMPLES]`, those beyond the last 0. */
static void gather(int features, int count, const float *from, vec *to) {
    for (int i = 0; i < features; i++) {
        float *feature = (float *)(to + i * VECS);
        for (int n = 0; n < count; n++) feature[n] = from[n * features + i];
        for (int n = count; n < SAMPLES; n++) feature[n] = 0;
    }
}

static void scatter(int features, int count, const vec *from, float *to) {
    for (int i = 0; i < features; i++) {
        const float *feature = (const float *)(from + i * VECS);
        for (int n = 0; n < count; n++) to[n * features + i] = feature[n];
    }
}

/* How far what a layer gives may lie; a first one (depth 0) sees coordinates of any size. */
static float bound(const Layer *layer, int depth) { return depth ? 2 * layer->bound : INFINITY; }

/* The shared network on the block whose coordinates are in room->x. */
static void network_forward(const Job *job, Room *room) {
    const vec *in = room->x;
    for (int k = 0; k < job->depths; in = room->g[k++]) {
        layer_forward(&room->global[k], in, room->g_cos[k]);
        sines(job->wide, room->g_cos[k], room->g[k], job->row_gradient != 0, bound(&room->global[k], k));
        if (job->mode == FC) {
            layer_forward(&room->contribution[k], room->g[k], room->added[k]);
        } else {
            layer_forward(&room->contribution[k], room->g[k], room->added_cos[k]);
            sines(job->width, room->added_cos[k], room->added[k], job->row_gradient != 0,
                  bound(&room->contribution[k], 1));
        }
    }
}

/* room->of_added holds the gradients of what was contributed. */
static void network_backward(const Job *job, Room *room) {
    for (int k = job->depths - 1; k >= 0; k--) {
        vec *d = room->d, *of_added = room->of_added[k];
        if (job->mode == FC_AND_ADD) scale_by(job->width, of_added, room->added_cos[k]);
        layer_backward_weight(&room->contribution[k], of_added, room->g[k], room->transposed);
        /* d holds what comes from the next layer already. */
        layer_backward_input(&room->contribution[k], of_added, d, k < job->depths - 1 ? d : 0);
        scale_by(job->wide, d, room->g_cos[k]);
        layer_backward_weight(&room->global[k], d, k ? room->g[k - 1] : room->x, room->transposed);
        if (k) {
            layer_backward_input(&room->global[k], d, room->e, 0);
            room->d = room->e, room->e = d;
        }
    }
}

static void rows_forward(const Job *job, Room *room, const vec *const *added) {
    const vec *in = room->x_local;
    for (int k = 0; k < job->depths; in = room->h[k++]) {
        layer_forward(&room->local[k], in, room->l_cos[k]);
        sines(job->width, room->l_cos[k], room->l[k], job->row_gradient != 0, bound(&room->local[k], k));
        if (job->mode == FC) {
            layer_forward_from(&room->aggregation, added[k], room->l[k], room->h_cos[k]);
            sines(job->width, room->h_cos[k], room->h[k], job->row_gradient != 0,
                  room->aggregation.bound + room->contribution[k].bound);
        } else if (job->mode == FC_AND_ADD) {
            for (int i = 0; i < job->width * VECS; i++) room->h[k][i] = room->l[k][i] + added[k][i];
        }
    }
    layer_forward(&room->local[job->depths], in, room->y);
}

/* room->y holds the gradients of the outputs; those of what the shared network contributed are added to `of_added`. */
static void rows_backward(const Job *job, Room *room, vec *const *of_added) {
    int width = job->width, depths = job->depths;
    vec *d = room->d, *e = room->e;
    layer_backward_weight(&room->local[depths], room->y, room->h[depths - 1], room->transposed);
    layer_backward_input(&room->local[depths], room->y, d, 0);
    for (int k = depths - 1; k >= 0; k--) {
        if (job->mode == FC) scale_by(width, d, room->h_cos[k]);
        if (job->mode != LOCAL_ONLY && job->learns_shared) add_to(width, of_added[k], d);
        if (job->mode == FC) {
            if (job->learns_shared) layer_backward_weight(&room->aggregation, d, room->l[k], room->transposed);
            layer_backward_input(&room->aggregation, d, e, 0);
            vec *swap = d;
            d = e, e = swap;
        }
        scale_by(width, d, room->l_cos[k]);
        layer_backward_weight(&room->local[k], d, k ? room->h[k - 1] : room->x_local, room->transposed);
        if (k) {
            layer_backward_input(&room->local[k], d, e, 0);
            vec *swap = d;
            d = e, e = swap;
        }
    }
}

/* Weights of a block, 1 unless they are given, and 0 beyond the last sample. */
static void weights(int count, const float *given, vec *to) {
    float *weight = (float *)to;
    for (int n = 0; n < SAMPLES; n++) weight[n] = n >= count ? 0 : given ? given[n] : 1;
}

/* The sum of squares of one block; room->y becomes the gradient of the outputs. */
static double loss(const Job *job, Room *room, int64_t partition, int64_t start, int count) {
    int channels = job->channels;
    int64_t sample = partition * job->samples + start;
    gather(channels, count, job->target + sample * channels, room->target);
    weights(count, job->weight ? job->weight + sample : 0, room->weight);
    weights(count, job->own ? job->own + partition * job->own_stride + start : 0, room->own);
    vec squares = {0};
    for (int i = 0; i < channels * VECS; i++) {
        vec error = room->y[i] - room->target[i], weighted = error * room->weight[i % VECS];
        squares += error * weighted * room->own[i % VECS];
        room->y[i] = weighted * job->factor;
    }
    return sum(squares);
}

void fused_rows(const Job *job, int64_t first, int64_t last, float *table_gradient, float *shared_gradient,
                void *memory) {
    Room room = {0};
    begin(job, &room, memory);
    int64_t tables = (job->samples + SAMPLES - 1) / SAMPLES, slab = (int64_t)job->width * SAMPLES, size = row_size(job);
    for (int64_t unit = first; unit < last; unit++) {
        int64_t partition = unit / job->chunks, chunk = unit % job->chunks;
        double squares = 0;
        row_layers(job, &room, job->rows + partition * size, 0);
        for (int64_t t = tables * chunk / job->chunks; t < tables * (chunk + 1) / job->chunks; t++) {
            int64_t start = t * SAMPLES, sample = partition * job->samples + start;
            int count = job->samples - start < SAMPLES ? (int)(job->samples - start) : SAMPLES;
            gather(job->dims, count, job->x_local + partition * job->x_local_stride + start * job->dims, room.x_local);
            const vec *added[MOST_DEPTHS];
            vec *of_added[MOST_DEPTHS];
            for (int k = 0; k < job->depths; k++) {
                int64_t at = (t * job->depths + k) * slab;
                added[k] = job->table ? (const vec *)(job->table + partition * job->table_stride + at) : room.added[k];
                of_added[k] = job->table && table_gradient ? (vec *)(table_gradient + at) : room.of_added[k];
            }
            int walks_network = job->mode != LOCAL_ONLY && !job->table;
            if (walks_network) {
                gather(job->dims, count, job->x + partition * job->x_stride + start * job->dims, room.x);
                network_forward(job, &room);
            }
            rows_forward(job, &room, added);
            if (job->values) scatter(job->channels, count, room.y, job->values + sample * job->channels);
            if (job->errors) squares += loss(job, &room, partition, start, count);
            if (!job->row_gradient) continue;
            if (walks_network)
                for (int k = 0; k < job->depths; k++) memset(room.of_added[k], 0, (size_t)slab * 4);
            rows_backward(job, &room, of_added);
            if (walks_network && job->learns_shared) network_backward(job, &room);
        }
        int64_t place = chunk * job->partitions + partition;
        if (job->errors) job->errors[place] = squares;
        if (job->row_gradient) row_layers(job, &room, 0, job->row_gradient + place * size);
    }
    if (job->row_gradient && job->mode != LOCAL_ONLY && job->learns_shared) shared_layers(job, &room, shared_gradient);
}

/* The shared network on block t of coordinates that all partitions share. */
static void table_block(const Job *job, Room *room, int64_t t) {
    int64_t left = job->samples - t * SAMPLES;
    gather(job->dims, left < SAMPLES ? (int)left : SAMPLES, job->x + t * SAMPLES * job->dims, room->x);
    network_forward(job, room);
}

void fused_table(const Job *job, int64_t first, int64_t last, float *table, void *memory) {
    Room room = {0};
    begin(job, &room, memory);
    int64_t slab = (int64_t)job->width * SAMPLES;
    for (int64_t t = first; t < last; t++) {
        table_block(job, &room, t);
        for (int k = 0; k < job->depths; k++)
            memcpy(table + (t * job->depths + k) * slab, room.added[k], (size_t)slab * 4);
    }
}

void fused_table_backward(const Job *job, int64_t first, int64_t last, const float *table_gradient,
                          float *shared_gradient, void *memory) {
    Room room = {0};
    begin(job, &room, memory);
    int64_t slab = (int64_t)job->width * SAMPLES;
    for (int64_t t = first; t < last; t++) {
        table_block(job, &room, t);
        for (int k = 0; k < job->depths; k++)
            memcpy(room.of_added[k], table_gradient + (t * job->depths + k) * slab, (size_t)slab * 4);
        network_backward(job, &room);
    }
    shared_layers(job, &room, shared_gradient);
}
