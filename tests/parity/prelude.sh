# The vocabulary of the parity suite's scripts. Given: RT, the runtime; ID, a
# container id of the case's own; DIR, its folder (and the current one); EVENTS,
# PTY, RPC, see below.
set -u
BOX=docker.io/library/busybox:latest
PYTHON=docker.io/library/python:latest

# run ARG...: ctr run with the runtime; start ARG...: detached
run() { ctr run --runtime "$RT" "$@"; }
start() { run -d "$@" </dev/null; }
# box CMD...: the container ID with busybox, detached
box() { start "$BOX" "$ID" "$@"; }
# x ID EXEC CMD...: one exec
x() { local id=$1 exec=$2; shift 2; ctr t exec --exec-id "$exec" "$id" "$@"; }

# try CMD...: and then its status
try() { "$@"; echo "status $?"; }
# fails PATTERN CMD...: it fails, and its message has the pattern (grep -E)
fails() {
	local pattern=$1 said status
	shift
	said=$("$@" 2>&1 </dev/null)
	status=$?
	if [ $status -ne 0 ] && grep -qiE -- "$pattern" <<<"$said"; then
		echo "fails: $pattern"
	else
		echo "status $status, wanted a failure with '$pattern': $said"
	fi
}
# status ID: as ctr t ls has it; pid ID likewise
status() { ctr t ls | awk -v id="$1" '$1 == id { print $3 }'; }
pid() { ctr t ls | awk -v id="$1" '$1 == id { print $2 }'; }
# await CMD: until the shell command succeeds, 15 s at most
await() {
	local end=$((SECONDS + 15))
	until eval "$1"; do
		[ $SECONDS -lt $end ] || { echo "waited in vain for: $1"; return 1; }
		sleep 0.03
	done
}
await_status() { await "[ \"\$(status '$1')\" = '$2' ]"; }
# slowly: copies stdin once the container runs. ctr loses the end of a stdin
# that comes before its task is there.
slowly() { await_status "$ID" RUNNING; cat; }
# kill_and_rm ID: its task
kill_and_rm() { ctr t kill -s 9 "$1"; await_status "$1" STOPPED; ctr t rm "$1" 2>/dev/null; }
# terminal ARG...: see terminal.py; rpc WORD...: see rpc.rs
terminal() { python3 -B "$TERMINAL" "$@"; }
rpc() { "$RPC" rpc "$@"; }
# rootfs: makes ./root, a folder that can be a container's root
rootfs() {
	[ -d root ] && return
	mkdir -p root/bin root/proc root/dev root/sys root/etc root/tmp root/root
	echo "root:x:0:0:root:/root:/bin/sh" >root/etc/passwd
	mkdir -p root/usr/bin && cp /usr/bin/busybox root/usr/bin/busybox && /usr/bin/busybox --install -s root/bin
}
# with_spec JQ CMD...: run --rm of CMD with a spec changed by jq
with_spec() {
	local change=$1
	shift
	rootfs
	ctr c create --rootfs "$PWD/root" "$ID-spec" "$@" >/dev/null
	ctr c info --spec "$ID-spec" | jq '.process.env += ["PATH=/bin:/usr/bin"]' | jq "$change" >config.json
	ctr c rm "$ID-spec" >/dev/null
	run --rm --config config.json "$ID"
}
# shim_of ID: its process id
shim_of() { ps -eo pid=,args= | awk -v id="$1" '$2 ~ /shim/ && index($0, "-id " id " ") { print $1 }'; }
# socket_of ID: its shim's
socket_of() { jq -r '.address | ltrimstr("unix://")' "/run/containerd/io.containerd.runtime.v2.task/default/$1/bootstrap.json"; }
# containerd VERB: lab-containerd, without this case's marks in its environment
containerd() { (cd / && env -u ID -u DIR -u RT -u PWD -u OLDPWD lab-containerd "$@"); }
# await_events: until containerd's events are listened to again
await_events() {
	local tag=$RANDOM
	await "ctr ns label default parity=$tag; sleep 0.1; grep -q '/namespaces/update.*\"$tag\"' '$EVENTS'"
}

clean_up() {
	local id
	for id in $(ctr c ls -q | grep "^$ID"); do
		ctr t rm -f "$id" >/dev/null 2>&1
		ctr c rm "$id" >/dev/null 2>&1
	done
	true
}
