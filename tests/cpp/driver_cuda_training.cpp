// The steps of the CUDA kernels of training, run on the host, against the CPU kernels; see driver_cuda_steps.cpp for
// what that covers.
#include <cmath>

#include "../../cuda/translation_training_steps.h"
#include "host_device.h"
#include "inputs.h"

namespace {

using namespace tercet;
namespace cuda = tercet::cuda;

// Tables, sampled batches and their gradients on the CPU. The loss is the margin's, with which the gradient to a
// positive's score is minus the sum of those to its negatives.
template <class T>
struct Training {
  Norm norm;
  int64_t num_entities, num_relations, dim, num_batches, size, chunk_size, num_negatives, batch;
  std::vector<T> entities, relations;
  std::vector<int32_t> triples, negatives, num_tails;
  std::vector<int64_t> entity_entries, relation_entries;
  std::vector<double> loss;
  std::vector<T> queries, positives, to_negatives;

  Training(Random& random, Norm norm)
      : norm(norm),
        num_entities(random.between(2, 60)),
        num_relations(random.between(1, 4)),
        dim(random.chance(0.5) ? random.between(1, 8) : random.between(30, 70)),
        num_batches(random.between(1, 3)),
        size(random.between(1, 40)),
        chunk_size(random.chance(0.6) ? 1 : random.between(2, 12)),
        num_negatives(random.between(1, 20)),
        batch(random.below(num_batches)),
        entities(draw_values<T>(random, num_entities * dim, -1, 1, random.chance(0.3))),
        relations(draw_values<T>(random, num_relations * dim, -1, 1, false)) {
    for (int64_t i = 0; i < num_batches * size; ++i) {
      for (const int64_t limit : {num_entities, num_relations, num_entities}) {
        triples.push_back(static_cast<int32_t>(random.below(limit)));
      }
    }
    triples = exact(triples);
    const int64_t chunks = batches().num_chunks(), entries = 2 * size + chunks * num_negatives;
    negatives.resize(num_batches * chunks * num_negatives), num_tails.resize(num_batches * chunks);
    entity_entries.resize(num_batches * entries), relation_entries.resize(num_batches * size);
    std::vector<int64_t> scratch(entries);
    sample_batches(batches(), {random.bits(), 0, num_entities, nullptr, nullptr}, scratch.data(), 1);
    if (chunk_size > 1) {  // what the update is given does not matter to it
      queries = draw_values<T>(random, size * 2 * dim, -1, 1, false);
      positives = draw_values<T>(random, size * 3 * dim, -1, 1, false);
      to_negatives = draw_values<T>(random, chunks * num_negatives * dim, -1, 1, false);
      return;
    }
    loss.resize(size), queries.resize(size * 2 * dim), positives.resize(size * 3 * dim);
    to_negatives.resize(size * num_negatives);
    const Scratch room(batch_gradients_bytes<T>(batches(), dim));
    batch_gradients<T>(norm, tables(), batches(), batch, {Loss::kMargin, 1.0, 1.0}, nullptr, gradients(), room.data(),
                       1);
  }

  Tables<T> tables() { return {entities.data(), relations.data(), dim}; }
  Batches batches() {
    return {
        triples.data(), negatives.data(), num_tails.data(), entity_entries.data(), relation_entries.data(), num_batches,
        size,           chunk_size,       num_negatives};
  }
  BatchGradients<T> gradients() { return {loss.data(), queries.data(), positives.data(), to_negatives.data()}; }
};

template <class T>
bool near(const std::vector<T>& a, const std::vector<T>& b, T tolerance) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= tolerance)) return false;
  }
  return true;
}

template <class T>
constexpr T kTolerance = sizeof(T) == 4 ? T(1e-3) : T(1e-11);

template <class T>
void check_gradients(uint64_t seed, Norm norm) {
  Random random(seed);
  const HostDevice device(seed);
  Training<T> training(random, norm);
  if (training.chunk_size > 1) return;
  const int64_t num_pairs = 1 + training.num_negatives, dim = training.dim;
  std::vector<T> queries(training.queries.size(), T(NAN)), scores(training.size * num_pairs, T(NAN));
  cuda::own_scores_steps(device, norm, training.tables(), training.batches(), training.batch, queries.data(),
                         scores.data());
  CHECK(same_bits(queries, training.queries));
  std::vector<T> weights(scores.size(), T(0)), positives(training.positives.size(), T(NAN));
  for (int64_t p = 0; p < training.size; ++p) {
    const int64_t place = training.batch * training.size + p;
    const T* query = queries.data() + 2 * p * dim;
    T to_positive = 0;
    for (int64_t k = -1; k < training.num_negatives; ++k) {
      const int64_t side = k >= training.num_tails[place], pair = p * num_pairs + 1 + k;
      const int64_t id =
          k < 0 ? training.triples[place * 3 + 2] : training.negatives[place * training.num_negatives + k];
      std::vector<T> expected(1);
      const std::vector<T> zeros(dim, T(0));
      transe_score<T>(norm, query + side * dim, zeros.data(), training.entities.data() + id * dim, 1, dim,
                      expected.data(), 1);
      CHECK(near({scores[pair]}, expected, kTolerance<T>));
      if (k < 0) continue;
      weights[pair] = training.to_negatives[p * training.num_negatives + k];
      to_positive -= weights[pair] * (norm == Norm::kL2 ? -scores[pair] : T(1));
    }
    const T own = scores[p * num_pairs];
    weights[p * num_pairs] = norm != Norm::kL2 ? to_positive : own != 0 ? to_positive / -own : T(0);
  }
  cuda::own_gradients_steps(device, norm, training.tables(), training.batches(), training.batch, weights.data(),
                            positives.data());
  CHECK(near(positives, training.positives, kTolerance<T>));
}

template <class T>
void check_update(uint64_t seed, Norm norm) {
  Random random(seed);
  const HostDevice device(seed);
  Training<T> expected(random, norm);
  Training<T> got = expected;
  const Rule rule = static_cast<Rule>(random.below(4));
  const bool unit_ball = random.chance(0.5);
  const int64_t step = random.between(1, 5);
  const auto draw = [&](int64_t rows) { return draw_values<T>(random, rows * expected.dim, 0, 1, false); };
  std::vector<T> first[2] = {draw(expected.num_entities), draw(expected.num_relations)},
                 second[2] = {first[0], first[1]};
  std::vector<T> first_got[2] = {first[0], first[1]}, second_got[2] = {second[0], second[1]},
                 scratch(apply_gradients_scratch<T>(expected.dim));
  const auto update = [&](std::vector<T>& a, std::vector<T>& b, bool ball) {
    return Update<T>{rule, 0.1, 0.9, 0.999, 1e-10, step, a.data(), b.data(), ball};
  };
  apply_gradients<T>(norm, expected.tables(), expected.batches(), expected.batch, expected.gradients(),
                     update(first[0], second[0], unit_ball), update(first[1], second[1], false), scratch.data(), 1);
  cuda::apply_steps(device, norm, got.tables(), got.batches(), got.batch, got.gradients(),
                    update(first_got[0], second_got[0], unit_ball), update(first_got[1], second_got[1], false));
  CHECK(near(got.entities, expected.entities, kTolerance<T>));
  CHECK(near(got.relations, expected.relations, kTolerance<T>));
  for (int side = 0; side < 2; ++side) {
    CHECK(near(first_got[side], first[side], kTolerance<T>));
    CHECK(near(second_got[side], second[side], kTolerance<T>));
  }
}

}  // namespace

void check_cuda_training_kernels(uint64_t seed) {
  for (const Norm norm : {Norm::kL1, Norm::kL2, Norm::kDot}) {
    check_gradients<float>(seed, norm);
    check_gradients<double>(seed, norm);
    check_update<float>(seed, norm);
    check_update<double>(seed, norm);
  }
}
