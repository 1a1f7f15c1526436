//! Create, start, delete; zombies and orphans; many at once.

use super::super::case::Case;

pub const CASES: &[Case] = &[
    Case::same(
        "delete-what-runs",
        r#"box sleep 100; fails 'running|stopped|delete' rpc delete $ID; status $ID; ctr t rm -f $ID; echo $?; status $ID"#,
        "fails: running|stopped|delete\nRUNNING\n0",
    ),
    Case::same(
        "delete-what-was-created-only",
        r#"ctr c create --runtime $RT $BOX $ID sleep 100; rpc create $ID; try rpc delete $ID; status $ID"#,
        "0\nstatus 0",
    )
    .ours(
        "its init was killed: the status says so, and the exit is told before the deletion",
        "137\nstatus 0",
    )
    .other_events(),
    Case::same(
        "delete-twice",
        r#"ctr c create --runtime $RT $BOX $ID true; rpc create $ID; rpc start $ID; await_status $ID STOPPED; rpc delete $ID; fails 'not found' rpc delete $ID"#,
        "0\nfails: not found",
    ),
    Case::same("wait-after-the-end", r#"box sh -c 'exit 17'; sleep 0.5; rpc wait $ID; rpc wait $ID"#, "17\n17"),
    Case::same(
        "start-twice",
        r#"box sleep 100; fails 'running|start|state' rpc start $ID; status $ID"#,
        "fails: running|start|state\nRUNNING",
    ),
    Case::same(
        "the-same-id-twice",
        r#"box sleep 100; fails 'already exists' start $BOX $ID true; status $ID"#,
        "fails: already exists\nRUNNING",
    ),
    Case::same(
        "a-task-again-after-its-deletion",
        r#"box sh -c 'sleep 0.3; echo x >>/runs; wc -l </runs; sleep 0.2' >/dev/null; await_status $ID STOPPED; ctr t rm $ID; ctr t start $ID; ctr t rm $ID 2>/dev/null; true"#,
        "2",
    ),
    Case::same(
        "twenty-short-ones-in-a-row",
        r#"for n in $(seq 20); do run --rm $BOX $ID-$n sh -c "exit $((n % 7))"; echo -n "$? "; done"#,
        "1 2 3 4 5 6 0 1 2 3 4 5 6 0 1 2 3 4 5 6",
    ),
    Case::same(
        "ten-at-once",
        r#"for n in $(seq 10); do (run --rm $BOX $ID-$n sh -c "echo $n; exit $n"; echo "status $?") & done | sort | tr '\n' ' '; wait"#,
        r"1 10 2 3 4 5 6 7 8 9 status 1 status 10 status 2 status 3 status 4 status 5 status 6 status 7 status 8 status 9",
    ),
    Case::same(
        "programs-that-end-at-once",
        r#"for n in $(seq 8); do start $BOX $ID-$n sh -c "exit 5"; rpc wait $ID-$n; done | sort | uniq -c | tr -s ' '"#,
        "8 5",
    ),
    Case::same(
        "an-init-that-does-not-reap",
        r#"box sh -c 'sh -c "sleep 0.1 & exec sleep 0.3" & exec sleep 1'; rpc wait $ID"#,
        "0",
    ),
    Case::same(
        "a-daemon-outlives-its-parents-not-init",
        r#"box sh -c '(setsid sh -c "sleep 100 & sleep 101" &) ; sleep 0.3; exit 3'; rpc wait $ID"#,
        "3",
    ),
    Case::same(
        "ps",
        r#"box sh -c 'sleep 100 & wait'; await "[ \$(rpc pids $ID) = 2 ]"; ctr t exec -d --exec-id named $ID sleep 100
        ctr t ps $ID | awk '{ print (NR == 1 ? $1 : "pid"), $2, $3, $4 }'; x $ID e ps | wc -l"#,
        "PID INFO  \npid -  \npid -  \npid exec_id:\"named\"  \n5",
    ),
    Case::same(
        "ps-before-the-start-and-after-the-end",
        r#"ctr c create --runtime $RT $BOX $ID true; rpc create $ID; rpc pids $ID; rpc start $ID; await_status $ID STOPPED; try rpc pids $ID"#,
        "1\n0\nstatus 0",
    )
    .ours(
        "containerd, restarted, throws away a shim whose task has no processes, and its exit status with it",
        "1\n1\nstatus 0",
    ),
    Case::same(
        "state-by-call",
        r#"ctr c create --runtime $RT $BOX $ID sh -c 'exit 12'; rpc create $ID; rpc state $ID; rpc start $ID; await_status $ID STOPPED; rpc state $ID; rpc delete $ID; fails 'not found' rpc state $ID"#,
        "CREATED 0\nSTOPPED 12\n12\nfails: not found",
    ),
    Case::same(
        "two-namespaces-with-the-same-id",
        r#"rootfs; box sh -c 'sleep 0.7; exit 1'
        ctr -n $ID.other run --runtime $RT --rm --rootfs $DIR/root $ID /bin/busybox sh -c 'echo other; exit 2'; echo $?; rpc wait $ID; ctr ns rm $ID.other >/dev/null; sleep 0.2
        find /run/containerd -path "*$ID.other/*" 2>/dev/null; rmdir /sys/fs/cgroup/*/$ID.other /run/containerd/*/$ID.other"#,
        "other\n2\n1",
    )
    .unordered(),
];
