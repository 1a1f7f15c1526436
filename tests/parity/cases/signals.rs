//! Signals, pause and resume.

use super::super::case::Case;

pub const CASES: &[Case] = &[
    Case::same(
        "a-signal-that-is-handled",
        r#"box sh -c 'trap "exit 33" TERM; while :; do sleep 0.05; done'; sleep 0.3; ctr t kill $ID; rpc wait $ID"#,
        "33",
    ),
    Case::same(
        "a-signal-that-init-ignores",
        r#"box sleep 100; ctr t kill -s TERM $ID; sleep 0.2; status $ID; ctr t kill -s KILL $ID; rpc wait $ID"#,
        "RUNNING\n137",
    ),
    Case::same(
        "signals-by-name-and-number",
        r#"for s in HUP SIGUSR1 12 RTMIN+3; do
            start $BOX $ID-${s/+/} sh -c 'for n in 1 10 12 37; do trap "exit $n" $n; done; while :; do sleep 0.02; done'
            sleep 0.3; try ctr t kill -s $s $ID-${s/+/}; rpc wait $ID-${s/+/}
        done"#,
        "status 0\n1\nstatus 0\n10\nstatus 0\n12\nstatus 0\n37",
    ),
    Case::same(
        "a-signal-that-does-not-exist",
        r#"box sleep 100; fails 'signal|invalid|unknown' ctr t kill -s NOPE $ID; fails 'signal|invalid' rpc kill $ID 99; status $ID"#,
        "fails: signal|invalid|unknown\nfails: signal|invalid\nRUNNING",
    ),
    Case::same(
        "signal-zero",
        r#"box sleep 100; try rpc kill $ID 0; status $ID"#,
        "status 0\nRUNNING",
    ),
    Case::same(
        "stop-and-continue",
        r#"box sleep 100; rpc kill $ID 19; sleep 0.2; awk '/State/{print $2}' /proc/$(pid $ID)/status; status $ID; rpc kill $ID 18; awk '/State/{print $2}' /proc/$(pid $ID)/status; status $ID"#,
        "T\nRUNNING\nS\nRUNNING",
    ),
    Case::same(
        "kill-twice",
        r#"box sleep 100; ctr t kill -s 9 $ID; await_status $ID STOPPED; fails 'not found|finished' ctr t kill -s 9 $ID; ctr t rm $ID 2>/dev/null; fails 'no running task|not found' ctr t kill -s 9 $ID"#,
        "fails: not found|finished\nfails: no running task|not found",
    ),
    Case::same(
        "kill-all",
        r#"box sh -c 'sleep 100 & sleep 101 & wait'; await "[ \$(rpc pids $ID) = 3 ]"; try ctr t kill -a -s KILL $ID; await_status $ID STOPPED; rpc state $ID"#,
        "status 0\nSTOPPED 137",
    ),
    Case::same(
        "kill-before-the-start",
        r#"ctr c create --runtime $RT $BOX $ID sleep 100; rpc create $ID; rpc state $ID; try rpc kill $ID 9; await_status $ID STOPPED; rpc state $ID; rpc delete $ID"#,
        "CREATED 0\nstatus 0\nSTOPPED 137\n137",
    ),
    Case::same(
        "pause-and-resume",
        r#"box sh -c 'i=0; while :; do i=$((i+1)); echo $i >/count; sleep 0.01; done'; sleep 0.3
        count() { cat /proc/$(pid $ID)/root/count; }
        ctr t pause $ID; status $ID; a=$(count); sleep 0.3; [ "$a" = "$(count)" ] && echo still; ctr t resume $ID; status $ID; until [ "$a" != "$(count)" ]; do sleep 0.05; done; echo goes on"#,
        "PAUSED\nstill\nRUNNING\ngoes on",
    ),
    Case::same(
        "pause-twice",
        r#"box sleep 100; ctr t pause $ID; fails 'paused' ctr t pause $ID; status $ID; ctr t resume $ID"#,
        "fails: paused\nPAUSED",
    ),
    Case::same(
        "resume-what-is-not-paused",
        r#"box sleep 100; fails 'not paused|cannot resume' ctr t resume $ID; status $ID"#,
        "fails: not paused|cannot resume\nRUNNING",
    ),
    Case::same(
        "kill-while-paused",
        r#"box sleep 100; ctr t pause $ID; try ctr t kill -s 9 $ID; await_status $ID STOPPED; rpc state $ID"#,
        "status 0\nSTOPPED 137",
    ),
    Case::same(
        "delete-while-paused",
        r#"box sleep 100; ctr t pause $ID; fails 'paused|running|stop' rpc delete $ID; status $ID"#,
        "fails: paused|running|stop\nPAUSED",
    ),
    Case::same(
        "pause-before-the-start-and-after-the-end",
        r#"ctr c create --runtime $RT $BOX $ID sleep 100; rpc create $ID; fails 'created|not running|state' ctr t pause $ID; rpc kill $ID 9; await_status $ID STOPPED; fails 'stopped|not running|not found' ctr t pause $ID"#,
        r"fails: created|not running|state
fails: stopped|not running|not found",
    ),
    Case::same(
        "kill-all-while-it-forks",
        r#"box sh -c 'while :; do sh -c : & done'; sleep 0.2; ctr t kill -a -s 9 $ID; await_status $ID STOPPED; rpc state $ID"#,
        "STOPPED 137",
    ),
];
