"""The faults seeded into gated blocks: (name, text, faulty text) by file."""

from __future__ import annotations

_ATTENTION = [
    ("the last key of a packing is zeros", "j < num_keys ? from[d] : T{0}", "j + 1 < num_keys ? from[d] : T{0}"),
    ("values are packed without their stride", "values.values + j * values.stride;", "values.values + j * head_dim;"),
    ("keys are packed without their stride", "keys.values + j * keys.stride;", "keys.values + j * head_dim;"),
    (
        "the last panel has no scores",
        "panel * kPanel<T> < last; ++panel)",
        "(panel + 1) * kPanel<T> < last; ++panel)",
    ),
    ("every query of a group is the first", "all(queries[r * stride + d])", "all(queries[d])"),
    ("the upper half of a panel is the lower", "load(keys + d * kPanel<T> + kLanes<T>)", "load(keys + d * kPanel<T>)"),
    (
        "scores are not scaled",
        "store(to + r * packed.width(), low[r] * all(scale));",
        "store(to + r * packed.width(), low[r]);",
    ),
    (
        "the upper half of a panel is not scaled",
        "kLanes<T>, high[r] * all(scale));",
        "kLanes<T>, high[r]);",
    ),
    ("softmax overflows", "exponential(scores[j] - highest);", "exponential(scores[j]);"),
    ("the highest score is the first", "highest = scores[j] > highest ? scores[j] : highest;", "highest = scores[0];"),
    ("the sum misses its rest", "return 1 / (sum<T>(total) + rest);", "return 1 / sum<T>(total);"),
    ("weights are not divided by their sum", "totals[r][v] * all(ranges[r].share);", "totals[r][v];"),
    (
        "keys before the shared ones are left out",
        "for (int r = 0; r < kRows; ++r) add(r, ranges[r].start, std::min(ranges[r].end, shared_start));",
        "",
    ),
    (
        "keys behind the shared ones are left out",
        "add(r, std::max(std::max(shared_start, shared_end), ranges[r].start), ranges[r].end);",
        "",
    ),
    (
        "ranges that share no key are added twice",
        "std::max(std::max(shared_start, shared_end), ranges[r].start)",
        "std::max(shared_end, ranges[r].start)",
    ),
    (
        "the shared keys are those of any query",
        "shared_end = std::min(shared_end, ranges[r].end);",
        "shared_end = std::max(r == 0 ? 0 : shared_end, ranges[r].end);",
    ),
    (
        "a row's last values overwrite the next head",
        "if (left >= kLanes<T>) {",
        "if (true) {",
    ),
    (
        "the last vector of a row is left out",
        "for (; d < row; d += kLanes<T>) weigh<1, kRows>",
        "for (; d + kLanes<T> < row; d += kLanes<T>) weigh<1, kRows>",
    ),
    (
        "there is no room for scores",
        "(head_dim + round_up(head_dim, kLanes<float>) + kGroup)",
        "(head_dim + round_up(head_dim, kLanes<float>))",
    ),
    (
        "there is room for the first chunk's keys alone",
        "from < num_queries; from += kChunk)",
        "from < std::min<int64_t>(num_queries, 1); from += kChunk)",
    ),
    ("queries without keys get a key", "if (start >= end) {", "if (start > end) {"),
    (
        "a query's weights are those of its group's first",
        "T* scores = packed.scores + r * packed.width();",
        "T* scores = packed.scores;",
    ),
    ("a group's outputs go to its first", "scores, share, out + r * out_stride};", "scores, share, out};"),
    (
        "softmax starts at the packing's first key",
        "exponentiate(scores + (start - packed.first), end - start)",
        "exponentiate(scores, end - start)",
    ),
    (
        "the queries behind the groups are left out",
        "for (; query < to; ++query) attend_group<1>",
        "for (; query + 1 < to; ++query) attend_group<1>",
    ),
    ("every head is the first", "const int64_t at_head = task % num_heads * head_dim;", "const int64_t at_head = 0;"),
    (
        "values are those of the keys before the span",
        "values.values + span.first * values.stride + at_head",
        "values.values + at_head",
    ),
]

_LOGITS = [
    (
        "the last row of a task has no logit",
        "i < end; ++i) {\n      const Normalised",
        "i + 1 < end; ++i) {\n      const Normalised",
    ),
    ("the bias is forgotten", "logits[i] = sum<T>(product) + *bias;", "logits[i] = sum<T>(product);"),
    (
        "the first row of a task has no logit",
        "int64_t i = task * kRowsTask; i < end;",
        "int64_t i = task * kRowsTask + (task > 0); i < end;",
    ),
]

_ROWS = [
    ("the rest of a row is not read", "if (rest > 0) body([rest]", "if (rest > 1) body([rest]"),
    (
        "variance is about 0",
        "const Lanes<T> centred = load(row + i) - all(mean_);",
        "const Lanes<T> centred = load(row + i);",
    ),
    (
        "variance misses the rest",
        "T variance = sum<T>(squares);\n    for (int64_t i = whole; i < dim; ++i)",
        "T variance = sum<T>(squares);\n    for (int64_t i = whole; i < whole; ++i)",
    ),
    ("epsilon is 0", "variance / static_cast<T>(dim) + static_cast<T>(norm.epsilon)", "variance / static_cast<T>(dim)"),
    ("the norm's bias is forgotten", "return bias_ == nullptr ? value : value + read(bias_ + i);", "return value;"),
]

_STREAMS = [
    (
        "the rest of a row of weights is not multiplied",
        "each_vector<T>(num_inputs,",
        "each_vector<T>(num_inputs / kLanes<T> * kLanes<T>,",
    ),
    ("the bias is forgotten", "sum<T>(totals[o][s]) + bias;", "sum<T>(totals[o][s]);"),
    (
        "the last outputs of a share are left out",
        "for (; output < end; ++output) multiply_streams<1>",
        "for (; false; ++output) multiply_streams<1>",
    ),
    ("the last share of outputs is left out", "(num_outputs + threads - 1) / threads;", "num_outputs / threads;"),
    ("relu leaves negative values", "values[i] < 0 ? T{0} : values[i];", "values[i];"),
    ("scores are not scaled", "keys + slots[i] * dim, head_dim) * scale;", "keys + slots[i] * dim, head_dim);"),
    (
        "the maximum is not taken off, and scores overflow",
        "exponential(scores[i] - highest);",
        "exponential(scores[i] * 40);",
    ),
    ("weights do not add up to one", "const T weight = scores[i] / total,", "const T weight = scores[i],"),
    ("frames that are not finite open gates", "gates[s] = finite[s] && logit", "gates[s] = logit"),
    ("the threshold is 0", "logit > *arbiter.threshold &&", "logit > 0 &&"),
    ("the arbitrator does not hear", "if (arbiter.acoustic != nullptr) {", "if (false) {"),
    ("the arbitrator does not see", "if (arbiter.own != nullptr) logit +=", "if (false) logit +="),
    ("the arbitrator's bias is forgotten", "T logit = *arbiter.bias;", "T logit = 0;"),
    ("frames that are off offer keys", "(sizes_.all_keys ? finite[s] : gates[s]) others.add", "(finite[s]) others.add"),
    ("keys of closed gates are stored", "if (!(sizes_.all_keys ? finite[s] : gates[s])) continue;", ""),
    ("values are keys", "std::copy_n(keys + dim, dim, state_.values", "std::copy_n(keys, dim, state_.values"),
    ("the ring is not told which frame it holds", "state_.frames[slot] = frame;", ""),
    ("the window is a frame too wide", "frame - window + 1); f <= frame", "frame - window); f <= frame"),
    ("the window is a frame too narrow", "frame - window + 1); f <= frame", "frame - window + 2); f <= frame"),
    ("old frames are seen", "if (state_.frames[s * window + f % window] == f) slots", "slots"),
    (
        "streams share a ring",
        "const int64_t at = s * window * dim + head * head_dim;",
        "const int64_t at = head * head_dim;",
    ),
    ("there is no residual", "update[d] += frame[d];", "update[d] += 0;"),
    (
        "the norm after the residual is left out",
        "normalise(update, norm, frame, dim);",
        "std::copy_n(update, dim, frame);",
    ),
    ("an infinite frame is finite", "total += row[d];", "total += 0;"),
    ("positions stand still", "++state.positions[s];", ""),
    ("blocks share a ring", "state.frames + i * slots, state.positions", "state.frames, state.positions"),
    ("scratch is too small", "sizes.num_heads * sizes.window;", "sizes.window;"),
]


GATING = [("gating.cpp", [*_ATTENTION, *_LOGITS]), ("rows.h", _ROWS), ("streaming.cpp", _STREAMS)]
