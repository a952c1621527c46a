/* What the fused kernel is given, and its functions. `library.py` mirrors the struct. */
#ifndef FUSED_H
#define FUSED_H

#include <stdint.h>

enum { LOCAL_ONLY, FC, FC_AND_ADD }; /* modes */

/* B partitions, N samples of each; pointers are to float32, contiguous, `[...]` their shapes, unless it says otherwise.

   Blocks of 64 samples are numbered along N, `T = ceil(N / 64)`. A table is `[T][depths][width][64]`: what the shared
   network contributes. */
typedef struct {
    int32_t mode, dims, channels, width, wide, depths; /* depths: sines, H + 1 */
    float w0;
    int32_t partitions, samples;
    int32_t chunks;         /* parts of a partition's samples that are differentiated apart */
    int32_t learns_shared;  /* whether the shared network takes a gradient */
    float factor;           /* of the gradient: 2 / count */
    const float *x;         /* [B or 1][N][dims], what the shared network sees */
    const float *x_local;   /* the same for local networks */
    const float *target;    /* [B][N][channels] */
    const float *weight;    /* [B][N], or NULL: all 1 */
    const float *own;       /* [B or 1][N], or NULL: all 1 */
    const float *rows;      /* [B][K] */
    const float *shared;    /* all shared tensors, one after the other */
    const float *table;     /* [B or 1] tables, or NULL: the shared network is evaluated for each block */
    float *values;          /* [B][N][channels], or NULL */
    double *errors;         /* [chunks][B], sums of squares; NULL: only values are wanted */
    float *row_gradient;    /* [chunks][B][K], or NULL: no gradients */
    /* Numbers from one partition to the next, 0 where all share the same. */
    int64_t x_stride, x_local_stride, own_stride, table_stride;
} Job;

/* sizeof(Job): tells a build of other sources. */
int64_t fused_job_size(void);

/* Bytes that one thread needs to work in, aligned to 64. */
int64_t fused_workspace(const Job *job);

/* Units `first` to `last` of partitions times chunks. Added to: the gradients of the table and the shared tensors, of
   this thread alone. */
void fused_rows(const Job *job, int64_t first, int64_t last, float *table_gradient, float *shared_gradient, void *room);

/* Blocks `first` to `last` of the table of `job->x`. */
void fused_table(const Job *job, int64_t first, int64_t last, float *table, void *room);

/* Add to the gradient of the shared tensors what blocks `first` to `last` of a table's gradient give. */
void fused_table_backward(const Job *job, int64_t first, int64_t last, const float *table_gradient,
                          float *shared_gradient, void *room);

#endif
