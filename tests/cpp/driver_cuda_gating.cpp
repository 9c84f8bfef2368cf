// The steps of the CUDA kernels of gating, run on the host, against the CPU kernels; see driver_cuda_steps.cpp for what
// that covers. Halves, which the CPU kernels do not read, against the same kernels of their values as floats.
#include <cmath>
#include <limits>

#include "../../cuda/gating_steps.h"
#include "host_device.h"
#include "inputs.h"

namespace {

using namespace tercet;
namespace cuda = tercet::cuda;
using cuda::BFloat16;
using cuda::Float16;
using cuda::narrow;
using cuda::Wide;
using cuda::widen;

template <class T>
constexpr Wide<T> kUnit = std::is_same_v<T, double>     ? 0x1p-52
                          : std::is_same_v<T, float>    ? 0x1p-23
                          : std::is_same_v<T, BFloat16> ? 0x1p-7
                                                        : 0x1p-10;

template <class T>
std::vector<T> draw(Random& random, int64_t size) {
  std::vector<T> values;
  for (const Wide<T> value : draw_values<Wide<T>>(random, size, -2, 2, false)) values.push_back(narrow<T>(value));
  return exact(values);
}

template <class T>
std::vector<Wide<T>> widened(const std::vector<T>& values) {
  std::vector<Wide<T>> wide;
  for (const T value : values) wide.push_back(widen(value));
  return wide;
}

// NaN or infinite as expected, else within `steps` roundings of results of order 1, or one of the result's own.
template <class T>
bool agree(const std::vector<T>& got, const std::vector<Wide<T>>& expected, double steps) {
  for (size_t i = 0; i < got.size(); ++i) {
    const Wide<T> value = widen(got[i]), want = expected[i];
    const double allowed = steps * std::numeric_limits<Wide<T>>::epsilon() + kUnit<T> * std::abs(want);
    const bool same = std::isnan(want) ? std::isnan(value) : value == want || std::abs(value - want) <= allowed;
    if (!same) return false;
  }
  return got.size() == expected.size();
}

// Every half is what it was after a way through float; numbers between two halves go to the nearest, ties to even.
template <class T>
void check_half(uint16_t infinity) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const T half{static_cast<uint16_t>(bits)};
    const float value = widen(half);
    if ((bits & 0x7fffu) > infinity) {
      CHECK(std::isnan(value) && std::isnan(widen(narrow<T>(value))));
      continue;
    }
    CHECK(narrow<T>(value).bits == bits && std::signbit(value) == (bits >= 0x8000u));
    if ((bits & 0x7fffu) >= infinity - 1u) continue;  // the largest number and infinity
    const uint16_t next = static_cast<uint16_t>(bits + 1);
    const float middle = value / 2 + widen(T{next}) / 2;  // exact
    CHECK(narrow<T>(middle).bits == (bits % 2 == 0 ? bits : next));
    CHECK(narrow<T>(std::nextafter(middle, value)).bits == bits);
    CHECK(narrow<T>(std::nextafter(middle, widen(T{next}))).bits == next);
  }
  CHECK(narrow<T>(std::numeric_limits<float>::max()).bits == infinity);
}

void check_float16_values() {
  CHECK(widen(Float16{0x3c00}) == 1 && widen(Float16{0xc248}) == -3.140625f && widen(Float16{0x7bff}) == 65504);
  CHECK(widen(Float16{0x0001}) == 0x1p-24f && narrow<Float16>(65520).bits == 0x7c00);
  CHECK(widen(BFloat16{0x3f80}) == 1 && widen(BFloat16{0x0001}) == 0x1p-133f);
}

template <class T>
void check_arbiter(uint64_t seed) {
  static constexpr int64_t kDims[] = {0, 1, 31, 32, 33, 255, 256, 257, 512, 1024, 1025, 1500};
  Random random(seed);
  const HostDevice device(seed);
  const int64_t num_rows = random.below(20), dim = random.chance(0.6) ? kDims[random.below(12)] : random.between(1, 80);
  auto rows = draw<T>(random, num_rows * dim);
  const auto weight = draw<T>(random, dim), norm_weight = draw<T>(random, dim), norm_bias = draw<T>(random, dim);
  const auto bias = draw<T>(random, 1);
  const bool with_norm = random.chance(0.7), with_bias = with_norm && random.chance(0.7);
  if (num_rows > 0 && dim > 0 && random.chance(0.3)) rows[random.below(num_rows * dim)] = narrow<T>(NAN);
  const auto wide_rows = widened(rows), wide_weight = widened(weight), wide_bias = widened(bias);
  const auto wide_norm_weight = widened(norm_weight), wide_norm_bias = widened(norm_bias);
  const LayerNorm norm{with_norm ? norm_weight.data() : nullptr, with_bias ? norm_bias.data() : nullptr, 1e-5};
  const LayerNorm wide_norm{with_norm ? wide_norm_weight.data() : nullptr, with_bias ? wide_norm_bias.data() : nullptr,
                            1e-5};
  std::vector<Wide<T>> expected(num_rows), got(num_rows, NAN);
  if (dim == 0 && with_norm) return;  // nothing to normalise
  arbiter_logits(wide_rows.data(), wide_norm, wide_weight.data(), wide_bias.data(), expected.data(), num_rows, dim, 1);
  cuda::arbiter_steps(device, rows.data(), norm, weight.data(), bias.data(), got.data(), num_rows, dim);
  CHECK(agree(got, expected, 1e4));  // few values that are nearly equal lose digits with their mean
}

// Packed queries and keys, and ranges: those of windows, as kept frames have them, or any.
template <class T>
struct AttentionProblem {
  int64_t num_queries, num_keys, num_heads, head_dim, dim, query_stride, key_stride;
  std::vector<T> queries, keys, values;
  std::vector<int64_t> starts, ends;

  explicit AttentionProblem(Random& random)
      : num_queries(draw_count(random)),
        num_keys(draw_count(random)),
        num_heads(random.between(1, 3)),
        head_dim(draw_head_dim(random)),
        dim(num_heads * head_dim),
        query_stride(dim + (random.chance(0.5) ? random.between(1, 2 * dim) : 0)),
        key_stride(dim + (random.chance(0.5) ? random.between(1, 2 * dim) : 0)),
        queries(draw<T>(random, num_queries * query_stride)),
        keys(draw<T>(random, num_keys * key_stride)),
        values(draw<T>(random, num_keys * key_stride)) {
    const int64_t kind = random.below(3), left = random.below(50), right = random.below(10);
    for (int64_t i = 0; i < num_queries; ++i) {
      const int64_t at = num_queries > 1 ? i * num_keys / (num_queries - 1) : 0;
      int64_t start = kind == 0 ? 0 : std::max<int64_t>(at - left, 0);
      int64_t end = kind == 0 ? num_keys : std::min(at + right, num_keys);
      if (kind == 2 && random.chance(0.5)) {
        start = random.between(0, num_keys), end = random.chance(0.2) ? start : random.between(0, num_keys);
      }
      starts.push_back(start), ends.push_back(end);
    }
    starts = exact(starts), ends = exact(ends);
  }

  KeyRanges ranges() const { return {starts.data(), ends.data()}; }
  double scale() const { return 1 / std::sqrt(static_cast<double>(head_dim)); }

  std::vector<Wide<T>> on_cpu() const {
    using W = Wide<T>;
    const auto q = widened(queries), k = widened(keys), v = widened(values);
    const int64_t size = kept_attention_scratch(ranges(), num_queries, head_dim);
    std::vector<W> out(num_queries * dim), scratch(size);
    kept_attention<W>({q.data(), query_stride}, {k.data(), key_stride}, {v.data(), key_stride}, ranges(), out.data(),
                      scratch.data(), size, num_queries, num_heads, head_dim, scale(), 1);
    return out;
  }

  // Of the queries from `first` on.
  std::vector<T> by_steps(const HostDevice& device, int64_t first = 0) const {
    std::vector<T> out((num_queries - first) * dim, narrow<T>(NAN));
    cuda::kept_attention_steps<T>(device, {queries.data() + first * query_stride, query_stride},
                                  {keys.data(), key_stride}, {values.data(), key_stride},
                                  {starts.data() + first, ends.data() + first}, out.data(), num_queries - first,
                                  num_heads, head_dim, scale());
    return out;
  }

 private:
  // Either side of a block's queries and of a tile's keys.
  static int64_t draw_count(Random& random) {
    static constexpr int64_t kSizes[] = {0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 130};
    return random.chance(0.7) ? kSizes[random.below(14)] : random.between(1, 100);
  }
  static int64_t draw_head_dim(Random& random) {
    static constexpr int64_t kSizes[] = {1, 16, 31, 32, 33, 64, 65, 128, 129, 256};
    return random.chance(0.7) ? kSizes[random.below(10)] : random.between(1, 70);
  }
};

template <class T>
void check_attention(uint64_t seed) {
  Random random(seed);
  const HostDevice device(seed);
  AttentionProblem<T> problem(random);
  const bool steep = random.chance(0.3), broken = random.chance(0.2);
  if (steep) {  // scores far apart, so that shifts rise by much and weights vanish
    for (T& value : problem.queries) value = narrow<T>(widen(value) * 64);
  }
  for (int64_t i = 0; broken && i < 3 && problem.num_keys > 0; ++i) {
    auto& values = random.chance(0.5) ? problem.keys : problem.values;
    const bool infinite = !steep && random.chance(0.5);  // times a weight that vanishes it would be NaN
    values[random.below(static_cast<int64_t>(values.size()))] = narrow<T>(infinite ? INFINITY : NAN);
  }
  const auto got = problem.by_steps(device);
  CHECK(agree(got, problem.on_cpu(), 3e3));
  for (int64_t i = 0; i < problem.num_queries; ++i) {
    for (int64_t d = 0; problem.starts[i] >= problem.ends[i] && d < problem.dim; ++d) {
      CHECK(widen(got[i * problem.dim + d]) == 0);
    }
  }
  if (problem.num_queries == 0) return;
  // A query's result does not depend on the queries beside it, which move the tiles of its keys.
  const int64_t first = random.below(problem.num_queries);
  const auto part = problem.by_steps(device, first);
  CHECK(same_bits(part, std::vector<T>(got.begin() + first * problem.dim, got.end())));
}

// A value that is no number, in one key after the other: the queries that see it, and they alone, are no numbers.
void check_not_a_number_stays(uint64_t seed) {
  Random random(seed);
  const HostDevice device(seed);
  AttentionProblem<float> problem(random);
  if (problem.num_keys == 0) return;
  const auto want = problem.by_steps(device);
  const int64_t key = random.below(problem.num_keys);
  auto& values = random.chance(0.5) ? problem.keys : problem.values;
  std::fill_n(values.begin() + key * problem.key_stride, problem.dim, NAN);
  const auto got = problem.by_steps(device);
  for (int64_t i = 0; i < problem.num_queries * problem.dim; ++i) {
    const int64_t query = i / problem.dim;
    const bool sees = problem.starts[query] <= key && key < problem.ends[query];
    CHECK(sees ? std::isnan(got[i]) : got[i] == want[i]);
  }
}

void check_wide_heads_are_refused() {
  const HostDevice device(0);
  bool refused = false;
  try {
    cuda::kept_attention_steps<float>(device, {}, {}, {}, {}, nullptr, 0, 1, cuda::kMaxHeadDim + 1, 1);
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  CHECK(refused);
}

}  // namespace

void check_cuda_gating_kernels(uint64_t seed) {
  if (seed % 100 == 0) {
    check_float16_values();
    check_half<Float16>(0x7c00);
    check_half<BFloat16>(0x7f80);
    check_wide_heads_are_refused();
  }
  check_arbiter<float>(seed);
  check_arbiter<double>(seed);
  check_arbiter<BFloat16>(seed);
  check_arbiter<Float16>(seed);
  check_attention<float>(seed);
  check_attention<double>(seed);
  check_attention<BFloat16>(seed);
  check_attention<Float16>(seed);
  check_not_a_number_stays(seed);
}
