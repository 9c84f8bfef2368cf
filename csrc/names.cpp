#include "names.h"

#include <algorithm>
#include <cstring>

#include "mix.h"
#include "prefetch.h"

namespace tercet {
namespace {

constexpr int64_t kEmpty = -1;
constexpr int kBatchLines = 32;

uint64_t load(const uint8_t* bytes, int64_t count) {
  uint64_t word = 0;
  std::memcpy(&word, bytes, count);
  return word;
}

// Multiply and fold each eight bytes; the finish spreads every bit over the lower half, of which a slot is made.
uint64_t hash_name(const uint8_t* name, int64_t length) {
  constexpr uint64_t kFirst = 0x9E3779B97F4A7C15u, kSecond = 0xD6E8FEB86659FD93u;
  uint64_t hash = static_cast<uint64_t>(length) * kFirst;
  for (; length >= 8; name += 8, length -= 8) {
    hash = (hash ^ load(name, 8)) * kSecond;
    hash ^= hash >> 29;
  }
  if (length) hash = (hash ^ load(name, length)) * kSecond;
  hash ^= hash >> 32;
  hash *= kFirst;
  return hash ^ hash >> 31;
}

struct Name {
  const uint8_t* start;
  int64_t length;
  uint32_t tag;  // the part of the hash that a slot keeps

  Name(const uint8_t* text, int64_t size)
      : start(text), length(size), tag(static_cast<uint32_t>(hash_name(text, size))) {}
  Name() = default;
};

uint32_t tag_of(int64_t slot) { return static_cast<uint32_t>(static_cast<uint64_t>(slot) >> 32); }
int64_t id_of(int64_t slot) { return slot & 0x7FFFFFFF; }
int64_t slot_of(uint32_t tag, int64_t id) { return static_cast<int64_t>(static_cast<uint64_t>(tag) << 32) | id; }

bool is_name(const NameTable& table, int64_t id, const Name& name) {
  const int64_t start = table.offsets[id];
  return table.offsets[id + 1] - start == name.length && std::memcmp(table.blob + start, name.start, name.length) == 0;
}

// The slot that holds the name, or the empty one where it belongs.
int64_t probe(const NameTable& table, const Name& name) {
  const int64_t mask = table.num_slots - 1;
  for (int64_t at = name.tag & mask;; at = (at + 1) & mask) {
    const int64_t slot = table.slots[at];
    if (slot == kEmpty || (tag_of(slot) == name.tag && is_name(table, id_of(slot), name))) return at;
  }
}

bool has_room(const NameTable& table, int64_t length) {
  const int64_t size = table.size[0];
  return size < table.names_capacity && 3 * (size + 1) <= 2 * table.num_slots &&
         length <= table.blob_capacity - table.offsets[size];
}

// The name's id, appended when it is new; -1 when there is no room for it.
int64_t intern(const NameTable& table, const Name& name) {
  const int64_t at = probe(table, name);
  if (table.slots[at] != kEmpty) return id_of(table.slots[at]);
  if (!has_room(table, name.length)) return -1;
  const int64_t id = table.size[0]++, end = table.offsets[id];
  std::memcpy(table.blob + end, name.start, name.length);
  table.offsets[id + 1] = end + name.length;
  table.slots[at] = slot_of(name.tag, id);
  return id;
}

// Looking names up is waiting for memory: slot, offset and text of a whole batch are asked for one after another.
void prefetch_slot(const NameTable& table, const Name& name) {
  prefetch(table.slots + (name.tag & (table.num_slots - 1)));
}

int64_t likely_id(const NameTable& table, const Name& name) {
  const int64_t slot = table.slots[name.tag & (table.num_slots - 1)];
  return slot != kEmpty && tag_of(slot) == name.tag ? id_of(slot) : -1;
}

void prefetch_offset(const NameTable& table, const Name& name) {
  const int64_t id = likely_id(table, name);
  if (id >= 0) prefetch(table.offsets + id);
}

void prefetch_text(const NameTable& table, const Name& name) {
  const int64_t id = likely_id(table, name);
  if (id >= 0) prefetch(table.blob + table.offsets[id]);
}

struct Line {
  Name fields[3];
  int64_t start;   // in the text
  int64_t number;  // lines before it
};

// The line without its end; `next` becomes the start of the following line, or -1 when the line is not complete.
int64_t line_length(const uint8_t* text, int64_t start, int64_t size, bool last, int64_t& next) {
  const void* end = std::memchr(text + start, '\n', size - start);
  if (end == nullptr && !last) {
    next = -1;
    return 0;
  }
  int64_t length = end ? static_cast<const uint8_t*>(end) - (text + start) : size - start;
  next = start + length + (end != nullptr);
  if (length && text[start + length - 1] == '\r') --length;
  return length;
}

NamesStatus split_line(const uint8_t* text, int64_t length, uint8_t separator, Line& line, int64_t& detail) {
  detail = utf8_fault(text, length);
  if (detail < length) return kNotUtf8;
  const uint8_t* end = text + length;
  int64_t ends[3], count = 0;
  for (const uint8_t* at = text; at <= end; ++count) {
    const void* found = at < end ? std::memchr(at, separator, end - at) : nullptr;
    const uint8_t* stop = found ? static_cast<const uint8_t*>(found) : end;
    if (count < 3) ends[count] = stop - text;
    at = stop + 1;
  }
  detail = count;
  if (count != 3) return kWrongFields;
  for (int64_t field = 0, start = 0; field < 3; start = ends[field++] + 1) {
    detail = field;
    if (ends[field] == start) return kEmptyField;
    line.fields[field] = Name(text + start, ends[field] - start);
  }
  return kTextDone;
}

}  // namespace

NamesStatus parse_lines(const uint8_t* text, int64_t size, bool last, uint8_t separator, const NameTable& entities,
                        const NameTable& relations, int32_t* heads, int32_t* relation_ids, int32_t* tails,
                        int64_t capacity, TextState& state) {
  Line lines[kBatchLines];
  int64_t position = state.position, number = state.line;
  while (true) {
    int count = 0;
    NamesStatus fault = kTextDone;
    int64_t detail = 0;
    while (count < kBatchLines && position < size) {
      int64_t next;
      const int64_t length = line_length(text, position, size, last, next);
      if (next < 0) break;
      if (length) {
        Line& line = lines[count];
        fault = split_line(text + position, length, separator, line, detail);
        if (fault != kTextDone) break;
        line.start = position;
        line.number = number;
        for (int field : {0, 2}) prefetch_slot(entities, line.fields[field]);
        ++count;
      }
      position = next;
      ++number;
    }
    for (int i = 0; i < count; ++i) {
      for (int field : {0, 2}) prefetch_offset(entities, lines[i].fields[field]);
    }
    for (int i = 0; i < count; ++i) {
      for (int field : {0, 2}) prefetch_text(entities, lines[i].fields[field]);
    }
    for (int i = 0; i < count; ++i) {
      const Line& line = lines[i];
      NamesStatus full = state.num_triples == capacity ? kGrowTriples : kTextDone;
      int64_t ids[3] = {};
      for (int field = 0; field < 3 && full == kTextDone; ++field) {
        ids[field] = intern(field == 1 ? relations : entities, line.fields[field]);
        if (ids[field] < 0) full = field == 1 ? kGrowRelations : kGrowEntities;
      }
      if (full != kTextDone) {
        state.position = line.start;
        state.line = line.number;
        return full;
      }
      heads[state.num_triples] = static_cast<int32_t>(ids[0]);
      relation_ids[state.num_triples] = static_cast<int32_t>(ids[1]);
      tails[state.num_triples++] = static_cast<int32_t>(ids[2]);
    }
    state.position = position;
    state.line = number;
    if (fault != kTextDone) {
      state.line = number + 1;
      state.detail = detail;
      return fault;
    }
    if (count < kBatchLines) return kTextDone;
  }
}

NamesStatus intern_names(const uint8_t* blob, const int64_t* offsets, int64_t count, const NameTable& table,
                         int32_t* ids, TextState& state) {
  Name names[kBatchLines];
  while (state.position < count) {
    const int64_t start = state.position, size = std::min<int64_t>(kBatchLines, count - start);
    for (int64_t i = 0; i < size; ++i) {
      names[i] = Name(blob + offsets[start + i], offsets[start + i + 1] - offsets[start + i]);
      prefetch_slot(table, names[i]);
    }
    for (int64_t i = 0; i < size; ++i) prefetch_offset(table, names[i]);
    for (int64_t i = 0; i < size; ++i) prefetch_text(table, names[i]);
    for (int64_t i = 0; i < size; ++i) {
      state.detail = utf8_fault(names[i].start, names[i].length);
      if (state.detail < names[i].length) return kNotUtf8;
      const int64_t id = intern(table, names[i]);
      if (id < 0) return kGrowEntities;
      ids[start + i] = static_cast<int32_t>(id);
      ++state.position;
    }
  }
  return kTextDone;
}

void rehash(const int64_t* old_slots, int64_t num_old, int64_t* slots, int64_t num_slots) {
  const int64_t mask = num_slots - 1;
  std::fill_n(slots, num_slots, kEmpty);
  for (int64_t i = 0; i < num_old; ++i) {
    if (old_slots[i] == kEmpty) continue;
    int64_t at = tag_of(old_slots[i]) & mask;
    while (slots[at] != kEmpty) at = (at + 1) & mask;
    slots[at] = old_slots[i];
  }
}

int64_t build_names(const NameTable& table, int32_t* next) {
  std::fill_n(table.slots, table.num_slots, kEmpty);
  int64_t distinct = 0;
  for (int64_t id = table.size[0] - 1; id >= 0; --id) {  // backwards, so that each chain ascends
    const Name name(table.blob + table.offsets[id], table.offsets[id + 1] - table.offsets[id]);
    int64_t& slot = table.slots[probe(table, name)];
    next[id] = slot == kEmpty ? -1 : static_cast<int32_t>(id_of(slot));
    distinct += slot == kEmpty;
    slot = slot_of(name.tag, id);
  }
  return distinct;
}

int64_t find_name(const NameTable& table, const uint8_t* name, int64_t length) {
  const int64_t slot = table.slots[probe(table, Name(name, length))];
  return slot == kEmpty ? -1 : id_of(slot);
}

int64_t utf8_fault(const uint8_t* text, int64_t length) {
  constexpr uint64_t kHighBits = 0x8080808080808080u;
  int64_t i = 0;
  while (i < length) {
    if (i + 8 <= length && (load(text + i, 8) & kHighBits) == 0) {
      i += 8;
      continue;
    }
    const uint32_t first = text[i];
    if (first < 0x80) {
      ++i;
      continue;
    }
    const int more = first >= 0xC2 && first < 0xE0   ? 1
                     : first >= 0xE0 && first < 0xF0 ? 2
                     : first >= 0xF0 && first < 0xF5 ? 3
                                                     : 0;
    if (more == 0 || i + more >= length) return i;
    uint32_t point = first & (0x3Fu >> more);
    for (int k = 1; k <= more; ++k) {
      if ((text[i + k] & 0xC0) != 0x80) return i;
      point = point << 6 | (text[i + k] & 0x3Fu);
    }
    const bool overlong = (more == 2 && point < 0x800) || (more == 3 && point < 0x10000);
    if (overlong || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000)) return i;
    i += more + 1;
  }
  return length;
}

NamesPlace check_names(const NameTable& table, int64_t blob_size, const int32_t* next) {
  const int64_t size = table.size[0];
  if (table.offsets[0] != 0) return {kNameOffsets, 0};
  for (int64_t id = 0; id < size; ++id) {
    if (table.offsets[id + 1] < table.offsets[id]) return {kNameOffsets, id + 1};
  }
  if (table.offsets[size] != blob_size) return {kNameOffsets, size};
  for (int64_t id = 0; id < size; ++id) {
    const int64_t start = table.offsets[id], length = table.offsets[id + 1] - start;
    if (utf8_fault(table.blob + start, length) < length) return {kNameUtf8, id};
  }
  int64_t taken = 0;
  for (int64_t at = 0; at < table.num_slots; ++at) {
    const int64_t slot = table.slots[at];
    if (slot == kEmpty) continue;
    if ((slot & 0xFFFFFFFF) >= size) return {kNameSlots, at};
    ++taken;
  }
  // Each slot in use is the target of exactly one first id, and probing must end: an empty slot has to be left.
  if (taken == table.num_slots) return {kNameSlots, 0};
  // Links ascend within a name, so they form no cycle; they reach every id if each but the first is linked to once,
  // which two sums of hashes compare.
  int64_t firsts = 0;
  uint64_t rest = 0;
  for (int64_t block = 0; block < size; block += kBatchLines) {
    const int64_t stop = std::min<int64_t>(size, block + kBatchLines);
    Name names[kBatchLines];
    for (int64_t id = block; id < stop; ++id) {
      names[id - block] = Name(table.blob + table.offsets[id], table.offsets[id + 1] - table.offsets[id]);
      prefetch_slot(table, names[id - block]);
    }
    for (int64_t id = block; id < stop; ++id) {
      const int64_t slot = table.slots[probe(table, names[id - block])];
      if (slot == kEmpty || id_of(slot) > id) return {kNameTable, id};
      if (id_of(slot) == id) {
        ++firsts;
      } else if (next == nullptr) {
        return {kNameTable, id};
      } else {
        rest += mix(static_cast<uint64_t>(id));
      }
      if (next != nullptr && next[id] != -1) {
        if (next[id] <= id || next[id] >= size || !is_name(table, next[id], names[id - block])) return {kNameNext, id};
        rest -= mix(static_cast<uint64_t>(next[id]));
      }
    }
  }
  if (firsts != taken) return {kNameSlots, 0};
  return {!next || rest == 0 ? kNamesFine : kNameNext, 0};
}

}  // namespace tercet
