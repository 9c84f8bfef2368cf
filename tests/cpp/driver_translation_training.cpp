// Sampling, gradients and updates of training against plain loops over positives and their negatives.
//
// Tables are coarse, so that signs and violations of the margin are the same in any order of summing.
#include "mix.h"
#include "pairs.h"
#include "translation_training.h"

namespace {

using namespace tercet;

using Facts = std::set<std::tuple<int32_t, int32_t, int32_t>>;

// Facts by head or by tail.
struct Index {
  std::vector<int64_t> row_offsets;
  std::vector<int32_t> relations, objects;
  int64_t num_entities, num_relations;

  Index(const Facts& facts, bool by_head, int64_t entities, int64_t kinds)
      : row_offsets(entities + 1), num_entities(entities), num_relations(kinds) {
    Facts edges;
    for (const auto& [head, relation, tail] : facts) {
      edges.insert({by_head ? head : tail, relation, by_head ? tail : head});
    }
    for (const auto& [subject, relation, object] : edges) {
      row_offsets[subject + 1] += 1;
      relations.push_back(relation), objects.push_back(object);
    }
    for (int64_t i = 0; i < entities; ++i) row_offsets[i + 1] += row_offsets[i];
    relations = exact(relations), objects = exact(objects);
  }
  Graph view() const { return {row_offsets.data(), relations.data(), objects.data(), num_entities, num_relations}; }
};

template <class T>
struct Problem {
  int64_t num_entities, num_relations, dim, num_batches, size, chunk_size, num_negatives, first;
  uint64_t key;
  bool with_known, with_probability;
  Facts facts;
  std::vector<Index> known_by;  // head, tail
  std::vector<double> probability;
  std::vector<int32_t> triples, negatives, num_tails;
  std::vector<int64_t> entity_entries, relation_entries;
  std::vector<T> entities, relations;

  explicit Problem(Random& random)
      : num_entities(random.chance(0.3) ? random.between(2, 4) : random.between(2, 90)),
        num_relations(random.between(1, 4)),
        dim(draw_dim(random) + (random.chance(0.9) ? 1 : 0)),
        num_batches(random.between(1, 3)),
        size(random.between(1, 40)),
        chunk_size(random.chance(0.5) ? 1 : random.between(2, 45)),
        num_negatives(random.between(1, 20)),
        first(random.below(1000)),
        key(random.bits()),
        with_known(random.chance(0.5)),
        with_probability(chunk_size == 1 && random.chance(0.5)) {
    for (int64_t i = 0; i < num_relations; ++i) probability.push_back(random.uniform());
    for (int64_t i = 0; i < num_batches * size; ++i) {
      const auto entity = [&] { return static_cast<int32_t>(random.chance(0.3) ? 0 : random.below(num_entities)); };
      const int32_t head = entity(), relation = static_cast<int32_t>(random.below(num_relations)), tail = entity();
      triples.insert(triples.end(), {head, relation, tail});
      if (random.chance(0.7)) facts.insert({head, relation, tail});
    }
    for (int64_t i = random.below(8 * num_entities); i > 0; --i) {
      facts.insert({static_cast<int32_t>(random.below(num_entities)), static_cast<int32_t>(random.below(num_relations)),
                    static_cast<int32_t>(random.below(num_entities))});
    }
    for (const bool by_head : {true, false}) known_by.emplace_back(facts, by_head, num_entities, num_relations);
    triples = exact(triples), probability = exact(probability);
    negatives.resize(num_batches * num_chunks() * num_negatives, -1);
    num_tails.resize(num_batches * num_chunks(), -1);
    entity_entries.resize(num_batches * num_entries(), -1);
    relation_entries.resize(num_batches * size, -1);
    entities = draw_table<T>(random, num_entities, dim, true);
    relations = draw_table<T>(random, num_relations, dim, true);
  }

  int64_t num_chunks() const { return (size + chunk_size - 1) / chunk_size; }
  int64_t num_entries() const { return 2 * size + num_chunks() * num_negatives; }
  Known known() const { return {known_by[0].view(), known_by[1].view()}; }
  Batches batches() {
    return {
        triples.data(), negatives.data(), num_tails.data(), entity_entries.data(), relation_entries.data(), num_batches,
        size,           chunk_size,       num_negatives};
  }
  // The triple of positive p whose tail or head is replaced.
  bool is_fact(int64_t batch, int64_t p, bool tail, int32_t entity) const {
    const int32_t* t = &triples[(batch * size + p) * 3];
    return facts.contains(tail ? std::tuple{t[0], t[1], entity} : std::tuple{entity, t[1], t[2]});
  }
};

uint64_t drawn(uint64_t key, int64_t position, int64_t slot, int attempt) {
  return mix(mix(key + static_cast<uint64_t>(position)) + static_cast<uint64_t>(slot * 64 + attempt));
}

template <class T>
void check_chunk(const Problem<T>& p, int64_t batch, int64_t chunk) {
  const int64_t place = batch * p.num_chunks() + chunk, position = p.first + place;
  const int32_t* triple = &p.triples[(batch * p.size + chunk * p.chunk_size) * 3];
  const auto low = [&](int64_t slot) { return static_cast<uint32_t>(drawn(p.key, position, slot, 0)) * 0x1p-32; };
  int64_t tails = p.num_negatives / 2 + (p.num_negatives % 2 == 1 && low(p.num_negatives) < 0.5);
  if (p.with_probability) {
    tails = 0;
    for (int64_t k = 0; k < p.num_negatives; ++k) tails += low(k) < p.probability[triple[1]];
  }
  CHECK(p.num_tails[place] == tails);
  for (int64_t k = 0; k < p.num_negatives; ++k) {
    const int32_t replaced = triple[k < tails ? 2 : 0];
    int32_t entity = -1;
    for (int attempt = 0; attempt < 32; ++attempt) {
      const uint64_t high = drawn(p.key, position, k, attempt) >> 32;
      const bool own = p.chunk_size == 1;
      entity = static_cast<int32_t>(high * static_cast<uint64_t>(p.num_entities - own) >> 32);
      if (!own) break;
      entity += entity >= replaced;
      if (!p.with_known || !p.is_fact(batch, chunk, k < tails, entity)) break;
    }
    CHECK(p.negatives[place * p.num_negatives + k] == entity);
  }
}

template <class T>
void check_sampling(Problem<T>& p) {
  const Known known = p.known();
  const Sampling sampling{p.key, p.first, p.num_entities, p.with_probability ? p.probability.data() : nullptr,
                          p.with_known ? &known : nullptr};
  for (const int threads : kThreadCounts) {
    for (auto* ids : {&p.negatives, &p.num_tails}) std::fill(ids->begin(), ids->end(), -1);
    for (auto* entries : {&p.entity_entries, &p.relation_entries}) std::fill(entries->begin(), entries->end(), -1);
    std::vector<int64_t> scratch(threads * p.num_entries());
    sample_batches(p.batches(), sampling, scratch.data(), threads);
    for (int64_t batch = 0; batch < p.num_batches; ++batch) {
      for (int64_t chunk = 0; chunk < p.num_chunks(); ++chunk) check_chunk(p, batch, chunk);
      std::vector<int64_t> entities(p.num_entries()), relations(p.size);
      for (int64_t i = 0; i < p.num_entries(); ++i) {
        const int32_t* triple = &p.triples[(batch * p.size + i % p.size) * 3];
        const int64_t slot = batch * p.num_chunks() * p.num_negatives + i - 2 * p.size;
        const int64_t row = i < p.size ? triple[0] : i < 2 * p.size ? triple[2] : p.negatives[slot];
        entities[i] = row << 32 | i;
        if (i < p.size) relations[i] = static_cast<int64_t>(triple[1]) << 32 | i;
      }
      std::sort(entities.begin(), entities.end()), std::sort(relations.begin(), relations.end());
      CHECK(std::equal(entities.begin(), entities.end(), p.entity_entries.begin() + batch * p.num_entries()));
      CHECK(std::equal(relations.begin(), relations.end(), p.relation_entries.begin() + batch * p.size));
    }
  }
}

struct Score {
  double value, gradient = 0;
  bool tail;
  int64_t slot;
};

double softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// The loss of a positive of score s; gradients go to `to_positive` and the scores.
double loss_plainly(const LossOptions& options, double s, std::vector<Score>& scores, double* to_positive) {
  double loss = 0;
  if (options.kind == Loss::kMargin) {
    const double share = 1 / static_cast<double>(std::max<size_t>(scores.size(), 1));
    for (Score& score : scores) {
      const double violation = options.margin - s + score.value;
      if (!(violation > 0)) continue;
      loss += share * violation;
      score.gradient = share;
      *to_positive -= share;
    }
    return loss;
  }
  int sides = 0;
  for (const bool tail : {true, false}) {
    sides += std::any_of(scores.begin(), scores.end(), [&](const Score& score) { return score.tail == tail; });
  }
  for (const bool tail : {true, false}) {
    std::vector<Score*> side;
    for (Score& score : scores) {
      if (score.tail == tail) side.push_back(&score);
    }
    if (side.empty()) continue;
    const bool softmax = options.kind == Loss::kSoftmax;
    const double temperature = softmax ? 1 : options.temperature;
    double largest = softmax ? s : -INFINITY, total = 0;
    for (const Score* score : side) largest = std::max(largest, temperature * score->value);
    for (const Score* score : side) total += std::exp(temperature * score->value - largest);
    if (softmax) total += std::exp(s - largest);
    if (softmax) {
      loss += (std::log(total) + largest - s) / sides;
      *to_positive += (std::exp(s - largest) / total - 1) / sides;
    } else {
      loss += softplus(-options.margin - s) / 2 / sides;
      *to_positive -= sigmoid(-options.margin - s) / 2 / sides;
    }
    for (Score* score : side) {
      const double weight = std::exp(temperature * score->value - largest) / total;
      if (softmax) {
        score->gradient = weight / sides;
      } else {
        loss += weight * softplus(options.margin + score->value) / 2 / sides;
        score->gradient = weight * sigmoid(options.margin + score->value) / 2 / sides;
      }
    }
  }
  return loss;
}

// Dense gradients to both tables, and the losses.
struct Sums {
  std::vector<double> entities, relations, loss;
};

template <class T>
Sums gradients_plainly(const Problem<T>& p, int64_t batch, Norm norm, const LossOptions& options, bool with_known) {
  const int64_t dim = p.dim;
  Sums sums{std::vector<double>(p.num_entities * dim), std::vector<double>(p.num_relations * dim), {}};
  for (int64_t i = 0; i < p.size; ++i) {
    const int32_t* triple = &p.triples[(batch * p.size + i) * 3];
    const int64_t place = batch * p.num_chunks() + i / p.chunk_size;
    // Adds weight times the gradient of the score of (head, relation, tail).
    const auto pull = [&](int64_t head, int64_t tail, double weight) {
      const T *h = &p.entities[head * dim], *r = &p.relations[triple[1] * dim], *t = &p.entities[tail * dim];
      std::vector<T> query(dim);
      for (int64_t d = 0; d < dim; ++d) query[d] = h[d] + r[d];
      const double score = plain_score(norm, query.data(), t, dim);
      if (norm == Norm::kL2) weight = score != 0 ? weight / -score : 0;
      for (int64_t d = 0; d < dim; ++d) {
        const double to_query = weight * plain_pull(norm, query[d], t[d]);
        sums.entities[head * dim + d] += to_query;
        sums.relations[triple[1] * dim + d] += to_query;
        sums.entities[tail * dim + d] += norm == Norm::kDot ? weight * query[d] : -to_query;
      }
      return score;
    };
    std::vector<Score> scores;
    for (int64_t k = 0; k < p.num_negatives; ++k) {
      const int32_t entity = p.negatives[place * p.num_negatives + k];
      const bool tail = k < p.num_tails[place];
      if (p.chunk_size > 1) {
        if (entity == triple[tail ? 2 : 0] || (with_known && p.is_fact(batch, i, tail, entity))) continue;
      }
      scores.push_back({pull(tail ? triple[0] : entity, tail ? entity : triple[2], 0), 0, tail, entity});
    }
    double to_positive = 0;
    sums.loss.push_back(loss_plainly(options, pull(triple[0], triple[2], 0), scores, &to_positive));
    const double scale = 1 / static_cast<double>(p.size);
    pull(triple[0], triple[2], scale * to_positive);
    for (const Score& s : scores) pull(s.tail ? triple[0] : s.slot, s.tail ? s.slot : triple[2], scale * s.gradient);
  }
  return sums;
}

template <class T>
struct Outputs {
  std::vector<double> loss;
  std::vector<T> queries, positives, negatives;

  explicit Outputs(const Problem<T>& p)
      : loss(p.size, NAN),
        queries(p.size * 2 * p.dim, T(NAN)),
        positives(p.size * 3 * p.dim, T(NAN)),
        negatives(p.num_chunks() * p.num_negatives * (p.chunk_size == 1 ? 1 : p.dim), T(NAN)) {}
  BatchGradients<T> view() { return {loss.data(), queries.data(), positives.data(), negatives.data()}; }
  bool operator==(const Outputs& other) const {
    return same_bits(loss, other.loss) && same_bits(queries, other.queries) && same_bits(positives, other.positives) &&
           same_bits(negatives, other.negatives);
  }
};

// The sums of what stands in the outputs, entry by entry.
template <class T>
Sums sums_of(const Problem<T>& p, int64_t batch, Norm norm, const Outputs<T>& out) {
  const int64_t dim = p.dim;
  Sums sums{std::vector<double>(p.num_entities * dim), std::vector<double>(p.num_relations * dim), out.loss};
  for (int64_t i = 0; i < p.size; ++i) {
    const int32_t* triple = &p.triples[(batch * p.size + i) * 3];
    for (int64_t d = 0; d < dim; ++d) {
      sums.entities[triple[0] * dim + d] += out.positives[3 * i * dim + d];
      sums.relations[triple[1] * dim + d] += out.positives[(3 * i + 1) * dim + d];
      sums.entities[triple[2] * dim + d] += out.positives[(3 * i + 2) * dim + d];
    }
  }
  for (int64_t i = 0; i < p.num_chunks() * p.num_negatives; ++i) {
    const int64_t chunk = i / p.num_negatives, place = batch * p.num_chunks() + chunk;
    const int64_t row = p.negatives[batch * p.num_chunks() * p.num_negatives + i];
    const bool tail = i % p.num_negatives < p.num_tails[place];
    for (int64_t d = 0; d < dim; ++d) {
      const double gradient = p.chunk_size > 1
                                  ? out.negatives[i * dim + d]
                                  : out.negatives[i] * plain_pull(norm, p.entities[row * dim + d],
                                                                  out.queries[(2 * chunk + !tail) * dim + d]);
      sums.entities[row * dim + d] += gradient;
    }
  }
  return sums;
}

bool close(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= tolerance * (1 + std::abs(b[i])))) return false;
  }
  return true;
}

template <class T>
Outputs<T> check_gradients(Problem<T>& p, int64_t batch, Norm norm, const LossOptions& options) {
  const Known known = p.known();
  const Tables<T> tables{p.entities.data(), p.relations.data(), p.dim};
  const Sums expected = gradients_plainly(p, batch, norm, options, p.with_known);
  const int64_t bytes = batch_gradients_bytes<T>(p.batches(), p.dim);
  const double tolerance = sizeof(T) == 4 ? 2e-4 : 1e-10;
  std::vector<Outputs<T>> all;
  for (const int threads : kThreadCounts) {
    std::vector<unsigned char> scratch(threads * bytes + 64);
    auto* aligned = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
    Outputs<T> out(p);
    batch_gradients<T>(norm, tables, p.batches(), batch, options, p.with_known ? &known : nullptr, out.view(), aligned,
                       threads);
    const Sums got = sums_of(p, batch, norm, out);
    CHECK(close(got.loss, expected.loss, tolerance));
    CHECK(close(got.entities, expected.entities, tolerance) && close(got.relations, expected.relations, tolerance));
    CHECK(all.empty() || all[0] == out);
    all.push_back(out);
  }
  return all[0];
}

// A table and what its optimizer remembers.
template <class T>
struct Rows {
  std::vector<T> values, first, second;
  bool operator==(const Rows&) const = default;
  std::vector<double> wide(const std::vector<T> Rows::* part) const {
    return {(this->*part).begin(), (this->*part).end()};
  }
};

template <class T>
Update<T> update_of(const Update<T>& rule, Rows<T>& rows, bool unit_ball) {
  Update<T> update = rule;
  update.first = rows.first.data(), update.second = rows.second.data(), update.unit_ball = unit_ball;
  return update;
}

// The rule of one row, in float64.
template <class T>
void move_plainly(const Update<T>& rule, const double* gradient, int64_t row, int64_t dim, bool unit_ball,
                  std::vector<double>& values, std::vector<double>& first, std::vector<double>& second) {
  double squares = 0, length = 0;
  for (int64_t d = 0; d < dim; ++d) squares += gradient[d] * gradient[d];
  if (rule.rule == Rule::kRowwiseAdagrad) first[row] += squares / static_cast<double>(dim);
  const double step = static_cast<double>(rule.step);
  for (int64_t d = 0; d < dim; ++d) {
    const int64_t at = row * dim + d;
    double move = gradient[d];
    if (rule.rule == Rule::kRowwiseAdagrad) move /= std::sqrt(first[row]) + rule.epsilon;
    if (rule.rule == Rule::kAdagrad) {
      first[at] += gradient[d] * gradient[d];
      move /= std::sqrt(first[at]) + rule.epsilon;
    }
    if (rule.rule == Rule::kAdam) {
      first[at] = rule.beta1 * first[at] + (1 - rule.beta1) * gradient[d];
      second[at] = rule.beta2 * second[at] + (1 - rule.beta2) * gradient[d] * gradient[d];
      move = first[at] / (1 - std::pow(rule.beta1, step)) /
             (std::sqrt(second[at] / (1 - std::pow(rule.beta2, step))) + rule.epsilon);
    }
    values[at] -= rule.learning_rate * move;
    length += values[at] * values[at];
  }
  if (!unit_ball || length <= 1) return;
  for (int64_t d = 0; d < dim; ++d) values[row * dim + d] /= std::sqrt(length);
}

template <class T>
void check_update(Random& random, Problem<T>& p, int64_t batch, Norm norm, Outputs<T>& out, Rule kind) {
  const bool unit_ball = random.chance(0.5);
  const Update<T> rule{kind, 0.1, 0.9, 0.99, 0.01, random.between(1, 9), nullptr, nullptr, false};
  const Sums gradient = sums_of(p, batch, norm, out);
  const int64_t state = kind == Rule::kSgd ? 0 : kind == Rule::kRowwiseAdagrad ? 1 : p.dim;
  const auto draw = [&](const std::vector<T>& table, int64_t rows) {
    return Rows<T>{table, draw_values<T>(random, rows * state, 0, 1, true),
                   draw_values<T>(random, kind == Rule::kAdam ? rows * state : 0, 0, 1, true)};
  };
  const Rows<T> before[2] = {draw(p.entities, p.num_entities), draw(p.relations, p.num_relations)};
  std::vector<double> values[2], first[2], second[2];
  for (int side = 0; side < 2; ++side) {
    values[side] = before[side].wide(&Rows<T>::values);
    first[side] = before[side].wide(&Rows<T>::first), second[side] = before[side].wide(&Rows<T>::second);
    const auto& entries = side == 0 ? p.entity_entries : p.relation_entries;
    const int64_t count = side == 0 ? p.num_entries() : p.size;
    const auto& dense = side == 0 ? gradient.entities : gradient.relations;
    std::set<int64_t> rows;
    for (int64_t i = batch * count; i < (batch + 1) * count; ++i) rows.insert(entries[i] >> 32);
    for (const int64_t row : rows) {
      move_plainly(rule, &dense[row * p.dim], row, p.dim, unit_ball && side == 0, values[side], first[side],
                   second[side]);
    }
  }
  const double tolerance = sizeof(T) == 4 ? 1e-3 : 1e-10;
  std::vector<Rows<T>> once;
  for (const int threads : kThreadCounts) {
    std::vector<Rows<T>> after(before, before + 2);
    std::vector<T> scratch(threads * apply_gradients_scratch<T>(p.dim));
    apply_gradients<T>(norm, {after[0].values.data(), after[1].values.data(), p.dim}, p.batches(), batch, out.view(),
                       update_of(rule, after[0], unit_ball), update_of(rule, after[1], false), scratch.data(), threads);
    for (int side = 0; side < 2; ++side) {
      CHECK(close(after[side].wide(&Rows<T>::values), values[side], tolerance));
      CHECK(close(after[side].wide(&Rows<T>::first), first[side], tolerance));
      CHECK(close(after[side].wide(&Rows<T>::second), second[side], tolerance));
    }
    CHECK(once.empty() || once == after);
    once = after;
  }
}

template <class T>
void check_step(Random& random) {
  Problem<T> problem(random);
  check_sampling(problem);
  for (const Norm norm : kNorms) {
    const int64_t batch = random.below(problem.num_batches);
    const LossOptions options{static_cast<Loss>(random.below(3)), static_cast<double>(random.below(40)) / 8,
                              static_cast<double>(random.below(5)) / 4};
    Outputs<T> out = check_gradients(problem, batch, norm, options);
    if (problem.dim > 0) check_update(random, problem, batch, norm, out, static_cast<Rule>(random.below(4)));
  }
}

}  // namespace

void check_translation_training_kernels(uint64_t seed) {
  Random random(seed);
  random.chance(0.5) ? check_step<float>(random) : check_step<double>(random);
}
