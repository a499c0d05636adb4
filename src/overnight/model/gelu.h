/* What gelu.c is given by gelu.py: bfloat16 as the bits it has. */

/* `values` and `slopes` of the `count` numbers of `x`. The `table` [65,536] has both of every bfloat16:
   the value in the lower half of an entry, the slope in the upper. */
void look_up(const uint16_t *restrict x, const uint32_t *restrict table, uint16_t *restrict values,
             uint16_t *restrict slopes, int64_t count, int threads);
