"""The faults seeded into translation, ranking and training: (name, text, faulty text) by file."""

from __future__ import annotations

_SCORES = [
    (
        "the last entity of a tile has no score",
        "for (int64_t e = 0; e < count; ++e) out[e]",
        "for (int64_t e = 1; e < count; ++e) out[e]",
    ),
    ("every group of queries is the first", "tile_sums<N>(queries + q * dim,", "tile_sums<N>(queries,"),
    (
        "a gradient leaves out the first of a block's partners",
        "for (int64_t j = first; j < last; ++j) {\n    Lanes<T> partner[kVectors];",
        "for (int64_t j = first + 1; j < last; ++j) {\n    Lanes<T> partner[kVectors];",
    ),
    (
        "weights are read transposed",
        "weights.data[i * weights.row_stride + j * weights.partner_stride]",
        "weights.data[i * weights.partner_stride + j * weights.row_stride]",
    ),
    (
        "a block of partners replaces the one before",
        "store<T>(place, load<T>(place) + total[i][v]);",
        "store<T>(place, total[i][v]);",
    ),
    (
        "blocks of partners leave out their last",
        "std::min(first + kPartners, num_partners)",
        "std::min(first + kPartners - 1, num_partners)",
    ),
    ("the last dimension has no gradient", "if (d == dim) return;", "if (d + 1 >= dim) return;"),
    ("gradients are added to what was there", "std::fill(out + begin * dim, out + end * dim, T{0});", ""),
    ("the last triple of a task has no score", "b < last; ++b) body(b);", "b < last - 1; ++b) body(b);"),
    ("l1 forgets the relation", "std::abs(head[d] + relation[d] - tail[d])", "std::abs(head[d] - tail[d])"),
    (
        "l2 forgets the relation",
        "      const T difference = head[d] + relation[d] - tail[d];\n      sum",
        "      const T difference = head[d] - tail[d];\n      sum",
    ),
    ("dot's gradient to the query is the head", "query_out[d] = g * tail[d];", "query_out[d] = g * head[d];"),
    ("l2 divides by a distance of 0", "length > 0 ? g / length : 0 * length", "g / length"),
    ("a difference of 0 counts as positive", "difference < 0 ? T{-1} : difference;", "difference < 0 ? T{-1} : T{1};"),
    ("the gradient to the query points to the tail's side", "query_out[d] = -along;", "query_out[d] = along;"),
]

_TILES = [
    ("l1 is a distance", "return -total;", "return total;"),
    ("blocks of dimensions leave out their last", "std::min(first + kDepth, dim)", "std::min(first + kDepth - 1, dim)"),
    (
        "a block of dimensions replaces the one before",
        "store<T>(place, load<T>(place) + total[i][v]);",
        "store<T>(place, total[i][v]);",
    ),
    ("every query of a group is the first", "all<T>(queries[i * dim + d])", "all<T>(queries[d])"),
    ("the last dimension is not packed", "std::min(first + kStrip, dim)", "std::min(first + kStrip, dim - 1)"),
    (
        "l2 pulls away",
        "return multiply_add<T>(weight, partner - row, total);",
        "return multiply_add<T>(weight, row - partner, total);",
    ),
    ("l1 pulls away", "with_sign<T>(weight, partner - row)", "with_sign<T>(weight, row - partner)"),
]

_LANES = [("a difference of 0 has a sign", "bits & (of != 0)", "bits")]

_RANKS = [
    (
        "known entities of the next tile are taken out of this one",
        "ranges_.entities[next_[q]] < end;",
        "ranges_.entities[next_[q]] <= end;",
    ),
    (
        "later tiles begin with the first known entity",
        "std::lower_bound(begin, ranges.entities + range[1], first_entity) - ranges.entities",
        "begin - ranges.entities",
    ),
    ("a target is its own rival", "add(rivals[i], left - itself);", "add(rivals[i], left);"),
    ("a tile's padding holds rivals", "std::fill(row + count, row + kTile<T>, kNone);", ""),
    ("known entities that are no candidates are counted twice", "left -= sum == sum;", "--left;"),
    ("known entities are rivals", "      sum = kNone;", ""),
    ("near scores are not summed again", "if (not_above - below > itself) {", "if (false) {"),
    ("a target ties with itself", "|| first + e == target) continue;", ") continue;"),
    (
        "near inner products are compared as distances",
        "ahead += kMore ? sum > exact_[i] : sum < exact_[i];",
        "ahead += sum < exact_[i];",
    ),
    ("ties are not counted", "beside += sum == exact_[i];", ""),
    (
        "near inner products are all ahead",
        "kMore ? left - not_above : below, beside",
        "kMore ? left - below : below, beside",
    ),
    (
        "the band does not know the query's length",
        "lengths_[q] = length(query, r_.dim) * (1 + 1e-6);",
        "lengths_[q] = 0;",
    ),
    ("the band does not know the entities' length", "block.lengths[t] = longest;", "block.lengths[t] = 0;"),
    (
        "tiles that fill no task are left out",
        "(block.last - block.first + kTilesPerTask - 1) / kTilesPerTask",
        "(block.last - block.first) / kTilesPerTask",
    ),
    (
        "the last tile of a task is left out",
        "std::min(first + kTilesPerTask, block.last)",
        "std::min(first + kTilesPerTask - 1, block.last)",
    ),
    (
        "the first tile of the second block is left out",
        "block.first < num_tiles; block.first = block.last)",
        "block.first < num_tiles; block.first = block.last + 1)",
    ),
    ("nothing is known", "found[2 * i + 1] = end - graph.relations;", "found[2 * i + 1] = begin - graph.relations;"),
    (
        "inner products of heads subtract the relation",
        "norm == Norm::kDot ? Query::kAnchor : Query::kDifference",
        "Query::kDifference",
    ),
    ("the larger id comes first among equals", "a.entity < b.entity", "a.entity > b.entity"),
    ("later entities of equal score replace earlier ones", "if (!(row[e] > (size < k", "if (!(row[e] >= (size < k"),
    (
        "the best of other parts are dropped",
        "if (size == k && !Best<T>::before(other[i], best[k - 1])) continue;",
        "if (size == k) continue;",
    ),
    ("excluded entities are answers", "row[entity - first] = -INFINITY;", "(void)row;"),
    (
        "what is left is not filled",
        "found[q * k + i] = i < size ? best[i].entity : -1;",
        "found[q * k + i] = best[i].entity;",
    ),
    ("the best are not sorted", "std::sort(best, best + size, Best<T>::before);", ""),
]

_BANDS = [
    ("the band of inner products has no width", "absolute += ((links + 2) * u + own) * query_norm * entity_norm;", ""),
    ("the band of l2 does not grow with the sum", "relative += (links + 67) * u;", ""),
    (
        "exact sums leave out what fills no eight",
        "for (int i = 0; d < dim; ++d, ++i)",
        "for (int i = 0; d + 1 < dim; ++d, ++i)",
    ),
]

_SAMPLING = [
    ("a negative may be the entity that it replaces", "(other >= replaced)", "(other > replaced)"),
    (
        "the odd negative always replaces a tail",
        "int64_t tails = num_negatives / 2;",
        "int64_t tails = (num_negatives + 1) / 2;",
    ),
    ("a known triple is drawn again once", "attempt < kAttempts", "attempt < 2"),
    (
        "Bernoulli replaces the other side",
        "static_cast<uint32_t>(bits(base, k, 0)) < limit",
        "static_cast<uint32_t>(bits(base, k, 0)) > limit",
    ),
    ("each call begins the epoch", "sampling.first_position + place", "place"),
    (
        "draws avoid the entity of the other side",
        "const int32_t replaced = triple[tail ? 2 : 0];",
        "const int32_t replaced = triple[tail ? 0 : 2];",
    ),
    ("a tail's gradient goes to the head", "entry(triples[3 * p + 2], size + p)", "entry(triples[3 * p], size + p)"),
    (
        "a negative's gradient goes to the first one",
        "entry(negatives[i], 2 * size + i)",
        "entry(negatives[0], 2 * size + i)",
    ),
    ("rows are sorted by their lowest digit", "static_cast<int>(std::bit_width(largest_row))", "kDigitBits"),
    ("sorting ends in the scratch", "if (from != entries) std::copy(from, from + count, entries);", ""),
    ("relations are not sorted", "sort_entries(relations, size, scratch, largest_relation);", ""),
    (
        "shared negatives are drawn by the low half",
        "(bits(base, k, 0) >> 32) * entities",
        "(bits(base, k, 0) & 0xFFFFFFFF) * entities",
    ),
]

_KNOWN = [
    (
        "known triples are searched beyond their place",
        "graph.objects[middle] < object",
        "graph.objects[middle] <= object",
    ),
    ("known heads are those of the head", "contains(known.by_tail, triple[2],", "contains(known.by_tail, triple[0],"),
]

_LOSSES = [
    ("no negatives divide by 0", "if (!present) return 0;", ""),
    (
        "a violation's gradient is not the mean's",
        "score = violation > 0 ? scale / present : 0;",
        "score = violation > 0 ? scale : 0;",
    ),
    ("what holds the margin lowers the loss", "loss += violation > 0 ? violation : 0;", "loss += violation;"),
    ("softmax leaves out the positive", "  T total = own;", "  T total = 0;"),
    ("softmax pulls the positive the other way", "scale * (own / total - 1)", "scale * (own / total)"),
    ("softmax overflows", "  T largest = positive;", "  T largest = 0;"),
    ("the temperature is 1", "kAbsent : temperature * scores[k];", "kAbsent : scores[k];"),
    (
        "absent negatives weigh 0 times infinity",
        "scores[k] == kAbsent ? kAbsent : temperature * scores[k];",
        "temperature * scores[k];",
    ),
    ("absent negatives add 0 times infinity", "(weights[k] > 0 ? scores[k] : T{0})", "scores[k]"),
    ("the positive pulls twice", "*to_positive -= scale / 2 * own.slope;", "*to_positive -= scale * own.slope;"),
    ("a side alone weighs a half", "has[0] && has[1] ? 0.5 : 1", "0.5"),
    ("the weights of negatives do not sum to 1", "wrong / total) / 2", "wrong) / 2"),
]

_ELEMENTARY = [("the logarithm's series is cut", "int odd = 25;", "int odd = 3;")]

_GRADIENTS = [
    (
        "inner products of heads subtract the relation",
        "std::is_same_v<N, Dot> ? v.tail[d] : v.tail[d] - v.relation[d]",
        "v.tail[d] - v.relation[d]",
    ),
    ("l2 divides by a distance of 0", "return score != 0 ? to_score / -score : 0;", "return to_score / -score;"),
    (
        "relations miss what <r, t> passes",
        "to_relation[d] = to_head[d] + head_shift * v.tail[d];",
        "to_relation[d] = to_head[d];",
    ),
    ("tails miss what <r, t> passes", "to_tail[d] += head_shift * v.relation[d];", ""),
    (
        "relations miss the replaced heads",
        "to_relation[d] = to_head[d] - to_query[dim + d];",
        "to_relation[d] = to_head[d];",
    ),
    (
        "scores of replaced heads miss <r, t>",
        "weights[k] = scores[k] + (k < num_tails ? 0 : shift);",
        "weights[k] = scores[k];",
    ),
    (
        "replaced heads are compared to h + r",
        "row_sum<N>(queries + (k < num_tails ? 0 : dim),",
        "row_sum<N>(queries,",
    ),
    (
        "the true entity is a shared negative",
        "const bool same = negatives[k] == triple[side == 0 ? 2 : 0];",
        "const bool same = false;",
    ),
    ("known tails are sought among heads", "triple, side == 0, negatives[k])", "triple, side == 1, negatives[k])"),
    ("the last chunk is a full one", "count_(std::min(b_.chunk_size, b_.size - first_))", "count_(b_.chunk_size)"),
    ("replaced heads are the first negatives", "start_[1] = num_tails;", "start_[1] = 0;"),
    ("gradients are those of the sum", "return T{1} / static_cast<T>(batches.size);", "return T{1};"),
    ("the last positive of a task has no gradient", "p < last; ++p) own_gradients", "p < last - 1; ++p) own_gradients"),
    (
        "the positive's pull is not divided by its distance",
        "scratch_.own_weights[i] = pull_weight<N>(to_positive, positive);",
        "scratch_.own_weights[i] = to_positive;",
    ),
]

_ROW_SUMS = [
    (
        "a fourth of a row is left out",
        "(total[0] + total[1]) + (total[2] + total[3])",
        "(total[0] + total[1]) + total[2]",
    ),
    (
        "a row's rest misses its first partner",
        "for (int64_t i = 0; i < count; ++i) {\n      total = N",
        "for (int64_t i = 1; i < count; ++i) {\n      total = N",
    ),
]

_UPDATES = [
    ("every batch has the first one's sides", "b_.num_tails[batch_ * b_.size + p]", "b_.num_tails[p]"),
    ("negatives pull at h + r alone", "(2 * p + !tail) * dim_", "2 * p * dim_"),
    (
        "negatives pull as inner products do",
        "pull_partners<N>(values, pulls, weights, count, dim_, gradient_);",
        "pull_partners<Dot>(values, pulls, weights, count, dim_, gradient_);",
    ),
    ("tails move by the relation's gradient", "(3 * (i - b_.size) + 2) * dim_", "(3 * (i - b_.size) + 1) * dim_"),
    ("relations move by the head's gradient", "(3 * i + 1) * dim_", "3 * i * dim_"),
    ("a row's gradient starts with the row before", "std::fill(gradient_, gradient_ + dim_, T{0});", ""),
    (
        "more entries than there is room for",
        "first < last && count < kDecoded && stored(entries[first])",
        "first < last && stored(entries[first])",
    ),
    (
        "row-wise Adagrad adds the sum of squares",
        "row_sum<Dot>(gradient_, gradient_, dim_) / static_cast<T>(dim_);",
        "row_sum<Dot>(gradient_, gradient_, dim_);",
    ),
    (
        "Adagrad forgets its squares",
        "squares[d] += gradient_[d] * gradient_[d];",
        "squares[d] = gradient_[d] * gradient_[d];",
    ),
    ("row-wise Adagrad divides by 0", "(std::sqrt(u_.first[row]) + epsilon)", "std::sqrt(u_.first[row])"),
    ("the ball's radius is 2", "if (length > 1) {", "if (length > 2) {"),
    ("there always is a ball", "if (!u_.unit_ball) return;", ""),
    (
        "Adam's mean is not corrected",
        "static_cast<T>(1 / (1 - std::pow(u_.beta1, static_cast<double>(u_.step))))",
        "T{1}",
    ),
    ("Adam's square is no square", "(1 - beta2) * g * g;", "(1 - beta2) * g;"),
    ("tasks share rows", "while (from > 0 && from < count &&", "while (false &&"),
]


TRANSLATION = [
    ("translation.cpp", _SCORES),
    ("translation_tile.h", _TILES),
    ("simd.h", _LANES),
    ("ranking.cpp", _RANKS),
    ("exact.h", _BANDS),
    ("translation_sampling.cpp", _SAMPLING),
    ("translation_known.h", _KNOWN),
    ("translation_losses.h", _LOSSES),
    ("elementary.h", _ELEMENTARY),
    ("translation_gradients.cpp", _GRADIENTS),
    ("translation_rows.h", _ROW_SUMS),
    ("translation_update.cpp", _UPDATES),
]
