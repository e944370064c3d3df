// libsodium: hashes passwords, seals tokens.
#include <sodium.h>
