//! Further processes in a running container.

use super::super::case::Case;

pub const CASES: &[Case] = &[
    Case::same(
        "exec",
        r#"box sleep 100; try x $ID e1 echo hi; try x $ID e2 sh -c 'echo err >&2; exit 7' 2>&1; try x $ID e3 false"#,
        "hi\nstatus 0\nerr\nstatus 7\nstatus 1",
    ),
    Case::same(
        "exec-environment-and-place",
        r#"start --env A=1 --cwd /usr $BOX $ID sleep 100; x $ID e sh -c 'pwd; env' | sort; ctr t exec --exec-id f --cwd /etc $ID pwd; fails 'no such file' ctr t exec --exec-id g --cwd /nope $ID pwd"#,
        r"/usr
A=1
HOME=/root
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
PWD=/usr
SHLVL=1
/etc
fails: no such file",
    ),
    Case::same(
        "exec-as-another-user",
        r#"box sleep 100; ctr t exec --exec-id a --user 1000:2000 $ID id; ctr t exec --exec-id b --user nobody $ID sh -c 'exec 2>&1; id -u; echo $HOME; touch /x'; true"#,
        r"uid=1000 gid=2000 groups=2000
65534
/
touch: /x: Permission denied",
    ),
    Case::same(
        "exec-with-stdin",
        r#"box sleep 100; seq 1 100000 | x $ID e md5sum; echo data | x $ID f cat"#,
        "dea9193b768319cbb4ff1a137ac03113  -\ndata",
    ),
    Case::same(
        "exec-with-a-terminal",
        r#"box sleep 100; terminal 90x30 --on '# ' 'send=stty size; exit 3\n' ctr t exec -t --exec-id e $ID sh >out; echo $?; tr -d '\r' <out | grep -c '^30 90'"#,
        "3\n1",
    ),
    Case::same(
        "exec-detached",
        r#"box sleep 100; try ctr t exec -d --exec-id e $ID sh -c 'sleep 0.5; exit 2'; rpc state $ID e; rpc wait $ID e; rpc delete $ID e"#,
        "status 0\nRUNNING 0\n2\n2",
    ),
    Case::same(
        "exec-of-a-missing-program",
        r#"box sleep 100; fails 'executable file not found' x $ID e nope; fails 'no such file' x $ID f /nope; fails 'permission denied' x $ID g /etc/passwd; try x $ID e true; ctr t ps $ID | wc -l"#,
        r"fails: executable file not found
fails: no such file
fails: permission denied
status 0
2",
    ),
    Case::same(
        "exec-after-the-end",
        r#"box true; await_status $ID STOPPED; fails 'stopped|not running|ended|not found|process' x $ID e true"#,
        "fails: stopped|not running|ended|not found|process",
    ),
    Case::same(
        "exec-before-the-start",
        r#"ctr c create --runtime $RT $BOX $ID sleep 100; rpc create $ID; try x $ID e echo hi; rpc state $ID"#,
        "hi\nstatus 0\nCREATED 0",
    ),
    Case::same(
        "exec-with-an-id-in-use",
        r#"box sleep 100; x $ID e sleep 2 & await "ctr t ps $ID | grep -q e"; sleep 0.2; fails 'already exists' x $ID e true; wait"#,
        "fails: already exists",
    ),
    Case::same(
        "ten-execs-at-once",
        r#"box sleep 100; for n in $(seq 10); do x $ID e$n sh -c "sleep 0.2; echo $n" & done | sort -n | tr '\n' ' '; wait; ctr t ps $ID | wc -l"#,
        "1 2 3 4 5 6 7 8 9 10 2",
    )
    .unordered(),
    Case::same(
        "kill-an-exec",
        r#"box sleep 100; x $ID e sleep 100 & await "ctr t ps $ID | grep -q 'e\b'"; sleep 0.3; ctr t kill --exec-id e -s TERM $ID; wait $!; echo $?; status $ID"#,
        "143\nRUNNING",
    ),
    Case::same(
        "kill-an-exec-that-has-ended",
        r#"box sleep 100; ctr t exec -d --exec-id e $ID true; rpc wait $ID e; fails 'not found|finished' rpc kill $ID 9 e; rpc delete $ID e; fails 'not found' rpc kill $ID 9 e"#,
        "0\nfails: not found|finished\n0\nfails: not found",
    ),
    Case::same(
        "an-exec-dies-with-init",
        r#"box sleep 100; x $ID e sleep 100 & await "ctr t ps $ID | grep -q 'e\b'"; sleep 0.3; ctr t kill -s 9 $ID; wait $!; echo $?; await_status $ID STOPPED; rpc state $ID"#,
        "137\nSTOPPED 137",
    ),
    Case::same(
        "exec-state-by-call",
        r#"box sleep 100; ctr t exec -d --exec-id e $ID sleep 100; rpc state $ID e; rpc kill $ID 15 e; rpc wait $ID e; rpc state $ID e; rpc delete $ID e; fails 'not found' rpc state $ID e"#,
        "RUNNING 0\n143\nSTOPPED 143\n143\nfails: not found",
    ),
    Case::same(
        "delete-an-exec-that-runs",
        r#"box sleep 100; ctr t exec -d --exec-id e $ID sleep 100; fails 'running|stop' rpc delete $ID e; rpc state $ID e"#,
        "fails: running|stop\nRUNNING 0",
    ),
    Case::same(
        "exec-while-paused",
        r#"box sleep 100; ctr t pause $ID; fails 'paused' x $ID e true; ctr t resume $ID; x $ID e echo on"#,
        "fails: paused\non",
    ),
    Case::same(
        "many-of-them-leave-nothing",
        r#"box sleep 100; for n in $(seq 8); do x $ID e$n true; done
        shim=$(shim_of $ID); before=$(ls /proc/$shim/fd | wc -l)
        for n in $(seq 30); do x $ID f$n true; done; sleep 0.3; after=$(ls /proc/$shim/fd | wc -l)
        [ $after -le $((before + 2)) ] || echo $before before, $after after
        find /run/containerd/io.containerd.runtime.v2.task/default/$ID -name '*exec*' -o -name 'tenant*' | wc -l
        ps -o pid= --ppid $shim | wc -l"#,
        "0\n1",
    ),
    Case::same(
        "exec-keeps-the-seccomp-filter",
        r#"start --seccomp $BOX $ID sleep 100; grep Seccomp: /proc/$(pid $ID)/status; x $ID e grep -E 'Seccomp:|NoNewPrivs' /proc/self/status; x $ID f unshare -U true 2>&1; true"#,
        r"Seccomp:	2
NoNewPrivs:	1
Seccomp:	2
unshare: unshare(0x10000000): Operation not permitted",
    ),
    Case::same(
        "exec-capabilities",
        r#"start --cap-drop CAP_CHOWN --cap-add CAP_SYS_TIME $BOX $ID sleep 100; grep Cap /proc/$(pid $ID)/status; x $ID e grep Cap /proc/self/status"#,
        r"CapInh:	0000000000000000
CapPrm:	00000000aa0425fa
CapEff:	00000000aa0425fa
CapBnd:	00000000aa0425fa
CapAmb:	0000000000000000
CapInh:	0000000000000000
CapPrm:	00000000aa0425fa
CapEff:	00000000aa0425fa
CapBnd:	00000000aa0425fa
CapAmb:	0000000000000000",
    ),
];
