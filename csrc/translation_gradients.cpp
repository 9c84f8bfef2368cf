#include <algorithm>
#include <limits>
#include <type_traits>

#include "prefetch.h"
#include "translation_known.h"
#include "translation_losses.h"
#include "translation_rows.h"
#include "translation_training.h"

namespace tercet {

namespace {

constexpr int64_t kPositivesPerTask = 16;
constexpr int64_t kRowsAhead = 6;  // negatives that are asked for before they are scored

// Cuts arrays out of one block; over null it only counts.
class Cutter {
 public:
  explicit Cutter(void* memory) : memory_(static_cast<unsigned char*>(memory)) {}

  template <class V>
  V* take(int64_t count) {
    V* taken = memory_ ? reinterpret_cast<V*>(memory_ + bytes_) : nullptr;
    bytes_ += (count * static_cast<int64_t>(sizeof(V)) + 63) / 64 * 64;
    return taken;
  }
  int64_t bytes() const { return bytes_; }

 private:
  unsigned char* memory_;
  int64_t bytes_ = 0;
};

template <class T>
struct Vectors {
  const T *head, *relation, *tail;
};

// What all of a positive's gradients are computed from.
template <class T>
struct Step {
  const Tables<T>& tables;
  const Batches& batches;
  const LossOptions& options;
  const Known* known;
  const BatchGradients<T>& out;
  int64_t batch;

  const int32_t* triple(int64_t p) const { return batches.triples + (batch * batches.size + p) * 3; }
  const T* entity(int64_t id) const { return tables.entities + id * tables.dim; }
  Vectors<T> vectors(int64_t p) const {
    const int32_t* ids = triple(p);
    return {entity(ids[0]), tables.relations + ids[1] * tables.dim, entity(ids[2])};
  }
  T scale() const { return T{1} / static_cast<T>(batches.size); }
};

template <class N, class T>
void write_queries(const Vectors<T>& v, int64_t dim, T* queries) {
  for (int64_t d = 0; d < dim; ++d) {
    queries[d] = v.head[d] + v.relation[d];
    queries[dim + d] = std::is_same_v<N, Dot> ? v.tail[d] : v.tail[d] - v.relation[d];
  }
}

// A score's gradient to what it pulls at is a multiple of f; l2's divides by the distance.
template <class N, class T>
T pull_weight(T to_score, T score) {
  if constexpr (std::is_same_v<N, L2>) return score != 0 ? to_score / -score : 0;
  return to_score;
}

// positives [3, dim] from the gradients to the two queries, to_query [2, dim], those of the negatives alone.
// head_shift: the sum of the gradients to the scores of replaced heads, which with Dot hold <r, t> too.
template <class N, class T>
void write_positive(const Vectors<T>& v, const T* queries, const T* to_query, T weight, T head_shift, int64_t dim,
                    T* positives) {
  T *to_head = positives, *to_relation = positives + dim, *to_tail = positives + 2 * dim;
  std::copy(to_query, to_query + dim, to_head);
  std::copy(to_query + dim, to_query + 2 * dim, to_tail);
  pull_partners<N>(queries, &v.tail, &weight, 1, dim, to_head);
  pull_partners<N>(v.tail, &queries, &weight, 1, dim, to_tail);
  for (int64_t d = 0; d < dim; ++d) {
    if constexpr (std::is_same_v<N, Dot>) {
      to_relation[d] = to_head[d] + head_shift * v.tail[d];
      to_tail[d] += head_shift * v.relation[d];
    } else {
      to_relation[d] = to_head[d] - to_query[dim + d];
    }
  }
}

// Scratch of a positive with negatives of its own.
template <class T>
struct OwnScratch {
  OwnScratch(Cutter& cut, const Batches& b, int64_t dim)
      : to_query(cut.take<T>(2 * dim)),
        scores(cut.take<T>(b.num_negatives)),
        weights(cut.take<T>(b.num_negatives)),
        rows(cut.take<const T*>(b.num_negatives)) {}

  T* to_query;          // [2, dim]
  T *scores, *weights;  // [num_negatives]
  const T** rows;       // [num_negatives], those that pull
};

// A positive with negatives of its own.
template <class N, class T>
void own_gradients(const Step<T>& step, int64_t p, const OwnScratch<T>& scratch) {
  T *to_query = scratch.to_query, *scores = scratch.scores;
  const T** rows = scratch.rows;
  const int64_t dim = step.tables.dim, num_negatives = step.batches.num_negatives;
  const int64_t place = step.batch * step.batches.size + p, num_tails = step.batches.num_tails[place];
  const int32_t* negatives = step.batches.negatives + place * num_negatives;
  const Vectors<T> v = step.vectors(p);
  T* queries = step.out.queries + p * 2 * dim;
  T* weights = step.out.negatives + p * num_negatives;
  write_queries<N>(v, dim, queries);
  const auto ask_for = [&](int64_t k) {
    if (k >= num_negatives) return;
    const T* row = step.entity(negatives[k]);
    for (int64_t d = 0; d < dim; d += 64 / static_cast<int64_t>(sizeof(T))) prefetch(row + d);
  };
  for (int64_t k = 0; k < kRowsAhead; ++k) ask_for(k);
  T shift = 0;
  if constexpr (std::is_same_v<N, Dot>) shift = row_sum<Dot>(v.relation, v.tail, dim);
  for (int64_t k = 0; k < num_negatives; ++k) {
    ask_for(k + kRowsAhead);
    scores[k] = N::score(row_sum<N>(queries + (k < num_tails ? 0 : dim), step.entity(negatives[k]), dim));
    weights[k] = scores[k] + (k < num_tails ? 0 : shift);
  }
  const T positive = N::score(row_sum<N>(queries, v.tail, dim));
  T to_positive, head_shift = 0;
  Side<T> sides[2] = {{weights, num_tails}, {weights + num_tails, num_negatives - num_tails}};
  step.out.loss[p] = positive_loss(step.options, positive, sides, step.scale(), scratch.weights, &to_positive);
  for (int64_t k = num_tails; k < num_negatives; ++k) head_shift += weights[k];
  std::fill(to_query, to_query + 2 * dim, T{0});
  for (int s = 0; s < 2; ++s) {
    int64_t pulling = 0;
    for (int64_t k = s == 0 ? 0 : num_tails; k < (s == 0 ? num_tails : num_negatives); ++k) {
      weights[k] = pull_weight<N>(weights[k], scores[k]);
      if (weights[k] == 0) continue;
      rows[pulling] = step.entity(negatives[k]);
      scratch.weights[pulling++] = weights[k];
    }
    pull_partners<N>(queries + s * dim, rows, scratch.weights, pulling, dim, to_query + s * dim);
  }
  write_positive<N>(v, queries, to_query, pull_weight<N>(to_positive, positive), head_shift, dim,
                    step.out.positives + p * 3 * dim);
}

// Scratch of a chunk that shares negatives; sides are tails, then heads.
template <class T>
struct ChunkScratch {
  ChunkScratch(Cutter& cut, const Batches& b, int64_t dim)
      : queries(cut.take<T>(2 * b.chunk_size * dim)),
        to_queries(cut.take<T>(2 * b.chunk_size * dim)),
        negatives(cut.take<T>(b.num_negatives * dim)),
        scores(cut.take<T>(b.chunk_size * b.num_negatives)),
        weights(cut.take<T>(b.chunk_size * b.num_negatives)),
        own_weights(cut.take<T>(b.chunk_size)),
        head_shifts(cut.take<T>(b.chunk_size)),
        to_query(cut.take<T>(2 * dim)),
        loss_weights(cut.take<T>(b.num_negatives)),
        tile(cut.take<T>(transe_scores_scratch<T>(dim))) {}

  T *queries, *to_queries;       // [2, chunk_size, dim]
  T* negatives;                  // [num_negatives, dim]
  T *scores, *weights;           // [chunk_size, number of the side's negatives] of each side, one after the other
  T *own_weights, *head_shifts;  // [chunk_size]
  T* to_query;                   // [2, dim]
  T* loss_weights;               // [num_negatives]
  T* tile;
};

template <class N, class T>
class ChunkGradients {
 public:
  ChunkGradients(Norm norm, const Step<T>& step, int64_t chunk, const ChunkScratch<T>& scratch)
      : norm_(norm),
        step_(step),
        b_(step.batches),
        scratch_(scratch),
        chunk_(chunk),
        first_(chunk * b_.chunk_size),
        count_(std::min(b_.chunk_size, b_.size - first_)),
        dim_(step.tables.dim),
        negatives_(b_.negatives + (step.batch * b_.num_chunks() + chunk) * b_.num_negatives) {
    const int64_t num_tails = b_.num_tails[step.batch * b_.num_chunks() + chunk];
    start_[1] = num_tails;
    size_[0] = num_tails;
    size_[1] = b_.num_negatives - num_tails;
  }

  void run() {
    gather();
    for (int s = 0; s < 2; ++s) {
      transe_scores<T>(norm_, queries(s), count_, negatives(s), size_[s], dim_, scores(s), scratch_.tile, 1);
    }
    for (int64_t i = 0; i < count_; ++i) weigh(i);
    for (int s = 0; s < 2; ++s) {
      transe_scores_backward<T>(norm_, queries(s), count_, negatives(s), size_[s], dim_, {weights(s), size_[s], 1},
                                scratch_.to_queries + s * b_.chunk_size * dim_, 1);
      transe_scores_backward<T>(norm_, negatives(s), size_[s], queries(s), count_, dim_, {weights(s), 1, size_[s]},
                                step_.out.negatives + (chunk_ * b_.num_negatives + start_[s]) * dim_, 1);
    }
    for (int64_t i = 0; i < count_; ++i) {
      for (int s = 0; s < 2; ++s) {
        std::copy_n(scratch_.to_queries + (s * b_.chunk_size + i) * dim_, dim_, scratch_.to_query + s * dim_);
      }
      const int64_t p = first_ + i;
      write_positive<N>(step_.vectors(p), step_.out.queries + p * 2 * dim_, scratch_.to_query, scratch_.own_weights[i],
                        scratch_.head_shifts[i], dim_, step_.out.positives + p * 3 * dim_);
    }
  }

 private:
  T* queries(int side) const { return scratch_.queries + side * b_.chunk_size * dim_; }
  T* negatives(int side) const { return scratch_.negatives + start_[side] * dim_; }
  T* scores(int side) const { return scratch_.scores + start_[side] * b_.chunk_size; }
  T* weights(int side) const { return scratch_.weights + start_[side] * b_.chunk_size; }

  void gather() const {
    for (int64_t k = 0; k < b_.num_negatives; ++k) {
      std::copy_n(step_.entity(negatives_[k]), dim_, scratch_.negatives + k * dim_);
    }
    for (int64_t i = 0; i < count_; ++i) {
      T* both = step_.out.queries + (first_ + i) * 2 * dim_;
      write_queries<N>(step_.vectors(first_ + i), dim_, both);
      for (int s = 0; s < 2; ++s) std::copy_n(both + s * dim_, dim_, queries(s) + i * dim_);
    }
  }

  // From the scores of a positive to the weights of its pulls.
  void weigh(int64_t i) const {
    const int64_t p = first_ + i;
    const Vectors<T> v = step_.vectors(p);
    const T shift = std::is_same_v<N, Dot> ? row_sum<Dot>(v.relation, v.tail, dim_) : T{0};
    Side<T> sides[2];
    for (int s = 0; s < 2; ++s) {
      const T* from = scores(s) + i * size_[s];
      T* to = weights(s) + i * size_[s];
      for (int64_t k = 0; k < size_[s]; ++k) to[k] = from[k] + (s == 1 ? shift : T{0});
      mark_absent(p, s, to);
      sides[s] = {to, size_[s]};
    }
    const T positive = N::score(row_sum<N>(step_.out.queries + p * 2 * dim_, v.tail, dim_));
    T to_positive;
    step_.out.loss[p] =
        positive_loss(step_.options, positive, sides, step_.scale(), scratch_.loss_weights, &to_positive);
    scratch_.own_weights[i] = pull_weight<N>(to_positive, positive);
    scratch_.head_shifts[i] = 0;
    for (int64_t k = 0; k < size_[1]; ++k) scratch_.head_shifts[i] += sides[1].scores[k];
    for (int s = 0; s < 2; ++s) {
      const T* from = scores(s) + i * size_[s];
      for (int64_t k = 0; k < size_[s]; ++k) sides[s].scores[k] = pull_weight<N>(sides[s].scores[k], from[k]);
    }
  }

  // Negatives that are true for a positive.
  void mark_absent(int64_t p, int side, T* scores) const {
    const int32_t* triple = step_.triple(p);
    const int32_t* negatives = negatives_ + start_[side];
    for (int64_t k = 0; k < size_[side]; ++k) {
      const bool same = negatives[k] == triple[side == 0 ? 2 : 0];
      if (same || (step_.known && is_known(*step_.known, triple, side == 0, negatives[k]))) {
        scores[k] = -std::numeric_limits<T>::infinity();
      }
    }
  }

  Norm norm_;
  const Step<T>& step_;
  const Batches& b_;
  const ChunkScratch<T>& scratch_;
  int64_t chunk_, first_, count_, dim_;
  const int32_t* negatives_;
  int64_t start_[2] = {0, 0}, size_[2];
};

}  // namespace

template <class T>
int64_t batch_gradients_bytes(const Batches& batches, int64_t dim) {
  Cutter own(nullptr), shared(nullptr);
  OwnScratch<T>(own, batches, dim);
  ChunkScratch<T>(shared, batches, dim);
  return batches.chunk_size == 1 ? own.bytes() : shared.bytes();
}

template <class T>
void batch_gradients(Norm norm, const Tables<T>& tables, const Batches& batches, int64_t batch, const LossOptions& loss,
                     const Known* known, const BatchGradients<T>& out, void* scratch, int num_threads) {
  const Step<T> step{tables, batches, loss, known, out, batch};
  const int64_t bytes = batch_gradients_bytes<T>(batches, tables.dim);
  const auto memory = [&](int worker) { return Cutter(static_cast<unsigned char*>(scratch) + worker * bytes); };
  with_norm(norm, [&](auto n) {
    using N = decltype(n);
    if (batches.chunk_size > 1) {
      parallel_for(batches.num_chunks(), num_threads, [&](int64_t chunk, int worker) {
        Cutter cut = memory(worker);
        const ChunkScratch<T> arrays(cut, batches, tables.dim);
        ChunkGradients<N, T>(norm, step, chunk, arrays).run();
      });
      return;
    }
    const int64_t num_tasks = (batches.size + kPositivesPerTask - 1) / kPositivesPerTask;
    parallel_for(num_tasks, num_threads, [&](int64_t task, int worker) {
      Cutter cut = memory(worker);
      const OwnScratch<T> arrays(cut, batches, tables.dim);
      const int64_t last = std::min(batches.size, (task + 1) * kPositivesPerTask);
      for (int64_t p = task * kPositivesPerTask; p < last; ++p) own_gradients<N>(step, p, arrays);
    });
  });
}

#define TERCET_INSTANTIATE(T)                                                                                         \
  template int64_t batch_gradients_bytes<T>(const Batches&, int64_t);                                                 \
  template void batch_gradients<T>(Norm, const Tables<T>&, const Batches&, int64_t, const LossOptions&, const Known*, \
                                   const BatchGradients<T>&, void*, int);
TERCET_INSTANTIATE(float)
TERCET_INSTANTIATE(double)
#undef TERCET_INSTANTIATE

}  // namespace tercet
