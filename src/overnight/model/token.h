/* What token.c is given: the structures of a decoder, filled by native.py; library.py reads this file.

   Pointers are to contiguous float32 (ids: int64), NULL where a part is missing. Names are those of decoder.py,
   layers.py, attention.py and ssm.py. */

typedef enum { none, gelu, gelu_tanh, relu2, swiglu } Activation; /* `model.mlp` */

typedef struct {
  const float *weight, *bias;
  int in, out;
} Linear;

typedef struct {
  const float *weight, *bias;
  float eps;
  int rms, width;
} Norm;

typedef struct {
  int heads, kv_heads, size;
  Linear qkv, out;
  Norm qk_norm;              /* of width 0: none */
  const float *cos, *sin;    /* [capacity, size] */
  const float *slopes;       /* of ALiBi [heads] */
  float *kv;                 /* [2, B, kv_heads, capacity, size] */
  int capacity;
} Attention;

typedef struct {
  int heads, size, state;
  Linear into, out;
  const float *convolution, *convolution_bias; /* [CONVOLUTION, M], [M] with M = inner + 2·state */
  const float *step_bias, *decay_log, *skip;   /* [heads] */
  Norm norm;
  float *tail;                                 /* [B, CONVOLUTION − 1, M] */
  float *memory;                               /* [B, heads, size, state] */
} StateSpace;

typedef struct {
  Activation activation;
  Linear up, down;
} FeedForward;

typedef struct {
  int attends;
  Norm norm, mlp_norm;
  Attention attention;
  StateSpace state_space;
  FeedForward mlp;
} Layer;

typedef struct {
  int order, rows;
  const float *weight;
} NgramTable;

typedef struct {
  int batch, width, vocabulary;
  const float *embed, *positions;
  int tables, before;             /* n-gram tables, and how many ids before this one they see */
  const NgramTable *table;
  int64_t *seen;                  /* [B, before], −1 where no text is */
  const float *convolution;       /* [CONVOLUTION, width] */
  float *tail;                    /* [B, CONVOLUTION − 1, width], embeddings that it saw before */
  int layers;
  const Layer *layer;
  Norm norm;
  Linear head;
} Decoder;

/* The logits [B, V] after `ids` [B], which have `past` tokens before them; the same bits with any
   number of threads. Returns 0, or 1 where an id is none of the vocabulary, 2 where there is no memory. */
int token(const Decoder *d, const int64_t *ids, int past, int threads, float *logits);
