#include <algorithm>
#include <bit>
#include <utility>

#include "mix.h"
#include "translation_known.h"
#include "translation_training.h"

namespace tercet {

namespace {

constexpr int kDigitBits = 11;

uint64_t bits(uint64_t base, int64_t slot, int attempt) {
  return mix(base + static_cast<uint64_t>(slot) * 64 + static_cast<uint64_t>(attempt));
}

// Negatives of a positive with its own.
void draw_own(const Sampling& sampling, uint64_t base, const int32_t* triple, int64_t num_negatives, int32_t num_tails,
              int32_t* negatives) {
  for (int64_t k = 0; k < num_negatives; ++k) {
    const bool tail = k < num_tails;
    const uint64_t others = static_cast<uint64_t>(sampling.num_entities - 1);
    const int32_t replaced = triple[tail ? 2 : 0];
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      const int32_t other = static_cast<int32_t>((bits(base, k, attempt) >> 32) * others >> 32);
      negatives[k] = other + (other >= replaced);
      if (!sampling.known || !is_known(*sampling.known, triple, tail, negatives[k])) break;
    }
  }
}

void draw(const Batches& batches, const Sampling& sampling, int64_t batch) {
  const int64_t num_chunks = batches.num_chunks(), num_negatives = batches.num_negatives;
  for (int64_t c = 0; c < num_chunks; ++c) {
    const int64_t place = batch * num_chunks + c;
    const uint64_t base = mix(sampling.key + static_cast<uint64_t>(sampling.first_position + place));
    const int32_t* triple = batches.triples + (batch * batches.size + c * batches.chunk_size) * 3;
    int64_t tails = num_negatives / 2;
    if (sampling.tail_probability) {
      const double limit = sampling.tail_probability[triple[1]] * 4294967296.0;
      tails = 0;
      for (int64_t k = 0; k < num_negatives; ++k) tails += static_cast<uint32_t>(bits(base, k, 0)) < limit;
    } else if (num_negatives % 2) {
      tails += static_cast<uint32_t>(bits(base, num_negatives, 0)) < 1u << 31;
    }
    batches.num_tails[place] = static_cast<int32_t>(tails);
    int32_t* negatives = batches.negatives + place * num_negatives;
    if (batches.chunk_size == 1) {
      draw_own(sampling, base, triple, num_negatives, static_cast<int32_t>(tails), negatives);
    } else {
      const uint64_t entities = static_cast<uint64_t>(sampling.num_entities);
      for (int64_t k = 0; k < num_negatives; ++k) {
        negatives[k] = static_cast<int32_t>((bits(base, k, 0) >> 32) * entities >> 32);
      }
    }
  }
}

// Sorts entries, which ascend by their low half, by the high half: stable passes from the lowest digit on.
void sort_entries(int64_t* entries, int64_t count, int64_t* scratch, uint64_t largest_row) {
  int64_t *from = entries, *to = scratch;
  for (int shift = 32; shift < 32 + static_cast<int>(std::bit_width(largest_row)); shift += kDigitBits) {
    int64_t starts[1 << kDigitBits] = {};
    const auto digit = [shift](int64_t entry) { return entry >> shift & ((1 << kDigitBits) - 1); };
    for (int64_t i = 0; i < count; ++i) ++starts[digit(from[i])];
    int64_t sum = 0;
    for (int64_t& start : starts) sum += std::exchange(start, sum);
    for (int64_t i = 0; i < count; ++i) to[starts[digit(from[i])]++] = from[i];
    std::swap(from, to);
  }
  if (from != entries) std::copy(from, from + count, entries);
}

void schedule(const Batches& batches, int64_t batch, uint64_t num_entities, int64_t* scratch) {
  const int64_t size = batches.size, slots = batches.num_chunks() * batches.num_negatives;
  const int32_t* triples = batches.triples + batch * size * 3;
  const int32_t* negatives = batches.negatives + batch * slots;
  int64_t* entities = batches.entity_entries + batch * batches.num_entries();
  int64_t* relations = batches.relation_entries + batch * size;
  const auto entry = [](int64_t row, int64_t place) { return row << 32 | place; };
  uint64_t largest_relation = 0;
  for (int64_t p = 0; p < size; ++p) {
    entities[p] = entry(triples[3 * p], p);
    entities[size + p] = entry(triples[3 * p + 2], size + p);
    relations[p] = entry(triples[3 * p + 1], p);
    largest_relation = std::max(largest_relation, static_cast<uint64_t>(triples[3 * p + 1]));
  }
  for (int64_t i = 0; i < slots; ++i) entities[2 * size + i] = entry(negatives[i], 2 * size + i);
  sort_entries(entities, batches.num_entries(), scratch, num_entities - 1);
  sort_entries(relations, size, scratch, largest_relation);
}

}  // namespace

void sample_batches(const Batches& batches, const Sampling& sampling, void* scratch, int num_threads) {
  parallel_for(batches.num_batches, num_threads, [&](int64_t batch, int worker) {
    draw(batches, sampling, batch);
    schedule(batches, batch, static_cast<uint64_t>(sampling.num_entities),
             static_cast<int64_t*>(scratch) + worker * batches.num_entries());
  });
}

}  // namespace tercet
