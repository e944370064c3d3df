#!/bin/sh
# Shows what somebody sees who listens on the network: starts a small cluster, records all packets at its ports while somebody
# registers, posts and watches, and looks in the record for the post, the password and the token. Once as usual, where none of them may
# be found; and once with `security: none`, where all must be found: so the search is able to find them.
#
#   sudo sh scripts/capture.sh [PROGRAM]      needs tshark (Wireshark) and xxd, and the right to listen
#
# PROGRAM is a built tinysns; by default that of `sh run.sh`. Ends with 0 if both runs are as they must be.

set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
program=${1:-}
for candidate in "$here/.build/release/tinysns" "$here/.build/debug/tinysns"; do
  [ -n "$program" ] || [ ! -x "$candidate" ] || program=$candidate
done
[ -x "$program" ] || { echo "no tinysns built yet; run sh run.sh first, or name the program" >&2; exit 1; }
for tool in tshark xxd; do
  command -v $tool > /dev/null || { echo "$tool is not installed" >&2; exit 1; }
done

folder=$(mktemp -d /tmp/tsns-XXXXXX)
export HOME="$folder/home" XDG_STATE_HOME="$folder/home/state" TINYSNS_TOPOLOGY="$folder/topology.yaml"
export TINYSNS_PASSWORD='the password that travels'
text='the post that travels'
tshark=''
watcher=''

clean() {
  [ -z "$watcher" ] || kill "$watcher" 2> /dev/null || :
  [ -z "$tshark" ] || kill "$tshark" 2> /dev/null || :
  [ ! -e "$TINYSNS_TOPOLOGY" ] || "$program" down > /dev/null 2>&1 || :
  rm -rf "$folder"
}
trap clean EXIT
trap 'exit 1' INT TERM

# Waits until a command succeeds, for half a minute.
await() {
  what=$1
  shift
  tries=0
  until "$@" > /dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || { echo "not within 30 s: $what" >&2; exit 1; }
    sleep 0.1
  done
}

# How often the bytes, in hexadecimal, are in the record.
count() { xxd -p "$folder/packets" | tr -d '\n' | grep -o "$1" | wc -l; }
hex() { printf %s "$1" | xxd -p | tr -d '\n'; }

# run SECURITY: prints what is found, and sets `found` to the number of secrets that are.
run() {
  rm -rf "$folder/var" "$folder/home" "$folder/packets"
  while :; do
    port=$(($(od -An -N2 -tu2 /dev/urandom) % 16000 + 15000))
    printf 'router: { port: %s }\nhosts: { local: { masters: 2, first_port: %s } }\nsecurity: %s\n' \
      $port $((port + 1)) "$1" > "$TINYSNS_TOPOLOGY"
    "$program" up --detach > "$folder/up" 2>&1 && break
    grep -q "can't listen" "$folder/up" || { cat "$folder/up" >&2; exit 1; }
  done
  tshark -q -i lo -f "tcp portrange $port-$((port + 6))" -w "$folder/packets" 2> "$folder/tshark" &
  tshark=$!
  await 'tshark records' test -s "$folder/packets"
  "$program" client alice < /dev/null > /dev/null
  "$program" timeline alice --follow > "$folder/watched" &
  watcher=$!
  "$program" post alice "$text" > /dev/null
  await 'the post is watched' grep -q "$text" "$folder/watched"
  kill "$watcher"
  wait "$watcher" 2> /dev/null || :
  watcher=''
  token=$(base64 -d "$XDG_STATE_HOME"/tinysns/logins/*/alice.token | xxd -p | tr -d '\n')
  "$program" down > /dev/null
  kill -INT "$tshark"
  wait "$tshark" 2> /dev/null || :
  tshark=''
  packets=$(tshark -r "$folder/packets" 2> /dev/null | wc -l)
  found=0
  echo "security: $1: $packets packets at ports $port to $((port + 6))"
  for secret in "post $(hex "$text")" "password $(hex "$TINYSNS_PASSWORD")" "token $token"; do
    times=$(count "${secret#* }")
    echo "  the ${secret% *} is in the record $times times"
    [ "$times" -eq 0 ] || found=$((found + 1))
  done
}

run curve
[ "$found" -eq 0 ] && [ "$packets" -gt 50 ] || { echo 'NOT as it must be: something can be read, or nothing was recorded'; exit 1; }
run none
[ "$found" -eq 3 ] || { echo 'NOT as it must be: the search does not find what is there'; exit 1; }
echo 'as it must be'
