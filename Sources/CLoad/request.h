// What the plain servers read of a Request of Tiny SNS.
#pragma once

#include <stdint.h>
#include <string.h>

/// A field's tag, and a number of 64 bits.
enum { NUMBER_BYTES_MAX = 11 };

/// Copies field 1 of a Request, its number, as it is: a Reply to it begins with the same bytes.
/// \returns how many they are, at most NUMBER_BYTES_MAX; 0 if it does not begin with a number.
static inline int copy_number(uint8_t *into, const uint8_t *request, int count) {
  if (count < 2 || request[0] != 0x08) return 0;
  int bytes = 2;
  while (bytes < count && bytes < NUMBER_BYTES_MAX && request[bytes - 1] & 0x80) bytes++;
  memcpy(into, request, bytes);
  return bytes;
}
