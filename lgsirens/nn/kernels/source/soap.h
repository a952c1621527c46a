/* SOAP's step of many matrices, as training/soap.py has it. `library.py` mirrors the struct. */
#ifndef SOAP_H
#define SOAP_H

#include <stdint.h>

/* B matrices `[out][in]`, one at each `stride` numbers; without products and bases Adam's step. */
typedef struct {
    int32_t out, in;
    int32_t renews;         /* whether the bases are renewed */
    float beta, epsilon;
    float rate;             /* of the change, what makes its averages unbiased included */
    int64_t stride;
    float *weight;
    float *mean, *square;   /* averages of the gradient and, as the bases see it, of its square */
    const float *gradient;
    float *products[2];     /* [B][out][out] and [B][in][in], or NULL */
    float *bases[2];
} Matrices;

int64_t soap_matrices_size(void); /* sizeof(Matrices) */

int64_t soap_workspace(const Matrices *matrices);

void soap_step(const Matrices *matrices, int64_t first, int64_t last, void *room);

#endif
