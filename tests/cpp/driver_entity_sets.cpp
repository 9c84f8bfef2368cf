// The merges and the largest members of each row against plain loops.
#include <cmath>

#include "entity_sets.h"
#include "inputs.h"

namespace {

using namespace tercet;

int64_t position(const RandomSets& sets, int64_t row, int32_t entity) {
  const auto begin = sets.entities.begin() + sets.offsets[row], end = sets.entities.begin() + sets.offsets[row + 1];
  const auto found = std::lower_bound(begin, end, entity);
  return found != end && *found == entity ? found - sets.entities.begin() : -1;
}

struct Merged {
  std::vector<int64_t> offsets, index_a, index_b;
  std::vector<int32_t> entities;
  bool operator==(const Merged&) const = default;
};

Merged merge_plainly(const RandomSets& a, const RandomSets& b, Merge how, int64_t num_entities) {
  Merged merged{{0}, {}, {}, {}};
  for (int64_t row = 0; row < a.batch(); ++row) {
    for (int64_t entity = 0; entity < num_entities; ++entity) {
      const int64_t in_a = position(a, row, static_cast<int32_t>(entity));
      const int64_t in_b = position(b, row, static_cast<int32_t>(entity));
      const bool wanted = how == Merge::kUnion          ? in_a >= 0 || in_b >= 0
                          : how == Merge::kIntersection ? in_a >= 0 && in_b >= 0
                                                        : in_a >= 0 && in_b < 0;
      if (!wanted) continue;
      merged.entities.push_back(static_cast<int32_t>(entity));
      merged.index_a.push_back(in_a);
      merged.index_b.push_back(in_b);
    }
    merged.offsets.push_back(static_cast<int64_t>(merged.entities.size()));
  }
  return merged;
}

void check_merge(Random& random) {
  const int64_t num_entities = random.chance(0.1) ? 0 : random.between(1, 60);
  const int64_t batch = random.chance(0.1) ? 0 : random.between(1, 200);  // a task works on 64 rows
  const RandomSets a(random, batch, num_entities), b(random, batch, num_entities);
  for (const Merge how : {Merge::kIntersection, Merge::kUnion, Merge::kDifference}) {
    const Merged expected = merge_plainly(a, b, how, num_entities);
    for (const int threads : kThreadCounts) {
      Merged got{std::vector<int64_t>(batch + 1), {}, {}, {}};
      const int64_t size = merge_count(a.view(), b.view(), how, got.offsets.data(), threads);
      CHECK(size == static_cast<int64_t>(expected.entities.size()));
      got.index_a.resize(size), got.index_b.resize(size), got.entities.resize(size);
      merge_fill(a.view(), b.view(), how, got.offsets.data(), got.entities.data(), got.index_a.data(),
                 got.index_b.data(), threads);
      CHECK(got == expected);
    }
  }
}

// Few distinct weights, so that ties are common, and some NaN.
template <class T>
void check_top(Random& random) {
  const RandomSets sets(random, random.below(200), random.between(1, 100));
  std::vector<T> weights(sets.num_members());
  for (T& weight : weights) weight = random.chance(0.05) ? T(NAN) : static_cast<T>(random.below(4)) / 4;
  const int64_t k = random.between(1, 10);
  std::vector<int64_t> kept(sets.batch() + 1), expected;
  for (int64_t row = 0; row < sets.batch(); ++row) {
    std::vector<int64_t> order;
    for (int64_t member = sets.offsets[row]; member < sets.offsets[row + 1]; ++member) order.push_back(member);
    const auto rank = [&](int64_t member) { return std::isnan(weights[member]) ? T(2) : weights[member]; };
    std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return rank(i) > rank(j); });
    order.resize(std::min<int64_t>(k, static_cast<int64_t>(order.size())));
    std::sort(order.begin(), order.end());
    expected.insert(expected.end(), order.begin(), order.end());
    kept[row + 1] = static_cast<int64_t>(expected.size());
  }
  for (const int threads : kThreadCounts) {
    std::vector<int64_t> order(sets.num_members()), index(expected.size());
    top_fill(weights.data(), sets.offsets.data(), sets.batch(), kept.data(), order.data(), index.data(), threads);
    CHECK(index == expected);
  }
}

}  // namespace

void check_entity_sets_kernels(uint64_t seed) {
  Random random(seed);
  check_merge(random);
  check_top<float>(random);
  check_top<double>(random);
}
