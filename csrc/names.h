// Names of entities and relations: text lines to triples of ids, and names to ids.
//
// Names lie in one UTF-8 blob in the order of their ids, with offsets, beside an open-addressing table (linear probing,
// a power of two of slots, at most two thirds of them taken). A slot holds the lower 32 bits of the name's hash above
// its id, or -1: probing reads a name only where those bits agree, and growing the table reads no name at all. All
// arrays belong to the caller; a kernel that finds one full returns, the caller grows it and calls again.
#pragma once

#include "core.h"

namespace tercet {

struct NameTable {
  uint8_t* blob;     // [blob_capacity]
  int64_t* offsets;  // [names_capacity + 1]
  int64_t* slots;    // [num_slots]
  int64_t blob_capacity;
  int64_t names_capacity;
  int64_t num_slots;  // a power of two, at most 2^31
  int64_t* size;      // [1]: the number of names
};

enum NamesStatus : int64_t {
  kTextDone = 0,   // every complete line was read (every name, of `intern_names`)
  kGrowTriples,    // the triple arrays are full
  kGrowEntities,   // the entities' blob, offsets or slots are full
  kGrowRelations,  // the relations' are
  kNotUtf8,        // state.detail: the byte within the line (within the name)
  kWrongFields,    // state.detail: the number of fields
  kEmptyField,     // state.detail: which field, from 0
};

struct TextState {
  int64_t position;     // bytes read of the text; at an error the start of its line
  int64_t line;         // lines read; at an error the number of its line, from 1
  int64_t num_triples;  // triples written
  int64_t detail;
};

// Reads lines of three fields into heads, relations, tails [capacity] from state.num_triples on. Blank lines and a
// carriage return before a line's end are dropped; the last line needs no end when `last`. Ids follow first appearance,
// the head before the tail.
NamesStatus parse_lines(const uint8_t* text, int64_t size, bool last, uint8_t separator, const NameTable& entities,
                        const NameTable& relations, int32_t* heads, int32_t* relation_ids, int32_t* tails,
                        int64_t capacity, TextState& state);

// The id of each name in [state.position, count), new ones appended: ids [count]. Reports kGrowEntities for its table.
NamesStatus intern_names(const uint8_t* blob, const int64_t* offsets, int64_t count, const NameTable& table,
                         int32_t* ids, TextState& state);

// Enters every slot of an old table into a new, larger one.
void rehash(const int64_t* old_slots, int64_t num_old, int64_t* slots, int64_t num_slots);

// Enters all names into an empty table where several ids may share a name: the table leads to the first, next [size] to
// the following one, -1 after the last. Returns the number of distinct names.
int64_t build_names(const NameTable& table, int32_t* next);

// The first id of a name, or -1.
int64_t find_name(const NameTable& table, const uint8_t* name, int64_t length);

// The first byte that is not UTF-8, or length.
int64_t utf8_fault(const uint8_t* text, int64_t length);

enum NamesFault : int64_t {
  kNamesFine = 0,
  kNameOffsets,  // offsets[position] falls, or does not begin at 0 or end at the blob's size
  kNameUtf8,     // name `position`
  kNameSlots,    // slot `position` holds no id of a name
  kNameTable,    // the table does not lead to name `position`
  kNameNext,     // next[position] does not name a later id of the same name
};

struct NamesPlace {
  int64_t code;
  int64_t position;
};

// The first fault of names that came from outside; next may be null: then all names differ.
NamesPlace check_names(const NameTable& table, int64_t blob_size, const int32_t* next);

}  // namespace tercet
