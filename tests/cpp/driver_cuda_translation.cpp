// The steps of the CUDA kernels of translation and ranking, run on the host, against the CPU kernels; see
// driver_cuda_steps.cpp for what that covers.
#include <cmath>

#include "../../cuda/ranking_steps.h"
#include "../../cuda/translation_steps.h"
#include "host_device.h"
#include "inputs.h"

namespace {

using namespace tercet;
namespace cuda = tercet::cuda;

// Either side of a tile's pairs, of a step's dimensions and of a warp.
int64_t draw_count(Random& random) {
  static constexpr int64_t kSizes[] = {0, 1, 2, 63, 64, 65, 127, 128, 129, 200};
  return random.chance(0.5) ? kSizes[random.below(10)] : random.between(1, 150);
}

int64_t draw_dim(Random& random) {
  static constexpr int64_t kSizes[] = {0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 48, 64, 65};
  return random.chance(0.7) ? kSizes[random.below(13)] : random.between(1, 40);
}

// Sums of coarse values are exact in any order.
template <class T>
bool agree(const std::vector<T>& a, const std::vector<T>& b, bool coarse) {
  if (a.size() != b.size()) return false;
  const T tolerance = coarse ? T(0) : sizeof(T) == 4 ? T(1e-3) : T(1e-11);
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= tolerance)) return false;
  }
  return true;
}

template <class T>
void check_score(uint64_t seed, Norm norm) {
  Random random(seed);
  const HostDevice device(seed);
  const int64_t batch = draw_count(random), dim = draw_dim(random);
  const bool coarse = random.chance(0.5);
  const auto draw = [&](int64_t size) { return draw_values<T>(random, size, -1, 1, coarse); };
  const auto heads = draw(batch * dim), relations = draw(batch * dim), grad = draw(batch);
  auto tails = draw(batch * dim);
  for (int64_t i = 0; batch > 0 && i < dim; ++i) tails[i] = heads[i] + relations[i];  // a distance of 0
  std::vector<T> expected(batch), got(batch, T(NAN));
  transe_score<T>(norm, heads.data(), relations.data(), tails.data(), batch, dim, expected.data(), 1);
  cuda::score_steps(device, norm, heads.data(), relations.data(), tails.data(), batch, dim, got.data());
  CHECK(agree(got, expected, coarse));
  std::vector<T> to_query(batch * dim), to_tails(batch * dim), query_got(batch * dim, T(NAN)), tails_got = query_got;
  transe_score_backward<T>(norm, grad.data(), heads.data(), relations.data(), tails.data(), batch, dim, to_query.data(),
                           to_tails.data(), 1);
  cuda::score_backward_steps(device, norm, grad.data(), heads.data(), relations.data(), tails.data(), batch, dim,
                             query_got.data(), tails_got.data());
  // The length by which l2 divides is the same sum; the products need not be.
  CHECK(agree(query_got, to_query, coarse) && agree(tails_got, to_tails, coarse));
}

template <class T>
void check_scores(uint64_t seed, Norm norm) {
  Random random(seed);
  const HostDevice device(seed);
  const int64_t num_queries = draw_count(random), num_entities = draw_count(random), dim = draw_dim(random);
  const bool coarse = random.chance(0.5);
  const auto queries = draw_values<T>(random, num_queries * dim, -1, 1, coarse);
  const auto entities = draw_values<T>(random, num_entities * dim, -1, 1, coarse);
  std::vector<T> expected(num_queries * num_entities), scratch(transe_scores_scratch<T>(dim));
  transe_scores<T>(norm, queries.data(), num_queries, entities.data(), num_entities, dim, expected.data(),
                   scratch.data(), 1);
  const auto by_steps = [&](int64_t first_query, int64_t first_entity) {
    std::vector<T> got((num_queries - first_query) * (num_entities - first_entity), T(NAN));
    cuda::scores_steps(device, norm, queries.data() + first_query * dim, num_queries - first_query,
                       entities.data() + first_entity * dim, num_entities - first_entity, dim, got.data());
    return got;
  };
  const auto got = by_steps(0, 0);
  CHECK(agree(got, expected, coarse));
  if (got.empty()) return;
  // Elsewhere in a tile a pair has the same score.
  const int64_t first_query = random.below(num_queries), first_entity = random.below(num_entities);
  const auto part = by_steps(first_query, first_entity);
  for (int64_t q = first_query; q < num_queries; ++q) {
    for (int64_t e = first_entity; e < num_entities; ++e) {
      CHECK(part[(q - first_query) * (num_entities - first_entity) + e - first_entity] == got[q * num_entities + e]);
    }
  }
}

template <class T>
void check_scores_backward(uint64_t seed, Norm norm) {
  Random random(seed);
  const HostDevice device(seed);
  // More than 256 partners are cut into pieces.
  const int64_t num_rows = draw_count(random), dim = draw_dim(random);
  const int64_t num_partners = random.chance(0.3) ? random.between(255, 600) : draw_count(random);
  const bool coarse = random.chance(0.5), transposed = random.chance(0.5);
  const auto rows = draw_values<T>(random, num_rows * dim, -1, 1, coarse);
  auto partners = draw_values<T>(random, num_partners * dim, -1, 1, coarse);
  if (num_rows > 0 && num_partners > 0) std::copy_n(rows.begin(), dim, partners.begin());  // differences of 0
  const auto values = draw_values<T>(random, num_rows * num_partners, -1, 1, coarse);
  const Weights<T> weights{values.data(), transposed ? 1 : num_partners, transposed ? num_rows : 1};
  std::vector<T> expected(num_rows * dim), got(num_rows * dim, T(NAN));
  transe_scores_backward<T>(norm, rows.data(), num_rows, partners.data(), num_partners, dim, weights, expected.data(),
                            1);
  cuda::Carver counting(nullptr);
  cuda::PullMemory<T>(counting, num_rows, num_partners, dim);
  const Scratch scratch(counting.bytes());
  cuda::Carver carver(scratch.data());
  cuda::scores_backward_steps(device, norm, rows.data(), num_rows, partners.data(), num_partners, dim, weights,
                              got.data(), cuda::PullMemory<T>(carver, num_rows, num_partners, dim));
  CHECK(agree(got, expected, coarse));
}

// Whatever the sizes, the sums of the pieces stay small.
void check_pieces() {
  for (int64_t num_rows = 1; num_rows < int64_t{1} << 40; num_rows *= 7) {
    for (int64_t num_partners = 1; num_partners < int64_t{1} << 40; num_partners *= 11) {
      for (const int64_t dim : {1, 64, 200, 5000}) {
        cuda::Carver counting(nullptr);
        const cuda::PullMemory<double> memory(counting, num_rows, num_partners, dim);
        CHECK(counting.bytes() < 64 << 20 && memory.partners % 16 == 0);
        CHECK(memory.num_pieces * memory.partners >= num_partners);
      }
    }
  }
}

// Queries with targets, known entities and candidates; few different values, so that many scores are equal or nearly.
template <class T>
struct RankProblem {
  int64_t num_entities, num_relations, dim, num_queries;
  bool with_known, with_candidates;
  std::vector<T> entities, relations;
  std::vector<int32_t> anchors, kinds;
  RandomSets targets, known, candidates;
  std::vector<int64_t> known_ranges, candidate_ranges;

  explicit RankProblem(Random& random)
      : num_entities(std::max<int64_t>(draw_count(random), 1)),
        num_relations(random.between(1, 3)),
        dim(draw_dim(random)),
        num_queries(draw_count(random)),
        with_known(random.chance(0.7)),
        with_candidates(random.chance(0.4)),
        entities(draw_table(random, num_entities)),
        relations(draw_table(random, num_relations)),
        anchors(draw_ids(random, num_entities)),
        kinds(draw_ids(random, num_relations)),
        targets(random, num_queries, num_entities),
        known(random, num_queries, num_entities),
        candidates(random, num_queries, num_entities),
        known_ranges(ranges_of(known)),
        candidate_ranges(ranges_of(candidates)) {
    for (int64_t copy = 0; copy < num_entities / 4; ++copy) {  // equal entities
      std::copy_n(entities.begin() + random.below(num_entities) * dim, dim,
                  entities.begin() + random.below(num_entities) * dim);
    }
  }

  Ranking<T> view(bool tails) const {
    return {entities.data(),
            relations.data(),
            num_entities,
            dim,
            anchors.data(),
            kinds.data(),
            targets.offsets.data(),
            targets.entities.data(),
            num_queries,
            {with_known ? known_ranges.data() : nullptr, known.entities.data()},
            {with_candidates ? candidate_ranges.data() : nullptr, candidates.entities.data()},
            tails};
  }

 private:
  std::vector<T> draw_table(Random& random, int64_t rows) const {
    auto values = draw_values<T>(random, rows * dim, -1, 1, random.chance(0.3));
    const T scale = random.chance(0.3) ? T(1e-20) : random.chance(0.3) ? T(1e14) : T(1);
    const bool near = random.chance(0.3);  // rows that differ by rounding errors
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = scale * (near ? T(1) + values[i] * (sizeof(T) == 4 ? T(1e-6) : T(1e-15)) : values[i]);
    }
    return values;
  }
  std::vector<int32_t> draw_ids(Random& random, int64_t limit) const {
    std::vector<int32_t> ids(num_queries);
    for (int32_t& id : ids) id = static_cast<int32_t>(random.below(limit));
    return ids;
  }
  static std::vector<int64_t> ranges_of(const RandomSets& sets) {
    std::vector<int64_t> ranges;
    for (int64_t row = 0; row < sets.batch(); ++row) {
      ranges.insert(ranges.end(), {sets.offsets[row], sets.offsets[row + 1]});
    }
    return ranges;
  }
};

struct RankCounts {
  std::vector<int64_t> better, equal, rivals;
  explicit RankCounts(int64_t num_targets) : better(num_targets), equal(num_targets), rivals(num_targets) {}
  bool operator==(const RankCounts&) const = default;
};

template <class T>
void check_ranks(uint64_t seed, Norm norm) {
  Random random(seed);
  const HostDevice device(seed);
  const RankProblem<T> problem(random);
  const Ranking<T> ranking = problem.view(random.chance(0.5));
  const int64_t num_targets = problem.targets.num_members();
  RankCounts expected(num_targets);
  std::vector<double> exact(num_targets);
  std::vector<unsigned char> room(rank_scratch_bytes<T>(problem.num_entities, problem.dim, 1));
  rank_counts<T>(norm, ranking, expected.better.data(), expected.equal.data(), expected.rivals.data(), exact.data(),
                 room.data(), 1);
  for (const int64_t queries_at_once : {problem.num_queries + 1, random.between(1, 100)}) {
    RankCounts got(num_targets);
    cuda::Carver counting(nullptr);
    cuda::RankMemory<T>(counting, num_targets, problem.dim, queries_at_once);
    const Scratch scratch(counting.bytes());
    cuda::Carver carver(scratch.data());
    cuda::rank_steps(device, norm, ranking, num_targets, queries_at_once,
                     cuda::Counts{got.better.data(), got.equal.data(), got.rivals.data()},
                     cuda::RankMemory<T>(carver, num_targets, problem.dim, queries_at_once));
    CHECK(got == expected);
  }
}

}  // namespace

void check_cuda_translation_kernels(uint64_t seed) {
  if (seed == 0) check_pieces();
  for (const Norm norm : {Norm::kL1, Norm::kL2, Norm::kDot}) {
    check_score<float>(seed, norm);
    check_score<double>(seed, norm);
    check_scores<float>(seed, norm);
    check_scores<double>(seed, norm);
    check_scores_backward<float>(seed, norm);
    check_scores_backward<double>(seed, norm);
    check_ranks<float>(seed, norm);
    check_ranks<double>(seed, norm);
  }
}
