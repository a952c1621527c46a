/* What the kernel needs of it: the page gives sines and cosines of the farthest arguments. */
#define INFINITY __builtin_inff()
#define fabsf __builtin_fabsf
float sinf(float);
float cosf(float);
