/* The package's own kernel (lgsirens/nn/kernels/source), as WebAssembly has it: what the page calls.

   Memory is the page's to divide, from `heap` on. Addresses are multiples of 64. */
#include "fused.c"

#define EXPORT(name) __attribute__((export_name(#name)))

extern char __heap_base;
static Job job;

EXPORT(heap) uintptr_t heap(void) { return ((uintptr_t)&__heap_base + 63) & ~(uintptr_t)63; }

EXPORT(set_model) void set_model(int mode, int dims, int channels, int width, int wide, int depths, float w0,
                                 const float *shared) {
    job = (Job){.mode = mode, .dims = dims, .channels = channels, .width = width, .wide = wide, .depths = depths,
                .w0 = w0, .partitions = 1, .chunks = 1, .shared = shared};
}

/* Bytes that evaluation needs to work in. */
EXPORT(workspace) int workspace(void) { return (int)fused_workspace(&job); }

/* Numbers of the table of so many samples. */
EXPORT(table_size) int table_size(int samples) {
    return (samples + SAMPLES - 1) / SAMPLES * SAMPLES * job.depths * job.width;
}

/* What the shared network contributes to samples that it sees at `x` [samples][dims]. */
EXPORT(fill_table) void fill_table(int samples, const float *x, float *table, void *room) {
    job.samples = samples, job.x = x;
    fused_table(&job, 0, (samples + SAMPLES - 1) / SAMPLES, table, room);
}

/* Values [samples][channels] of one row; without a table the shared network is evaluated at `x`. */
EXPORT(evaluate) void evaluate(int samples, const float *row, const float *x, const float *x_local,
                               const float *table, float *values, void *room) {
    job.samples = samples, job.rows = row, job.x = x, job.x_local = x_local, job.table = table, job.values = values;
    fused_rows(&job, 0, 1, 0, 0, room);
}
