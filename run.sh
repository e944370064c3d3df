#!/bin/sh
# Tiny SNS: builds it if need be, and runs it.
#
#   sh run.sh            starts the cluster of topology.yaml with its demo clients; Ctrl-C stops all of it
#   sh run.sh ARGS       runs `tinysns ARGS` (sh run.sh --help tells which there are)
#   sh run.sh test       checks the format, builds without warnings, runs all tests
#
# Installs the Debian packages that are missing, as root or through sudo; says what to type where it can't.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
binary=$root/.build/release/tinysns
log=$root/.build/run.log
# Made when a build begins and put here when it has succeeded: whatever is newer than it is not in the binary.
stamp=$root/.build/run.stamp
swift_least=6.2

say() { printf '%s\n' "$*" >&2; }
fail() {
  say "run.sh: $*"
  exit 1
}

# ---------------------------------------------------------------- what has to be there

# The libraries that Tiny SNS is built on, and what Swift itself needs to run, to link and to fetch packages.
debian_packages='libzmq3-dev libsodium-dev libsqlite3-dev libedit-dev pkg-config
  g++ libc6-dev git ca-certificates libcurl4 libxml2 libncurses6'

# Whether a Debian package is installed. Newer releases have given some libraries a name that ends in t64.
is_installed() {
  for name in "$1" "$1t64"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" != installed ] || return 0
  done
  [ "$1" = pkg-config ] && command -v pkg-config >/dev/null
}

# Installs Debian packages. Never asks for a password; returns 1, with nothing done, where it would have to.
install_packages() {
  if [ "$(id -u)" -eq 0 ]; then
    as_root=''
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root='sudo -n'
  else
    return 1
  fi
  say "Installing Debian packages: $*"
  apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get"
  # A new machine has no lists of packages yet, an old one has outdated ones: then they are fetched first.
  # shellcheck disable=SC2086  # a command with its arguments
  output=$($apt install -y --no-install-recommends "$@" 2>&1 </dev/null) ||
    output=$($apt update 2>&1 </dev/null && $apt install -y --no-install-recommends "$@" 2>&1 </dev/null) || {
    say "$output"
    fail "apt-get could not install $*"
  }
}

check_libraries() {
  missing=''
  if command -v dpkg-query >/dev/null; then
    for package in $debian_packages; do is_installed "$package" || missing="$missing $package"; done
    # shellcheck disable=SC2086  # a list of names
    [ -z "$missing" ] || install_packages $missing || {
      say 'run.sh: some Debian packages are missing. Please type this, and start again:'
      say "  sudo apt-get update && sudo apt-get install -y$missing"
      exit 1
    }
    return
  fi
  command -v pkg-config >/dev/null ||
    fail 'pkg-config is missing. Please install it, and libzmq 4.3, libsodium, SQLite 3 and libedit with their headers.'
  for library in libzmq libsodium sqlite3 libedit; do pkg-config --exists "$library" || missing="$missing $library"; done
  [ -z "$missing" ] || fail "please install these libraries with their headers (pkg-config does not find them):$missing"
}

# Whether version $1 is at least $2, both MAJOR.MINOR.
is_at_least() {
  [ "${1%%.*}" -gt "${2%%.*}" ] || { [ "${1%%.*}" -eq "${2%%.*}" ] && [ "${1#*.}" -ge "${2#*.}" ]; }
}

# Sees to it that `swift` is one that can build this.
find_swift() {
  found=''
  for folder in '' /opt/swift/usr/bin "${HOME:-}/.local/share/swiftly/bin"; do
    candidate=$(PATH=${folder:-$PATH} command -v swift) || continue
    version=$("$candidate" --version 2>/dev/null | sed -n 's/.*Swift version \([0-9]*\.[0-9]*\).*/\1/p' | head -n 1)
    [ -n "$version" ] || continue
    if is_at_least "$version" "$swift_least"; then
      PATH=${folder:+$folder:}$PATH
      return
    fi
    found=" ($candidate is $version)"
  done
  fail "Swift $swift_least or newer is needed$found. Where to get it: https://www.swift.org/install/linux/"
}

# ---------------------------------------------------------------- building

# Passes a command's output through `show`, a function called with each line, and returns the command's exit status.
# Left out: what SwiftPM says about flags from pkg-config that it ignores. (Debian's libzmq.pc names a Kerberos folder,
# which the compiler need not search.)
filtered() {
  {
    status=0
    "$@" 2>&1 </dev/null || status=$?
    printf '\nrun.sh: exit %s\n' "$status"
  } | while IFS= read -r line; do
    case $line in
      'run.sh: exit '*) exit "${line##* }" ;;
      *'prohibited flag(s): -isystem'* | '') ;;
      *) show "$line" ;;
    esac
  done
}

show_nothing() { printf '%s\n' "$1" >>"$log"; }

# On a terminal: the step that the build is at, always in the same line.
show_step() {
  show_nothing "$1"
  case $1 in '['*/*']'*) printf '\r\033[K%.72s' "$1" >&2 ;; esac
}

is_fresh() {
  [ -x "$binary" ] && [ -e "$stamp" ] &&
    [ -z "$(find "$root/Package.swift" "$root/Sources" -newer "$stamp" 2>/dev/null | head -n 1)" ]
}

# The release binary, from what is there now. Quiet, unless it fails or takes long.
build() {
  check_libraries
  find_swift
  mkdir -p "$root/.build"
  : >"$log"
  : >"$stamp.new"
  show() { show_nothing "$1"; }
  if [ -x "$binary" ]; then
    say 'Building what has changed ...'
  else
    say 'Building Tiny SNS. The first time takes a few minutes: its libraries are fetched and compiled, too.'
    [ ! -t 2 ] || show() { show_step "$1"; }
  fi
  if filtered swift build --package-path "$root" -c release --product tinysns; then
    mv "$stamp.new" "$stamp"
    [ ! -t 2 ] || printf '\r\033[K' >&2
  else
    say
    cat "$log" >&2
    fail 'the build failed'
  fi
}

# ---------------------------------------------------------------- testing

test_all() {
  check_libraries
  find_swift
  cd "$root"
  mkdir -p .build
  show() { printf '%s\n' "$1"; }

  echo '== format'
  filtered find Package.swift Sources Tests -name '*.swift' ! -path '*/Generated/*' \
    -exec swift format lint --strict --parallel {} + || fail 'swift format has complaints; see above'

  echo '== build'
  : >"$log"
  show() { show_nothing "$1"; }
  # The simulation's targets optimised: it plays hundreds of clusters. See Package.swift.
  TINYSNS_TEST_OPTIMIZED=1
  export TINYSNS_TEST_OPTIMIZED
  filtered swift build --build-tests || {
    cat "$log"
    fail 'the build failed'
  }
  # Warnings are errors in our own targets only, so it can't be left to the compiler: SwiftPM would hand such a flag to the
  # dependencies, too. The compiler warns only when it compiles: a file with a warning is touched, to be compiled anew.
  warnings=$(grep ': warning: ' "$log" | grep -F -e "$root/Sources/" -e "$root/Tests/" | sort -u) || warnings=''
  if [ -n "$warnings" ]; then
    printf '%s\n' "$warnings"
    printf '%s\n' "$warnings" | cut -d: -f1 | while IFS= read -r file; do touch -- "$file"; done
    fail 'there are warnings; see above'
  fi

  echo '== test'
  # One line an event on its way; the last line is the runner's own summary.
  show() { printf '%s\n' "$1"; }
  filtered swift test --skip-build --disable-xctest
}

# ---------------------------------------------------------------- running

if [ "${1:-}" = test ]; then
  test_all
  exit
fi
is_fresh || build
# Where the topology is not given, it is the one beside this script.
TINYSNS_TOPOLOGY=${TINYSNS_TOPOLOGY:-$root/topology.yaml}
export TINYSNS_TOPOLOGY
[ $# -gt 0 ] || set -- up
exec "$binary" "$@"
