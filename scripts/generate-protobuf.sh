#!/bin/sh
# Regenerates Sources/Wire/Generated from Protos/tinysns.proto, with the protoc plugin of the swift-protobuf version
# that Package.swift resolves to. Needs Debian's protobuf-compiler. The generated file is committed, so nobody who
# only builds Tiny SNS needs to run this.
set -eu
cd "$(dirname "$0")/.."
swift package resolve
plugin_build=.build-protoc
swift build --package-path .build/checkouts/swift-protobuf --scratch-path "$plugin_build" -c release --product protoc-gen-swift
protoc --plugin="$plugin_build/release/protoc-gen-swift" \
  --swift_out=Sources/Wire/Generated --swift_opt=Visibility=Internal --swift_opt=UseAccessLevelOnImports=true \
  --proto_path=Protos Protos/tinysns.proto
# The same for the Python example, which loads the descriptors at run time.
protoc --descriptor_set_out=Examples/python/tinysns.desc --proto_path=Protos Protos/tinysns.proto
