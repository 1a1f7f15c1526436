//! Standard input, terminals, and the places where output can go.

use super::super::case::Case;

pub const CASES: &[Case] = &[
    Case::same(
        "stdin-data-then-its-end",
        r#"printf 'one\ntwo\n' | slowly | run --rm $BOX $ID sh -c 'cat; echo end'"#,
        "one\ntwo\nend",
    ),
    Case::same(
        "stdin-of-a-megabyte-arrives-whole",
        r#"seq 1 150000 >in; run --rm $BOX $ID md5sum < <(slowly <in); md5sum - <in"#,
        "7489842b0541ae5fc3687cf5aaa26c66  -\n7489842b0541ae5fc3687cf5aaa26c66  -",
    ),
    Case::same(
        "stdin-that-nobody-reads",
        r#"seq 1 100000 | slowly | try run --rm $BOX $ID sleep 1"#,
        "status 0",
    ),
    Case::same(
        "no-stdin",
        r#"slowly </dev/null | try run --rm $BOX $ID cat"#,
        "status 0",
    ),
    Case::same(
        "the-end-of-stdin-by-close-io",
        r#"mkfifo in; run --rm $BOX $ID sh -c 'cat; echo end' <in & exec 7>in
        echo a >&7; await_status $ID RUNNING; rpc close-stdin $ID; exec 7>&-; wait"#,
        "a\nend",
    ),
    Case::same(
        "a-terminal",
        r#"terminal 80x24 ctr run --rm -t --runtime $RT $BOX $ID sh -c 'tty; echo a; echo b >&2' | od -c | head -4; echo ${PIPESTATUS[0]}"#,
        r"0000000   /   d   e   v   /   p   t   s   /   0  \r  \r  \n   a  \r  \r
0000020  \n   b  \r  \r  \n
0000025
0",
    ),
    Case::same(
        "a-terminals-size",
        r#"terminal 101x37 ctr run --rm -t --runtime $RT $BOX $ID sh -c 'sleep 0.4; stty size' | tr -d '\r'"#,
        "37 101",
    ),
    Case::same(
        "a-terminal-that-changes-its-size",
        r#"terminal 80x24 --on ready size=120x50 ctr run --rm -t --runtime $RT $BOX $ID \
            sh -c 'sleep 0.5; trap "stty size; exit" WINCH; stty size; echo ready; while :; do sleep 0.05; done' | tr -d '\r'"#,
        "24 80\nready\n50 120",
    ),
    Case::same(
        "resize-by-call",
        r#"terminal 80x24 ctr run -t --runtime $RT $BOX $ID sh -c 'sleep 0.5; trap "stty size; exit" WINCH; echo ready; while :; do sleep 0.05; done' >out &
        await 'grep -q ready out'; sleep 0.2; rpc resize $ID 99 33; wait; tr -d '\r' <out"#,
        "ready\n33 99",
    ),
    Case::same(
        "resize-without-a-terminal-is-no-error",
        r#"box sleep 100; try rpc resize $ID 99 33"#,
        "status 0",
    ),
    Case::same(
        "typing-into-a-terminal",
        r#"terminal 80x24 --on '# ' 'send=echo $((6*7)) .\n' --on '42 .' 'send=exit 5\n' ctr run --rm -t --runtime $RT $BOX $ID sh >out; echo $?; tr -d '\r' <out | grep -c '^42 \.$'"#,
        "5\n1",
    ),
    Case::same(
        "ctrl-c-in-a-terminal",
        r#"terminal 80x24 --on ready 'send=\x03' ctr run --rm -t --runtime $RT $BOX $ID sh -c 'trap "echo caught; exit 9" INT; echo ready; while :; do sleep 0.05; done' >out; echo $?; tr -d '\r' <out"#,
        "9\nready\n^Ccaught",
    ),
    Case::same(
        "detached-then-attached",
        r#"start $BOX $ID sh -c 'read line; echo got $line; exit 4'
        echo hello | try ctr t attach $ID"#,
        "got hello\nstatus 4",
    ),
    Case::same(
        "output-of-a-detached-container-waits-for-a-reader",
        r#"box sh -c 'sleep 0.5; echo early; sleep 1; echo late'; sleep 0.8; ctr t attach $ID"#,
        "early\nlate",
    ),
    Case::same(
        "a-log-file",
        r#"start --log-uri file://$DIR/logs/log $BOX $ID sh -c 'echo out; echo err >&2'
        await_status $ID STOPPED; await 'grep -q err logs/log && grep -q out logs/log'; sort logs/log; stat -c %a logs/log"#,
        "err\nout\n644",
    ),
    Case::same(
        "a-log-file-is-continued",
        r#"echo before >log; start --log-uri file://$DIR/log $BOX $ID seq 1 20000
        await_status $ID STOPPED; ctr t rm $ID >/dev/null; (echo before; seq 1 20000) | cmp - log && echo whole"#,
        "whole",
    ),
    Case::same(
        "a-logging-program",
        r#"cat >logger <<'END'
#!/bin/bash
cd "${0%/*}"; echo "$CONTAINER_ID $CONTAINER_NAMESPACE $#: $*" >args
cat <&3 >out 5>&- & cat <&4 >err 5>&- &
exec 5>&-
wait
END
        chmod +x logger
        start --log-uri "binary://$DIR/logger?key=a%20value" $BOX $ID sh -c 'echo out; echo err >&2'
        await_status $ID STOPPED; await 'grep -q err err'; cat out err args"#,
        "out\nerr\nID default 2: key a value",
    ),
    Case::same(
        "a-logging-program-that-is-missing",
        r#"fails 'no such file' start --log-uri binary://$DIR/nope $BOX $ID true"#,
        "fails: no such file",
    ),
    Case::same(
        "a-logging-program-that-fails",
        r#"printf '#!/bin/sh\nexit 3\n' >logger; chmod +x logger; try start --log-uri binary://$DIR/logger $BOX $ID sh -c 'echo x; sleep 0.2; exit 6'; rpc wait $ID"#,
        "status 0\n6",
    ),
    Case::same(
        "an-unknown-log-uri",
        r#"fails 'unknown|gopher' start --log-uri gopher://x $BOX $ID true"#,
        "fails: unknown|gopher",
    ),
    Case::same(
        "no-streams",
        r#"start --null-io $BOX $ID sh -c 'cat; echo a; echo b >&2; exit 8'; rpc wait $ID; run --rm --null-io $BOX $ID-2 ls -l /proc/self/fd"#,
        "8",
    ),
    Case::same(
        "dev-stdout-can-be-opened-again",
        r#"run --rm $BOX $ID sh -c 'echo a >/dev/stdout; echo b >/proc/self/fd/1; echo c >/dev/stderr' 2>/dev/null; run --rm --user 1000 $BOX $ID sh -c 'echo d >/dev/stdout' 2>&1"#,
        "a\nb\nd",
    ),
    Case::same(
        "a-grandchild-that-keeps-stdout-open",
        r#"start --log-uri file://$DIR/log $BOX $ID sh -c 'sleep 100 & echo a'; await_status $ID STOPPED
        before=$SECONDS; ctr t rm $ID; [ $((SECONDS - before)) -le 12 ] && echo soon; cat log"#,
        "soon\na",
    ),
];
