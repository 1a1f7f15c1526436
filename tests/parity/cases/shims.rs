//! The shim as a process: groups, its death, containerd's restarts, `-info`.

use super::super::case::Case;

pub const CASES: &[Case] = &[
    Case::same(
        "a-pod-has-one-shim",
        r#"start --annotation io.kubernetes.cri.sandbox-id=$ID $BOX $ID sleep 100; start --annotation io.kubernetes.cri.sandbox-id=$ID $BOX $ID-2 sh -c 'exit 3'
        shims() { ps -eo args | grep -c "[s]him.*-id $ID"; }
        rpc wait $ID-2; shims; ctr t rm $ID-2 2>/dev/null; status $ID; x $ID e echo lives; shims; kill_and_rm $ID; await '[ $(shims) = 0 ]' && echo ended"#,
        "3\n1\nRUNNING\nlives\n1\nended",
    ),
    Case::same(
        "a-pods-first-container-can-go-first",
        r#"start --annotation io.kubernetes.cri.sandbox-id=$ID $BOX $ID sleep 100; start --annotation io.kubernetes.cri.sandbox-id=$ID $BOX $ID-2 sleep 100
        kill_and_rm $ID; status $ID-2; x $ID-2 e echo lives; kill_and_rm $ID-2; await '! ps -eo args | grep -q "[s]him.*-id $ID"' && echo ended"#,
        "RUNNING\nlives\nended",
    ),
    Case::same(
        "a-shim-that-is-killed",
        r#"box sh -c 'sleep 100 & sleep 101'; x $ID e sleep 102 >/dev/null 2>&1 & sleep 0.5; pid=$(pid $ID); socket=$(socket_of $ID); kill -9 $(shim_of $ID); await "[ -z '$(status $ID)' ] || [ \"\$(status $ID)\" = STOPPED ] || ! ctr t ls | grep -q $ID"
        await "! kill -0 $pid 2>/dev/null" && echo dead; await "! grep -q $ID /proc/self/mounts" && echo unmounted; ctr t rm $ID 2>/dev/null; ctr t ls | grep -c $ID; ctr c rm $ID && echo removed; rm /run/containerd/fifo/*/$ID*; [ -e $socket ] && echo a socket stays && rm $socket; true"#,
        "dead\nunmounted\n0\nremoved\na socket stays",
    )
    .ours(
        "what a dead shim listened at is of no use to anybody",
        "dead\nunmounted\n0\nremoved",
    )
    .unordered(),
    Case::same(
        "a-shim-that-is-killed-while-its-container-is-paused",
        r#"box sleep 100; ctr t pause $ID; pid=$(pid $ID); socket=$(socket_of $ID); kill -9 $(shim_of $ID); await "! kill -0 $pid 2>/dev/null" && echo dead; await "! ctr t ls | grep -q $ID"; ctr c rm $ID && echo removed; rm -f /run/containerd/fifo/*/$ID* $socket"#,
        "dead\nremoved",
    ),
    Case::same(
        "a-container-killed-from-outside",
        r#"box sleep 100; kill -9 $(pid $ID); await_status $ID STOPPED; rpc state $ID"#,
        "STOPPED 137",
    ),
    Case::same(
        "the-shims-cgroup-and-standing",
        r#"box sleep 100; s=$(shim_of $ID); cat /proc/$s/oom_score_adj; readlink /proc/$s/cwd | sed "s,.*/,,"; ls -l /proc/$s/fd | grep -c 'pipe\|fifo' >/dev/null; readlink /proc/$s/fd/0"#,
        "1\nID\n/dev/null",
    ),
    Case::same(
        "a-shim-knows-itself",
        r#"case $RT in *runc*) s=containerd-shim-runc-v2;; *) s=containerd-shim-world-v1;; esac
        $s -v | grep -c Version; $s -info </dev/null >info; grep -a -c -F $RT info; grep -a -o '"ociVersionM[inax]*"' info | sort -u"#,
        "1\n1\n\"ociVersionMax\"\n\"ociVersionMin\"",
    ),
    Case::same(
        "containerd-restarts",
        r#"box sh -c 'sleep 0.5; echo a; sleep 1; echo b; while [ ! -e /go ]; do sleep 0.05; done; exit 21'; shim=$(shim_of $ID)
        containerd restart; await_events; status $ID; [ "$shim" = "$(shim_of $ID)" ] && echo the same shim
        x $ID e echo exec; ctr t pause $ID; status $ID; ctr t resume $ID; ctr t attach $ID >out & x $ID f touch /go; rpc wait $ID; wait; cat out"#,
        "RUNNING\nthe same shim\nexec\nPAUSED\n21\na\nb",
    )
    .alone(),
    Case::same(
        "containerd-is-killed",
        r#"box sh -c 'while [ ! -e /go ]; do sleep 0.05; done; exit 22'; start $BOX $ID-2 sh -c 'sleep 0.3; exit 23'
        containerd kill; sleep 0.6; containerd start; await_events; rpc state $ID; rpc state $ID-2 2>/dev/null; x $ID f touch /go; rpc wait $ID; ctr t rm $ID $ID-2 >/dev/null 2>&1; ctr t ls | grep -c $ID; rm -f /run/containerd/fifo/*/$ID*"#,
        "RUNNING 0\n22\n0",
    )
    .ours(
        "a container that ended while containerd was away keeps its exit status",
        "RUNNING 0\nSTOPPED 23\n22\n0",
    )
    .other_events()
    .alone(),
    Case::same(
        "containerd-restarts-with-an-exec-and-a-terminal",
        r#"box sleep 100; ctr t exec -d --exec-id e $ID sh -c 'sleep 1.5; exit 24'; containerd restart; await_events; rpc wait $ID e; rpc delete $ID e; kill_and_rm $ID; status $ID"#,
        "24\n24",
    )
    .alone(),
];
