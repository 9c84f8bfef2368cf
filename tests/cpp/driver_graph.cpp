// graph_build and names over random and broken shapes, against naive code.
#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "check.h"
#include "graph_build.h"
#include "names.h"

namespace {

using namespace tercet;
using Triple = std::tuple<int64_t, int64_t, int64_t>;

// A graph whose arrays are exactly as long as promised, so that the sanitizers see every step beyond.
struct Built {
  std::vector<int64_t> row_offsets, ids;
  std::vector<int32_t> relations, objects;
  int64_t num_relations = 0;

  int64_t num_entities() const { return static_cast<int64_t>(row_offsets.size()) - 1; }
  int64_t num_edges() const { return static_cast<int64_t>(objects.size()); }
  Graph graph() const { return {row_offsets.data(), relations.data(), objects.data(), num_entities(), num_relations}; }
  std::vector<Triple> triples() const {
    std::vector<Triple> all;
    for (int64_t s = 0; s < num_entities(); ++s) {
      for (int64_t e = row_offsets[s]; e < row_offsets[s + 1]; ++e) all.emplace_back(s, relations[e], objects[e]);
    }
    return all;
  }
  bool operator==(const Built& other) const {
    return row_offsets == other.row_offsets && relations == other.relations && objects == other.objects &&
           ids == other.ids;
  }
};

std::vector<Triple> random_triples(std::mt19937_64& random, int64_t count, int64_t entities, int64_t relations) {
  std::vector<Triple> triples(entities && relations ? count : 0);
  const bool hub = random() % 2;
  for (size_t i = 0; i < triples.size(); ++i) {
    const int64_t head = hub && i % 2 ? entities / 2 : random() % entities;
    triples[i] = {head, random() % relations, hub && i % 3 ? 0 : random() % entities};
  }
  return triples;
}

Built build(const std::vector<Triple>& triples, int64_t entities, int64_t relations, bool with_ids, int threads) {
  std::vector<int64_t> heads;
  std::vector<int32_t> pairs;  // relation and tail in turns, read at stride 2
  for (const auto& [h, r, t] : triples) {
    heads.push_back(h);
    pairs.insert(pairs.end(), {static_cast<int32_t>(r), static_cast<int32_t>(t)});
  }
  const int64_t count = triples.size();
  const Triples input{
      {heads.data(), 1, true}, {pairs.data(), 2, false}, {pairs.data() + (count ? 1 : 0), 2, false}, count};
  CHECK(check_triples(input, entities, relations, threads).code == kFine);
  Built out;
  out.num_relations = relations;
  out.row_offsets.resize(entities + 1);
  const int64_t largest = build_offsets(input, entities, out.row_offsets.data(), threads);
  out.relations.resize(count);
  out.objects.resize(count);
  out.ids.resize(with_ids ? count : 0);
  std::vector<int64_t> scratch(threads * largest * (with_ids ? 2 : 1));
  const int64_t kept =
      build_edges(input, entities, relations, out.row_offsets.data(), out.relations.data(), out.objects.data(),
                  with_ids ? out.ids.data() : nullptr, largest, threads, scratch.data(), threads);
  out.relations.resize(kept);
  out.objects.resize(kept);
  if (with_ids) out.ids.resize(kept);
  return out;
}

Built inverted(const Built& from, int threads) {
  Built out;
  const int64_t edges = from.num_edges();
  out.num_relations = 2 * from.num_relations;
  out.row_offsets.resize(from.num_entities() + 1);
  const int64_t largest = inverse_offsets(from.graph(), edges, out.row_offsets.data(), threads);
  out.relations.resize(2 * edges);
  out.objects.resize(2 * edges);
  out.ids.resize(2 * from.ids.size());
  std::vector<int64_t> scratch(2 * threads * largest);
  const bool ids = !from.ids.empty();
  inverse_edges(from.graph(), ids ? from.ids.data() : nullptr, out.row_offsets.data(), out.relations.data(),
                out.objects.data(), ids ? out.ids.data() : nullptr, largest, threads, scratch.data(), threads);
  return out;
}

void check_build(std::mt19937_64& random, const std::vector<Triple>& triples, int64_t entities, int64_t relations) {
  std::map<Triple, int64_t> first;
  for (size_t i = 0; i < triples.size(); ++i) first.emplace(triples[i], i);
  const Built built = build(triples, entities, relations, true, 1);
  std::vector<Triple> keys;
  std::vector<int64_t> ids;
  for (const auto& [key, id] : first) keys.push_back(key), ids.push_back(id);
  CHECK(built.triples() == keys && built.ids == ids);
  for (int threads : kThreadCounts) {
    CHECK(build(triples, entities, relations, true, threads) == built);
    CHECK(build(triples, entities, relations, false, threads).triples() == keys);
    CHECK(check_graph(built.graph(), built.num_edges(), false, threads).code == kFine);
  }

  std::map<Triple, int64_t> both = first;
  for (const auto& [key, id] : first) both[{std::get<2>(key), std::get<1>(key) + relations, std::get<0>(key)}] = id;
  keys.clear(), ids.clear();
  for (const auto& [key, id] : both) keys.push_back(key), ids.push_back(id);
  for (int threads : kThreadCounts) {
    Built inverse = inverted(built, threads);
    CHECK(inverse.triples() == keys && inverse.ids == ids);
    CHECK(check_graph(inverse.graph(), inverse.num_edges(), true, threads).code == kFine);
    if (inverse.num_edges() == 0) continue;
    Built broken = inverse;
    const int64_t at = random() % broken.num_edges();
    broken.objects[at] = static_cast<int32_t>(entities);
    CHECK(check_graph(broken.graph(), broken.num_edges(), true, threads).code == kBadTail);
    CHECK(check_graph(broken.graph(), broken.num_edges(), true, threads).position == at);
    broken = inverse;
    broken.relations[at] = -1;
    CHECK(check_graph(broken.graph(), broken.num_edges(), true, threads).code == kBadRelation);
    broken = inverse;
    broken.row_offsets[entities] += 1;
    CHECK(check_graph(broken.graph(), broken.num_edges(), true, threads).code == kBadOffset);
    broken = inverse;
    broken.row_offsets[random() % entities + 1] = INT64_MAX;
    CHECK(check_graph(broken.graph(), broken.num_edges(), true, threads).code == kBadOffset);
    CHECK(check_graph(built.graph(), built.num_edges(), true, threads).code == kNoInverses || relations % 2 == 0);
  }
}

void check_incoming(const Built& built) {
  const int64_t edges = built.num_edges(), entities = built.num_entities();
  const std::vector<Triple> triples = built.triples();
  std::vector<int64_t> order;
  for (int64_t object = 0; object < entities; ++object) {
    for (int64_t e = 0; e < edges; ++e) {
      if (built.objects[e] == object) order.push_back(e);
    }
  }
  for (int threads : kThreadCounts) {
    std::vector<int64_t> offsets(entities + 1), places(edges);
    std::vector<int32_t> subjects(edges), relations(edges);
    incoming_edges(built.graph(), edges, offsets.data(), subjects.data(), relations.data(), places.data(), threads);
    CHECK(places == order && offsets[0] == 0 && offsets[entities] == edges);
    for (int64_t i = 0; i < edges; ++i) {
      CHECK(subjects[i] == std::get<0>(triples[order[i]]) && relations[i] == std::get<1>(triples[order[i]]));
      CHECK(offsets[built.objects[order[i]]] <= i && i < offsets[built.objects[order[i]] + 1]);
    }
    incoming_edges(built.graph(), edges, offsets.data(), subjects.data(), relations.data(), nullptr, threads);
  }
}

void check_merge(const Built& graph, const Built& added, const Built& removed) {
  std::map<Triple, int64_t> wanted;
  const auto put = [&](const Built& from) {
    const std::vector<Triple> triples = from.triples();
    for (size_t i = 0; i < triples.size(); ++i) wanted.emplace(triples[i], from.ids[i]);
  };
  const std::vector<Triple> gone = removed.triples(), back = added.triples();
  put(graph);
  for (const Triple& triple : gone) {
    if (!std::binary_search(back.begin(), back.end(), triple)) wanted.erase(triple);
  }
  put(added);
  for (int threads : kThreadCounts) {
    Built out;
    out.row_offsets.resize(graph.num_entities() + 1);
    merge_offsets(graph.graph(), added.graph(), removed.graph(), out.row_offsets.data(), threads);
    out.relations.resize(out.row_offsets.back());
    out.objects.resize(out.row_offsets.back());
    out.ids.resize(out.row_offsets.back());
    merge_edges(graph.graph(), graph.ids.data(), added.graph(), added.ids.data(), removed.graph(),
                out.row_offsets.data(), out.relations.data(), out.objects.data(), out.ids.data(), threads);
    std::vector<Triple> keys;
    std::vector<int64_t> ids;
    for (const auto& [key, id] : wanted) keys.push_back(key), ids.push_back(id);
    CHECK(out.triples() == keys && out.ids == ids);
  }
}

void check_bad_triples(std::mt19937_64& random) {
  std::vector<int32_t> ids(1 + random() % 3000, 0);
  const int64_t at = random() % ids.size();
  ids[at] = random() % 2 ? -1 : 7;
  const std::vector<int32_t> good(ids.size(), 0);
  const Column bad{ids.data(), 1, false}, fine{good.data(), 1, false};
  const int64_t count = ids.size();
  for (int threads : kThreadCounts) {
    const Place head = check_triples({bad, fine, fine, count}, 7, 7, threads);
    const Place relation = check_triples({fine, bad, fine, count}, 7, 7, threads);
    const Place tail = check_triples({fine, fine, bad, count}, 7, 7, threads);
    CHECK(head.code == kBadHead && head.position == at);
    CHECK(relation.code == kBadRelation && relation.position == at);
    CHECK(tail.code == kBadTail && tail.position == at);
  }
}

// A name table that starts far too small and grows as its owner would grow it.
struct Growing {
  std::vector<uint8_t> blob = std::vector<uint8_t>(1);
  std::vector<int64_t> offsets = std::vector<int64_t>(2), slots = std::vector<int64_t>(2, -1), size = {0};

  NameTable table() {
    return {blob.data(),
            offsets.data(),
            slots.data(),
            static_cast<int64_t>(blob.size()),
            static_cast<int64_t>(offsets.size()) - 1,
            static_cast<int64_t>(slots.size()),
            size.data()};
  }
  void grow() {
    blob.resize(2 * blob.size());
    offsets.resize(2 * offsets.size());
    std::vector<int64_t> larger(2 * slots.size());
    rehash(slots.data(), slots.size(), larger.data(), larger.size());
    slots = larger;
  }
  std::string name(int64_t id) const { return {blob.begin() + offsets[id], blob.begin() + offsets[id + 1]}; }
};

std::string random_name(std::mt19937_64& random) {
  static const char* const kPieces[] = {"a", "b", "ä", "€", "😀", "word", "a longer piece"};
  std::string name = kPieces[random() % 7];
  while (random() % 3) name += kPieces[random() % 7];
  return name;
}

void check_text(std::mt19937_64& random) {
  std::string text;
  std::vector<std::array<std::string, 3>> lines;
  for (int64_t i = random() % 200; i > 0; --i) {
    lines.push_back({random_name(random), random_name(random), random_name(random)});
    for (int field = 0; field < 3; ++field)
      text += lines.back()[field] + (field < 2 ? "|" : random() % 2 ? "\r\n" : "\n");
    if (random() % 5 == 0) text += "\n";
  }
  if (random() % 2 && !text.empty() && !lines.empty()) text = text.substr(0, text.find_last_not_of("\r\n") + 1);
  Growing entities, relations;
  TextState state{};
  std::vector<int32_t> heads(1), kinds(1), tails(1);
  size_t start = 0;
  for (size_t stop = std::min<size_t>(text.size(), 10);;) {
    const std::vector<uint8_t> block(text.begin() + start, text.begin() + stop);
    const bool last = stop == text.size();
    const NamesStatus status = parse_lines(block.data(), block.size(), last, '|', entities.table(), relations.table(),
                                           heads.data(), kinds.data(), tails.data(), heads.size(), state);
    if (status == kGrowTriples) {
      for (auto* column : {&heads, &kinds, &tails}) column->resize(2 * column->size());
    } else if (status == kGrowEntities) {
      entities.grow();
    } else if (status == kGrowRelations) {
      relations.grow();
    } else {
      CHECK(status == kTextDone);
      start += state.position;
      state.position = 0;
      if (last) break;
      stop = std::min(text.size(), stop + 1 + random() % 40);
    }
  }
  CHECK(start == text.size() && state.num_triples == static_cast<int64_t>(lines.size()));
  for (size_t i = 0; i < lines.size(); ++i) {
    CHECK(entities.name(heads[i]) == lines[i][0] && relations.name(kinds[i]) == lines[i][1]);
    CHECK(entities.name(tails[i]) == lines[i][2]);
  }
  CHECK(check_names(entities.table(), entities.offsets[entities.size[0]], nullptr).code == kNamesFine);

  std::vector<uint8_t> broken(text.begin(), text.end());
  for (int64_t i = 1 + random() % 3; i > 0 && !broken.empty(); --i) broken[random() % broken.size()] = random() % 256;
  NamesStatus status;
  state = {};
  do {
    status = parse_lines(broken.data(), broken.size(), true, '|', entities.table(), relations.table(), heads.data(),
                         kinds.data(), tails.data(), heads.size(), state);
    if (status == kGrowEntities) entities.grow();
    if (status == kGrowRelations) relations.grow();
    if (status == kGrowTriples) heads.resize(2 * heads.size()), kinds.resize(heads.size()), tails.resize(heads.size());
  } while (status >= kGrowTriples && status <= kGrowRelations);
}

void check_names_kernels(std::mt19937_64& random) {
  std::vector<std::string> names(random() % 300);
  std::vector<int64_t> offsets{0};
  std::vector<uint8_t> blob;
  for (std::string& name : names) {
    name = random_name(random);
    blob.insert(blob.end(), name.begin(), name.end());
    offsets.push_back(blob.size());
  }
  const int64_t count = names.size();
  Growing growing;
  TextState state{};
  std::vector<int32_t> ids(count), next(count);
  while (intern_names(blob.data(), offsets.data(), count, growing.table(), ids.data(), state) == kGrowEntities) {
    growing.grow();
  }
  for (int64_t i = 0; i < count; ++i) CHECK(growing.name(ids[i]) == names[i]);

  std::vector<int64_t> slots(1024), size{count};
  const NameTable table{blob.data(), offsets.data(), slots.data(), static_cast<int64_t>(blob.size()),
                        count,       1024,           size.data()};
  const int64_t distinct = build_names(table, next.data());
  CHECK(distinct == growing.size[0]);
  CHECK(check_names(table, blob.size(), next.data()).code == kNamesFine);
  CHECK(distinct == count || check_names(table, blob.size(), nullptr).code != kNamesFine);
  for (const std::string& name : names) {
    const std::vector<uint8_t> bytes(name.begin(), name.end());
    std::vector<int64_t> found, wanted;
    for (int64_t id = find_name(table, bytes.data(), bytes.size()); id >= 0; id = next[id]) found.push_back(id);
    for (int64_t i = 0; i < count; ++i) {
      if (names[i] == name) wanted.push_back(i);
    }
    CHECK(found == wanted);
  }
  CHECK(find_name(table, nullptr, 0) == -1);
  // Whatever a file holds, checking it stays within its arrays.
  for (int64_t i = 0; i < 20 && count; ++i) {
    std::vector<int64_t> bad_offsets = offsets, bad_slots = slots;
    std::vector<int32_t> bad_next = next;
    std::vector<uint8_t> bad_blob = blob;
    const int64_t value = random() % 3 ? static_cast<int64_t>(random()) : static_cast<int64_t>(random() % 400) - 1;
    switch (random() % 4) {
      case 0:
        bad_offsets[random() % bad_offsets.size()] = value;
        break;
      case 1:
        bad_slots[random() % bad_slots.size()] = value;
        break;
      case 2:
        bad_next[random() % bad_next.size()] = static_cast<int32_t>(value);
        break;
      default:
        bad_blob[random() % bad_blob.size()] = static_cast<uint8_t>(value);
    }
    const NameTable bad{
        bad_blob.data(), bad_offsets.data(), bad_slots.data(), static_cast<int64_t>(blob.size()), count, 1024,
        size.data()};
    check_names(bad, blob.size(), bad_next.data());
  }
}

}  // namespace

void check_graph_kernels(uint64_t seed) {
  std::mt19937_64 random(seed);
  const int64_t entities = std::vector<int64_t>{0, 1, 3, 50, 5000}[random() % 5];
  const int64_t relations = std::vector<int64_t>{0, 1, 4, 3000}[random() % 4];
  const auto draw = [&](int64_t count) { return random_triples(random, count, entities, relations); };
  const std::vector<Triple> triples = draw(std::vector<int64_t>{0, 1, 30, 2000}[random() % 4]);
  check_build(random, triples, entities, relations);
  const Built built = build(triples, entities, relations, true, 2);
  if (entities <= 50) check_incoming(built);
  std::vector<Triple> gone = draw(20);
  gone.insert(gone.end(), triples.begin(), triples.begin() + triples.size() / 2);
  check_merge(built, build(draw(40), entities, relations, true, 1), build(gone, entities, relations, true, 1));
  check_bad_triples(random);
  check_text(random);
  check_names_kernels(random);
}
