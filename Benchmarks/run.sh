#!/bin/sh
# Builds, measures Tiny SNS and its peers in turn, and writes the figures into BENCHMARKS.md.
#   sh Benchmarks/run.sh [--runs 3] [--seconds 5] [--only PART]...   (parts: see `tinysns bench compare --help`)
set -eu
cd "$(dirname "$0")/.."
swift build -c release --product tinysns >&2
exec "$(swift build -c release --show-bin-path)/tinysns" bench compare --output BENCHMARKS.md "$@"
