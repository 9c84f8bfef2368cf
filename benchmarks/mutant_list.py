"""The faults that benchmarks/mutants.py seeds: (name, file under csrc, its text, the faulty text)."""

from __future__ import annotations

from typing import NamedTuple

from gating_mutants import GATING
from translation_mutants import TRANSLATION


class Mutant(NamedTuple):
    """`old` occurs exactly once in csrc/`file`."""

    name: str
    file: str
    old: str
    new: str


_PUSH = [
    (
        "the last edge of a member is dropped",
        "end = graph.row_offsets[subject + 1]; edge < end; ++edge) {\n      T value",
        "end = graph.row_offsets[subject + 1]; edge < end - 1; ++edge) {\n      T value",
    ),
    (
        "the last member of a row weighs nothing",
        "    T x = weights.members[member];\n    for (int64_t edge = graph.row_offsets[subject], end",
        "    T x = member + 1 == last ? T(0) : weights.members[member];\n"
        "    for (int64_t edge = graph.row_offsets[subject], end",
    ),
    ("edge weights are forgotten", "if (weights.edges) value *= weights.edges[edge];", ""),
    ("-0.0 is added as it is, so its entity looks untouched", "sums_[at] += value + T(0);", "sums_[at] += value;"),
    ("members of weight 0 are lost", "std::bit_cast<Bits>(sums[i]) != untouched;", "sums[i] != T(0);"),
    ("sums stay dirty for the next row", "for (uint32_t i = 0; i < kLine; ++i) sums[i] = T(-0.0);", ""),
    (
        "the last line of a page is not drained",
        "group < kLinesOfPage; group += 8",
        "group + 8 < kLinesOfPage; group += 8",
    ),
    (
        "the last page is not drained",
        "for (int64_t page = 0; page < pages_; ++page)",
        "for (int64_t page = 0; page + 1 < pages_; ++page)",
    ),
    ("a page's flag is set for the page before", "page_flags_[at / kPage] = 1;", "page_flags_[(at - 1) / kPage] = 1;"),
    ("exclusion is ignored", "sums.remove(exclude.entities[i]);", "(void)sums;"),
    (
        "the last excluded entity stays",
        "i < exclude.offsets[row + 1]; ++i) sums",
        "i < exclude.offsets[row + 1] - 1; ++i) sums",
    ),
    (
        "the first row's exclusion serves every row",
        "int64_t i = exclude.offsets[row]; i < exclude.offsets[row + 1]; ++i) sums",
        "int64_t i = exclude.offsets[0]; i < exclude.offsets[1]; ++i) sums",
    ),
    (
        "sorting loses the order of an object's edges",
        "std::sort(keys, keys + visits);",
        "std::sort(keys, keys + visits, [](uint64_t i, uint64_t j) { return i >> 32 != j >> 32 ? i < j : i > j; });",
    ),
    (
        "sorting skips the excluded entity it looks for",
        "*excluded < object) ++excluded;",
        "*excluded <= object) ++excluded;",
    ),
    ("sorting's workers share one scratch", "scratch.sorting + worker * stride", "scratch.sorting + 0 * stride"),
    (
        "accumulating workers share one accumulator",
        "scratch.accumulators + worker * follow_accumulator_bytes",
        "scratch.accumulators + 0 * worker * follow_accumulator_bytes",
    ),
    ("sorting's scratch has no room for values", "max_edges * (8 + value_bytes)", "max_edges * 8"),
    ("a row gets no spare place", "std::min(edges, graph.num_entities) + 1;", "std::min(edges, graph.num_entities);"),
    ("max_edges is that of the last row", "*max_edges = std::max(*max_edges, edges);", "*max_edges = edges;"),
    ("a prefetch reads behind the members", "if (member >= sets.offsets[sets.batch]) return;", ""),
    (
        "a chunk's first row starts at the end of the one before",
        "output.bounds[row] - output.bounds[first], count = 0;",
        "output.bounds[row], count = 0;",
    ),
    ("a later chunk is as large as all before it", "return offsets[last] - offsets[first];", "return offsets[last];"),
    (
        "later chunks are copied behind their place",
        "output.offsets[row] - output.offsets[first], count",
        "output.offsets[row], count",
    ),
    (
        "copying drops the last member of a row",
        "std::copy_n(output.weights + room, count,",
        "std::copy_n(output.weights + room, count - 1,",
    ),
]

_BACKWARD = [
    (
        "edge weights are forgotten in the gradient",
        "arriving * weights.edges[edge] : arriving;",
        "arriving : arriving;",
    ),
    (
        "a hub's edges all count for its first relation",
        "hub && edge < end && graph.relations[edge] == relation",
        "hub && edge < end",
    ),
    (
        "a hub's last run goes on into the next subject",
        "hub && edge < end && graph.relations",
        "hub && graph.relations",
    ),
    (
        "the gradient to x is that of the last run",
        "to_member += of_relation[relation] * sum;",
        "to_member = of_relation[relation] * sum;",
    ),
    (
        "the gradient to w is that of the last edge",
        "to_relation[relation] += x * sum;",
        "to_relation[relation] = x * sum;",
    ),
    ("the gradient to w forgets x", "to_relation[relation] += x * sum;", "to_relation[relation] += sum;"),
    (
        "the gradient to w goes to the first row",
        "grad_relations + row * graph.num_relations",
        "grad_relations + 0 * row",
    ),
    ("the gradient to w is not cleared first", "std::fill(to_relation, to_relation + graph.num_relations, T(0));", ""),
    ("the table of gradients is not cleared", "++entity) table_->remove(*entity);", "++entity) (void)*entity;"),
    ("the search takes the next object's gradient", "found != end_ && *found == object ?", "found != end_ ?"),
    ("the gradient to c forgets x", "grad_edges[edge] += x * of_relation", "grad_edges[edge] += of_relation"),
    ("the gradient to c is that of the last row", "grad_edges[edge] += x", "grad_edges[edge] = x"),
    (
        "the gradient to c misses the last subject",
        "part == scratch.num_workers\n               ? graph.num_entities",
        "part == scratch.num_workers\n               ? graph.num_entities - 1",
    ),
    (
        "the gradient to c misses a worker's first subject",
        "std::lower_bound(begin, end, first) - sets.entities;",
        "std::upper_bound(begin, end, first) - sets.entities;",
    ),
]

_PULL = [
    ("a chunk starts where the one before did", "start += count;", "start = count;"),
    (
        "relation weights stand in the wrong lane",
        "of_relation[row - rows_.first] =",
        "of_relation[rows_.last - 1 - row] =",
    ),
    (
        "relation weights have the stride of 4 lanes",
        "incoming_.relations[i] * static_cast<int64_t>(kLanes)",
        "incoming_.relations[i] * static_cast<int64_t>(4)",
    ),
    ("exclusion is ignored", "&= static_cast<uint16_t>(~(1u << (row - rows_.first)));", "&= 0xffff;"),
    (
        "memberships are not cleared first",
        "std::memset(block_.in + entities.first, 0,",
        "std::memset(block_.in + entities.first, 0, 0 *",
    ),
    (
        "weights are not cleared first",
        "std::fill(block_.x + entities.first * kLanes, block_.x + entities.last * kLanes, T(0));",
        "",
    ),
    (
        "a chunk misses its last entity",
        "std::lower_bound(begin, end, range.last) - sets.entities",
        "std::lower_bound(begin, end, range.last - 1) - sets.entities",
    ),
    (
        "the last entity is no object",
        "std::min((chunk + 1) * kChunk, graph_.num_entities)}",
        "std::min((chunk + 1) * kChunk, graph_.num_entities - 1)}",
    ),
    ("every lane counts the first lane's members", "reached >> lane & 1", "reached & 1"),
    ("edge weights are taken in the order by object", "weights_.edges[incoming_.edges[i]]", "weights_.edges[i]"),
    ("edge weights meet relation weights first", "x[lane] * w[lane] * c", "x[lane] * (w[lane] * c)"),
    (
        "an object's edges are summed backwards",
        "for (int64_t i = incoming_.offsets[object], end = incoming_.offsets[object + 1]; i < end; ++i) {",
        "for (int64_t i = incoming_.offsets[object + 1] - 1, end = incoming_.offsets[object]; i >= end; --i) {",
    ),
    (
        "an object's last edge is not seen",
        "i < incoming_.offsets[object + 1]; ++i) {\n        reached",
        "i < incoming_.offsets[object + 1] - 1; ++i) {\n        reached",
    ),
    ("the last block goes on behind the batch", "std::min(row + lanes, last)", "row + lanes"),
    (
        "a later chunk is written behind its room",
        "output.bounds[rows_.first + lane] - room +",
        "output.bounds[rows_.first + lane] +",
    ),
    ("a prefetch reads behind the edges", "if (i < num_edges_) prefetch", "prefetch"),
]

_SETS = [
    ("a's member comes first among equals", "a.entities[i] < b.entities[j]", "a.entities[i] <= b.entities[j]"),
    ("an intersection holds all of a", "if (how != Merge::kIntersection) emit", "emit"),
    ("a union lacks what only b has", "if (how == Merge::kUnion) emit(b.entities[j], int64_t{-1}, j);", ""),
    (
        "what only b has is said to be in a",
        "emit(b.entities[j], int64_t{-1}, j);",
        "emit(b.entities[j], j, int64_t{-1});",
    ),
    (
        "a difference keeps what both have",
        "if (how != Merge::kDifference) emit(a.entities[i], i, j);",
        "emit(a.entities[i], i, j);",
    ),
    (
        "a row's last member of b is not seen",
        "end_b = b.offsets[row + 1];",
        "end_b = b.offsets[row + 1] - (j < b.offsets[row + 1]);",
    ),
    (
        "each task misses its last row",
        "std::min((task + 1) * kRows, batch); ++row",
        "std::min((task + 1) * kRows - 1, batch); ++row",
    ),
    ("the last task is missing", "(batch + kRows - 1) / kRows", "batch / kRows"),
    ("the first row starts anywhere", "  offsets[0] = 0;\n", ""),
    ("top: the larger id first among equals", "return i < j;", "return i > j;"),
    ("top: the smallest weights", "return weights[i] > weights[j];", "return weights[i] < weights[j];"),
    ("top: NaN last", "if (nan_i != nan_j) return nan_i;", "if (nan_i != nan_j) return nan_j;"),
    ("top: one too many is not cut", "if (kept < end - begin)", "if (kept + 1 < end - begin)"),
    ("top: members in the order of their weights", "std::sort(begin, begin + kept);", ""),
]

_GRAPH = [
    (
        "edge ids count from the end",
        "if (edge_ids) edge_ids[place] = i;",
        "if (edge_ids) edge_ids[place] = triples.count - 1 - i;",
    ),
    (
        "an inverse has its edge's relation",
        "out_relations[place] = graph.relations[e] + shift;",
        "out_relations[place] = graph.relations[e];",
    ),
    (
        "an inverse leads to itself",
        "out_objects[place] = static_cast<int32_t>(subject);",
        "out_objects[place] = static_cast<int32_t>(object);",
    ),
    (
        "an inverse has no id of its edge",
        "if (out_ids) out_ids[place] = edge_ids[e];",
        "if (out_ids) out_ids[place] = e;",
    ),
    ("by object, an edge is its place", "if (edges) edges[place] = e;", "if (edges) edges[place] = place;"),
    ("removed edges stay", "if (r == r_stop || !equal(removed, r, graph, g)) emit(false, g);", "emit(false, g);"),
    ("removal misses an edge behind the first", "while (r < r_stop && before(removed, r, graph, g)) ++r;", ""),
    (
        "an edge added again stands twice",
        "emit(false, g++);  // it was there, and stays itself\n      ++a;",
        "emit(false, g++);",
    ),
    (
        "a prefetch reads behind the triples",
        "if (i + kAhead < triples.count) prefetch(row_offsets",
        "prefetch(row_offsets",
    ),
    (
        "the last subject has no thread",
        "if (range == count) return num_entities;",
        "if (range == count) return num_entities - 1;",
    ),
    ("compacting leaves a row's start behind", "    start = stop;\n", "    start = kept;\n"),
    ("negative ids pass", "static_cast<uint64_t>(id) >= static_cast<uint64_t>(size)", "id >= size"),
    (
        "check: the last row may fall",
        "if (offsets[num_entities] != num_edges) return",
        "if (offsets[num_entities] < num_edges) return",
    ),
    (
        "check: the same edge twice passes",
        "if (!before(graph, e - 1, graph, e))",
        "if (before(graph, e, graph, e - 1))",
    ),
    (
        "check: the inverse of another relation passes",
        "own -= mix(mix(object << 32 | subject) + relation - half);",
        "own -= mix(mix(object << 32 | subject) + relation % 1);",
    ),
]

_ROWS = [
    ("edges of two relations to one object are merged", "row.relations[i] == row.relations[kept - 1] && row", "row"),
    ("long rows are not sorted by relation", "shift < static_cast<int>(std::bit_width(max_relation))", "shift < 0"),
    (
        "long rows are sorted by eleven bits of the object",
        "shift < static_cast<int>(std::bit_width(max_object))",
        "shift < kDigitBits",
    ),
    ("long rows may stay in the scratch", "if (from.objects != home.objects) {", "if (false) {"),
]

_NAMES = [
    (
        "names of one length are one",
        "return table.offsets[id + 1] - start == name.length && std::memcmp",
        "return table.offsets[id + 1] - start == name.length || std::memcmp",
    ),
    (
        "a name's end is not hashed with its length",
        "return table.offsets[id + 1] - start == name.length && ",
        "return ",
    ),
    ("a full table is not seen", "3 * (size + 1) <= 2 * table.num_slots", "size < table.num_slots + 1"),
    (
        "rehashing does not wrap",
        "while (slots[at] != kEmpty) at = (at + 1) & mask;",
        "while (slots[at] != kEmpty) ++at;",
    ),
    (
        "the last of several ids comes first",
        "for (int64_t id = table.size[0] - 1; id >= 0; --id) {",
        "for (int64_t id = 0; id < table.size[0]; ++id) {",
    ),
    ("a carriage return stays", "if (length && text[start + length - 1] == '\\r') --length;", ""),
    ("four fields pass", "if (count != 3) return kWrongFields;", "if (count < 3) return kWrongFields;"),
    ("an empty field passes", "if (ends[field] == start) return kEmptyField;", ""),
    ("overlong UTF-8 passes", "if (overlong || point > 0x10FFFF", "if (point > 0x10FFFF"),
    ("surrogates pass", "(point >= 0xD800 && point < 0xE000)", "(point >= 0xD800 && point < 0xD800)"),
    ("a line without an end is dropped", "if (end == nullptr && !last) {", "if (end == nullptr) {"),
]

_ANNOTATORS = [
    (
        "the last item of a share is not counted",
        "item < end; ++item) {\n      result",
        "item + 1 < end; ++item) {\n      result",
    ),
    ("earlier counts are forgotten", "share == 0 ? std::copy_n(before, size, table) : std::fill_n", "std::fill_n"),
    (
        "the second share is not added",
        "for (int64_t share = 1; share < shares;",
        "for (int64_t share = 2; share < shares;",
    ),
    ("each share is counted in the first table", "workspace + share * stride;", "workspace;"),
    ("smoothing is not in the sum", "total += counts[l * stride] + smoothing;", "total += counts[l * stride];"),
    ("what has no count is nan", "total > 0 ? (counts", "total >= 0 ? (counts"),
    (
        "the prior is smoothed",
        "divide(counts + at, num_classes, 1, 0,",
        "divide(counts + at, num_classes, 1, smoothing,",
    ),
    ("softmax overflows", "std::exp(logits[k] - highest)", "std::exp(logits[k])"),
    ("evidence is ignored", "if (evidence != nullptr) {", "if (false) {"),
    ("the prior is ignored", "std::copy_n(log_prior, classes, logits);", "std::fill_n(logits, classes, 0.0);"),
    ("the change is that of the last class", "change = std::max(change, std::fabs(", "change = (std::fabs("),
]

MUTANTS = [
    Mutant(name, file, old, new)
    for file, mutants in (
        ("traversal.cpp", _PUSH + _BACKWARD),
        ("traversal_pull.cpp", _PULL),
        ("entity_sets.cpp", _SETS),
        ("graph_build.cpp", _GRAPH),
        ("row_sort.h", _ROWS),
        ("names.cpp", _NAMES),
        ("annotators.cpp", _ANNOTATORS),
        *TRANSLATION,
        *GATING,
    )
    for name, old, new in mutants
]
