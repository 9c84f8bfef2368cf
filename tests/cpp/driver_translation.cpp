// Scores and their gradients against plain loops; coarse values exactly.
#include "pairs.h"
#include "translation.h"

namespace {

using namespace tercet;

template <class T>
void check_score(Random& random, Norm norm) {
  const int64_t batch = random.chance(0.1) ? random.between(250, 600) : draw_count(random), dim = draw_dim(random);
  const bool coarse = random.chance(0.5);
  const auto heads = draw_table<T>(random, batch, dim, coarse), relations = draw_table<T>(random, batch, dim, coarse);
  auto tails = draw_table<T>(random, batch, dim, coarse);
  const auto grad = draw_values<T>(random, batch, -1, 1, coarse);
  for (int64_t d = 0; batch > 0 && d < dim; ++d) tails[d] = heads[d] + relations[d];  // a distance of 0
  std::vector<double> scores(batch), to_query(batch * dim), to_tails(batch * dim);
  for (int64_t b = 0; b < batch; ++b) {
    std::vector<T> query(dim);
    for (int64_t d = 0; d < dim; ++d) query[d] = heads[b * dim + d] + relations[b * dim + d];
    scores[b] = plain_score(norm, query.data(), tails.data() + b * dim, dim);
    for (int64_t d = 0; d < dim; ++d) {
      const int64_t at = b * dim + d;
      const double weight = norm != Norm::kL2 ? grad[b] : scores[b] != 0 ? grad[b] / -scores[b] : 0;
      to_query[at] = weight * plain_pull(norm, query[d], tails[at]);
      to_tails[at] = norm == Norm::kDot ? weight * query[d] : -to_query[at];
    }
  }
  for (const int threads : kThreadCounts) {
    std::vector<T> got(batch, T(NAN)), query_got(batch * dim, T(NAN)), tails_got = query_got;
    transe_score<T>(norm, heads.data(), relations.data(), tails.data(), batch, dim, got.data(), threads);
    CHECK(near(got, scores, coarse));
    transe_score_backward<T>(norm, grad.data(), heads.data(), relations.data(), tails.data(), batch, dim,
                             query_got.data(), tails_got.data(), threads);
    const bool exact_products = coarse && norm != Norm::kL2;
    CHECK(near(query_got, to_query, exact_products) && near(tails_got, to_tails, exact_products));
  }
}

template <class T>
void check_scores(Random& random, Norm norm) {
  const int64_t num_queries = draw_count(random), num_entities = draw_count(random), dim = draw_dim(random);
  const bool coarse = random.chance(0.5);
  const auto queries = draw_table<T>(random, num_queries, dim, coarse);
  const auto entities = draw_table<T>(random, num_entities, dim, coarse);
  std::vector<double> expected(num_queries * num_entities);
  for (int64_t q = 0; q < num_queries; ++q) {
    for (int64_t e = 0; e < num_entities; ++e) {
      expected[q * num_entities + e] = plain_score(norm, queries.data() + q * dim, entities.data() + e * dim, dim);
    }
  }
  std::vector<T> once;
  for (const int threads : kThreadCounts) {
    std::vector<T> got(num_queries * num_entities, T(NAN)), scratch(threads * transe_scores_scratch<T>(dim));
    transe_scores<T>(norm, queries.data(), num_queries, entities.data(), num_entities, dim, got.data(), scratch.data(),
                     threads);
    CHECK(near(got, expected, coarse));
    CHECK(once.empty() || same_bits(got, once));
    once = got;
  }
}

// The weights stand in rows or in columns.
template <class T>
void check_scores_backward(Random& random, Norm norm) {
  const int64_t num_rows = draw_count(random), num_partners = draw_count(random), dim = draw_dim(random);
  const bool coarse = random.chance(0.5), transposed = random.chance(0.5);
  const auto rows = draw_table<T>(random, num_rows, dim, coarse),
             partners = draw_table<T>(random, num_partners, dim, coarse);
  const auto weights = draw_values<T>(random, num_rows * num_partners, -1, 1, coarse);
  const int64_t row_stride = transposed ? 1 : num_partners, partner_stride = transposed ? num_rows : 1;
  std::vector<double> expected(num_rows * dim);
  for (int64_t i = 0; i < num_rows; ++i) {
    for (int64_t j = 0; j < num_partners; ++j) {
      const double weight = weights[i * row_stride + j * partner_stride];
      for (int64_t d = 0; d < dim; ++d) {
        expected[i * dim + d] += weight * plain_pull(norm, rows[i * dim + d], partners[j * dim + d]);
      }
    }
  }
  std::vector<T> once;
  for (const int threads : kThreadCounts) {
    std::vector<T> got(num_rows * dim, T(NAN));
    transe_scores_backward<T>(norm, rows.data(), num_rows, partners.data(), num_partners, dim,
                              {weights.data(), row_stride, partner_stride}, got.data(), threads);
    CHECK(near(got, expected, coarse));
    CHECK(once.empty() || same_bits(got, once));
    once = got;
  }
}

template <class T>
void check_all(Random& random) {
  for (const Norm norm : kNorms) {
    check_score<T>(random, norm);
    check_scores<T>(random, norm);
    check_scores_backward<T>(random, norm);
  }
}

}  // namespace

void check_translation_kernels(uint64_t seed) {
  Random random(seed);
  random.chance(0.5) ? check_all<float>(random) : check_all<double>(random);
}
