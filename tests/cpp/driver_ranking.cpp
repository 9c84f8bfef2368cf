// Ranks, best entities and the places of known triples against plain loops, exactly.
#include "pairs.h"
#include "ranking.h"

namespace {

using namespace tercet;

// Few and many entities: more than one tile, than a task's tiles (1024 or 2048 entities) and than a block's (4096).
int64_t draw_entities(Random& random) {
  static constexpr int64_t kSizes[] = {1, 2, 31, 32, 33, 63, 64, 65, 1025, 2049, 4097};
  return kSizes[random.below(random.chance(0.2) ? 11 : 8)];
}

template <class T>
struct RankingProblem {
  int64_t num_entities, num_relations, dim, num_queries;
  bool tails, with_known, with_candidates;
  std::vector<T> entities, relations;
  std::vector<int32_t> anchors, kinds, targets;
  std::vector<int64_t> target_offsets{0};
  RandomSets known, candidates;
  std::vector<int64_t> known_ranges, candidate_ranges;

  // Coarse values, of which many sums are equal, at a scale whose squares float32 may not hold; or any values.
  explicit RankingProblem(Random& random)
      : num_entities(draw_entities(random)),
        num_relations(random.between(1, 3)),
        dim(random.chance(0.3) ? draw_dim(random) : random.between(1, 4)),
        num_queries(num_entities > 1000  ? random.between(1, 6)
                    : random.chance(0.1) ? 0
                                         : random.between(1, 140)),
        tails(random.chance(0.5)),
        with_known(random.chance(0.7)),
        with_candidates(random.chance(0.3)),
        known(random, num_queries, num_entities),
        candidates(random, num_queries, num_entities) {
    const bool coarse = random.chance(0.7);
    const double scale = coarse ? std::exp2(static_cast<double>(random.between(-90, 45))) : 1;
    entities = draw_table<T>(random, num_entities, dim, coarse);
    relations = draw_table<T>(random, num_relations, dim, coarse);
    for (auto* table : {&entities, &relations}) {
      for (T& value : *table) value *= static_cast<T>(scale);
    }
    for (int64_t q = 0; q < num_queries; ++q) {
      anchors.push_back(static_cast<int32_t>(random.below(num_entities)));
      kinds.push_back(static_cast<int32_t>(random.below(num_relations)));
      for (int64_t i = random.between(0, 3); i > 0; --i)
        targets.push_back(static_cast<int32_t>(random.below(num_entities)));
      target_offsets.push_back(static_cast<int64_t>(targets.size()));
    }
    anchors = exact(anchors), kinds = exact(kinds), targets = exact(targets), target_offsets = exact(target_offsets);
    known_ranges = ranges_of(known), candidate_ranges = ranges_of(candidates);
  }

  static std::vector<int64_t> ranges_of(const RandomSets& sets) {
    std::vector<int64_t> ranges;
    for (int64_t row = 0; row < sets.batch(); ++row) {
      ranges.insert(ranges.end(), {sets.offsets[row], sets.offsets[row + 1]});
    }
    return exact(ranges);
  }

  Ranking<T> view() const {
    return {
        entities.data(),
        relations.data(),
        num_entities,
        dim,
        anchors.data(),
        kinds.data(),
        target_offsets.data(),
        targets.data(),
        num_queries,
        {with_known ? known_ranges.data() : nullptr, with_known ? known.entities.data() : nullptr},
        {with_candidates ? candidate_ranges.data() : nullptr, with_candidates ? candidates.entities.data() : nullptr},
        tails};
  }
};

struct Counts {
  std::vector<int64_t> better, equal, rivals;
  explicit Counts(size_t size) : better(size), equal(size), rivals(size) {}
  bool operator==(const Counts&) const = default;
};

bool holds(const RandomSets& sets, int64_t row, int64_t entity) {
  const auto begin = sets.entities.begin() + sets.offsets[row], end = sets.entities.begin() + sets.offsets[row + 1];
  return std::binary_search(begin, end, static_cast<int32_t>(entity));
}

template <class T>
Counts rank_plainly(const RankingProblem<T>& p, Norm norm) {
  Counts counts(p.targets.size());
  for (int64_t q = 0; q < p.num_queries; ++q) {
    std::vector<double> scores(p.num_entities);
    const double sign = norm == Norm::kDot ? 0 : -1;
    for (int64_t e = 0; e < p.num_entities; ++e) {
      std::vector<double> query(p.dim), entity(p.dim);
      for (int64_t d = 0; d < p.dim; ++d) {
        const double anchor = p.entities[p.anchors[q] * p.dim + d], relation = p.relations[p.kinds[q] * p.dim + d];
        query[d] = anchor + (p.tails ? 1 : sign) * relation;
        entity[d] = p.entities[e * p.dim + d];
      }
      scores[e] = plain_score(norm, query.data(), entity.data(), p.dim);
    }
    for (int64_t i = p.target_offsets[q]; i < p.target_offsets[q + 1]; ++i) {
      for (int64_t e = 0; e < p.num_entities; ++e) {
        if (e == p.targets[i] || (p.with_known && holds(p.known, q, e))) continue;
        if (p.with_candidates && !holds(p.candidates, q, e)) continue;
        counts.better[i] += scores[e] > scores[p.targets[i]];
        counts.equal[i] += scores[e] == scores[p.targets[i]];
        counts.rivals[i] += 1;
      }
    }
  }
  return counts;
}

template <class T>
void check_ranks(Random& random, Norm norm) {
  const RankingProblem<T> problem(random);
  const Counts expected = rank_plainly(problem, norm);
  for (const int threads : kThreadCounts) {
    Counts got(problem.targets.size());
    std::vector<double> sums(problem.targets.size());
    std::vector<unsigned char> scratch(rank_scratch_bytes<T>(problem.num_entities, problem.dim, threads));
    rank_counts<T>(norm, problem.view(), got.better.data(), got.equal.data(), got.rivals.data(), sums.data(),
                   scratch.data(), threads);
    CHECK(got == expected);
  }
}

template <class T>
void check_top(Random& random, Norm norm) {
  const int64_t num_entities = draw_entities(random),
                dim = random.chance(0.3) ? draw_dim(random) : random.between(1, 4);
  const int64_t num_queries = num_entities > 1000 ? random.between(0, 3) : draw_count(random) % 70;
  const int64_t k = random.chance(0.2) ? num_entities : random.between(1, std::min<int64_t>(num_entities, 12));
  auto queries = draw_table<T>(random, num_queries, dim, true);
  const auto entities = draw_table<T>(random, num_entities, dim, true);
  if (!queries.empty() && random.chance(0.3)) queries[random.below(num_queries * dim)] = T(NAN);
  const RandomSets exclude(random, num_queries, num_entities);
  const bool with_exclude = random.chance(0.5);
  std::vector<double> scores;
  std::vector<int64_t> found;
  for (int64_t q = 0; q < num_queries; ++q) {
    std::vector<std::pair<double, int64_t>> best;  // minus the score, entity
    for (int64_t e = 0; e < num_entities; ++e) {
      const double score = plain_score(norm, queries.data() + q * dim, entities.data() + e * dim, dim);
      if (!std::isnan(score) && !(with_exclude && holds(exclude, q, e))) best.push_back({-score, e});
    }
    std::sort(best.begin(), best.end());
    best.resize(k, {INFINITY, -1});
    for (const auto& [negative, entity] : best) {
      scores.push_back(-negative);
      found.push_back(entity);
    }
  }
  for (const int threads : kThreadCounts) {
    std::vector<T> got(num_queries * k, T(NAN));
    std::vector<int64_t> got_entities(num_queries * k, -2);
    std::vector<unsigned char> scratch(transe_top_scratch_bytes<T>(num_queries, num_entities, dim, k, threads));
    transe_top<T>(norm, queries.data(), num_queries, entities.data(), num_entities, dim, k,
                  with_exclude ? exclude.view() : Sets{nullptr, nullptr, 0}, got.data(), got_entities.data(),
                  scratch.data(), threads);
    CHECK(got_entities == found);
    for (size_t i = 0; i < got.size(); ++i) CHECK(got[i] == static_cast<T>(scores[i]));
  }
}

void check_known_ranges(Random& random) {
  const RandomGraph graph(random);
  if (graph.num_entities == 0 || graph.num_relations == 0) return;
  std::vector<int32_t> subjects(random.below(40)), relations(subjects.size());
  for (size_t i = 0; i < subjects.size(); ++i) {
    subjects[i] = static_cast<int32_t>(random.below(graph.num_entities));
    relations[i] = static_cast<int32_t>(random.below(graph.num_relations));
  }
  std::vector<int64_t> found(2 * subjects.size(), -1);
  known_ranges(graph.view(), subjects.data(), relations.data(), static_cast<int64_t>(subjects.size()), found.data());
  for (size_t i = 0; i < subjects.size(); ++i) {
    int64_t first = graph.row_offsets[subjects[i]];
    const int64_t end = graph.row_offsets[subjects[i] + 1];
    while (first < end && graph.relations[first] < relations[i]) ++first;
    int64_t last = first;
    while (last < end && graph.relations[last] == relations[i]) ++last;
    CHECK(found[2 * i] == first && found[2 * i + 1] == last);
  }
}

template <class T>
void check_all(Random& random) {
  for (const Norm norm : kNorms) {
    check_ranks<T>(random, norm);
    check_top<T>(random, norm);
  }
}

}  // namespace

void check_ranking_kernels(uint64_t seed) {
  Random random(seed);
  check_known_ranges(random);
  random.chance(0.5) ? check_all<float>(random) : check_all<double>(random);
}
