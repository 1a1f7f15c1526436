#!/usr/bin/env bash
# tests/vm/all.sh: everything that is tested on a stock kernel with cgroup v2. Run by `make test-vm`.
set -euo pipefail
tests/vm/smoke.sh
# Those of cargo's test binaries that came along: see tests/lab/vm.
for program in bin/test-*; do
	[ -e "$program" ] || continue
	echo "# $program"
	"$program" --test-threads 2
done
