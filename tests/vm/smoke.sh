#!/usr/bin/env bash
# tests/vm/smoke.sh: a container's whole life in a few steps, through ctr, where containerd runs.
#
# Run by `make test-vm` in a virtual machine with cgroup v2; works the same under tests/lab/run.
# RUNTIME is the runtime to test. The stock shim (io.containerd.runc.v2) cannot restore beside the
# original and leaves files in /tmp: for it alone, those two are not asked.
set -euo pipefail

runtime=${RUNTIME:-io.containerd.world.v1}
busybox=docker.io/library/busybox:latest
ref=example.test/smoke:1
work=$(mktemp -d /run/smoke.XXXXXX)
bundles=/run/containerd/io.containerd.runtime.v2.task/default
# 10 numbers a second into /count, kept in memory too: a restored counter goes on, a restarted one does not.
counter='n=0; while :; do n=$((n+1)); echo $n >/count.new; mv /count.new /count; sleep 0.1; done'
passed=0

stock() { [ "$runtime" = io.containerd.runc.v2 ]; }
pass() { passed=$((passed + 1)); echo "ok $passed - $* ($SECONDS s)"; }
fail() {
	echo "FAILED: $*"
	echo "--- containerd:"; grep -vE 'level=info msg="(skip )?loading plugin' /var/log/containerd.log | tail -n 20
	exit 1
}
same() { [ "$1" = "$2" ] || fail "$3: expected '$2', got '$1'"; }
count() { cat "$bundles/$1/rootfs/count"; }
status() { ctr task ls | awk -v id="$1" '$1 == id {print $3}'; }

# within SECONDS WHAT COMMAND...: the command succeeds before long
within() {
	local limit=$((SECONDS + $1)) what=$2
	shift 2
	until "$@"; do
		[ $SECONDS -lt $limit ] || fail "$what did not happen in time"
		sleep 0.1
	done
}
past() { [ "$(count "$1" 2>/dev/null || echo 0)" -gt "$2" ]; }
has_status() { [ "$(status "$1")" = "$2" ]; }

# Whatever a container may leave behind; empty again when all are deleted.
leftovers() {
	ls "$bundles" 2>/dev/null
	grep -o "$bundles/[^ ]*" /proc/self/mountinfo
	find /sys/fs/cgroup -mindepth 1 -type d -path '*/default/*'
	pgrep -a 'criu|containerd-shim'
	stock || ls -d /tmp/* 2>/dev/null
	ctr container ls -q
	true
}

remove() {
	ctr task kill -s KILL "$1" 2>/dev/null || true
	within 20 "end of $1" has_status "$1" STOPPED
	ctr task rm "$1" >/dev/null 2>&1
	ctr container rm "$1"
}

test_run() {
	same "$(ctr run --rm --runtime "$runtime" $busybox run1 echo hi)" hi "output of ctr run"
	local code=0
	ctr run --rm --runtime "$runtime" $busybox run2 sh -c 'exit 3' || code=$?
	same $code 3 "exit status of ctr run"
	pass "run"
}

test_exec() {
	ctr run -d --runtime "$runtime" $busybox c sh -c "$counter"
	within 20 "the counter's start" past c 3
	same "$(ctr task exec --exec-id e1 c sh -c 'echo in; exit 4' || echo $?)" $'in\n4' "ctr task exec"
	pass "exec"
}

test_stats() {
	ctr task metrics c >"$work/metrics"
	grep -qE '^memory.usage(_in_bytes)? +[1-9]' "$work/metrics" || fail "no memory usage in: $(cat "$work/metrics")"
	grep -qE '^pids.current +[1-9]' "$work/metrics" || fail "no pids in: $(cat "$work/metrics")"
	pass "stats"
}

test_oom() {
	ctr events >"$work/events" &
	local events=$! code=0
	sleep 1
	ctr run --rm --runtime "$runtime" --memory-limit 16777216 $busybox oom tail /dev/zero || code=$?
	same $code 137 "exit status after running out of memory"
	within 20 "an event /tasks/oom" grep -q ' /tasks/oom ' "$work/events"
	kill $events
	pass "OOM"
}

test_pause() {
	ctr task pause c
	same "$(status c)" PAUSED "status after pause"
	local before
	before=$(count c)
	sleep 1
	same "$(count c)" "$before" "count of a paused container"
	ctr task resume c
	within 20 "the counter after resume" past c "$before"
	pass "pause and resume"
}

test_checkpoint() {
	at=$(count c)
	ctr container checkpoint --task --rw c $ref
	same "$(status c)" RUNNING "status after checkpoint"
	within 20 "the counter after the checkpoint" past c $((at + 5))
	pass "checkpoint"
}

# restore ID: brings the checkpoint back under this name
restore() {
	ctr container restore --rw --live "$1" $ref
	same "$(status "$1")" RUNNING "status of restored $1"
	within 20 "the restored counter" past "$1" "$at"
	[ "$(count "$1")" -lt $((at + 1000)) ] || fail "restored count $(count "$1") is far from $at"
	same "$(ctr task exec --exec-id e2 "$1" echo in)" in "exec in restored $1"
}

test_restore() {
	if stock; then
		remove c
		restore c
		remove c
		pass "restore (stock shim: not beside the original)"
		return
	fi
	restore c2
	restore c3
	same "$(status c)" RUNNING "status of the original"
	local now
	now=$(count c)
	remove c2
	remove c3
	within 20 "the original's counter after its clones' end" past c "$now"
	remove c
	pass "restore twice beside the original"
}

test_world() {
	local now
	stock && return
	export WORLD_STORE=$work/store
	ctr run -d --null-io --runtime "$runtime" $busybox w sh -c "$counter"
	within 20 "a counter" past w 2
	world checkpoint w smoke:1 >/dev/null
	now=$(count w)
	within 20 "the counter after its checkpoint" past w "$now"
	world checkpoint w smoke:2 >/dev/null
	world verify smoke:2 >/dev/null
	world restore smoke:1 --id w2 >/dev/null
	within 20 "the restored counter" past w2 "$now"
	[ "$(count w2)" -lt $((now + 100)) ] || fail "the restored counter is far ahead"
	remove w2
	remove w
	[ "$(world --format json fsck | jq -c .findings)" = "[]" ] || fail "fsck: $(world fsck)"
	pass "worlds in a store"
}

test_leftovers() {
	within 20 "clean-up" nothing_left
	pass "nothing left behind"
}
nothing_left() {
	[ -z "$(leftovers)" ] && return
	[ $SECONDS -lt ${last_word:-0} ] || { last_word=$((SECONDS + 5)); echo "left: $(leftovers | tr '\n' ' ')"; }
	return 1
}

at=0
echo "# $runtime on Linux $(uname -r), $(stat -fc %T /sys/fs/cgroup | sed 's/cgroup2fs/cgroup v2/; s/tmpfs/cgroup v1/')"
for step in run exec stats oom pause checkpoint restore world leftovers; do
	"test_$step"
done
rm -rf "$work"
echo "smoke: $passed passed, 0 failed"
