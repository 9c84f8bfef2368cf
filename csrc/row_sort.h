// Sorting one row of edges by (relation, object), edge ids carried along, and merging its duplicates.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <utility>

namespace tercet {

// Rows from here on are sorted by radix: below it comparison sorting in the first-level cache is faster.
constexpr int64_t kRadixRow = 512;
constexpr int kDigitBits = 11;

struct Edges {
  int32_t* relations;  // [n]
  int32_t* objects;    // [n]
  int64_t* ids;        // [n] or null

  Edges at(int64_t start) const { return {relations + start, objects + start, ids ? ids + start : nullptr}; }
};

inline int64_t scratch_bytes(int64_t largest_row, bool with_ids) { return largest_row * (with_ids ? 16 : 8); }

namespace detail {

inline uint64_t key(int32_t relation, int32_t object) {
  return static_cast<uint64_t>(static_cast<uint32_t>(relation)) << 32 | static_cast<uint32_t>(object);
}

inline void sort_packed(Edges row, int64_t n, void* scratch) {
  uint64_t* keys = static_cast<uint64_t*>(scratch);
  for (int64_t i = 0; i < n; ++i) keys[i] = key(row.relations[i], row.objects[i]);
  std::sort(keys, keys + n);
  for (int64_t i = 0; i < n; ++i) {
    row.relations[i] = static_cast<int32_t>(keys[i] >> 32);
    row.objects[i] = static_cast<int32_t>(keys[i]);
  }
}

// Equal keys come in the order of their ids, so the first of a run of duplicates is the first triple.
inline void sort_packed_ids(Edges row, int64_t n, void* scratch) {
  using Keyed = std::pair<uint64_t, int64_t>;
  Keyed* keys = static_cast<Keyed*>(scratch);
  for (int64_t i = 0; i < n; ++i) keys[i] = {key(row.relations[i], row.objects[i]), row.ids[i]};
  std::sort(keys, keys + n);
  for (int64_t i = 0; i < n; ++i) {
    row.relations[i] = static_cast<int32_t>(keys[i].first >> 32);
    row.objects[i] = static_cast<int32_t>(keys[i].first);
    row.ids[i] = keys[i].second;
  }
}

// One stable counting pass by a digit of the relation or the object; false when all edges share the digit.
inline bool radix_pass(const Edges& from, const Edges& to, int64_t n, bool by_relation, int shift) {
  constexpr int kBuckets = 1 << kDigitBits;
  int64_t starts[kBuckets] = {};
  const int32_t* column = by_relation ? from.relations : from.objects;
  const auto digit = [shift](int32_t value) { return (static_cast<uint32_t>(value) >> shift) & (kBuckets - 1); };
  for (int64_t i = 0; i < n; ++i) ++starts[digit(column[i])];
  if (starts[digit(column[0])] == n) return false;
  int64_t sum = 0;
  for (int64_t& start : starts) sum += std::exchange(start, sum);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t place = starts[digit(column[i])]++;
    to.relations[place] = from.relations[i];
    to.objects[place] = from.objects[i];
    if (from.ids) to.ids[place] = from.ids[i];
  }
  return true;
}

// Between the row itself and the scratch, back and forth: the row's own storage is the second buffer.
inline void sort_radix(Edges row, int64_t n, uint64_t max_relation, uint64_t max_object, void* scratch) {
  int64_t* ids = row.ids ? static_cast<int64_t*>(scratch) : nullptr;
  int32_t* relations = reinterpret_cast<int32_t*>(static_cast<int64_t*>(scratch) + (row.ids ? n : 0));
  const Edges home = row;
  Edges from = row;
  Edges to{relations, relations + n, ids};
  for (int shift = 0; shift < static_cast<int>(std::bit_width(max_object)); shift += kDigitBits) {
    if (radix_pass(from, to, n, false, shift)) std::swap(from, to);
  }
  for (int shift = 0; shift < static_cast<int>(std::bit_width(max_relation)); shift += kDigitBits) {
    if (radix_pass(from, to, n, true, shift)) std::swap(from, to);
  }
  if (from.objects != home.objects) {
    std::memcpy(home.relations, from.relations, n * sizeof(int32_t));
    std::memcpy(home.objects, from.objects, n * sizeof(int32_t));
    if (home.ids) std::memcpy(home.ids, from.ids, n * sizeof(int64_t));
  }
}

}  // namespace detail

// Sorts a row in place. max_relation and max_object bound the ids; scratch: scratch_bytes(n, ids), 8-byte aligned.
// The ids of equal edges must ascend beforehand; they still do afterwards.
inline void sort_row(Edges row, int64_t n, uint64_t max_relation, uint64_t max_object, void* scratch) {
  if (n < 2) return;
  if (n >= kRadixRow) {
    detail::sort_radix(row, n, max_relation, max_object, scratch);
  } else if (row.ids) {
    detail::sort_packed_ids(row, n, scratch);
  } else {
    detail::sort_packed(row, n, scratch);
  }
}

// Moves the distinct edges of a sorted row to its front, the first of each; returns how many there are.
inline int64_t merge_duplicates(Edges row, int64_t n) {
  int64_t kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (kept && row.relations[i] == row.relations[kept - 1] && row.objects[i] == row.objects[kept - 1]) continue;
    row.relations[kept] = row.relations[i];
    row.objects[kept] = row.objects[i];
    if (row.ids) row.ids[kept] = row.ids[i];
    ++kept;
  }
  return kept;
}

}  // namespace tercet
