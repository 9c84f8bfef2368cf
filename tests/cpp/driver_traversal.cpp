// follow: push with accumulators, push by sorting and pull against a plain loop, to the bit; the gradients likewise.
#include <cmath>
#include <map>

#include "inputs.h"
#include "traversal.h"

namespace {

using namespace tercet;

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

  // Calls visit(row, member, edge) in the order in which the kernels promise to sum.
  template <class Visit>
  void for_each_visit(const Visit& visit) const {
    for (int64_t row = 0; row < sets.batch(); ++row) {
      for (int64_t member = sets.offsets[row]; member < sets.offsets[row + 1]; ++member) {
        const int32_t subject = sets.entities[member];
        for (int64_t edge = graph.row_offsets[subject]; edge < graph.row_offsets[subject + 1]; ++edge) {
          visit(row, member, edge);
        }
      }
    }
  }
  T relation_weight(int64_t row, int64_t edge) const {
    return relations[row * graph.num_relations + graph.relations[edge]];
  }
};

template <class T>
struct Result {
  std::vector<int64_t> offsets;
  std::vector<int32_t> entities;
  std::vector<T> weights;

  bool operator==(const Result& other) const {
    return offsets == other.offsets && entities == other.entities && same_bits(weights, other.weights);
  }
  Sets view() const { return {offsets.data(), entities.data(), static_cast<int64_t>(offsets.size()) - 1}; }
};

template <class T>
Result<T> follow_plainly(const Problem<T>& problem) {
  std::vector<std::map<int32_t, T>> rows(problem.sets.batch());
  problem.for_each_visit([&](int64_t row, int64_t member, int64_t edge) {
    T value = problem.members[member] * problem.relation_weight(row, edge);
    if (problem.with_edges) value *= problem.edges[edge];
    rows[row][problem.graph.objects[edge]] += value;
  });
  Result<T> result{{0}, {}, {}};
  for (int64_t row = 0; row < problem.sets.batch(); ++row) {
    for (int64_t i = problem.exclude.offsets[row]; problem.with_exclude && i < problem.exclude.offsets[row + 1]; ++i) {
      rows[row].erase(problem.exclude.entities[i]);
    }
    for (const auto& [entity, weight] : rows[row]) {
      result.entities.push_back(entity);
      result.weights.push_back(weight);
    }
    result.offsets.push_back(static_cast<int64_t>(result.entities.size()));
  }
  return {exact(result.offsets), exact(result.entities), exact(result.weights)};
}

struct Bounds {
  std::vector<int64_t> of_rows;
  int64_t max_edges = -1, total_edges = -1;
};

template <class T>
Bounds check_bounds(const Problem<T>& problem) {
  Bounds bounds{std::vector<int64_t>(problem.sets.batch() + 1)};
  follow_bounds(problem.graph.view(), problem.sets.view(), bounds.of_rows.data(), &bounds.max_edges,
                &bounds.total_edges);
  std::vector<int64_t> visits(problem.sets.batch());
  problem.for_each_visit([&](int64_t row, int64_t, int64_t) { visits[row] += 1; });
  int64_t most = 0, total = 0;
  CHECK(bounds.of_rows[0] == 0);
  for (int64_t row = 0; row < problem.sets.batch(); ++row) {
    CHECK(bounds.of_rows[row + 1] - bounds.of_rows[row] == std::min(visits[row], problem.graph.num_entities) + 1);
    most = std::max(most, visits[row]);
    total += visits[row];
  }
  CHECK(bounds.max_edges == most && bounds.total_edges == total);
  return bounds;
}

// The whole batch in chunks of rows_at_once; run(first, last, output) fills one chunk and returns its members.
template <class T, class Run>
Result<T> in_chunks(const Problem<T>& problem, const Bounds& bounds, int64_t rows_at_once, int threads,
                    const Run& run) {
  const int64_t batch = problem.sets.batch();
  Result<T> result{std::vector<int64_t>(batch + 1, batch ? -1 : 0), {}, {}};
  for (int64_t first = 0; first < batch; first += rows_at_once) {
    const int64_t last = std::min(first + rows_at_once, batch);
    const int64_t room = bounds.of_rows[last] - bounds.of_rows[first];
    std::vector<int32_t> entities(room);
    std::vector<T> weights(room);
    FollowOutput<T> output{bounds.of_rows.data(), entities.data(), weights.data(), result.offsets.data()};
    const int64_t size = run(first, last, output);
    CHECK(size == result.offsets[last] - result.offsets[first]);
    std::vector<int32_t> part_entities(size);
    std::vector<T> part_weights(size);
    follow_compact(output, first, last, part_entities.data(), part_weights.data(), threads);
    result.entities.insert(result.entities.end(), part_entities.begin(), part_entities.end());
    result.weights.insert(result.weights.end(), part_weights.begin(), part_weights.end());
  }
  return result;
}

// The edges by object, each object's in the graph's order.
struct ByObject {
  std::vector<int64_t> offsets, edges;
  std::vector<int32_t> subjects, relations;

  explicit ByObject(const RandomGraph& graph) : offsets(graph.num_entities + 1), edges(graph.num_edges()) {
    for (int64_t edge = 0; edge < graph.num_edges(); ++edge) edges[edge] = edge;
    std::stable_sort(edges.begin(), edges.end(),
                     [&](int64_t a, int64_t b) { return graph.objects[a] < graph.objects[b]; });
    for (const int32_t object : graph.objects) offsets[object + 1] += 1;
    for (int64_t object = 0; object < graph.num_entities; ++object) offsets[object + 1] += offsets[object];
    for (const int64_t edge : edges) {
      subjects.push_back(graph.subjects[edge]);
      relations.push_back(graph.relations[edge]);
    }
    subjects = exact(subjects), relations = exact(relations);
  }
};

template <class T>
struct Gradients {
  std::vector<T> members, relations, edges;
};

template <class T>
Gradients<T> backward_plainly(const Problem<T>& problem, const Result<T>& result, const std::vector<T>& grad) {
  Gradients<T> sums{std::vector<T>(problem.members.size()), std::vector<T>(problem.relations.size()),
                    std::vector<T>(problem.edges.size())};
  problem.for_each_visit([&](int64_t row, int64_t member, int64_t edge) {
    const auto begin = result.entities.begin() + result.offsets[row],
               end = result.entities.begin() + result.offsets[row + 1];
    const auto found = std::lower_bound(begin, end, problem.graph.objects[edge]);
    if (found == end || *found != problem.graph.objects[edge]) return;
    const T arriving = grad[found - result.entities.begin()], x = problem.members[member];
    const T w = problem.relation_weight(row, edge), c = problem.with_edges ? problem.edges[edge] : T(1);
    sums.members[member] += w * c * arriving;
    sums.relations[row * problem.graph.num_relations + problem.graph.relations[edge]] += x * c * arriving;
    sums.edges[edge] += x * w * arriving;
  });
  return sums;
}

template <class T>
Gradients<T> backward(const Problem<T>& problem, const Result<T>& result, const std::vector<T>& grad,
                      const FollowScratch& scratch) {
  Gradients<T> sums{std::vector<T>(problem.members.size(), T(NAN)), std::vector<T>(problem.relations.size(), T(NAN)),
                    std::vector<T>(problem.edges.size(), T(0))};
  follow_backward(problem.graph.view(), problem.sets.view(), problem.weights(), result.view(), grad.data(),
                  sums.members.data(), sums.relations.data(), scratch);
  follow_backward_edges(problem.graph.view(), problem.sets.view(), problem.weights(), result.view(), grad.data(),
                        sums.edges.data(), scratch);
  return sums;
}

template <class T>
void check_backward(const Gradients<T>& got, const Gradients<T>& plain, const Gradients<T>& first, bool coarse) {
  CHECK(same_bits(got.members, first.members));
  CHECK(same_bits(got.relations, first.relations));
  CHECK(same_bits(got.edges, first.edges));
  const auto close = [coarse](const std::vector<T>& a, const std::vector<T>& b) {
    for (size_t i = 0; i < a.size(); ++i) {
      if (!(coarse ? a[i] == b[i] : std::abs(a[i] - b[i]) <= T(1e-2))) return false;
    }
    return a.size() == b.size();
  };
  CHECK(close(got.members, plain.members) && close(got.relations, plain.relations) && close(got.edges, plain.edges));
}

template <class T>
void check_follow(uint64_t seed) {
  Random random(seed);
  const Problem<T> problem(random);
  const Graph graph = problem.graph.view();
  const Sets sets = problem.sets.view();
  const Result<T> expected = follow_plainly(problem);
  const Bounds bounds = check_bounds(problem);
  const ByObject by_object(problem.graph);
  const Incoming incoming{by_object.offsets.data(), by_object.subjects.data(), by_object.relations.data(),
                          problem.with_edges ? by_object.edges.data() : nullptr};
  const int64_t rows_at_once = random.chance(0.5) ? problem.sets.batch() + 1 : random.between(1, 20);
  const auto grad = draw_values<T>(random, expected.entities.size(), -1, 1, problem.coarse);
  const Gradients<T> plain = backward_plainly(problem, expected, grad);
  Gradients<T> first_gradients;
  bool have_gradients = false;

  for (const int threads : kThreadCounts) {
    std::vector<unsigned char> accumulators(threads * follow_accumulator_bytes(graph.num_entities, sizeof(T)));
    std::vector<unsigned char> sorting(threads * follow_sorting_bytes(bounds.max_edges, sizeof(T)));
    if (!accumulators.empty()) follow_scratch_clean<T>(accumulators.data(), graph.num_entities, threads);
    for (const FollowScratch& scratch :
         {FollowScratch{accumulators.data(), nullptr, threads}, FollowScratch{nullptr, sorting.data(), threads}}) {
      for (int again = 0; again < 2; ++again) {  // whatever ran before must have left the accumulators clean
        CHECK(in_chunks(problem, bounds, rows_at_once, threads, [&](int64_t first, int64_t last, const auto& output) {
                return follow_push(graph, sets, problem.weights(), problem.excluded(), first, last, bounds.max_edges,
                                   output, scratch);
              }) == expected);
        const Gradients<T> got = backward(problem, expected, grad, scratch);
        if (!have_gradients) first_gradients = got;
        have_gradients = true;
        check_backward(got, plain, first_gradients, problem.coarse);
      }
    }
    for (const int64_t lanes : {4, 16}) {
      std::vector<unsigned char> scratch(follow_pull_bytes(graph.num_entities, graph.num_relations, lanes, sizeof(T)),
                                         0xa5);
      CHECK(in_chunks(problem, bounds, rows_at_once, threads, [&](int64_t first, int64_t last, const auto& output) {
              return follow_pull(graph, incoming, sets, problem.weights(), problem.excluded(), first, last, lanes,
                                 output, scratch.data(), threads);
            }) == expected);
    }
  }
}

}  // namespace

void check_traversal_kernels(uint64_t seed) {
  check_follow<float>(seed);
  check_follow<double>(seed);
}
