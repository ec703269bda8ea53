/* Names of vectors of LANES floats. They mean another width wherever LANES does. */

#define floats NAME(floats)
#define loose NAME(loose)
#define doubles NAME(doubles)
#define masks NAME(masks)
#define bits NAME(bits)
typedef float floats __attribute__((vector_size(4 * LANES), aligned(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef double doubles __attribute__((vector_size(4 * LANES), aligned(4 * LANES)));
typedef int masks __attribute__((vector_size(4 * LANES), aligned(4 * LANES)));
typedef unsigned bits __attribute__((vector_size(4 * LANES), aligned(4 * LANES)));
#define DOUBLES (LANES / 2)
