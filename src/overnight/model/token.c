/* One more token through a decoder, in float32: what the layers of this room compute, in one call.

   torch takes longer to begin an operation than one token's takes to be done: two thirds of the time
   (docs/lab-notes.md, E44). B rows of a batch stand side by side; a weight is [out, in] and is
   read once for all of them. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "token.h"

enum {
  SPREAD = 1 << 13, /* multiplications from which several threads are worth waking */
  CONVOLUTION = 4,  /* tokens that a short convolution sees */
};

static float dot(const float *restrict a, const float *restrict b, int n) {
  float sum = 0;
  for (int i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

static void output(const Linear *m, const float *x, float *y, int B, int add, int o) {
  for (int b = 0; b < B; b++) {
    float sum = dot(x + (int64_t)b * m->in, m->weight + (int64_t)o * m->in, m->in);
    if (m->bias) sum += m->bias[o];
    float *to = y + (int64_t)b * m->out + o;
    *to = add ? *to + sum : sum;
  }
}

/* y = x·Wᵀ + bias, or y += …; a loop of its own for one thread, which is not to wait for a team */
static void linear(const Linear *m, const float *x, float *y, int B, int add, int threads) {
  if (threads == 1 || (int64_t)m->in * m->out < SPREAD) {
    for (int o = 0; o < m->out; o++) output(m, x, y, B, add, o);
    return;
  }
#pragma omp parallel for num_threads(threads)
  for (int o = 0; o < m->out; o++) output(m, x, y, B, add, o);
}

/* of one row; y may be x */
static void normalise(const Norm *n, const float *x, float *y) {
  float mean = 0, square = 0;
  if (!n->rms)
    for (int i = 0; i < n->width; i++) mean += x[i];
  mean /= n->width;
  for (int i = 0; i < n->width; i++) square += (x[i] - mean) * (x[i] - mean);
  float scale = 1 / sqrtf(square / n->width + n->eps);
  for (int i = 0; i < n->width; i++) {
    float unit = (x[i] - mean) * scale;
    if (n->weight) unit *= n->weight[i];
    y[i] = n->bias ? unit + n->bias[i] : unit;
  }
}

/* eˣ to a unit in the last place, without a branch: the library's is called number by number.
   x = n·ln 2 + r, a polynomial for eʳ (Cephes), 2ⁿ by its bits. */
static inline float exponential(float x) {
  x = x < -87.3f ? -87.3f : x > 88.3f ? 88.3f : x;
  float n = rintf(x * 1.44269504f);
  float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, x)); /* ln 2 in two parts, in order */
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1;
  union { uint32_t bits; float value; } power = {(uint32_t)((int32_t)n + 127) << 23};
  return p * power.value;
}

static void silu(float *x, int n) {
  for (int i = 0; i < n; i++) x[i] /= 1 + exponential(-x[i]);
}

/* Sixteen at a time: a compiler searches one by one, as what is no number may be among them */
static float largest(const float *x, int n) {
  float most[16], all = x[0];
  for (int i = 0; i < 16; i++) most[i] = x[0];
  int i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
  for (; i < n; i++) all = x[i] > all ? x[i] : all;
  for (int j = 0; j < 16; j++) all = most[j] > all ? most[j] : all;
  return all;
}

static void softmax(float *x, int n) {
  float most = largest(x, n), sum = 0;
  for (int i = 0; i < n; i++) sum += x[i] = exponential(x[i] - most);
  for (int i = 0; i < n; i++) x[i] /= sum;
}

/* halves rotated against each other */
static void rotate(float *x, const float *cosine, const float *sine, int size) {
  for (int i = 0; i < size / 2; i++) {
    float a = x[i], b = x[i + size / 2];
    x[i] = a * cosine[i] - b * sine[i];
    x[i + size / 2] = b * cosine[i + size / 2] + a * sine[i + size / 2];
  }
}

/* head `h` of row `b`: its query over S keys and values; scores [B, heads, S] is room */
static void attend(const Attention *a, const float *qkv, float *scores, float *y, int B, int S,
                   int b, int h) {
  int H = a->heads, K = a->kv_heads, size = a->size;
  const float *q = qkv + (int64_t)b * a->qkv.out + h * size;
  const float *k = a->kv + ((int64_t)b * K + h / (H / K)) * a->capacity * size;
  const float *v = k + (int64_t)B * K * a->capacity * size;
  float scale = 1 / sqrtf((float)size), slope = a->slopes ? a->slopes[h] : 0;
  scores += ((int64_t)b * H + h) * S, y += ((int64_t)b * H + h) * size;
  for (int s = 0; s < S; s++)
    scores[s] = dot(q, k + (int64_t)s * size, size) * scale - slope * (float)(S - 1 - s);
  softmax(scores, S);
  memset(y, 0, sizeof(float) * size);
  int s = 0;
  for (; s + 4 <= S; s += 4, v += 4 * size) /* so that y is read and written a quarter as often */
    for (int i = 0; i < size; i++)
      y[i] += scores[s] * v[i] + scores[s + 1] * v[i + size] + scores[s + 2] * v[i + 2 * size] +
              scores[s + 3] * v[i + 3 * size];
  for (; s < S; s++, v += size)
    for (int i = 0; i < size; i++) y[i] += scores[s] * v[i];
}

static void attention(const Attention *a, const float *x, float *stream, int B, int past,
                      int threads, float *room) {
  int H = a->heads, K = a->kv_heads, D = a->size, S = past + 1;
  int64_t cached = (int64_t)a->capacity * D;
  float *qkv = room, *y = qkv + (int64_t)B * a->qkv.out, *scores = y + (int64_t)B * H * D;
  linear(&a->qkv, x, qkv, B, 0, threads);
  for (int b = 0; b < B; b++) {
    float *head = qkv + (int64_t)b * a->qkv.out;
    for (int h = 0; h < H + 2 * K; h++, head += D) {
      if (h < H + K) {
        if (a->qk_norm.width) normalise(&a->qk_norm, head, head);
        if (a->cos) rotate(head, a->cos + (int64_t)past * D, a->sin + (int64_t)past * D, D);
      }
      int of_values = h >= H + K, kv_head = h - H - of_values * K;
      if (h >= H)
        memcpy(a->kv + (((int64_t)of_values * B + b) * K + kv_head) * cached + (int64_t)past * D,
               head, sizeof(float) * D);
    }
  }
  if (threads == 1 || (int64_t)B * H * S * D < SPREAD)
    for (int i = 0; i < B * H; i++) attend(a, qkv, scores, y, B, S, i / H, i % H);
  else
#pragma omp parallel for num_threads(threads)
    for (int i = 0; i < B * H; i++) attend(a, qkv, scores, y, B, S, i / H, i % H);
  linear(&a->out, y, stream, B, 1, threads);
}

/* `convolve` of layers.py for one token: y from the `tail` and x [M], which the tail then ends with */
static void convolve(const float *weights, const float *bias, const float *x, int M, float *tail,
                     float *y) {
  for (int i = 0; i < M; i++) y[i] = bias ? bias[i] : 0;
  for (int j = 0; j < CONVOLUTION; j++) {
    const float *seen = j < CONVOLUTION - 1 ? tail + (int64_t)j * M : x;
    for (int i = 0; i < M; i++) y[i] += seen[i] * weights[(int64_t)j * M + i];
  }
  memmove(tail, tail + M, sizeof(float) * (CONVOLUTION - 2) * M);
  memcpy(tail + (int64_t)(CONVOLUTION - 2) * M, x, sizeof(float) * M);
}

/* one step of S ← exp(Δ·A)·S + Δ·x Bᵀ, y = S·C + D·x, for one head */
static void recur(const StateSpace *s, int h, float step, const float *x, const float *b,
                  const float *c, float *memory, float *y) {
  step += s->step_bias[h];
  step = step > 20 ? step : log1pf(expf(step)); /* as torch's softplus */
  float kept = expf(-expf(s->decay_log[h]) * step);
  for (int p = 0; p < s->size; p++, memory += s->state) {
    float into = step * x[p], sum = 0;
    for (int n = 0; n < s->state; n++) {
      memory[n] = kept * memory[n] + into * b[n];
      sum += memory[n] * c[n];
    }
    y[p] = sum + s->skip[h] * x[p];
  }
}

static void state_space(const StateSpace *s, const float *x, float *stream, int B, int threads,
                        float *room) {
  int H = s->heads, P = s->size, N = s->state, E = H * P, M = E + 2 * N;
  float *projected = room, *mixed = projected + (int64_t)B * s->into.out, *y = mixed + M;
  linear(&s->into, x, projected, B, 0, threads);
  for (int b = 0; b < B; b++) {
    float *z = projected + (int64_t)b * s->into.out, *now = z + E, *step = now + M;
    float *tail = s->tail + (int64_t)b * (CONVOLUTION - 1) * M, *gated = y + (int64_t)b * E;
    convolve(s->convolution, s->convolution_bias, now, M, tail, mixed);
    silu(mixed, M);
#pragma omp parallel for num_threads(threads) if (threads > 1 && (int64_t)E * N >= SPREAD)
    for (int h = 0; h < H; h++)
      recur(s, h, step[h], mixed + h * P, mixed + E, mixed + E + N,
            s->memory + ((int64_t)b * H + h) * P * N, gated + h * P);
    silu(z, E);
    for (int i = 0; i < E; i++) gated[i] *= z[i];
    normalise(&s->norm, gated, gated);
  }
  linear(&s->out, y, stream, B, 1, threads);
}

static void activate(Activation kind, float *h, int F) {
  if (kind == relu2)
    for (int i = 0; i < F; i++) h[i] = h[i] < 0 ? 0 : h[i] * h[i]; /* what is no number stays none */
  else if (kind == gelu)
    for (int i = 0; i < F; i++) h[i] *= 0.5f * (1 + erff(h[i] * 0.70710678f));
  else if (kind == gelu_tanh) /* x·σ(2u) is x·½(1 + tanh u) */
    for (int i = 0; i < F; i++)
      h[i] /= 1 + exponential(-1.59576912f * (h[i] + 0.044715f * h[i] * h[i] * h[i]));
}

static void feed_forward(const FeedForward *m, const float *x, float *stream, int B, int threads,
                         float *h) {
  int F = m->down.in;
  linear(&m->up, x, h, B, 0, threads);
  for (int b = 0; b < B; b++) {
    float *row = h + (int64_t)b * m->up.out;
    if (m->activation == swiglu) {
      silu(row, F);
      for (int i = 0; i < F; i++) h[(int64_t)b * F + i] = row[i] * row[F + i];
    } else
      activate(m->activation, row, F);
  }
  linear(&m->down, h, stream, B, 1, threads);
}

/* the row of an n-gram that ends with `id`: `NgramTable.rows_of` */
static int64_t row_of(const NgramTable *t, int64_t id, const int64_t *seen, int before) {
  uint64_t hashed = 0;
  for (int back = 0; back < t->order; back++) {
    int64_t each = back ? seen[before - back] : id;
    hashed = (hashed * 1000003 + (uint64_t)(each + 1)) & 0xFFFFFFFFFF;
  }
  int64_t row = (int64_t)((hashed * 0x9E3779) ^ (hashed >> 17)) % t->rows;
  return row < 0 ? row + t->rows : row;
}

/* the stream x [C] of row `b` before the layers; `convolved` [C] is room */
static void embed(const Decoder *d, int b, int64_t id, int past, float *x, float *convolved) {
  int C = d->width, P = d->before;
  int64_t *seen = d->seen + (int64_t)b * P;
  memcpy(x, d->embed + id * C, sizeof(float) * C);
  if (d->positions)
    for (int i = 0; i < C; i++) x[i] += d->positions[(int64_t)past * C + i];
  for (int t = 0; t < d->tables; t++) {
    const float *row = d->table[t].weight + row_of(d->table + t, id, seen, P) * C;
    for (int i = 0; i < C; i++) x[i] += row[i];
  }
  if (P) {
    memmove(seen, seen + 1, sizeof(int64_t) * (P - 1));
    seen[P - 1] = id;
  }
  if (d->convolution) {
    convolve(d->convolution, NULL, x, C, d->tail + (int64_t)b * (CONVOLUTION - 1) * C, convolved);
    for (int i = 0; i < C; i++) x[i] += convolved[i];
  }
}

/* floats that the layers need beside the stream */
static int64_t room_for(const Decoder *d, int past) {
  int64_t most = 0;
  for (const Layer *l = d->layer; l < d->layer + d->layers; l++) {
    const Attention *a = &l->attention;
    const StateSpace *s = &l->state_space;
    int64_t mixer = l->attends ? a->qkv.out + (int64_t)a->heads * (a->size + past + 1)
                               : s->into.out + 2 * (int64_t)s->heads * s->size + 2 * s->state;
    most = mixer > most ? mixer : most;
    most = l->mlp.up.out > most ? l->mlp.up.out : most;
  }
  return d->batch * most;
}

int token(const Decoder *d, const int64_t *ids, int past, int threads, float *logits) {
  int B = d->batch, C = d->width;
  for (int b = 0; b < B; b++)
    if (ids[b] < 0 || ids[b] >= d->vocabulary) return 1;
  float *x = malloc(sizeof(float) * (2 * (int64_t)B * C + room_for(d, past)));
  if (!x) return 2;
  float *normed = x + (int64_t)B * C, *room = normed + (int64_t)B * C;
  for (int b = 0; b < B; b++) embed(d, b, ids[b], past, x + (int64_t)b * C, normed);
  for (const Layer *l = d->layer; l < d->layer + d->layers; l++) {
    for (int b = 0; b < B; b++) normalise(&l->norm, x + (int64_t)b * C, normed + (int64_t)b * C);
    if (l->attends)
      attention(&l->attention, normed, x, B, past, threads, room);
    else
      state_space(&l->state_space, normed, x, B, threads, room);
    if (l->mlp.activation == none) continue;
    for (int b = 0; b < B; b++)
      normalise(&l->mlp_norm, x + (int64_t)b * C, normed + (int64_t)b * C);
    feed_forward(&l->mlp, normed, x, B, threads, room);
  }
  for (int b = 0; b < B; b++) normalise(&d->norm, x + (int64_t)b * C, normed + (int64_t)b * C);
  linear(&d->head, normed, logits, B, 0, threads);
  free(x);
  return 0;
}
