// The steps of the CUDA kernels, run on the host, against the CPU kernels.
//
// What runs here is the code that a GPU runs but for the loops around it and cub's scan and sort: indices, keys, bits
// to sort by, scratch and its reuse, empty inputs. What does not: launches, streams, and races within a body's own step
// beyond those that another order of the bodies shows.
#include <cmath>

#include "../../cuda/entity_sets_steps.h"
#include "../../cuda/traversal_steps.h"
#include "host_device.h"
#include "inputs.h"

namespace {

using namespace tercet;
namespace cuda = tercet::cuda;

template <class T>
struct Problem {
  RandomGraph graph;
  RandomSets sets, exclude;
  bool coarse, with_edges, with_exclude;
  std::vector<T> members, relations, edges;

  explicit Problem(Random& random)
      : graph(random),
        sets(random, random.chance(0.1) ? 0 : random.between(1, 40), graph.num_entities),
        exclude(random, sets.batch(), graph.num_entities),
        coarse(random.chance(0.5)),
        with_edges(random.chance(0.5)),
        with_exclude(random.chance(0.5)),
        members(draw_values<T>(random, sets.num_members(), 0, 1, coarse)),
        relations(draw_values<T>(random, sets.batch() * graph.num_relations, -1, 1, coarse)),
        edges(draw_values<T>(random, graph.num_edges(), -1, 1, coarse)) {}

  FollowWeights<T> weights() const { return {members.data(), relations.data(), with_edges ? edges.data() : nullptr}; }
  Sets excluded() const { return with_exclude ? exclude.view() : Sets{nullptr, nullptr, 0}; }
};

template <class T>
struct Result {
  std::vector<int64_t> offsets;
  std::vector<int32_t> entities;
  std::vector<T> weights;
  Sets view() const { return {offsets.data(), entities.data(), static_cast<int64_t>(offsets.size()) - 1}; }
};

template <class T>
struct Gradients {
  std::vector<T> members, relations, edges;
};

// By the CPU kernels, which sort in scratch.
template <class T>
class OnCpu {
 public:
  explicit OnCpu(const Problem<T>& problem)
      : problem_(problem), graph_(problem.graph.view()), sets_(problem.sets.view()), bounds_(problem.sets.batch() + 1) {
    int64_t total = 0;
    follow_bounds(graph_, sets_, bounds_.data(), &max_edges_, &total);
    sorting_.resize(follow_sorting_bytes(max_edges_, sizeof(T)));
  }

  Result<T> follow() {
    const int64_t batch = problem_.sets.batch();
    Result<T> room{std::vector<int64_t>(batch + 1), std::vector<int32_t>(bounds_.back()),
                   std::vector<T>(bounds_.back())};
    const FollowOutput<T> output{bounds_.data(), room.entities.data(), room.weights.data(), room.offsets.data()};
    follow_push(graph_, sets_, problem_.weights(), problem_.excluded(), 0, batch, max_edges_, output, scratch());
    room.offsets[0] = 0;
    Result<T> result{room.offsets, std::vector<int32_t>(room.offsets[batch]), std::vector<T>(room.offsets[batch])};
    follow_compact(output, 0, batch, result.entities.data(), result.weights.data(), 1);
    return result;
  }

  Gradients<T> backward(const Result<T>& result, const std::vector<T>& grad) {
    Gradients<T> sums{std::vector<T>(problem_.members.size()), std::vector<T>(problem_.relations.size()),
                      std::vector<T>(problem_.edges.size())};
    follow_backward(graph_, sets_, problem_.weights(), result.view(), grad.data(), sums.members.data(),
                    sums.relations.data(), scratch());
    follow_backward_edges(graph_, sets_, problem_.weights(), result.view(), grad.data(), sums.edges.data(), scratch());
    return sums;
  }

 private:
  FollowScratch scratch() { return {nullptr, sorting_.data(), 1}; }

  const Problem<T>& problem_;
  Graph graph_;
  Sets sets_;
  std::vector<int64_t> bounds_;
  std::vector<unsigned char> sorting_;
  int64_t max_edges_ = 0;
};

// By the steps of the CUDA kernels, in parts of rows_at_once.
template <class T>
class BySteps {
 public:
  BySteps(const HostDevice& device, const Problem<T>& problem, int64_t rows_at_once)
      : device_(device),
        problem_(problem),
        graph_(problem.graph.view()),
        sets_(problem.sets.view()),
        rows_(problem.sets.num_members()),
        first_visits_(problem.sets.num_members() + 1),
        frontier_{rows_.data(), first_visits_.data(), problem.sets.num_members()} {
    const Scratch scratch(device.scan_bytes(frontier_.num_members + 1));
    const cuda::Temp temp{scratch.data(), device.scan_bytes(frontier_.num_members + 1)};
    cuda::visits_steps(device, graph_, sets_, frontier_, temp);
    for (int64_t first = 0; first < sets_.batch; first += rows_at_once) {
      const int64_t last = std::min(first + rows_at_once, sets_.batch);
      const int64_t first_member = sets_.offsets[first], last_member = sets_.offsets[last];
      parts_.push_back(
          {first, last, first_member, last_member, first_visits_[first_member], first_visits_[last_member]});
    }
  }

  Result<T> follow() const {
    Result<T> result{std::vector<int64_t>(sets_.batch + 1, 0), {}, {}};
    for (const cuda::Part& part : parts_) {
      const auto run = [&](const cuda::FollowMemory<T>& memory) {
        const int64_t before = static_cast<int64_t>(result.entities.size());
        const int64_t size = cuda::count_steps(device_, graph_, sets_, problem_.weights(), problem_.excluded(),
                                               frontier_, part, before, result.offsets.data(), memory);
        std::vector<int32_t> entities(size);
        std::vector<T> weights(size);
        cuda::fill_steps(device_, graph_, part, size, entities.data(), weights.data(), memory);
        result.entities.insert(result.entities.end(), entities.begin(), entities.end());
        result.weights.insert(result.weights.end(), weights.begin(), weights.end());
      };
      with_memory<cuda::FollowMemory<T>>(device_, run, graph_, part);
    }
    return {exact(result.offsets), exact(result.entities), exact(result.weights)};
  }

  Gradients<T> backward(const Result<T>& result, const std::vector<T>& grad) const {
    Gradients<T> sums{std::vector<T>(problem_.members.size(), T(NAN)),
                      std::vector<T>(problem_.relations.size(), T(NAN)), std::vector<T>(problem_.edges.size(), T(0))};
    const auto weights = problem_.weights();
    for (const cuda::Part& part : parts_) {
      with_memory<cuda::BackwardMemory<T>>(
          device_,
          [&](const auto& memory) {
            cuda::backward_steps(device_, graph_, sets_, weights, result.view(), grad.data(), frontier_, part,
                                 sums.members.data(), sums.relations.data(), memory);
          },
          graph_, part);
      with_memory<cuda::BackwardEdgesMemory<T>>(
          device_,
          [&](const auto& memory) {
            cuda::backward_edges_steps(device_, graph_, sets_, weights, result.view(), grad.data(), frontier_, part,
                                       sums.edges.data(), memory);
          },
          problem_.graph.num_edges(), part);
    }
    return sums;
  }

 private:
  const HostDevice& device_;
  const Problem<T>& problem_;
  Graph graph_;
  Sets sets_;
  std::vector<int64_t> rows_, first_visits_;
  cuda::Frontier frontier_;
  std::vector<cuda::Part> parts_;
};

// Sums of more than 256 terms are associated differently; exact inputs leave no difference, others one of rounding.
template <class T>
bool agree(const std::vector<T>& a, const std::vector<T>& b, bool to_the_bit) {
  if (to_the_bit || a.size() != b.size()) return same_bits(a, b);
  const T tolerance = sizeof(T) == 4 ? T(1e-3) : T(1e-10);
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= tolerance)) return false;
  }
  return true;
}

template <class T>
void check_follow(uint64_t seed) {
  Random random(seed);
  const HostDevice device(seed);
  const Problem<T> problem(random);
  OnCpu<T> on_cpu(problem);
  const Result<T> expected = on_cpu.follow();
  const auto grad = draw_values<T>(random, expected.entities.size(), -1, 1, problem.coarse);
  const Gradients<T> expected_gradients = on_cpu.backward(expected, grad);
  int64_t most_visits = 0;  // of one object in one row, at most
  std::vector<int64_t> degrees(problem.graph.num_entities);
  for (const int32_t object : problem.graph.objects) most_visits = std::max(most_visits, ++degrees[object]);

  Gradients<T> first_gradients;
  for (const int64_t rows_at_once : {problem.sets.batch() + 1, random.between(1, 20), int64_t{1}}) {
    const BySteps<T> by_steps(device, problem, rows_at_once);
    const Result<T> result = by_steps.follow();
    CHECK(result.offsets == expected.offsets && result.entities == expected.entities);
    CHECK(agree(result.weights, expected.weights, problem.coarse || most_visits <= cuda::kPiece));
    const Gradients<T> gradients = by_steps.backward(expected, grad);
    CHECK(agree(gradients.members, expected_gradients.members, problem.coarse));
    CHECK(agree(gradients.relations, expected_gradients.relations, problem.coarse));
    CHECK(agree(gradients.edges, expected_gradients.edges, true));
    if (rows_at_once > problem.sets.batch()) first_gradients = gradients;  // the parts must not matter
    CHECK(same_bits(gradients.members, first_gradients.members));
    CHECK(same_bits(gradients.relations, first_gradients.relations));
  }
}

struct Merged {
  std::vector<int64_t> offsets, index_a, index_b;
  std::vector<int32_t> entities;
  bool operator==(const Merged&) const = default;

  Merged(int64_t batch) : offsets(batch + 1, -1) {}
  void resize(int64_t size) { index_a.resize(size), index_b.resize(size), entities.resize(size); }
};

void check_merge(uint64_t seed) {
  Random random(seed);
  const HostDevice device(seed);
  const int64_t num_entities = random.chance(0.1) ? 0 : random.between(1, 60);
  const int64_t batch = random.chance(0.1) ? 0 : random.between(1, 200);
  const RandomSets a(random, batch, num_entities), b(random, batch, num_entities);
  const cuda::Sides sides{a.view(), b.view(), a.num_members(), b.num_members()};
  for (const Merge how : {Merge::kIntersection, Merge::kUnion, Merge::kDifference}) {
    Merged expected(batch), got(batch);
    expected.resize(merge_count(a.view(), b.view(), how, expected.offsets.data(), 1));
    merge_fill(a.view(), b.view(), how, expected.offsets.data(), expected.entities.data(), expected.index_a.data(),
               expected.index_b.data(), 1);
    with_memory<cuda::MergeMemory>(
        device,
        [&](const cuda::MergeMemory& memory) {
          got.resize(cuda::merge_count_steps(device, sides, how, got.offsets.data(), memory));
          cuda::merge_fill_steps(device, sides, how, got.entities.data(), got.index_a.data(), got.index_b.data(),
                                 memory);
        },
        sides, how);
    CHECK(got == expected);
  }
}

void check_sums(uint64_t seed) {
  Random random(seed);
  const HostDevice device(seed);
  const int64_t num_segments = random.below(30), offset = random.below(1000);
  std::vector<int64_t> starts{offset};
  for (int64_t segment = 0; segment < num_segments; ++segment) {
    static constexpr int64_t kSizes[] = {0, 0, 1, 2, 255, 256, 257, 511, 512, 513, 5000};
    starts.push_back(starts.back() + kSizes[random.below(11)]);
  }
  const int64_t num_items = starts.back() - offset;
  const auto values = draw_values<double>(random, num_items, -1, 1, false);
  std::vector<int64_t> first_pieces(num_segments + 1);
  std::vector<double> piece_sums(num_items), sums(num_segments, NAN);
  std::vector<unsigned char> temp(device.scan_bytes(num_segments + 1));
  const cuda::Pieces<double> pieces{
      first_pieces.data(), piece_sums.data(), {temp.data(), static_cast<int64_t>(temp.size())}};
  cuda::sum_segments(device, starts.data(), num_segments, offset, num_items, values.data(), pieces, sums.data());
  for (int64_t segment = 0; segment < num_segments; ++segment) {
    double sum = 0;
    for (int64_t first = starts[segment]; first < starts[segment + 1]; first += cuda::kPiece) {
      double piece = 0;
      for (int64_t i = first; i < std::min(first + cuda::kPiece, starts[segment + 1]); ++i) piece += values[i - offset];
      sum += piece;
    }
    CHECK(sums[segment] == sum);
  }
}

}  // namespace

void check_cuda_steps_kernels(uint64_t seed) {
  check_sums(seed);
  check_merge(seed);
  check_follow<float>(seed);
  check_follow<double>(seed);
}
