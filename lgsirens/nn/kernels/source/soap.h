/* SOAP's step of many matrices, as training/soap.py has it. `library.py` mirrors the struct. */
#ifndef SOAP_H
#define SOAP_H

#include <stdint.h>

/* Matrices `[out][in]`, one at each `stride` numbers; without products and bases Adam's step. */
typedef struct {
    int32_t out, in;
    int64_t count, stride;
    float *weight;
    float *mean, *square;   /* averages of the gradient and, as the bases see it, of its square */
    const float *gradient;
    float *products[2];     /* [count][out][out] and [count][in][in], or NULL */
    float *bases[2];
} Matrices;

typedef struct {
    float beta, epsilon;
    float rate;     /* of the change, what makes its averages unbiased included */
    int32_t renews; /* whether the bases are renewed */
} Step;

int64_t soap_matrices_size(void); /* sizeof(Matrices) */

int64_t soap_step_size(void); /* sizeof(Step) */

int64_t soap_workspace(const Matrices *matrices);

/* One of several threads' part of a step of layers. */
void soap_step(const Matrices *layers, int64_t number, const Step *step, int64_t thread, int64_t threads, void *room);

#endif
