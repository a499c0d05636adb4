/* GELU and its slope, looked up: one pass instead of error functions and exponentials. */

#include <stdint.h>

#include "gelu.h"

#define SPREAD 32768 /* numbers from which threads are called: fewer are done before they come */

void look_up(const uint16_t *restrict x, const uint32_t *restrict table, uint16_t *restrict values,
             uint16_t *restrict slopes, int64_t count, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && count >= SPREAD)
  for (int64_t i = 0; i < count; i++) {
    uint32_t both = table[x[i]];
    values[i] = (uint16_t)both;
    slopes[i] = (uint16_t)(both >> 16);
  }
}
