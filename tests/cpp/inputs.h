// Random graphs and sets for the sanitizer driver, in heap blocks of exactly their size.
#pragma once

#include <algorithm>
#include <cstring>
#include <set>
#include <tuple>
#include <vector>

#include "check.h"
#include "core.h"

// A copy whose block ends where its values end, so that a read behind them is seen.
template <class T>
std::vector<T> exact(const std::vector<T>& values) {
  return std::vector<T>(values.begin(), values.end());
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// Sizes around the kernels' own: one, few, either side of a chunk (2048) and of a page (4096) of entities.
inline int64_t draw_num_entities(Random& random) {
  static constexpr int64_t kSizes[] = {0, 1, 2, 15, 16, 17, 2047, 2048, 2049, 4095, 4096, 4097, 9000};
  return random.chance(0.5) ? kSizes[random.below(13)] : random.between(1, 60);
}

struct RandomGraph {
  std::vector<int64_t> row_offsets;
  std::vector<int32_t> relations, objects, subjects;
  int64_t num_entities, num_relations;

  explicit RandomGraph(Random& random)
      : num_entities(draw_num_entities(random)), num_relations(random.chance(0.1) ? 0 : random.between(1, 5)) {
    std::set<std::tuple<int64_t, int64_t, int64_t>> edges;
    if (num_entities > 0 && num_relations > 0) {
      const int64_t hub = random.below(num_entities);
      const int64_t wanted = random.chance(0.1) ? 0 : random.below(3 * num_entities + 2);
      for (int64_t i = 0; i < wanted; ++i) {
        int64_t subject = random.chance(0.2) ? hub : random.below(num_entities);
        int64_t object = random.chance(0.2) ? hub : random.below(num_entities);
        edges.insert({subject, random.below(num_relations), object});
      }
    }
    row_offsets.assign(num_entities + 1, 0);
    for (const auto& [subject, relation, object] : edges) {
      row_offsets[subject + 1] += 1;
      subjects.push_back(static_cast<int32_t>(subject));
      relations.push_back(static_cast<int32_t>(relation));
      objects.push_back(static_cast<int32_t>(object));
    }
    for (int64_t subject = 0; subject < num_entities; ++subject) row_offsets[subject + 1] += row_offsets[subject];
    relations = exact(relations), objects = exact(objects), subjects = exact(subjects);
  }

  int64_t num_edges() const { return static_cast<int64_t>(objects.size()); }
  tercet::Graph view() const {
    return {row_offsets.data(), relations.data(), objects.data(), num_entities, num_relations};
  }
};

struct RandomSets {
  std::vector<int64_t> offsets;
  std::vector<int32_t> entities;

  // Rows are empty, small or hold most entities.
  RandomSets(Random& random, int64_t batch, int64_t num_entities) : offsets(batch + 1, 0) {
    for (int64_t row = 0; row < batch; ++row) {
      std::set<int32_t> members;
      if (num_entities > 0 && !random.chance(0.2)) {
        const int64_t wanted = random.chance(0.1) ? num_entities : random.between(1, 8);
        for (int64_t i = 0; i < wanted; ++i) members.insert(static_cast<int32_t>(random.below(num_entities)));
      }
      entities.insert(entities.end(), members.begin(), members.end());
      offsets[row + 1] = static_cast<int64_t>(entities.size());
    }
    entities = exact(entities);
  }

  int64_t batch() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t num_members() const { return static_cast<int64_t>(entities.size()); }
  tercet::Sets view() const { return {offsets.data(), entities.data(), batch()}; }
};

// Values in [low, high]. With `coarse` they are multiples of 1/8, so that sums of products are exact in any order.
template <class T>
std::vector<T> draw_values(Random& random, int64_t size, double low, double high, bool coarse) {
  std::vector<T> values(size);
  for (T& value : values) {
    double drawn = low + (high - low) * random.uniform();
    value = static_cast<T>(coarse ? static_cast<double>(static_cast<int64_t>(drawn * 8)) / 8 : drawn);
  }
  return values;
}
