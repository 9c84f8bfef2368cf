// Asks for memory that will be needed soon; the address need not be readable.
#pragma once

namespace tercet {

inline void prefetch(const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address);
#else
  (void)address;
#endif
}

}  // namespace tercet
