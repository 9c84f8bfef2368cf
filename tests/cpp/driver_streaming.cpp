// A stack stepped frame by frame against plain loops over all frames so far.
#include <cmath>
#include <vector>

#include "inputs.h"
#include "streaming.h"

namespace {

using namespace tercet;

struct Map {
  std::vector<double> weight, bias;
  int64_t inputs, outputs;

  std::vector<double> operator()(const std::vector<double>& x) const {
    std::vector<double> y(outputs, 0);
    for (int64_t o = 0; o < outputs; ++o) {
      for (int64_t i = 0; i < inputs; ++i) y[o] += weight[o * inputs + i] * x[i];
      if (!bias.empty()) y[o] += bias[o];
    }
    return y;
  }
};

struct Arbiter {
  std::vector<double> own, acoustic;
  double bias, threshold;
};

struct Norm {
  std::vector<double> weight, bias;

  std::vector<double> operator()(const std::vector<double>& x) const {
    double mean = 0, variance = 0;
    for (const double value : x) mean += value / static_cast<double>(x.size());
    for (const double value : x) variance += (value - mean) * (value - mean) / static_cast<double>(x.size());
    std::vector<double> y(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      y[i] = (x[i] - mean) / std::sqrt(variance + 1e-5) * weight[i] + (bias.empty() ? 0 : bias[i]);
    }
    return y;
  }
};

struct Block {
  Norm norm1, norm2;
  Arbiter arbiter1, arbiter2;
  Map projection, output, linear1, linear2;
};

struct Stack {
  StreamSizes sizes;
  std::vector<Block> blocks;

  explicit Stack(Random& random) {
    sizes = {random.between(0, 3),
             random.between(1, 9),
             0,
             random.between(1, 3),
             random.between(1, 40),
             random.between(1, 20),
             random.between(1, 7),
             random.chance(0.5),
             random.chance(0.5),
             random.chance(0.5) ? Activation::kRelu : Activation::kGelu};
    sizes.dim = sizes.num_heads * random.between(1, random.chance(0.2) ? 90 : 20);
    const bool biased = random.chance(0.7);
    const auto map = [&](int64_t inputs, int64_t outputs) {
      const double size = 1 / std::sqrt(static_cast<double>(inputs));
      return Map{draw_values<double>(random, inputs * outputs, -size, size, false),
                 biased ? draw_values<double>(random, outputs, -0.5, 0.5, false) : std::vector<double>(), inputs,
                 outputs};
    };
    const auto norm = [&] {
      return Norm{draw_values<double>(random, sizes.dim, 0.5, 1.5, false),
                  biased ? draw_values<double>(random, sizes.dim, -0.5, 0.5, false) : std::vector<double>()};
    };
    const int reads = static_cast<int>(random.below(3));  // the block, the acoustic input, or both
    const auto arbiter = [&] {
      Arbiter made;
      if (reads != 1) made.own = draw_values<double>(random, sizes.dim, -1, 1, false);
      if (reads != 0) made.acoustic = draw_values<double>(random, sizes.acoustic_dim, -1, 1, false);
      made.bias = random.uniform() - 0.5, made.threshold = random.uniform() - 0.5;
      return made;
    };
    for (int64_t i = 0; i < sizes.num_blocks; ++i) {
      const int64_t dim = sizes.dim, hidden = sizes.feed_forward_dim;
      blocks.push_back(
          {norm(), norm(), arbiter(), arbiter(), map(dim, 3 * dim), map(dim, dim), map(dim, hidden), map(hidden, dim)});
    }
  }
};

double inner(const double* a, const double* b, int64_t size) {
  double total = 0;
  for (int64_t i = 0; i < size; ++i) total += a[i] * b[i];
  return total;
}

// One stream's frames through the stack; a logit within 1e-9 of its threshold makes the draw void.
class PlainStream {
 public:
  explicit PlainStream(const Stack& stack) : stack_(stack), keys_(stack.blocks.size()) {}

  std::vector<double> step(std::vector<double> x, const double* acoustic, std::vector<uint8_t>& gates, bool& clear) {
    const auto& sizes = stack_.sizes;
    for (size_t i = 0; i < stack_.blocks.size(); ++i) {
      bool finite = true;
      for (const double value : x) finite &= std::isfinite(value);
      const Block& block = stack_.blocks[i];
      std::vector<double> inputs = sizes.norm_first ? block.norm1(x) : x;
      bool on = finite && open(block.arbiter1, inputs, acoustic, clear);
      gates.push_back(on);
      const std::vector<double> projected = block.projection(inputs);
      if (sizes.all_keys ? finite : on) keys_[i].push_back({position_, projected});
      if (on) add(x, block.output(mix(keys_[i], projected)), block.norm1);
      inputs = sizes.norm_first ? block.norm2(x) : x;
      on = finite && open(block.arbiter2, inputs, acoustic, clear);
      gates.push_back(on);
      if (on) {
        std::vector<double> hidden = block.linear1(inputs);
        for (double& value : hidden) {
          value = sizes.activation == Activation::kRelu ? std::max(value, 0.0)
                                                        : 0.5 * value * (1 + std::erf(value / std::sqrt(2.0)));
        }
        add(x, block.linear2(hidden), block.norm2);
      }
    }
    ++position_;
    return x;
  }

 private:
  struct Kept {
    int64_t frame;
    std::vector<double> projected;
  };

  bool open(const Arbiter& arbiter, const std::vector<double>& inputs, const double* acoustic, bool& clear) const {
    double logit = arbiter.bias;
    if (!arbiter.own.empty()) logit += inner(arbiter.own.data(), inputs.data(), stack_.sizes.dim);
    if (!arbiter.acoustic.empty()) logit += inner(arbiter.acoustic.data(), acoustic, stack_.sizes.acoustic_dim);
    clear &= !(std::fabs(logit - arbiter.threshold) < 1e-9);
    return logit > arbiter.threshold;
  }

  std::vector<double> mix(const std::vector<Kept>& kept, const std::vector<double>& query) const {
    const int64_t dim = stack_.sizes.dim, head_dim = dim / stack_.sizes.num_heads;
    std::vector<double> out(dim, 0);
    for (int64_t at = 0; at < dim; at += head_dim) {
      std::vector<double> weights;
      double total = 0;
      for (const Kept& key : kept) {
        const bool seen = key.frame > position_ - stack_.sizes.window;
        const double score = inner(query.data() + at, key.projected.data() + dim + at, head_dim);
        weights.push_back(seen ? std::exp(score / std::sqrt(static_cast<double>(head_dim))) : 0);
        total += weights.back();
      }
      for (size_t j = 0; j < kept.size(); ++j) {
        for (int64_t d = at; d < at + head_dim; ++d) out[d] += weights[j] / total * kept[j].projected[2 * dim + d];
      }
    }
    return out;
  }

  void add(std::vector<double>& x, const std::vector<double>& update, const Norm& norm) const {
    for (size_t d = 0; d < x.size(); ++d) x[d] += update[d];
    if (!stack_.sizes.norm_first) x = norm(x);
  }

  const Stack& stack_;
  std::vector<std::vector<Kept>> keys_;
  int64_t position_ = 0;
};

StreamBlock<double> view(const Block& block) {
  const auto norm = [](const Norm& made) {
    return LayerNorm{made.weight.data(), made.bias.empty() ? nullptr : made.bias.data(), 1e-5};
  };
  const auto map = [](const Map& made) {
    return StreamLinear<double>{made.weight.data(), made.bias.empty() ? nullptr : made.bias.data()};
  };
  const auto arbiter = [](const Arbiter& made) {
    return StreamArbiter<double>{made.own.empty() ? nullptr : made.own.data(),
                                 made.acoustic.empty() ? nullptr : made.acoustic.data(), &made.bias, &made.threshold};
  };
  return {norm(block.norm1),     norm(block.norm2), arbiter(block.arbiter1), arbiter(block.arbiter2),
          map(block.projection), map(block.output), map(block.linear1),      map(block.linear2)};
}

}  // namespace

void check_streaming_kernels(uint64_t seed) {
  Random random(seed);
  const Stack stack(random);
  const StreamSizes& sizes = stack.sizes;
  const int64_t streams = sizes.num_streams, num_frames = random.between(0, 15), width = streams * sizes.dim;
  auto frames = draw_values<double>(random, num_frames * width, -1, 1, false);
  const auto acoustic = draw_values<double>(random, num_frames * streams * sizes.acoustic_dim, -1, 1, false);
  if (!frames.empty() && random.chance(0.3)) frames[random.below(static_cast<int64_t>(frames.size()))] = NAN;
  std::vector<StreamBlock<double>> blocks;
  for (const Block& block : stack.blocks) blocks.push_back(view(block));

  std::vector<double> expected;
  std::vector<uint8_t> expected_gates(num_frames * sizes.num_blocks * 2 * streams);
  expected.resize(frames.size());
  bool clear = true;
  for (int64_t s = 0; s < streams; ++s) {
    PlainStream plain(stack);
    for (int64_t t = 0; t < num_frames; ++t) {
      const auto from = frames.begin() + t * width + s * sizes.dim;
      std::vector<uint8_t> gates;
      const auto out = plain.step(std::vector<double>(from, from + sizes.dim),
                                  acoustic.data() + (t * streams + s) * sizes.acoustic_dim, gates, clear);
      std::copy(out.begin(), out.end(), expected.begin() + t * width + s * sizes.dim);
      for (size_t g = 0; g < gates.size(); ++g) expected_gates[(t * sizes.num_blocks * 2 + g) * streams + s] = gates[g];
    }
  }
  if (!clear) return;

  std::vector<double> once;
  for (const int threads : kThreadCounts) {
    const int64_t slots = sizes.num_blocks * streams * sizes.window;
    std::vector<double> keys(slots * sizes.dim, NAN), values = keys, got = exact(frames),
                                                      scratch(stream_scratch(sizes), NAN);
    std::vector<int64_t> held(slots, -1), positions(streams, 0);
    std::vector<uint8_t> gates(expected_gates.size(), 2);
    for (int64_t t = 0; t < num_frames; ++t) {
      stream_step<double>(blocks.data(), sizes, {keys.data(), values.data(), held.data(), positions.data()},
                          got.data() + t * width, acoustic.data() + t * streams * sizes.acoustic_dim,
                          gates.data() + t * sizes.num_blocks * 2 * streams, scratch.data(), threads);
    }
    CHECK(gates == expected_gates);
    for (size_t i = 0; i < got.size(); ++i) {
      CHECK(std::isnan(got[i]) ? std::isnan(expected[i]) : std::fabs(got[i] - expected[i]) < 1e-9);
    }
    for (const int64_t position : positions) CHECK(position == num_frames);
    CHECK(once.empty() || same_bits(got, once));
    once = got;
  }
}
