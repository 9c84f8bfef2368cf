// Arbitrators' logits and attention over ranges of keys against plain loops in float64.
#include <cmath>

#include "gating.h"
#include "inputs.h"

namespace {

using namespace tercet;

// Either side of a vector's lanes, of a panel of keys, of a group of queries and of a chunk of them.
int64_t draw_size(Random& random, int64_t least) {
  static constexpr int64_t kSizes[] = {0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 255, 256, 257};
  return std::max(least, random.chance(0.6) ? kSizes[random.below(19)] : random.between(1, 40));
}

// NaN where NaN is wanted, else near.
template <class T>
bool close(const std::vector<T>& got, const std::vector<double>& want) {
  for (size_t i = 0; i < want.size(); ++i) {
    const double bound = (sizeof(T) == 4 ? 2e-4 : 1e-11) * (1 + std::abs(want[i]));
    if (std::isnan(want[i]) ? !std::isnan(got[i]) : !(std::abs(got[i] - want[i]) <= bound)) return false;
  }
  return got.size() == want.size();
}

// Rows of `dim` values, `stride` apart, in a block that ends with the last row's last value.
template <class T>
struct Rows {
  std::vector<T> values;
  int64_t stride;

  Rows(Random& random, int64_t num_rows, int64_t dim) : stride(dim + (random.chance(0.5) ? random.below(9) : 0)) {
    values = draw_values<T>(random, num_rows > 0 ? (num_rows - 1) * stride + dim : 0, -2, 2, false);
  }
  const T* at(int64_t row) const { return values.data() + row * stride; }
  Frames<T> view() const { return {values.data(), stride}; }
};

struct Ranges {
  std::vector<int64_t> starts, ends;

  // Windows that move on, anything, or all keys; some are empty, and some end before they start.
  Ranges(Random& random, int64_t num_queries, int64_t num_keys) {
    const int64_t kind = random.below(3);
    for (int64_t i = 0; i < num_queries; ++i) {
      const int64_t moved = num_keys * i / num_queries;
      int64_t start = kind == 0 ? std::max<int64_t>(0, moved - random.below(20)) : random.between(0, num_keys);
      int64_t end = kind == 0 ? moved : random.between(0, num_keys);
      if (kind == 2 && random.chance(0.7)) start = 0, end = num_keys;
      if (random.chance(0.1)) end = start;
      starts.push_back(start), ends.push_back(end);
    }
    starts = exact(starts), ends = exact(ends);
  }
  KeyRanges view() const { return {starts.data(), ends.data()}; }
};

template <class T>
void attend_plainly(const Rows<T>& queries, const Rows<T>& keys, const Rows<T>& values, const Ranges& ranges,
                    int64_t num_heads, int64_t head_dim, double scale, std::vector<double>& out) {
  const int64_t num_queries = static_cast<int64_t>(ranges.starts.size()), dim = num_heads * head_dim;
  out.assign(num_queries * dim, 0);
  for (int64_t i = 0; i < num_queries; ++i) {
    for (int64_t at = 0; at < dim; at += head_dim) {
      std::vector<double> scores;
      double highest = -INFINITY, total = 0;
      for (int64_t j = ranges.starts[i]; j < ranges.ends[i]; ++j) {
        double score = 0;
        for (int64_t d = at; d < at + head_dim; ++d) score += double(queries.at(i)[d]) * double(keys.at(j)[d]);
        scores.push_back(score * scale);
        highest = std::max(highest, score * scale);
      }
      for (double& score : scores) total += score = std::exp(score - highest);
      for (size_t j = 0; j < scores.size(); ++j) {
        for (int64_t d = at; d < at + head_dim; ++d) {
          out[i * dim + d] += scores[j] / total * values.at(ranges.starts[i] + j)[d];
        }
      }
    }
  }
}

template <class T>
void check_attention(Random& random) {
  const int64_t num_heads = random.between(1, 3), head_dim = draw_size(random, 1) % 80 + 1, dim = num_heads * head_dim;
  const int64_t num_queries = draw_size(random, 0), num_keys = draw_size(random, 0);
  Rows<T> queries(random, num_queries, dim), keys(random, num_keys, dim), values(random, num_keys, dim);
  for (Rows<T>* rows : {&queries, &keys, &values}) {
    if (!rows->values.empty() && random.chance(0.1)) rows->values[random.below(rows->values.size())] = T(NAN);
  }
  const Ranges ranges(random, num_queries, num_keys);
  const double scale = random.chance(0.5) ? 1 / std::sqrt(double(head_dim)) : 0.3;
  std::vector<double> expected;
  attend_plainly(queries, keys, values, ranges, num_heads, head_dim, scale, expected);
  const int64_t scratch_size = kept_attention_scratch(ranges.view(), num_queries, head_dim);
  std::vector<T> once;
  for (const int threads : kThreadCounts) {
    std::vector<T> got(num_queries * dim, T(7)), scratch(threads * scratch_size, T(NAN));
    kept_attention<T>(queries.view(), keys.view(), values.view(), ranges.view(), got.data(), scratch.data(),
                      scratch_size, num_queries, num_heads, head_dim, scale, threads);
    CHECK(close(got, expected));
    CHECK(once.empty() || same_bits(got, once));
    once = got;
  }
}

template <class T>
void check_logits(Random& random) {
  const int64_t num_rows = draw_size(random, 0), dim = draw_size(random, 0);
  auto rows = draw_values<T>(random, num_rows * dim, -2, 2, false);
  if (!rows.empty() && random.chance(0.2)) rows[random.below(rows.size())] = T(NAN);
  const auto weight = draw_values<T>(random, dim, -1, 1, false), norm_weight = draw_values<T>(random, dim, 0, 2, false),
             norm_bias = draw_values<T>(random, dim, -1, 1, false), bias = draw_values<T>(random, 1, -1, 1, false);
  const bool normal = random.chance(0.7), biased = normal && random.chance(0.5);
  const LayerNorm norm{normal ? norm_weight.data() : nullptr, biased ? norm_bias.data() : nullptr, 0.01};
  std::vector<double> expected(num_rows, bias[0]);
  for (int64_t i = 0; i < num_rows; ++i) {
    const T* row = rows.data() + i * dim;
    double mean = 0, variance = 0;
    for (int64_t d = 0; d < dim; ++d) mean += row[d] / double(dim);
    for (int64_t d = 0; d < dim; ++d) variance += (row[d] - mean) * (row[d] - mean) / double(dim);
    for (int64_t d = 0; d < dim; ++d) {
      double value = row[d];
      if (normal) value = (value - mean) / std::sqrt(variance + 0.01) * norm_weight[d] + (biased ? norm_bias[d] : T{0});
      expected[i] += value * weight[d];
    }
  }
  std::vector<T> once;
  for (const int threads : kThreadCounts) {
    std::vector<T> got(num_rows, T(7));
    arbiter_logits<T>(rows.data(), norm, weight.data(), bias.data(), got.data(), num_rows, dim, threads);
    CHECK(close(got, expected));
    CHECK(once.empty() || same_bits(got, once));
    once = got;
  }
}

}  // namespace

void check_gating_kernels(uint64_t seed) {
  Random random(seed);
  random.chance(0.5) ? check_attention<float>(random) : check_attention<double>(random);
  random.chance(0.5) ? check_logits<float>(random) : check_logits<double>(random);
}
